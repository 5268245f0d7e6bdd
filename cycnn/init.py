"""Starting values of parameters: functions of a shape and a random generator.

Values are drawn in float64 whatever the dtype of the layer, so a float32 and a float64 model of one
seed start from the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from cycnn._check import Array

Shape = tuple[int, ...]
Initial: TypeAlias = "Callable[[Shape, np.random.Generator], Array]"  # a text: importing numpy.random takes 9 ms


def he_normal(shape: Shape, rng: np.random.Generator) -> Array:
    """Return normal values of standard deviation sqrt(2 / fan_in): ReLU keeps their scale.

    He, Zhang, Ren and Sun (2015), "Delving deep into rectifiers", eq. 10.

    Parameters
    ----------
    shape : tuple of int
        (kernel..., C_in, C_out); fan_in, the inputs of one output, is the product of all but the
        last.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float64 of that shape

    Examples
    --------
    >>> weight = he_normal((3, 3, 16, 32), np.random.default_rng(0))
    >>> bool(abs(weight.std() / math.sqrt(2 / 144) - 1) < 0.02)
    True
    """
    weight = rng.standard_normal(shape)
    weight *= math.sqrt(2 / math.prod(shape[:-1]))
    return weight


def zeros(shape: Shape, rng: np.random.Generator) -> Array:
    """Return zeros: the start of every bias."""
    return np.zeros(shape)


def ones(shape: Shape, rng: np.random.Generator) -> Array:
    """Return ones: the start of a scale."""
    return np.ones(shape)
