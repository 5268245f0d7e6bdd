"""A network for small images that learns fast: whitened patches, one short cycle, mirrored tests.

    python examples/fast_small_images.py --data cifar-10-batches-bin
    python examples/fast_small_images.py --data images.npz --epochs 8
    python examples/fast_small_images.py --torch                # on drawn images, beside PyTorch

The recipe is that of Page (2019), "How to train your ResNet 8: bag of tricks", and Jordan (2024),
"94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv:2404.00498:

- the first layer is not learnt: its kernels are the principal directions of the patches of the
  training images, each scaled to variance 1, and their negatives;
- then come three blocks of two convolutions that begin as near to the identity as their shapes let
  them;
- labels are smoothed and logits scaled down, so that the learning rate may be large; it goes up and
  down once, in a few epochs;
- an image that is mirrored in one epoch is not in the next, so that both are seen equally often; it
  also moves by up to two pixels;
- a test image is looked at mirrored and moved as well, and the answers are averaged.

--data is a folder of CIFAR-10's binary version (data_batch_1.bin ... and test_batch.bin), or a .npz
file with x_train, y_train, x_test and y_test, images of 32 x 32 x 3. Without it, the images are
drawn: ten classes, five shapes that are plain or chequered. With --torch, PyTorch trains the same
network from the same weights on the same batches, in turn, epoch by epoch.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import cycnn
from cycnn import init
from cycnn.data import random_shift
from cycnn.schedules import OneCycle

SIZE = 32
PATCH = 2
SMOOTHING = 0.2
MOMENTUM = 0.85
DECAY = 5e-4
SCALE = 9.0  # divides the logits, so that the last layer bears the large steps of the others
KEPT = 0.6  # of BatchNorm's running statistics at each batch: there are few batches
MOVED = functools.partial(random_shift, pixels=2, mode="reflect")

Images = tuple[np.ndarray, np.ndarray]  # (N, 32, 32, 3) and labels (N,)


# Data


def cifar_records(path: Path) -> Images:
    """Read one file of CIFAR-10's binary version.

    A record is a label (one byte), then 32 x 32 bytes of red, of green and of blue, row by row:
    https://www.cs.toronto.edu/~kriz/cifar.html.
    """
    length = 1 + 3 * SIZE * SIZE
    data = np.fromfile(path, np.uint8)
    if not data.size or data.size % length:
        raise ValueError(f"{path} must hold records of {length} bytes, got {data.size} bytes")
    records = data.reshape(-1, length)
    if (highest := records[:, 0].max()) > 9:
        raise ValueError(f"{path} must hold labels of 0 to 9, got {highest}")
    x = records[:, 1:].reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(x), records[:, 0].astype(np.int64)


def load(path: Path) -> tuple[Images, Images]:
    """Return (x, y), (x_test, y_test) of a folder of .bin files, or of a .npz file."""
    if path.is_dir():
        batches = [cifar_records(file) for file in sorted(path.glob("data_batch_*.bin"))]
        if not batches:
            raise ValueError(f"{path} must hold data_batch_1.bin and so on, got none")
        x, y = (np.concatenate(part) for part in zip(*batches, strict=True))
        x_test, y_test = cifar_records(path / "test_batch.bin")
    else:
        with np.load(path) as file:
            x, y, x_test, y_test = (file[n] for n in ("x_train", "y_train", "x_test", "y_test"))
    for images, labels in ((x, y), (x_test, y_test)):
        if images.shape != (labels.size, SIZE, SIZE, 3):
            raise ValueError(
                f"{path}: images must be (N, {SIZE}, {SIZE}, 3), one for each label, got "
                f"{images.shape} and {labels.size} labels"
            )
    return (x, y.reshape(-1).astype(np.int64)), (x_test, y_test.reshape(-1).astype(np.int64))


def drawn(count: int, rng: np.random.Generator) -> Images:
    """Return drawings: disc, ring, square, diamond or cross, plain (0 to 4) or chequered (5 to 9).

    Place, size, colours, light and noise are random.
    """
    y = rng.integers(10, size=count)
    size, u, v, tilt = (
        rng.uniform(low, high, (count, 1, 1))
        for low, high in ((7, 11), (10, 21), (10, 21), (-0.4, 0.4))
    )
    row, column = np.mgrid[:SIZE, :SIZE]
    a, b = (row - u) / size, (column - v) / size
    a, b = abs(a + tilt * b), abs(b - tilt * a)
    radius = np.hypot(a, b)
    shapes = np.stack([
        radius < 0.95, (0.55 < radius) & (radius < 1.1), np.maximum(a, b) < 0.8, a + b < 1.15,
        (np.minimum(a, b) < 0.3) & (np.maximum(a, b) < 1),
    ])  # fmt: skip
    inside = shapes[y % 5, np.arange(count)]
    squares = (row // 2 + column // 2) % 2 == 0
    inside &= squares | (y < 5)[:, None, None]
    ground = rng.uniform(60, 195, (count, 1, 1, 3))
    colour = ground + rng.choice([-1, 1], ground.shape) * rng.uniform(30, 60, ground.shape)
    light = rng.uniform(-1, 1, (count, 1, 1)) * row + rng.uniform(-1, 1, (count, 1, 1)) * column
    x = np.where(inside[..., None], colour, ground) + light[..., None]
    x += rng.normal(0, 20, x.shape)
    return x.clip(0, 255).astype(np.uint8), y


class Alternating:
    """The batches of one epoch after another, every image mirrored in every second epoch.

    Which images begin mirrored is random.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, batch_size: int, seed: int) -> None:
        self.x, self.y, self.batch_size = x, y, batch_size
        self.rng = np.random.default_rng(seed)
        self.mirrored = self.rng.random(len(x)) < 0.5

    def __len__(self) -> int:
        return math.ceil(len(self.x) / self.batch_size)

    def __iter__(self) -> Iterator[Images]:
        order = self.rng.permutation(len(self.x))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            x = self.x[rows]
            mirrored = self.mirrored[rows]
            x[mirrored] = x[mirrored, :, ::-1]
            yield x, self.y[rows]
        self.mirrored = ~self.mirrored


