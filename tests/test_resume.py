"""A training that was stopped, or killed, ends with the same bits as one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cycnn
from cycnn import callbacks, data

from .training_run import bits, fit, make, x, y


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return what a training that nothing stops ends with."""
    trainer = make(tmp_path_factory.mktemp("whole") / "file")
    history = fit(trainer)
    assert len(history.epochs) == 5
    return bits(trainer)


class Stop(Exception):
    """Stands for a crash."""


class Crash(callbacks.Callback):
    """Raise after so many updates, or epochs."""

    def __init__(self, updates=None, epochs=None):
        self.updates, self.epochs = updates, epochs

    def on_update_end(self, trainer):
        if trainer.optimizer.steps == self.updates:
            raise Stop

    def on_epoch_end(self, trainer, epoch, logs):
        if epoch == self.epochs:
            raise Stop


@pytest.mark.parametrize("every", [1, 3, None])
@pytest.mark.parametrize("crash", [{"updates": 1}, {"updates": 6}, {"updates": 17}, {"epochs": 2}])
def test_the_same_bits_after_a_crash(tmp_path, whole, every, crash):
    path = tmp_path / "training"
    trainer = make(path, every, [Crash(**crash)])
    with pytest.raises(Stop):
        fit(trainer)
    again = make(path, every, [Crash()])
    if path.exists():
        again.resume(path)
    history = fit(again, rng=99 if path.exists() else 1)
    assert bits(again) == whole
    assert history.epochs == whole[1]


def test_the_same_bits_after_ctrl_c_and_save(tmp_path, whole):
    def interrupt(trainer):
        if trainer.optimizer.steps == 8:
            os.kill(os.getpid(), signal.SIGINT) if os.name == "posix" else signal.raise_signal(2)

    hook = callbacks.Callback()
    hook.on_update_end = interrupt
    trainer = make(tmp_path / "unused", None, [hook])
    with pytest.raises(KeyboardInterrupt):
        fit(trainer)
    trainer.save(tmp_path / "training")
    again = make(tmp_path / "unused", None, [callbacks.Callback()])
    again.resume(tmp_path / "training")
    fit(again)
    assert bits(again) == whole


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_the_same_bits_after_any_number_of_kill_9(tmp_path, whole):
    """A process is killed at moments that nobody chose, and started again until it gets through."""
    path, done = tmp_path / "training", tmp_path / "done"
    script = str(Path(__file__).with_name("training_run.py"))
    environment = {**os.environ, "PYTHONPATH": str(Path(cycnn.__file__).parents[1])}
    rng, kills = np.random.default_rng(0), 0
    for _ in range(30):
        process = subprocess.Popen(
            [sys.executable, script, path, done],
            stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.12))
        if kills < 6 and process.poll() is None:
            process.kill()
            kills += 1
        process.communicate()
        if done.exists():
            break
    assert done.exists() and kills >= 2
    arrays, epochs = json.loads(done.read_text())
    assert (arrays, epochs) == whole


def test_more_epochs_and_second_fits(tmp_path, whole):
    """A resumed fit counts its epochs from where it began; between fits, nothing is pending."""
    path = tmp_path / "training"
    trainer = make(path)
    fit(trainer, 3)
    done = make(path)
    done.resume(path)
    assert len(fit(done, 3).epochs) == 3
    assert bits(done) == bits(trainer)
    longer = make(path)
    longer.resume(path)
    assert len(fit(longer, 4).epochs) == 4
    trainer.save(path)  # now between two fits
    other = make(tmp_path / "other")
    other.resume(path)
    for each in (trainer, other):
        assert len(fit(each, 1, rng=7).epochs) == 1
    assert bits(other) == bits(trainer)
    assert len(other.history.epochs) == 4


