"""Learning rates as a function of the update's number."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

from cycnn._check import positive_int, real_number


class Schedule(ABC):
    """A learning rate for every update: `schedule(step)`, where step counts updates from 0.

    The optimizer counts, so a second `fit` continues where the first one stopped. A schedule that
    also learns from the figures of each epoch says in `state` what it learnt.

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

    def end_epoch(self, logs: Mapping[str, float]) -> None:  # noqa: B027 (few care)
        """Take notice of the figures of an epoch; a `Trainer` calls this after each one."""

    def state(self) -> dict[str, float]:
        """Return what `end_epoch` has learnt; `load_state` takes it."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from `state`, a result of `state()` of a schedule of the same kind."""
        if set(state) != set(self.state()):
            raise ValueError(
                f"{type(self).__name__}: the state must hold {sorted(self.state())}, "
                f"got {sorted(state)}"
            )
        for name, value in state.items():
            setattr(self, name, value)


class Constant(Schedule):
    """The same learning rate for every update.

    Parameters
    ----------
    value : float
        Finite and not negative.
    """

    def __init__(self, value: float) -> None:
        self.value = _rate("learning_rate", value)

    def __call__(self, step: int) -> float:
        """Return the value."""
        return self.value

    def __repr__(self) -> str:
        return f"Constant({self.value:g})"


