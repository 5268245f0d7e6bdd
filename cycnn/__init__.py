"""cycnn: convolutional networks on CPUs, trained and run by native kernels, with NumPy alone.

    >>> import cycnn
    >>> model = cycnn.Sequential([cycnn.Conv(8, 3), cycnn.ReLU(), cycnn.GlobalAvgPool(),
    ...                           cycnn.Dense(10)], input_shape=(8, 8, 1), rng=0)
    >>> model.output_shape
    (10,)
"""

from __future__ import annotations

import importlib
from typing import Any

from cycnn._check import NotBuiltError
from cycnn.graph import Graph, Model, Parallel, Residual, Sequential
from cycnn.layers import (
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    MaxPool,
    Parameter,
    ReLU,
    Weight,
)
from cycnn.losses import CrossEntropy, Loss
from cycnn.optim import SGD, Adam, Optimizer
from cycnn.schedules import Constant, Schedule
from cycnn.threads import get_num_threads, num_threads, set_num_threads
from cycnn.versions import __version__, show_versions

# Modules that `import cycnn` need not wait for, and the names that live in them.
_LAZY_MODULES = ("datasets", "models", "summary", "data")
_LAZY_NAMES = {
    "History": "trainer",
    "Trainer": "trainer",
    "TrainingError": "trainer",
    "ModelFileError": "serialize",
    "load": "serialize",
}

__all__ = [
    "SGD", "Adam", "Add", "AvgPool", "BatchNorm", "Concat", "Constant", "Conv", "CrossEntropy", "Dense",
    "DepthwiseConv", "Dropout", "Flatten", "GlobalAvgPool", "Graph", "History", "Layer", "Loss", "MaxPool",
    "Model", "ModelFileError", "NotBuiltError", "Optimizer", "Parallel", "Parameter", "ReLU", "Residual",
    "Schedule", "Sequential", "Trainer", "TrainingError", "Weight", "__version__", "get_num_threads",
    "load", "num_threads", "set_num_threads", "show_versions",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY_NAMES:
        value = getattr(importlib.import_module(f"cycnn.{_LAZY_NAMES[name]}"), name)
    elif name in _LAZY_MODULES:
        value = importlib.import_module(f"cycnn.{name}")
    else:
        raise AttributeError(f"module 'cycnn' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY_NAMES, *_LAZY_MODULES})
