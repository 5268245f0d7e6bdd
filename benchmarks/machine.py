"""What a figure depends on besides the code: the machine, the environment and its limits."""

from __future__ import annotations

import os
import platform
from pathlib import Path

# What holds oneDNN, ATen and MKL (it runs some 1x1 layers) to an instruction set, by cycnn's names.
PEER_ISA = {
    "avx512": ("AVX512_CORE", "avx512", "AVX512"),
    "avx2": ("AVX2", "avx2", "AVX2"),
    "baseline": ("SSE41", "default", "SSE4_2"),
}
# glibc keeps freed blocks of any size instead of giving them back and faulting them in again.
TUNED_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "536870912",
}
# Inherited variables that may change a figure, by the beginning of their names.
RECORDED = ("OMP_", "GOMP_", "KMP_", "MKL_", "CYCNN_", "ONEDNN_", "DNNL_", "ATEN_")
ALLOCATORS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


def our_environment(isa: str | None) -> dict[str, str]:
    return {"CYCNN_ISA": isa} if isa else {}


def peer_environment(isa: str | None) -> dict[str, str]:
    if isa is None:
        return {}
    onednn, aten, mkl = PEER_ISA[isa]
    return {
        "ONEDNN_MAX_CPU_ISA": onednn,
        "ATEN_CPU_CAPABILITY": aten,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
    }


def processors() -> int:
    """How many this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def describe() -> dict[str, str]:
    cpu = {}
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = (line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        cpu = {key.strip(): value.strip() for key, value in lines}
    flags = [flag for flag in ("fma", "avx2", "avx512f") if flag in cpu.get("flags", "").split()]
    inherited = {k: v for k, v in os.environ.items() if k.startswith(RECORDED + ALLOCATORS)}
    family = f"family {cpu.get('cpu family', '?')}, model {cpu.get('model', '?')}"
    return {
        "cpu": f"{cpu.get('model name', platform.processor() or 'unknown')} ({family})",
        "cpu flags": " ".join(flags),
        "processors": str(processors()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "inherited environment": " ".join(f"{k}={v}" for k, v in inherited.items()) or "none",
        "load average at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }
