"""What training leaves behind: the figures of each epoch, and the losses of a range test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from cycnn._check import Array


class History(Mapping[str, list[float]]):
    """The figures of a fit: `history["loss"]` is a list of one number per epoch.

    A mapping from names (loss, the metrics, and the same of the validation rows with `val_` in
    front) to lists; NaN stands for an epoch in which a figure was not taken.

    Attributes
    ----------
    epochs : list of dict
        The figures of each epoch.

    Examples
    --------
    >>> history = History([{"loss": 0.7, "accuracy": 0.5}, {"loss": 0.4, "accuracy": 0.9}])
    >>> history["loss"], list(history)
    ([0.7, 0.4], ['loss', 'accuracy'])
    """

    def __init__(self, epochs: Iterable[Mapping[str, float]] = ()) -> None:
        self.epochs = [dict(logs) for logs in epochs]

    def __getitem__(self, name: str) -> list[float]:
        if name not in iter(self):
            raise KeyError(name)
        return [logs.get(name, math.nan) for logs in self.epochs]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for logs in self.epochs for name in logs))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"History of {len(self.epochs)} epochs: {', '.join(self)}"


class RateCurve(NamedTuple):
    """What `Trainer.find_lr` found: a loss for each learning rate it tried.

    Examples
    --------
    >>> curve = RateCurve(np.array([0.001, 0.01, 0.1, 1.0]), np.array([2.0, 1.9, 1.0, 3.0]))
    >>> curve.suggestion
    0.01
    """

    learning_rate: Array
    loss: Array

    @property
    def suggestion(self) -> float:
        """A tenth of the rate of the smallest loss: still falling fast, and not near the rise."""
        return float(self.learning_rate[np.nanargmin(self.loss)] / 10)
