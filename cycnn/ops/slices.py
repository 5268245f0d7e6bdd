"""A part of an axis, and axes in another order: whole runs are copied where they stay together."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from cycnn import engine
from cycnn._check import Array
from cycnn.ops.elementwise import clear, copy_rows

_CHUNK = 8192  # elements of a job, about


def slice_axis(x: Array, start: int, stop: int, axis: int) -> Array:
    """Return a copy of x[..., start:stop, ...] along `axis`.

    Parameters
    ----------
    x : ndarray
    start, stop : int
        0 <= start < stop <= the length of the axis.
    axis : int
        From 1, since 0 is the batch.

    Raises
    ------
    ValueError
        If the axis or the range does not exist.
    """
    _check_slice(x.shape, start, stop, axis)
    before, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    y = engine.empty((*x.shape[:axis], stop - start, *x.shape[axis + 1 :]), x.dtype)
    plan, width = engine.Plan(), (stop - start) * inner
    part = x.reshape(-1)[start * inner :]
    copy_rows(plan, part, y, before, width, x.shape[axis] * inner, width)
    plan.run()
    return y


def slice_axis_backward(
    dy: Array, x_shape: Sequence[int], start: int, stop: int, axis: int
) -> Array:  # fmt: skip
    """Return dx: dy in the place that `slice_axis` took, 0 elsewhere.

    Parameters
    ----------
    dy : ndarray of the shape that `slice_axis` returned
    x_shape : shape of x
    start, stop, axis : int
        Those of `slice_axis`.

    Raises
    ------
    ValueError
        If the axis or the range does not exist, or dy has another shape.
    """
    shape = tuple(x_shape)
    _check_slice(shape, start, stop, axis)
    y_shape = (*shape[:axis], stop - start, *shape[axis + 1 :])
    if dy.shape != y_shape:
        raise ValueError(f"Slice: dy must have shape {y_shape}, got {dy.shape}")
    before, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    dx = engine.empty(shape, dy.dtype)
    plan, width = engine.Plan(), (stop - start) * inner
    clear(plan, dx)
    part = dx.reshape(-1)[start * inner :]
    copy_rows(plan, dy, part, before, width, width, shape[axis] * inner)
    plan.run()
    return dx


def _check_slice(shape: Sequence[int], start: int, stop: int, axis: int) -> None:
    if not 1 <= axis < len(shape):
        raise ValueError(f"Slice: axis must be in [1, {len(shape)}), got {axis}")
    if not 0 <= start < stop <= shape[axis]:
        raise ValueError(
            f"Slice: 0 <= start < stop <= {shape[axis]}, the length of axis {axis}, must hold, "
            f"got start {start} and stop {stop}"
        )


def permute(x: Array, axes: Sequence[int]) -> Array:
    """Return x with its axes in another order: axis i of y is axis axes[i] of x.

    Parameters
    ----------
    x : ndarray of at most 5 axes
    axes : sequence of int
        Each of 0 ... x.ndim - 1 once.

    Raises
    ------
    ValueError
        If `axes` is no permutation, or x has too many axes.

    Examples
    --------
    >>> import numpy as np
    >>> permute(np.arange(6.0).reshape(1, 2, 3), (0, 2, 1))
    array([[[0., 3.],
            [1., 4.],
            [2., 5.]]])
    """
    order = tuple(axes)
    if x.ndim > 5 or sorted(order) != list(range(x.ndim)):
        raise ValueError(
            f"Permute: axes must hold each of 0 ... {x.ndim - 1} once, at most 5 in all, "
            f"got {order}"
        )
    y = engine.empty(tuple(x.shape[axis] for axis in order), x.dtype)
    if not y.size:
        return y
    plan = engine.Plan()
    plan.add(engine.kernels(x.dtype).permute, **_tiles(x.shape, order), x=x, y=y, work=4 * x.nbytes)
    plan.run()
    return y


@functools.lru_cache(maxsize=512)
def _tiles(shape: tuple[int, ...], order: tuple[int, ...]) -> dict[str, int]:
    """Return the Args of a permutation: J is y's last axis, Q the one whose neighbours touch in x.

    Axes that stay neighbours count as one, so a tile is as long as it can be.
    """
    long = [axis for axis in range(len(shape)) if shape[axis] > 1]
    groups: list[list[int]] = []
    for axis in (axis for axis in order if shape[axis] > 1):
        if groups and long.index(axis) == long.index(groups[-1][-1]) + 1:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    extents = [math.prod(shape[a] for a in group) for group in groups]
    x_strides = [math.prod(shape[group[-1] + 1 :]) for group in groups]
    y_strides = [math.prod(extents[i + 1 :]) for i in range(len(extents))]
    merged = list(zip(extents, x_strides, y_strides, strict=True))
    J, xj, _ = merged.pop() if merged else (1, 1, 1)
    merged.sort(key=lambda axis: -axis[1])  # the axis whose neighbours touch in x comes last
    (A, xa, ya), (B, xb, yb), (E, xe, ye), (Q, xq, yq) = [(1, 0, 0)] * (4 - len(merged)) + merged
    q_chunk, j_chunk = (max(_CHUNK // J, 1), min(J, _CHUNK)) if xj == 1 else (32, 64)
    q_jobs, j_jobs = -(-Q // q_chunk), -(-J // j_chunk)
    return {
        "jobs": A * B * E * q_jobs * j_jobs, "A": A, "B": B, "E": E, "Q": Q, "J": J,
        "xa": xa, "xb": xb, "xe": xe, "xq": xq, "xj": xj, "ya": ya, "yb": yb, "ye": ye, "yq": yq,
        "q_chunk": q_chunk, "j_chunk": j_chunk, "q_jobs": q_jobs, "j_jobs": j_jobs,
    }  # fmt: skip
