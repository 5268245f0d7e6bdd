"""Maximum and average pooling on one, two or three spatial axes, each channel alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cycnn import engine
from cycnn._check import Array, as_input, per_axis
from cycnn.ops.window import output_size, resolve_padding, span, tap_map

_CHUNK = 4096  # elements of a job, about
_MOST_TAPS = 1 << 16  # a larger window is a mistake; its tables would fill the memory


class _Axis(NamedTuple):
    """One axis of a pool: which input each tap reads, and which windows read each input."""

    size: int
    out: int
    taps: int
    map: Array  # (out, taps)
    count: Array  # (out,), taps that an average counts
    start: Array  # (size + 1,), input i is read by entries start[i] ... start[i + 1] - 1 of
    window: Array  # windows, and
    tap: Array  # their taps
    readers: int  # how many entries an input has at most


@functools.lru_cache(maxsize=512)
def _axis(
    size: int, out: int, taps: int, stride: int, dilation: int, begin: int, end: int, mode: str,
    count_include_pad: bool,
) -> _Axis:  # fmt: skip
    table = tap_map(size, out, taps, stride, dilation, begin, mode, end)
    counted = table
    if count_include_pad:  # all taps but those that hang over the end of the border
        counted = tap_map(size + begin + end, out, taps, stride, dilation, 0, "zeros")
    window, tap = np.nonzero(table >= 0)
    read = table[window, tap]
    order = np.argsort(read, kind="stable")  # the windows of each input stay in order
    start = np.searchsorted(read[order], np.arange(size + 1)).astype(np.int64)
    return _Axis(
        size, out, taps, table, np.count_nonzero(counted >= 0, axis=1).astype(np.int64), start,
        window[order].astype(np.int64), tap[order].astype(np.int64), int(np.diff(start).max()),
    )  # fmt: skip


def _resolve(
    input_size: Sequence[int], pool_size: Any, stride: Any, padding: Any, ceil_mode: bool,
    dilation: Any, name: str,
) -> tuple[
    tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...]
]:  # fmt: skip
    """Check a pool's arguments; return (pool, stride, dilation, padding, output size) per axis."""
    axes = len(input_size)
    pool = per_axis(pool_size, axes, f"{name}: pool_size")
    strides = pool if stride is None else per_axis(stride, axes, f"{name}: stride")
    dilations = per_axis(dilation, axes, f"{name}: dilation")
    border = resolve_padding(padding, input_size, pool, strides, dilations, name)
    if not isinstance(padding, str):
        for k, d, pair in zip(pool, dilations, border, strict=True):
            if 2 * max(pair) > span(k, d):
                raise ValueError(
                    f"{name}: padding must be at most half the window, got a padding of "
                    f"{max(pair)} for a window of {span(k, d)}"
                )
    out = output_size(input_size, pool, strides, dilations, border, name, ceil_mode=ceil_mode)
    return pool, strides, dilations, border, out


def pool_output_shape(
    input_shape: Sequence[int],
    pool_size: Any,
    *,
    stride: Any = None,
    padding: Any = "valid",
    ceil_mode: bool = False,
    dilation: Any = 1,
    name: str = "MaxPool",
) -> tuple[int, ...]:
    """Return the shape that pooling one image of shape (spatial..., C) gives.

    Raises
    ------
    ValueError
        If an argument is out of range or no window fits.

    Examples
    --------
    >>> pool_output_shape((8, 9, 16), 2)
    (4, 4, 16)
    """
    size = tuple(input_shape[:-1])
    _check_rank(size, input_shape, name)
    *_, out = _resolve(size, pool_size, stride, padding, ceil_mode, dilation, name)
    return (*out, input_shape[-1])


def _check_rank(spatial: Sequence[int], shape: Sequence[int], name: str) -> None:
    if not 1 <= len(spatial) <= 3:
        raise ValueError(
            f"{name}: the input must have 1, 2 or 3 spatial axes and then channels, "
            f"got shape {tuple(shape)}"
        )
    if shape[-1] < 1:
        raise ValueError(
            f"{name}: the input must have at least one channel, got shape {tuple(shape)}"
        )


