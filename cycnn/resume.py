"""Training files: all that the rest of a training depends on, so that it can go on after a stop.

A training file is a zip like a model file (see `cycnn.serialize`): config.json and .npy members
with checksums, written beside the old file and renamed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cycnn import serialize
from cycnn._check import Array
from cycnn.graph import Model
from cycnn.guard import random_states
from cycnn.optim import Optimizer

FORMAT = "cycnn-training"


@dataclass
class Position:
    """How far a `fit` has come."""

    first: int  # epochs of the history before this fit
    last: int  # and after it
    settings: dict[str, Any]  # of the data, which have to be the same after a stop
    epoch: int  # the running one, counted from 1 over all fits
    begun: Any  # the generator's state when this epoch began
    updates: int = 0  # done in this epoch
    now: Any = None  # the generator's state after them
    sums: dict[str, float] = field(default_factory=dict)  # of rows, weights, loss and metrics
    stop: bool = False  # a callback has ended it

    def add(self, figures: Mapping[str, float], weight: float, now: Any) -> None:
        """Count one update, with the sums of its figures over its rows."""
        for name, value in {**figures, "weight": weight}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.updates, self.now = self.updates + 1, now

    def next_epoch(self, begun: Any) -> None:
        """Go to the start of the epoch after this one."""
        self.epoch, self.begun = self.epoch + 1, begun
        self.updates, self.now, self.sums = 0, None, {}


def write_training(
    path: str | os.PathLike[str],
    parts: Mapping[str, Mapping[str, Any]],
    notes: Mapping[str, Any],
    position: Position | None,
) -> None:
    """Write a training file.

    Parameters
    ----------
    path : path-like
    parts : mapping of str to (mapping of str to array or number)
        State by part ("parameters", "optimizer", ...) and name; arrays are float32 or float64.
    notes : mapping
        What else there is, of lists, dicts, numbers and text.
    position : Position, optional
    """
    arrays: dict[str, Array] = {}
    numbers: dict[str, Any] = {}
    for part, values in parts.items():
        for name, value in values.items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                arrays[f"{part}/{name}"] = value
            else:
                numbers[f"{part}/{name}"] = _plain(value)
    config = {
        "parts": list(parts),
        "numbers": numbers,
        "notes": _plain(notes),
        "position": None if position is None else _plain(asdict(position)),
    }
    serialize.write(path, FORMAT, config, arrays)


def read_training(
    path: str | os.PathLike[str],
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], Position | None]:
    """Return parts, notes and position of a training file.

    Raises
    ------
    ModelFileError
        If the file is damaged, of another kind or of a newer format.
    OSError
        If it cannot be read.
    """
    config, arrays = serialize.read(path, FORMAT)
    try:
        parts: dict[str, dict[str, Any]] = {part: {} for part in config["parts"]}
        for key, value in {**config["numbers"], **arrays}.items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        notes, position = config["notes"], config["position"]
        return parts, notes, None if position is None else Position(**position)
    except (KeyError, TypeError, AttributeError) as error:
        raise serialize.ModelFileError(
            f"{os.fspath(path)}: not a whole training file: {error!r}"
        ) from error


def describe(model: Model, optimizer: Optimizer, callbacks: Iterable[Any]) -> dict[str, Any]:
    """Return what two trainers have in common of which one can resume what the other saved."""
    return {
        "optimizer": type(optimizer).__name__,
        "callbacks": [type(callback).__name__ for callback in callbacks],
        "dtype": model.dtype.name,
        "parameters": {name: list(p.shape) for name, p in model.parameters().items()},
        "buffers": {name: list(buffer.shape) for name, buffer in model.buffers().items()},
        "random layers": sorted(random_states(model)),
    }


def differing(saved: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """Say in which items two descriptions differ; "" where they do not."""
    return "; ".join(
        f"{name}: {mine[name]} instead of {saved.get(name)}"
        for name in mine
        if mine[name] != saved.get(name)
    )


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: the states of some generators hold arrays."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
