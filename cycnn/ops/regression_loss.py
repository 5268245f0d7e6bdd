"""Losses of one target for each output, hinge losses, and cross-entropy of soft targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from cycnn import engine
from cycnn._check import Array

_CHUNK = 4096  # outputs of a job, about


def squared_loss(y: Array, target: Array, weight: Array | None = None) -> tuple[float, Array]:
    """Return the weighted mean over rows of mean_m (y[n, m] - target[n, m])^2, and its gradient.

    Parameters
    ----------
    y, target : ndarray of shape (N, ...) and one dtype
    weight : ndarray of float64 of shape (N,), optional
        At least 0, with a positive sum; all one by default.

    Returns
    -------
    value : float
    dy : ndarray like y

    Raises
    ------
    ValueError
        If a shape is wrong, there are no outputs, or the weights sum to nothing.

    Examples
    --------
    >>> import numpy as np
    >>> squared_loss(np.array([[1.0, 4.0]]), np.array([[1.0, 2.0]]))
    (2.0, array([[0., 2.]]))
    """
    return _elements("squared_loss", y, target, weight)


def absolute_loss(y: Array, target: Array, weight: Array | None = None) -> tuple[float, Array]:
    """Return the same for |y - target|; see `squared_loss`. The slope at 0 is 0."""
    return _elements("absolute_loss", y, target, weight)


def huber_loss(
    y: Array, target: Array, weight: Array | None = None, delta: float = 1.0
) -> tuple[float, Array]:
    """Return the same for Huber's loss: see `squared_loss`.

    With d = |y - target|: d^2 / 2 where d is at most delta, else delta (d - delta / 2).
    """
    if not 0 < delta < np.inf:
        raise ValueError(f"Huber: delta must be positive and finite, got {delta!r}")
    return _elements("huber_loss", y, target, weight, delta)


def logistic_loss(y: Array, target: Array, weight: Array | None = None) -> tuple[float, Array]:
    """Return the same for binary cross-entropy of the sigmoid of y: see `squared_loss`.

    -t log s(y) - (1 - t) log(1 - s(y)) = max(y, 0) - t y + log(1 + e^-|y|); targets in [0, 1].
    """
    return _elements("logistic_loss", y, target, weight)


def binary_hinge_loss(y: Array, target: Array, weight: Array | None = None) -> tuple[float, Array]:
    """Return the same for max(0, 1 - target y), targets -1 or 1: see `squared_loss`."""
    return _elements("binary_hinge_loss", y, target, weight)


def _elements(
    kernel: str, y: Array, target: Array, weight: Array | None, delta: float = 0.0
) -> tuple[float, Array]:
    if not y.size:
        raise ValueError(f"{kernel}: y must have at least one output, got shape {y.shape}")
    _check_like(kernel, y, target, "target")
    weight, total = _check_weight(kernel, weight, len(y))
    width = y.size // len(y)
    return _run(
        kernel, y, total, width, y=y, target=target, weight=weight, M=width, delta=float(delta)
    )


def hinge_loss(
    y: Array, target: Array, weight: Array | None = None, margin: float = 1.0
) -> tuple[float, Array]:
    """Return the weighted mean over rows of the multi-class hinge loss, and its gradient.

    Row n gives sum_{k != t} max(0, margin + y[n, k] - y[n, t]) / K with t = target[n].

    Parameters
    ----------
    y : ndarray of shape (N, K)
    target : ndarray of int64 of shape (N,)
        The class of each row, in [0, K).
    weight : ndarray of float64 of shape (N,), optional
    margin : float

    Returns
    -------
    value : float
    dy : ndarray of shape (N, K)

    Raises
    ------
    ValueError
        If a shape is wrong, there are no rows, a class does not exist, or the weights sum
        to nothing.

    References
    ----------
    Weston and Watkins (1999), eq. 3, with the margin 1 and over K as PyTorch has it.
    """
    if not 0 < margin < np.inf:
        raise ValueError(f"Hinge: margin must be positive and finite, got {margin!r}")
    target = _check_classes("hinge_loss", y, target)
    weight, total = _check_weight("hinge_loss", weight, len(y))
    classes = y.shape[1]
    return _run(
        "hinge_loss", y, total, classes,
        y=y, target=target, weight=weight, K=classes, margin=float(margin),
    )  # fmt: skip


def soft_cross_entropy(
    logits: Array, target: Array, weight: Array | None = None, smoothing: float = 0.0
) -> tuple[float, Array]:
    """Return the weighted mean of -sum_k q[k] log softmax(logits)[k], and its gradient.

    q = (1 - smoothing) share + smoothing / K, where share is 1 for the class of a row, or what the
    row of `target` says; dlogits[n] = weight[n] / sum(weight) (softmax(logits[n]) - q[n]).

    Parameters
    ----------
    logits : ndarray of shape (N, K)
    target : ndarray of int64 of shape (N,), or of shape (N, K) and the dtype of the logits
        The class of each row, in [0, K), or the share of each class, which sum to 1 in a row.
    weight : ndarray of float64 of shape (N,), optional
        At least 0, with a positive sum; all one by default.
    smoothing : float
        In [0, 1].

    Returns
    -------
    value : float
    dlogits : ndarray of shape (N, K)

    Raises
    ------
    ValueError
        If a shape is wrong, there are no rows, a class does not exist, or the weights sum
        to nothing.

    References
    ----------
    Szegedy et al. (2016), section 7, for the smoothing.
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"CrossEntropy: smoothing must be in [0, 1], got {smoothing!r}")
    if target.ndim == 1:
        labels, share = _check_classes("soft_cross_entropy", logits, target), None
    else:
        _check_like("soft_cross_entropy", logits, target, "target")
        labels, share = None, target
    weight, total = _check_weight("soft_cross_entropy", weight, len(logits))
    classes = logits.shape[1]
    return _run(
        "soft_cross_entropy", logits, total, classes, scratch=8 * classes, gradient="dlogits",
        logits=logits, target=labels, share=share, weight=weight, K=classes,
        smoothing=float(smoothing),
    )  # fmt: skip


