"""A 3-D network on generated volumes: which body is hidden in the noise?

    python examples/volumes.py

Each volume of 16 x 16 x 16 voxels holds a ball, a box, a tube or a ring, of any size, place and
direction, in noise. The layers are those of any 2-D network: they take the number of axes from the
input.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np

import cycnn
from cycnn.schedules import Cosine

BATCH_SIZE = 32
BODIES = ("ball", "box", "tube", "ring")
SIZE = 16


def volumes(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return volumes of shape (count, 16, 16, 16, 1) and which of BODIES each holds."""
    grid = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"), axis=-1)
    x = np.empty((count, SIZE, SIZE, SIZE, 1), np.float32)
    y = rng.integers(len(BODIES), size=count)
    for i, body in enumerate(y):
        radius = rng.uniform(3, 5)
        place = grid - rng.uniform(6, SIZE - 7, 3)
        rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        a, b, c = np.moveaxis(place @ rotation, -1, 0)
        around = np.hypot(a, b)  # the distance from the axis of a tube or a ring
        inside = (
            a * a + b * b + c * c < radius**2,
            np.maximum(np.maximum(abs(a), abs(b)), abs(c)) < 0.8 * radius,
            (around < 0.45 * radius) & (abs(c) < 1.6 * radius),
            (around - radius) ** 2 + c * c < (0.4 * radius) ** 2,
        )[body]
        x[i, ..., 0] = inside
    return x + rng.normal(0, 0.4, x.shape).astype(np.float32), y


def turned(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the volumes of a batch in one of the 48 ways in which a cube fits into itself."""
    x = x.transpose(0, *(1 + rng.permutation(3)), 4)
    return np.flip(x, [axis for axis in (1, 2, 3) if rng.integers(2)])


def network(seed: int) -> cycnn.Sequential:
    layers: list[cycnn.Layer] = []
    for filters in (8, 16, 32):
        layers += [cycnn.Conv(filters, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU()]
        layers += [cycnn.MaxPool(2)]
    layers += [cycnn.GlobalMaxPool(), cycnn.Dense(len(BODIES))]
    return cycnn.Sequential(layers, input_shape=(SIZE, SIZE, SIZE, 1), rng=seed)


def main(arguments: Sequence[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description="Train on volumes and print the test accuracy.")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--count", type=int, default=2000, help="volumes to train on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    rng = np.random.default_rng(options.seed)
    x, y = volumes(options.count, rng)
    x_test, y_test = volumes(400, rng)
    model = network(options.seed)
    model.summary()
    updates = options.epochs * math.ceil(len(x) / BATCH_SIZE)
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam(Cosine(4e-3, updates)))
    trainer.fit(
        x, y, epochs=options.epochs, batch_size=BATCH_SIZE, augment=turned, rng=options.seed
    )  # fmt: skip
    accuracy = trainer.evaluate(x_test, y_test)["accuracy"]
    print(f"test accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
