"""Softmax and its logarithm, along the channels."""

from __future__ import annotations

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array
from cycnn.layers.base import Backward, Layer, register


@register
class Softmax(Layer):
    """Probabilities from logits along the last axis: y = exp(x) / sum of exp(x).

    Goodfellow, Bengio and Courville (2016), equation 6.29; the largest x is taken out first, so
    that nothing overflows. A row with NaN, or whose largest value is infinite, gives NaN. For
    training use `CrossEntropy` on the logits instead.

    Backward: dx = y * (dy - sum of dy * y).

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> y, backward = Softmax().build((2,))([[1000, 1000]])
    >>> y.tolist(), backward([[1, 0]]).tolist()
    ([[0.5, 0.5]], [[0.25, -0.25]])
    """

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to y of the same shape."""
        y = ops.softmax(self.check_input(x))

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y.shape)
            return ops.softmax_backward(dy, y) if input_gradient else None

        return y, backward


@register
class LogSoftmax(Layer):
    """Logarithms of probabilities from logits along the last axis: y = x - log(sum of exp(x)).

    Goodfellow, Bengio and Courville (2016), equation 6.30; no probability underflows to log(0).

    Backward: dx = dy - exp(y) * sum of dy.

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> y, backward = LogSoftmax().build((2,), dtype="float64")([[0, 0]])
    >>> y.round(3).tolist(), backward([[1, 0]]).tolist()
    ([[-0.693, -0.693]], [[0.5, -0.5]])
    """

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to y of the same shape."""
        y = ops.log_softmax(self.check_input(x))

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y.shape)
            return ops.log_softmax_backward(dy, y) if input_gradient else None

        return y, backward
