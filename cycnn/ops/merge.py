"""Products and maxima of several arrays; dropout of whole channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cycnn import engine
from cycnn._check import Array
from cycnn.ops.elementwise import dropout, same_shape

_CHUNK = 8192  # elements of a job


def _pairwise(kernel: str, arrays: Sequence[Array], name: str) -> Array:
    """Return kernel(... kernel(arrays[0], arrays[1]) ..., arrays[-1])."""
    if len(arrays) < 2:
        raise ValueError(f"{name}: arrays must be at least two, got {len(arrays)}")
    x = arrays[0]
    y = engine.empty(x.shape, x.dtype)
    plan, left = engine.Plan(), x
    for right in arrays[1:]:
        plan.add(
            getattr(engine.kernels(x.dtype), kernel), -(-x.size // _CHUNK), x0=left,
            x1=same_shape(right, x, "every input", name), y=y, count=x.size, chunk=_CHUNK,
            work=3 * x.nbytes,
        )  # fmt: skip
        left = y
    plan.run()
    return y


def multiply(arrays: Sequence[Array]) -> Array:
    """Return y = arrays[0] * arrays[1] * ..., in this order.

    Parameters
    ----------
    arrays : sequence of at least two ndarray of one shape

    Raises
    ------
    ValueError
        If there are fewer, or their shapes differ.
    """
    return _pairwise("multiply", arrays, "Multiply")


def multiply_backward(dy: Array, arrays: Sequence[Array]) -> tuple[Array, ...]:
    """Return dx[i] = dy times the product of all arrays but i, for each i.

    Nothing is divided, so zeros do no harm: the products of dy with the arrays before i meet the
    product of those after it.

    Parameters
    ----------
    dy : ndarray
    arrays : sequence of at least two ndarray of that shape

    Raises
    ------
    ValueError
        If there are fewer, or the shapes differ.
    """
    before, after = dy, [arrays[-1]]
    for array in arrays[-2:0:-1]:
        after.append(multiply((array, after[-1])))
    gradients = []
    for array in arrays[:-1]:
        gradients.append(multiply((before, after.pop())))
        before = multiply((before, array))
    return (*gradients, before)


def maximum(arrays: Sequence[Array]) -> Array:
    """Return y = max(arrays[0], arrays[1], ...), element by element; NaN wins.

    Parameters
    ----------
    arrays : sequence of at least two ndarray of one shape

    Raises
    ------
    ValueError
        If there are fewer, or their shapes differ.
    """
    return _pairwise("maximum", arrays, "Maximum")


def maximum_backward(dy: Array, arrays: Sequence[Array], y: Array) -> tuple[Array, ...]:
    """Return for each array dx = dy where it is the first one equal to y (or NaN), else 0.

    Parameters
    ----------
    dy : ndarray
    arrays : sequence of at least two ndarray of that shape
    y : ndarray of that shape
        As `maximum` returned it.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    left = same_shape(dy, y, "dy", "Maximum")
    rest, gradients = engine.empty(y.shape, y.dtype), []
    plan = engine.Plan()
    for i, x in enumerate(arrays):
        dx = engine.empty(y.shape, y.dtype)
        plan.add(
            engine.kernels(y.dtype).maximum_backward, -(-y.size // _CHUNK), dy=left,
            x=same_shape(x, y, "every input", "Maximum"), y=y, dx=dx,
            rest=rest if i + 1 < len(arrays) else None, count=y.size, chunk=_CHUNK,
            work=5 * y.nbytes,
        )  # fmt: skip
        gradients.append(dx)
        left = rest
    plan.run()
    return tuple(gradients)


def channel_dropout(x: Array, rate: float, seed: int | Array) -> Array:
    """Return y = x / (1 - rate) with each channel of each sample zeroed with probability `rate`.

    The mask is the one that `dropout` with the same rate and seed puts on an array (N, C), so it
    depends on (seed, sample, channel) alone; on dy it is the backward pass.

    Parameters
    ----------
    x : ndarray of shape (N, ..., C)
    rate : float in [0, 1)
    seed : int, or ndarray of uint64 of shape (1,)
        At least 0.

    Raises
    ------
    ValueError
        If `rate` or `seed` is out of range, or x has no channels.

    References
    ----------
    Tompson et al. (2015), "Efficient object localization using convolutional networks", section
    3.2.
    """
    if x.ndim < 2:
        raise ValueError(f"Dropout: x must have shape (N, ..., C), got {x.shape}")
    images, channels, pixels = x.shape[0], x.shape[-1], math.prod(x.shape[1:-1])
    factor = dropout(np.ones((images, channels), x.dtype), rate, seed)
    y = engine.empty(x.shape, x.dtype)
    chunk = max(_CHUNK // max(channels, 1), 1)
    plan = engine.Plan()
    plan.add(
        engine.kernels(x.dtype).scale_channels, -(-images * pixels // chunk), x=x, factor=factor,
        y=y, P=pixels, C=channels, pixels=images * pixels, chunk=chunk, work=2 * x.nbytes,
    )  # fmt: skip
    plan.run()
    return y
