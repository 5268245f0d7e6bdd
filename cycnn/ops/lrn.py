"""Local response normalisation, across channels or within each."""

from __future__ import annotations

import math
from typing import Any

from cycnn import engine
from cycnn._check import Array, positive_int
from cycnn.ops.elementwise import same_shape
from cycnn.ops.pool import avg_pool, avg_pool_backward

_NAME = "LocalResponseNorm"
_CHUNK = 4096  # elements of a job


def _check(x: Array, size: int, within: bool) -> int:
    size = positive_int(size, f"{_NAME}: size")
    least = 3 if within else 2
    if x.ndim < least or (within and x.ndim > 5):
        axes = "(N, 1 to 3 spatial axes, C)" if within else "(N, ..., C)"
        raise ValueError(f"{_NAME}: x must have shape {axes}, got {x.shape}")
    return size


def _elements(job: str, x: Array, **arrays: Any) -> Array:
    """Return what an element-by-element job makes of x."""
    y = engine.empty(x.shape, x.dtype)
    unused = {"window": None, "dy": None, "spread": None, "k": 1.0, "a": 0.0, "beta": 0.0}
    plan = engine.Plan()
    plan.add(
        getattr(engine.kernels(x.dtype), job), -(-x.size // _CHUNK), x=x, y=y, count=x.size,
        chunk=_CHUNK, **{**unused, **arrays}, work=16 * x.nbytes,
    )  # fmt: skip
    plan.run()
    return y


def _channel_window(x: Array, begin: int, size: int, squared: bool) -> Array:
    """Return the sums of x (or x^2) over the channels c - begin ... c - begin + size - 1."""
    y = engine.empty(x.shape, x.dtype)
    C = x.shape[-1]
    kernels = engine.kernels(x.dtype)
    rows, chunk = math.prod(x.shape[:-1]), max(_CHUNK // max(C, 1), 1)
    plan = engine.Plan()
    plan.add(
        kernels.channel_window, -(-rows // chunk), x=x, y=y, rows=rows, C=C, chunk=chunk,
        begin=begin, size=size, squared=int(squared),
        scratch=(C + 2 * size + kernels.VL) * x.itemsize, work=(2 + size) * x.nbytes,
    )  # fmt: skip
    plan.run()
    return y


def _pool(x: Array, size: int) -> dict[str, Any]:
    """Return the pool that averages over size pixels along each spatial axis, with its border."""
    border = ((size // 2, size - 1 - size // 2),) * (x.ndim - 2)
    return {"pool_size": size, "stride": 1, "padding": border, "count_include_pad": True}


def local_response_norm(
    x: Array, size: int, alpha: float, beta: float, k: float, *, within: bool = False
) -> tuple[Array, Array]:
    """Divide each value by a power of the mean square near by.

    y = x (k + alpha mean)^-beta. Across channels, mean is the sum of x^2 over the channels
    c - size // 2 ... c - size // 2 + size - 1 of the same pixel, over size; within channels, that
    over as many pixels along each spatial axis. What lies outside counts as 0.

    Parameters
    ----------
    x : ndarray of shape (N, ..., C); within channels with 1 to 3 spatial axes
    size : int
        Width of the window.
    alpha, beta, k : float
    within : bool
        Within channels instead of across them.

    Returns
    -------
    y : ndarray of the shape of x
    window : ndarray of the shape of x
        The sum (within channels, the mean) of squares, for `local_response_norm_backward`.

    Raises
    ------
    ValueError
        If a shape or the size is wrong.

    References
    ----------
    Krizhevsky, Sutskever and Hinton (2012), section 3.3, whose alpha is alpha / size here.
    """
    size = _check(x, size, within)
    if within:
        window = avg_pool(_elements("square", x), **_pool(x, size))
    else:
        window = _channel_window(x, size // 2, size, True)
    a = float(alpha) if within else alpha / size
    return _elements("lrn_forward", x, window=window, k=float(k), a=a, beta=float(beta)), window


def local_response_norm_backward(
    dy: Array,
    x: Array,
    window: Array,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    *,
    within: bool = False,
) -> Array:
    """Return the gradient of `local_response_norm`.

    With s = k + alpha mean: dx = dy s^-beta - 2 alpha beta / size x sum(dy x s^(-beta - 1)), the
    sum over all places that have this one in their window; within channels over the size of the
    whole window.

    Parameters
    ----------
    dy, x, window : ndarray of one shape
        The last as `local_response_norm` returned it.
    size : int
    alpha, beta, k : float
    within : bool

    Raises
    ------
    ValueError
        If a shape or the size is wrong.

    References
    ----------
    Krizhevsky, Sutskever and Hinton (2012), section 3.3, differentiated.
    """
    size = _check(x, size, within)
    dy, window = same_shape(dy, x, "dy", _NAME), same_shape(window, x, "window", _NAME)
    constants = {"k": float(k), "a": alpha if within else alpha / size, "beta": float(beta)}
    ratio = _elements("lrn_ratio", x, dy=dy, window=window, **constants)
    if within:
        spread = avg_pool_backward(ratio, x.shape, **_pool(x, size))
    else:
        spread = _channel_window(ratio, size - 1 - size // 2, size, False)
    return _elements("lrn_backward", x, dy=dy, window=window, spread=spread, **constants)
