"""`fit` on an iterable of batches, and `find_lr`."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cycnn

from .helpers import normal, same_bits


def trainer_of(loss=None, optimizer=None, dtype="float64"):
    """Return the trainer of a linear classifier."""
    model = cycnn.Sequential([cycnn.Dense(3)], input_shape=(4,), rng=0, dtype=dtype)
    return cycnn.Trainer(model, loss or cycnn.CrossEntropy(), optimizer or cycnn.Adam(0.05))


def weight(trainer):
    """Return the weight of its only layer."""
    return trainer.model[0].weight.data


@pytest.fixture
def data(rng):
    """Return rows that a linear classifier can tell apart."""
    x = normal(rng, (90, 4), "float64")
    return x, np.argmax(x[:, :3], 1)


class Again:
    """Yield batches anew each time; it has no length."""

    def __init__(self, *arrays, size=16):
        self.arrays, self.size = arrays, size

    def __iter__(self):
        for start in range(0, len(self.arrays[0]), self.size):
            yield tuple(a[start : start + self.size] for a in self.arrays)


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_batches_are_as_good_as_arrays(data, rng, weighted, accumulate):
    arrays = (*data, rng.random(90) + 0.1) if weighted else data
    one, two, three = trainer_of(), trainer_of(), trainer_of()
    options = {"epochs": 3, "accumulate": accumulate, "verbose": 0}
    first = one.fit(
        *data, batch_size=16, shuffle=False, sample_weight=arrays[2] if weighted else None,
        validation=data, **options,
    )  # fmt: skip
    second = two.fit(Again(*arrays), validation=data, **options)
    three.fit(list(Again(*arrays)), **options)
    assert same_bits(weight(two), weight(three))
    assert_allclose(weight(one), weight(two), rtol=1e-12)  # sums of weights are rounded otherwise
    assert weighted or same_bits(weight(one), weight(two))
    for name in first:
        assert_allclose(first[name], second[name], rtol=1e-12)


def test_memory_that_a_source_uses_again(data):
    def source():
        x, y = np.empty((10, 4)), np.empty(10, int)
        for start in range(0, 90, 10):
            x[:], y[:] = data[0][start : start + 10], data[1][start : start + 10]
            yield x, y.copy()

    one, two = trainer_of(), trainer_of()
    one.fit(source(), accumulate=3, verbose=0)
    two.fit(*data, batch_size=10, accumulate=3, shuffle=False, verbose=0)
    assert same_bits(weight(one), weight(two))


def test_progress_of_an_unknown_length(data, capsys):
    trainer_of().fit(Again(*data), epochs=2, verbose=1)
    assert "2/2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda x, y: {"x": [(x, y)], "sample_weight": np.ones(90)}, "sample_weight.*batches"),
        (lambda x, y: {"x": [(x, y)], "class_weight": {0: 2.0}}, "class_weight.*batches"),
        (lambda x, y: {"x": [(x, y)], "validation": 0.1}, "validation.*0.1"),
        (lambda x, y: {"x": iter([(x, y)]), "epochs": 2}, "epochs.*iterator.*2"),
        (lambda x, y: {"x": []}, "at least one batch"),
        (lambda x, y: {"x": [x]}, r"\(x, y\).*ndarray"),
        (lambda x, y: {"x": [(x, y, y, y)]}, r"\(x, y\).*tuple"),
        (lambda x, y: {"x": [(x[:, :3], y)]}, r"\(N, 4\).*\(90, 3\)"),
        (lambda x, y: {"x": [(x, y[:5])]}, r"90.*\(5,\)"),
        (lambda x, y: {"x": [(x, y + 1)]}, "labels.*3"),
        (lambda x, y: {"x": [(x, y, -np.ones(90))]}, "negative"),
        (lambda x, y: {"x": x}, "y must hold a target"),
    ],
)
def test_wrong_batches_are_named(data, make, message):
    trainer = trainer_of()
    with pytest.raises((TypeError, ValueError), match=message):
        trainer.fit(**make(*data), verbose=0)
    assert same_bits(weight(trainer), weight(trainer_of()))


def test_find_lr(data):
    trainer = trainer_of(optimizer=cycnn.SGD(0.1, momentum=0.9))
    trainer.step(*data)
    before, state = weight(trainer).copy(), trainer.optimizer.state()
    curve = trainer.find_lr(*data, lowest=1e-4, highest=1e4, steps=60, rng=0)
    assert_allclose(curve.learning_rate, np.geomspace(1e-4, 1e4, 60)[: len(curve.loss)])
    assert curve.loss[-1] > 2 * curve.loss.min()  # far too high
    assert_allclose(curve.suggestion, curve.learning_rate[curve.loss.argmin()] / 10)
    assert same_bits(weight(trainer), before)
    assert trainer.optimizer.learning_rate(0) == 0.1 and not trainer.history.epochs
    after = trainer.optimizer.state()
    assert state.keys() == after.keys() and all(same_bits(state[k], after[k]) for k in state)
    again = trainer.find_lr(*data, lowest=1e-4, highest=1e4, steps=60, rng=0)
    assert same_bits(curve.loss, again.loss)
    curve = trainer.find_lr(*data, rng=0)
    trainer = trainer_of(optimizer=cycnn.SGD(curve.suggestion, momentum=0.9))
    assert trainer.fit(*data, epochs=20, rng=0, verbose=0)["loss"][-1] < 0.5


def test_find_lr_refuses(data):
    for options, message in (
        ({"lowest": 0.0}, "lowest"), ({"lowest": 2.0}, "lowest"), ({"steps": 1}, "steps.*1"),
        ({"highest": float("nan")}, "nan"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            trainer_of().find_lr(*data, **options)
    trainer = trainer_of()
    trainer.model[0].bias.assign([np.inf, 0, 0])
    with pytest.raises(cycnn.TrainingError, match="lowest"):
        trainer.find_lr(*data)
