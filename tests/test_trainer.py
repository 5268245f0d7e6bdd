"""Trainer: what one step does, what fit reports, how it stops."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cycnn

from . import reference
from .helpers import normal, same_bits


def linear(dtype="float64", features=3):
    """Return a network of one layer."""
    return cycnn.Sequential([cycnn.Dense(features)], input_shape=(4,), rng=0, dtype=dtype)


def trainer_of(model, optimizer=None, **options):
    """Return a trainer of a classifier."""
    optimizer = optimizer or cycnn.SGD(0.1)
    return cycnn.Trainer(model, cycnn.CrossEntropy(), optimizer, **options)


def arrays(model):
    """Return copies of all parameters and buffers."""
    return [p.data.copy() for p in model.parameters().values()] + [
        b.copy() for b in model.buffers().values()
    ]


@pytest.fixture
def data(rng):
    """Return rows that a linear classifier can tell apart."""
    x = normal(rng, (90, 4), "float64")
    return x, np.argmax(x[:, :3], 1)


def test_a_step_is_the_update_by_hand(data):
    x, y = data
    model = linear()
    weight, bias = arrays(model)
    value = trainer_of(model, cycnn.SGD(0.5)).step(x, y)
    expected, dlogits = reference.softmax_cross_entropy(reference.dense(x, weight, bias), y)
    _, dweight, dbias = reference.dense_backward(dlogits, x, weight)
    assert_allclose(value, expected, rtol=1e-12)
    assert_allclose(arrays(model)[0], weight - 0.5 * dweight, rtol=1e-10)
    assert_allclose(arrays(model)[1], bias - 0.5 * dbias, rtol=1e-10, atol=1e-14)
    assert not any(p.grad.any() for p in model.parameters().values())


@pytest.mark.parametrize(
    "optimizer",
    [cycnn.SGD(0.5), cycnn.SGD(0.1, momentum=0.9), cycnn.SGD(0.1, momentum=0.9, nesterov=True),
     cycnn.Adam(0.05)],
    ids=["sgd", "momentum", "nesterov", "adam"],
)  # fmt: skip
def test_fit_learns(data, optimizer):
    x, y = data
    trainer = trainer_of(linear(), optimizer)
    history = trainer.fit(x, y, epochs=40, batch_size=16, rng=0, verbose=0)
    assert len(history["loss"]) == len(history.epochs) == 40
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    scores = trainer.evaluate(x, y)
    assert scores["accuracy"] > 0.9
    predicted = trainer.model.predict(x).argmax(1)
    assert_allclose(scores["accuracy"], (predicted == y).mean(), rtol=1e-12)


def test_the_same_seed_gives_the_same_bits(data):
    x, y = data
    runs = []
    for _ in range(2):
        model = linear("float32")
        trainer_of(model).fit(x, y, epochs=3, batch_size=16, rng=5, verbose=0)
        runs.append(arrays(model))
    assert all(map(same_bits, *runs))
    trainer_of(model := linear("float32")).fit(x, y, epochs=3, batch_size=16, rng=6, verbose=0)
    assert not all(map(same_bits, runs[0], arrays(model)))


def test_a_second_fit_continues(data, capsys):
    x, y = data
    options = {"batch_size": 16, "shuffle": False}
    one, two = linear(), linear()
    trainer_of(one, cycnn.Adam(0.01)).fit(x, y, epochs=4, verbose=0, **options)
    trainer = trainer_of(two, cycnn.Adam(0.01))
    assert len(trainer.fit(x, y, epochs=3, verbose=0, **options).epochs) == 3
    assert len(trainer.fit(x, y, epochs=1, verbose=2, **options).epochs) == 1
    assert all(map(same_bits, arrays(one), arrays(two)))
    assert len(trainer.history.epochs) == 4
    assert "4/4" in capsys.readouterr().out


def test_accumulated_batches_are_one_large_batch(data):
    x, y = data
    one, two = linear(), linear()
    weights = np.linspace(0.5, 2, len(x))
    options = {"epochs": 2, "shuffle": False, "verbose": 0, "sample_weight": weights}
    trainer_of(one).fit(x, y, batch_size=40, **options)
    trainer_of(two).fit(x, y, batch_size=10, accumulate=4, **options)
    for a, b in zip(arrays(one), arrays(two), strict=True):
        assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def test_rows_of_weight_zero_are_left_out(data):
    x, y = data
    weight = (np.arange(len(x)) % 3 > 0).astype("float64")
    one, two = linear(), linear()
    options = {"epochs": 2, "batch_size": 16, "shuffle": False, "verbose": 0}
    trainer_of(one).fit(x, y, sample_weight=weight, **options)
    trainer_of(two).fit(x[weight > 0], y[weight > 0], **options)
    for a, b in zip(arrays(one), arrays(two), strict=True):
        assert_allclose(a, b, rtol=1e-12)


def test_class_weights_multiply(data):
    x, y = data
    one, two, three = linear(), linear(), linear()
    options = {"epochs": 1, "batch_size": 90, "shuffle": False, "verbose": 0}
    trainer_of(one).fit(x, y, class_weight={0: 2.0, 2: 0.5}, **options)
    trainer_of(two).fit(x, y, class_weight=[2.0, 1.0, 0.5], **options)
    trainer_of(three).fit(x, y, sample_weight=np.array([2.0, 1.0, 0.5])[y], **options)
    for a, b, c in zip(*map(arrays, (one, two, three)), strict=True):
        assert_allclose(a, b, rtol=1e-12)
        assert_allclose(a, c, rtol=1e-12)


def test_validation_by_rows_and_by_fraction(data):
    x, y = data
    history = trainer_of(linear()).fit(x, y, epochs=2, validation=(x[:9], y[:9]), verbose=0)
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(history)
    trainer = trainer_of(model := linear())
    seen = []
    trainer.fit(x, y, validation=1 / 3, augment=lambda b, _: seen.append(b.copy()) or b, verbose=0)
    assert sum(map(len, seen)) == 60
    seen.clear()
    held_out = {tuple(row) for row in x}
    trainer.fit(x, y, validation=1 / 3, augment=lambda b, _: seen.append(b.copy()) or b, verbose=0)
    held_out -= {tuple(row) for batch in seen for row in batch}
    assert len(held_out) == 30  # the same rows as before, and the model never saw them
    with pytest.raises(ValueError, match=r"1\.5"):
        trainer.fit(x, y, validation=1.5, verbose=0)
    assert model is trainer.model


def test_callbacks_end_training(data):
    x, y = data
    epochs = []
    trainer = trainer_of(linear(), callbacks=[lambda t, epoch, logs: epochs.append(epoch)])
    trainer.fit(x, y, epochs=2, verbose=0)
    assert epochs == [1, 2]
    trainer = trainer_of(linear(), callbacks=[lambda t, epoch, logs: epoch == 3])
    assert len(trainer.fit(x, y, epochs=9, verbose=0).epochs) == 3


def test_images_of_bytes_are_cast_batch_by_batch(rng):
    x, y = rng.integers(0, 256, (20, 6, 6, 1), dtype=np.uint8), rng.integers(0, 3, 20)
    layers = [cycnn.Conv(4, 3), cycnn.Flatten(), cycnn.Dense(3)]
    one = cycnn.Sequential(layers, input_shape=(6, 6, 1), rng=0)
    two = cycnn.Sequential(
        [cycnn.Conv(4, 3), cycnn.Flatten(), cycnn.Dense(3)], input_shape=(6, 6, 1), rng=0
    )
    for model, images in ((one, x), (two, x.astype("float32"))):
        trainer_of(model, cycnn.SGD(1e-6)).fit(images, y, epochs=2, rng=0, verbose=0)
    assert all(map(same_bits, arrays(one), arrays(two)))


def test_progress_says_what_happens(data, capsys):
    x, y = data
    trainer_of(linear()).fit(x, y, epochs=2, verbose=2)
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2
    assert "1/2" in lines[0] and "loss" in lines[0] and "accuracy" in lines[0]
    trainer_of(linear()).fit(x, y, epochs=2, verbose=0)
    assert capsys.readouterr().out == ""
    trainer_of(linear()).fit(x, y, epochs=1, verbose=1)
    assert "1/1" in capsys.readouterr().out


def test_the_state_of_an_optimizer_can_be_taken_up(data):
    x, y = data
    for make in (lambda: cycnn.Adam(0.01), lambda: cycnn.SGD(0.1, momentum=0.9)):
        model = linear()
        trainer = trainer_of(model, make())
        for _ in range(3):
            trainer.step(x, y)
        other = linear()
        for name, p in other.parameters().items():
            p.assign(model.parameters()[name].data)
        resumed = trainer_of(other, make())
        resumed.optimizer.load_state(trainer.optimizer.state())
        for _ in range(2):
            trainer.step(x, y)
            resumed.step(x, y)
        assert all(map(same_bits, arrays(model), arrays(other)))


def test_frozen_layers_do_not_move(data):
    x, y = data
    model = cycnn.Sequential(
        [cycnn.Dense(5), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.Dense(3)], input_shape=(4,), rng=0
    )
    model[0].freeze()
    model[1].freeze()
    before = [p.data.copy() for p in model[:2].parameters().values()]
    statistics = [b.copy() for b in model.buffers().values()]
    head = model[3].weight.data.copy()
    trainer_of(model).fit(x, y, epochs=2, verbose=0)
    assert all(map(same_bits, before, [p.data for p in model[:2].parameters().values()]))
    assert all(map(same_bits, statistics, model.buffers().values()))
    assert not same_bits(model[3].weight.data, head)


def test_clip_norm_bounds_the_update(data):
    x, y = data
    model = linear()
    before = arrays(model)
    trainer_of(model, cycnn.SGD(1.0, clip_norm=1e-3)).step(x, y)
    moved = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(arrays(model), before, strict=True)))
    assert_allclose(moved, 1e-3, rtol=1e-9)


def test_learning_rate_may_be_a_schedule(data):
    class Off(cycnn.Schedule):
        """Nothing from the second update on."""

        def __call__(self, step):
            return 0.1 if step == 0 else 0.0

    x, y = data
    model = linear()
    trainer = trainer_of(model, cycnn.SGD(Off()))
    start = arrays(model)
    trainer.step(x, y)
    after = arrays(model)
    trainer.step(x, y)
    assert not all(map(same_bits, start, after))
    assert all(map(same_bits, after, arrays(model)))


def test_divergence_stops_and_keeps_the_last_good_weights(data):
    x, y = data
    model = linear("float32")
    trainer = trainer_of(model, cycnn.SGD(1e30))
    with pytest.raises(FloatingPointError, match=r"epoch \d.*batch \d") as caught:
        trainer.fit(1e6 * x, y, epochs=5, batch_size=16, rng=0, verbose=0)
    assert "learning" in str(caught.value) or "finite" in str(caught.value)
    assert all(np.isfinite(a).all() for a in arrays(model))
    assert np.isfinite(model.predict(x)).all()


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_44_an_interrupt_comes_between_two_updates(rng):
    x, y = normal(rng, (64, 4), "float64"), rng.integers(0, 3, 64)
    model = linear()
    trainer = trainer_of(model)
    sent = []

    def interrupt():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3, interrupt)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(x, y, epochs=1_000_000, batch_size=16, verbose=0)
    finally:
        timer.cancel()
    assert time.perf_counter() - sent[0] < 1
    assert all(np.isfinite(a).all() for a in arrays(model))
    trainer.fit(x, y, epochs=1, verbose=0)  # and training goes on


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epochs": -1}, "epochs.*-1"),
        ({"batch_size": 0}, "batch_size.*0"),
        ({"accumulate": 0}, "accumulate.*0"),
        ({"verbose": 7}, "verbose.*7"),
        ({"sample_weight": np.zeros(90)}, "weight"),
        ({"sample_weight": np.ones(9)}, "sample_weight.*9"),
        ({"sample_weight": -np.ones(90)}, "negative"),
        ({"class_weight": [0.0, 0.0, 0.0]}, "weight"),
        ({"class_weight": [1.0, 1.0]}, "class_weight"),
    ],
)
def test_wrong_arguments_are_named_before_training(data, options, message):
    model = linear()
    before = arrays(model)
    with pytest.raises((TypeError, ValueError), match=message):
        trainer_of(model).fit(*data, **({"verbose": 0} | options))
    assert all(map(same_bits, before, arrays(model)))


def test_wrong_parts_are_refused():
    with pytest.raises(TypeError, match="loss"):
        cycnn.Trainer(linear(), cycnn.SGD(0.1), cycnn.SGD(0.1))
    with pytest.raises(TypeError, match="optimizer"):
        cycnn.Trainer(linear(), cycnn.CrossEntropy(), 0.1)


def test_digits_are_there_and_can_be_learnt():
    (x, y), (x_test, y_test) = cycnn.datasets.digits()
    assert x.shape == (1437, 8, 8, 1) and x_test.shape == (360, 8, 8, 1)
    assert y.shape == (1437,) and y_test.shape == (360,)
    assert set(np.unique(y)) == set(range(10))
    counts, test_counts = np.bincount(y), np.bincount(y_test)
    assert np.all(np.abs(test_counts - (counts + test_counts) / 5) <= 1)  # stratified
    model = cycnn.Sequential(
        [cycnn.Conv(16, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.MaxPool(2),
         cycnn.Flatten(), cycnn.Dense(10)], input_shape=(8, 8, 1), rng=0,
    )  # fmt: skip
    trainer = trainer_of(model, cycnn.Adam(5e-3))
    trainer.fit(x, y, epochs=6, rng=0, verbose=0)
    assert trainer.evaluate(x_test, y_test)["accuracy"] > 0.93