# The network


def whitening(x: np.ndarray) -> np.ndarray:
    """Return kernels (2, 2, 3, 24) that make the patches of images (N, H, W, 3) white.

    With the patches' covariance = V diag(w) V', the outputs V' p / sqrt(w) have the identity for
    theirs; the negatives are there because a ReLU follows.
    """
    patches = sliding_window_view(x, (PATCH, PATCH), axis=(1, 2))  # (N, OH, OW, C, KH, KW)
    flat = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, PATCH * PATCH * x.shape[-1])
    variances, directions = np.linalg.eigh(flat.T @ flat / len(flat))
    kernels = directions / np.sqrt(variances + 1e-3 * variances.mean())
    return np.concatenate([kernels, -kernels], axis=1).reshape(PATCH, PATCH, x.shape[-1], -1)


def network(x: np.ndarray, classes: int, width: int, seed: int) -> cycnn.Sequential:
    """Return the network for images like `x`, whose statistics it takes."""
    rng, channels = np.random.default_rng(seed), 2 * PATCH * PATCH * x.shape[-1]
    layers = [cycnn.Normalize(), cycnn.Conv(channels, PATCH, bias=False), cycnn.ReLU()]
    for filters in (width, 4 * width, 4 * width):
        layers += [
            cycnn.Conv(filters, 3, padding="same", bias=False), cycnn.MaxPool(2),
            cycnn.BatchNorm(KEPT), cycnn.ReLU(),
            cycnn.Conv(filters, 3, padding="same", bias=False),
            cycnn.BatchNorm(KEPT), cycnn.ReLU(),
        ]  # fmt: skip
    layers += [cycnn.GlobalMaxPool(), cycnn.Dense(classes), cycnn.Normalize(std=SCALE)]
    model = cycnn.Sequential(layers, input_shape=x.shape[1:], rng=rng)

    model[0].adapt(x)
    model[1].weight.assign(whitening(model[0](x[:2000])[0]))
    model[1].freeze()
    for layer in model.layers[2:]:
        if isinstance(layer, cycnn.Conv):
            weight = layer.weight.data.copy()
            same = min(weight.shape[2:])  # as many outputs begin as copies of an input
            weight[..., :same] = init.identity((*weight.shape[:3], same), rng)
            layer.weight.assign(weight)
    return model


