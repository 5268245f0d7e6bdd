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
from cycnn.engine import Bound, Plan, empty, kernels
from cycnn.ops import blocking
from cycnn.ops.blocking import Axis, Blocks, Scratch
from cycnn.ops.partials import add_partials
from cycnn.ops.problem import Problem, forward_axes, input_gradient_axes

# Multiply-adds of a job, so that jobs are worth their start.
JOB_WORK = 1 << 16


def _window(p: Problem, axes: Sequence[Axis], rows: int) -> dict[str, Any]:
    """Return the slots that describe the windows."""
    unit = kernels(p.dtype)
    blocks = Blocks(1, rows, axes[2].out, 0, 0, 0)
    slots = blocking.window_slots(p.batch, axes, blocks, p.filters)
    # Columns are inside where every tap reads the pixel that follows the previous column's.
    table = axes[2].table
    affine = table - np.arange(axes[2].out)[:, None] * axes[2].step
    middle = affine[axes[2].out // 2]
    inner = np.flatnonzero((affine == middle).all(1) & (table >= 0).all(1))
    taps = math.prod(len(axis.taps) for axis in axes)
    scratch = Scratch()
    scratch.take(8 * taps * (axes[2].out + 1))
    slots |= {
        "copy": False,
        "inner": int(inner[0]) if inner.size else 0,
        "inner_end": int(inner[-1]) + 1 if inner.size else 0,
        "at_runs": scratch.take(32 * axes[2].out),
        "at_zeros": scratch.take((p.filters + unit.VL) * unit.itemsize),
        "scratch": scratch.size,
        "work": 2.0 * p.batch * taps * p.filters * axes[0].out * axes[1].out * axes[2].out,
    }
    return slots


def _sum(
    p: Problem, axes: Sequence[Axis], result: Sequence[int], tap: Sequence[int]
) -> Bound:
    """Return the kernel of one sum over taps, all but its arrays."""
    row_work = axes[2].out * len(tap) * p.filters
    rows = max(1, min(axes[1].out, JOB_WORK // row_work))
    slots = _window(p, axes, rows)
    bands = -(-axes[1].out // rows)
    slots |= {"tap": np.array(tap, np.int64), "bands": bands}
    for letter, axis, extent in zip("DHW", axes, result, strict=True):
        slots |= {f"Y{letter}": extent, f"U{letter}": axis.start, f"V{letter}": axis.stride}
    return kernels(p.dtype).depthwise.bind(slots["planes"] * bands, **slots)


@lru_cache(maxsize=512)
def _forward(p: Problem) -> Bound:
    return _sum(p, forward_axes(p), p.out, range(p.taps))


@lru_cache(maxsize=512)
def _input_gradient(p: Problem) -> list[Bound]:
    return [_sum(p, axes, p.size, taps) for axes, taps in input_gradient_axes(p)]


@lru_cache(maxsize=512)
def _weight_gradient(p: Problem) -> tuple[Bound, int]:
    """Return the kernel, all but its arrays, and how many partial sums it makes."""
    axes = forward_axes(p)
    slots = _window(p, axes, axes[1].out)
    size = p.taps * p.filters * kernels(p.dtype).itemsize
    rows = slots["planes"] * axes[1].out
    chunks = max(1, min(blocking.MIN_JOBS, rows, blocking.PARTIAL_BYTES // size))
    return kernels(p.dtype).depthwise_weight.bind(chunks, chunks=chunks, **slots), chunks


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
    """Write dx where a phase of the stride has taps; the rest of dx is left alone."""
    times = p.filters // p.channels
    plan = Plan()
    result = dx
    if times > 1:
        result = empty((dx.size * times,), dx.dtype)
        result.fill(0)
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