class _Geometry(NamedTuple):
    """A pool on a given input, as three axes (those missing have one pixel and one tap)."""

    axes: tuple[_Axis, _Axis, _Axis]
    y_shape: tuple[int, ...]

    @property
    def taps(self) -> int:
        return math.prod(axis.taps for axis in self.axes)

    def offset_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return what holds the number of a tap: a byte if it can, else the dtype of x."""
        return np.dtype(np.uint8) if self.taps <= 256 else dtype

    def forward(self, x: Array, y: Array, offset: Array | None) -> dict[str, Any]:
        """Return the Args of a forward kernel."""
        d, h, w = self.axes
        return {
            "x": x, "y": y, "offset": offset, "map_d": d.map, "map_h": h.map, "map_w": w.map,
            "count_d": d.count, "count_h": h.count, "count_w": w.count,
            "D": d.size, "H": h.size, "W": w.size, "C": x.shape[-1],
            "OD": d.out, "OH": h.out, "OW": w.out, "KD": d.taps, "KH": h.taps, "KW": w.taps,
            "wide": self.taps > 256, "outputs": y.size // x.shape[-1],
            "chunk": max(_CHUNK // x.shape[-1], 1),
            "scratch": 8 * (2 * d.taps * h.taps + 2 * self.taps),
            "work": x.nbytes + y.nbytes + x.itemsize * y.size * self.taps,
        }  # fmt: skip

    def backward(self, dy: Array, offset: Array | None, dx: Array) -> dict[str, Any]:
        """Return the Args of a backward kernel."""
        d, h, w = self.axes
        rows = d.readers * h.readers
        return {
            "dy": dy, "offset": offset, "dx": dx,
            "start_d": d.start, "window_d": d.window, "tap_d": d.tap,
            "start_h": h.start, "window_h": h.window, "tap_h": h.tap,
            "start_w": w.start, "window_w": w.window, "tap_w": w.tap,
            "count_d": d.count, "count_h": h.count, "count_w": w.count,
            "D": d.size, "H": h.size, "W": w.size, "C": dx.shape[-1],
            "OD": d.out, "OH": h.out, "OW": w.out, "KH": h.taps, "KW": w.taps,
            "wide": self.taps > 256, "outputs": dy.size // dx.shape[-1],
            "inputs": dx.size // dx.shape[-1],
            "chunk": max(_CHUNK // dx.shape[-1], 1), "rows": rows, "reads": rows * w.readers,
            "scratch": 8 * (3 * rows + 2 * rows * w.readers),
            "work": dx.nbytes + dy.nbytes + dx.itemsize * dy.size * self.taps,
        }  # fmt: skip


@functools.lru_cache(maxsize=512, typed=True)
def _cached_geometry(
    x_shape: tuple[int, ...], pool_size: Any, stride: Any, padding: Any, padding_mode: str,
    ceil_mode: bool, dilation: Any, name: str, count_include_pad: bool,
) -> _Geometry:  # fmt: skip
    size = x_shape[1:-1]
    _check_rank(size, x_shape, name)
    pool, strides, dilations, border, out = _resolve(
        size, pool_size, stride, padding, ceil_mode, dilation, name
    )
    if math.prod(pool) > _MOST_TAPS:
        raise ValueError(f"{name}: a window must have at most {_MOST_TAPS} pixels, got {pool}")
    axes = [_axis(1, 1, 1, 1, 1, 0, 0, "zeros", False)] * (3 - len(size)) + [
        _axis(n, o, k, s, d, *pair, padding_mode, count_include_pad)
        for n, o, k, s, d, pair in zip(size, out, pool, strides, dilations, border, strict=True)
    ]
    return _Geometry((axes[0], axes[1], axes[2]), (x_shape[0], *out, x_shape[-1]))


def _geometry(
    x_shape: Sequence[int], pool_size: Any, stride: Any, padding: Any, padding_mode: str,
    ceil_mode: bool, dilation: Any, name: str, count_include_pad: bool = False,
) -> _Geometry:  # fmt: skip
    """Check a pool's arguments and return its geometry, made once for the same arguments."""
    return _cached_geometry(
        tuple(x_shape), _hashable(pool_size), _hashable(stride), _hashable(padding), padding_mode,
        bool(ceil_mode), _hashable(dilation), name, bool(count_include_pad),
    )  # fmt: skip


def _hashable(value: Any) -> Any:
    """Return `value` with its lists as tuples."""
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple, np.ndarray)) else value


def _gradient(dy: Array, shape: tuple[int, ...], name: str) -> Array:
    dy = as_input(dy, dy.dtype, f"{name}: dy")
    if dy.shape != shape:
        raise ValueError(f"{name}: dy must have shape {shape}, got {dy.shape}")
    return dy


