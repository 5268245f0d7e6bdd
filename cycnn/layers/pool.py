"""Pooling layers: each channel is summed up window by window, or as a whole."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Reach, Shapes, flag
from cycnn.layers.window import Window


class Pool(Layer):
    """What MaxPool and AvgPool share: the window."""

    def __init__(
        self,
        *,
        pool_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None,
        padding: str | int | tuple[tuple[int, int], ...],
        padding_mode: str,
        ceil_mode: bool,
        dilation: int | tuple[int, ...],
        name: str | None,
        **config: Any,
    ) -> None:
        self.options: dict[str, Any] = {
            "stride": stride, "padding": padding, "padding_mode": padding_mode,
            "ceil_mode": ceil_mode, "dilation": dilation, **config,
        }  # fmt: skip
        super().__init__(name=name, pool_size=pool_size, **self.options)
        self.pool_size = pool_size
        self.window = Window(
            type(self).__name__, "pool_size", pool_size, pool_size if stride is None else stride,
            padding, padding_mode, dilation, flag(ceil_mode, f"{type(self).__name__}: ceil_mode"),
            pooling=True,
        )  # fmt: skip

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return (spatial..., C)."""
        return (*self.window.output(input_shape), input_shape[-1])

    def reach(self, input_shape: Shapes) -> tuple[Reach, ...]:
        """Return the window of one output."""
        return self.window.reach(input_shape)


@register
class MaxPool(Pool):
    """Largest value of each window, channel by channel.

    Backward: the gradient of an output goes to the input that won, the first one among equals.
    NaN wins over every number. A border of zeros counts as -inf here: it never wins.

    Parameters
    ----------
    pool_size : int or tuple of int
        Extent of the window; a tuple sets each spatial axis.
    stride : int or tuple of int, optional
        Pixels from one window to the next; `pool_size` by default.
    padding : "valid", "same", "causal", int or (begin, end) pairs
        As in `Conv`; numbers up to half the window.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
    ceil_mode : bool
        Whether a last window may hang over the end instead of being left out.
    dilation : int or tuple of int
        Pixels from one tap of the window to the next.
    name : str, optional

    Examples
    --------
    >>> MaxPool(2).build((8, 8, 3)).output_shape
    (4, 4, 3)
    """

    def __init__(
        self,
        pool_size: int | tuple[int, ...],
        *,
        stride: int | tuple[int, ...] | None = None,
        padding: str | int | tuple[tuple[int, int], ...] = "valid",
        padding_mode: str = "zeros",
        ceil_mode: bool = False,
        dilation: int | tuple[int, ...] = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(
            pool_size=pool_size, stride=stride, padding=padding, padding_mode=padding_mode,
            ceil_mode=ceil_mode, dilation=dilation, name=name,
        )  # fmt: skip

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C) to y (N, spatial..., C)."""
        x = self.check_input(x)
        y, offset = ops.max_pool(x, self.pool_size, **self.options)
        x_shape, y_shape = x.shape, y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            if not input_gradient:
                return None
            return ops.max_pool_backward(dy, offset, x_shape, self.pool_size, **self.options)

        return y, backward


@register
class AvgPool(Pool):
    """Mean of each window, channel by channel.

    Backward: the gradient of an output goes to all inputs of its window in equal shares.

    Parameters
    ----------
    pool_size, stride, padding, padding_mode, ceil_mode, dilation, name
        See `MaxPool`.
    count_include_pad : bool
        Whether a border of zeros counts as values, or the mean is over real pixels only.

    Examples
    --------
    >>> AvgPool(3, stride=2, padding=1).build((8, 8, 3)).output_shape
    (4, 4, 3)
    """

    def __init__(
        self,
        pool_size: int | tuple[int, ...],
        *,
        stride: int | tuple[int, ...] | None = None,
        padding: str | int | tuple[tuple[int, int], ...] = "valid",
        padding_mode: str = "zeros",
        ceil_mode: bool = False,
        count_include_pad: bool = False,
        dilation: int | tuple[int, ...] = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(
            pool_size=pool_size, stride=stride, padding=padding, padding_mode=padding_mode,
            ceil_mode=ceil_mode, dilation=dilation, name=name,
            count_include_pad=flag(count_include_pad, "AvgPool: count_include_pad"),
        )  # fmt: skip

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C) to y (N, spatial..., C)."""
        x = self.check_input(x)
        y = ops.avg_pool(x, self.pool_size, **self.options)
        x_shape, y_shape = x.shape, y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            if not input_gradient:
                return None
            return ops.avg_pool_backward(dy, x_shape, self.pool_size, **self.options)

        return y, backward


@register
class GlobalAvgPool(Layer):
    """Mean of each channel over all pixels: (N, spatial..., C) becomes (N, C).

    Lin, Chen and Yan (2014), section 3.2.

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> GlobalAvgPool().build((7, 7, 512)).output_shape
    (512,)
    """

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return (C,)."""
        if not 2 <= len(input_shape) <= 4:
            raise ValueError(
                "GlobalAvgPool: input must have 1 to 3 spatial axes and the channels, "
                f"got shape {input_shape}"
            )
        return input_shape[-1:]

    def reach(self, input_shape: Shapes) -> None:
        """Every output sees every pixel."""

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C) to y (N, C)."""
        x = self.check_input(x)
        y = ops.global_avg_pool(x)
        x_shape, y_shape = x.shape, y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            return ops.global_avg_pool_backward(dy, x_shape) if input_gradient else None

        return y, backward