def test_a_stop_by_a_callback_is_remembered(tmp_path):
    path = tmp_path / "training"
    stop = lambda trainer, epoch, logs: epoch == 2  # noqa: E731
    trainer = make(path, None, [stop])
    assert len(fit(trainer).epochs) == 2
    again = make(path, None, [stop])
    again.resume(path)
    assert len(fit(again).epochs) == 2
    assert bits(again) == bits(trainer)


@pytest.mark.parametrize("generator", [np.random.MT19937, np.random.SFC64, np.random.Philox])
def test_any_generator(tmp_path, generator):
    results = []
    for crash in (None, 6):
        path = tmp_path / f"{crash}"
        trainer = make(path, 1, [Crash(crash)])
        rng = np.random.Generator(generator(5))
        if crash:
            with pytest.raises(Stop):
                fit(trainer, 2, rng=rng)
            trainer = make(path, 1, [Crash()])
            trainer.resume(path)
            rng = np.random.Generator(generator(6))
        fit(trainer, 2, rng=rng)
        results.append((bits(trainer), rng.random()))
    assert results[0] == results[1]


def test_a_stream_goes_on_where_it_stopped(tmp_path):
    batches = [(x[i : i + 20], y[i : i + 20]) for i in range(0, 200, 20)]
    results = []
    for crash in (None, 4):
        trainer = make(tmp_path / f"{crash}", 1, [Crash(crash)])
        options = {"epochs": 2, "validation": (x[:20], y[:20]), "accumulate": 2, "verbose": 0}
        options |= {"augment": data.random_noise, "rng": 4}
        if crash:
            with pytest.raises(Stop):
                trainer.fit(batches, **options)
            trainer = make(tmp_path / f"{crash}", 1, [Crash()])
            trainer.resume(tmp_path / f"{crash}")
        trainer.fit(batches, **options)
        results.append(bits(trainer))
    assert results[0] == results[1]


def test_what_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "training"
    trainer = make(path, 2, [Crash(5)])
    with pytest.raises(Stop):
        fit(trainer)
    again = make(path, 2, [Crash()])
    again.resume(path)
    with pytest.raises(ValueError, match="batch_size.*16.*batch_size.*32"):
        fit(again, batch_size=32)
    before = bits(other := make(path))
    with pytest.raises(ValueError, match="callbacks.*EarlyStopping.*Crash"):
        other.resume(path)
    assert bits(other) == before
    other.optimizer = cycnn.SGD(0.1)
    with pytest.raises(ValueError, match="SGD instead of AdamW"):
        other.resume(path)
    with pytest.raises(cycnn.ModelFileError, match="cycnn-training"):
        cycnn.load(path)
    other.model.save(path)
    with pytest.raises(cycnn.ModelFileError, match="cycnn-training"):
        again.resume(path)
    with pytest.raises(FileNotFoundError):
        again.resume(tmp_path / "nothing")


def test_35_damage_is_noticed(tmp_path):
    path = tmp_path / "training"
    fit(make(path), 1)
    whole_file = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(whole_file), 40):
        damaged = bytearray(whole_file)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        trainer = make(path)
        try:
            trainer.resume(path)
        except (cycnn.ModelFileError, ValueError):
            continue
        fresh = make(tmp_path / "other")
        path.write_bytes(whole_file)  # a byte that says nothing, such as a date
        fresh.resume(path)
        assert bits(fresh) == bits(trainer)
    path.write_bytes(whole_file[:-100])
    with pytest.raises(cycnn.ModelFileError):
        make(path).resume(path)


def test_find_lr_leaves_everything_as_it_was(tmp_path):
    trainer = make(tmp_path / "file")
    fit(trainer, 1)
    before = bits(trainer)
    curve = trainer.find_lr(x, y, steps=30, rng=0)
    assert bits(trainer) == before
    twin = make(tmp_path / "twin")
    fit(twin, 1)
    for each in (trainer, twin):
        fit(each, 1)
    assert bits(trainer) == bits(twin)
    assert curve.learning_rate.shape == curve.loss.shape and len(curve.loss) > 10
    assert np.all(np.diff(curve.learning_rate) > 0)
