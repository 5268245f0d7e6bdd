"""Softmax cross-entropy."""

from __future__ import annotations

import numpy as np

from cycnn import engine
from cycnn._check import Array

_CHUNK = 4096  # logits of a job, about


def softmax_cross_entropy(
    logits: Array, target: Array, weight: Array | None = None
) -> tuple[float, Array]:
    """Return the weighted mean of -log softmax(logits)[target], and its gradient.

    value = sum_n weight[n] (log sum_k exp logits[n, k] - logits[n, target[n]]) / sum_n weight[n];
    dlogits[n] = weight[n] / sum(weight) (softmax(logits[n]) - onehot(target[n])).

    Parameters
    ----------
    logits : ndarray of shape (N, K)
        NaN, or a row whose largest value is infinite, gives NaN.
    target : ndarray of int64 of shape (N,)
        The class of each row, in [0, K).
    weight : ndarray of float64 of shape (N,), optional
        At least 0, with a positive sum; all one by default.

    Returns
    -------
    value : float
    dlogits : ndarray of shape (N, K)

    Raises
    ------
    ValueError
        If a shape is wrong, there are no rows, a class does not exist, or the weights sum
        to nothing.

    Examples
    --------
    >>> import numpy as np
    >>> value, dlogits = softmax_cross_entropy(np.zeros((1, 2)), np.array([0]))
    >>> round(value, 4), dlogits
    (0.6931, array([[-0.5,  0.5]]))
    """
    if logits.ndim != 2 or not logits.size:
        raise ValueError(
            f"CrossEntropy: logits must have shape (N, K) with N and K at least 1, "
            f"got {logits.shape}"
        )
    rows, classes = logits.shape
    target = np.ascontiguousarray(target, np.int64)
    if target.shape != (rows,):
        raise ValueError(f"CrossEntropy: target must have shape ({rows},), got {target.shape}")
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"CrossEntropy: target must be in [0, {classes}), got {low if low < 0 else high}"
        )
    total = float(rows)
    if weight is not None:
        weight = np.ascontiguousarray(weight, np.float64)
        if weight.shape != (rows,):
            raise ValueError(f"CrossEntropy: weight must have shape ({rows},), got {weight.shape}")
        total = float(weight.sum())
        if not (weight.min() >= 0 and 0 < total < np.inf):
            raise ValueError(
                "CrossEntropy: weights must be at least 0 and finite with a positive sum, "
                f"got a minimum of {weight.min()} and a sum of {total}"
            )
    value = engine.empty((rows,), np.float64)
    dlogits = engine.empty(logits.shape, logits.dtype)
    chunk = max(_CHUNK // classes, 1)
    plan = engine.Plan()
    plan.add(
        engine.kernels(logits.dtype).softmax_cross_entropy, -(-rows // chunk), logits=logits,
        target=target, weight=weight, value=value, dlogits=dlogits, N=rows, K=classes, chunk=chunk,
        total=total, work=20 * logits.size,
    )  # fmt: skip
    plan.run()
    return float(value.sum() / total), dlogits
