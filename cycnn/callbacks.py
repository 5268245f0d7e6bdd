"""Callbacks: what else a `Trainer` does between updates and after epochs.

`Trainer(..., callbacks=[EarlyStopping(patience=5), CSVLog("log.csv")])`
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from cycnn import ops
from cycnn._check import Array, positive_int, real_number
from cycnn.graph import Model
from cycnn.schedules import direction, figure
from cycnn.serialize import replacing

if TYPE_CHECKING:
    from cycnn.trainer import Trainer


class Callback:
    """What a `Trainer` calls; each method may be left as it is.

    Examples
    --------
    >>> class Bell(Callback):
    ...     def on_epoch_end(self, trainer, epoch, logs):
    ...         return logs["loss"] < 0.01          # True ends the fit
    """

    after_others = False
    """Whether it is called after all callbacks that do not say so."""

    def on_update_end(self, trainer: Trainer) -> None:
        """Follow an update of the weights."""

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> bool | None:
        """Follow an epoch, counted from 1, with these figures; True ends the fit."""
        return None

    def on_fit_end(self, trainer: Trainer) -> None:
        """Follow a `fit` that was not broken off."""

    def state(self) -> dict[str, Any]:
        """Return numbers and arrays from which to go on; part of what `Trainer.save` writes."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, a result of `state()`."""


class _Monitor(Callback):
    """A callback that looks for the best value of a figure."""

    def __init__(self, monitor: str, mode: str | None, min_delta: float) -> None:
        owner = type(self).__name__
        if not 0 <= real_number(min_delta, f"{owner}: min_delta") < math.inf:
            raise ValueError(
                f"{owner}: min_delta must be finite and not negative, got {min_delta!r}"
            )
        self.monitor, self.min_delta = monitor, float(min_delta)
        self.sign, self.best = direction(monitor, mode, owner), math.inf

    def improved(self, logs: Mapping[str, float]) -> bool:
        """Say whether the figure is better than ever before, by more than `min_delta`."""
        value = self.sign * figure(logs, self.monitor, type(self).__name__)
        if not value < self.best - self.min_delta:  # NaN is not
            return False
        self.best = value
        return True

    def state(self) -> dict[str, Any]:
        """Return the best value so far."""
        return {"best": self.best}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up the best value so far."""
        self.best = float(state["best"])


class EarlyStopping(_Monitor):
    """End a fit when a figure has not become better for some epochs in a row.

    Parameters
    ----------
    monitor : str
        A figure of the history, such as "val_loss" or "val_accuracy".
    patience : int
        That many epochs in a row without a new best end the fit.
    min_delta : float
        A best is new if it is better by more than this.
    mode : {"min", "max"}, optional
        What is better; by default "min" for names that end in "loss" or "error", else "max".
    restore_best : bool
        Whether the model gets the weights of the best epoch when the fit ends, early or not.

    Raises
    ------
    KeyError
        At the end of an epoch that has no such figure.

    Examples
    --------
    >>> stopping = EarlyStopping("val_accuracy", patience=3)
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = positive_int(patience, "EarlyStopping: patience")
        self.restore_best = restore_best
        self.waited = 0
        self._arrays: dict[str, Array] = {}

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> bool:
        """Compare, and say whether the fit is to end."""
        if self.improved(logs):
            self.waited = 0
            if self.restore_best:
                self._arrays = {name: a.copy() for name, a in _arrays(trainer.model).items()}
            return False
        self.waited += 1
        if self.waited < self.patience:
            return False
        self.waited = 0  # for the next fit
        return True

    def on_fit_end(self, trainer: Trainer) -> None:
        """Put the best weights back."""
        if self._arrays:
            _assign(trainer.model, self._arrays)

    def state(self) -> dict[str, Any]:
        """Return the best value, how long it has stood, and its weights."""
        return {**super().state(), "waited": self.waited, **self._arrays}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take these up."""
        rest = dict(state)
        super().load_state(rest)
        self.waited = int(rest.pop("waited"))
        del rest["best"]
        self._arrays = {name: np.array(array) for name, array in rest.items()}


class BestCheckpoint(_Monitor):
    """Save the model after each epoch in which a figure is better than ever before.

    Parameters
    ----------
    path : path-like
        A model file, replaced each time; `cycnn.load` reads it.
    monitor, min_delta, mode
        See `EarlyStopping`.

    Examples
    --------
    >>> best = BestCheckpoint("best.cycnn", "val_accuracy")
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        *,
        min_delta: float = 0.0,
        mode: str | None = None,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.path = path

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        """Compare, and perhaps save."""
        if self.improved(logs):
            trainer.model.save(self.path)


