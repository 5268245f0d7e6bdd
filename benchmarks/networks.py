"""The networks whose training and prediction are measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cycnn import Sequential

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Network:
    """A function of cycnn.models, its arguments, and the batch that one training step takes."""

    maker: str
    input_shape: tuple[int, ...]  # channels last
    classes: int
    batch: int

    @property
    def axes(self) -> int:
        """How many spatial axes it has."""
        return len(self.input_shape) - 1


NETWORKS = {
    "LeNet-28": Network("lenet", (28, 28, 1), 10, batch=128),
    "VGG-11-32": Network("vgg11", (32, 32, 3), 10, batch=64),
    "ResNet-18-32": Network("resnet18", (32, 32, 3), 10, batch=32),
    "MobileNetV2-224": Network("mobilenet_v2", (224, 224, 3), 1000, batch=4),
    "Audio-1D": Network("cnn1d", (8000, 1), 35, batch=32),
    "VoxNet-3D": Network("cnn3d", (32, 32, 32, 1), 40, batch=16),
}
# Operations of a step per multiply-add of the forward pass: the gradients by the input and by the
# weights take as many again, each (the first layer's input gradient, which nobody needs, included).
STEPS = {"train": 6, "predict": 2}


def build(name: str) -> Sequential:
    """The network as cycnn's users build it; the same weights in every process."""
    import cycnn

    network = NETWORKS[name]
    maker = getattr(cycnn.models, network.maker)
    model: Sequential = maker(network.classes, network.input_shape, rng=0)
    return model


def data(name: str, batch: int) -> tuple[Array, Array]:
    """One batch of unit variance and its labels: the same numbers in every process."""
    network, rng = NETWORKS[name], np.random.default_rng(0)
    x = rng.standard_normal((batch, *network.input_shape), dtype=np.float32)
    return x, rng.integers(0, network.classes, batch)


def terms(weights: list[Array]) -> int:
    """Products that are summed on the way to one output: the longest sum of each layer."""
    return sum(math.prod(weight.shape[:-1]) for weight in weights if weight.ndim > 1)
