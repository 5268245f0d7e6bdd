"""Pooling layers that give a chosen number of outputs, whatever the size of the input."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, per_axis
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Shapes, flag


class AdaptivePool(Layer):
    """What AdaptiveMaxPool and AdaptiveAvgPool share: the windows."""

    def __init__(
        self, output_size: int | tuple[int, ...], *, name: str | None, **config: Any
    ) -> None:
        super().__init__(name=name, output_size=output_size, **config)
        self.output_size = output_size
        self._out(len(output_size) if isinstance(output_size, (tuple, list)) else 1)

    def _out(self, axes: int) -> tuple[int, ...]:
        return per_axis(self.output_size, axes, f"{type(self).__name__}: output_size")

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return (*output_size, C)."""
        if not 2 <= len(input_shape) <= 4:
            raise ValueError(
                f"{type(self).__name__}: input must have 1 to 3 spatial axes and the channels, "
                f"got shape {input_shape}"
            )
        return (*self._out(len(input_shape) - 1), input_shape[-1])

    def reach(self, input_shape: Shapes) -> None:
        """Windows differ in size and overlap as it comes: no one reach holds for all outputs."""


@register
class AdaptiveMaxPool(AdaptivePool):
    """Largest value of each of `output_size` windows, channel by channel.

    Window o of an axis covers the pixels floor(o size / out) ... ceil((o + 1) size / out) - 1, so
    the windows cover the whole input and overlap where the sizes do not divide; He et al. (2014),
    section 2.2, pool so for inputs of any size. Backward and NaN as in `MaxPool`.

    Parameters
    ----------
    output_size : int or tuple of int
        Outputs; a tuple sets each spatial axis. May exceed the input, which then repeats.
    return_indices : bool
        Whether the output is the tuple (y, indices), as in `MaxPool`.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If `output_size` is no int of at least 1 for each axis; when built, if the input has not 1
        to 3 spatial axes and channels.

    Examples
    --------
    >>> AdaptiveMaxPool(4).build((13, 9, 3)).output_shape
    (4, 4, 3)
    """

    def __init__(
        self,
        output_size: int | tuple[int, ...],
        *,
        return_indices: bool = False,
        name: str | None = None,
    ) -> None:
        self.return_indices = flag(return_indices, "AdaptiveMaxPool: return_indices")
        super().__init__(output_size, name=name, return_indices=self.return_indices)

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return (*output_size, C), twice with indices."""
        shape = super().infer(input_shape)
        return (shape, shape) if self.return_indices else shape

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Any, Backward]:
        """Map x (N, spatial..., C) to y (N, *output_size, C), or to (y, indices)."""
        x = self.check_input(x)
        y, offset = ops.adaptive_max_pool(x, self.output_size)
        x_shape, y_shape = x.shape, y.shape

        def backward(dy: Any, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy[0] if self.return_indices else dy, y_shape)
            if not input_gradient:
                return None
            return ops.adaptive_max_pool_backward(dy, offset, x_shape, self.output_size)

        if not self.return_indices:
            return y, backward
        index = ops.adaptive_max_index(offset, x_shape, x.dtype, self.output_size)
        return (y, index), backward


@register
class AdaptiveAvgPool(AdaptivePool):
    """Mean of each of `output_size` windows, channel by channel.

    The windows are those of `AdaptiveMaxPool`. Backward: the gradient of an output goes to all
    pixels of its window in equal shares.

    Parameters
    ----------
    output_size : int or tuple of int
        Outputs; a tuple sets each spatial axis.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        As `AdaptiveMaxPool`.

    Examples
    --------
    >>> y, backward = AdaptiveAvgPool(2).build((5, 1))([[[0], [1], [2], [3], [4]]])
    >>> y.ravel().tolist()
    [1.0, 3.0]
    """

    def __init__(self, output_size: int | tuple[int, ...], *, name: str | None = None) -> None:
        super().__init__(output_size, name=name)

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C) to y (N, *output_size, C)."""
        x = self.check_input(x)
        y = ops.adaptive_avg_pool(x, self.output_size)
        x_shape, y_shape = x.shape, y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            if not input_gradient:
                return None
            return ops.adaptive_avg_pool_backward(dy, x_shape, self.output_size)

        return y, backward
