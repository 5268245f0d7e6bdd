"""Element by element: ReLU, weighted sums, dropout; concatenating and splitting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from cycnn import engine
from cycnn._check import Array, as_input, integer, is_input

_CHUNK = 8192  # elements of a job: their arrays fit in the first-level cache together


def _jobs(count: int) -> int:
    return -(-count // _CHUNK)


def same_shape(array: Any, like: Array, argument: str, name: str) -> Array:
    """Return `array` with the dtype of `like`; its shape must be that of `like`.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    dtype = like.dtype
    values = array if is_input(array, dtype) else as_input(array, dtype, f"{name}: {argument}")
    if values.shape != like.shape:
        raise ValueError(f"{name}: {argument} must have shape {like.shape}, got {values.shape}")
    return values


def relu(x: Array) -> Array:
    """Return y = max(x, 0); NaN stays NaN.

    Parameters
    ----------
    x : ndarray of any shape

    Examples
    --------
    >>> import numpy as np
    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    y = engine.empty(x.shape, x.dtype)
    plan = engine.Plan()
    plan.add(
        engine.kernels(x.dtype).relu_forward, _jobs(x.size), x=x, y=y, count=x.size, chunk=_CHUNK,
        work=2 * x.nbytes,
    )  # fmt: skip
    plan.run()
    return y


def relu_backward(dy: Array, y: Array, *, overwrite: bool = False) -> Array:
    """Return dx = dy where y > 0, else 0.

    Parameters
    ----------
    dy, y : ndarray of one shape
        The gradient of the output and the output itself.
    overwrite : bool
        Whether dx may take the place of dy.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    dy = same_shape(dy, y, "dy", "ReLU")
    dx = dy if overwrite else engine.empty(y.shape, y.dtype)
    plan = engine.Plan()
    plan.add(
        engine.kernels(y.dtype).relu_backward, _jobs(y.size), dy=dy, y=y, dx=dx, count=y.size,
        chunk=_CHUNK, work=3 * y.nbytes,
    )  # fmt: skip
    plan.run()
    return dx


def scale(x: Array, factor: float) -> Array:
    """Return y = factor x.

    Parameters
    ----------
    x : ndarray of any shape
    factor : float
    """
    y = engine.empty(x.shape, x.dtype)
    plan = engine.Plan()
    plan.add(
        engine.kernels(x.dtype).scale, _jobs(x.size), x=x, y=y, count=x.size, chunk=_CHUNK,
        factor=float(factor), work=2 * x.nbytes,
    )  # fmt: skip
    plan.run()
    return y


def add(arrays: Sequence[Array], coefficients: Sequence[float] | None = None) -> Array:
    """Return y = coefficients[0] arrays[0] + coefficients[1] arrays[1] + ..., in this order.

    Parameters
    ----------
    arrays : sequence of ndarray of one shape
    coefficients : sequence of float, optional
        All one by default.

    Raises
    ------
    ValueError
        If there are no arrays, their shapes differ, or there is not one coefficient for each.

    Examples
    --------
    >>> import numpy as np
    >>> add([np.ones(2), np.ones(2)], [1, -3])
    array([-2., -2.])
    """
    if not len(arrays):
        raise ValueError("Add: arrays must hold at least one array, got none")
    factors = [1.0] * len(arrays) if coefficients is None else [float(c) for c in coefficients]
    if len(factors) != len(arrays):
        raise ValueError(
            f"Add: coefficients must be {len(arrays)} numbers, one for each input, "
            f"got {coefficients!r}"
        )
    x = arrays[0]
    if len(arrays) == 1:
        return scale(x, factors[0])
    inputs = [same_shape(a, x, "every input", "Add") for a in arrays]
    terms: list[tuple[Array | None, float]] = list(zip(inputs, factors, strict=True))
    y = engine.empty(x.shape, x.dtype)
    plan = engine.Plan()
    sum_so_far = terms[:1]
    for first in range(1, len(terms), 3):  # a step takes the sum so far and up to three more
        step = [*sum_so_far, *terms[first : first + 3]]
        step += [(None, 0.0)] * (4 - len(step))
        (x0, c0), (x1, c1), (x2, c2), (x3, c3) = step
        plan.add(
            engine.kernels(x.dtype).add, _jobs(x.size), x0=x0, x1=x1, x2=x2, x3=x3, y=y,
            count=x.size, chunk=_CHUNK, c0=c0, c1=c1, c2=c2, c3=c3, work=4 * x.nbytes,
        )  # fmt: skip
        sum_so_far = [(y, 1.0)]
    plan.run()
    return y


