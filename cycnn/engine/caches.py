"""The sizes of this processor's caches."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


class CacheSizes(NamedTuple):
    """Bytes of the second-level cache of a core, and of the third level that cores share."""

    l2: int
    l3: int


COMMON = CacheSizes(512 << 10, 8 << 20)
"""What is assumed where the operating system does not say (it does under Linux)."""

LEAST, MOST = CacheSizes(256 << 10, 2 << 20), CacheSizes(4 << 20, 32 << 20)
"""A hypervisor may report the caches of the whole machine, or none."""


def _reported(level: int) -> int:
    for index in CACHES.glob("index*"):
        try:
            if int((index / "level").read_text()) == level:
                return int((index / "size").read_text().strip().removesuffix("K")) << 10
        except (OSError, ValueError):
            continue
    return 0


@cache
def cache_sizes() -> CacheSizes:
    """Return the sizes of the caches, or what is common where they are not known."""
    sizes = zip((2, 3), COMMON, LEAST, MOST, strict=True)
    return CacheSizes(*(min(max(_reported(n) or common, a), b) for n, common, a, b in sizes))
