"""Losses: `value, backward = loss(y, target, sample_weight=None)`, then `dy = backward()`.

The value is the weighted mean over the batch, sum_n w_n L_n / sum_n w_n, with w = 1 unless given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, as_input

Metric = Callable[[Array, Array], float]


def accuracy(target: Array, y: Array) -> float:
    """Return the share of rows whose largest output is the target's.

    Parameters
    ----------
    target : ndarray of shape (N,), integer labels
    y : ndarray of shape (N, C), scores; the first wins where several are equal
    """
    return float(np.mean(np.argmax(y, axis=1) == target))


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

    metrics: ClassVar[Mapping[str, Metric]] = {}
    """What a `Trainer` reports beside this loss unless told otherwise, by name."""

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

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class CrossEntropy(Loss):
    """Cross-entropy of the softmax: L_n = -log p[n, target_n] with p = softmax(y).

    The network ends in a plain `Dense(classes)`: y are logits, and softmax and logarithm are
    taken together, log p[n, c] = y[n, c] - m - log(sum_k exp(y[n, k] - m)) with m = max_k y[n, k],
    so that no logit overflows. The gradient is dy[n, c] = w_n (p[n, c] - [c = target_n]) / sum w.
    See Goodfellow, Bengio and Courville, *Deep Learning* (2016), eqs. 6.29 to 6.33.

    Raises
    ------
    ValueError
        Before anything is computed: a batch of 0 rows; labels with a fraction, below 0 or at least
        C; lengths that differ; weights that are not finite, negative, or all zero.

    Examples
    --------
    >>> value, backward = CrossEntropy()([[0.0, 0.0]], [1])
    >>> round(value, 4), backward().tolist()
    (0.6931, [[0.5, -0.5]])
    """

    metrics: ClassVar[Mapping[str, Metric]] = {"accuracy": accuracy}

    def check_target(self, target: ArrayLike, shape: tuple[int, ...]) -> Array:
        """Return the labels as int64 of shape (N,), each in 0 .. C - 1.

        Any integer type is taken, and floating-point numbers that are whole.
        """
        if len(shape) != 2:
            raise ValueError(f"CrossEntropy: y must have shape (N, C), got {shape}")
        count, classes = shape
        labels = np.asarray(target)
        if labels.dtype.kind not in "buif":
            raise TypeError(f"CrossEntropy: labels must be integers, got dtype {labels.dtype}")
        if labels.shape != (count,):
            raise ValueError(
                f"CrossEntropy: target must have shape ({count},), one integer label per row of y, "
                f"got {labels.shape}"
            )
        if labels.dtype.kind == "f" and (wrong := labels != np.floor(labels)).any():
            raise ValueError(f"CrossEntropy: labels must be whole numbers, got {labels[wrong][0]}")
        if (wrong := (labels < 0) | (labels >= classes)).any():
            raise ValueError(
                f"CrossEntropy: labels must be in 0 .. {classes - 1} for {classes} outputs, "
                f"got {labels[wrong][0]}"
            )
        return np.ascontiguousarray(labels, dtype=np.int64)

    def __call__(
        self, y: ArrayLike, target: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[float, Callable[[], Array]]:
        """Return the loss of the logits y (N, C) for the labels target (N,), and its backward.

        Parameters
        ----------
        y : array_like of shape (N, C)
            Logits, one column per class.
        target : array_like of shape (N,)
            Integer labels in 0 .. C - 1.
        sample_weight : array_like of shape (N,), optional
            w_n, what each row counts.

        Returns
        -------
        value : float
        backward : callable
            `backward()` returns dy, an ndarray of shape (N, C) and the dtype of y.
        """
        given: Any = np.asarray(y)
        dtype = given.dtype if given.dtype.kind == "f" and given.itemsize in (4, 8) else np.float64
        y = as_input(given, np.dtype(dtype).newbyteorder("="), "CrossEntropy: y")
        if len(y) == 0:
            raise ValueError("CrossEntropy: the batch must have at least one row, got 0")
        labels = self.check_target(target, y.shape)
        weight = None if sample_weight is None else check_weights(sample_weight, len(y))
        value, dy = ops.softmax_cross_entropy(y, labels, weight)

        def backward() -> Array:
            return dy

        return value, backward
