"""Layers that only change the shape."""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from cycnn._check import Array
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Shapes


@register
class Flatten(Layer):
    """Put all values of a sample in one row: (N, ..., C) becomes (N, ... * C). A view, no copy.

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> Flatten().build((7, 7, 64)).output_shape
    (3136,)
    """

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return (product of all axes,)."""
        return (math.prod(input_shape),)

    def reach(self, input_shape: Shapes) -> None:
        """The row holds every pixel."""

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to y (N, ... * C)."""
        x = self.check_input(x)
        shape = x.shape
        y = x.reshape(len(x), math.prod(shape[1:]))

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, (shape[0], math.prod(shape[1:])))
            return dy.reshape(shape) if input_gradient else None

        return y, backward
