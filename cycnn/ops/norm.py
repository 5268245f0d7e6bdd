"""Batch normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from cycnn import engine
from cycnn._check import Array, as_input
from cycnn.ops.elementwise import same_shape
from cycnn.ops.rows import channel_rows

_NAME = "BatchNorm"
_CHANNELS = 64  # channels of a job that merges the jobs before it


def _check_input(x: Array, least: int) -> None:
    """Require at least `least` values per channel."""
    if x.ndim < 2:
        raise ValueError(f"{_NAME}: x must have at least 2 axes, (N, ..., C), got shape {x.shape}")
    if x.shape[-1] < 1:
        raise ValueError(f"{_NAME}: x must have at least one channel, got shape {x.shape}")
    if x.size // x.shape[-1] < least:
        raise ValueError(
            f"{_NAME}: training needs at least {least} values per channel, got shape {x.shape}"
        )


def _per_channel(array: Any, x: Array, dtype: Any, argument: str) -> Array:
    """Return `array` as `dtype`, one value for each channel of x."""
    values = as_input(array, dtype, f"{_NAME}: {argument}")
    if values.shape != x.shape[-1:]:
        raise ValueError(f"{_NAME}: {argument} must have shape {x.shape[-1:]}, got {values.shape}")
    return values


def _merge_jobs(channels: int) -> int:
    return -(-channels // _CHANNELS)


def _statistics(
    plan: engine.Plan, x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array]:
    """Add the steps that take mean and variance; return them and the table that `apply` reads."""
    rows, jobs = channel_rows(x)
    C, period = rows["C"], rows["period"]
    mean, variance = engine.empty((C,), np.float64), engine.empty((C,), np.float64)
    partial = engine.empty((jobs, 2, period), np.float64)
    table = engine.empty((3, period), x.dtype)
    kernels = engine.kernels(x.dtype)
    plan.add(
        kernels.batch_norm_statistics, jobs, x=x, dy=None, mean=None, partial=partial, **rows,
        scratch=3 * (period + kernels.VL) * x.itemsize, work=2 * x.nbytes,
    )  # fmt: skip
    plan.add(
        kernels.batch_norm_merge, _merge_jobs(C), partial=partial, gamma=gamma, beta=beta,
        mean=mean, variance=variance, table=table, channels=_CHANNELS, eps=float(eps), **rows,
        work=partial.nbytes,
    )  # fmt: skip
    return mean, variance, table


def batch_norm(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """Normalise each channel by its own statistics, as in training.

    y = gamma (x - mean) / sqrt(variance + eps) + beta, with the mean and the biased variance over
    all axes but the last.

    Parameters
    ----------
    x : ndarray of shape (N, ..., C)
    gamma, beta : ndarray of shape (C,)
    eps : float

    Returns
    -------
    y : ndarray of the shape of x
    mean, variance : ndarray of float64 of shape (C,)

    Raises
    ------
    ValueError
        If a shape is wrong or there are fewer than two values per channel.

    References
    ----------
    Ioffe and Szegedy (2015), algorithm 1.
    """
    _check_input(x, 2)
    gamma = _per_channel(gamma, x, x.dtype, "gamma")
    beta = _per_channel(beta, x, x.dtype, "beta")
    plan = engine.Plan()
    mean, variance, table = _statistics(plan, x, gamma, beta, eps)
    rows, jobs = channel_rows(x)
    y = engine.empty(x.shape, x.dtype)
    plan.add(
        engine.kernels(x.dtype).batch_norm_apply, jobs, x=x, dy=None, table=table, y=y, **rows,
        work=2 * x.nbytes,
    )  # fmt: skip
    plan.run()
    return y, mean, variance


def _backward_sums(
    plan: engine.Plan, dy: Array, x: Array, gamma: Array, mean: Array, variance: Array, eps: float
) -> tuple[Array, Array, Array]:
    """Add the steps that sum up dgamma and dbeta; return them and the table of dx's factors."""
    rows, jobs = channel_rows(x)
    C, period = rows["C"], rows["period"]
    dgamma, dbeta = engine.empty((C,), x.dtype), engine.empty((C,), x.dtype)
    partial = engine.empty((jobs, 2, period), np.float64)
    table = engine.empty((4, period), x.dtype)
    kernels = engine.kernels(x.dtype)
    plan.add(
        kernels.batch_norm_backward_sums, jobs, x=x, dy=dy,
        mean=np.tile(mean.astype(x.dtype), period // C), partial=partial, **rows,
        scratch=2 * (period + kernels.VL) * x.itemsize, work=2 * x.nbytes,
    )  # fmt: skip
    plan.add(
        kernels.batch_norm_backward_merge, _merge_jobs(C), partial=partial, gamma=gamma, mean=mean,
        variance=variance, dgamma=dgamma, dbeta=dbeta, table=table,
        sums=engine.empty((2, C), np.float64), channels=_CHANNELS, eps=float(eps),
        **rows, work=partial.nbytes,
    )  # fmt: skip
    return dgamma, dbeta, table


def batch_norm_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    variance: Array,
    eps: float,
    input_gradient: bool = True,
) -> tuple[Array | None, Array, Array]:
    """Return the gradients of `batch_norm`.

    With xhat = (x - mean) / sqrt(variance + eps) and M values per channel: dbeta = sum dy,
    dgamma = sum dy xhat, dx = gamma / sqrt(variance + eps) (dy - dbeta / M - xhat dgamma / M).

    Parameters
    ----------
    dy, x : ndarray of shape (N, ..., C)
    gamma : ndarray of shape (C,)
    mean, variance : ndarray of float64 of shape (C,)
        As `batch_norm` returned them.
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
    Ioffe and Szegedy (2015), section 3.
    """
    _check_input(x, 1)
    dy = same_shape(dy, x, "dy", _NAME)
    gamma = _per_channel(gamma, x, x.dtype, "gamma")
    mean = _per_channel(mean, x, np.float64, "mean")
    variance = _per_channel(variance, x, np.float64, "variance")
    plan = engine.Plan()
    dgamma, dbeta, table = _backward_sums(plan, dy, x, gamma, mean, variance, eps)
    dx = None
    if input_gradient:
        rows, jobs = channel_rows(x)
        dx = engine.empty(x.shape, x.dtype)
        plan.add(
            engine.kernels(x.dtype).batch_norm_backward_input, jobs, x=x, dy=dy, table=table, y=dx,
            **rows, work=3 * x.nbytes,
        )  # fmt: skip
    plan.run()
    return dx, dgamma, dbeta


