"""Fixtures of every test. CYCNN_ISA chooses the build that a whole run tests."""

from __future__ import annotations

import os
import signal

# Tests share their processors: an idle thread of OpenMP had better sleep than spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pytest

import cycnn
from cycnn import engine


def pytest_configure() -> None:
    """Take interrupts, which tests send; a run in the background of a shell ignores them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Print which build runs."""
    found = ", ".join(engine.available_isas())
    return f"cycnn {cycnn.__version__} from {cycnn.__file__}: {engine.ISA} of {found}"


@pytest.fixture
def rng():
    """Return a generator with a fixed seed."""
    return np.random.default_rng(20)


@pytest.fixture(autouse=True)
def _same_threads():
    """Leave the number of threads as it was."""
    threads = cycnn.get_num_threads()
    yield
    cycnn.set_num_threads(threads)
