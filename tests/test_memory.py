"""Memory: after a warm-up, training and predicting take no more of it."""

from __future__ import annotations

import sys

import pytest

import cycnn

from .helpers import run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MEASURE = """
import gc, resource
import numpy as np
import cycnn

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

model = cycnn.Sequential(
    [cycnn.Conv(16, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.MaxPool(2),
     cycnn.Residual([cycnn.Conv(16, 3, padding=1), cycnn.BatchNorm()]), cycnn.ReLU(),
     cycnn.DepthwiseConv(3), cycnn.AvgPool(2), cycnn.Dropout(0.2), cycnn.Flatten(),
     cycnn.Dense(10)], input_shape=(16, 16, 3), rng=0)
rng = np.random.default_rng(0)
x, y = rng.standard_normal((64, 16, 16, 3), "float32"), rng.integers(0, 10, 64)
"""
TRAIN = """
trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam(1e-3))
for _ in range(50):
    trainer.step(x, y)
gc.collect()
before, start = resident(), faults()
for _ in range(STEPS):
    trainer.step(x, y)
print((faults() - start) / STEPS, resident() - before)
"""
PREDICT = """
for rows in [*range(1, 65), *rng.integers(1, 65, 200)]:   # in order, then as they will come
    model.predict(x[:rows])
gc.collect()
before = resident()
for rows in rng.integers(1, 65, STEPS):
    model.predict(x[:rows])
print(resident() - before)
"""


@pytest.mark.parametrize("steps", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_training_step_takes_no_new_memory(steps):
    printed = run_python(MEASURE + TRAIN.replace("STEPS", str(steps)), timeout=900).stdout
    faults, growth = map(float, printed.split())
    assert faults <= 1
    assert growth < 2**20


@pytest.mark.parametrize("steps", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_predictions_of_changing_sizes_take_no_new_memory(steps):
    printed = run_python(MEASURE + PREDICT.replace("STEPS", str(steps)), timeout=500).stdout
    assert float(printed) < 2**20


CYCLE = """
from cycnn import engine
sizes = [n << 20 for n in (60, 50, 42)]     # one at a time, so the peak is the first
for turn in range(6):
    start = faults()
    for size in sizes:
        engine.empty((size,), "uint8")[:: resource.getpagesize()] = 1
print(faults() - start, sum(engine.memory_info()[k] for k in ("live", "cached")) >> 20)
"""


def test_blocks_that_every_step_asks_for_stay_mapped():
    """More of them than 1.5 times the peak of what lives at a time; at most 2.5 times stay."""
    faults, held = map(int, run_python(MEASURE + CYCLE).stdout.split())
    assert held <= 2.5 * 64 + 17
    assert faults <= 1


LATE = """
from cycnn import engine
def mapped():                               # what counts pages as they are, not in batches
    with open("/proc/self/smaps_rollup") as file:
        return 1024 * int(file.read().split("Rss:")[1].split()[0])
x, scratch = engine.zeros((64,), "float32"), 1 << 18
plan = engine.Plan()
plan.add(engine.kernels("float32").relu_forward, 1, x=x, y=x, count=64, chunk=64,
         scratch=scratch, work=1e9)
with cycnn.num_threads(2):
    start = mapped()
    plan.run()
    print(cycnn.get_num_threads(), (mapped() - start) / scratch)
"""


def test_a_thread_without_a_job_has_its_scratch_memory_all_the_same():
    """It may get a job in any later step, which would then take new memory."""
    threads, mapped = map(float, run_python(MEASURE + LATE).stdout.split())
    if threads < 2:
        pytest.skip("OpenMP gives one thread")
    assert mapped >= threads


def test_arrays_outlive_what_made_them():
    model = cycnn.Sequential([cycnn.Dense(3)], input_shape=(2,), rng=0)
    kept = [model.predict([[1.0, 2.0]]) for _ in range(100)]
    del model
    assert len({array.tobytes() for array in kept}) == 1
