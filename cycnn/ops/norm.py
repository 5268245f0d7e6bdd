"""Batch normalisation, and in the same passes over memory a sum and a rectifier after it.

With z the normalised x, y = f(z + residual): f is the identity, ReLU or LeakyReLU, and the residual
may be left out. Each value goes through the operations, and the roundings, that it would meet in
`batch_norm`, `add` and `relu` one after the other.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from cycnn._check import Array, as_input, is_input
from cycnn.engine import Block, Bound, Plan, empty, kernels
from cycnn.ops.elementwise import same_shape
from cycnn.ops.rows import cut_rows

_NAME = "BatchNorm"
_CHANNELS = 64  # channels of a job that merges the jobs before it
_RECTIFIERS = {None: 0, "relu": 1, "leaky_relu": 2}  # as in kernels/rectifier.pxd

Slots = dict[str, Any]
IDENTITY: Slots = {"rectifier": 0, "slope": 0.0}
"""The slots of no rectifier."""


class Normalisation(NamedTuple):
    """How an array was normalised: what `batch_norm_backward` needs beside the array.

    Attributes
    ----------
    mean, variance : ndarray of float64 of shape (C,)
    table : Block of (3, period)
        mean, gamma / sqrt(variance + eps) and beta, each repeated over the kernels' columns.
    eps : float
    constant : bool
        Whether mean and variance were given instead of taken from the array.
    joined : bool
        Whether a residual was added.
    rectifier : {"rectifier": int, "slope": float}
        f, as the kernels are told.
    """

    mean: Array
    variance: Array
    table: Block
    eps: float
    constant: bool
    joined: bool
    rectifier: Slots

    @property
    def needs_y(self) -> bool:
        """Whether backward reads y: after a residual, x alone does not say what f let through."""
        return self.joined and self.rectifier["rectifier"] > 0


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
    values = array if is_input(array, dtype) else as_input(array, dtype, f"{_NAME}: {argument}")
    if values.shape != x.shape[-1:]:
        raise ValueError(f"{_NAME}: {argument} must have shape {x.shape[-1:]}, got {values.shape}")
    return values


def _rectifier(activation: str | None, slope: float) -> Slots:
    """Return the slots of a rectifier.

    A negative slope would make y > 0 where x < 0, so that y would not say where x was let through.
    """
    if activation not in _RECTIFIERS:
        raise ValueError(
            f"{_NAME}: activation must be one of {tuple(_RECTIFIERS)}, got {activation!r}"
        )
    if not slope >= 0:
        raise ValueError(f"{_NAME}: slope must be at least 0, got {slope!r}")
    return {"rectifier": _RECTIFIERS[activation], "slope": float(slope)}


class _Passes(NamedTuple):
    """The passes over an array of one shape, all but the arrays and what a call sets."""

    row_size: int  # bytes of a row of period values
    partial_size: int  # and of the two sums of each job
    statistics: Bound
    merge: Bound
    table: Bound
    apply: Bound
    apply_joined: Bound
    sums: Bound
    gradients: Bound
    input_gradient: Bound


@lru_cache(maxsize=512)
def _passes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Passes:
    unit, bytes_of_x = kernels(dtype), math.prod(shape) * dtype.itemsize
    rows, jobs = cut_rows(shape, dtype)
    period = rows["period"]
    column = (period + unit.VL) * dtype.itemsize
    merging = {"channels": _CHANNELS, **rows, "work": 16.0 * jobs * period}
    merges = -(-shape[-1] // _CHANNELS)
    return _Passes(
        period * dtype.itemsize,
        16 * jobs * period,
        unit.batch_norm_statistics.bind(jobs, scratch=3 * column, work=2 * bytes_of_x, **rows),
        unit.batch_norm_merge.bind(merges, **merging),
        unit.batch_norm_table.bind(merges, channels=_CHANNELS, work=8.0 * period, **rows),
        unit.batch_norm_apply.bind(jobs, residual=None, work=2 * bytes_of_x, **rows),
        unit.batch_norm_apply.bind(jobs, work=3 * bytes_of_x, **rows),
        unit.batch_norm_backward_sums.bind(jobs, scratch=2 * column, work=3 * bytes_of_x, **rows),
        unit.batch_norm_backward_merge.bind(merges, **merging),
        unit.batch_norm_backward_input.bind(jobs, work=3 * bytes_of_x, **rows),
    )


def _statistics(
    plan: Plan, x: Array, gamma: Array, beta: Array, eps: float,
    running: tuple[Array, Array] | None = None, momentum: float = 0.0,
) -> tuple[Array, Block]:  # fmt: skip
    """Add the steps that take mean and variance; return both, and the table that `apply` reads."""
    passes, C = _passes(x.shape, x.dtype), x.shape[-1]
    moments, table = empty((2, C), np.float64), Block(3 * passes.row_size)
    mean, variance = moments
    partial = Block(passes.partial_size)
    running_mean, running_variance = running or (None, None)
    plan.append(passes.statistics, x=x, partial=partial)
    plan.append(
        passes.merge, partial=partial, gamma=gamma, beta=beta, mean=mean, variance=variance,
        table=table, running_mean=running_mean, running_variance=running_variance,
        eps=eps, momentum=momentum,
    )  # fmt: skip
    return moments, table


def _apply(plan: Plan, x: Array, table: Block, residual: Array | None, rectifier: Slots) -> Array:
    """Add the step y = f((x - mean) scale + shift + residual); return y."""
    passes, y = _passes(x.shape, x.dtype), empty(x.shape, x.dtype)
    if residual is None:
        plan.append(passes.apply, x=x, table=table, y=y, **rectifier)
    else:
        residual = same_shape(residual, x, "residual", _NAME)
        plan.append(passes.apply_joined, x=x, residual=residual, table=table, y=y, **rectifier)
    return y


def batch_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    *,
    residual: Array | None = None,
    activation: str | None = None,
    slope: float = 0.0,
    running: tuple[Array, Array] | None = None,
    momentum: float = 0.0,
) -> tuple[Array, Normalisation]:
    """Normalise each channel by its own statistics, as in training.

    y = f(gamma (x - mean) / sqrt(variance + eps) + beta + residual), with the mean and the biased
    variance over all axes but the last.

    Running statistics follow those of the batch: momentum running + (1 - momentum) batch, with the
    unbiased variance.

    Parameters
    ----------
    x : ndarray of shape (N, ..., C)
    gamma, beta : ndarray of shape (C,)
    eps : float
    residual : ndarray of the shape of x, optional
    activation : {None, "relu", "leaky_relu"}
        f; None is the identity.
    slope : float
        Of "leaky_relu" below 0, at least 0.
    running : (mean, variance), optional
        Two ndarrays of float64 of shape (C,), updated in place.
    momentum : float
        In [0, 1]: how much of the running statistics stays.

    Returns
    -------
    y : ndarray of the shape of x
    how : Normalisation
        Holds mean and variance.

    Raises
    ------
    ValueError
        If a shape is wrong, there are fewer than two values per channel, f is unknown, momentum is
        out of range, or running statistics cannot be updated in place.

    References
    ----------
    Ioffe and Szegedy (2015), algorithm 1.
    """
    _check_input(x, 2)
    gamma = _per_channel(gamma, x, x.dtype, "gamma")
    beta = _per_channel(beta, x, x.dtype, "beta")
    rectifier = _rectifier(activation, slope)
    if not 0 <= momentum <= 1:
        raise ValueError(f"{_NAME}: momentum must be in [0, 1], got {momentum!r}")
    for name, array in zip(("mean", "variance"), running or (), strict=False):
        if _per_channel(array, x, np.float64, f"running {name}") is not array or not (
            array.flags.carray
        ):
            raise ValueError(
                f"{_NAME}: running {name} must be a writable float64 array, got {array!r:.80}"
            )
    plan = Plan()
    (mean, variance), table = _statistics(plan, x, gamma, beta, eps, running, momentum)
    y = _apply(plan, x, table, residual, rectifier)
    plan.run()
    joined = residual is not None
    return y, Normalisation(mean, variance, table, eps, False, joined, rectifier)


def batch_norm_inference(
    x: Array,
    gamma: Array,
    beta: Array,
    mean: Array,
    variance: Array,
    eps: float,
    *,
    residual: Array | None = None,
    activation: str | None = None,
    slope: float = 0.0,
) -> tuple[Array, Normalisation]:
    """Normalise by given statistics, which are constants to the gradient.

    y = f(gamma (x - mean) / sqrt(variance + eps) + beta + residual)

    Parameters
    ----------
    x : ndarray of shape (N, ..., C)
    gamma, beta : ndarray of shape (C,), cast to the dtype of x
    mean, variance : ndarray of shape (C,), cast to float64
    eps, residual, activation, slope
        As for `batch_norm`.

    Returns
    -------
    y : ndarray of the shape of x
    how : Normalisation

    Raises
    ------
    ValueError
        If a shape is wrong or f is unknown.

    References
    ----------
    Ioffe and Szegedy (2015), algorithm 2, step 11.
    """
    _check_input(x, 0)
    gamma = _per_channel(gamma, x, x.dtype, "gamma")
    beta = _per_channel(beta, x, x.dtype, "beta")
    mean = _per_channel(mean, x, np.float64, "mean")
    variance = _per_channel(variance, x, np.float64, "variance")
    rectifier = _rectifier(activation, slope)
    passes, plan = _passes(x.shape, x.dtype), Plan()
    table = Block(3 * passes.row_size)
    plan.append(
        passes.table, gamma=gamma, beta=beta, mean=mean, variance=variance, std=None, table=table,
        eps=eps,
    )  # fmt: skip
    y = _apply(plan, x, table, residual, rectifier)
    plan.run()
    joined = residual is not None
    return y, Normalisation(mean, variance, table, eps, True, joined, rectifier)


def batch_norm_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    how: Normalisation,
    input_gradient: bool = True,
    *,
    y: Array | None = None,
    overwrite: bool = False,
) -> tuple[Array | None, Array, Array, Array | None]:
    """Return the gradients of `batch_norm`, or of `batch_norm_inference`.

    With xhat = (x - mean) / sqrt(variance + eps), g = f'(z + residual) dy and M values per channel:
    dresidual = g, dbeta = sum g, dgamma = sum g xhat,
    dx = gamma / sqrt(variance + eps) (g - dbeta / M - xhat dgamma / M), without the last two terms
    where the statistics were given.

    Parameters
    ----------
    dy, x : ndarray of shape (N, ..., C)
    gamma : ndarray of shape (C,)
    how : Normalisation
        As forward returned it.
    input_gradient : bool
        False leaves dx out.
    y : ndarray of the shape of x, optional
        What forward returned, where `how.needs_y`: after both a residual and an activation.
    overwrite : bool
        Whether one of the results may take the place of dy.

    Returns
    -------
    dx : ndarray of the shape of x, or None
    dgamma, dbeta : ndarray of shape (C,)
    dresidual : ndarray of the shape of x, or None where there was no residual
        Without an activation, dy itself.

    Raises
    ------
    ValueError
        If a shape is wrong, or y is missing.

    References
    ----------
    Ioffe and Szegedy (2015), section 3.
    """
    _check_input(x, 0 if how.constant else 1)
    dy = same_shape(dy, x, "dy", _NAME)
    gamma = _per_channel(gamma, x, x.dtype, "gamma")
    rectifier, table, g = how.rectifier, how.table, None
    if how.needs_y:
        if y is None:
            raise ValueError(f"{_NAME}: y must be given after a residual and an activation")
        y, g = same_shape(y, x, "y", _NAME), dy if overwrite else empty(x.shape, x.dtype)
    else:
        y = None
    passes, C, plan = _passes(x.shape, x.dtype), x.shape[-1], Plan()
    dgamma, dbeta = empty((C,), x.dtype), empty((C,), x.dtype)
    partial, factors = Block(passes.partial_size), Block(4 * passes.row_size)
    plan.append(
        passes.sums, x=x, y=y, dy=dy, mean=table, table=table, g=g, partial=partial, **rectifier
    )
    plan.append(
        passes.gradients, partial=partial, gamma=gamma, mean=how.mean, variance=how.variance,
        dgamma=dgamma, dbeta=dbeta, factors=factors, sums=Block(16 * C), eps=how.eps,
    )  # fmt: skip
    dx = None
    if input_gradient:
        dx = dy if overwrite and not how.joined else empty(x.shape, x.dtype)
        left = IDENTITY if g is not None else rectifier  # g is behind it already
        plan.append(
            passes.input_gradient, x=x, dy=dy if g is None else g, table=table, factors=factors,
            dx=dx, constant=how.constant, **left,
        )  # fmt: skip
    plan.run()
    return dx, dgamma, dbeta, (dy if g is None else g) if how.joined else None


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
    Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance": shifted data in
    each part, equation 2.1 to put the parts together.
    """
    _check_input(x, 1)
    C = x.shape[-1]
    plan = Plan()
    moments, _ = _statistics(plan, x, np.ones(C, x.dtype), np.zeros(C, x.dtype), 1.0)
    plan.run()
    mean, variance = moments
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
    passes, plan = _passes(x.shape, x.dtype), Plan()
    table = Block(3 * passes.row_size)
    plan.append(
        passes.table, gamma=None, beta=None, mean=mean, variance=None, std=std, table=table, eps=0.0
    )
    y = _apply(plan, x, table, None, IDENTITY)
    plan.run()
    return y
