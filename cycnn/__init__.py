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
    CELU,
    ELU,
    GELU,
    SELU,
    AdaptiveAvgPool,
    AdaptiveMaxPool,
    Add,
    Average,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Conv,
    ConvTranspose,
    Crop,
    Dense,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalMaxPool,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    InstanceNorm,
    Lambda,
    Layer,
    LayerNorm,
    LeakyReLU,
    LocallyConnected,
    LocalResponseNorm,
    LogSoftmax,
    LpPool,
    Maximum,
    MaxPool,
    MaxUnpool,
    Mish,
    Multiply,
    Normalize,
    Pad,
    Parameter,
    Permute,
    PReLU,
    ReLU,
    ReLU6,
    Reshape,
    RMSNorm,
    Sigmoid,
    SiLU,
    Slice,
    Softmax,
    Softplus,
    Softsign,
    Split,
    Tanh,
    Upsample,
    Weight,
)
from cycnn.threads import get_num_threads, num_threads, set_num_threads
from cycnn.versions import __version__, show_versions

# Modules that `import cycnn` need not wait for, and the names that live in them.
_LAZY_MODULES = (
    "autodiff", "datasets", "models", "summary", "data", "callbacks", "losses", "metrics", "optim",
    "schedules",
)  # fmt: skip
_LAZY_NAMES = {
    "History": "history",
    "Trainer": "trainer",
    "TrainingError": "guard",
    "ModelFileError": "serialize",
    "load": "serialize",
    "check": "selfcheck",
    "profile": "profiler",
    "BinaryCrossEntropy": "losses",
    "BinaryHinge": "losses",
    "CrossEntropy": "losses",
    "Hinge": "losses",
    "Huber": "losses",
    "Loss": "losses",
    "MeanAbsoluteError": "losses",
    "MeanSquaredError": "losses",
    "SGD": "optim",
    "Adagrad": "optim",
    "Adam": "optim",
    "AdamW": "optim",
    "Lion": "optim",
    "Optimizer": "optim",
    "RMSprop": "optim",
    "Constant": "schedules",
    "Schedule": "schedules",
}

__all__ = [
    "CELU", "ELU", "GELU", "SELU", "SGD", "Adagrad", "Adam", "AdamW", "AdaptiveAvgPool",
    "AdaptiveMaxPool", "Add", "Average", "AvgPool", "BatchNorm", "BinaryCrossEntropy",
    "BinaryHinge", "Clip", "Concat", "Constant", "Conv", "ConvTranspose", "Crop", "CrossEntropy",
    "Dense", "DepthwiseConv", "Dropout", "Flatten", "GlobalAvgPool", "GlobalMaxPool", "Graph",
    "GroupNorm", "HardSigmoid", "HardSwish", "Hinge", "History", "Huber", "InstanceNorm", "Lambda",
    "Layer", "LayerNorm", "LeakyReLU", "Lion", "LocalResponseNorm", "LocallyConnected",
    "LogSoftmax", "Loss", "LpPool", "MaxPool", "MaxUnpool", "Maximum", "MeanAbsoluteError",
    "MeanSquaredError", "Mish", "Model", "ModelFileError", "Multiply", "Normalize",
    "NotBuiltError", "Optimizer", "PReLU", "Pad", "Parallel", "Parameter", "Permute", "RMSNorm",
    "RMSprop", "ReLU", "ReLU6", "Reshape", "Residual", "Schedule", "Sequential", "SiLU", "Sigmoid",
    "Slice", "Softmax", "Softplus", "Softsign", "Split", "Tanh", "Trainer", "TrainingError",
    "Upsample", "Weight", "__version__", "check", "get_num_threads", "load", "num_threads",
    "profile", "set_num_threads", "show_versions",
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
