"""Adding up partial sums in a fixed order."""

from __future__ import annotations

from cycnn._check import Array
from cycnn.engine import Plan, kernels


def add_partials(plan: Plan, partial: Array, total: Array) -> None:
    """Append a step that adds up partial sums (S, size) in order."""
    unit = kernels(partial.dtype)
    block = 64 * unit.VL
    count, size = partial.shape
    plan.add(
        unit.sum_partials, -(-size // block), partial=partial, total=total, count=count, size=size,
        block=block, work=float(partial.nbytes),
    )  # fmt: skip
