"""Convolution in 1, 2 or 3 spatial axes, channels last.

    y[n, o, k] = bias[k] + sum over taps t and channels c of x[n, o * stride + t * dilation - begin,
    c] * weight[t, c, k]

(cross-correlation, as in every deep-learning library).  With groups, kernel k sees the channels of
its own group only.  The two gradients follow by the chain rule from this one formula:

    dx[n, i, c]      = sum over the o and t that read i of dy[n, o, k] * weight[t, c, k]
    dweight[t, c, k] = sum over n, o of x[n, o * stride + t * dilation - begin, c] * dy[n, o, k]
    dbias[k]         = sum over n, o of dy[n, o, k]
"""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from cycnn._check import Array
from cycnn.engine import (
    Block,
    Bound,
    Plan,
    beyond,
    cache_sizes,
    empty,
    kernels,
    outside_plans,
    zeros,
)
from cycnn.ops import blocking, depthwise, weight_gradient, winograd
from cycnn.ops.algorithm import OUTPUTS
from cycnn.ops.blocking import Axis, Scratch
from cycnn.ops.cost import choose, folds
from cycnn.ops.problem import (
    Problem,
    conv_output_shape,
    forward_axes,
    input_gradient_axes,
    resolve,
    resolve_kernel,
)
from cycnn.ops.window import tap_map
from cycnn.threads import get_num_threads

__all__ = ["conv", "conv_backward_input", "conv_backward_weight", "conv_output_shape"]

ACTIVATIONS = {None: 0, "relu": 2}  # flags of kernels/tile.pxd

SUM_JOBS = 16  # of a sum, if it has so many panels: half of MIN_JOBS, as each job copies its x
# Where the rows of w lie along the kernels, this many neighbouring panels are packed at a time:
# several cache lines of each row (fewer where that would leave few jobs).
PANELS_TOGETHER = 4
PACKED_BYTES = 128 << 10  # of panels that a job packs for itself at a time, at most
# Of few pixels a job sums at most so many kernels, reading as much of each row of w.
STRETCH = 256
# Where all panels stay in the first-level cache and x is read where it lies, so many pixels at a
# time meet the panels of a job (whole tiles of any shape), of about so many pixels at most.
STRIP = 96
STRIPPED_PIXELS = 512
FOLD_BYTES = 4 << 20  # of the product of a fold
FOLD_ELEMENTS = 1 << 16  # of it that a job reads, about


# The sum over taps and channels, as a plan step
# ------------------------------------------------------


class _Sum(NamedTuple):
    """One run of the conv kernel and the packing of its weights, all but the arrays."""

    conv: Bound
    pack: Bound | None  # None where each job packs what it reads
    packed_size: int


