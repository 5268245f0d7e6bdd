"""A training with everything random that there is; as a script, it may be killed at any time."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

import cycnn
from cycnn import callbacks, data, schedules

rng = np.random.default_rng(3)
x = rng.standard_normal((203, 6, 6, 2)).astype("float32")
y = (x.mean((1, 2)) > 0).argmax(1) + (x[:, 0, 0, 0] > 0)


def make(path, every=4, extra=()):
    model = cycnn.Sequential(
        [
            cycnn.Conv(6, 3, padding="same"),
            cycnn.BatchNorm(),
            cycnn.ReLU(),
            cycnn.Dropout(0.3),
            cycnn.MaxPool(2),
            cycnn.Flatten(),
            cycnn.Dropout(0.2),
            cycnn.Dense(3),
        ],
        input_shape=(6, 6, 2),
        rng=0,
    )
    rate = schedules.Warmup(schedules.ReduceOnPlateau(0.01, "val_loss", 0.5, patience=1), 10)
    return cycnn.Trainer(
        model,
        cycnn.CrossEntropy(label_smoothing=0.1),
        cycnn.AdamW(rate, clip_norm=1.0),
        callbacks=[
            callbacks.Checkpoint(path, every=every),
            callbacks.WeightAverage(0.9),
            callbacks.EarlyStopping("val_loss", patience=3),
            *extra,
        ],
    )


def fit(trainer, epochs=5, **options):
    return trainer.fit(
        x,
        y,
        **{
            "epochs": epochs,
            "batch_size": 16,
            "accumulate": 2,
            "validation": 0.2,
            "rng": 1,
            "augment": [data.random_flip, data.Mixup(0.2, classes=3)],
            "verbose": 0,
        }
        | options,
    )


def bits(trainer):
    model, (_, average, stopping) = trainer.model, (trainer.callbacks[-1], *trainer.callbacks[:2])
    arrays = {**{k: p.data for k, p in model.parameters().items()}, **model.buffers()}
    arrays |= {f"optimizer {k}": v for k, v in trainer.optimizer.state().items()}
    for callback in (average, stopping):
        arrays |= {f"{type(callback).__name__} {k}": v for k, v in callback.state().items()}
    return {k: np.asarray(v).tobytes().hex() for k, v in arrays.items()}, trainer.history.epochs


def main(path, done):
    """Train, going on from the file at `path` if there is one, and write the bits to `done`."""
    slow = callbacks.Callback()
    slow.on_update_end = lambda trainer: time.sleep(0.005)
    trainer = make(path, 1, [slow])
    if Path(path).exists():
        trainer.resume(path)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    fit(trainer)
    Path(done).write_text(json.dumps(bits(trainer)))


if __name__ == "__main__":
    main(*sys.argv[1:])
