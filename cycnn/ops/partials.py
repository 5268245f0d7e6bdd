"""Adding up partial sums in a fixed order."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from cycnn._check import Array
from cycnn.engine import Bound, Plan, kernels

_TURNED = 16  # rows of a job of sum_transposed, as in kernels/weight_gradient.pyx


def add_partials(plan: Plan, partial: Array, total: Array, *, transposed: bool = False) -> None:
    """Append a step that adds up partial sums (S, size) in order.

    With `transposed`, each is the transpose of `total`, a matrix in its last two axes.
    """
    matrix = total.shape[-2:] if transposed else None
    plan.append(_sum(*partial.shape, partial.dtype, matrix), partial=partial, total=total)


@lru_cache(maxsize=512)
def _sum(count: int, size: int, dtype: Any, matrix: tuple[int, int] | None) -> Bound:
    """Return the step, all but its arrays; with a `matrix` shape of the total, transposed."""
    unit, work = kernels(dtype), count * size * dtype.itemsize
    if matrix is None:
        block = 64 * unit.VL
        kernel, jobs, slots = unit.sum_partials, -(-size // block), {"size": size, "block": block}
    else:
        rows, columns = matrix
        kernel, jobs = unit.sum_transposed, -(-rows // _TURNED)
        slots = {"rows": rows, "columns": columns}
    bound: Bound = kernel.bind(jobs, work=work, count=count, **slots)
    return bound
