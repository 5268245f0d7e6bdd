"""What this machine can do at most, measured here and now: multiply-adds, and bytes copied.

Kernels are held against these two roofs. Each is the best of a few runs, as whatever disturbs a run
can only slow it, and uses as many threads as any other call: `get_num_threads()`.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import DTypeLike

from cycnn import engine
from cycnn.threads import get_num_threads

_CHAINS = 12  # accumulators of the kernel fma_peak
_ITERATIONS = 1_000_000
_COPIED = 1 << 26  # bytes, several times what a last-level cache has for one core
_CHUNK = 1 << 18  # bytes that a job copies


def fma_peak(dtype: DTypeLike = "float32", *, seconds: float = 0.05) -> float:
    """Return the GFLOP/s of multiply-adds that stay in registers; each counts as two operations."""
    kernels, threads = engine.kernels(dtype), get_num_threads()
    operations: int = threads * _ITERATIONS * 2 * _CHAINS * kernels.VL
    y = engine.zeros((threads, kernels.VL), dtype)
    plan = engine.Plan()
    plan.add(kernels.fma_peak, threads, y=y, iterations=_ITERATIONS, a=0.5, b=0.5, work=operations)
    return operations / fastest(plan, seconds) / 1e9


def copy_bandwidth(*, seconds: float = 0.05) -> float:
    """Return the GB/s of a copy that no cache holds: what is read and what is written."""
    x, y = (np.zeros(_COPIED // 4, np.float32) for _ in range(2))  # not the pool's to keep
    x += 1  # all zero pages might be one
    width = _CHUNK // 4
    plan = engine.Plan()
    plan.add(
        engine.kernels("float32").copy_rows, _COPIED // _CHUNK, x=x, y=y, rows=_COPIED // _CHUNK,
        width=width, x_stride=width, y_stride=width, row_chunk=1, column_chunk=width,
        column_jobs=1, work=2 * _COPIED,
    )  # fmt: skip
    return 2 * _COPIED / fastest(plan, seconds) / 1e9


def fastest(plan: engine.Plan, seconds: float) -> float:
    """Return the seconds of the fastest run of those begun within `seconds`, at least two."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        plan.run()
        times.append(time.perf_counter() - start)
    return min(times)
