"""The command `cycnn`: a demonstration, and what is installed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

import cycnn

# What `cycnn check` builds the models for that do not take images.
_INPUTS = {"cnn1d": (800, 1), "cnn3d": (20, 20, 20, 1)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="cycnn", description="Convolutional networks on CPUs.")
    parser.add_argument("--version", action="version", version=f"cycnn {cycnn.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("show-versions", help="print versions, processor and threads")
    demo = commands.add_parser("demo", help="train on real handwritten digits, save, load, predict")
    demo.add_argument("--epochs", type=_whole(1), default=15, help="default: %(default)s")
    demo.add_argument("--seed", type=_whole(0), default=0, help="default: %(default)s")
    demo.add_argument(
        "--output", type=Path, default=Path("digits.cycnn"), help="default: %(default)s"
    )
    check = commands.add_parser("check", help="check every layer of a model on this machine")
    check.add_argument(
        "model", nargs="*",
        help=f"files that cycnn saved, or {', '.join(cycnn.models.__all__)}; default: all of these",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.command == "check":
        return run_check(options.model, check.error)
    if options.command == "demo":
        if not options.output.parent.is_dir():
            demo.error(f"argument --output: there is no folder {options.output.parent}")
        run_demo(options.epochs, options.seed, options.output)
    else:
        cycnn.show_versions()
    return 0


def run_demo(epochs: int, seed: int, output: Path) -> float:
    """Train a small network on the digits, save it, load it, and return its test accuracy."""
    (x, y), (x_test, y_test) = cycnn.datasets.digits()
    print(
        f"{len(x)} images of {x.shape[1]} x {x.shape[2]} pixels to train on, {len(x_test)} to test"
    )
    model = cycnn.Sequential(
        [
            cycnn.Conv(32, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU(),
            cycnn.Conv(64, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU(),
            cycnn.MaxPool(2),
            cycnn.Conv(64, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU(),
            cycnn.GlobalAvgPool(),
            cycnn.Dense(10),
        ],
        input_shape=x.shape[1:],
        rng=seed,
    )  # fmt: skip
    model.summary()
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam(3e-3))
    trainer.fit(x, y, epochs=epochs, batch_size=64, validation=(x_test, y_test), rng=seed)

    model.save(output)
    loaded = cycnn.load(output)
    predicted = loaded.predict(x_test)
    if not np.array_equal(predicted, model.predict(x_test)):
        raise RuntimeError(f"the model loaded from {output} predicts otherwise than the one saved")
    size = output.stat().st_size / 1024
    print(f"saved to {output} ({size:.0f} KiB); loaded again, it predicts the same")
    print("first ten predicted:", *predicted[:10].argmax(axis=1), " true:", *y_test[:10])
    accuracy = float(np.mean(predicted.argmax(axis=1) == y_test))
    print(f"test accuracy {accuracy:.3f}")
    return accuracy


def run_check(models: Sequence[str], refuse: Callable[[str], NoReturn]) -> int:
    """Check the layers of files or named models; return 0 if all are right, else 1."""
    wrong = 0
    for name in models or cycnn.models.__all__:
        if name in cycnn.models.__all__:
            model = getattr(cycnn.models, name)(10, _INPUTS.get(name, (32, 32, 3)), rng=0)
        else:
            try:
                model = cycnn.load(name)
            except (OSError, cycnn.ModelFileError) as error:
                refuse(f"{name} is neither a model file nor one of the models: {error}")
        report = cycnn.check(model)
        print(f"{name}\n\n{report}\n")
        wrong += not report.ok
    return int(wrong > 0)


def _whole(minimum: int) -> Callable[[str], int]:
    """Return a reader of whole numbers of at least `minimum`."""

    def integer(text: str) -> int:
        number = int(text)
        if number < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, got {number}")
        return number

    return integer
