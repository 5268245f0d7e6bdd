"""Learning rates as a function of the update's number."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod


class Schedule(ABC):
    """A learning rate for every update: `schedule(step)`, where step counts updates from 0.

    A schedule holds no state of its own; the optimizer counts, so a second `fit` continues
    where the first one stopped.

    Examples
    --------
    >>> class Halving(Schedule):
    ...     def __call__(self, step):
    ...         return 0.1 * 0.5 ** (step // 1000)
    >>> Halving()(2500)
    0.025
    """

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the learning rate of update number `step`."""


class Constant(Schedule):
    """The same learning rate for every update.

    Parameters
    ----------
    value : float
        Finite and not negative.
    """

    def __init__(self, value: float) -> None:
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"learning_rate must be finite and not negative, got {value!r}")
        self.value = float(value)

    def __call__(self, step: int) -> float:
        """Return the value."""
        return self.value

    def __repr__(self) -> str:
        return f"Constant({self.value:g})"


def as_schedule(learning_rate: float | Schedule) -> Schedule:
    """Return a schedule as it is and a number as a `Constant`; anything else is a TypeError."""
    if isinstance(learning_rate, Schedule):
        return learning_rate
    if isinstance(learning_rate, bool) or not hasattr(learning_rate, "__float__"):
        raise TypeError(f"learning_rate must be a number or a Schedule, got {learning_rate!r}")
    return Constant(float(learning_rate))
