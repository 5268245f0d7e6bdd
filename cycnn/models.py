"""Well-known networks, as the benchmarks use them: functions of (classes, input_shape).

`cnn1d` is for signals, `cnn3d` for volumes, the others are for images. Each returns a built model
whose outputs are logits. A convolution before a BatchNorm has no bias.
"""

from __future__ import annotations

from numpy.typing import DTypeLike

from cycnn.graph import Residual, Sequential
from cycnn.layers import (
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    LeakyReLU,
    MaxPool,
    ReLU,
    Rng,
)

__all__ = ["cnn1d", "cnn3d", "lenet", "mobilenet_v2", "resnet18", "resnet50", "vgg11"]

Shape1D = tuple[int, int]
Shape2D = tuple[int, int, int]
Shape3D = tuple[int, int, int, int]

_SMALL = 64  # below this many pixels a network keeps its first resolutions


def lenet(
    classes: int, input_shape: Shape2D, *, rng: Rng = None, dtype: DTypeLike = "float32"
) -> Sequential:
    """Two convolutions and two dense layers, in the spirit of LeCun et al. (1998).

    Parameters
    ----------
    classes : int
    input_shape : (H, W, C)
    rng : int or numpy.random.Generator, optional
    dtype : {"float32", "float64"}

    Returns
    -------
    Sequential

    Examples
    --------
    >>> lenet(10, (28, 28, 1), rng=0).output_shape
    (10,)
    """
    layers = [
        Conv(32, 3, padding="same"), ReLU(), MaxPool(2),
        Conv(64, 3, padding="same"), ReLU(), MaxPool(2),
        Flatten(), Dense(128), ReLU(), Dense(classes),
    ]  # fmt: skip
    return Sequential(layers, input_shape=input_shape, rng=rng, dtype=dtype)


def vgg11(
    classes: int, input_shape: Shape2D, *, rng: Rng = None, dtype: DTypeLike = "float32"
) -> Sequential:
    """VGG-11 with BatchNorm and one dense layer: Simonyan and Zisserman (2015), table 1, column A.

    Parameters
    ----------
    classes : int
    input_shape : (H, W, C)
        At least 32 x 32.
    rng : int or numpy.random.Generator, optional
    dtype : {"float32", "float64"}

    Returns
    -------
    Sequential
    """
    layers: list[Layer] = []
    for filters in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for count in filters:
            layers += [Conv(count, 3, padding="same", bias=False), BatchNorm(), ReLU()]
        layers.append(MaxPool(2))
    layers += [Flatten(), Dense(classes)]
    return Sequential(layers, input_shape=input_shape, rng=rng, dtype=dtype)


def resnet18(
    classes: int, input_shape: Shape2D, *, rng: Rng = None, dtype: DTypeLike = "float32"
) -> Sequential:
    """ResNet-18: He, Zhang, Ren and Sun (2016), table 1.

    Inputs of less than 64 pixels keep their resolution in a 3 x 3 stem; larger ones meet the
    7 x 7 stem of stride 2 and a pool.

    Parameters
    ----------
    classes : int
    input_shape : (H, W, C)
    rng : int or numpy.random.Generator, optional
    dtype : {"float32", "float64"}

    Returns
    -------
    Sequential
    """
    layers = _stem(input_shape)
    for filters in (64, 128, 256, 512):
        stride = 1 if filters == 64 else 2
        layers += [_basic_block(filters, stride), ReLU(), _basic_block(filters, 1), ReLU()]
    layers += [GlobalAvgPool(), Dense(classes)]
    return Sequential(layers, input_shape=input_shape, rng=rng, dtype=dtype)


def resnet50(
    classes: int, input_shape: Shape2D, *, rng: Rng = None, dtype: DTypeLike = "float32"
) -> Sequential:
    """ResNet-50: He, Zhang, Ren and Sun (2016), table 1, in the form called v1.5.

    A block that halves the resolution does so in its 3 x 3 convolution, as torchvision has it; the
    paper does so in the 1 x 1 before it, which then drops three of four pixels unseen. The
    parameters are the same. Small inputs meet the stem that `resnet18` has for them.

    Parameters
    ----------
    classes : int
    input_shape : (H, W, C)
    rng : int or numpy.random.Generator, optional
    dtype : {"float32", "float64"}

    Returns
    -------
    Sequential
    """
    layers = _stem(input_shape)
    for filters, repeats in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for repeat in range(repeats):
            stride = 2 if filters > 64 and repeat == 0 else 1
            layers += [_bottleneck_block(filters, stride, project=repeat == 0), ReLU()]
    layers += [GlobalAvgPool(), Dense(classes)]
    return Sequential(layers, input_shape=input_shape, rng=rng, dtype=dtype)


def _stem(input_shape: Shape2D) -> list[Layer]:
    """Return the first layers of a ResNet: 64 channels, a quarter of a large resolution."""
    if min(input_shape[:2]) < _SMALL:
        return [Conv(64, 3, padding=1, bias=False), BatchNorm(), ReLU()]
    return [
        Conv(64, 7, stride=2, padding=3, bias=False), BatchNorm(), ReLU(),
        MaxPool(3, stride=2, padding=1),
    ]  # fmt: skip


