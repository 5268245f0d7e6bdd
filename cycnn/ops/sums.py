"""Adding up partial sums in float64."""

from __future__ import annotations

from cycnn._check import Array
from cycnn.engine import Plan, kernels

_CHUNK = 256  # sums of a job


def add_up(plan: Plan, partial: Array, total: Array) -> None:
    """Append a step that adds up float64 partial sums (parts, ...) in order, into `total` (...)."""
    plan.add(
        kernels(total.dtype).add_up, -(-total.size // _CHUNK), partial=partial, total=total,
        parts=partial.shape[0], size=total.size, chunk=_CHUNK, work=float(partial.nbytes),
    )  # fmt: skip
