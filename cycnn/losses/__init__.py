"""Losses: `value, backward = loss(y, target, sample_weight=None)`, then `dy = backward()`.

The value is the weighted mean over the batch, sum_n w_n L_n / sum_n w_n, with w = 1 unless given.
"""

from __future__ import annotations

from cycnn.losses.base import Loss, check_weights
from cycnn.losses.classes import CrossEntropy, Hinge
from cycnn.losses.elements import (
    BinaryCrossEntropy,
    BinaryHinge,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
)

__all__ = [
    "BinaryCrossEntropy", "BinaryHinge", "CrossEntropy", "Hinge", "Huber", "Loss",
    "MeanAbsoluteError", "MeanSquaredError", "check_weights",
]  # fmt: skip
