"""The range test: which learning rates make the loss fall."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cycnn._check import Array
from cycnn.data import Batches
from cycnn.graph import Model
from cycnn.guard import LastGood, TrainingError, random_states, set_random_states
from cycnn.history import RateCurve
from cycnn.optim import Optimizer
from cycnn.schedules import Constant

_KEPT = 0.9  # of the running mean of the losses, at each update
_RISE = 4.0  # times the smallest loss: there the test ends


def sweep_rates(
    update: Callable[..., dict[str, float]],
    data: Batches,
    model: Model,
    optimizer: Optimizer,
    rates: Array,
) -> RateCurve:
    """Update once with each rate and return the losses; model and optimizer come back as they were.

    `update(batches, weight, metrics)` is that of a `Trainer`; see `Trainer.find_lr`.
    """
    before, drawn, schedule = (
        LastGood(model, optimizer),
        random_states(model),
        optimizer.learning_rate,
    )
    losses: list[float] = []
    mean, smallest = 0.0, math.inf
    try:
        updates = zip(rates, _endless(data), strict=False)
        for number, (rate, (batches, weight)) in enumerate(updates, 1):
            optimizer.learning_rate = Constant(rate)
            mean = _KEPT * mean + (1 - _KEPT) * update(batches, weight, {})["loss"] / weight
            losses.append(mean / (1 - _KEPT**number))
            smallest = min(smallest, losses[-1])
            if losses[-1] > _RISE * smallest:
                break
    except TrainingError:
        pass  # the rate is too high: the curve ends here
    finally:
        optimizer.learning_rate = schedule
        before.restore()
        set_random_states(model, drawn)
    if not losses:
        raise TrainingError("find_lr: the loss must be finite at the lowest rate, it is not")
    return RateCurve(rates[: len(losses)], np.array(losses))


def _endless(data: Batches) -> Iterator[tuple[Any, float]]:
    while True:
        yield from data.epoch()
