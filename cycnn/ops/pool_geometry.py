"""The windows of a pool: its arguments checked, its tables made, the Args of its kernels filled."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from cycnn._check import Array, hashable, per_axis
from cycnn.ops.window import output_size, resolve_padding, span, tap_map

CHUNK = 4096  # elements of a job, about
_MOST_TAPS = 1 << 16  # a larger window is a mistake; its tables would fill the memory


class PoolAxis(NamedTuple):
    """One axis of a pool: which input each tap reads, and which windows read each input."""

    size: int
    out: int
    taps: int
    map: Array  # (out, taps)
    counted: Array  # (out,), taps that an average counts
    start: Array  # (size + 1,), input i is read by entries start[i] ... start[i + 1] - 1 of
    window: Array  # windows, and
    tap: Array  # their taps
    readers: int  # how many entries an input has at most


def _axis_of(size: int, table: Array, counted: Array) -> PoolAxis:
    """Return the axis on which tap t of window o reads table[o, t]."""
    window, tap = np.nonzero(table >= 0)
    read = table[window, tap]
    order = np.argsort(read, kind="stable")  # the windows of each input stay in order
    start = np.searchsorted(read[order], np.arange(size + 1)).astype(np.int64)
    return PoolAxis(
        size, table.shape[0], table.shape[1], table, counted.astype(np.int64), start,
        window[order].astype(np.int64), tap[order].astype(np.int64), int(np.diff(start).max()),
    )  # fmt: skip


@functools.lru_cache(maxsize=512)
def window_axis(
    size: int, out: int, taps: int, stride: int, dilation: int, begin: int, end: int, mode: str,
    count_include_pad: bool = False,
) -> PoolAxis:  # fmt: skip
    """Return the axis of a sliding window; an average counts the border if asked to."""
    table = tap_map(size, out, taps, stride, dilation, begin, mode, end)
    counted = table
    if count_include_pad:  # all taps but those that hang over the end of the border
        counted = tap_map(size + begin + end, out, taps, stride, dilation, 0, "zeros")
    return _axis_of(size, table, np.count_nonzero(counted >= 0, axis=1))


@functools.lru_cache(maxsize=512)
def adaptive_axis(size: int, out: int) -> PoolAxis:
    """Return the axis whose window o is floor(o size / out) ... ceil((o + 1) size / out) - 1.

    Examples
    --------
    >>> adaptive_axis(5, 3).map
    array([[ 0,  1, -1],
           [ 1,  2,  3],
           [ 3,  4, -1]])
    """
    o = np.arange(out, dtype=np.int64)[:, None]
    start, stop = o * size // out, -(-(o + 1) * size // out)
    pixel = start + np.arange(int((stop - start).max()), dtype=np.int64)
    return _axis_of(size, np.where(pixel < stop, pixel, -1), (stop - start)[:, 0])


ONE_PIXEL = window_axis(1, 1, 1, 1, 1, 0, 0, "zeros")
"""Stands for an axis that is missing."""


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


def check_rank(spatial: Sequence[int], shape: Sequence[int], name: str) -> None:
    """Raise ValueError unless `shape` has one to three spatial axes and channels."""
    if not 1 <= len(spatial) <= 3:
        raise ValueError(
            f"{name}: the input must have 1, 2 or 3 spatial axes and then channels, "
            f"got shape {tuple(shape)}"
        )
    if shape[-1] < 1:
        raise ValueError(
            f"{name}: the input must have at least one channel, got shape {tuple(shape)}"
        )


class Geometry(NamedTuple):
    """A pool on a given input, as three axes (those missing have one pixel and one tap)."""

    axes: tuple[PoolAxis, PoolAxis, PoolAxis]
    y_shape: tuple[int, ...]

    @classmethod
    def of(cls, axes: Sequence[PoolAxis], x_shape: Sequence[int]) -> Self:
        """Return the geometry of one to three axes on an input (N, spatial..., C)."""
        d, h, w = [ONE_PIXEL] * (3 - len(axes)) + list(axes)
        return cls((d, h, w), (x_shape[0], *(axis.out for axis in axes), x_shape[-1]))

    @property
    def taps(self) -> int:
        """Return how many taps a window has."""
        return math.prod(axis.taps for axis in self.axes)

    @property
    def wide(self) -> bool:
        """Say whether a window has more taps than a byte can number, one number left for none."""
        return self.taps > 255

    def offset_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return what holds the number of a tap: a byte if it can, else the dtype of x."""
        return dtype if self.wide else np.dtype(np.uint8)

    def forward(
        self,
        x: Array,
        y: Array,
        offset: Array | None = None,
        p: float = 0.0,
        rectified: bool = False,
    ) -> dict[str, Any]:
        """Return the Args of a forward kernel."""
        d, h, w = self.axes
        return {
            "x": x, "y": y, **self.windows(offset), "D": d.size,
            "count_d": d.counted, "count_h": h.counted, "count_w": w.counted, "p": p,
            "rectified": rectified, "scratch": 8 * (2 * d.taps * h.taps + 2 * self.taps),
            "work": x.nbytes + y.nbytes + x.itemsize * y.size * self.taps,
        }  # fmt: skip

    def windows(self, offset: Array | None) -> dict[str, Any]:
        """Return the Args that say what the windows read, and how they are shared out."""
        d, h, w = self.axes
        channels = self.y_shape[-1]
        return {
            "offset": offset, "map_d": d.map, "map_h": h.map, "map_w": w.map,
            "H": h.size, "W": w.size, "C": channels,
            "OD": d.out, "OH": h.out, "OW": w.out, "KD": d.taps, "KH": h.taps, "KW": w.taps,
            "wide": self.wide, "outputs": math.prod(self.y_shape[:-1]),
            "chunk": max(CHUNK // channels, 1),
        }  # fmt: skip

    def backward(
        self, dy: Array, dx: Array, *, offset: Array | None = None, x: Array | None = None,
        y: Array | None = None, p: float = 0.0,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the Args of a backward kernel."""
        d, h, w = self.axes
        rows = d.readers * h.readers
        return {
            "dy": dy, "offset": offset, "dx": dx, "x": x, "y": y, "p": p,
            "start_d": d.start, "window_d": d.window, "tap_d": d.tap,
            "start_h": h.start, "window_h": h.window, "tap_h": h.tap,
            "start_w": w.start, "window_w": w.window, "tap_w": w.tap,
            "count_d": d.counted, "count_h": h.counted, "count_w": w.counted,
            "D": d.size, "H": h.size, "W": w.size, "C": dx.shape[-1],
            "OD": d.out, "OH": h.out, "OW": w.out, "KH": h.taps, "KW": w.taps,
            "wide": self.wide, "outputs": dy.size // dx.shape[-1],
            "inputs": dx.size // dx.shape[-1],
            "chunk": max(CHUNK // dx.shape[-1], 1), "rows": rows, "reads": rows * w.readers,
            "scratch": 8 * (3 * rows + 2 * rows * w.readers),
            "work": dx.nbytes + dy.nbytes + dx.itemsize * dy.size * self.taps,
        }  # fmt: skip


@functools.lru_cache(maxsize=512, typed=True)
def _cached_geometry(
    x_shape: tuple[int, ...], pool_size: Any, stride: Any, padding: Any, padding_mode: str,
    ceil_mode: bool, dilation: Any, name: str, count_include_pad: bool,
) -> Geometry:  # fmt: skip
    size = x_shape[1:-1]
    check_rank(size, x_shape, name)
    pool, strides, dilations, border, out = _resolve(
        size, pool_size, stride, padding, ceil_mode, dilation, name
    )
    if math.prod(pool) > _MOST_TAPS:
        raise ValueError(f"{name}: a window must have at most {_MOST_TAPS} pixels, got {pool}")
    return Geometry.of(
        [
            window_axis(n, o, k, s, d, *pair, padding_mode, count_include_pad)
            for n, o, k, s, d, pair in zip(size, out, pool, strides, dilations, border, strict=True)
        ],
        x_shape,
    )


def pool_geometry(
    x_shape: Sequence[int], pool_size: Any, stride: Any, padding: Any, padding_mode: str,
    ceil_mode: bool, dilation: Any, name: str, count_include_pad: bool = False,
) -> Geometry:  # fmt: skip
    """Check a pool's arguments and return its geometry, made once for the same arguments."""
    return _cached_geometry(
        tuple(x_shape), hashable(pool_size), hashable(stride), hashable(padding), padding_mode,
        bool(ceil_mode), hashable(dilation), name, bool(count_include_pad),
    )  # fmt: skip


@functools.lru_cache(maxsize=512)
def adaptive_geometry(x_shape: tuple[int, ...], output_size: Any, name: str) -> Geometry:
    """Check the arguments of an adaptive pool and return its geometry."""
    size = x_shape[1:-1]
    check_rank(size, x_shape, name)
    if min(size) < 1:
        raise ValueError(f"{name}: every spatial axis must have at least one pixel, got {size}")
    out = per_axis(output_size, len(size), f"{name}: output_size")
    geometry = Geometry.of([adaptive_axis(n, o) for n, o in zip(size, out, strict=True)], x_shape)
    if geometry.taps > 1 << 24:  # what a float32 can number
        raise ValueError(
            f"{name}: a window must have at most {1 << 24} pixels, got {geometry.taps}"
        )
    return geometry
