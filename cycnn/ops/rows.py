"""Dividing an array with something per channel into jobs: the numbers of kernels/rows.pxd."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cycnn import engine
from cycnn._check import Array

_PART = 1 << 14  # elements of a job, about: its rows stay in the second-level cache


def channel_rows(x: Array, samples: int = 1) -> tuple[dict[str, int], int]:
    """Return how the kernels cut up x (see kernels/rows.pxd: Rows), and the number of jobs.

    Parameters
    ----------
    x : ndarray of shape (..., C)
    samples : int
        How many of the leading rows stand each for themselves; 1 takes all together.
    """
    return cut_rows(x.shape, x.dtype, samples)


def cut_rows(
    shape: tuple[int, ...], dtype: np.dtype[Any], samples: int = 1
) -> tuple[dict[str, int], int]:
    """Return the same for an array of this shape and dtype."""
    lanes: int = engine.kernels(dtype).VL
    C, group = shape[-1], 1
    if 4 * lanes > C:  # full vectors, and at least four of them
        group = lanes // math.gcd(C, lanes)
        group *= -(-4 * lanes // (group * C))
    grouped, loose = divmod(math.prod(shape[:-1]) // max(samples, 1), group)
    chunk = min(max(_PART // (group * C), 32), 256)
    parts = -(-grouped // chunk) + (loose > 0)
    rows = {
        "grouped": grouped, "loose": loose, "period": group * C, "C": C, "chunk": chunk,
        "parts": parts, "beyond": engine.beyond(math.prod(shape) * dtype.itemsize),
    }  # fmt: skip
    return rows, samples * parts
