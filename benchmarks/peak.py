"""What the machine can do at most: the FMA peak, a copy (cycnn.roof), and the clock."""

from __future__ import annotations

from cycnn import engine, roof
from cycnn.threads import set_num_threads


def fma_peak(threads: int, seconds: float = 0.1) -> float:
    """GFLOP/s of multiply-adds that stay in registers: the best of a few runs within `seconds`."""
    set_num_threads(threads)
    return roof.fma_peak(seconds=seconds)


def copy_bandwidth(threads: int, seconds: float = 0.2) -> float:
    """GB/s of a copy that no cache holds, what is read and what is written."""
    set_num_threads(threads)
    return roof.copy_bandwidth(seconds=seconds)


def clock(seconds: float = 0.05) -> float:
    """GHz of one core, from a chain of integer operations that take two cycles each step."""
    iterations = 2_000_000
    plan = engine.Plan()
    h = engine.zeros((1,), "uint64")
    plan.add(engine.kernels("float32").clock_cycles, 1, h=h, iterations=iterations, a=5, b=3)
    return 2 * iterations / roof.fastest(plan, seconds) / 1e9
