"""A network that looks at the parts of a face one by one: which feeling does it show?

    python examples/face_parts.py

The faces are drawn by a formula, each with its own proportions, light and noise. Both eyes and the
mouth are cut out by `Slice`; each has a branch of its own, whose first layer is locally connected:
on faces that are aligned, every place has features of its own (Taigman et al. (2014), "DeepFace",
section 3). No single part tells all feelings apart, so the branches are joined before the last
layers (fusion).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

import cycnn

SIZE = 32
# Rows and columns of each part.
PARTS = {"left": ((5, 19), (3, 16)), "right": ((5, 19), (16, 29)), "mouth": ((19, 29), (8, 24))}
# Feeling: slope of the brows towards the nose, their height, opening of the eyes, curve of the
# mouth, opening of the mouth.
FEELINGS = {
    "calm": (0.0, 0.0, 1.0, 0.0, 0.0),
    "glad": (0.0, 0.0, 1.0, 2.0, 0.0),
    "sad": (-1.5, 0.0, 1.0, -2.0, 0.0),
    "angry": (1.5, 0.0, 1.0, -2.0, 0.0),
    "surprised": (0.0, -1.5, 1.6, 0.0, 2.2),
    "asleep": (0.0, 0.0, 0.2, 0.0, 0.0),
}


def face(feeling: str, rng: np.random.Generator) -> np.ndarray:
    """Return one drawing of shape (32, 32)."""
    slope, height, opening, curve, gape = FEELINGS[feeling]
    t = np.linspace(-1, 1, 25)
    angle = np.linspace(0, 2 * np.pi, 40)
    eye, mouth = rng.normal((6.5, 14), 0.4), rng.normal((0, 24), 0.4)
    slope, curve = rng.normal((slope, curve), 0.4)
    width = rng.normal(4, 0.4)
    strokes = [(14 * np.cos(angle), 16 + 15 * np.sin(angle))]
    for side in (-1, 1):
        x = side * eye[0]
        strokes.append((x + 2.2 * np.cos(angle), eye[1] + 1.8 * opening * np.sin(angle)))
        strokes.append((x + 3 * t, eye[1] - 4.5 + height - side * slope * t))
    for lip in (-1, 1):
        strokes.append((mouth[0] + width * t, mouth[1] + (curve + lip * gape) * (1 - t * t)))
    across, down = np.concatenate(strokes, axis=1) + rng.normal(0, 0.4, (2, 1))
    row, column = np.mgrid[:SIZE, :SIZE]
    distance = (column[..., None] - 15.5 - across) ** 2 + (row[..., None] + 0.5 - down) ** 2
    ink = np.exp(-distance.min(-1) / rng.uniform(0.5, 1.2))
    light = rng.uniform(-0.3, 0.3) * (column - 15.5) / 16 + rng.uniform(-0.2, 0.2)
    return light - rng.uniform(0.6, 1) * ink + rng.normal(0, 0.15, ink.shape)


def faces(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return drawings of shape (count, 32, 32, 1) and the number of each one's feeling."""
    y = rng.integers(len(FEELINGS), size=count)
    names = list(FEELINGS)
    return np.stack([face(names[i], rng) for i in y])[..., None].astype(np.float32), y


def part(name: str) -> list[cycnn.Layer]:
    """Return the branch that looks at one part."""
    rows, columns = PARTS[name]
    return [
        cycnn.Slice(*rows, axis=1), cycnn.Slice(*columns, axis=2),
        cycnn.LocallyConnected(8, 3), cycnn.ReLU(), cycnn.MaxPool(2),
        cycnn.Conv(16, 3), cycnn.ReLU(), cycnn.Flatten(),
    ]  # fmt: skip


def network(seed: int) -> cycnn.Sequential:
    return cycnn.Sequential(
        [
            cycnn.Parallel([part(name) for name in PARTS], merge=cycnn.Concat(), name="parts"),
            cycnn.Dropout(0.3), cycnn.Dense(32), cycnn.ReLU(), cycnn.Dense(len(FEELINGS)),
        ],
        input_shape=(SIZE, SIZE, 1),
        rng=seed,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description="Train on drawn faces; print the test accuracy.")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--count", type=int, default=3000, help="faces to train on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    rng = np.random.default_rng(options.seed)
    x, y = faces(options.count, rng)
    x_test, y_test = faces(600, rng)
    model = network(options.seed)
    model.summary()
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam(1e-3))
    trainer.fit(x, y, epochs=options.epochs, batch_size=32, rng=options.seed)
    accuracy = trainer.evaluate(x_test, y_test)["accuracy"]
    print(f"test accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