def _run(
    kernel: str, outputs: Array, total: float, width: int, *, scratch: int = 0,
    gradient: str = "dy", **arguments: Any,
) -> tuple[float, Array]:  # fmt: skip
    """Run a kernel whose jobs are runs of rows of this width."""
    rows, chunk = len(outputs), max(_CHUNK // width, 1)
    value, dy = engine.empty((rows,), np.float64), engine.empty(outputs.shape, outputs.dtype)
    plan = engine.Plan()
    plan.add(
        getattr(engine.kernels(outputs.dtype), kernel), -(-rows // chunk), N=rows, chunk=chunk,
        value=value, total=total, scratch=scratch, work=20 * outputs.size, **arguments,
        **{gradient: dy},
    )  # fmt: skip
    plan.run()
    return float(value.sum() / total), dy


def _check_like(name: str, y: Array, target: Array, argument: str) -> None:
    if target.shape != y.shape or target.dtype != y.dtype:
        raise ValueError(
            f"{name}: {argument} must be {y.dtype} of shape {y.shape} like the outputs, "
            f"got {target.dtype} of shape {target.shape}"
        )


def _check_classes(name: str, y: Array, target: Array) -> Array:
    if y.ndim != 2 or not y.size:
        raise ValueError(f"{name}: y must have shape (N, K) with N and K at least 1, got {y.shape}")
    target = np.ascontiguousarray(target, np.int64)
    if target.shape != (len(y),):
        raise ValueError(f"{name}: target must have shape ({len(y)},), got {target.shape}")
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= y.shape[1]:
        wrong = low if low < 0 else high
        raise ValueError(f"{name}: target must be in [0, {y.shape[1]}), got {wrong}")
    return target


def _check_weight(name: str, weight: Array | None, rows: int) -> tuple[Array | None, float]:
    """Return the weights and their sum."""
    if weight is None:
        return None, float(rows)
    weight = np.ascontiguousarray(weight, np.float64)
    if weight.shape != (rows,):
        raise ValueError(f"{name}: weight must have shape ({rows},), got {weight.shape}")
    total = float(weight.sum())
    if not (weight.min() >= 0 and 0 < total < np.inf):
        raise ValueError(
            f"{name}: weights must be at least 0 and finite with a positive sum, "
            f"got a minimum of {weight.min()} and a sum of {total}"
        )
    return weight, total
