"""Depthwise convolution: as many groups as channels, each with filters / channels kernels.

The three directions are those of `cycnn.ops.conv`, which calls these functions for such a problem.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from cycnn._check import Array
from cycnn.engine import Bound, Kernel, Plan, beyond, empty, kernels
from cycnn.ops import blocking
from cycnn.ops.blocking import Axis, Blocks
from cycnn.ops.elementwise import clear
from cycnn.ops.partials import add_partials
from cycnn.ops.problem import (
    Problem,
    every_phase_has_taps,
    forward_axes,
    input_gradient_axes,
)

# Multiply-adds of a job, so that jobs are worth their start and input rows are read once.
JOB_WORK = 1 << 19
# Multiply-adds of a partial sum of the weight gradient, so that adding it up costs little beside.
CHUNK_WORK = 1 << 18
# A tile of the weight gradient has few lines of channels (more meet in the same cache sets), and
# what two output rows of it read fits a first-level cache of 32 KB; narrow ones cost more than
# reading from the second level.
TILE_LINES = 4
TILE_BYTES = 32 << 10
MIN_COLUMNS = 8
# Bytes that the rows of a tile read, with all channels; as many again are fetched meanwhile.
ROWS_BYTES = 64 << 10
LEFT, RIGHT = 1, 2  # of kernels/depthwise.pyx
REACH_BYTES = 24  # of a Reach there


def _window(p: Problem, axes: Sequence[Axis], rows: int, threes: bool) -> dict[str, Any]:
    """Return the slots that describe the windows, for jobs of `rows` output rows.

    With `threes`, rows may have edges, which only taps in threes do without reading.
    """
    unit = kernels(p.dtype)
    d, h, w = axes
    blocks = Blocks(1, rows, w.out, 0, 0, 0)
    slots = blocking.window_slots(p.batch, axes, blocks, p.filters)
    # Columns are inside around the middle one, as far as every tap reads what its place in that
    # one's window says.  (Where a border is reflected, one further on may do so by chance.)
    table, middle = w.table, w.out // 2
    shift = int(table[middle, 0]) - middle * w.step
    regular = np.arange(w.out)[:, None] * w.step + np.array(w.offset) + shift
    outer = np.flatnonzero((table != regular).any(1) | (table < 0).any(1)).tolist()
    begin, end, edges = 0, 0, 0
    if middle not in outer:
        begin = max((column + 1 for column in outer if column < middle), default=0)
        end = min((column for column in outer if column > middle), default=w.out)
    if threes and w.offset == (0, 1, 2) and w.step <= 2 and end > begin:
        # A row with a column of zeros at most at each end is one run.
        left = begin == 1 and table[0].tolist() == [-1, 0, 1]
        right = end == w.out - 1 and table[-1].tolist() == [w.size - 2, w.size - 1, -1]
        if begin - left == 0 and end + right == w.out:
            begin, end, edges = 0, w.out, LEFT * left + RIGHT * right
    taps = len(d.taps) * len(h.taps) * len(w.taps)
    runs = w.out - max(end - begin - 1, 0)
    return slots | {
        "copy": False,
        "begin": begin,
        "end": end,
        "shift": shift,
        "edges": edges,
        "scratch": (p.filters + unit.VL) * unit.itemsize
        + rows * (64 + 8 * taps * (runs + 1) + 48 * runs),
        "work": 2.0 * p.batch * taps * p.filters * d.out * h.out * w.out,
    }


def _sum(p: Problem, axes: Sequence[Axis], result: Sequence[int], tap: Sequence[int]) -> Bound:
    """Return the kernel of one sum over taps, all but its arrays."""
    unit = kernels(p.dtype)
    _, h, w = axes
    planes = p.batch * axes[0].out
    # Rows of windows that overlap share what they read: they go two at a time.
    overlap = w.step == 1 and any(at + h.step in h.offset for at in h.offset)
    pairs = overlap and p.filters >= unit.VL
    rows = min(JOB_WORK // (w.out * len(tap) * p.filters), planes * h.out // blocking.MIN_JOBS)
    rows = max(rows // 2 * 2, 2) if pairs else max(rows, 1)
    block_planes, block_rows = max(rows // h.out, 1), min(rows, h.out)
    slots = _window(p, axes, block_planes * block_rows, p.filters >= unit.VL) | {
        "tap": np.array(tap, np.int64), "pairs": pairs, "ahead": 0,
        "block_planes": block_planes, "block_rows": block_rows,
    }  # fmt: skip
    slots["scratch"] += REACH_BYTES * 2 * len(tap)
    for letter, axis, extent in zip("DHW", axes, result, strict=True):
        slots |= {f"Y{letter}": extent, f"U{letter}": axis.start, f"V{letter}": axis.stride}
    if beyond(p.batch * math.prod(axis.size for axis in axes) * p.filters * unit.itemsize):
        slots["ahead"] = min(h.step, len(h.taps))
    kernel: Kernel = unit.depthwise
    return kernel.bind(-(-planes // block_planes) * -(-h.out // block_rows), **slots)


@lru_cache(maxsize=512)
def _forward(p: Problem) -> Bound:
    return _sum(p, forward_axes(p), p.out, range(p.taps))


@lru_cache(maxsize=512)
def _pairs(p: Problem) -> Bound | None:
    """Return the input gradient of three taps, two columns apart, if it is one."""
    if p.axes > 2 or (p.kernel[2], p.stride[2], p.dilation[2]) != (3, 2, 1):
        return None
    (_, H, W), (_, OH, OW) = p.size, p.out
    unit, work = kernels(p.dtype), p.batch * OH * OW * p.taps * p.filters
    rows = max(1, min(JOB_WORK * p.batch * H // work, p.batch * H // blocking.MIN_JOBS))
    kernel: Kernel = unit.depthwise_pairs
    return kernel.bind(
        -(-p.batch * H // rows), N=p.batch, H=H, W=W, C=p.filters, OH=OH, OW=OW, TH=p.kernel[1],
        SH=p.stride[1], DH=p.dilation[1], PH=p.padding[1][0], PW=p.padding[2][0], rows=rows,
        ahead=bool(beyond(p.batch * H * W * p.filters * unit.itemsize)),
        scratch=16 * p.kernel[1], work=2.0 * work,
    )  # fmt: skip


@lru_cache(maxsize=512)
def _input_gradient(p: Problem) -> list[Bound]:
    return [_sum(p, axes, p.size, taps) for axes, taps in input_gradient_axes(p) if taps]


@lru_cache(maxsize=512)
def _weight_gradient(p: Problem) -> tuple[Bound, int]:
    """Return the kernel, all but its arrays, and how many partial sums it makes."""
    axes = forward_axes(p)
    size = p.taps * p.filters * kernels(p.dtype).itemsize
    rows = p.batch * axes[0].out * axes[1].out
    work = rows * axes[2].out * p.taps * p.filters
    chunks = max(
        1, min(blocking.MIN_JOBS, rows, work // CHUNK_WORK, blocking.PARTIAL_BYTES // size)
    )
    slots = _window(p, axes, -(-rows // chunks), True)
    lines = -(-p.filters * kernels(p.dtype).itemsize // 64)
    width = 64 * -(-lines // -(-lines // TILE_LINES))
    rows_of_x = p.kernel[0] * (p.kernel[1] + p.stride[1])
    columns = max(TILE_BYTES // (width * (rows_of_x * p.stride[2] + 2)), MIN_COLUMNS)
    row_bytes = p.filters * kernels(p.dtype).itemsize * (axes[2].out + axes[1].step * axes[2].size)
    tiles = -(-rows * row_bytes // (chunks * ROWS_BYTES))  # of a job, one below the other
    kernel: Kernel = kernels(p.dtype).depthwise_weight
    channels = width // kernels(p.dtype).itemsize
    return kernel.bind(
        chunks, chunks=chunks, columns=columns, channels=channels,
        rows=-(-rows // (chunks * tiles)), **slots,
    ), chunks  # fmt: skip


def _multiply(plan: Plan, kernel: str, small: int, times: int, x: Array, y: Array) -> None:
    """Append a step that repeats each channel `times` times, or adds the repeats up."""
    block = 1 << 14
    plan.add(
        getattr(kernels(x.dtype), kernel), -(-small // block), x=x, y=y, size=small, times=times,
        block=block, work=float(small * times),
    )  # fmt: skip


def _repeated(p: Problem, plan: Plan, x: Array) -> Array:
    """Return x with each channel as often as it has kernels, once `plan` has run."""
    times = p.filters // p.channels
    if times == 1:
        return x
    y = empty((x.size * times,), x.dtype)
    _multiply(plan, "repeat_channels", x.size, times, x, y)
    return y


def forward(p: Problem, x: Array, weight: Array, bias: Array | None, y: Array, flags: int) -> None:
    """Write y = activation(conv(x, weight) + bias)."""
    plan = Plan()
    x = _repeated(p, plan, x)
    plan.append(_forward(p), x=x, w=weight, bias=bias, y=y, flags=flags)
    plan.run()


def backward_input(p: Problem, dy: Array, weight: Array, dx: Array) -> None:
    """Write dx."""
    times = p.filters // p.channels
    plan = Plan()
    result = dx
    if times > 1:
        result = empty((dx.size * times,), dx.dtype)
    if not every_phase_has_taps(p):
        clear(plan, result)
    pairs = _pairs(p)
    if pairs:
        plan.append(pairs, dy=dy, w=weight, dx=result)
    else:
        for i, phase in enumerate(_input_gradient(p)):
            plan.append(phase, x=dy, w=weight, bias=None, y=result, flags=0, beside=i > 0)
    if times > 1:
        _multiply(plan, "sum_repeats", dx.size, times, result, dx)
    plan.run()


def backward_weight(p: Problem, dy: Array, x: Array, dweight: Array, dbias: Array | None) -> None:
    """Write dweight and, if given, dbias."""
    kernel, chunks = _weight_gradient(p)
    partial = empty((chunks, dweight.size), x.dtype)
    partial_bias = None if dbias is None else empty((chunks, dbias.size), x.dtype)
    plan = Plan()
    x = _repeated(p, plan, x)
    plan.append(kernel, x=x, dy=dy, dweight=partial, dbias=partial_bias)
    add_partials(plan, partial, dweight)
    if partial_bias is not None and dbias is not None:
        add_partials(plan, partial_bias, dbias)
    plan.run()
