"""How many threads a call may use.

``n = min(num_threads() or set_num_threads() or CYCNN_NUM_THREADS or default, OpenMP's own limit)``,
computed per call in the calling thread, so that limits set by threadpoolctl or joblib hold.  The
default is the number of processors this process may run on, cut to the control group's CPU quota,
which neither OpenMP nor ``os.sched_getaffinity`` knows.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import os
from collections.abc import Callable, Iterator

_override: contextvars.ContextVar[int | None] = contextvars.ContextVar("threads", default=None)
# How many threads a plan may run on, which is cut in jobs for as many as `get_num_threads` says.
limit: contextvars.ContextVar[int] = contextvars.ContextVar("limit", default=1 << 30)


def _quota() -> float:
    """Return the CPU quota of this process's control group, in processors."""

    def read(name: str) -> str:
        with open(f"/sys/fs/cgroup/{name}", encoding="utf-8") as file:
            return file.read()

    with contextlib.suppress(OSError, ValueError):  # version 2
        quota, period = read("cpu.max").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # version 1
        quota_us = int(read("cpu/cpu.cfs_quota_us"))
        period_us = int(read("cpu/cpu.cfs_period_us"))
        return math.inf if quota_us <= 0 else quota_us / period_us
    return math.inf


def _default() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    processors = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _quota()
    return processors if quota == math.inf else max(1, min(processors, math.ceil(quota)))


def _checked(n: object, name: str) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"{name}: the number of threads must be an integer, got {n!r}")
    count = n.__index__()
    if count < 1:
        raise ValueError(f"{name}: the number of threads must be at least 1, got {count}")
    return int(count)


def _initial() -> int:
    text = os.environ.get("CYCNN_NUM_THREADS", "").strip()
    if not text:
        return _default()
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"CYCNN_NUM_THREADS must be a positive integer, got {text!r}")
    return _checked(int(text), "CYCNN_NUM_THREADS")


_process_wide = _initial()
_openmp_limit: Callable[[], int] = lambda: _process_wide  # noqa: E731 (the engine puts OpenMP's here)


def set_num_threads(n: int) -> None:
    """Let every later call in this process use up to `n` threads."""
    global _process_wide
    _process_wide = _checked(n, "set_num_threads")


def get_num_threads() -> int:
    """Return the number of threads that a call made here and now would use at most."""
    override = _override.get()
    return min(_process_wide if override is None else override, _openmp_limit())


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Let calls inside the ``with`` block, in this thread or task, use up to `n` threads."""
    token = _override.set(_checked(n, "num_threads"))
    try:
        yield
    finally:
        _override.reset(token)
