"""Plain float64 references of borders and resolutions: one matrix (out, in) per spatial axis."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad_matrix(n, begin, end, mode):
    """Return the matrix that puts a border around n pixels; rows of zeros are zeros."""
    if mode == "zeros":
        pixel = np.pad(np.arange(n), (begin, end), constant_values=-1)
    else:
        pixel = np.pad(np.arange(n), (begin, end), mode=MODES[mode])
    return (pixel[:, None] == np.arange(n)).astype(np.float64)


def crop_matrix(n, begin, end):
    """Return the matrix that cuts a border off."""
    return np.eye(n)[begin : n - end]


def nearest_matrix(n, factor):
    """Return the matrix that repeats every pixel."""
    return np.repeat(np.eye(n), factor, axis=0)


def linear_matrix(n, factor, align_corners):
    """Return the matrix whose rows hold the two weights of each output."""
    out = n * factor
    matrix = np.zeros((out, n))
    for o in range(out):
        if align_corners:
            position = Fraction(o * (n - 1), max(out - 1, 1))
        else:
            position = max(Fraction(2 * o + 1, 2 * factor) - Fraction(1, 2), 0)
        low = min(int(position), n - 1)
        part = position - low
        matrix[o, low] += 1 - part
        matrix[o, min(low + 1, n - 1)] += part
    return matrix


def apply(x, matrices):
    """Return x (N, spatial..., C) with each axis multiplied by its matrix."""
    y = np.asarray(x, np.float64)
    for axis, matrix in enumerate(matrices, start=1):
        y = np.moveaxis(np.tensordot(matrix, y, (1, axis)), 0, axis)
    return y


def apply_backward(dy, matrices):
    """Return dx: the transposed matrices."""
    return apply(dy, [matrix.T for matrix in matrices])
