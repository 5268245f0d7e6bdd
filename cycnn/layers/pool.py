"""Pooling layers: each channel is summed up window by window."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Reach, Shapes, flag
from cycnn.layers.window import Window


class Pool(Layer):
    """What MaxPool, AvgPool and LpPool share: the window."""

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

        y[n, o, c] = max over t of x[n, o * stride - begin + t * dilation, c]

    Goodfellow, Bengio and Courville, *Deep Learning* (2016), section 9.3.

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
    return_indices : bool
        Whether the output is the tuple (y, indices), which `MaxUnpool` takes: indices, int64 of the
        shape of y, name the winner's pixel of the input, (d H + h) W + w, whatever its channel.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range, when made; if the window does not fit into the padded
        input, when built.

    Examples
    --------
    >>> MaxPool(2).build((8, 8, 3)).output_shape
    (4, 4, 3)
    >>> pool = MaxPool(2, return_indices=True).build((4, 1))
    >>> (y, indices), backward = pool([[[1], [5], [2], [3]]])
    >>> y.ravel().tolist(), indices.ravel().tolist()
    ([5.0, 3.0], [1, 3])
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
        return_indices: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(
            pool_size=pool_size, stride=stride, padding=padding, padding_mode=padding_mode,
            ceil_mode=ceil_mode, dilation=dilation, name=name,
        )  # fmt: skip
        self.return_indices = flag(return_indices, "MaxPool: return_indices")

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().config(), "return_indices": self.return_indices}

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return (spatial..., C), twice with indices."""
        shape = super().infer(input_shape)
        return (shape, shape) if self.return_indices else shape

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Any, Backward]:
        """Map x (N, spatial..., C) to y (N, spatial..., C), or to (y, indices)."""
        return self.pool(x)

    def pool(self, x: ArrayLike, rectified: bool = False) -> tuple[Any, Backward]:
        """Do the same; of a rectified x, backward may return the gradient before the ReLU."""
        x = self.check_input(x)
        y, offset = ops.max_pool(x, self.pool_size, **self.options, rectified=rectified)
        x_shape, y_shape = x.shape, y.shape

        def backward(dy: Any, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy[0] if self.return_indices else dy, y_shape)
            if not input_gradient:
                return None
            return ops.max_pool_backward(dy, offset, x_shape, self.pool_size, **self.options)

        if not self.return_indices:
            return y, backward
        index = ops.max_pool_index(offset, x_shape, x.dtype, self.pool_size, **self.options)
        return (y, index), backward


@register
class AvgPool(Pool):
    """Mean of each window, channel by channel.

        y[n, o, c] = sum over t of x[n, o * stride - begin + t * dilation, c] / T

    with T the taps of the window, or those of them on real pixels; the sub-sampling of LeCun et al.
    (1998), section II.A.

    Backward: the gradient of an output goes to all inputs of its window in equal shares.

    Parameters
    ----------
    pool_size, stride, padding, padding_mode, ceil_mode, dilation, name
        See `MaxPool`.
    count_include_pad : bool
        Whether a border of zeros counts as values, or the mean is over real pixels only.

    Raises
    ------
    ValueError, TypeError
        As `MaxPool`.

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
class LpPool(Pool):
    """p-norm of each window, channel by channel.

        y[n, o, c] = (sum over t of |x[n, o * stride - begin + t * dilation, c]|^p)^(1 / p)

    p = 1 sums magnitudes, p = 2 is the Euclidean norm, and a growing p nears the maximum (Sermanet,
    Chintala and LeCun, 2012, without the Gaussian weights). Backward: each input x of
    a window gets sign(x) (|x| / y)^(p - 1) of the gradient; 0 where y = 0, a corner of the norm.

    Parameters
    ----------
    pool_size : int or tuple of int
    p : float
        At least 1, finite.
    stride, padding, padding_mode, ceil_mode, dilation, name
        See `MaxPool`; a border of zeros adds nothing.

    Raises
    ------
    ValueError, TypeError
        As `MaxPool`.

    Examples
    --------
    >>> y, backward = LpPool(2).build((2, 1))([[[3], [-4]]])
    >>> y.tolist(), backward([[[5]]]).tolist()
    ([[[5.0]]], [[[3.0], [-4.0]]])
    """

    def __init__(
        self,
        pool_size: int | tuple[int, ...],
        *,
        p: float = 2.0,
        stride: int | tuple[int, ...] | None = None,
        padding: str | int | tuple[tuple[int, int], ...] = "valid",
        padding_mode: str = "zeros",
        ceil_mode: bool = False,
        dilation: int | tuple[int, ...] = 1,
        name: str | None = None,
    ) -> None:
        if isinstance(p, bool) or not isinstance(p, (int, float)) or not 1 <= p < math.inf:
            raise ValueError(f"LpPool: p must be a finite number of at least 1, got {p!r}")
        super().__init__(
            pool_size=pool_size, p=p, stride=stride, padding=padding, padding_mode=padding_mode,
            ceil_mode=ceil_mode, dilation=dilation, name=name,
        )  # fmt: skip

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C) to y (N, spatial..., C)."""
        x = self.check_input(x)
        y = ops.lp_pool(x, self.pool_size, **self.options)

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y.shape)
            if not input_gradient:
                return None
            return ops.lp_pool_backward(dy, x, y, self.pool_size, **self.options)

        return y, backward