def _basic_block(filters: int, stride: int) -> Residual:
    """Return two 3 x 3 convolutions beside a shortcut, which a stride makes a 1 x 1 projection."""
    body = [
        Conv(filters, 3, stride=stride, padding=1, bias=False), BatchNorm(), ReLU(),
        Conv(filters, 3, padding=1, bias=False), BatchNorm(),
    ]  # fmt: skip
    projection = [Conv(filters, 1, stride=stride, bias=False), BatchNorm()]
    return Residual(body, shortcut=projection if stride > 1 else None)


def _bottleneck_block(filters: int, stride: int, *, project: bool) -> Residual:
    """Return a 3 x 3 convolution between two of 1 x 1, the last of 4 x filters, and a shortcut."""
    body = [
        Conv(filters, 1, bias=False), BatchNorm(), ReLU(),
        Conv(filters, 3, stride=stride, padding=1, bias=False), BatchNorm(), ReLU(),
        Conv(4 * filters, 1, bias=False), BatchNorm(),
    ]  # fmt: skip
    projection = [Conv(4 * filters, 1, stride=stride, bias=False), BatchNorm()]
    return Residual(body, shortcut=projection if project else None)


# Expansion, channels, repeats, stride of the first: Sandler et al. (2018), table 2.
_BOTTLENECKS = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip


def mobilenet_v2(
    classes: int, input_shape: Shape2D, *, rng: Rng = None, dtype: DTypeLike = "float32"
) -> Sequential:
    """MobileNetV2: Sandler et al. (2018), table 2, with ReLU in the place of ReLU6.

    Inputs of less than 64 pixels skip the first two halvings of the resolution.

    Parameters
    ----------
    classes : int
    input_shape : (H, W, C)
    rng : int or numpy.random.Generator, optional
    dtype : {"float32", "float64"}

    Returns
    -------
    Sequential
    """
    small = min(input_shape[:2]) < _SMALL
    stem = Conv(32, 3, stride=1 if small else 2, padding=1, bias=False)
    layers: list[Layer] = [stem, BatchNorm(), ReLU()]
    channels = 32
    for expansion, filters, repeats, first in _BOTTLENECKS:
        for repeat in range(repeats):
            stride = 1 if repeat or (small and filters == 24) else first
            layers += _inverted_bottleneck(channels, expansion, filters, stride)
            channels = filters
    layers += [Conv(1280, 1, bias=False), BatchNorm(), ReLU()]
    layers += [GlobalAvgPool(), Dropout(0.2), Dense(classes)]
    return Sequential(layers, input_shape=input_shape, rng=rng, dtype=dtype)


def _inverted_bottleneck(channels: int, expansion: int, filters: int, stride: int) -> list[Layer]:
    """Return expansion, depthwise convolution and linear projection, with a shortcut if it fits."""
    layers: list[Layer] = []
    if expansion > 1:
        layers += [Conv(channels * expansion, 1, bias=False), BatchNorm(), ReLU()]
    layers += [DepthwiseConv(3, stride=stride, padding=1, bias=False), BatchNorm(), ReLU()]
    layers += [Conv(filters, 1, bias=False), BatchNorm()]
    return [Residual(layers)] if stride == 1 and channels == filters else layers


def cnn1d(
    classes: int, input_shape: Shape1D, *, rng: Rng = None, dtype: DTypeLike = "float32"
) -> Sequential:
    """Four convolutions on a signal, such as half a second of sound: (8000, 1).

    A first kernel of 9 samples and stride 4, then three of 3, with a pool of 4 after the second
    and the third; every convolution keeps the length but for its stride.

    Parameters
    ----------
    classes : int
    input_shape : (L, C)
        L at least 61.
    rng : int or numpy.random.Generator, optional
    dtype : {"float32", "float64"}

    Returns
    -------
    Sequential

    Examples
    --------
    >>> cnn1d(35, (8000, 1), rng=0).output_shape
    (35,)
    """
    layers = [
        Conv(64, 9, stride=4, padding=4, bias=False), BatchNorm(), ReLU(),
        Conv(64, 3, padding=1, bias=False), BatchNorm(), ReLU(), MaxPool(4),
        Conv(128, 3, padding=1, bias=False), BatchNorm(), ReLU(), MaxPool(4),
        Conv(256, 3, padding=1, bias=False), BatchNorm(), ReLU(),
        GlobalAvgPool(), Dense(classes),
    ]  # fmt: skip
    return Sequential(layers, input_shape=input_shape, rng=rng, dtype=dtype)


def cnn3d(
    classes: int, input_shape: Shape3D, *, rng: Rng = None, dtype: DTypeLike = "float32"
) -> Sequential:
    """VoxNet, without its dropout: Maturana and Scherer (2015), for volumes of (32, 32, 32, 1).

    Two convolutions, a pool and two dense layers; no borders are added.

    Parameters
    ----------
    classes : int
    input_shape : (D, H, W, C)
        Each axis at least 11.
    rng : int or numpy.random.Generator, optional
    dtype : {"float32", "float64"}

    Returns
    -------
    Sequential

    Examples
    --------
    >>> cnn3d(40, (32, 32, 32, 1), rng=0).output_shape
    (40,)
    """
    layers = [
        Conv(32, 5, stride=2), LeakyReLU(0.1),
        Conv(32, 3), LeakyReLU(0.1), MaxPool(2),
        Flatten(), Dense(128), ReLU(), Dense(classes),
    ]  # fmt: skip
    return Sequential(layers, input_shape=input_shape, rng=rng, dtype=dtype)
