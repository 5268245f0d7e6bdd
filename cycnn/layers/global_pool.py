"""Pooling layers over the whole image."""

from __future__ import annotations

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Shapes


class GlobalPool(Layer):
    """What GlobalAvgPool and GlobalMaxPool share: the shapes."""

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return (C,)."""
        if not 2 <= len(input_shape) <= 4:
            raise ValueError(
                f"{type(self).__name__}: input must have 1 to 3 spatial axes and the channels, "
                f"got shape {input_shape}"
            )
        return input_shape[-1:]

    def reach(self, input_shape: Shapes) -> None:
        """Every output sees every pixel."""


@register
class GlobalAvgPool(GlobalPool):
    """Mean of each channel over all pixels: (N, spatial..., C) becomes (N, C).

    Lin, Chen and Yan (2014), section 3.2. Backward: each of the P pixels gets dx = dy / P.

    Parameters
    ----------
    name : str, optional

    Raises
    ------
    ValueError
        When built, if the input has not 1 to 3 spatial axes and channels.

    Examples
    --------
    >>> GlobalAvgPool().build((7, 7, 512)).output_shape
    (512,)
    """

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C) to y (N, C)."""
        x = self.check_input(x)
        y = ops.global_avg_pool(x)
        x_shape, y_shape = x.shape, y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            return ops.global_avg_pool_backward(dy, x_shape) if input_gradient else None

        return y, backward


@register
class GlobalMaxPool(GlobalPool):
    """Largest value of each channel over all pixels: (N, spatial..., C) becomes (N, C).

    Backward: the gradient goes to the pixel that won, the first one among equals; NaN wins over
    every number. Oquab et al. (2015), section 3, find objects with it.

    Parameters
    ----------
    name : str, optional

    Raises
    ------
    ValueError
        As `GlobalAvgPool`.

    Examples
    --------
    >>> y, backward = GlobalMaxPool().build((3, 1))([[[1], [5], [2]]])
    >>> y.tolist(), backward([[1]]).ravel().tolist()
    ([[5.0]], [0.0, 1.0, 0.0])
    """

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C) to y (N, C)."""
        x = self.check_input(x)
        y, index = ops.global_max_pool(x)
        x_shape, y_shape = x.shape, y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            return ops.global_max_pool_backward(dy, index, x_shape) if input_gradient else None

        return y, backward
