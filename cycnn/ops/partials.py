"""Adding up partial sums in a fixed order."""

from __future__ import annotations

from cycnn._check import Array
from cycnn.engine import Plan, kernels

_SQUARE = 16  # rows of a job of sum_transposed


def add_partials(plan: Plan, partial: Array, total: Array, *, transposed: bool = False) -> None:
    """Append a step that adds up partial sums (S, size) in order.

    With `transposed`, each is the transpose of `total`, a matrix in its last two axes.
    """
    unit = kernels(partial.dtype)
    count, size = partial.shape
    if transposed:
        rows, columns = total.shape[-2:]
        plan.add(
            unit.sum_transposed, -(-rows // _SQUARE), partial=partial, total=total, count=count,
            rows=rows, columns=columns, work=float(partial.nbytes),
        )  # fmt: skip
        return
    block = 64 * unit.VL
    plan.add(
        unit.sum_partials, -(-size // block), partial=partial, total=total, count=count, size=size,
        block=block, work=float(partial.nbytes),
    )  # fmt: skip
