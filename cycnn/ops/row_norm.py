"""Normalisation over the last axes: layer normalisation and RMS normalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cycnn import engine
from cycnn._check import Array, as_input
from cycnn.ops.elementwise import same_shape
from cycnn.ops.sums import add_up

_PART = 1 << 14  # elements of a job, about
_COLUMNS = 512  # of a job that sums over rows


def _per_column(array: Any, x: Array, argument: str) -> Array | None:
    """Return `array` in the dtype of x; its axes must be the last axes of x."""
    if array is None:
        return None
    values = as_input(array, x.dtype, f"LayerNorm: {argument}")
    if not 0 < values.ndim < x.ndim or values.shape != x.shape[-values.ndim :]:
        raise ValueError(
            f"LayerNorm: {argument} must have the shape of the last axes of x, "
            f"got {values.shape} for x of shape {x.shape}"
        )
    return values


def _rows(x: Array, axes: int) -> dict[str, int]:
    """Return x as rows of the last `axes` axes."""
    if not 1 <= axes < x.ndim or 0 in x.shape[-axes:]:
        raise ValueError(
            f"LayerNorm: axes must be at least 1 and leave out the batch, and none be empty, "
            f"got {axes} for x of shape {x.shape}"
        )
    M = math.prod(x.shape[-axes:])
    return {"rows": math.prod(x.shape[:-axes]), "M": M}


def row_norm(
    x: Array,
    gamma: Array | None,
    beta: Array | None,
    axes: int,
    eps: float,
    *,
    centred: bool = True,
) -> tuple[Array, Array, Array]:
    """Normalise by the statistics of the last `axes` axes.

    y = gamma (x - mean) / sqrt(variance + eps) + beta; where not centred, the mean is taken to be
    0 and the variance is the mean of x^2.

    Parameters
    ----------
    x : ndarray of shape (N, ..., M...)
    gamma, beta : ndarray of shape (M...), or None for ones and zeros
    axes : int
        How many axes M... stands for.
    eps : float
    centred : bool

    Returns
    -------
    y : ndarray of the shape of x
    mean, inverse : ndarray of float64
        For each row of the last axes, the mean and 1 / sqrt(variance + eps).

    Raises
    ------
    ValueError
        If a shape is wrong or there are not so many axes.

    References
    ----------
    Ba, Kiros and Hinton (2016), equation 3; Zhang and Sennrich (2019), equation 4.
    """
    shape = _rows(x, axes)
    gamma, beta = _per_column(gamma, x, "gamma"), _per_column(beta, x, "beta")
    rows, M = shape["rows"], shape["M"]
    chunk = max(_PART // M, 1)
    y = engine.empty(x.shape, x.dtype)
    mean, inverse = engine.empty((rows,), np.float64), engine.empty((rows,), np.float64)
    plan = engine.Plan()
    plan.add(
        engine.kernels(x.dtype).row_norm_forward, -(-rows // chunk), x=x, gamma=gamma, beta=beta,
        mean=mean, inverse=inverse, y=y, **shape, chunk=chunk, centred=int(centred),
        eps=float(eps), work=4 * x.nbytes,
    )  # fmt: skip
    plan.run()
    return y, mean, inverse


def row_norm_backward(
    dy: Array,
    x: Array,
    gamma: Array | None,
    mean: Array,
    inverse: Array,
    axes: int,
    *,
    centred: bool = True,
    input_gradient: bool = True,
) -> tuple[Array | None, Array, Array]:
    """Return the gradients of `row_norm`.

    With xhat = (x - mean) inverse, g = gamma dy and means over each row:
    dx = inverse (g - mean(g) - xhat mean(g xhat)), without mean(g) where not centred;
    dgamma = sum dy xhat and dbeta = sum dy over the rows.

    Parameters
    ----------
    dy, x : ndarray of shape (N, ..., M...)
    gamma : ndarray of shape (M...), or None for ones
    mean, inverse : ndarray of float64
        As `row_norm` returned them.
    axes : int
    centred : bool
    input_gradient : bool
        False leaves dx out.

    Returns
    -------
    dx : ndarray of the shape of x, or None
    dgamma, dbeta : ndarray of shape (M...)

    Raises
    ------
    ValueError
        If a shape is wrong.

    References
    ----------
    Ba, Kiros and Hinton (2016), equation 3, differentiated.
    """
    shape = _rows(x, axes)
    dy, gamma = same_shape(dy, x, "dy", "LayerNorm"), _per_column(gamma, x, "gamma")
    rows, M = shape["rows"], shape["M"]
    mean = same_shape(mean, np.empty(rows), "mean", "LayerNorm")
    inverse = same_shape(inverse, mean, "inverse", "LayerNorm")
    part = min(max(_PART // M, 64), 256)  # rows whose sums are in x's own dtype
    parts, columns = -(-rows // part), min(_COLUMNS, M)
    blocks = -(-M // columns)
    kernels = engine.kernels(x.dtype)
    gradients = engine.empty((2, *x.shape[-axes:]), x.dtype)
    partial = engine.empty((parts, 2, M), np.float64)
    columns += -columns % kernels.VL
    plan = engine.Plan()
    plan.add(
        kernels.row_norm_backward_sums, parts * blocks, dy=dy, x=x, mean=mean, inverse=inverse,
        partial=partial, **shape, chunk=part, columns=columns, blocks=blocks,
        scratch=2 * columns * x.itemsize, work=3 * x.nbytes,
    )  # fmt: skip
    add_up(plan, partial, gradients)
    dx = None
    if input_gradient:
        chunk = max(_PART // M, 1)
        dx = engine.empty(x.shape, x.dtype)
        plan.add(
            kernels.row_norm_backward, -(-rows // chunk), dy=dy, x=x, gamma=gamma, mean=mean,
            inverse=inverse, dx=dx, **shape, chunk=chunk, centred=int(centred), work=5 * x.nbytes,
        )  # fmt: skip
    plan.run()
    return dx, gradients[0], gradients[1]
