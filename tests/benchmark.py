"""The modules of benchmarks/, a folder of scripts that is no package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def benchmark(name):
    """Import benchmarks/NAME.py as the scripts beside it do; skip the tests where it is not."""
    if not (FOLDER / f"{name}.py").exists():
        pytest.skip("a wheel carries no benchmarks", allow_module_level=True)
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(name)
