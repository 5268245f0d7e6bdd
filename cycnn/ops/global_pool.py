"""Pools of the whole image, and max unpooling, which puts values back where a pool took them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cycnn import engine
from cycnn._check import Array, per_axis
from cycnn.ops.blocking import even_part
from cycnn.ops.pool_geometry import CHUNK, check_rank
from cycnn.threads import get_num_threads

_READ = 512  # channels of a job, at most: their sums or maxima stay in the first-level cache
_LEAST = 64  # and at least, though threads be idle: whole lines of each pixel
_PLACED = 64  # channels of a job that writes where an index says


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
    pixels = _pixels(x.shape, "GlobalAvgPool")
    images, channels = x.shape[0], x.shape[-1]
    y = engine.empty((images, channels), x.dtype)
    chunk, parts = _cut(images, channels, x.dtype)
    plan = engine.Plan()
    plan.add(
        engine.kernels(x.dtype).global_avg_pool_forward, images * parts, x=x, y=y, P=pixels,
        C=channels, chunk=chunk, parts=parts, work=x.nbytes, scratch=4 * chunk * x.itemsize,
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
    pixels = _pixels(x_shape, "GlobalAvgPool")
    images, channels = x_shape[0], x_shape[-1]
    if dy.shape != (images, channels):
        raise ValueError(f"GlobalAvgPool: dy must have shape {(images, channels)}, got {dy.shape}")
    dx = engine.empty(tuple(x_shape), dy.dtype)
    chunk = max(CHUNK // channels, 1)
    jobs = -(-pixels // chunk)
    plan = engine.Plan()
    plan.add(
        engine.kernels(dy.dtype).global_avg_pool_backward, images * jobs, x=dy, y=dx, P=pixels,
        C=channels, chunk=chunk, parts=jobs, work=dx.nbytes,
    )  # fmt: skip
    plan.run()
    return dx


def global_max_pool(x: Array) -> tuple[Array, Array]:
    """Return the maximum over all spatial axes and the pixel that held it.

    y[n, c] = max over pixels p of x[n, p, c]. Of equal values the first wins, NaN over numbers.

    Parameters
    ----------
    x : ndarray of shape (N, spatial..., C), 1 to 3 spatial axes

    Returns
    -------
    y : ndarray of shape (N, C)
    index : ndarray of int64 of shape (N, C)
        (d H + h) W + w of the winner.

    Raises
    ------
    ValueError
        If x has another number of axes, or no pixels.

    Examples
    --------
    >>> import numpy as np
    >>> global_max_pool(np.array([[[1.0], [5.0], [2.0]]]))
    (array([[5.]]), array([[1]]))
    """
    pixels = _pixels(x.shape, "GlobalMaxPool")
    images, channels = x.shape[0], x.shape[-1]
    y = engine.empty((images, channels), x.dtype)
    index = engine.empty((images, channels), np.dtype(np.int64))
    chunk, parts = _cut(images, channels, x.dtype)
    plan = engine.Plan()
    plan.add(
        engine.kernels(x.dtype).global_max_pool_forward, images * parts, x=x, y=y, index=index,
        P=pixels, C=channels, chunk=chunk, parts=parts, work=x.nbytes,
        scratch=2 * chunk * x.itemsize,
    )  # fmt: skip
    plan.run()
    return y, index


def global_max_pool_backward(dy: Array, index: Array, x_shape: Sequence[int]) -> Array:
    """Return dx: the gradient of each maximum in its pixel, 0 in all others.

    Parameters
    ----------
    dy, index : ndarray of shape (N, C)
    x_shape : (N, spatial..., C)

    Raises
    ------
    ValueError
        If a shape is wrong.
    """
    pixels = _pixels(x_shape, "GlobalMaxPool")
    expected = (x_shape[0], x_shape[-1])
    if dy.shape != expected or index.shape != expected:
        raise ValueError(
            f"GlobalMaxPool: dy and index must have shape {expected}, got {dy.shape} and "
            f"{index.shape}"
        )
    return _place(dy, index, tuple(x_shape), 1, pixels)


def max_unpool(x: Array, index: Array, output_size: Sequence[int]) -> Array:
    """Return an image of zeros with each value in the pixel that its index names.

    y[n, p, c] = sum of x[n, o, c] over the o with index[n, o, c] = p. Without overlapping windows
    no two values meet, and this is what Zeiler and Fergus (2014), section 2.1, call unpooling.

    Parameters
    ----------
    x : ndarray of shape (N, spatial..., C), 1 to 3 spatial axes
    index : ndarray of int64 of that shape
        The pixel (d H + h) W + w of the output for each value, as `max_pool_index` gives it; -1
        for none.
    output_size : sequence of int
        The spatial extents of y.

    Returns
    -------
    y : ndarray of shape (N, *output_size, C)

    Raises
    ------
    ValueError
        If a shape is wrong or an index lies outside the output.

    Examples
    --------
    >>> import numpy as np
    >>> max_unpool(np.array([[[5.0], [3.0]]]), np.array([[[1], [3]]]), (4,)).ravel()
    array([0., 5., 0., 3.])
    """
    values = _pixels(x.shape, "MaxUnpool")
    out = per_axis(tuple(output_size), x.ndim - 2, "MaxUnpool: output_size")
    pixels = math.prod(out)
    _check_index(index, x.shape, pixels)
    return _place(x, index, (x.shape[0], *out, x.shape[-1]), values, pixels)


def max_unpool_backward(dy: Array, index: Array) -> Array:
    """Return dx[n, o, c] = dy[n, index[n, o, c], c], or 0 where the index is -1.

    Parameters
    ----------
    dy : ndarray of the shape that `max_unpool` returned
    index : ndarray of int64 of shape (N, spatial..., C), as given to `max_unpool`

    Raises
    ------
    ValueError
        If a shape is wrong or an index lies outside dy.
    """
    pixels = _pixels(dy.shape, "MaxUnpool")
    _check_index(index, (dy.shape[0], *index.shape[1:-1], dy.shape[-1]), pixels)
    values = _pixels(index.shape, "MaxUnpool")
    dx = engine.empty(index.shape, dy.dtype)
    chunk = max(CHUNK // dy.shape[-1], 1)
    jobs = -(-values // chunk)
    plan = engine.Plan()
    plan.add(
        engine.kernels(dy.dtype).place_backward, dy.shape[0] * jobs, x=dy, index=index, y=dx,
        O=values, P=pixels, C=dy.shape[-1], chunk=chunk, parts=jobs, work=4 * dx.nbytes,
    )  # fmt: skip
    plan.run()
    return dx


def _place(x: Array, index: Array, y_shape: tuple[int, ...], values: int, pixels: int) -> Array:
    """Return y with the values of x where `index` says."""
    y = engine.empty(y_shape, x.dtype)
    jobs = -(-y_shape[-1] // _PLACED)
    plan = engine.Plan()
    plan.add(
        engine.kernels(x.dtype).place_forward, y_shape[0] * jobs, x=x, index=index, y=y, O=values,
        P=pixels, C=y_shape[-1], chunk=_PLACED, parts=jobs, work=y.nbytes + 4 * x.nbytes,
    )  # fmt: skip
    plan.run()
    return y


def _check_index(index: Array, shape: tuple[int, ...], pixels: int) -> None:
    if index.shape != shape or index.dtype != np.int64:
        raise ValueError(
            f"MaxUnpool: indices must be int64 of shape {shape}, got {index.dtype} of shape "
            f"{index.shape}"
        )
    if index.size and not -1 <= index.min() <= index.max() < pixels:
        raise ValueError(
            f"MaxUnpool: indices must be pixels of the output, 0 ... {pixels - 1}, or -1 for none, "
            f"got {index.min()} ... {index.max()}"
        )


def _cut(images: int, channels: int, dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the channels of a job, in whole vectors, and the jobs of an image.

    No sum or maximum depends on the cut, so that it may depend on the number of threads.
    """
    vector = engine.kernels(dtype).VL
    most = min(_READ, max(_LEAST, images * channels // get_num_threads()))
    chunk = even_part(-(-channels // vector) * vector, most, vector)
    return chunk, -(-channels // chunk)


def _pixels(shape: Sequence[int], name: str) -> int:
    """Return the number of pixels of an image of a batch of shape (N, spatial..., C)."""
    spatial = tuple(shape[1:-1])
    check_rank(spatial, shape, name)
    if math.prod(spatial) < 1:
        raise ValueError(
            f"{name}: every spatial axis must have at least one pixel, got {tuple(shape)}"
        )
    return math.prod(spatial)