class Checkpoint(Callback):
    """Save the whole training, so that it can go on after a crash: see `Trainer.resume`.

    Parameters
    ----------
    path : path-like
        A training file, replaced each time.
    every : int, optional
        Save after each so many updates too, not only after each epoch.

    Examples
    --------
    >>> checkpoint = Checkpoint("training.cycnn", every=1000)
    """

    after_others = True  # so that what they have seen is in the file

    def __init__(self, path: str | os.PathLike[str], every: int | None = None) -> None:
        self.path = path
        self.every = None if every is None else positive_int(every, "Checkpoint: every")

    def on_update_end(self, trainer: Trainer) -> None:
        """Save after the `every`-th update."""
        if self.every is not None and trainer.optimizer.steps % self.every == 0:
            trainer.save(self.path)

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        """Save."""
        trainer.save(self.path)


class CSVLog(Callback):
    """Keep the figures of all epochs in a table, with a line for each.

    The file is written anew after each epoch, so it is whole at any time, also after a resume.

    Parameters
    ----------
    path : path-like
        A text file of comma-separated values: epoch, then the names in the history.

    Examples
    --------
    >>> log = CSVLog("log.csv")
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        """Write the history."""
        text = io.StringIO()
        table = csv.DictWriter(text, ["epoch", *trainer.history], lineterminator="\n")
        table.writeheader()
        for number, figures in enumerate(trainer.history.epochs, 1):
            table.writerow({"epoch": number, **figures})
        with replacing(self.path) as file:
            file.write(text.getvalue().encode())


class WeightAverage(Callback):
    """Average the weights over the updates, in which they swing around a better place.

    After n updates and one more, average = keep * average + (1 - keep) * weights, with keep =
    min(decay, n / (n + 1)): at first the plain mean (with decay = 1 for ever: Polyak and Juditsky
    1992), then an exponential moving average. Running statistics are averaged too. The model itself
    is left alone: `copy_to` gives it the averages, `applied` lends them.

    Parameters
    ----------
    decay : float
        In (0, 1]. About 1 / (1 - decay) updates count.

    Examples
    --------
    >>> average = WeightAverage(0.999)
    >>> trainer = Trainer(model, loss, optimizer, callbacks=[average])       # doctest: +SKIP
    >>> with average.applied(model):                                         # doctest: +SKIP
    ...     print(trainer.evaluate(x, y))
    >>> average.copy_to(model)                                               # doctest: +SKIP
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < real_number(decay, "WeightAverage: decay") <= 1:
            raise ValueError(f"WeightAverage: decay must be in (0, 1], got {decay!r}")
        self.decay, self.updates = float(decay), 0
        self._arrays: dict[str, Array] = {}

    def on_update_end(self, trainer: Trainer) -> None:
        """Add the weights as they are now."""
        keep = min(self.decay, self.updates / (self.updates + 1))
        self.updates += 1
        for name, array in _arrays(trainer.model).items():
            if keep == 0:
                self._arrays[name] = array.copy()
            else:
                self._arrays[name] = ops.add((self._arrays[name], array), (keep, 1 - keep))

    def copy_to(self, model: Model) -> None:
        """Give the model the averages."""
        if not self._arrays:
            raise ValueError("WeightAverage: there must have been an update, got none")
        _assign(model, self._arrays)

    @contextmanager
    def applied(self, model: Model) -> Iterator[None]:
        """Let the model have the averages for the length of a `with` block."""
        own = {name: array.copy() for name, array in _arrays(model).items()}
        self.copy_to(model)
        try:
            yield
        finally:
            _assign(model, own)

    def state(self) -> dict[str, Any]:
        """Return the averages and how many updates are in them."""
        return {"updates": self.updates, **self._arrays}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take these up."""
        rest = dict(state)
        self.updates = int(rest.pop("updates"))
        self._arrays = {name: np.array(array) for name, array in rest.items()}


def _arrays(model: Model) -> dict[str, Array]:
    """Return the parameters and buffers of a model, as they are."""
    return {name: p.data for name, p in model.parameters().items()} | model.buffers()


def _assign(model: Model, arrays: Mapping[str, Array]) -> None:
    """Copy arrays into the parameters and buffers of these names."""
    parameters = model.parameters()
    for name, array in arrays.items():
        if name in parameters:
            parameters[name].assign(array)
        else:
            model.set_buffer(name, array)
