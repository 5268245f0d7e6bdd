"""Rows and their weights on their way into `Trainer.fit`: checks, and what is held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cycnn._check import Array, real_number
from cycnn.data import Index, random_split, stratified_split
from cycnn.graph import Model
from cycnn.losses import Loss, check_weights

HeldOut = tuple[Array, Array, Array | None]
"""x, targets and sample weights to validate on."""


def check_rows(x: ArrayLike, y: ArrayLike | None, model: Model, loss: Loss) -> tuple[Array, Array]:
    """Return x, in its own dtype, and the targets, both checked against the model."""
    x = np.asarray(x)
    shape = model.input_shape
    if x.dtype.kind not in "fiub":
        raise TypeError(f"Trainer: x must hold real numbers, got dtype {x.dtype}")
    if x.ndim == 0 or x.shape[1:] != shape:
        expected = ", ".join(["N", *map(str, shape)])
        raise ValueError(f"Trainer: x must have shape ({expected}), got {x.shape}")
    if len(x) == 0:
        raise ValueError("Trainer: x must have at least one row, got 0")
    if y is None:
        raise ValueError("Trainer: y must hold a target for each row of x, got None")
    y = np.asarray(y)
    if y.shape[:1] != x.shape[:1]:
        raise ValueError(f"Trainer: y must have as many rows as x, {len(x)}, got shape {y.shape}")
    return x, loss.check_target(y, (len(x), *model.output_shape))


def held_out_rows(
    x: Array, target: Array, weight: Array | None, fraction: Any
) -> tuple[Index, HeldOut]:
    """Return the rows to train on and those to validate on, a fraction held out of x."""
    if not 0 < real_number(fraction, "validation") < 1:
        raise ValueError(f"validation must be a fraction in (0, 1), got {fraction!r}")
    if target.ndim == 1 and target.dtype.kind in "iu":
        rows, held = stratified_split(target, fraction, rng=0)
    else:
        rows, held = random_split(len(x), fraction, rng=0)
    if weight is not None:
        weight = check_weights(weight[held], len(held), "sample_weight of the rows held out")
    return rows, (x[held], target[held], weight)


def class_weights(weights: Mapping[int, float] | ArrayLike, target: Array, classes: int) -> Array:
    """Return the weight of each row's class; labels that are none of the classes weigh 1."""
    if target.ndim != 1 or target.dtype.kind not in "iu":
        got = f"{target.dtype} of shape {target.shape}"
        raise ValueError(f"class_weight must come with one integer label per row, got {got}")
    if isinstance(weights, Mapping):
        if unknown := set(weights) - set(range(classes)):
            raise ValueError(f"class_weight must name labels 0 .. {classes - 1}, got {unknown}")
        weights = [weights.get(label, 1.0) for label in range(classes)]
    checked = check_weights(weights, classes, "class_weight")
    known = (target >= 0) & (target < classes)
    by_row: Array = np.where(known, checked[np.where(known, target, 0)], 1.0)
    return by_row


def check_finite(x: Array) -> None:
    """Raise ValueError where a row of x holds NaN or infinity; a few rows are read at a time."""
    if x.dtype.kind != "f":
        return
    rows = max(1, 2**20 // max(1, x[0].size))
    for start in range(0, len(x), rows):
        finite = np.isfinite(x[start : start + rows]).reshape(-1, x[0].size).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise ValueError(f"Trainer: x must be finite, got NaN or infinity in row {row}")