def averaged(predict: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """Return logits averaged over images as they are (half), moved by a pixel, and all mirrored."""
    border = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    views = ((x, 2), (border[:, :-2, :-2], 1), (border[:, 2:, 2:], 1))
    sums = (n * (predict(v) + predict(v[:, :, ::-1])) for v, n in views)
    return sum(sums) / 8


# Training


class Cycnn:
    """One side of the comparison."""

    def __init__(self, model: cycnn.Sequential, rate: OneCycle, seed: int) -> None:
        self.trainer = cycnn.Trainer(
            model,
            cycnn.CrossEntropy(label_smoothing=SMOOTHING),
            cycnn.SGD(rate, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY),
        )
        self.rng, self.predict = np.random.default_rng(seed), model.predict

    def epoch(self, batches: Alternating) -> None:
        self.trainer.fit(batches, augment=MOVED, rng=self.rng, verbose=0)


class Torch:
    """The same network with the same weights in PyTorch, which holds images channels last too."""

    def __init__(self, model: cycnn.Sequential, rate: OneCycle, seed: int) -> None:
        import torch

        self.torch, self.rate, self.step = torch, rate, 0
        self.rng = np.random.default_rng(seed)
        torch.set_num_threads(cycnn.get_num_threads())
        fixed = model[0].buffers()
        self.mean, self.std = (fixed[name].astype(np.float32) for name in ("mean", "std"))
        layers = [part for layer in model.layers[1:-1] for part in self._twins(layer)]
        self.model = torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.model[0].weight.requires_grad = False
        learnt = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            learnt, lr=1.0, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY
        )
        self.loss = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)

    def _twins(self, layer: cycnn.Layer) -> Iterator[object]:
        torch, nn = self.torch, self.torch.nn
        channels = layer.input_shape[-1]
        match layer:
            case cycnn.Conv():
                kernel, _, _, filters = layer.weight.shape
                twin = nn.Conv2d(channels, filters, kernel, padding=int(kernel == 3), bias=False)
                twin.weight.data = torch.tensor(layer.weight.data.transpose(3, 2, 0, 1))
                yield twin
            case cycnn.BatchNorm():
                yield nn.BatchNorm2d(channels, momentum=1 - KEPT)
            case cycnn.ReLU():
                yield nn.ReLU(inplace=True)
            case cycnn.MaxPool():
                yield nn.MaxPool2d(2)
            case cycnn.GlobalMaxPool():
                yield from (nn.AdaptiveMaxPool2d(1), nn.Flatten())
            case cycnn.Dense():
                twin = nn.Linear(channels, layer.output_shape[0])
                twin.weight.data = torch.tensor(layer.weight.data.T.copy())
                twin.bias.data.zero_()
                yield twin

    def _logits(self, x: np.ndarray) -> object:
        normal = self.torch.from_numpy((x - self.mean) / self.std)
        return self.model(normal.permute(0, 3, 1, 2)) / SCALE

    def epoch(self, batches: Alternating) -> None:
        self.model.train()
        for x, y in batches:
            moved = MOVED(x.astype(np.float32), self.rng)
            self.optimizer.param_groups[0]["lr"] = self.rate(self.step)
            self.optimizer.zero_grad()
            self.loss(self._logits(moved), self.torch.from_numpy(y)).backward()
            self.optimizer.step()
            self.step += 1

    def predict(self, x: np.ndarray) -> np.ndarray:
        self.model.eval()
        with self.torch.no_grad():
            parts = [self._logits(x[i : i + 64]) for i in range(0, len(x), 64)]
        return self.torch.cat(parts).numpy()


def main(arguments: Sequence[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description="Train on small images; print test accuracies.")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10's .bin files, or a .npz file")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1.0, help="the highest learning rate")
    parser.add_argument("--width", type=int, default=64, help="channels of the first block")
    parser.add_argument("--limit", type=int, help="train on so many images only")
    parser.add_argument("--threads", type=int, help="default: all processors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--torch", action="store_true", help="train with PyTorch too, in turn")
    options = parser.parse_args(arguments)

    if options.threads:
        cycnn.set_num_threads(options.threads)
    if options.data:
        (x, y), (x_test, y_test) = load(options.data)
        x, y = x[: options.limit], y[: options.limit]
    else:
        rng = np.random.default_rng(options.seed)
        (x, y), (x_test, y_test) = drawn(options.limit or 5000, rng), drawn(1000, rng)
    model = network(x, int(y.max()) + 1, options.width, options.seed)
    model.summary()
    steps = options.epochs * math.ceil(len(x) / options.batch_size)
    rate = OneCycle(options.rate, steps, rise=0.25, start_divisor=5)
    sides = {"cycnn": Cycnn}
    if options.torch and importlib.util.find_spec("torch"):
        sides["torch"] = Torch
    elif options.torch:
        print("PyTorch is missing, so there is nothing to compare with: pip install torch")
    runs = {name: side(model, rate, options.seed) for name, side in sides.items()}
    data = {name: Alternating(x, y, options.batch_size, options.seed) for name in runs}
    speeds = {name: [] for name in runs}
    for epoch in range(options.epochs):
        for name, run in runs.items():
            began = time.perf_counter()
            run.epoch(data[name])
            speeds[name].append(len(x) / (time.perf_counter() - began))
        told = "  ".join(f"{name} {speed[-1]:,.0f} images/s" for name, speed in speeds.items())
        print(f"epoch {epoch + 1}/{options.epochs}  {told}", flush=True)

    accuracies = {}
    for name, run in runs.items():
        plain = np.mean(run.predict(x_test).argmax(1) == y_test)
        accuracies[name] = np.mean(averaged(run.predict, x_test).argmax(1) == y_test)
        print(f"{name}: test accuracy {plain:.4f}, averaged over views {accuracies[name]:.4f}")
        print(f"{name}: {statistics.median(speeds[name]):,.0f} images/s in training")
    if "torch" in runs:
        ratios = [a / b for a, b in zip(speeds["cycnn"], speeds["torch"], strict=True)]
        print(
            f"cycnn trains {statistics.median(ratios):.2f} times as fast as PyTorch "
            f"(epochs in turn: {min(ratios):.2f} to {max(ratios):.2f}), "
            f"{cycnn.get_num_threads()} threads each"
        )
    return float(accuracies["cycnn"])


if __name__ == "__main__":
    main()
