"""Borders and resolutions: each output copies an input, or is a weighted sum of a few.

Along one spatial axis of a row 1 2 3 4:

    crop (1, 0)       2 3 4
    pad (2, 1)        0 0 | 1 2 3 4 | 0         and the other modes of ops/window.py
    upsample by 2     1 1 2 2 3 3 4 4           nearest; linear goes in a straight line

Which inputs make an output is a table per axis; a gradient is the transposed table.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from cycnn import engine
from cycnn._check import Array, integer, per_axis
from cycnn.ops.window import PADDING_MODES, tap_map

Borders = tuple[tuple[int, int], ...]
Map = npt.NDArray[np.int64]

UPSAMPLE_MODES = ("nearest", "linear")
_CHUNK = 8192  # elements of a job, about


# Tables: what each output of one axis is made from


class _Table(NamedTuple):
    """One axis: output o is the sum of weight[e] x[source[e]] over start[o] <= e < start[o + 1]."""

    size: int
    out: int
    start: Map  # (out + 1,)
    source: Map
    weight: Array
    most: int  # entries of one output

    @classmethod
    def of(
        cls, size: int, out: int, output: Array, source: Array, weight: Array, dtype: Any
    ) -> Self:
        """Return the table of entries (output, source, weight), in the order of the inputs."""
        used = weight != 0
        output, source, weight = output[used], source[used], weight[used]
        order = np.lexsort((source, output))
        start = np.searchsorted(output[order], np.arange(out + 1)).astype(np.int64)
        return cls(
            size, out, start, source[order].astype(np.int64), weight[order].astype(dtype),
            int(np.diff(start).max()),
        )  # fmt: skip


@functools.lru_cache(maxsize=512)
def _pad_map(size: int, begin: int, end: int, mode: str) -> Map:
    """Return the input index that each pixel of a padded axis copies, -1 for none."""
    return tap_map(size, size + begin + end, 1, 1, 1, begin, mode).reshape(-1)


@functools.lru_cache(maxsize=512)
def _crop_map(size: int, begin: int, end: int) -> Map:
    return np.arange(begin, size - end, dtype=np.int64)


@functools.lru_cache(maxsize=512)
def _nearest_map(size: int, factor: int) -> Map:
    return np.arange(size * factor, dtype=np.int64) // factor


@functools.lru_cache(maxsize=512)
def _pad_backward(size: int, begin: int, end: int, mode: str, dtype: Any) -> _Table:
    return _transposed(_pad_map(size, begin, end, mode), size, dtype)


@functools.lru_cache(maxsize=512)
def _nearest_backward(size: int, factor: int, dtype: Any) -> _Table:
    return _transposed(_nearest_map(size, factor), size, dtype)


def _transposed(copied: Map, size: int, dtype: Any) -> _Table:
    """Return the table that adds to each input the gradients of the outputs that copied it."""
    output = np.flatnonzero(copied >= 0)
    return _Table.of(len(copied), size, copied[output], output, np.ones(len(output)), dtype)


@functools.lru_cache(maxsize=512)
def _linear(size: int, factor: int, align_corners: bool, backward: bool, dtype: Any) -> _Table:
    """Return the two-tap table of linear interpolation, or its transpose.

    Output o lies at the input's position (o + 1/2) / factor - 1/2, at least 0, or with
    `align_corners` at o (size - 1) / (out - 1).
    """
    out = size * factor
    o = np.arange(out, dtype=np.int64)
    if align_corners:
        above, below = o * (size - 1), max(out - 1, 1)
    else:
        above, below = np.maximum(2 * o + 1 - factor, 0), 2 * factor
    low, rest = np.divmod(above, below)  # whole numbers: a weight is rounded once
    rest[low == size - 1] = 0  # beyond the last pixel there is nothing to go to
    output, source = np.concatenate([o, o]), np.concatenate([low, low + 1])
    weight = np.concatenate([below - rest, rest]) / below
    if backward:
        return _Table.of(out, size, source, output, weight, dtype)
    return _Table.of(size, out, output, source, weight, dtype)


# Runs


def _spatial(shape: Sequence[int], name: str) -> tuple[int, ...]:
    """Return the spatial extents of a batch of shape (N, spatial..., C)."""
    if not 3 <= len(shape) <= 5:
        raise ValueError(
            f"{name}: x must have a batch, 1 to 3 spatial axes and channels, got shape "
            f"{tuple(shape)}"
        )
    if min(shape[1:]) < 1:
        raise ValueError(f"{name}: every axis must have an extent, got shape {tuple(shape)}")
    return tuple(shape[1:-1])


def _within_memory(x: Array, spatial: Sequence[int], name: str) -> None:
    """Raise ValueError before tables are made of sizes that no index can hold."""
    if math.prod((*spatial, x.shape[-1])) >= 2**60:
        raise ValueError(f"{name}: sizes must fit into memory, got an output of {tuple(spatial)}")


def _gather(x: Array, maps: Sequence[Map], value: float = 0.0) -> Array:
    """Return y whose pixels copy those of x that `maps`, one for each axis, name."""
    channels = x.shape[-1]
    y = engine.empty((x.shape[0], *map(len, maps), channels), x.dtype)
    d, h, w = [np.zeros(1, np.int64)] * (3 - len(maps)) + list(maps)
    D, H, W = (1,) * (3 - len(maps)) + x.shape[1:-1]
    outputs, chunk = y.size // channels, max(_CHUNK // channels, 1)
    plan = engine.Plan()
    plan.add(
        engine.kernels(x.dtype).gather, -(-outputs // chunk), x=x, y=y, map_d=d, map_h=h, map_w=w,
        D=D, H=H, W=W, C=channels, OD=len(d), OH=len(h), OW=len(w), outputs=outputs, chunk=chunk,
        value=float(value), work=2 * y.nbytes,
    )  # fmt: skip
    plan.run()
    return y


def _resample(x: Array, tables: Sequence[_Table]) -> Array:
    """Return y whose pixels are the sums of those of x that `tables`, one for each axis, name."""
    images, channels = x.shape[0], x.shape[-1]
    y = engine.empty((images, *(t.out for t in tables), channels), x.dtype)
    one = _Table(1, 1, np.arange(2, dtype=np.int64), np.zeros(1, np.int64), np.ones(1, x.dtype), 1)
    d, h, w = [one] * (3 - len(tables)) + list(tables)
    rows, reads = images * d.out * h.out, max(d.most * h.most, 1)
    row_chunk = max(_CHUNK // (w.out * channels), 1)
    # A row made from several must be mixed as a whole; one that is read as it stands can be cut.
    columns = w.out if len(tables) > 1 else max(_CHUNK // channels, 1)
    parts = -(-w.out // columns)
    plan = engine.Plan()
    plan.add(
        engine.kernels(x.dtype).resample, -(-rows // row_chunk) * parts, x=x, y=y,
        start_d=d.start, source_d=d.source, weight_d=d.weight,
        start_h=h.start, source_h=h.source, weight_h=h.weight,
        start_w=w.start, source_w=w.source, weight_w=w.weight,
        D=d.size, H=h.size, W=w.size, C=channels, OD=d.out, OH=h.out, OW=w.out,
        rows=rows, row_chunk=row_chunk, columns=columns, parts=parts, reads=reads,
        scratch=16 * reads + x.itemsize * w.size * channels, work=2 * (x.nbytes + y.nbytes),
    )  # fmt: skip
    plan.run()
    return y


def _gradient(dy: Array, shape: tuple[int, ...], name: str) -> Array:
    if dy.shape != shape:
        raise ValueError(f"{name}: dy must have shape {shape}, got {dy.shape}")
    return dy


def borders(value: Any, axes: int, name: str) -> Borders:
    """Return (begin, end) for each of `axes` spatial axes: an int stands for all sides.

    Raises
    ------
    TypeError, ValueError
        If `value` is neither an int nor a pair for each axis, or one is negative.
    """
    if not isinstance(value, (tuple, list, np.ndarray)):
        border = integer(value, name)
        return ((border, border),) * axes
    if len(value) != axes or any(np.shape(pair) != (2,) for pair in value):
        raise ValueError(
            f"{name} must be an integer or a (begin, end) pair for each of the {axes} spatial "
            f"axes, got {value!r}"
        )
    return tuple((integer(begin, name), integer(end, name)) for begin, end in value)


# Crops


def crop(x: Array, cropping: Any) -> Array:
    """Return x without the given border.

    Parameters
    ----------
    x : ndarray of shape (N, spatial..., C), 1 to 3 spatial axes
    cropping : int or (begin, end) per axis

    Raises
    ------
    ValueError
        If an argument is out of range or nothing is left.
    """
    sizes = _spatial(x.shape, "Crop")
    cut = _cut(sizes, cropping)
    return _gather(x, [_crop_map(n, *pair) for n, pair in zip(sizes, cut, strict=True)])


def crop_backward(dy: Array, x_shape: Sequence[int], cropping: Any) -> Array:
    """Return dx: dy inside, 0 on the border that `crop` cut off.

    Parameters
    ----------
    dy : ndarray of the shape that `crop` returned
    x_shape : (N, spatial..., C)
    cropping : int or (begin, end) per axis

    Raises
    ------
    ValueError
        If an argument is out of range or dy has another shape.
    """
    sizes = _spatial(x_shape, "Crop")
    cut = _cut(sizes, cropping)
    inside = tuple(n - sum(pair) for n, pair in zip(sizes, cut, strict=True))
    _gradient(dy, (x_shape[0], *inside, x_shape[-1]), "Crop")
    return _gather(dy, [_pad_map(n, *p, "zeros") for n, p in zip(inside, cut, strict=True)])


def _cut(sizes: Sequence[int], cropping: Any) -> Borders:
    cut = borders(cropping, len(sizes), "Crop: cropping")
    if any(sum(pair) >= n for n, pair in zip(sizes, cut, strict=True)):
        raise ValueError(
            f"Crop: cropping must leave at least one pixel of {tuple(sizes)}, got {cut}"
        )
    return cut


# Pads


def pad(x: Array, padding: Any, mode: str = "zeros", value: float = 0.0) -> Array:
    """Return x with a border.

    Parameters
    ----------
    x : ndarray of shape (N, spatial..., C), 1 to 3 spatial axes
    padding : int or (begin, end) per axis
    mode : {"zeros", "reflect", "replicate", "circular"}
        As `tap_map` of ops/window.py shows them.
    value : float
        What a border of mode "zeros" holds.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> pad(np.array([[[1.0], [2.0], [3.0]]]), ((2, 1),), "reflect").ravel()
    array([3., 2., 1., 2., 3., 2.])
    """
    sizes = _spatial(x.shape, "Pad")
    border = _border(padding, sizes, mode)
    _within_memory(x, [n + sum(pair) for n, pair in zip(sizes, border, strict=True)], "Pad")
    maps = [_pad_map(n, *pair, mode) for n, pair in zip(sizes, border, strict=True)]
    return _gather(x, maps, value)


def pad_backward(dy: Array, x_shape: Sequence[int], padding: Any, mode: str = "zeros") -> Array:
    """Return dx: each pixel gets the gradients of all places that hold a copy of it.

    Parameters
    ----------
    dy : ndarray of the shape that `pad` returned
    x_shape : (N, spatial..., C)
    padding, mode
        Those of `pad`.

    Raises
    ------
    ValueError
        If an argument is out of range or dy has another shape.
    """
    sizes = _spatial(x_shape, "Pad")
    border = _border(padding, sizes, mode)
    padded = (n + sum(pair) for n, pair in zip(sizes, border, strict=True))
    _gradient(dy, (x_shape[0], *padded, x_shape[-1]), "Pad")
    if mode == "zeros":
        whole = zip(sizes, border, strict=True)
        return _gather(dy, [_crop_map(n + sum(pair), *pair) for n, pair in whole])
    return _resample(
        dy, [_pad_backward(n, *p, mode, dy.dtype) for n, p in zip(sizes, border, strict=True)]
    )


def _border(padding: Any, sizes: Sequence[int], mode: str) -> Borders:
    if mode not in PADDING_MODES:
        raise ValueError(f"Pad: mode must be one of {', '.join(PADDING_MODES)}, got {mode!r}")
    return borders(padding, len(sizes), "Pad: padding")


# Resolutions


def upsample(
    x: Array, factor: Any, mode: str = "nearest", *, align_corners: bool = False
) -> Array:  # fmt: skip
    """Return x with every spatial axis made `factor` times as long.

    Nearest: y[o] = x[floor(o / factor)]. Linear: y[o] lies on the straight line between the two
    pixels beside position p = max((o + 1/2) / factor - 1/2, 0), or with `align_corners`
    p = o (size - 1) / (out - 1), so that the first and the last pixel keep their values; on two and
    three axes, the product of these (bilinear, trilinear).

    Parameters
    ----------
    x : ndarray of shape (N, spatial..., C), 1 to 3 spatial axes
    factor : int or one per axis
    mode : {"nearest", "linear"}
    align_corners : bool

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> upsample(np.array([[[0.0], [4.0]]]), 2, "linear").ravel()
    array([0., 1., 3., 4.])
    """
    sizes = _spatial(x.shape, "Upsample")
    factors = _factors(factor, sizes, mode)
    pairs = list(zip(sizes, factors, strict=True))
    _within_memory(x, [n * f for n, f in pairs], "Upsample")
    if mode == "nearest":
        return _gather(x, [_nearest_map(*pair) for pair in pairs])
    return _resample(x, [_linear(*pair, align_corners, False, x.dtype) for pair in pairs])


def upsample_backward(
    dy: Array, x_shape: Sequence[int], factor: Any, mode: str = "nearest", *,
    align_corners: bool = False,
) -> Array:  # fmt: skip
    """Return dx: each pixel gets what every output took of it.

    Parameters
    ----------
    dy : ndarray of the shape that `upsample` returned
    x_shape : (N, spatial..., C)
    factor, mode, align_corners
        Those of `upsample`.

    Raises
    ------
    ValueError
        If an argument is out of range or dy has another shape.
    """
    sizes = _spatial(x_shape, "Upsample")
    factors = _factors(factor, sizes, mode)
    pairs = list(zip(sizes, factors, strict=True))
    _gradient(dy, (x_shape[0], *(n * f for n, f in pairs), x_shape[-1]), "Upsample")
    if mode == "nearest":
        return _resample(dy, [_nearest_backward(*pair, dy.dtype) for pair in pairs])
    return _resample(dy, [_linear(*pair, align_corners, True, dy.dtype) for pair in pairs])


def _factors(factor: Any, sizes: Sequence[int], mode: str) -> tuple[int, ...]:
    check_upsample_mode(mode)
    return per_axis(factor, len(sizes), "Upsample: factor")


def check_upsample_mode(mode: str) -> None:
    """Raise ValueError unless `mode` is one that `upsample` knows."""
    if mode not in UPSAMPLE_MODES:
        raise ValueError(f"Upsample: mode must be one of {', '.join(UPSAMPLE_MODES)}, got {mode!r}")
