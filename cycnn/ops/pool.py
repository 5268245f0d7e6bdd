"""Maximum, average and p-norm pooling on one, two or three spatial axes, each channel alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cycnn import engine
from cycnn._check import Array, as_input, hashable
from cycnn.ops.pool_geometry import (
    Geometry,
    adaptive_geometry,
    pool_geometry,
)

__all__ = [
    "adaptive_avg_pool", "adaptive_avg_pool_backward", "adaptive_max_index", "adaptive_max_pool",
    "adaptive_max_pool_backward", "avg_pool", "avg_pool_backward", "lp_pool", "lp_pool_backward",
    "max_pool", "max_pool_backward", "max_pool_index",
]  # fmt: skip


def _gradient(dy: Array, shape: tuple[int, ...], name: str) -> Array:
    dy = as_input(dy, dy.dtype, f"{name}: dy")
    if dy.shape != shape:
        raise ValueError(f"{name}: dy must have shape {shape}, got {dy.shape}")
    return dy


def _check_offset(pool: Geometry, offset: Array, dtype: Any, name: str) -> Array:
    offset_dtype = pool.offset_dtype(dtype)
    if offset.shape != pool.y_shape or offset.dtype != offset_dtype:
        raise ValueError(
            f"{name}: offset must be {offset_dtype} of shape {pool.y_shape}, "
            f"got {offset.dtype} of shape {offset.shape}"
        )
    return np.ascontiguousarray(offset)


def _run(kernel: str, dtype: Any, outputs: int, arguments: dict[str, Any]) -> None:
    """Run one kernel over a number of output pixels."""
    plan = engine.Plan()
    jobs = -(-outputs // arguments["chunk"])
    plan.add(getattr(engine.kernels(dtype), kernel), jobs, **arguments)
    plan.run()


def _forward(kernel: str, pool: Geometry, x: Array, **more: Any) -> Array:
    """Return what a forward kernel makes of x."""
    y = engine.empty(pool.y_shape, x.dtype)
    _run(kernel, x.dtype, math.prod(y.shape[:-1]), pool.forward(x, y, **more))
    return y


def _backward(
    kernel: str, pool: Geometry, dy: Array, x_shape: Sequence[int], **more: Any
) -> Array:  # fmt: skip
    """Return the dx that a backward kernel makes of dy."""
    dx = engine.empty(tuple(x_shape), dy.dtype)
    _run(kernel, dy.dtype, math.prod(dx.shape[:-1]), pool.backward(dy, dx, **more))
    return dx


def _max(pool: Geometry, x: Array, rectified: bool = False) -> tuple[Array, Array]:
    offset = engine.empty(pool.y_shape, pool.offset_dtype(x.dtype))
    y = _forward("max_pool_forward", pool, x, offset=offset, rectified=rectified)
    return y, offset


def _max_backward(
    pool: Geometry, dy: Array, offset: Array, x_shape: Sequence[int], name: str
) -> Array:
    dy = _gradient(dy, pool.y_shape, name)
    offset = _check_offset(pool, offset, dy.dtype, name)
    return _backward("max_pool_backward", pool, dy, x_shape, offset=offset)


def _max_index(pool: Geometry, offset: Array, dtype: Any, name: str) -> Array:
    offset = _check_offset(pool, offset, dtype, name)
    index = engine.empty(pool.y_shape, np.dtype(np.int64))
    outputs = math.prod(index.shape[:-1])
    _run(
        "max_pool_index", dtype, outputs,
        {
            **pool.windows(offset), "index": index, "scratch": 8 * pool.taps,
            "work": index.nbytes + 8.0 * outputs * pool.taps,
        },
    )  # fmt: skip
    return index


def max_pool(
    x: Array, pool_size: Any, *, stride: Any = None, padding: Any = "valid",
    padding_mode: str = "zeros", ceil_mode: bool = False, dilation: Any = 1,
    rectified: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """Return the maximum of each window and which of its taps held it.

    y[n, o, c] = max over taps t of x[n, o stride + t dilation - begin, c]. Of equal values the
    first tap wins, NaN wins over numbers, and a border of zeros counts as -inf.

    Parameters
    ----------
    x : ndarray of shape (N, spatial..., C), 1 to 3 spatial axes
    pool_size, stride, dilation : int or one per axis
        `stride` None means pool_size.
    padding : "valid", "same", "causal", int or (begin, end) per axis
        Numbers may be at most half the window.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
    ceil_mode : bool
        Round the output size up: a last window may hang over the end.
    rectified : bool
        Whether x = max(z, 0) and `max_pool_backward` is to return the gradient of z: then no tap
        wins where y <= 0.

    Returns
    -------
    y : ndarray of shape (N, outputs..., C)
    offset : ndarray of uint8 of that shape (of the dtype of x for windows of over 255 pixels)
        The winning tap, counted along the last axis first; 255 (or -1) for none.

    Raises
    ------
    ValueError
        If a shape or an argument is out of range, or a window does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> y, offset = max_pool(np.array([[[1.0], [5.0], [2.0], [3.0]]]), 2)
    >>> y.ravel(), offset.ravel()
    (array([5., 3.]), array([1, 1], dtype=uint8))
    """
    pool = pool_geometry(
        x.shape, pool_size, stride, padding, padding_mode, ceil_mode, dilation, "MaxPool"
    )
    return _max(pool, x, rectified)


def max_pool_backward(
    dy: Array, offset: Array, x_shape: Sequence[int], pool_size: Any, *, stride: Any = None,
    padding: Any = "valid", padding_mode: str = "zeros", ceil_mode: bool = False, dilation: Any = 1,
) -> Array:  # fmt: skip
    """Return dx: each output's gradient goes to the pixel that held the maximum.

    Parameters
    ----------
    dy : ndarray of shape (N, outputs..., C)
    offset : ndarray of that shape
        As `max_pool` returned it; the other arguments are those of `max_pool`.
    x_shape : (N, spatial..., C)

    Raises
    ------
    ValueError
        If a shape or an argument is out of range.
    """
    pool = pool_geometry(
        x_shape, pool_size, stride, padding, padding_mode, ceil_mode, dilation, "MaxPool"
    )
    return _max_backward(pool, dy, offset, x_shape, "MaxPool")


def max_pool_index(
    offset: Array, x_shape: Sequence[int], dtype: Any, pool_size: Any, *, stride: Any = None,
    padding: Any = "valid", padding_mode: str = "zeros", ceil_mode: bool = False, dilation: Any = 1,
) -> Array:  # fmt: skip
    """Return which pixel each maximum came from, as PyTorch's `return_indices` counts.

    Parameters
    ----------
    offset : ndarray of shape (N, outputs..., C)
        As `max_pool` returned it; the other arguments are those of `max_pool`.
    x_shape : (N, spatial..., C)
    dtype : float32 or float64, the dtype of x

    Returns
    -------
    index : ndarray of int64 of the shape of offset
        (d H + h) W + w of the winner, whatever its channel; -1 for a window in the border alone.

    Raises
    ------
    ValueError
        If a shape or an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[1.0], [5.0], [2.0], [3.0]]])
    >>> max_pool_index(max_pool(x, 2)[1], x.shape, x.dtype, 2).ravel()
    array([1, 3])
    """
    pool = pool_geometry(
        x_shape, pool_size, stride, padding, padding_mode, ceil_mode, dilation, "MaxPool"
    )
    return _max_index(pool, offset, np.dtype(dtype), "MaxPool")


def avg_pool(
    x: Array, pool_size: Any, *, stride: Any = None, padding: Any = "valid",
    padding_mode: str = "zeros", ceil_mode: bool = False, count_include_pad: bool = False,
    dilation: Any = 1,
) -> Array:  # fmt: skip
    """Return the mean of each window.

    y[n, o, c] = sum over taps t of x[n, o stride + t dilation - begin, c] / count[o], where count
    is the number of taps inside the input, or with `count_include_pad` inside the padded input.

    Parameters
    ----------
    x : ndarray of shape (N, spatial..., C), 1 to 3 spatial axes
    pool_size, stride, padding, padding_mode, ceil_mode, dilation
        As in `max_pool`.
    count_include_pad : bool
        PyTorch's default is True, ONNX's and this one False.

    Raises
    ------
    ValueError
        If a shape or an argument is out of range, or a window does not fit.
    """
    pool = pool_geometry(
        x.shape, pool_size, stride, padding, padding_mode, ceil_mode, dilation, "AvgPool",
        count_include_pad,
    )  # fmt: skip
    return _forward("avg_pool_forward", pool, x)


def avg_pool_backward(
    dy: Array, x_shape: Sequence[int], pool_size: Any, *, stride: Any = None,
    padding: Any = "valid", padding_mode: str = "zeros", ceil_mode: bool = False,
    count_include_pad: bool = False, dilation: Any = 1,
) -> Array:  # fmt: skip
    """Return dx: each output's gradient is shared equally by the taps that its mean counted.

    Parameters
    ----------
    dy : ndarray of shape (N, outputs..., C)
    x_shape : (N, spatial..., C)
        The other arguments are those of `avg_pool`.

    Raises
    ------
    ValueError
        If a shape or an argument is out of range.
    """
    pool = pool_geometry(
        x_shape, pool_size, stride, padding, padding_mode, ceil_mode, dilation, "AvgPool",
        count_include_pad,
    )  # fmt: skip
    return _backward("avg_pool_backward", pool, _gradient(dy, pool.y_shape, "AvgPool"), x_shape)


def _check_p(p: float) -> float:
    if not 1 <= p < math.inf:
        raise ValueError(f"LpPool: p must be a finite number of at least 1, got {p!r}")
    return float(p)


def lp_pool(
    x: Array, pool_size: Any, *, p: float = 2, stride: Any = None, padding: Any = "valid",
    padding_mode: str = "zeros", ceil_mode: bool = False, dilation: Any = 1,
) -> Array:  # fmt: skip
    """Return the p-norm of each window.

    y[n, o, c] = (sum over taps t of |x[n, o stride + t dilation - begin, c]|^p)^(1 / p). The sum
    must be a number that the dtype has: in float32 and for p = 2, |x| below about 1e19.

    Parameters
    ----------
    x : ndarray of shape (N, spatial..., C), 1 to 3 spatial axes
    p : float of at least 1
    pool_size, stride, padding, padding_mode, ceil_mode, dilation
        As in `max_pool`.

    Raises
    ------
    ValueError
        If a shape or an argument is out of range, or a window does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> lp_pool(np.array([[[3.0], [-4.0]]]), 2).ravel()
    array([5.])
    """
    pool = pool_geometry(
        x.shape, pool_size, stride, padding, padding_mode, ceil_mode, dilation, "LpPool"
    )
    return _forward("lp_pool_forward", pool, x, p=_check_p(p))


def lp_pool_backward(
    dy: Array, x: Array, y: Array, pool_size: Any, *, p: float = 2, stride: Any = None,
    padding: Any = "valid", padding_mode: str = "zeros", ceil_mode: bool = False, dilation: Any = 1,
) -> Array:  # fmt: skip
    """Return dx: dy sign(x) (|x| / y)^(p - 1), added up over the windows; 0 where y = 0.

    Parameters
    ----------
    dy, y : ndarray of shape (N, outputs..., C)
    x : ndarray of shape (N, spatial..., C)
        `y` is what `lp_pool` returned for x; the other arguments are those of `lp_pool`.

    Raises
    ------
    ValueError
        If a shape or an argument is out of range.
    """
    pool = pool_geometry(
        x.shape, pool_size, stride, padding, padding_mode, ceil_mode, dilation, "LpPool"
    )
    dy = _gradient(dy, pool.y_shape, "LpPool")
    if y.shape != pool.y_shape:
        raise ValueError(f"LpPool: y must have shape {pool.y_shape}, got {y.shape}")
    return _backward("lp_pool_backward", pool, dy, x.shape, x=x, y=y, p=_check_p(p))


def _adaptive(x_shape: Sequence[int], output_size: Any, name: str) -> Geometry:
    return adaptive_geometry(tuple(x_shape), hashable(output_size), name)


def adaptive_max_pool(x: Array, output_size: Any) -> tuple[Array, Array]:
    """Return the maximum of each of `output_size` windows and which of its taps held it.

    Window o of an axis covers the pixels floor(o size / out) ... ceil((o + 1) size / out) - 1, as
    in PyTorch; otherwise like `max_pool`.

    Parameters
    ----------
    x : ndarray of shape (N, spatial..., C), 1 to 3 spatial axes
    output_size : int or one per axis

    Returns
    -------
    y : ndarray of shape (N, *output_size, C)
    offset : ndarray of uint8 of that shape (of the dtype of x for windows of over 255 pixels)

    Raises
    ------
    ValueError
        If a shape or an argument is out of range.
    """
    return _max(_adaptive(x.shape, output_size, "AdaptiveMaxPool"), x)


def adaptive_max_pool_backward(
    dy: Array, offset: Array, x_shape: Sequence[int], output_size: Any
) -> Array:
    """Return dx: each output's gradient goes to the pixel that held the maximum.

    Parameters and errors as for `max_pool_backward`, with `output_size` for the window.
    """
    pool = _adaptive(x_shape, output_size, "AdaptiveMaxPool")
    return _max_backward(pool, dy, offset, x_shape, "AdaptiveMaxPool")


def adaptive_max_index(
    offset: Array, x_shape: Sequence[int], dtype: Any, output_size: Any
) -> Array:  # fmt: skip
    """Return which pixel each maximum of `adaptive_max_pool` came from; see `max_pool_index`."""
    pool = _adaptive(x_shape, output_size, "AdaptiveMaxPool")
    return _max_index(pool, offset, np.dtype(dtype), "AdaptiveMaxPool")


def adaptive_avg_pool(x: Array, output_size: Any) -> Array:
    """Return the mean of each of `output_size` windows, those of `adaptive_max_pool`.

    Parameters
    ----------
    x : ndarray of shape (N, spatial..., C), 1 to 3 spatial axes
    output_size : int or one per axis

    Raises
    ------
    ValueError
        If a shape or an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool(np.arange(5.0).reshape(1, 5, 1), 2).ravel()
    array([1., 3.])
    """
    return _forward("avg_pool_forward", _adaptive(x.shape, output_size, "AdaptiveAvgPool"), x)


def adaptive_avg_pool_backward(dy: Array, x_shape: Sequence[int], output_size: Any) -> Array:
    """Return dx: each output's gradient is shared equally by the pixels of its window.

    Parameters
    ----------
    dy : ndarray of shape (N, *output_size, C)
    x_shape : (N, spatial..., C)
    output_size : int or one per axis

    Raises
    ------
    ValueError
        If a shape or an argument is out of range.
    """
    pool = _adaptive(x_shape, output_size, "AdaptiveAvgPool")
    dy = _gradient(dy, pool.y_shape, "AdaptiveAvgPool")
    return _backward("avg_pool_backward", pool, dy, x_shape)
