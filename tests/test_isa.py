"""Every build of the kernels that runs on this processor passes a short test here.

The whole suite runs on one of them with CYCNN_ISA.
"""

from __future__ import annotations

import pytest

from cycnn import engine

from .helpers import run_python

CODE = """
import sys
import numpy as np
import cycnn
from cycnn import engine, ops
rng = np.random.default_rng(0)
assert sys.argv[-1] == "-c" and engine.ISA == WANTED, engine.ISA
for dtype in ("float32", "float64"):
    x = rng.integers(-3, 4, (3, 7, 6, 19)).astype(dtype)
    weight = rng.integers(-3, 4, (3, 3, 19, 37)).astype(dtype)
    window = np.lib.stride_tricks.sliding_window_view(x.astype(float), (3, 3), (1, 2))
    y = np.einsum("nhwcij,ijck->nhwk", window, weight)
    for algorithm in "direct", "winograd2":         # both are exact on small integers
        assert np.array_equal(ops.conv(x, weight, algorithm=algorithm), y)
        dweight, dbias = ops.conv_backward_weight(
            y.astype(dtype), x, (3, 3), algorithm=algorithm)
        assert np.array_equal(dweight, np.einsum("nhwcij,nhwk->ijck", window, y))
    assert np.array_equal(ops.max_pool(x, 2)[0], x.reshape(3, 7, 3, 2, 19)[:, :6].reshape(
        3, 3, 2, 3, 2, 19).max((2, 4)))
model = cycnn.Sequential([cycnn.Conv(8, 3), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.Flatten(),
                          cycnn.Dense(3)], input_shape=(6, 6, 2), rng=0)
x, y = rng.standard_normal((30, 6, 6, 2)), rng.integers(0, 3, 30)
trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam(0.01))
losses = [trainer.step(x, y) for _ in range(20)]
assert losses[-1] < 0.5 * losses[0]
"""


@pytest.mark.parametrize("isa", engine.available_isas())
def test_each_build(isa):
    run_python(CODE.replace("WANTED", repr(isa)), CYCNN_ISA=isa)


def test_an_impossible_build_is_refused():
    done = run_python("import cycnn.ops", check=False, CYCNN_ISA="vax")
    assert done.returncode != 0
    assert "CYCNN_ISA" in done.stderr
    assert "'vax'" in done.stderr.splitlines()[-1]


def test_versions_say_which_build_runs(capsys):
    import cycnn

    cycnn.show_versions()
    text = capsys.readouterr().out
    assert engine.ISA in text
    assert cycnn.__version__ in text
    assert "numpy" in text.lower()
