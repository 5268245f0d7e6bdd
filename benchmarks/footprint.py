"""What a training step takes from the system: memory and page faults of this process (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP = 3  # steps whose peak is taken


def footprint(make: Callable[[], Callable[[], Any]], steps: int) -> dict[str, float]:
    """Peak of the first steps over what stands before them; then faults and growth of `steps` more.

    `make` builds the model and the batch. In bytes, faults as a number a step.
    """
    step = make()
    with contextlib.suppress(AttributeError):  # glibc: freed memory must not hide in the growth
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmRSS")
    for _ in range(WARM_UP):
        step()
    peak, warm = _status("VmHWM") - before, _status("VmRSS")
    faults = _faults()
    for _ in range(steps):
        step()
    return {
        "before": before,
        "peak": peak,
        "faults": (_faults() - faults) / steps,
        "growth": _status("VmRSS") - warm,
    }


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
