"""What several test files share: data, tolerances, ways arrays lie in memory, child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import cycnn

DTYPES = ("float32", "float64")


def integers(rng, shape, dtype="float32", low=-3, high=4):
    """Return small integers: sums of their products are exact in float32 below 2^24."""
    return rng.integers(low, high, shape).astype(dtype)


def normal(rng, shape, dtype="float32"):
    """Return standard normal values."""
    return rng.standard_normal(shape).astype(dtype)


def assert_near(actual, expected, magnitude, terms):
    """Require |actual - expected| <= terms * eps * magnitude, the bound of a rounded sum.

    `magnitude` is the same sum with every product made positive, `terms` their number.
    """
    assert actual.shape == expected.shape
    error = np.abs(actual - expected)
    bound = (terms + 2) * np.finfo(actual.dtype).eps * magnitude + np.finfo(actual.dtype).tiny
    assert np.all(error <= bound), f"error {np.max(error / bound):.2f} of the bound"


def same_bits(a, b):
    """Say whether two arrays have the same dtype, shape and bits (NaN equals itself, 0 not -0)."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def at_offset(x, offset):
    """Return a C-contiguous copy of x that starts `offset` bytes after a multiple of 64."""
    room = np.empty(x.nbytes + 192, np.uint8)
    start = -room.ctypes.data % 64 + offset
    copy = room[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def placements(x):
    """Yield (name, array equal to x) for every unusual way an array can lie in memory."""
    frozen = x.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    yield "strided", np.repeat(x, 2, axis=-1)[..., ::2]
    yield "transposed", np.ascontiguousarray(x.T).T
    yield "F-order", np.asfortranarray(x)
    yield "negative stride", np.ascontiguousarray(x[::-1, ...])[::-1, ...]
    yield "negative stride inside", np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    yield "byteswapped", x.astype(x.dtype.newbyteorder())
    yield "unaligned", at_offset(x, 1)
    yield "offset", at_offset(x, x.dtype.itemsize)


def run_python(code, *, timeout=120, check=True, **environment):
    """Run code in a fresh interpreter and return the finished process."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=Path(cycnn.__file__).parents[1],  # so that it imports the same cycnn as this process
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done