class Step(Schedule):
    """A learning rate that falls at once, again and again: start * factor^floor(step / every).

    Parameters
    ----------
    start : float
    every : int
        Updates between two falls.
    factor : float
        In (0, 1].

    Examples
    --------
    >>> [Step(0.1, 1000, 0.5)(step) for step in (0, 999, 1000, 2500)]
    [0.1, 0.1, 0.05, 0.025]
    """

    def __init__(self, start: float, every: int, factor: float = 0.1) -> None:
        self.start, self.every = _rate("Step: start", start), positive_int(every, "Step: every")
        self.factor = _share("Step: factor", factor)

    def __call__(self, step: int) -> float:
        """Return start * factor^floor(step / every)."""
        return self.start * self.factor ** (step // self.every)


class Exponential(Schedule):
    """A learning rate that falls steadily: start * factor^(step / every).

    Parameters
    ----------
    start : float
    every : int
        The updates in which it falls by `factor`.
    factor : float
        In (0, 1].

    Examples
    --------
    >>> round(Exponential(0.1, 1000, 0.25)(500), 6)
    0.05
    """

    def __init__(self, start: float, every: int, factor: float = 0.1) -> None:
        self.start = _rate("Exponential: start", start)
        self.every = positive_int(every, "Exponential: every")
        self.factor = _share("Exponential: factor", factor)

    def __call__(self, step: int) -> float:
        """Return start * factor^(step / every)."""
        return float(self.start * self.factor ** (step / self.every))


class Cosine(Schedule):
    """A learning rate that falls along half a cosine, from `start` to `end`, and stays there.

    end + (start - end) (1 + cos(pi step / steps)) / 2: Loshchilov and Hutter (2017), eq. 5,
    without restarts.

    Parameters
    ----------
    start : float
    steps : int
        Updates until `end`: epochs times the updates of an epoch.
    end : float

    Examples
    --------
    >>> [round(Cosine(0.1, 100)(step), 4) for step in (0, 50, 100, 200)]
    [0.1, 0.05, 0.0, 0.0]
    """

    def __init__(self, start: float, steps: int, end: float = 0.0) -> None:
        self.start, self.end = _rate("Cosine: start", start), _rate("Cosine: end", end)
        self.steps = positive_int(steps, "Cosine: steps")

    def __call__(self, step: int) -> float:
        """Return the learning rate of update number `step`."""
        return _cosine(self.start, self.end, min(step / self.steps, 1.0))


class OneCycle(Schedule):
    """One cycle: up to `peak`, then down to nearly nothing, both along half a cosine.

    Smith and Topin (2018), "Super-convergence", in the form of PyTorch's `OneCycleLR`: the rise
    ends at update `rise * steps - 1`, the fall at update `steps - 1`.

    Parameters
    ----------
    peak : float
    steps : int
        All updates: epochs times the updates of an epoch.
    rise : float
        In (0, 1): the share of the updates that go up.
    start_divisor, end_divisor : float
        It starts at peak / start_divisor and ends at peak / start_divisor / end_divisor.

    Examples
    --------
    >>> cycle = OneCycle(0.1, 100)
    >>> [float(f"{cycle(step):.4g}") for step in (0, 29, 99)]
    [0.004, 0.1, 4e-07]
    """

    def __init__(
        self,
        peak: float,
        steps: int,
        rise: float = 0.3,
        start_divisor: float = 25.0,
        end_divisor: float = 1e4,
    ) -> None:
        self.peak, self.steps = (
            _rate("OneCycle: peak", peak),
            positive_int(steps, "OneCycle: steps"),
        )
        for name, value in (("start_divisor", start_divisor), ("end_divisor", end_divisor)):
            if not 1 <= real_number(value, f"OneCycle: {name}") < math.inf:
                raise ValueError(f"OneCycle: {name} must be at least 1, got {value!r}")
        if not 0 < real_number(rise, "OneCycle: rise") < 1:
            raise ValueError(f"OneCycle: rise must be in (0, 1), got {rise!r}")
        self.start = self.peak / start_divisor
        self.end = self.start / end_divisor
        self.top, self.last = rise * self.steps - 1, self.steps - 1

    def __call__(self, step: int) -> float:
        """Return the learning rate of update number `step`."""
        if step < self.top:
            return _cosine(self.start, self.peak, step / self.top)
        if step >= self.last:
            return self.end if self.last else self.peak
        return _cosine(self.peak, self.end, (step - self.top) / (self.last - self.top))


class Warmup(Schedule):
    """A straight rise, then another schedule: first its first rate times (step + 1) / (steps + 1).

    Goyal et al. (2017), section 2.2. The schedule inside begins when the rise is over: its update 0
    is update `steps` of the whole.

    Parameters
    ----------
    schedule : float or Schedule
        What follows.
    steps : int
        Updates of the rise.

    Examples
    --------
    >>> [round(Warmup(0.1, 4)(step), 3) for step in range(6)]
    [0.02, 0.04, 0.06, 0.08, 0.1, 0.1]
    """

    def __init__(self, schedule: float | Schedule, steps: int) -> None:
        self.schedule, self.steps = as_schedule(schedule), positive_int(steps, "Warmup: steps")

    def __call__(self, step: int) -> float:
        """Return the learning rate of update number `step`."""
        if step >= self.steps:
            return self.schedule(step - self.steps)
        return self.schedule(0) * (step + 1) / (self.steps + 1)

    def end_epoch(self, logs: Mapping[str, float]) -> None:
        """Hand the figures on."""
        self.schedule.end_epoch(logs)

    def state(self) -> dict[str, float]:
        """Return the state of the schedule inside."""
        return self.schedule.state()

    def load_state(self, state: Mapping[str, float]) -> None:
        """Hand the state on."""
        self.schedule.load_state(state)


class ReduceOnPlateau(Schedule):
    """A learning rate that falls when a figure has not become better for a while.

    After `patience` epochs in a row without a new best, the rate is multiplied by `factor`. A best
    is new if it is better by more than `min_delta`.

    Parameters
    ----------
    start : float
    monitor : str
        A figure of the history, such as "val_loss" or "loss".
    factor : float
        In (0, 1].
    patience : int
    min_delta : float
    minimum : float
        The rate does not fall below.
    mode : {"min", "max"}, optional
        What is better; by default "min" for names that end in "loss" or "error", else "max".

    Raises
    ------
    KeyError
        At the end of an epoch that has no such figure.

    Examples
    --------
    >>> schedule = ReduceOnPlateau(0.1, "val_loss", patience=1)
    >>> for loss in (0.5, 0.4, 0.45):
    ...     schedule.end_epoch({"val_loss": loss})
    >>> round(schedule(0), 4)
    0.01
    """

    def __init__(
        self,
        start: float,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 0.0,
        minimum: float = 0.0,
        mode: str | None = None,
    ) -> None:
        self.rate = _rate("ReduceOnPlateau: start", start)
        self.factor = _share("ReduceOnPlateau: factor", factor)
        self.patience = positive_int(patience, "ReduceOnPlateau: patience")
        self.min_delta = _rate("ReduceOnPlateau: min_delta", min_delta)
        self.minimum = _rate("ReduceOnPlateau: minimum", minimum)
        self.monitor, self.sign = monitor, direction(monitor, mode, "ReduceOnPlateau")
        self.best, self.waited = math.inf, 0.0

    def __call__(self, step: int) -> float:
        """Return the rate as it stands."""
        return self.rate

    def end_epoch(self, logs: Mapping[str, float]) -> None:
        """Compare the figure with the best one so far."""
        value = self.sign * figure(logs, self.monitor, "ReduceOnPlateau")
        if value < self.best - self.min_delta:
            self.best, self.waited = value, 0.0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.rate, self.waited = max(self.rate * self.factor, self.minimum), 0.0

    def state(self) -> dict[str, float]:
        """Return the rate, the best figure and how long it has stood."""
        return {"rate": self.rate, "best": self.best, "waited": self.waited}


def as_schedule(learning_rate: float | Schedule) -> Schedule:
    """Return a schedule as it is and a number as a `Constant`; anything else is a TypeError."""
    if isinstance(learning_rate, Schedule):
        return learning_rate
    if isinstance(learning_rate, bool) or not hasattr(learning_rate, "__float__"):
        raise TypeError(f"learning_rate must be a number or a Schedule, got {learning_rate!r}")
    return Constant(float(learning_rate))


def direction(monitor: str, mode: str | None, owner: str) -> int:
    """Return 1 where smaller figures are better, -1 where larger ones are."""
    if mode is None:
        mode = "min" if monitor.endswith(("loss", "error")) else "max"
    if mode not in ("min", "max"):
        raise ValueError(f"{owner}: mode must be 'min' or 'max', got {mode!r}")
    return 1 if mode == "min" else -1


def figure(logs: Mapping[str, float], monitor: str, owner: str) -> float:
    """Return a figure of an epoch; raise KeyError, saying which there are, if it is none."""
    if monitor not in logs:
        raise KeyError(f"{owner}: monitor must be one of {', '.join(logs)}, got {monitor!r}")
    return logs[monitor]


def _rate(name: str, value: float) -> float:
    """Return a number that is finite and not negative."""
    if not 0 <= real_number(value, name) < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {value!r}")
    return float(value)


def _share(name: str, value: float) -> float:
    """Return a number in (0, 1]."""
    if not 0 < real_number(value, name) <= 1:
        raise ValueError(f"{name} must be in (0, 1], got {value!r}")
    return float(value)


def _cosine(start: float, end: float, position: float) -> float:
    """Go from start to end along half a cosine; `position` is in [0, 1]."""
    return end + (start - end) * (1 + math.cos(math.pi * position)) / 2
