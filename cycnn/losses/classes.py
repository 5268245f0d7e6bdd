"""Losses of which class a row is: cross-entropy and the multi-class hinge loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, as_input, integer, real_number
from cycnn.losses.base import Loss, as_labels, as_outputs, check_weights
from cycnn.metrics import Metric, accuracy

_SUM_ERROR = 1e-4  # how far from 1 the shares of a row may add up, in float32 say


class CrossEntropy(Loss):
    """Cross-entropy of the softmax: L_n = -log p[n, target_n] with p = softmax(y).

    The network ends in a plain `Dense(classes)`: y are logits, and softmax and logarithm are
    taken together, log p[n, c] = y[n, c] - m - log(sum_k exp(y[n, k] - m)) with m = max_k y[n, k],
    so that no logit overflows. The gradient is dy[n, c] = w_n (p[n, c] - [c = target_n]) / sum w.
    See Goodfellow, Bengio and Courville, *Deep Learning* (2016), eqs. 6.29 to 6.33.

    A target may also say how much of a row is of each class, q[n, c], as `Mixup` makes them: then
    L_n = -sum_c q[n, c] log p[n, c] and dy[n, c] = w_n (p[n, c] - q[n, c]) / sum w.

    Parameters
    ----------
    label_smoothing : float
        In [0, 1]: q becomes (1 - label_smoothing) q + label_smoothing / C. Szegedy et al. (2016),
        section 7.
    class_weight : array_like of shape (C,), optional
        What a row of each label counts: it multiplies w_n, in the sum and in its divisor.
    ignore_label : int, optional
        Rows of this label count nothing. It need not be one of the classes: 255, -1.

    Raises
    ------
    ValueError
        Before anything is computed: a batch of 0 rows; labels with a fraction, below 0 or at least
        C; shares that are negative or do not add up to 1; lengths that differ; weights that are
        not finite, negative, or all zero; labels that are all ignored.

    Examples
    --------
    >>> value, backward = CrossEntropy()([[0.0, 0.0]], [1])
    >>> round(value, 4), backward().tolist()
    (0.6931, [[0.5, -0.5]])
    >>> loss = CrossEntropy(label_smoothing=0.1, class_weight=[1, 5], ignore_label=-1)
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        class_weight: ArrayLike | None = None,
        ignore_label: int | None = None,
    ) -> None:
        if not 0 <= real_number(label_smoothing, "CrossEntropy: label_smoothing") <= 1:
            raise ValueError(
                f"CrossEntropy: label_smoothing must be in [0, 1], got {label_smoothing!r}"
            )
        self.label_smoothing = float(label_smoothing)
        self.class_weight = None
        if class_weight is not None:
            self.class_weight = check_weights(
                class_weight, np.size(class_weight), "CrossEntropy: class_weight"
            )
        self.ignore_label = ignore_label
        if ignore_label is not None:
            self.ignore_label = integer(ignore_label, "CrossEntropy: ignore_label", -(2**63))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The accuracy."""
        if self.ignore_label is None:
            return {"accuracy": accuracy}
        return {"accuracy": lambda t, y: accuracy(t, y, ignore_label=self.ignore_label)}

    def check_target(self, target: ArrayLike, shape: tuple[int, ...]) -> Array:
        """Return labels as int64 of shape (N, ...), or shares as floats of shape (N, ..., C).

        Labels may be of any integer type, or floating-point numbers that are whole.
        """
        if len(shape) < 2:
            raise ValueError(f"CrossEntropy: y must have shape (N, ..., C), got {shape}")
        if self.class_weight is not None and len(self.class_weight) != shape[-1]:
            raise ValueError(
                f"CrossEntropy: class_weight must have one weight for each of {shape[-1]} outputs, "
                f"got {len(self.class_weight)}"
            )
        given: Any = np.asarray(target)
        if given.shape != shape or given.dtype.kind != "f":
            return as_labels(given, shape, self.ignore_label, "CrossEntropy")
        single = given.dtype.itemsize <= 4
        share = as_input(given, np.float32 if single else np.float64, "CrossEntropy: target")
        if not (share >= 0).all():
            raise ValueError(f"CrossEntropy: shares must not be negative, got {share.min():g}")
        sums = share.sum(axis=-1)
        if (wrong := ~(np.abs(sums - 1) <= _SUM_ERROR)).any():
            raise ValueError(f"CrossEntropy: shares must add up to 1, got {sums[wrong].flat[0]:g}")
        return share

    def row_weights(self, target: Array, sample_weight: Array | None) -> Array | None:
        """Return the weights times those of the classes, 0 for ignored labels."""
        each = self._label_weights(target)
        if each is None:
            return sample_weight
        rows: Array = each.reshape(len(each), -1).sum(axis=1)
        return rows if sample_weight is None else rows * sample_weight

    def _label_weights(self, target: Array) -> Array | None:
        """Return the weight of each label, or of each row of shares; None for ones."""
        if target.dtype.kind == "f":
            return None if self.class_weight is None else target @ self.class_weight
        if self.class_weight is None and self.ignore_label is None:
            return None
        kept = np.ones(target.shape, bool) if self.ignore_label is None else (
            target != self.ignore_label
        )  # fmt: skip
        if self.class_weight is None:
            return kept.astype(np.float64)
        return kept * self.class_weight[np.where(kept, target, 0)]

    def __call__(
        self, y: ArrayLike, target: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[float, Callable[[], Array]]:
        """Return the loss of the logits y (N, ..., C) for their targets, and its backward.

        Parameters
        ----------
        y : array_like of shape (N, C), or (N, ..., C) for one class per pixel
            Logits, one for each class.
        target : array_like of shape (N, ...), or of the shape of y
            Integer labels in 0 .. C - 1, or the share of each class.
        sample_weight : array_like of shape (N,), optional
            w_n, what each row counts.

        Returns
        -------
        value : float
        backward : callable
            `backward()` returns dy, an ndarray of the shape and dtype of y.
        """
        y = as_outputs(y, "CrossEntropy")
        checked = self.check_target(target, y.shape)
        weight = self._label_weights(checked)
        if sample_weight is not None:
            rows = check_weights(sample_weight, len(y))
            rows = np.broadcast_to(rows.reshape(-1, *[1] * (y.ndim - 2)), y.shape[:-1])
            weight = rows if weight is None else weight * rows
        if weight is not None:
            weight = np.ascontiguousarray(weight).reshape(-1)
            if not weight.any():
                raise ValueError("CrossEntropy: every label is ignored, or has a weight of 0")
        logits = y.reshape(-1, y.shape[-1])
        if checked.dtype.kind == "f":
            share = as_input(checked, y.dtype).reshape(logits.shape)
            value, dy = ops.soft_cross_entropy(logits, share, weight, self.label_smoothing)
        else:
            if self.ignore_label is not None:  # they have no weight: any class will do
                checked = np.where(checked == self.ignore_label, 0, checked)
            labels = checked.reshape(-1)
            if self.label_smoothing:
                value, dy = ops.soft_cross_entropy(logits, labels, weight, self.label_smoothing)
            else:
                value, dy = ops.softmax_cross_entropy(logits, labels, weight)
        gradient = dy.reshape(y.shape)

        def backward() -> Array:
            return gradient

        return value, backward

    def __repr__(self) -> str:
        words = []
        if self.label_smoothing:
            words.append(f"label_smoothing={self.label_smoothing:g}")
        if self.class_weight is not None:
            words.append(f"class_weight={self.class_weight.tolist()}")
        if self.ignore_label is not None:
            words.append(f"ignore_label={self.ignore_label}")
        return f"CrossEntropy({', '.join(words)})"


class Hinge(Loss):
    """Multi-class hinge loss: L_n = sum_{c != t} max(0, margin + y[n, c] - y[n, t]) / C.

    Here t is the target. Weston and Watkins (1999), with one margin and over C:
    `MultiMarginLoss` in PyTorch. The gradient of class c != t is w_n / (C sum w) where its term is
    above 0, else 0, and that of t the negative sum of the others.

    Parameters
    ----------
    margin : float
        Above 0.

    Raises
    ------
    ValueError
        As `CrossEntropy`, for labels, rows and weights that cannot be meant.

    Examples
    --------
    >>> value, backward = Hinge()([[0.0, 0.5]], [1])
    >>> value, backward().tolist()
    (0.25, [[0.5, -0.5]])
    """

    def __init__(self, margin: float = 1.0) -> None:
        if not 0 < real_number(margin, "Hinge: margin") < np.inf:
            raise ValueError(f"Hinge: margin must be positive and finite, got {margin!r}")
        self.margin = float(margin)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The accuracy."""
        return {"accuracy": accuracy}

    def check_target(self, target: ArrayLike, shape: tuple[int, ...]) -> Array:
        """Return the labels as int64 of shape (N,), each in 0 .. C - 1."""
        if len(shape) != 2:
            raise ValueError(f"Hinge: y must have shape (N, C), got {shape}")
        return as_labels(target, shape, None, "Hinge")

    def __call__(
        self, y: ArrayLike, target: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[float, Callable[[], Array]]:
        """Return the loss of the scores y (N, C) for integer labels (N,), and its backward."""
        y = as_outputs(y, "Hinge")
        labels = self.check_target(target, y.shape)
        weight = None if sample_weight is None else check_weights(sample_weight, len(y))
        value, dy = ops.hinge_loss(y, labels, weight, self.margin)

        def backward() -> Array:
            return dy

        return value, backward

    def __repr__(self) -> str:
        return f"Hinge(margin={self.margin:g})"
