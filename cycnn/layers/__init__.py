"""Layers: each makes its parameters and is one call of an op, forward and backward side by side."""

from __future__ import annotations

from cycnn.layers.activation import ReLU
from cycnn.layers.base import REGISTRY, Backward, Layer, register
from cycnn.layers.building import Reach, Rng, Shapes, Source, Weight
from cycnn.layers.conv import Conv, DepthwiseConv
from cycnn.layers.dense import Dense
from cycnn.layers.dropout import Dropout
from cycnn.layers.merge import Add, Concat
from cycnn.layers.norm import BatchNorm
from cycnn.layers.parameter import Parameter
from cycnn.layers.pool import AvgPool, GlobalAvgPool, MaxPool
from cycnn.layers.shape import Flatten

__all__ = [
    "REGISTRY", "Add", "AvgPool", "Backward", "BatchNorm", "Concat", "Conv", "Dense",
    "DepthwiseConv", "Dropout", "Flatten", "GlobalAvgPool", "Layer", "MaxPool", "Parameter",
    "Reach", "ReLU", "Rng", "Shapes", "Source", "Weight", "register",
]  # fmt: skip
