"""Other data in the caches: what a step finds whose own data was last used long ago."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

SIZE = 64 << 20  # bytes, for each thread: twice the last-level cache of most processors


@cache
def _memory(thread: int) -> np.ndarray[Any, Any]:
    return np.zeros(SIZE, np.uint8)


def sweep(threads: int) -> None:
    """Write other data on so many threads at once, so that each processor's own caches hold it."""

    def write(thread: int) -> None:
        memory = _memory(thread)
        np.add(memory, 1, out=memory)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, range(threads)))
