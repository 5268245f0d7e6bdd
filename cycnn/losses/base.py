"""Loss: what every loss answers, and the checks they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cycnn._check import Array, as_input
from cycnn.metrics import Metric


def check_weights(weights: ArrayLike, count: int, name: str = "sample_weight") -> Array:
    """Return `weights` as float64 of shape (count,): finite, none negative, not all zero."""
    array = as_input(weights, np.float64, name)
    if array.shape != (count,):
        raise ValueError(f"{name} must have shape ({count},), one per row, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    if (array < 0).any():
        raise ValueError(f"{name} must not be negative, got {array.min():g}")
    if not array.any():
        raise ValueError(f"{name} must not be zero for every row")
    return array


class Loss(ABC):
    """What a `Trainer` makes small."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What a `Trainer` reports beside this loss unless told otherwise, by name."""
        return {}

    @abstractmethod
    def check_target(self, target: ArrayLike, shape: tuple[int, ...]) -> Array:
        """Return `target` as this loss uses it, for outputs of `shape`, the batch included.

        Raises TypeError or ValueError where a target cannot be meant; a `Trainer` asks once, for
        all rows, before it trains on the first.
        """

    @abstractmethod
    def __call__(
        self, y: ArrayLike, target: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[float, Callable[[], Array]]:
        """Return the weighted mean of the loss over the batch, and what gives its dy."""

    def row_weights(self, target: Array, sample_weight: Array | None) -> Array | None:
        """Return what each row counts in the mean, up to a common factor; None for all the same.

        `target` is a result of `check_target`. A `Trainer` leaves out the rows that count nothing.
        """
        return sample_weight

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def as_outputs(y: ArrayLike, owner: str) -> Array:
    """Return the outputs in a dtype that the kernels take; there must be at least one row."""
    given: Any = np.asarray(y)
    dtype = given.dtype if given.dtype.kind == "f" and given.itemsize in (4, 8) else np.float64
    y = as_input(given, np.dtype(dtype).newbyteorder("="), f"{owner}: y")
    if y.ndim == 0 or len(y) == 0:
        raise ValueError(f"{owner}: the batch must have at least one row, got 0")
    return y


def as_labels(target: ArrayLike, shape: tuple[int, ...], ignored: int | None, owner: str) -> Array:
    """Return integer labels of `shape` less its last axis, the C classes."""
    labels, classes = np.asarray(target), shape[-1]
    if labels.dtype.kind not in "buif":
        raise TypeError(f"{owner}: labels must be integers, got dtype {labels.dtype}")
    if labels.shape != shape[:-1]:
        raise ValueError(
            f"{owner}: target must have shape {shape[:-1]}, one integer label per row of y, "
            f"got {labels.shape}"
        )
    if labels.dtype.kind == "f" and (wrong := labels != np.floor(labels)).any():
        raise ValueError(f"{owner}: labels must be whole numbers, got {labels[wrong][0]}")
    wrong = (labels < 0) | (labels >= classes)
    if ignored is not None:
        wrong &= labels != ignored
    if wrong.any():
        raise ValueError(
            f"{owner}: labels must be in 0 .. {classes - 1} for {classes} outputs, "
            f"got {labels[wrong][0]}"
        )
    return np.ascontiguousarray(labels, dtype=np.int64)
