"""The benchmark networks in PyTorch: the same layers as cycnn.models, in the same order.

Written as torchvision writes them: activations in place, no bias before a BatchNorm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from networks import NETWORKS
from torch import nn

Array = np.ndarray[Any, Any]

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
_MEAN = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d}


class Residual(nn.Module):
    """body(x) + shortcut(x)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x)
        y += self.shortcut(x)
        return y


def _normalised(
    axes: int, C: int, K: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
) -> list[nn.Module]:
    """Convolution, BatchNorm and, unless it is not `active`, ReLU."""
    layers = [
        _CONV[axes](C, K, kernel, stride, kernel // 2, groups=groups, bias=False),
        _NORM[axes](K),
    ]
    return [*layers, nn.ReLU(inplace=True)] if active else layers


def _flat(image: tuple[int, ...], C: int, features: int) -> list[nn.Module]:
    """Flatten and a dense layer, which remembers the image: cycnn orders it channels last."""
    size = C
    for extent in image:
        size *= extent
    dense = nn.Linear(size, features)
    dense.image = image
    return [nn.Flatten(), dense]


def _averaged(axes: int, C: int, classes: int) -> list[nn.Module]:
    return [_MEAN[axes](1), nn.Flatten(), nn.Linear(C, classes)]


def _lenet(classes: int) -> list[nn.Module]:
    return [
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        *_flat((7, 7), 64, 128), nn.ReLU(inplace=True), nn.Linear(128, classes),
    ]  # fmt: skip


def _vgg11(classes: int) -> list[nn.Module]:
    layers, C = [], 3
    for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for K in stage:
            layers += _normalised(2, C, K, 3)
            C = K
        layers.append(nn.MaxPool2d(2))
    return [*layers, *_flat((1, 1), 512, classes)]


def _resnet18(classes: int) -> list[nn.Module]:
    layers, C = _normalised(2, 3, 64, 3), 64
    for K in (64, 128, 256, 512):
        for stride in (1 if K == 64 else 2, 1):
            body = [*_normalised(2, C, K, 3, stride), *_normalised(2, K, K, 3, active=False)]
            project = nn.Sequential(*_normalised(2, C, K, 1, stride, active=False))
            layers += [Residual(nn.Sequential(*body), project if stride > 1 else None)]
            layers += [nn.ReLU(inplace=True)]
            C = K
    return [*layers, *_averaged(2, 512, classes)]


def _mobilenet_v2(classes: int) -> list[nn.Module]:
    """Sandler et al. (2018), table 2: rows of expansion, filters, blocks, stride."""
    layers, C = _normalised(2, 3, 32, 3, 2), 32
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
    table += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expansion, K, blocks, first in table:
        for block in range(blocks):
            wide, stride = expansion * C, 1 if block else first
            body = _normalised(2, C, wide, 1) if expansion > 1 else []
            body += _normalised(2, wide, wide, 3, stride, groups=wide)
            body += _normalised(2, wide, K, 1, active=False)
            layers += [Residual(nn.Sequential(*body))] if stride == 1 and C == K else body
            C = K
    layers += _normalised(2, 320, 1280, 1)
    *mean, dense = _averaged(2, 1280, classes)
    return [*layers, *mean, nn.Dropout(0.2), dense]


def _cnn1d(classes: int) -> list[nn.Module]:
    return [
        *_normalised(1, 1, 64, 9, 4),
        *_normalised(1, 64, 64, 3), nn.MaxPool1d(4),
        *_normalised(1, 64, 128, 3), nn.MaxPool1d(4),
        *_normalised(1, 128, 256, 3), *_averaged(1, 256, classes),
    ]  # fmt: skip


def _cnn3d(classes: int) -> list[nn.Module]:
    return [
        nn.Conv3d(1, 32, 5, 2), nn.LeakyReLU(0.1, inplace=True),
        nn.Conv3d(32, 32, 3), nn.LeakyReLU(0.1, inplace=True), nn.MaxPool3d(2),
        *_flat((6, 6, 6), 32, 128), nn.ReLU(inplace=True), nn.Linear(128, classes),
    ]  # fmt: skip


_MAKERS: dict[str, Callable[[int], list[nn.Module]]] = {
    "lenet": _lenet,
    "vgg11": _vgg11,
    "resnet18": _resnet18,
    "mobilenet_v2": _mobilenet_v2,
    "cnn1d": _cnn1d,
    "cnn3d": _cnn3d,
}


def build(name: str) -> nn.Sequential:
    network = NETWORKS[name]
    return nn.Sequential(*_MAKERS[network.maker](network.classes))


def load(model: nn.Module, weights: Iterable[Array]) -> None:
    """Copy cycnn's parameters, in their order; ValueError where a shape or the number differs.

    A weight (kernel..., C, K) becomes (K, C, kernel...), also where the image was flattened.
    """
    places = [
        (parameter, getattr(module, "image", ()))
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    ]
    with torch.no_grad():
        for (parameter, image), weight in zip(places, weights, strict=True):
            if weight.ndim > 1:
                weight = weight.reshape(*image, -1, weight.shape[-1]) if image else weight
                axes = range(weight.ndim)
                weight = weight.transpose(axes[-1], axes[-2], *axes[:-2])
            values = torch.from_numpy(weight.copy())
            if image and weight.ndim > 1:
                values = values.flatten(1)
            if values.shape != parameter.shape:
                raise ValueError(f"a twin has {(*parameter.shape,)} for {(*values.shape,)}")
            parameter.copy_(values)
