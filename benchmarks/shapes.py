"""Every convolution of the benchmark networks, as shapes.

All these networks pad by ``kernel // 2`` on each side, so a layer is given by few numbers. Letters
as everywhere in cycnn: N, H, W, C are the input, K the filters, OH, OW the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

DIRECTIONS = ("forward", "input", "weight")


@dataclass(frozen=True, order=True)
class ConvShape:
    """One two-dimensional convolution: (N, H, W, C) to (N, OH, OW, K) by a square kernel."""

    N: int
    H: int
    W: int
    C: int
    K: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def OH(self) -> int:
        return -(-self.H // self.stride)

    @property
    def OW(self) -> int:
        return -(-self.W // self.stride)

    @property
    def depthwise(self) -> bool:
        return self.groups == self.C > 1

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        return (self.N, self.H, self.W, self.C)

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return (self.kernel, self.kernel, self.C // self.groups, self.K)

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        return (self.N, self.OH, self.OW, self.K)

    @property
    def operations(self) -> int:
        """Multiplications and additions of one direction; taps on the zero border are counted."""
        return 2 * self.N * self.OH * self.OW * self.K * self.kernel**2 * (self.C // self.groups)

    @property
    def intensity(self) -> float:
        """Operations per byte when x, weight and y each move once, in float32."""
        x = self.N * self.H * self.W * self.C
        weight = self.kernel**2 * (self.C // self.groups) * self.K
        y = self.N * self.OH * self.OW * self.K
        return self.operations / (4 * (x + weight + y))

    def terms(self, direction: str) -> int:
        """Number of products in the longest sum of one output element."""
        if direction == "forward":
            return self.kernel**2 * self.C // self.groups
        if direction == "input":
            return self.kernel**2 * self.K // self.groups
        return self.N * self.OH * self.OW

    def __str__(self) -> str:
        kind = "dw" if self.depthwise else ""
        stride = f"/{self.stride}" if self.stride > 1 else ""
        return (
            f"{self.N}x{self.H}x{self.W}x{self.C} "
            f"{kind}{self.kernel}x{self.kernel}{stride} {self.K}"
        )


class _Walk:
    """Follows an image of side H with C channels through a network and notes each convolution."""

    def __init__(self, N: int, H: int, C: int) -> None:
        self.N, self.H, self.C = N, H, C
        self.shapes: list[ConvShape] = []

    def conv(self, K: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        self.shapes.append(ConvShape(self.N, self.H, self.H, self.C, K, kernel, stride, groups))
        self.H, self.C = self.shapes[-1].OH, K

    def shortcut(self, K: int, stride: int) -> None:
        """The 1x1 convolution beside a residual block's body: the walk stays where it is."""
        self.shapes.append(ConvShape(self.N, self.H, self.H, self.C, K, 1, stride))

    def pool(self) -> None:
        self.H = -(-self.H // 2)


def _lenet_28(N: int) -> list[ConvShape]:
    walk = _Walk(N, 28, 1)
    walk.conv(32)
    walk.pool()
    walk.conv(64)
    return walk.shapes


def _vgg11_32(N: int) -> list[ConvShape]:
    walk = _Walk(N, 32, 3)
    for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for K in stage:
            walk.conv(K)
        walk.pool()
    return walk.shapes


def _resnet18_stages(walk: _Walk) -> list[ConvShape]:
    for K, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for block_stride in (stride, 1):
            if block_stride > 1:
                walk.shortcut(K, block_stride)
            walk.conv(K, stride=block_stride)
            walk.conv(K)
    return walk.shapes


def _resnet18_32(N: int) -> list[ConvShape]:
    walk = _Walk(N, 32, 3)
    walk.conv(64)
    return _resnet18_stages(walk)


def _resnet18_224(N: int) -> list[ConvShape]:
    walk = _Walk(N, 224, 3)
    walk.conv(64, kernel=7, stride=2)
    walk.pool()
    return _resnet18_stages(walk)


def _resnet50_224(N: int) -> list[ConvShape]:
    walk = _Walk(N, 224, 3)
    walk.conv(64, kernel=7, stride=2)
    walk.pool()
    for K, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            block_stride = stride if block == 0 else 1
            if block == 0:
                walk.shortcut(4 * K, block_stride)
            walk.conv(K, kernel=1)
            walk.conv(K, stride=block_stride)
            walk.conv(4 * K, kernel=1)
    return walk.shapes


def _mobilenet_v2_224(N: int) -> list[ConvShape]:
    """Sandler et al. (2018), table 2: rows of expansion, filters, blocks, stride."""
    walk = _Walk(N, 224, 3)
    walk.conv(32, stride=2)
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
    table += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expansion, K, blocks, stride in table:
        for block in range(blocks):
            wide = expansion * walk.C
            if expansion > 1:
                walk.conv(wide, kernel=1)
            walk.conv(wide, stride=stride if block == 0 else 1, groups=wide)
            walk.conv(K, kernel=1)
    walk.conv(1280, kernel=1)
    return walk.shapes


@dataclass(frozen=True)
class Network:
    """A network's convolutions for any batch, and the batch sizes it is measured with."""

    convolutions: Callable[[int], list[ConvShape]]
    train: int
    predict: int
    one: int = 1


NETWORKS = {
    "LeNet-28": Network(_lenet_28, train=128, predict=64),
    "VGG-11-32": Network(_vgg11_32, train=64, predict=64),
    "ResNet-18-32": Network(_resnet18_32, train=32, predict=64),
    "ResNet-18-224": Network(_resnet18_224, train=8, predict=8),
    "ResNet-50-224": Network(_resnet50_224, train=8, predict=8),
    "MobileNetV2-224": Network(_mobilenet_v2_224, train=4, predict=8),
}
BATCHES = ("train", "predict", "one")


def layer_shapes(networks: Iterable[str], batch: str) -> dict[ConvShape, tuple[str, ...]]:
    """Each distinct convolution of the named networks, and those of the networks that have it."""
    found: dict[ConvShape, tuple[str, ...]] = {}
    for name in networks:
        network = NETWORKS[name]
        for shape in dict.fromkeys(network.convolutions(getattr(network, batch))):
            found[shape] = (*found.get(shape, ()), name)
    return found
