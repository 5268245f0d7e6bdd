"""Losses that have one target for each output: regression, and yes-or-no questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, as_input, real_number
from cycnn.losses.base import Loss, as_outputs, check_weights
from cycnn.metrics import Metric, binary_accuracy


class ElementLoss(Loss):
    """A loss that has one target for each output: L_n is the mean over the outputs of row n."""

    def _compute(self, y: Array, target: Array, weight: Array | None) -> tuple[float, Array]:
        """Return the value and its gradient, by an op."""
        raise NotImplementedError

    def check_target(self, target: ArrayLike, shape: tuple[int, ...]) -> Array:
        """Return the targets as floats of the shape of y; (N,) will do for an y of (N, 1)."""
        owner = type(self).__name__
        given: Any = np.asarray(target)
        single = given.dtype.kind == "f" and given.dtype.itemsize <= 4
        array = as_input(given, np.float32 if single else np.float64, f"{owner}: target")
        if array.shape != shape and (*array.shape, 1) != shape:
            raise ValueError(
                f"{owner}: target must have the shape of y, {shape}, got {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{owner}: target must be finite, got {array[~np.isfinite(array)][0]}")
        return array.reshape(shape)

    def __call__(
        self, y: ArrayLike, target: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[float, Callable[[], Array]]:
        """Return the loss of y (N, ...) for targets of the same shape, and its backward.

        Parameters
        ----------
        y : array_like of shape (N, ...)
        target : array_like of the shape of y, or (N,) where y is (N, 1)
        sample_weight : array_like of shape (N,), optional
            w_n, what each row counts.

        Returns
        -------
        value : float
        backward : callable
            `backward()` returns dy, an ndarray of the shape and dtype of y.
        """
        y = as_outputs(y, type(self).__name__)
        checked = as_input(self.check_target(target, y.shape), y.dtype)
        weight = None if sample_weight is None else check_weights(sample_weight, len(y))
        value, dy = self._compute(y, checked, weight)

        def backward() -> Array:
            return dy

        return value, backward


class MeanSquaredError(ElementLoss):
    """L_n = mean_m (y[n, m] - t[n, m])^2; dy = 2 w_n (y - t) / (M sum w), M outputs per row.

    Goodfellow, Bengio and Courville, *Deep Learning* (2016), eq. 5.5.

    Examples
    --------
    >>> value, backward = MeanSquaredError()([[1.0, 4.0]], [[1.0, 2.0]])
    >>> value, backward().tolist()
    (2.0, [[0.0, 2.0]])
    """

    def _compute(self, y: Array, target: Array, weight: Array | None) -> tuple[float, Array]:
        return ops.squared_loss(y, target, weight)


class MeanAbsoluteError(ElementLoss):
    """L_n = mean_m |y[n, m] - t[n, m]|; dy = w_n sign(y - t) / (M sum w), 0 where they are equal.

    Examples
    --------
    >>> value, backward = MeanAbsoluteError()([[1.0, 4.0]], [[1.0, 2.0]])
    >>> value, backward().tolist()
    (1.0, [[0.0, 0.5]])
    """

    def _compute(self, y: Array, target: Array, weight: Array | None) -> tuple[float, Array]:
        return ops.absolute_loss(y, target, weight)


class Huber(ElementLoss):
    """Squared for small errors, absolute for large ones: L_n is the mean of h(y - t) over the row.

    h(d) = d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2); its slope is d cut off at
    -delta and delta. Huber (1964), "Robust estimation of a location parameter".

    Parameters
    ----------
    delta : float
        Above 0: where squared turns into absolute.

    Examples
    --------
    >>> value, backward = Huber(delta=1.0)([[0.5, 4.0]], [[0.0, 0.0]])
    >>> value, backward().tolist()
    (1.8125, [[0.25, 0.5]])
    """

    def __init__(self, delta: float = 1.0) -> None:
        if not 0 < real_number(delta, "Huber: delta") < np.inf:
            raise ValueError(f"Huber: delta must be positive and finite, got {delta!r}")
        self.delta = float(delta)

    def _compute(self, y: Array, target: Array, weight: Array | None) -> tuple[float, Array]:
        return ops.huber_loss(y, target, weight, self.delta)

    def __repr__(self) -> str:
        return f"Huber(delta={self.delta:g})"


class BinaryCrossEntropy(ElementLoss):
    """Cross-entropy of the sigmoid s(y) = 1 / (1 + e^-y), one yes-or-no question for each output.

    L_n = mean_m (-t log s(y) - (1 - t) log(1 - s(y))), computed from the logits as
    max(y, 0) - t y + log(1 + e^-|y|), so that nothing overflows; dy = w_n (s(y) - t) / (M sum w).
    Targets lie in [0, 1]. Goodfellow, Bengio and Courville, *Deep Learning* (2016), sec. 6.2.2.2.

    Examples
    --------
    >>> value, backward = BinaryCrossEntropy()([[0.0]], [1])
    >>> round(value, 4), backward().tolist()
    (0.6931, [[-0.5]])
    """

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The share of right answers."""
        return {"accuracy": binary_accuracy}

    def check_target(self, target: ArrayLike, shape: tuple[int, ...]) -> Array:
        """Return the targets as floats of the shape of y, each in [0, 1]."""
        array = super().check_target(target, shape)
        if (wrong := (array < 0) | (array > 1)).any():
            raise ValueError(
                f"BinaryCrossEntropy: target must be in [0, 1], got {array[wrong][0]:g}"
            )
        return array

    def _compute(self, y: Array, target: Array, weight: Array | None) -> tuple[float, Array]:
        return ops.logistic_loss(y, target, weight)


class BinaryHinge(ElementLoss):
    """L_n = mean_m max(0, 1 - t[n, m] y[n, m]), one yes-or-no question for each output.

    Targets are -1 and 1; 0 and 1 stand for them, as in Keras. dy = -w_n t / (M sum w) where the
    term is above 0. Cortes and Vapnik (1995), without their penalty.

    Examples
    --------
    >>> value, backward = BinaryHinge()([[0.5]], [1])
    >>> value, backward().tolist()
    (0.5, [[-1.0]])
    """

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The share of right answers."""
        return {"accuracy": binary_accuracy}

    def check_target(self, target: ArrayLike, shape: tuple[int, ...]) -> Array:
        """Return the targets as floats of the shape of y, each -1 or 1."""
        array = super().check_target(target, shape)
        if ((array == 0) | (array == 1)).all():
            return 2 * array - 1
        if (wrong := np.abs(array) != 1).any():
            raise ValueError(
                f"BinaryHinge: target must be -1 or 1 (or 0 or 1), got {array[wrong][0]:g}"
            )
        return array

    def _compute(self, y: Array, target: Array, weight: Array | None) -> tuple[float, Array]:
        return ops.binary_hinge_loss(y, target, weight)
