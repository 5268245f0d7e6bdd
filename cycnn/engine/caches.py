"""The sizes of this processor's caches."""

from functools import cache
from typing import NamedTuple

CACHE = "/sys/devices/system/cpu/cpu0/cache/index{}/{}"


class CacheSizes(NamedTuple):
    """Bytes of a core's caches, of the first (data) and second level, and of the shared third."""

    l1: int
    l2: int
    l3: int


COMMON = CacheSizes(32 << 10, 512 << 10, 8 << 20)
"""What is assumed where the operating system does not say (it does under Linux)."""

LEAST = CacheSizes(32 << 10, 256 << 10, 2 << 20)
MOST = CacheSizes(128 << 10, 4 << 20, 32 << 20)
"""A hypervisor may report the caches of the whole machine, or none."""


def _read(index: int, name: str) -> str:
    with open(CACHE.format(index, name), encoding="utf-8") as file:
        return file.read().strip()


def _reported(level: int) -> int:
    for index in range(8):  # two caches of the first level, and one of each other
        try:
            if int(_read(index, "level")) == level and _read(index, "type") != "Instruction":
                return int(_read(index, "size").removesuffix("K")) << 10
        except (OSError, ValueError):
            continue
    return 0


@cache
def cache_sizes() -> CacheSizes:
    """Return the sizes of the caches, or what is common where they are not known."""
    sizes = zip((1, 2, 3), COMMON, LEAST, MOST, strict=True)
    return CacheSizes(*(min(max(_reported(n) or common, a), b) for n, common, a, b in sizes))


def beyond(size: int) -> int:
    """Return the last level of cache that is too small for an array of `size` bytes, or 0.

    Too small means for four such arrays: a pass reads or writes up to three, beside others' data.
    """
    _, l2, l3 = cache_sizes()
    return 3 if 4 * size >= l3 else 2 if 4 * size >= l2 else 0
