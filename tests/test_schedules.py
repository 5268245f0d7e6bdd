"""Schedules: values, state, what they refuse, and that a trainer tells them of its epochs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cycnn
from cycnn import schedules


def test_values():
    slope = math.sqrt(2) / 8
    rates = {
        schedules.Step(0.8, 3, 0.5): [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2],
        schedules.Exponential(0.8, 2, 0.25): [0.8, 0.4, 0.2, 0.1],
        schedules.Cosine(1.0, 4, 0.5): [1, 0.75 + slope, 0.75, 0.75 - slope, 0.5, 0.5],
        schedules.Warmup(schedules.Step(1.0, 2), 3): [0.25, 0.5, 0.75, 1, 1, 0.1],
        schedules.Constant(0.5): [0.5, 0.5],
    }
    for schedule, expected in rates.items():
        assert_allclose([schedule(step) for step in range(len(expected))], expected, rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
def test_one_cycle_goes_up_once_and_down_once(steps):
    cycle = schedules.OneCycle(1.0, steps)
    rates = [cycle(step) for step in range(steps + 3)]
    top = int(np.argmax(rates))
    assert all(np.diff(rates[: top + 1]) >= 0) and all(np.diff(rates[top:]) <= 0)
    assert 0 <= min(rates) and max(rates) <= 1
    assert rates[-1] == rates[steps - 1]


def test_plateau_waits_for_patience():
    schedule = schedules.ReduceOnPlateau(1.0, "val_loss", 0.1, patience=2, minimum=0.05)
    rates = []
    for loss in (1.0, 0.9, 0.9, 0.95, 0.8, math.nan, 0.9, 0.9, 0.9):
        schedule.end_epoch({"val_loss": loss})
        rates.append(schedule(0))
    assert_allclose(rates, [1, 1, 1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05])
    twin = schedules.ReduceOnPlateau(1.0, "val_loss", 0.1, patience=2, minimum=0.05)
    twin.load_state(schedule.state())
    assert twin.state() == schedule.state()
    up = schedules.ReduceOnPlateau(1.0, "val_accuracy", patience=1)
    for value in (0.5, 0.6, 0.55):
        up.end_epoch({"val_accuracy": value})
    assert_allclose(up(0), 0.1)


def test_a_trainer_tells_its_schedule(rng):
    model = cycnn.Sequential([cycnn.Dense(3)], input_shape=(4,), rng=0)
    schedule = schedules.Warmup(schedules.ReduceOnPlateau(1e-9, "loss", 0.5, 1, 1.0), 2)
    optimizer = cycnn.SGD(schedule)
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), optimizer)
    x, y = rng.normal(size=(20, 4)), rng.integers(0, 3, 20)
    trainer.fit(x, y, epochs=4, verbose=0)
    assert_allclose(schedule(100), 1e-9 / 8)
    other = cycnn.SGD(schedules.ReduceOnPlateau(1e-9, "loss", 0.5, 1, 1.0))
    other.load_state(optimizer.state())
    assert_allclose(other.learning_rate(0), 1e-9 / 8)
    with pytest.raises(ValueError, match="Constant: the state"):
        cycnn.SGD(0.1).load_state(optimizer.state())


def test_a_figure_that_is_not_there():
    with pytest.raises(KeyError, match="val_loss.*|loss"):
        schedules.ReduceOnPlateau(0.1).end_epoch({"loss": 1.0})


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: schedules.Step(-0.1, 10), "Step: start.*-0.1"),
        (lambda: schedules.Step(0.1, 0), "Step: every.*0"),
        (lambda: schedules.Step(0.1, 10, 1.5), r"Step: factor.*1\.5"),
        (lambda: schedules.Exponential(0.1, 10, 0.0), "factor.*0"),
        (lambda: schedules.Cosine(0.1, 1.5), r"steps.*1\.5"),
        (lambda: schedules.Cosine(0.1, 10, float("nan")), "end.*nan"),
        (lambda: schedules.OneCycle(0.1, 10, rise=1.0), "rise.*1"),
        (lambda: schedules.OneCycle(0.1, 10, end_divisor=0.5), r"end_divisor.*0\.5"),
        (lambda: schedules.Warmup("0.1", 10), "learning_rate.*'0.1'"),
        (lambda: schedules.Warmup(0.1, 0), "steps.*0"),
        (lambda: schedules.ReduceOnPlateau(0.1, patience=0), "patience.*0"),
        (lambda: schedules.ReduceOnPlateau(0.1, mode="up"), "mode.*'up'"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
