"""Libraries that are compared must compute the same thing."""

from __future__ import annotations

from typing import Any

import numpy as np
from shapes import ConvShape
from timing import WorkerError

EPS = float(np.finfo(np.float32).eps)


def check(shape: ConvShape, direction: str, results: dict[str, np.ndarray[Any, Any]]) -> None:
    """Raise unless all results, of inputs of unit variance, agree within float32 rounding.

    An element is a sum of T products; each addition rounds by at most eps/2 of its partial sum,
    uniformly. Where the sum is a sqrt(T), the root mean square of the partial sums is
    sqrt(T (a^2/3 + 1/6)), so the error's standard deviation is eps/2 / sqrt(3) T sqrt(a^2/3 + 1/6)
    and that of two results' difference sqrt(2) times as much. The worst of 10 million elements (5.5
    deviations) has a = 3.9 and a difference of 3.9 deviations: 3.6 eps T, taken as 4 eps T.
    A missing product is a difference of about 1, and so is seen.
    """
    terms = shape.terms(direction)
    (first, expected), *others = results.items()
    for name, result in others:
        if result.shape != expected.shape:
            raise WorkerError(f"{first} gives shape {expected.shape}, {name} {result.shape}")
        error = float(np.max(np.abs(result - expected)))
        if not error <= 4 * EPS * max(terms, 16):
            raise WorkerError(f"{first} and {name} differ by {error:.2g} in sums of {terms} terms")
