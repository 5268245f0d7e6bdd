"""Importing cycnn is quick and brings nothing along.

What the environment may say is tested in test_threads.py and test_isa.py.
"""

from __future__ import annotations

import pytest

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
