"""Layers that only change the shape, or the order of the axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, integer
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


@register
class Reshape(Layer):
    """The values of a sample in another shape, in the same order. A view, no copy.

    Parameters
    ----------
    shape : sequence of int
        Without the batch; one of them may be -1, which stands for what is left.
    name : str, optional

    Raises
    ------
    ValueError
        When built, if a sample has not as many values.

    Examples
    --------
    >>> Reshape((7, -1)).build((49,)).output_shape
    (7, 7)
    """

    def __init__(self, shape: Sequence[int], *, name: str | None = None) -> None:
        if not isinstance(shape, (tuple, list)) or not shape:
            raise TypeError(f"Reshape: shape must be a tuple of ints, got {shape!r}")
        self.shape = tuple(integer(n, "Reshape: shape", -1) for n in shape)
        super().__init__(name=name, shape=self.shape)
        if 0 in self.shape or self.shape.count(-1) > 1:
            raise ValueError(
                f"Reshape: shape must hold ints of at least 1, one of them -1 at most, got {shape}"
            )

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the shape, with the number that -1 stands for."""
        values, known = math.prod(input_shape), math.prod(n for n in self.shape if n > 0)
        shape = tuple(values // known if n < 0 else n for n in self.shape)
        if math.prod(shape) != values:
            raise ValueError(
                f"Reshape: shape must hold the {values} values of an input {input_shape}, "
                f"got {self.shape}"
            )
        return shape

    def reach(self, input_shape: Shapes) -> None:
        """What was a pixel is none any more."""

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ...) to y (N, *shape)."""
        x = self.check_input(x)
        x_shape, y_shape = x.shape, (len(x), *self.infer(x.shape[1:]))

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            return dy.reshape(x_shape) if input_gradient else None

        return x.reshape(y_shape), backward


@register
class Permute(Layer):
    """The axes of a sample in another order: axis i of y is axis axes[i - 1] of x.

    Backward: dy with its axes put back.

    Parameters
    ----------
    axes : sequence of int
        Each of 1, 2, ... once: axes are counted with the batch, which is axis 0 and stays.
    name : str, optional

    Raises
    ------
    ValueError
        When built, if there are not as many axes.

    Examples
    --------
    >>> Permute((2, 1, 3)).build((4, 7, 3)).output_shape
    (7, 4, 3)
    """

    def __init__(self, axes: Sequence[int], *, name: str | None = None) -> None:
        if not isinstance(axes, (tuple, list)):
            raise TypeError(f"Permute: axes must be a tuple of ints, got {axes!r}")
        self.axes = tuple(integer(axis, "Permute: axes", 0) for axis in axes)
        super().__init__(name=name, axes=self.axes)
        if sorted(self.axes) != list(range(1, len(self.axes) + 1)) or not 1 <= len(self.axes) <= 4:
            raise ValueError(
                "Permute: axes must hold each of 1 ... their number, at most 4, once (0 is the "
                f"batch), got {self.axes}"
            )

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the shape in the new order."""
        if len(input_shape) != len(self.axes):
            raise ValueError(
                f"Permute: axes must be {len(input_shape)}, as many as the input "
                f"{input_shape} has, got {self.axes}"
            )
        return tuple(input_shape[axis - 1] for axis in self.axes)

    def reach(self, input_shape: Shapes) -> None:
        """Axes that change places are not followed."""

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ...) to y (N, ...)."""
        x = self.check_input(x)
        order = (0, *self.axes)
        y = ops.permute(x, order)
        y_shape = y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            if not input_gradient:
                return None
            return ops.permute(dy, sorted(range(len(order)), key=order.__getitem__))

        return y, backward
