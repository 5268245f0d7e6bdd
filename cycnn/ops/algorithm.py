"""Which algorithm a convolution may have: asked for by name, by the environment or by its layer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

OUTPUTS = {"winograd4": 4, "winograd2": 2}  # of a tile, per axis
ALGORITHMS = ("auto", "direct", *OUTPUTS)


def _default() -> str:
    name = os.environ.get("CYCNN_ALGORITHM", "").strip() or "auto"
    if name not in ALGORITHMS:
        raise ImportError(f"CYCNN_ALGORITHM must be one of {', '.join(ALGORITHMS)}, got {name!r}")
    return name


DEFAULT = _default()
"""What "auto" stands for, where it fits; CYCNN_ALGORITHM sets it."""

ROWS: ContextVar[int | None] = ContextVar("rows", default=None)


@contextmanager
def planned_for(rows: int) -> Iterator[None]:
    """Within, algorithms are chosen as if every batch had `rows` rows."""
    token = ROWS.set(rows)
    try:
        yield
    finally:
        ROWS.reset(token)


def tiles_fit(
    outputs: int, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], groups: int
) -> bool:
    """Whether tiles of `outputs` per axis compute a convolution of these three spatial axes."""
    flat = tuple(kernel[1:]) == (1, 3)
    return (
        groups == 1
        and (tuple(kernel[1:]) == (3, 3) or (flat and outputs == 4))
        and stride[2] == dilation[2] == 1
        and (flat or stride[1] == dilation[1] == 1)
    )


def check_algorithm(
    name: str, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], groups: int,
    owner: str,
) -> None:  # fmt: skip
    """Raise ValueError unless `name` is an algorithm that computes this convolution."""
    if name not in ALGORITHMS:
        raise ValueError(f"{owner}: algorithm must be one of {', '.join(ALGORITHMS)}, got {name!r}")

    def three(values: Sequence[int]) -> tuple[int, ...]:
        return (1,) * (3 - len(values)) + tuple(values)

    if name in OUTPUTS and not tiles_fit(
        OUTPUTS[name], three(kernel), three(stride), three(dilation), groups
    ):
        raise ValueError(
            f"{owner}: algorithm {name!r} takes 3 x 3 kernels{' or 3' * (name == 'winograd4')} on "
            f"the last axes, stride and dilation 1 there and groups=1, got kernel {tuple(kernel)}, "
            f"stride {tuple(stride)}, dilation {tuple(dilation)}, groups={groups}"
        )