def dropout(x: Array, rate: float, seed: int | Array) -> Array:
    """Return y = x / (1 - rate) with each element set to 0 with probability `rate`.

    The mask depends on (seed, element index) alone: element i is dropped when word i % 4 of
    Philox 4x32-10 at counter i // 4, with the seed's low 64 bits as key, is below rate 2^32.

    Parameters
    ----------
    x : ndarray of any shape
    rate : float in [0, 1)
    seed : int, or ndarray of uint64 of shape (1,)
        At least 0.

    Raises
    ------
    ValueError
        If `rate` or `seed` is out of range.

    References
    ----------
    Srivastava et al. (2014), section 4; Salmon et al. (2011) for the generator.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"Dropout: rate must be in [0, 1), got {rate!r}")
    if not isinstance(seed, np.ndarray):
        seed = np.array([integer(seed, "Dropout: seed") & (2**64 - 1)], np.uint64)
    elif seed.shape != (1,) or seed.dtype != np.uint64:
        raise ValueError(f"Dropout: seed must be one uint64, got {seed.dtype} {seed.shape}")
    y = engine.empty(x.shape, x.dtype)
    plan = engine.Plan()
    plan.add(
        engine.kernels(x.dtype).dropout, _jobs(x.size), x=x, seed=seed, y=y, count=x.size,
        chunk=_CHUNK, threshold=min(round(rate * 2**32), 2**32 - 1), factor=1 / (1 - rate),
        scratch=256 * (4 + 4 + x.itemsize), work=8 * x.nbytes,
    )  # fmt: skip
    plan.run()
    return y


def copy_rows(
    plan: engine.Plan, x: Array, y: Array, rows: int, width: int, x_stride: int, y_stride: int
) -> None:
    """Add the step y[r, :width] = x[r, :width] for all rows, `x` and `y` flat."""
    columns = min(width, _CHUNK)
    chunk = max(_CHUNK // max(columns, 1), 1)
    blocks = -(-width // max(columns, 1))
    plan.add(
        engine.kernels(x.dtype).copy_rows, -(-rows // chunk) * blocks, x=x, y=y, rows=rows,
        width=width, x_stride=x_stride, y_stride=y_stride, row_chunk=chunk, column_chunk=columns,
        column_jobs=max(blocks, 1), work=2 * rows * width * x.itemsize,
    )  # fmt: skip


def clear(plan: engine.Plan, y: Array) -> None:
    """Add the step y = 0."""
    flat, width = y.reshape(-1), min(y.size, _CHUNK)
    source = np.zeros(width, y.dtype)
    rows = y.size // max(width, 1)
    copy_rows(plan, source, flat, rows, width, 0, width)
    copy_rows(plan, source, flat[rows * width :], 1, y.size - rows * width, 0, 0)


def zeros(shape: Sequence[int], dtype: DTypeLike) -> Array:
    """Return zeros, written by a step of a plan, so that a replayed run writes them anew.

    Parameters
    ----------
    shape : sequence of int
    dtype : float32 or float64

    Returns
    -------
    ndarray of that shape
    """
    y, plan = engine.empty(tuple(shape), dtype), engine.Plan()
    clear(plan, y)
    plan.run()
    return y


def _axis(axis: int, ndim: int, name: str) -> int:
    """Return `axis` counted from the front."""
    if not -ndim <= axis < ndim:
        raise ValueError(f"{name}: axis must be in [{-ndim}, {ndim}), got {axis!r}")
    return axis % ndim


def concat(arrays: Sequence[Array], axis: int = -1) -> Array:
    """Return the arrays joined along `axis`.

    Parameters
    ----------
    arrays : sequence of ndarray
        Equal in shape but for `axis`.
    axis : int

    Raises
    ------
    ValueError
        If there are no arrays, the axis does not exist, or other axes differ.
    """
    if not len(arrays):
        raise ValueError("Concat: arrays must hold at least one array, got none")
    x = arrays[0]
    axis = _axis(axis, x.ndim, "Concat")
    parts = [x, *(as_input(a, x.dtype, "Concat: every input") for a in arrays[1:])]
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    for part in parts:
        if part.ndim != x.ndim or part.shape[:axis] != before or part.shape[axis + 1 :] != after:
            raise ValueError(
                f"Concat: inputs must have one shape but for axis {axis}, "
                f"got {x.shape} and {part.shape}"
            )
    y = engine.empty((*before, sum(part.shape[axis] for part in parts), *after), x.dtype)
    rows, inner = math.prod(before), math.prod(after)
    flat, start, stride = y.reshape(-1), 0, y.shape[axis] * inner
    plan = engine.Plan()
    for part in parts:
        width = part.shape[axis] * inner
        copy_rows(plan, part, flat[start:], rows, width, width, stride)
        start += width
    plan.run()
    return y


def split(dy: Array, sizes: Sequence[int], axis: int = -1) -> tuple[Array, ...]:
    """Return the consecutive parts of `dy` along `axis`, the inverse of `concat`.

    Parameters
    ----------
    dy : ndarray
    sizes : sequence of int
        The length of each part; together the length of the axis.
    axis : int

    Raises
    ------
    ValueError
        If the axis does not exist or the sizes do not add up to its length.
    """
    axis = _axis(axis, dy.ndim, "Split")
    if sum(sizes) != dy.shape[axis] or min(sizes, default=0) < 0:
        raise ValueError(
            f"Split: sizes must add up to {dy.shape[axis]}, the length of axis {axis}, "
            f"got {tuple(sizes)}"
        )
    before, after = dy.shape[:axis], dy.shape[axis + 1 :]
    rows, inner = math.prod(before), math.prod(after)
    flat, start, stride = dy.reshape(-1), 0, dy.shape[axis] * inner
    plan = engine.Plan()
    parts = []
    for size in sizes:
        part = engine.empty((*before, size, *after), dy.dtype)
        copy_rows(plan, flat[start:], part, rows, size * inner, stride, size * inner)
        parts.append(part)
        start += size * inner
    plan.run()
    return tuple(parts)
