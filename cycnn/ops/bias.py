"""A bias per channel, for outputs whose kernel adds none, and its gradient."""

from __future__ import annotations

from cycnn import engine
from cycnn._check import Array
from cycnn.ops.partials import add_partials

_CHUNK = 8192  # elements of a job, about
_PARTIALS = 32  # sums of rows, at most


def add_bias(y: Array, bias: Array) -> None:
    """Add `bias` to every pixel of y, in place.

    Parameters
    ----------
    y : ndarray of shape (..., C)
    bias : ndarray of shape (C,)

    Raises
    ------
    ValueError
        If the channels differ.
    """
    channels = y.shape[-1]
    if bias.shape != (channels,):
        raise ValueError(f"bias must have shape ({channels},), got {bias.shape}")
    rows, chunk = y.size // channels, max(_CHUNK // channels, 1)
    plan = engine.Plan()
    plan.add(
        engine.kernels(y.dtype).add_bias, -(-rows // chunk), bias=bias, y=y, rows=rows, C=channels,
        chunk=chunk, work=2 * y.nbytes,
    )  # fmt: skip
    plan.run()


def bias_gradient(dy: Array) -> Array:
    """Return dbias[c], the sum of dy[..., c].

    Parameters
    ----------
    dy : ndarray of shape (..., C)

    Returns
    -------
    dbias : ndarray of shape (C,)
    """
    channels = dy.shape[-1]
    rows = dy.size // channels
    if not rows:
        return engine.zeros((channels,), dy.dtype)
    dbias = engine.empty((channels,), dy.dtype)
    chunk = -(-rows // min(_PARTIALS, -(-rows // 64)))
    jobs = -(-rows // chunk)
    partial = engine.empty((jobs, channels), dy.dtype)
    plan = engine.Plan()
    plan.add(
        engine.kernels(dy.dtype).column_sums, jobs, dy=dy, partial=partial, rows=rows,
        C=channels, chunk=chunk, work=dy.nbytes,
    )  # fmt: skip
    add_partials(plan, partial, dbias)
    plan.run()
    return dbias
