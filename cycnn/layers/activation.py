"""Activations: non-linear functions of each value by itself."""

from __future__ import annotations

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array
from cycnn.layers.base import Backward, Layer, register


@register
class ReLU(Layer):
    """Rectifier y = max(x, 0): Nair and Hinton (2010).

    Backward: dx = dy where y > 0, else 0.

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> y, backward = ReLU().build((3,))([[-1, 0, 2]])
    >>> y.tolist(), backward([[5, 5, 5]]).tolist()
    ([[0.0, 0.0, 2.0]], [[0.0, 0.0, 5.0]])
    """

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to y of the same shape."""
        y = ops.relu(self.check_input(x))

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y.shape)
            return ops.relu_backward(dy, y) if input_gradient else None

        return y, backward
