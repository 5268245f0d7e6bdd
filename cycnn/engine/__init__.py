"""The engine: it finds the kernels built for this processor and runs plans of them."""

from __future__ import annotations

import importlib
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from cycnn.engine.caches import CacheSizes, beyond, cache_sizes
from cycnn.engine.cpu import instruction_sets
from cycnn.engine.memory import (
    Block,
    before_replay,
    empty,
    memory_info,
    outside_plans,
    zeros,
)
from cycnn.engine.plan import (
    FORK_HANDLER,
    OPENMP_VERSION,
    Bound,
    Kernel,
    Plan,
    openmp_limit,
)
from cycnn.engine.recording import Recording

__all__ = [
    "FORK_HANDLER", "ISA", "OPENMP_VERSION", "Block", "Bound", "CacheSizes", "Kernel", "Plan",
    "Recording", "available_isas", "before_replay", "beyond", "cache_sizes", "empty",
    "kernels", "memory_info", "openmp_limit", "outside_plans", "zeros",
]  # fmt: skip

_MODULES = (
    "limits", "conv", "weight_gradient", "winograd", "winograd_gradient", "depthwise",
    "depthwise_weight", "elementwise", "pool", "norm", "softmax", "optim", "activation", "channels",
    "group_norm", "row_norm", "lrn", "regression_loss", "rearrange", "global_pool", "local",
)  # fmt: skip


def available_isas() -> tuple[str, ...]:
    """Return the instruction sets that this processor and this installation have, fastest first."""
    found = []
    for isa in instruction_sets():
        try:
            importlib.import_module(f"cycnn.kernels.{isa}_f32.limits")
        except ImportError:
            continue
        found.append(isa)
    return tuple(found)


def _choose() -> str:
    runs_here = instruction_sets()
    wanted = os.environ.get("CYCNN_ISA", "").strip()
    if wanted and wanted not in runs_here:
        raise ImportError(f"CYCNN_ISA must be one of {', '.join(runs_here)} here, got {wanted!r}")
    for isa in [wanted] if wanted else runs_here:
        try:
            importlib.import_module(f"cycnn.kernels.{isa}_f32.limits")
        except ModuleNotFoundError:
            continue
        return isa
    raise ImportError(f"this installation has no kernels for {wanted or ', '.join(runs_here)}")


ISA = _choose()
_loaded: dict[Any, SimpleNamespace] = {}


def _load(dtype: np.dtype[Any]) -> SimpleNamespace:
    table: dict[str, Any] = {}
    for name in _MODULES:
        module = importlib.import_module(f"cycnn.kernels.{ISA}_f{8 * dtype.itemsize}.{name}")
        table.update((job, Kernel(job, *entry)) for job, entry in module.JOBS.items())
        if name == "limits":
            table.update(module.CONSTANTS)
    return SimpleNamespace(**table)


def kernels(dtype: DTypeLike) -> SimpleNamespace:
    """Return the kernels (and VL, MR, NR) built for `dtype`, loaded when first asked for."""
    try:
        return _loaded[dtype]
    except KeyError:
        key = np.dtype(dtype)
        if key not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, got {dtype!r}") from None
        table = _loaded[dtype] = _loaded[key] = _loaded.get(key) or _load(key)
        return table
