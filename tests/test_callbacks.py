"""Callbacks: early stopping, checkpoints, logs, averages, and when each is called."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cycnn
from cycnn import callbacks

from .helpers import normal, same_bits


class Figures(callbacks.Callback):
    """Put made-up figures into the logs, and keep the weights of each epoch."""

    def __init__(self, values):
        self.values, self.weights = list(values), []

    def on_epoch_end(self, trainer, epoch, logs):
        logs["val_loss"] = self.values[epoch - 1]
        self.weights.append(trainer.model[0].weight.data.copy())


@pytest.fixture
def fitted(rng):
    """Return a function that fits with callbacks."""
    x, y = normal(rng, (40, 4)), rng.integers(0, 3, 40)

    def fit(*parts, epochs=6, layers=None):
        layers = layers or [cycnn.Dense(3)]
        model = cycnn.Sequential(layers, input_shape=(4,), rng=0)
        trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.SGD(0.1), callbacks=parts)
        trainer.fit(x, y, epochs=epochs, batch_size=10, rng=0, verbose=0)
        return trainer, x, y

    return fit


def test_early_stopping_restores_the_best(fitted):
    figures = Figures([5, 4, 4.5, 4.2, math.nan, 1])
    trainer, x, y = fitted(figures, callbacks.EarlyStopping(patience=3))
    assert len(trainer.history.epochs) == 5
    assert same_bits(trainer.model[0].weight.data, figures.weights[1])
    figures.values += [0.5] * 5
    trainer.fit(x, y, epochs=1, verbose=0)  # another fit has its own patience
    assert len(trainer.history.epochs) == 6


def test_early_stopping_can_leave_the_last(fitted):
    figures = Figures([1, 2, 3, 4, 5, 6])
    trainer, _, _ = fitted(figures, callbacks.EarlyStopping(patience=2, restore_best=False))
    assert len(figures.weights) == 3
    assert same_bits(trainer.model[0].weight.data, figures.weights[-1])
    figures = Figures([1, 0.95, 0.85, 0.8, 0.7, 0.6])
    fitted(figures, callbacks.EarlyStopping(patience=2, min_delta=0.1, mode="min"))
    assert len(figures.weights) == 6
    figures = Figures([1, 2, 3, 2, 1, 5])
    fitted(figures, callbacks.EarlyStopping(patience=2, mode="max"))
    assert len(figures.weights) == 5


def test_the_best_model_is_on_the_disk(fitted, tmp_path):
    figures = Figures([3, 2, 4, 1, 5, 6])
    fitted(figures, callbacks.BestCheckpoint(tmp_path / "best"))
    assert same_bits(cycnn.load(tmp_path / "best")[0].weight.data, figures.weights[3])


def test_the_log_is_a_table(fitted, tmp_path):
    trainer, x, y = fitted(callbacks.CSVLog(tmp_path / "log.csv"), epochs=3)
    trainer.fit(x, y, validation=(x, y), verbose=0)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["loss"]) for row in rows] == trainer.history["loss"]
    assert rows[0]["val_loss"] == "" and float(rows[3]["val_loss"]) > 0


@pytest.mark.parametrize("decay", [0.5, 0.9, 1.0])
def test_the_average_of_the_weights(fitted, decay):
    seen = []

    class Watch(callbacks.Callback):
        def on_update_end(self, trainer):
            arrays = {n: p.data.copy() for n, p in trainer.model.parameters().items()}
            seen.append(arrays | {n: b.copy() for n, b in trainer.model.buffers().items()})

    average = callbacks.WeightAverage(decay)
    trainer, x, _ = fitted(average, Watch(), layers=[cycnn.Dense(3), cycnn.BatchNorm()])
    assert len(seen) == 24
    own = {n: p.data.copy() for n, p in trainer.model.parameters().items()}
    expected = {name: np.zeros(array.shape) for name, array in seen[0].items()}
    for n, arrays in enumerate(seen):
        keep = min(decay, n / (n + 1))
        expected = {k: keep * v + (1 - keep) * arrays[k] for k, v in expected.items()}
    if decay == 1:
        mean = np.mean([arrays["0.weight"] for arrays in seen], axis=0)
        assert_allclose(expected["0.weight"], mean, rtol=1e-6)
    before = trainer.model.predict(x)
    with average.applied(trainer.model):
        for name, parameter in trainer.model.parameters().items():
            assert_allclose(parameter.data, expected[name], rtol=1e-5, atol=1e-6)
        for name, buffer in trainer.model.buffers().items():
            assert_allclose(buffer, expected[name], rtol=1e-12)
        assert not same_bits(trainer.model.predict(x), before)
    assert all(same_bits(p.data, own[n]) for n, p in trainer.model.parameters().items())
    assert same_bits(trainer.model.predict(x), before)
    average.copy_to(trainer.model)
    assert_allclose(trainer.model[0].weight.data, expected["0.weight"], rtol=1e-5, atol=1e-6)


def test_when_each_is_called(fitted, tmp_path):
    calls = []

    class Watch(callbacks.Callback):
        def on_update_end(self, trainer):
            calls.append(f"update {trainer.optimizer.steps}")

        def on_epoch_end(self, trainer, epoch, logs):
            assert trainer.history.epochs[-1] is logs
            calls.append(f"epoch {epoch}")

        def on_fit_end(self, trainer):
            calls.append("fit")

    class Last(callbacks.Checkpoint):
        def on_epoch_end(self, trainer, epoch, logs):
            calls.append("checkpoint")

    fitted(Last(tmp_path / "file"), Watch(), lambda *arguments: calls.append("plain"), epochs=2)
    epoch = ["update {}", "update {}", "update {}", "update {}", "epoch {}", "plain", "checkpoint"]
    numbers = [1, 2, 3, 4, 1, 0, 0], [5, 6, 7, 8, 2, 0, 0]
    assert calls == [t.format(n) for part in numbers for t, n in zip(epoch, part, strict=True)] + [
        "fit"
    ]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: callbacks.EarlyStopping(patience=0), "patience.*0"),
        (lambda: callbacks.EarlyStopping(min_delta=-1), "min_delta.*-1"),
        (lambda: callbacks.BestCheckpoint("x", mode="low"), "mode.*'low'"),
        (lambda: callbacks.Checkpoint("x", every=0), "every.*0"),
        (lambda: callbacks.WeightAverage(0.0), "decay.*0"),
        (lambda: callbacks.WeightAverage(1.5), r"decay.*1\.5"),
        (lambda: callbacks.WeightAverage().copy_to(None), "update.*none"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_figure_that_is_not_there(fitted):
    with pytest.raises(KeyError, match="EarlyStopping.*loss, accuracy.*val_loss"):
        fitted(callbacks.EarlyStopping())
