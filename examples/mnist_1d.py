"""A 1-D network on MNIST-1D: digits as short signals, shifted, sheared and noisy.

    pip install "cycnn[examples]"
    python examples/mnist_1d.py

Greydanus and Kobak (2020), "Scaling down deep learning", arXiv:2011.14439. The package mnist1d
makes the 4,000 signals to train on and the 1,000 to test on, of 40 values each, from the seed that
the authors chose, so these are the published data.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence

import numpy as np

import cycnn


def signals() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return (x, y), (x_test, y_test) with x of shape (N, 40, 1)."""
    from mnist1d.data import get_dataset_args, make_dataset

    data = make_dataset(get_dataset_args())
    return tuple(
        (data[f"x{part}"][:, :, None].astype(np.float32), data[f"y{part}"])
        for part in ("", "_test")
    )


def network(seed: int) -> cycnn.Sequential:
    """Return three convolutions that see ever more of the signal, and one that sees it all."""
    layers: list[cycnn.Layer] = []
    for filters in (32, 64, 96):
        layers += [cycnn.Conv(filters, 5, padding="same"), cycnn.BatchNorm(), cycnn.ReLU()]
        layers += [cycnn.Conv(filters, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU()]
        layers += [cycnn.MaxPool(2), cycnn.Dropout(0.2, channelwise=True)]
    layers += [cycnn.Flatten(), cycnn.Dense(10)]
    return cycnn.Sequential(layers, input_shape=(40, 1), rng=seed)


def shifted_and_noisy(x: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Return the signals moved by up to two places and a little more noisy."""
    places = np.arange(x.shape[1]) + rng.integers(-2, 3, (len(x), 1))
    moved = np.take_along_axis(x, np.clip(places, 0, x.shape[1] - 1)[:, :, None], axis=1)
    return moved + noise * rng.standard_normal(x.shape, dtype=np.float32)


def main(arguments: Sequence[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description="Train on MNIST-1D and print the test accuracy.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", type=float, default=0.1)
    options = parser.parse_args(arguments)

    (x, y), (x_test, y_test) = signals()
    model = network(options.seed)
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam(1e-3))
    trainer.fit(
        x, y, epochs=options.epochs, batch_size=64, rng=options.seed,
        augment=functools.partial(shifted_and_noisy, noise=options.noise),
    )  # fmt: skip
    accuracy = trainer.evaluate(x_test, y_test)["accuracy"]
    print(f"test accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
