"""What runs here: versions, the processor, the kernels in use, threads."""

from __future__ import annotations

import os
import sys

import numpy as np

from cycnn import engine, threads

__version__ = "0.1.0.dev0"


def versions() -> dict[str, str]:
    """Return what `show_versions` prints, as a dict of strings."""
    import platform  # half a millisecond that `import cycnn` need not take

    environment = {k: v for k, v in os.environ.items() if k.startswith(("CYCNN_", "OMP_"))}
    return {
        "cycnn": __version__,
        "numpy": np.__version__,
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "platform": platform.platform(),
        "instruction set": f"{engine.ISA} (available: {', '.join(engine.available_isas())})",
        "register tile": _tile(),
        "threads": f"{threads.get_num_threads()} (OpenMP allows {engine.openmp_limit()})",
        "OpenMP": str(engine.OPENMP_VERSION) if engine.OPENMP_VERSION else "none, one thread",
        "fork": "safe" if engine.FORK_HANDLER else "left to the OpenMP library",
        "environment": ", ".join(f"{k}={v}" for k, v in sorted(environment.items())) or "default",
    }


def _tile() -> str:
    unit = engine.kernels("float32")
    return f"{unit.MR} x {unit.NR} float32, vectors of {unit.VL}"


def show_versions() -> None:
    """Print the versions, the processor, the kernels in use and the number of threads."""
    for name, value in versions().items():
        print(f"{name:>16}: {value}")