def _apply(plan: engine.Plan, x: Array, mean: Array, scale: Array, shift: Array) -> Array:
    """Add the step y = (x - mean) scale + shift, each of them one value per channel; return y."""
    rows, jobs = channel_rows(x)
    shift = shift + (mean.astype(x.dtype) - mean) * scale  # what x - mean lacks by its rounding
    table = np.tile(np.array([mean, scale, shift], x.dtype), rows["period"] // rows["C"])
    y = engine.empty(x.shape, x.dtype)
    plan.add(
        engine.kernels(x.dtype).batch_norm_apply, jobs, x=x, dy=None, table=table, y=y, **rows,
        work=2 * x.nbytes,
    )  # fmt: skip
    return y


def batch_norm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, eps: float
) -> Array:
    """Normalise by given statistics: y = gamma (x - mean) / sqrt(variance + eps) + beta.

    Parameters
    ----------
    x : ndarray of shape (N, ..., C)
    gamma, beta, mean, variance : ndarray of shape (C,)
    eps : float

    Raises
    ------
    ValueError
        If a shape is wrong.

    References
    ----------
    Ioffe and Szegedy (2015), algorithm 2, step 11.
    """
    _check_input(x, 0)
    gamma = _per_channel(gamma, x, np.float64, "gamma")
    beta = _per_channel(beta, x, np.float64, "beta")
    mean = _per_channel(mean, x, np.float64, "mean")
    variance = _per_channel(variance, x, np.float64, "variance")
    plan = engine.Plan()
    y = _apply(plan, x, mean, gamma / np.sqrt(variance + eps), beta)
    plan.run()
    return y


def batch_norm_inference_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    variance: Array,
    eps: float,
    input_gradient: bool = True,
) -> tuple[Array | None, Array, Array]:
    """Return the gradients of `batch_norm_inference`, whose statistics are constants.

    dx = gamma / sqrt(variance + eps) dy, dgamma = sum dy (x - mean) / sqrt(variance + eps),
    dbeta = sum dy.

    Parameters
    ----------
    dy, x : ndarray of shape (N, ..., C)
    gamma, mean, variance : ndarray of shape (C,)
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
    """
    _check_input(x, 0)
    dy = same_shape(dy, x, "dy", _NAME)
    gamma = _per_channel(gamma, x, x.dtype, "gamma")
    mean = _per_channel(mean, x, np.float64, "mean")
    variance = _per_channel(variance, x, np.float64, "variance")
    plan = engine.Plan()
    dgamma, dbeta, _ = _backward_sums(plan, dy, x, gamma, mean, variance, eps)
    dx = None
    if input_gradient:
        zeros = np.zeros_like(mean)
        dx = _apply(plan, dy, zeros, gamma / np.sqrt(variance + eps), zeros)
    plan.run()
    return dx, dgamma, dbeta


def channel_statistics(x: Array) -> tuple[Array, Array]:
    """Return the mean and the biased variance of each channel, over all axes but the last.

    Parameters
    ----------
    x : ndarray of shape (N, ..., C)

    Returns
    -------
    mean, variance : ndarray of float64 of shape (C,)

    Raises
    ------
    ValueError
        If there are no values.

    References
    ----------
    Chan, Golub and LeVeque (1983), equations 1.7 and 2.1.
    """
    _check_input(x, 1)
    C = x.shape[-1]
    plan = engine.Plan()
    mean, variance, _ = _statistics(plan, x, np.ones(C, x.dtype), np.zeros(C, x.dtype), 1.0)
    plan.run()
    return mean, variance


def standardize(x: Array, mean: Array, std: Array) -> Array:
    """Return y = (x - mean) / std, one of each per channel.

    Parameters
    ----------
    x : ndarray of shape (N, ..., C)
    mean, std : ndarray of shape (C,)

    Raises
    ------
    ValueError
        If a shape is wrong.
    """
    _check_input(x, 0)
    mean, std = _per_channel(mean, x, np.float64, "mean"), _per_channel(std, x, np.float64, "std")
    plan = engine.Plan()
    y = _apply(plan, x, mean, 1 / std, np.zeros_like(mean))
    plan.run()
    return y
