"""What the processor can do at most: the FMA peak and the clock, measured by kernels of cycnn."""

from __future__ import annotations

import time

from cycnn import engine
from cycnn.threads import set_num_threads

ACCUMULATORS = 12  # of the kernel fma_peak


def fma_peak(threads: int, seconds: float = 0.1) -> float:
    """GFLOP/s of multiply-adds that stay in registers: the best of a few runs within `seconds`."""
    set_num_threads(threads)
    kernels, iterations = engine.kernels("float32"), 2_000_000
    operations = threads * iterations * 2 * ACCUMULATORS * kernels.VL
    plan = engine.Plan()
    y = engine.zeros((threads, kernels.VL), "float32")
    plan.add(kernels.fma_peak, threads, y=y, iterations=iterations, a=0.5, b=0.5, work=operations)
    return operations / _best(plan, seconds) / 1e9


def clock(seconds: float = 0.05) -> float:
    """GHz of one core, from a chain of integer operations that take two cycles each step."""
    iterations = 2_000_000
    plan = engine.Plan()
    h = engine.zeros((1,), "uint64")
    plan.add(engine.kernels("float32").clock_cycles, 1, h=h, iterations=iterations, a=5, b=3)
    return 2 * iterations / _best(plan, seconds) / 1e9


def _best(plan: engine.Plan, seconds: float) -> float:
    """Seconds of the fastest run: whatever disturbs a run can only slow it."""
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        plan.run()
        now = time.perf_counter()
        best = min(best, now - start)
        if now > end:
            return best
