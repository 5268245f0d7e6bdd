"""Importing cycnn is quick and brings nothing along.

What the environment may say is tested in test_threads.py and test_isa.py.
"""

from __future__ import annotations

import pytest

import cycnn

from .helpers import run_python

BUDGET = 0.030  # seconds beside numpy's own


def test_import_adds_little_to_numpy():
    code = (
        "import time, numpy; start = time.perf_counter(); import cycnn; "
        "print(time.perf_counter() - start)"
    )
    seconds = []
    for _ in range(10):  # the machine may be busy: one quick import shows that it can be
        seconds.append(float(run_python(code).stdout))
        if seconds[-1] <= BUDGET:
            return
    pytest.fail(f"the quickest of ten imports took {min(seconds) * 1e3:.0f} ms")


def test_import_loads_no_optional_package():
    optional = "joblib", "matplotlib", "sklearn", "threadpoolctl", "torch", "tqdm"
    code = f"import sys, cycnn; print([name for name in {optional} if name in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_public_modules_are_attributes_of_the_package():
    public = (
        "autodiff", "callbacks", "data", "datasets", "init", "losses", "metrics", "models", "optim",
        "schedules", "summary",
    )  # fmt: skip
    run_python(f"import cycnn; assert not set({public}) - set(dir(cycnn))")
    for name in public:
        assert getattr(cycnn, name).__name__ == f"cycnn.{name}"


def test_no_home_and_no_cache_are_needed():
    code = """
import numpy as np, cycnn
model = cycnn.Sequential([cycnn.Conv(2, 3), cycnn.Flatten(), cycnn.Dense(2)],
                         input_shape=(6, 6, 1), rng=0)
trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam())
trainer.fit(np.ones((4, 6, 6, 1)), [0, 1, 0, 1], verbose=0)
"""
    nowhere = "/dev/null/nowhere"
    folders = "HOME", "USERPROFILE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR", "TEMP", "TMP"
    run_python(code, **dict.fromkeys(folders, nowhere))
