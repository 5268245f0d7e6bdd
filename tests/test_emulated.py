"""Older processors, emulated by qemu-user: the right kernels are picked, and they train."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cycnn

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="these processors are x86-64"),
]

TRAIN = """if True:
    import numpy as np
    import cycnn
    from cycnn import engine

    print(engine.ISA)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 8, 8, 1)).astype("float32")
    target = (x.mean(axis=(1, 2, 3)) > 0).astype("int64")
    model = cycnn.Sequential([
        cycnn.Conv(5, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.MaxPool(2),
        cycnn.DepthwiseConv(3), cycnn.Flatten(), cycnn.Dense(2),
    ], input_shape=(8, 8, 1), rng=0)
    trainer = cycnn.Trainer(model, loss=cycnn.CrossEntropy(), optimizer=cycnn.Adam(1e-2))
    losses = [trainer.step(x, target) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0], losses
"""


def emulate(processor, code, **environment):
    """Run Python code on an emulated processor."""
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.fail("qemu-x86_64 is not installed (Debian: qemu-user)")
    # numpy's OpenBLAS takes an emulated processor for a Haswell, whatever it is.
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Nehalem", **environment}
    command = [qemu, "-cpu", processor, sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=environment,
        cwd=Path(cycnn.__file__).parents[1],
    )  # fmt: skip


@pytest.mark.parametrize("processor, isa", [("Nehalem", "baseline"), ("Haswell", "avx2")])
def test_an_older_processor_trains_with_its_own_kernels(processor, isa):
    done = emulate(processor, TRAIN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [isa]


def test_an_instruction_set_that_the_processor_lacks_is_an_error():
    done = emulate("Nehalem", "import cycnn.engine", CYCNN_ISA="avx2")
    assert done.returncode == 1
    assert "CYCNN_ISA must be one of baseline, portable here, got 'avx2'" in done.stderr
