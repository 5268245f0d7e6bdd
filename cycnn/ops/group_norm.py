"""Normalisation of each sample by itself, in groups of channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from cycnn import engine
from cycnn._check import Array, as_input, positive_int
from cycnn.ops.elementwise import same_shape
from cycnn.ops.norm import IDENTITY
from cycnn.ops.rows import channel_rows
from cycnn.ops.sums import add_up

_NAME = "GroupNorm"


def _check(x: Array, groups: int) -> int:
    """Return the number of groups; x must have axes and channels that go with it."""
    groups = positive_int(groups, f"{_NAME}: groups")
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise ValueError(f"{_NAME}: x must have shape (N, ..., C), none of them 0, got {x.shape}")
    if x.shape[-1] % groups:
        raise ValueError(
            f"{_NAME}: groups must divide the channels of x, got {groups} for {x.shape[-1]}"
        )
    return groups


def _per_channel(array: Any, x: Array, argument: str) -> Array | None:
    """Return `array` in the dtype of x, one value for each of its channels."""
    if array is None:
        return None
    values = as_input(array, x.dtype, f"{_NAME}: {argument}")
    if values.shape != x.shape[-1:]:
        raise ValueError(f"{_NAME}: {argument} must have shape {x.shape[-1:]}, got {values.shape}")
    return values


def group_norm(
    x: Array, gamma: Array | None, beta: Array | None, groups: int, eps: float
) -> tuple[Array, Array, Array]:
    """Normalise each sample's groups of channels by their own statistics.

    y = gamma (x - mean) / sqrt(variance + eps) + beta, with the mean and the biased variance over
    all pixels of a sample and C / groups consecutive channels.

    Parameters
    ----------
    x : ndarray of shape (N, ..., C)
    gamma, beta : ndarray of shape (C,), or None for ones and zeros
    groups : int
        Divides C. One is layer normalisation of the whole sample with a factor per channel, C is
        instance normalisation.
    eps : float

    Returns
    -------
    y : ndarray of the shape of x
    mean, variance : ndarray of float64 of shape (N, groups)

    Raises
    ------
    ValueError
        If a shape is wrong or the groups do not divide the channels.

    References
    ----------
    Wu and He (2018), equations 1, 2, 6 and 7.
    """
    groups = _check(x, groups)
    gamma, beta = _per_channel(gamma, x, "gamma"), _per_channel(beta, x, "beta")
    N = x.shape[0]
    rows, jobs = channel_rows(x, N)
    period = rows["period"]
    y = engine.empty(x.shape, x.dtype)
    mean, variance = engine.empty((N, groups), np.float64), engine.empty((N, groups), np.float64)
    partial = engine.empty((jobs, 2, period), np.float64)
    table = engine.empty((N, 3, period), x.dtype)
    kernels = engine.kernels(x.dtype)
    plan = engine.Plan()
    plan.add(
        kernels.batch_norm_statistics, jobs, x=x, partial=partial, **rows,
        scratch=3 * (period + kernels.VL) * x.itemsize, work=2 * x.nbytes,
    )  # fmt: skip
    plan.add(
        kernels.group_norm_merge, N, partial=partial, gamma=gamma, beta=beta, mean=mean,
        variance=variance, table=table, groups=groups, eps=float(eps), **rows, work=partial.nbytes,
    )  # fmt: skip
    plan.add(
        kernels.batch_norm_apply, jobs, x=x, residual=None, table=table, y=y, **IDENTITY, **rows,
        work=2 * x.nbytes,
    )  # fmt: skip
    plan.run()
    return y, mean, variance


def group_norm_backward(
    dy: Array,
    x: Array,
    gamma: Array | None,
    mean: Array,
    variance: Array,
    eps: float,
    input_gradient: bool = True,
) -> tuple[Array | None, Array, Array]:
    """Return the gradients of `group_norm`.

    With xhat = (x - mean) / sqrt(variance + eps), g = gamma dy and means over each group:
    dx = (g - mean(g) - xhat mean(g xhat)) / sqrt(variance + eps), dgamma = sum dy xhat,
    dbeta = sum dy, the sums over samples and pixels.

    Parameters
    ----------
    dy, x : ndarray of shape (N, ..., C)
    gamma : ndarray of shape (C,), or None for ones
    mean, variance : ndarray of float64 of shape (N, groups)
        As `group_norm` returned them.
    eps : float
    input_gradient : bool
        False leaves dx out.

    Returns
    -------
    dx : ndarray of the shape of x, or None
    dgamma, dbeta : ndarray of shape (C,)

    Raises
    ------
    ValueError
        If a shape is wrong.

    References
    ----------
    Wu and He (2018), equations 1 and 2, differentiated.
    """
    dy = same_shape(dy, x, "dy", _NAME)
    groups = _check(x, mean.shape[-1])
    gamma = _per_channel(gamma, x, "gamma")
    N, C = x.shape[0], x.shape[-1]
    mean = same_shape(mean, np.empty((N, groups)), "mean", _NAME)
    variance = same_shape(variance, mean, "variance", _NAME)
    rows, jobs = channel_rows(x, N)
    period = rows["period"]
    columns = engine.empty((N, period), x.dtype)  # the mean of each column
    partial = engine.empty((jobs, 2, period), np.float64)
    sums = engine.empty((N, 2, C), np.float64)
    gradients = engine.empty((2, C), x.dtype)
    table = engine.empty((N, 4, period), x.dtype)
    kernels = engine.kernels(x.dtype)
    plan = engine.Plan()
    plan.add(
        kernels.group_norm_means, N, mean=mean, columns=columns, groups=groups, **rows,
        work=columns.nbytes,
    )  # fmt: skip
    plan.add(
        kernels.batch_norm_backward_sums, jobs, x=x, y=None, dy=dy, mean=columns, table=None,
        g=None, partial=partial, **IDENTITY, **rows,
        scratch=2 * (period + kernels.VL) * x.itemsize, work=2 * x.nbytes,
    )  # fmt: skip
    plan.add(
        kernels.group_norm_backward_merge, N, partial=partial, gamma=gamma, mean=mean,
        variance=variance, sums=sums, table=table, groups=groups, eps=float(eps), **rows,
        work=partial.nbytes,
    )  # fmt: skip
    add_up(plan, sums, gradients)
    dx = None
    if input_gradient:
        dx = engine.empty(x.shape, x.dtype)
        plan.add(
            kernels.batch_norm_backward_input, jobs, x=x, dy=dy, table=None, factors=table, dx=dx,
            constant=False, **IDENTITY, **rows, work=3 * x.nbytes,
        )  # fmt: skip
    plan.run()
    return dx, gradients[0], gradients[1]
