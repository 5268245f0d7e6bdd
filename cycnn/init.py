"""Starting values of parameters: functions of a shape and a random generator.

A layer draws its weights by `he_normal` and starts its biases at zero. Another start is assigned
to a built layer:

    >>> from cycnn import init
    >>> from cycnn.layers import Dense
    >>> rng = np.random.default_rng(0)
    >>> layer = Dense(4).build((6,))
    >>> layer.weight.assign(init.orthogonal(layer.weight.shape, rng))

and to a whole model by a loop over `model.parameters()`.

Values are drawn in float64 whatever the dtype of the layer, so a float32 and a float64 model of one
seed start from the same weights. Shapes are (kernel..., C_in, C_out): fan_in, the inputs of one
output, is the product of all but the last; fan_out, the outputs that one input has a part in, of
all but the last but one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from cycnn._check import Array

Shape = tuple[int, ...]
Initial: TypeAlias = "Callable[[Shape, np.random.Generator], Array]"  # numpy.random takes 9 ms


def he_normal(shape: Shape, rng: np.random.Generator) -> Array:
    """Return normal values of standard deviation sqrt(2 / fan_in): ReLU keeps their scale.

    He, Zhang, Ren and Sun (2015), "Delving deep into rectifiers", eq. 10.

    Parameters
    ----------
    shape : tuple of int
        (kernel..., C_in, C_out).
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
    return _normal(shape, rng, 2 / _fans(shape)[0])


def he_uniform(shape: Shape, rng: np.random.Generator) -> Array:
    """Return uniform values of the same variance 2 / fan_in: within sqrt(6 / fan_in) of 0."""
    return _uniform(shape, rng, 2 / _fans(shape)[0])


def glorot_normal(shape: Shape, rng: np.random.Generator) -> Array:
    """Return normal values of variance 2 / (fan_in + fan_out): for tanh, both ways alike.

    Glorot and Bengio (2010), eq. 12.
    """
    return _normal(shape, rng, 2 / sum(_fans(shape)))


def glorot_uniform(shape: Shape, rng: np.random.Generator) -> Array:
    """Return uniform values within sqrt(6 / (fan_in + fan_out)) of 0.

    Glorot and Bengio (2010), eq. 16.
    """
    return _uniform(shape, rng, 2 / sum(_fans(shape)))


def lecun_normal(shape: Shape, rng: np.random.Generator) -> Array:
    """Return normal values of variance 1 / fan_in: for SELU.

    LeCun, Bottou, Orr and Müller (1998), "Efficient BackProp", eq. 16; Klambauer et al. (2017).
    """
    return _normal(shape, rng, 1 / _fans(shape)[0])


def lecun_uniform(shape: Shape, rng: np.random.Generator) -> Array:
    """Return uniform values of variance 1 / fan_in: within sqrt(3 / fan_in) of 0."""
    return _uniform(shape, rng, 1 / _fans(shape)[0])


def orthogonal(shape: Shape, rng: np.random.Generator) -> Array:
    """Return a random orthonormal matrix: of fan_in rows and C_out columns, the shorter side whole.

    Saxe, McClelland and Ganguli (2014). Normal vectors are made orthogonal one after the other,
    twice each (Giraud et al. 2005), in a fixed order: no BLAS, whose threads would change bits.

    Examples
    --------
    >>> weight = orthogonal((3, 3, 2, 8), np.random.default_rng(0)).reshape(18, 8)
    >>> bool(np.allclose(weight.T @ weight, np.eye(8)))
    True
    """
    fan_in, filters = _fans(shape)[0], shape[-1]
    short, long = sorted((fan_in, filters))
    basis = rng.standard_normal((short, long))
    for row in range(short):
        vector, before = basis[row], basis[:row]
        for _ in range(2):
            vector -= np.einsum("ij,i->j", before, np.einsum("ij,j->i", before, vector))
        vector /= math.sqrt(np.einsum("i,i->", vector, vector))
    return (basis.T if fan_in > filters else basis).reshape(shape)


def identity(shape: Shape, rng: np.random.Generator) -> Array:
    """Return the weight of y = x: 1 from channel i to channel i at the kernel's middle, else 0.

    The middle of an even kernel is the later one; the convolution is the identity with "same"
    padding of an odd kernel. Channels that C_in or C_out lacks are cut off, or 0.
    """
    _fans(shape)
    weight = np.zeros(shape)
    middle = weight[tuple(extent // 2 for extent in shape[:-2])]
    np.fill_diagonal(middle, 1)
    return weight


def constant(value: float) -> Initial:
    """Return the function that fills any shape with `value`.

    Examples
    --------
    >>> constant(0.1)((2,), np.random.default_rng(0))
    array([0.1, 0.1])
    """

    def fill(shape: Shape, rng: np.random.Generator) -> Array:
        return np.full(shape, float(value))

    return fill


def zeros(shape: Shape, rng: np.random.Generator) -> Array:
    """Return zeros: the start of every bias."""
    return np.zeros(shape)


def ones(shape: Shape, rng: np.random.Generator) -> Array:
    """Return ones: the start of a scale."""
    return np.ones(shape)


def _fans(shape: Shape) -> tuple[int, int]:
    """Return fan_in and fan_out."""
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"init: shape must be (kernel..., C_in, C_out), got {shape}")
    return math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]


def _normal(shape: Shape, rng: np.random.Generator, variance: float) -> Array:
    values = rng.standard_normal(shape)
    values *= math.sqrt(variance)
    return values


def _uniform(shape: Shape, rng: np.random.Generator, variance: float) -> Array:
    limit = math.sqrt(3 * variance)
    return rng.uniform(-limit, limit, shape)
