"""The sizes of this processor's caches."""

from __future__ import annotations

import os
from functools import cache
from typing import NamedTuple


class CacheSizes(NamedTuple):
    """Bytes of the second-level cache of a core, and of the third level that cores share."""

    l2: int
    l3: int


def _reported(name: str, default: int, least: int, most: int) -> int:
    """Ask the operating system, which may say nothing, or under a hypervisor too much."""
    try:
        size = os.sysconf(name)
    except (AttributeError, ValueError, OSError):  # not on Windows; names differ elsewhere
        size = 0
    return min(max(size, least), most) if size > 0 else default


@cache
def cache_sizes() -> CacheSizes:
    """Return the sizes of the caches, or what is common where they are not known."""
    return CacheSizes(
        _reported("SC_LEVEL2_CACHE_SIZE", 512 << 10, 256 << 10, 4 << 20),
        _reported("SC_LEVEL3_CACHE_SIZE", 8 << 20, 4 << 20, 32 << 20),
    )