def _sum(
    p: Problem, batch: int, axes: Sequence[Axis], result: Sequence[int], channels: int,
    filters: int, tap: Sequence[int], strides: dict[str, int], unit: SimpleNamespace,
    threads: int = 1,
) -> _Sum:  # fmt: skip
    """Cut one convolution sum, over `channels` inputs to `filters` outputs, in jobs.

    Of few pixels each of so many threads has a job.
    """
    group_c, group_k = channels // p.groups, filters // p.groups
    taps = len(tap)
    copy = not blocking.readable_in_place(batch, axes)
    block = blocking.channel_block(group_c, taps, unit)
    blocks = blocking.tile_blocks(batch, axes, block, group_k, unit, copy)
    panels = -(-group_k // unit.NR)
    panel_size = taps * block * unit.NR * unit.itemsize
    pixels = batch * math.prod(axis.out for axis in axes)
    near = panels * panel_size <= cache_sizes().l1 // 2
    stripped = near and not copy and panels > 1 and blocks.number > 1
    if stripped:
        most = max(STRIP, min(STRIPPED_PIXELS, pixels // SUM_JOBS))
        blocks = blocking.tile_blocks(batch, axes, block, group_k, unit, copy, most)
    classes = blocking.worthwhile_classes(axes, blocks, block, unit) if copy else None
    strip = STRIP if stripped else max(blocks.pixels, 1)
    streamed = taps > 0 and strides["SK"] == 1 and pixels <= unit.FEW
    if streamed:  # w is read where it lies
        per_job = max(1, min(-(-panels // threads), STRETCH // unit.NR))
    else:  # a job that packs its own panels had better have two, for two lines of each row of w
        splits = min(panels, -(-SUM_JOBS // (p.groups * blocks.number)))
        per_job = -(-panels // splits)
    splits = -(-panels // per_job)
    count = len(classes.start) - 1 if classes else 0
    listed = blocks.pixels + unit.MR * max(1, count)
    scratch = Scratch()
    scratch.take(8 * listed)
    at_y = scratch.take(8 * listed)
    at_classes = scratch.take(48 * max(1, count))
    at_taps = scratch.take(16 * (len(classes.taps) if classes else taps))
    at_spare = scratch.take((group_k + unit.NR) * unit.itemsize)
    at_slab = scratch.take(blocks.slab * unit.itemsize if copy else 0)
    sums = unit.FEW * per_job * unit.NR
    at_sums = scratch.take(sums * unit.itemsize) if streamed else 0
    weights = {"tap": np.array(tap, np.int64), **strides}
    at_weights, together = 0, per_job
    if blocks.number == 1 and taps and not streamed:
        together = max(1, min(PANELS_TOGETHER, per_job, PACKED_BYTES // panel_size))
        at_weights = scratch.take(together * panel_size)
    conv = blocking.window_slots(batch, axes, blocks, channels, copy)
    conv |= weights | {
        "K": filters, "groups": p.groups, "channel_block": block,
        "blocks": blocks.number, "panels": per_job, "classes": count,
        "class_pixels": classes and classes.pixels, "class_start": classes and classes.start,
        "class_taps": classes and classes.taps, "class_tap_start": classes and classes.tap_start,
        "at_y": at_y, "at_classes": at_classes, "at_taps": at_taps, "at_spare": at_spare,
        "at_slab": at_slab, "at_weights": at_weights, "together": together, "strip": strip,
        "at_sums": at_sums, "scratch": scratch.size,
        "work": max(2.0 * pixels, unit.itemsize) * taps * group_c * filters,
    }  # fmt: skip
    # A panel writes a line of each pixel: no processor foresees that, and it counts where y is in
    # no cache or its rows lie apart.  Strips write it in order.
    y_size = batch * math.prod(result) * filters * unit.itemsize
    conv["fetch"] = axes[2].stride > 1 or bool(strip >= blocks.pixels and beyond(y_size))
    for letter, axis, extent in zip("DHW", axes, result, strict=True):
        conv |= {f"Y{letter}": extent, f"U{letter}": axis.start, f"V{letter}": axis.stride}
    sum_ = unit.conv.bind(p.groups * blocks.number * splits, **conv)
    if at_weights or streamed or not taps:
        return _Sum(sum_, None, 0)
    channel_blocks = -(-group_c // block)
    together = 1
    if strides["SK"] == 1:
        jobs = p.groups * channel_blocks * panels
        together = max(1, min(PANELS_TOGETHER, jobs // blocking.MIN_JOBS))
    pack = weights | {
        "T": taps, "C": group_c, "K": group_k, "channel_block": block, "panels": together,
        "work": 2.0 * unit.itemsize * taps * group_c * filters,
    }  # fmt: skip
    pack_jobs = p.groups * channel_blocks * -(-panels // together)
    return _Sum(sum_, unit.pack.bind(pack_jobs, **pack), taps * channels * panels * unit.NR)


def _run_sums(
    sums: Sequence[_Sum], x: Array, weight: Array, bias: Array | None, y: Array, flags: int
) -> None:
    """Pack the weights of all sums, then run all sums, side by side."""
    plan = Plan()
    packed = [_pack(plan, s, weight, beside=i > 0) for i, s in enumerate(sums)]
    for i, s in enumerate(sums):
        plan.append(s.conv, x=x, w=packed[i], bias=bias, y=y, flags=flags, beside=i > 0)
    plan.run()


def _pack(plan: Plan, s: _Sum, weight: Array, *, beside: bool = False) -> Array | Block:
    """Add the step that packs the weights of a sum, if there is one; return what the sum reads."""
    if s.pack is None:
        return weight
    packed = Block(s.packed_size * weight.itemsize)
    plan.append(s.pack, w=weight, packed=packed, beside=beside)
    return packed


@lru_cache(maxsize=512)
def _forward(p: Problem, threads: int) -> _Sum:
    unit = kernels(p.dtype)
    strides = {
        "ST": p.channels // p.groups * p.filters, "SC": p.filters, "SK": 1,
        "SG": p.filters // p.groups,
    }  # fmt: skip
    if p.pointwise:
        pixels = p.batch * math.prod(p.out)
        axes: Sequence[Axis] = blocking.pointwise_axes(pixels)
        return _sum(p, 1, axes, (1, pixels, 1), p.channels, p.filters, [0], strides, unit, threads)
    return _sum(
        p, p.batch, forward_axes(p), p.out, p.channels, p.filters, range(p.taps), strides, unit,
        threads,
    )  # fmt: skip


@lru_cache(maxsize=512)
def _input_gradient(p: Problem) -> tuple[_Sum, ...]:
    """Return a sum for each phase of the stride."""
    unit = kernels(p.dtype)
    strides = {
        "ST": p.channels // p.groups * p.filters, "SC": 1, "SK": p.filters,
        "SG": p.filters // p.groups,
    }  # fmt: skip
    if p.pointwise:
        pixels = p.batch * math.prod(p.out)
        axes = blocking.pointwise_axes(pixels)
        return (_sum(p, 1, axes, (1, pixels, 1), p.filters, p.channels, [0], strides, unit),)
    return tuple(
        _sum(p, p.batch, axes, p.size, p.filters, p.channels, taps, strides, unit)
        for axes, taps in input_gradient_axes(p)
    )


# The input gradient of few channels, whose tiles would have few columns
# ------------------------------------------------------


class _Fold(NamedTuple):
    """A product of dy with all taps as columns, and how it becomes dx."""

    product: _Sum
    fold: Bound


@lru_cache(maxsize=512)
def _fold(p: Problem) -> _Fold:
    unit, columns = kernels(p.dtype), p.taps * p.channels
    one, none = (1, 1, 1), ((0, 0),) * 3
    pointwise = p._replace(
        size=p.out, channels=columns, kernel=one, stride=one, dilation=one, padding=none
    )
    rows = p.batch * p.size[0] * p.size[1]
    per_job = max(1, min(rows // blocking.MIN_JOBS, FOLD_ELEMENTS // (p.size[2] * columns)))
    slots = {"N": p.batch, "C": p.channels, "rows": per_job}
    for i, letter in enumerate("DHW"):
        slots |= {
            letter: p.size[i], f"O{letter}": p.out[i], f"T{letter}": p.kernel[i],
            f"S{letter}": p.stride[i], f"E{letter}": p.dilation[i], f"P{letter}": p.padding[i][0],
        }  # fmt: skip
    work = 2.0 * p.batch * math.prod(p.out) * columns
    fold = unit.fold.bind(-(-rows // per_job), work=work, **slots)
    return _Fold(_input_gradient(pointwise)[0], fold)


def _run_fold(p: Problem, dy: Array, weight: Array, dx: Array) -> None:
    """Write dx, as many images at a time as keep the product in the cache."""
    pixels = math.prod(p.out)
    size = pixels * p.taps * p.channels * dy.itemsize
    images = min(p.batch, max(1, FOLD_BYTES // size))
    z = Block(images * size)
    plan = Plan()
    packed: Array | Block | None = None
    for first in range(0, p.batch, images):
        part = slice(first, first + images)
        f = _fold(p._replace(batch=min(images, p.batch - first)))
        if packed is None or f.product.pack is None:
            packed = _pack(plan, f.product, weight)
        plan.append(f.product.conv, x=dy[part], w=packed, bias=None, y=z, flags=0)
        plan.append(f.fold, z=z, dx=dx[part])
    plan.run()


# The three directions
# --------------------------------------------------------------------------------


def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = "valid",
    padding_mode: str = "zeros",
    dilation: Any = 1,
    groups: int = 1,
    activation: str | None = None,
    algorithm: str = "auto",
) -> Array:
    """Convolve `x` with `weight`.

    Parameters
    ----------
    x : ndarray of shape (N, L, C), (N, H, W, C) or (N, D, H, W, C)
        C-contiguous, float32 or float64.
    weight : ndarray of shape (kernel..., C / groups, K)
        Of x's dtype.
    bias : ndarray of shape (K,), optional
    stride, dilation : int or one int per spatial axis
    padding : "valid", "same", "causal", int or a (begin, end) pair per spatial axis
        "same" gives ceil(size / stride) outputs, an odd extra pixel at the end.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
    groups : int
        Groups of channels, each with its own K / groups kernels.
    activation : {None, "relu"}
        Applied to y while it is still in registers.
    algorithm : {"auto", "direct", "winograd4", "winograd2"}
        "direct" adds the products of the formula; "winograd4", F(4x4, 3x3) or F(4, 3), and
        "winograd2", F(2x2, 3x3), transform tiles of the image first (kernels/winograd.pyx; errors:
        docs/performance.md); "auto" takes what costs least.

    Returns
    -------
    y : ndarray of shape (N, outputs..., K)

    Raises
    ------
    ValueError
        If a shape or an argument does not fit; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> conv(np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)))[0, :, :, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    p = resolve(x.shape, weight.shape, x.dtype, stride, padding, padding_mode, dilation, groups)
    if bias is not None and bias.shape != (p.filters,):
        raise ValueError(f"conv: bias must have shape ({p.filters},), got {bias.shape}")
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"conv: activation must be one of {tuple(ACTIVATIONS)}, got {activation!r}"
        )
    flags, name = ACTIVATIONS[activation], choose(p, "forward", algorithm)
    y = empty((p.batch, *p.out[3 - p.axes :], p.filters), x.dtype)
    if p.batch == 0:
        return y
    if p.depthwise:
        depthwise.forward(p, x, weight, bias, y, flags)
    elif name in OUTPUTS:
        s = winograd.forward(p, OUTPUTS[name], get_num_threads())
        winograd.run_sum(s, x, weight, bias, y, flags)
    else:
        _run_sums([_forward(p, get_num_threads())], x, weight, bias, y, flags)
    return y


def _check_dy(p: Problem, dy: Array) -> None:
    shape = (p.batch, *p.out[3 - p.axes :], p.filters)
    if dy.shape != shape:
        raise ValueError(f"conv: dy must have y's shape {shape}, got {dy.shape}")


def conv_backward_input(
    dy: Array,
    weight: Array,
    x_shape: Sequence[int],
    *,
    stride: Any = 1,
    padding: Any = "valid",
    padding_mode: str = "zeros",
    dilation: Any = 1,
    groups: int = 1,
    algorithm: str = "auto",
) -> Array:
    """Return dx of shape `x_shape`: the gradient of ``sum(dy * conv(x, weight))`` by x.

    Arguments are those of `conv`; errors likewise.  For a stride s, each of the s phases of the
    input pixels sees its own taps, so dx is s convolutions of dy with stride 1 (s per axis).
    Where x has few channels, dx is a matrix product, folded instead.
    """
    x_shape = tuple(x_shape)
    p = resolve(x_shape, weight.shape, dy.dtype, stride, padding, padding_mode, dilation, groups)
    _check_dy(p, dy)
    if p.mode != "zeros" and any(map(any, p.padding)):
        return _unpad(_padded_input_gradient(p, dy, weight, algorithm), p).reshape(x_shape)
    name = choose(p, "input", algorithm)
    if p.batch == 0:
        return empty(x_shape, dy.dtype)
    dx = empty(x_shape, dy.dtype)
    if p.depthwise:
        depthwise.backward_input(p, dy, weight, dx)
    elif name in OUTPUTS:
        s = winograd.input_gradient(p, OUTPUTS[name], get_num_threads())
        winograd.run_sum(s, dy, weight, None, dx, 0)
    elif folds(p):
        _run_fold(p, dy, weight, dx)
    else:
        _run_sums(_input_gradient(p), dy, weight, None, dx, 0)
    return dx


def _padded_input_gradient(p: Problem, dy: Array, weight: Array, algorithm: str) -> Array:
    """Return the gradient with respect to x with its border, as if the border were part of x."""
    padded = tuple(n + sum(pair) for n, pair in zip(p.size, p.padding, strict=True))[3 - p.axes :]
    tail = slice(3 - p.axes, None)
    return conv_backward_input(
        dy, weight, (p.batch, *padded, p.channels), stride=p.stride[tail],
        dilation=p.dilation[tail], groups=p.groups, algorithm=algorithm,
    )  # fmt: skip


def _unpad(dx: Array, p: Problem) -> Array:
    """Add the gradient of each border pixel to that of the pixel it repeats, axis by axis."""
    outside_plans()
    for axis, (size, (begin, end)) in enumerate(
        zip(p.size[3 - p.axes :], p.padding[3 - p.axes :], strict=True), start=1
    ):
        if begin == end == 0:
            continue
        source = tap_map(size, size + begin + end, 1, 1, 1, begin, p.mode)[:, 0]
        moved = np.moveaxis(dx, axis, 0)
        inner = empty((size, *moved.shape[1:]), dx.dtype)
        inner[...] = moved[begin : begin + size]
        for position in itertools.chain(range(begin), range(begin + size, size + begin + end)):
            inner[source[position]] += moved[position]
        dx = np.moveaxis(inner, 0, axis)
    result = empty(dx.shape, dx.dtype)
    result[...] = dx
    return result


def conv_backward_weight(
    dy: Array,
    x: Array,
    kernel_size: Any,
    *,
    stride: Any = 1,
    padding: Any = "valid",
    padding_mode: str = "zeros",
    dilation: Any = 1,
    groups: int = 1,
    bias: bool = True,
    algorithm: str = "auto",
) -> tuple[Array, Array | None]:
    """Return dweight (kernel..., C / groups, K) and dbias (K,), which is None without `bias`.

    Arguments are those of `conv`; errors likewise.
    """
    filters = dy.shape[-1] if dy.ndim else 0
    p = resolve_kernel(
        x.shape, kernel_size, filters, None, x.dtype, stride, padding, padding_mode, dilation,
        groups,
    )  # fmt: skip
    _check_dy(p, dy)
    name = choose(p, "weight", algorithm)
    shape = (*p.kernel[3 - p.axes :], p.channels // p.groups, filters)
    if p.batch == 0:
        return zeros(shape, x.dtype), zeros((filters,), x.dtype) if bias else None
    dweight = empty(shape, x.dtype)
    dbias = empty((filters,), x.dtype) if bias else None
    if p.depthwise:
        depthwise.backward_weight(p, dy, x, dweight, dbias)
        return dweight, dbias
    if name in OUTPUTS:
        winograd.backward_weight(p, OUTPUTS[name], dy, x, dweight, dbias)
    else:
        weight_gradient.backward_weight(p, dy, x, dweight, dbias)
    return dweight, dbias
