"""Figures that say how good predictions are: `metric(target, y) -> float`.

A `Trainer` takes the mean of a metric over the batches of an epoch. Where a figure of the whole is
not the mean of its parts, as with F1 and AUC, it is taken only on whole data: on the validation
rows and by `evaluate`. `whole` marks such a metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import numpy as np

from cycnn._check import Array, positive_int

Metric = Callable[[Array, Array], float]

_M = TypeVar("_M", bound=Callable[..., object])


def whole(metric: _M) -> _M:
    """Mark a metric whose value on a whole is not the mean of those on its batches; return it.

    Examples
    --------
    >>> @whole
    ... def worst(target, y):
    ...     return float(np.abs(y - target).max())
    """
    metric.whole = True  # type: ignore[attr-defined]
    return metric


def accuracy(target: Array, y: Array, *, ignore_label: int | None = None) -> float:
    """Return the share of rows whose largest output is the target's.

    Parameters
    ----------
    target : ndarray of shape (N, ...), integer labels, or (N, ..., C), the share of each class
    y : ndarray of shape (N, ..., C), scores; the first wins where several are equal
    ignore_label : int, optional
        Rows of this label do not count; NaN if there are no others.
    """
    labels = target.argmax(axis=-1) if target.ndim == y.ndim else target
    right = np.argmax(y, axis=-1) == labels
    if ignore_label is not None:
        right = right[labels != ignore_label]
    return float(right.mean()) if right.size else float("nan")


def binary_accuracy(target: Array, y: Array) -> float:
    """Return the share of outputs on the target's side: above 0 for a target above one half."""
    return float(np.mean((y > 0) == (target.reshape(y.shape) > 0.5)))


def named_metrics(metrics: Mapping[str, Metric] | Iterable[Metric]) -> dict[str, Metric]:
    """Return metrics by name; those of a sequence are named like their functions."""
    if not isinstance(metrics, Mapping):
        metrics = {getattr(m, "__name__", type(m).__name__): m for m in metrics}
    for name, metric in metrics.items():
        if not callable(metric):
            raise TypeError(f"Trainer: metrics must be callables, got {metric!r} for {name!r}")
    if "loss" in metrics:
        raise ValueError("Trainer: metrics must not be named 'loss'")
    return dict(metrics)


def predicted(y: Array) -> Array:
    """Return the class that each row of y stands for.

    Parameters
    ----------
    y : ndarray of shape (N, C), or (N, 1) or (N,) for two classes
        The class is the largest of C outputs; with one output, 1 where it is above 0.

    Returns
    -------
    ndarray of int64 of shape (N,)
    """
    if y.ndim == 1:
        y = y[:, None]
    if y.ndim != 2:
        raise ValueError(f"y must have shape (N, C) or (N,), got {y.shape}")
    if y.shape[1] == 1:
        return (y[:, 0] > 0).astype(np.int64)
    classes: Array = y.argmax(axis=1)
    return classes


class TopK:
    """The share of rows whose target is among the k largest outputs.

    A class that is as large as the target's and comes before it stands above it.

    Parameters
    ----------
    k : int

    Examples
    --------
    >>> TopK(2)(np.array([2, 0]), np.array([[0.1, 0.5, 0.4], [0.1, 0.5, 0.4]]))
    0.5
    """

    def __init__(self, k: int) -> None:
        self.k = positive_int(k, "TopK: k")
        self.__name__ = f"top{self.k}"

    def __call__(self, target: Array, y: Array) -> float:
        """Return the share for labels target (N,) and scores y (N, C)."""
        own = np.take_along_axis(y, target[:, None], axis=1)
        earlier = np.arange(y.shape[1]) < target[:, None]
        above = (y > own).sum(axis=1) + ((y == own) & earlier).sum(axis=1)
        return float(np.mean(above < self.k))

    def __repr__(self) -> str:
        return f"TopK({self.k})"