def max_pool(
    x: Array, pool_size: Any, *, stride: Any = None, padding: Any = "valid",
    padding_mode: str = "zeros", ceil_mode: bool = False, dilation: Any = 1,
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

    Returns
    -------
    y : ndarray of shape (N, outputs..., C)
    offset : ndarray of uint8 of that shape (of the dtype of x for windows of over 256 pixels)
        The winning tap, counted along the last axis first.

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
    pool = _geometry(
        x.shape, pool_size, stride, padding, padding_mode, ceil_mode, dilation, "MaxPool"
    )
    y = engine.empty(pool.y_shape, x.dtype)
    offset = engine.empty(pool.y_shape, pool.offset_dtype(x.dtype))
    _run("max_pool_forward", y, pool.forward(x, y, offset))
    return y, offset


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
    pool = _geometry(
        x_shape, pool_size, stride, padding, padding_mode, ceil_mode, dilation, "MaxPool"
    )
    dy = _gradient(dy, pool.y_shape, "MaxPool")
    offset_dtype = pool.offset_dtype(dy.dtype)
    if offset.shape != pool.y_shape or offset.dtype != offset_dtype:
        raise ValueError(
            f"MaxPool: offset must be {offset_dtype} of shape {pool.y_shape}, "
            f"got {offset.dtype} of shape {offset.shape}"
        )
    dx = engine.empty(tuple(x_shape), dy.dtype)
    _run("max_pool_backward", dx, pool.backward(dy, np.ascontiguousarray(offset), dx))
    return dx


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
    pool = _geometry(
        x.shape, pool_size, stride, padding, padding_mode, ceil_mode, dilation, "AvgPool",
        count_include_pad,
    )  # fmt: skip
    y = engine.empty(pool.y_shape, x.dtype)
    _run("avg_pool_forward", y, pool.forward(x, y, None))
    return y


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
    pool = _geometry(
        x_shape, pool_size, stride, padding, padding_mode, ceil_mode, dilation, "AvgPool",
        count_include_pad,
    )  # fmt: skip
    dy = _gradient(dy, pool.y_shape, "AvgPool")
    dx = engine.empty(tuple(x_shape), dy.dtype)
    _run("avg_pool_backward", dx, pool.backward(dy, None, dx))
    return dx


def _run(kernel: str, out: Array, arguments: dict[str, Any]) -> None:
    """Run one kernel over the pixels of `out`."""
    plan = engine.Plan()
    jobs = -(-(out.size // out.shape[-1]) // arguments["chunk"])
    plan.add(getattr(engine.kernels(out.dtype), kernel), jobs, **arguments)
    plan.run()


def global_avg_pool(x: Array) -> Array:
    """Return the mean over all spatial axes: y[n, c] = sum over pixels p of x[n, p, c] / P.

    Parameters
    ----------
    x : ndarray of shape (N, spatial..., C), 1 to 3 spatial axes

    Returns
    -------
    y : ndarray of shape (N, C)

    Raises
    ------
    ValueError
        If x has another number of axes, or no pixels.
    """
    pixels = _pixels(x.shape)
    images, channels = x.shape[0], x.shape[-1]
    y = engine.empty((images, channels), x.dtype)
    chunk = 64
    jobs = -(-channels // chunk)
    plan = engine.Plan()
    plan.add(
        engine.kernels(x.dtype).global_avg_pool_forward, images * jobs, x=x, y=y, P=pixels,
        C=channels, chunk=chunk, parts=jobs, work=x.nbytes,
    )  # fmt: skip
    plan.run()
    return y


def global_avg_pool_backward(dy: Array, x_shape: Sequence[int]) -> Array:
    """Return dx[n, p, c] = dy[n, c] / P.

    Parameters
    ----------
    dy : ndarray of shape (N, C)
    x_shape : (N, spatial..., C)

    Raises
    ------
    ValueError
        If a shape is wrong.
    """
    pixels = _pixels(x_shape)
    images, channels = x_shape[0], x_shape[-1]
    dy = _gradient(dy, (images, channels), "GlobalAvgPool")
    dx = engine.empty(tuple(x_shape), dy.dtype)
    chunk = max(_CHUNK // channels, 1)
    jobs = -(-pixels // chunk)
    plan = engine.Plan()
    plan.add(
        engine.kernels(dy.dtype).global_avg_pool_backward, images * jobs, x=dy, y=dx, P=pixels,
        C=channels, chunk=chunk, parts=jobs, work=dx.nbytes,
    )  # fmt: skip
    plan.run()
    return dx


def _pixels(shape: Sequence[int]) -> int:
    """Return the number of pixels of an image of a batch of shape (N, spatial..., C)."""
    spatial = tuple(shape[1:-1])
    _check_rank(spatial, shape, "GlobalAvgPool")
    if math.prod(spatial) < 1:
        raise ValueError(
            f"GlobalAvgPool: every spatial axis must have at least one pixel, got {tuple(shape)}"
        )
    return math.prod(spatial)
