"""Libraries that are compared must compute the same thing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from shapes import ConvShape
from timing import WorkerError

EPS = float(np.finfo(np.float32).eps)


def check(shape: ConvShape, direction: str, results: dict[str, np.ndarray[Any, Any]]) -> None:
    """Raise unless all results, of inputs of unit variance, agree within float32 rounding."""
    terms = shape.terms(direction)
    (first, expected), *others = results.items()
    for name, result in others:
        if result.shape != expected.shape:
            raise WorkerError(f"{first} gives shape {expected.shape}, {name} {result.shape}")
        error = float(np.max(np.abs(result - expected)))
        if not error <= tolerance(terms, first, name):
            raise WorkerError(f"{first} and {name} differ by {error:.2g} in sums of {terms} terms")


def tolerance(terms: int, *names: str) -> float:
    """How much two results may differ in an element that is a sum of T products.

    Plain sums: each addition rounds by at most eps/2 of its partial sum,
    uniformly. Where the sum is a sqrt(T), the root mean square of the partial sums is
    sqrt(T (a^2/3 + 1/6)), so the error's standard deviation is eps/2 / sqrt(3) T sqrt(a^2/3 + 1/6)
    and that of two results' difference sqrt(2) times as much. The worst of 10 million elements (5.5
    deviations) has a = 3.9 and a difference of 3.9 deviations: 3.6 eps T, taken as 4 eps T.

    Where cycnn may use Winograd's algorithm: it is wrong by at most 12 eps of the sum of |x| |w|
    (docs/performance.md), a plain sum by at most 4. That sum has mean 0.64 T and deviation
    0.77 sqrt(T), and the largest of 10 million is 6 deviations above.

    A missing product is a difference of about 1, and so is seen.
    """
    if any("winograd" in name or "auto" in name for name in names):
        return 16 * EPS * (0.64 * terms + 6 * 0.77 * math.sqrt(terms))
    return 4 * EPS * max(terms, 16)


def check_losses(terms: int, losses: Mapping[str, Sequence[float]]) -> None:
    """Raise unless all libraries have the same losses in their first steps from the same weights.

    As above, a sum of T products has an error of eps/2 / sqrt(3) T / sqrt(6), which is
    0.12 eps sqrt(T) of its size sqrt(T), all as root mean squares; Winograd's transforms make that
    ten times as much. Layers drawn by He et al. or followed by BatchNorm hand a relative error on
    as it is, and those of all layers add up in squares: 1.2 eps sqrt(terms) in the outputs, where
    `terms` is the sum of all T. The loss follows with a slope of at most sqrt(2), two libraries
    differ by sqrt(2) times as much, and four deviations are allowed: 10 eps sqrt(terms).
    From the second loss on, gradients have moved the weights, and where a rounding decides on which
    side of a ReLU's zero a value lies, its gradient comes or goes: 2 % of what the loss has moved
    by is allowed (PyTorch's own two memory formats were seen to differ by 0.7 %, MobileNetV2).
    """
    tolerance = 10 * EPS * math.sqrt(terms)
    (first, expected), *others = losses.items()
    for name, found in others:
        for step, (a, b) in enumerate(zip(expected, found, strict=True), 1):
            if not abs(a - b) <= tolerance * max(1.0, abs(a)) + 0.02 * abs(a - expected[0]):
                raise WorkerError(f"loss {step} of {first} is {a:.6f}, of {name} {b:.6f}")