def confusion_matrix(target: Array, y: Array) -> Array:
    """Return how many rows of each class were taken for each class.

    Parameters
    ----------
    target : ndarray of shape (N,), integer labels from 0
    y : ndarray of shape (N, C), or (N, 1) or (N,) for two classes; see `predicted`

    Returns
    -------
    ndarray of int64 of shape (C, C)
        Row: the true class; column: the predicted one.

    Examples
    --------
    >>> confusion_matrix(np.array([0, 1, 1]), np.array([[2.0, 1], [0, 3], [4, 0]])).tolist()
    [[1, 0], [1, 1]]
    """
    labels, found = np.asarray(target), predicted(y)
    classes = max(2, 1 if y.ndim == 1 else y.shape[1])
    if labels.shape != found.shape:
        raise ValueError(f"target must have shape {found.shape}, got {labels.shape}")
    labels = labels.astype(np.int64)
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"target must be in 0 .. {classes - 1}, got {labels.min(), labels.max()}")
    counts = np.bincount(labels * classes + found, minlength=classes * classes)
    return counts.reshape(classes, classes)


def _scores(target: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """Return precision, recall and F1 of each class, and its rows; 0 where a figure is 0 / 0."""
    matrix = confusion_matrix(target, y)
    right, found, rows = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    present = (found + rows) > 0  # as scikit-learn does: classes that nobody has seen do not count
    right, found, rows = right[present], found[present], rows[present]
    return (
        right / np.maximum(found, 1),
        right / np.maximum(rows, 1),
        2 * right / np.maximum(found + rows, 1),
        rows,
    )


@whole
def precision(target: Array, y: Array) -> float:
    """Return the mean over classes of: rows rightly said to be of it / rows said to be of it.

    Classes that neither targets nor predictions have are left out; 0 / 0 is 0. So does
    scikit-learn's `precision_score(average="macro")`.
    """
    return float(_scores(target, y)[0].mean())


@whole
def recall(target: Array, y: Array) -> float:
    """Return the mean over classes of: rows rightly said to be of it / rows of it.

    See `precision`.
    """
    return float(_scores(target, y)[1].mean())


@whole
def f1(target: Array, y: Array) -> float:
    """Return the mean over classes of the harmonic mean of precision and recall.

    See `precision`.
    """
    return float(_scores(target, y)[2].mean())


def class_scores(target: Array, y: Array) -> dict[str, Array]:
    """Return precision, recall, f1 and rows of each class that occurs, as arrays.

    Examples
    --------
    >>> scores = class_scores(np.array([0, 1, 1]), np.array([[2.0, 1], [0, 3], [4, 0]]))
    >>> scores["precision"].tolist(), scores["recall"].tolist(), scores["rows"].tolist()
    ([0.5, 1.0], [1.0, 0.5], [1, 2])
    """
    return dict(zip(("precision", "recall", "f1", "rows"), _scores(target, y), strict=True))


@whole
def auc(target: Array, y: Array) -> float:
    """Return the area under the receiver operating characteristic.

    It is the probability that a row of a class scores higher for it than one of another class,
    equal scores counting one half: Mann and Whitney (1947); Hanley and McNeil (1982). With more
    than two classes, the mean over them, each against the rest, by their softmax.

    Parameters
    ----------
    target : ndarray of shape (N,), integer labels
    y : ndarray of shape (N, C), or (N, 1) or (N,) for two classes
        Logits.

    Returns
    -------
    float
        NaN where a class has all rows or none.
    """
    y = np.asarray(y, np.float64)
    if y.ndim == 1 or y.shape[1] == 1:
        return _area(np.asarray(target) == 1, y.reshape(-1))
    if y.shape[1] == 2:
        return _area(np.asarray(target) == 1, y[:, 1] - y[:, 0])
    share = np.exp(y - y.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    return float(np.mean([_area(np.asarray(target) == c, share[:, c]) for c in range(y.shape[1])]))


def _area(positive: Array, score: Array) -> float:
    """Return (sum of the ranks of the positive rows - n (n + 1) / 2) / (n m)."""
    n = int(positive.sum())
    m = len(positive) - n
    if not n or not m:
        return float("nan")
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equal scores share the mean of theirs
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * m))
