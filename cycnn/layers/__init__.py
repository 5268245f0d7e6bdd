"""Layers: each makes its parameters and is one call of an op, forward and backward side by side."""

from __future__ import annotations

from cycnn.layers.activation import Clip, HardSigmoid, HardSwish, LeakyReLU, PReLU, ReLU, ReLU6
from cycnn.layers.adaptive_pool import AdaptiveAvgPool, AdaptiveMaxPool
from cycnn.layers.base import REGISTRY, Backward, Layer, register
from cycnn.layers.building import Reach, Rng, Shapes, Source, Weight
from cycnn.layers.conv import Conv, DepthwiseConv
from cycnn.layers.conv_transpose import ConvTranspose
from cycnn.layers.dense import Dense
from cycnn.layers.dropout import Dropout
from cycnn.layers.global_pool import GlobalAvgPool, GlobalMaxPool
from cycnn.layers.group_norm import GroupNorm, InstanceNorm
from cycnn.layers.lambda_ import Lambda
from cycnn.layers.layer_norm import LayerNorm, RMSNorm
from cycnn.layers.locally_connected import LocallyConnected
from cycnn.layers.lrn import LocalResponseNorm
from cycnn.layers.merge import Add, Average, Concat, Maximum, Multiply
from cycnn.layers.norm import BatchNorm
from cycnn.layers.normalize import Normalize
from cycnn.layers.parameter import Parameter
from cycnn.layers.pool import AvgPool, LpPool, MaxPool
from cycnn.layers.region import Crop, Pad, Slice, Split
from cycnn.layers.shape import Flatten, Permute, Reshape
from cycnn.layers.smooth import (
    CELU,
    ELU,
    GELU,
    SELU,
    Mish,
    Sigmoid,
    SiLU,
    Softplus,
    Softsign,
    Tanh,
)  # fmt: skip
from cycnn.layers.softmax import LogSoftmax, Softmax
from cycnn.layers.unpool import MaxUnpool
from cycnn.layers.upsample import Upsample

__all__ = [
    "AdaptiveAvgPool", "AdaptiveMaxPool", "Add", "Average", "AvgPool", "Backward", "BatchNorm",
    "CELU", "Clip", "Concat", "Conv", "ConvTranspose", "Crop", "Dense", "DepthwiseConv",
    "Dropout", "ELU", "Flatten", "GELU", "GlobalAvgPool", "GlobalMaxPool", "GroupNorm",
    "HardSigmoid", "HardSwish", "InstanceNorm", "Lambda", "Layer", "LayerNorm", "LeakyReLU",
    "LocallyConnected", "LocalResponseNorm", "LogSoftmax", "LpPool", "Maximum", "MaxPool",
    "MaxUnpool", "Mish", "Multiply", "Normalize", "Pad", "Parameter", "Permute", "PReLU", "Reach",
    "register", "REGISTRY", "ReLU", "ReLU6", "Reshape", "RMSNorm", "Rng", "SELU", "Shapes",
    "Sigmoid", "SiLU", "Slice", "Softmax", "Softplus", "Softsign", "Source", "Split", "Tanh",
    "Upsample", "Weight",
]  # fmt: skip
