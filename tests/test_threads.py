"""Threads and processes: how many, the same bits, no GIL, and children of fork that work."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import cycnn
from cycnn import ops

from .helpers import normal, run_python, same_bits

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def small(rng=0):
    """Return a network whose steps are large enough for two threads."""
    return cycnn.Sequential(
        [
            cycnn.Conv(16, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU(),
            cycnn.DepthwiseConv(3, padding=1), cycnn.MaxPool(2), cycnn.Dropout(0.3),
            cycnn.Residual([cycnn.Conv(16, 3, padding=1), cycnn.BatchNorm()]), cycnn.ReLU(),
            cycnn.AvgPool(2), cycnn.Flatten(), cycnn.Dense(10),
        ],
        input_shape=(16, 16, 3), rng=rng,
    )  # fmt: skip


def test_training_gives_the_same_weights_for_any_number_of_threads(rng):
    x, y = normal(rng, (96, 16, 16, 3)), rng.integers(0, 10, 96)
    trained = []
    for threads in (1, 2):
        model = small()
        trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam(1e-3))
        with cycnn.num_threads(threads):
            trainer.fit(x, y, epochs=2, batch_size=40, rng=1, verbose=0)
            logits = model.predict(x)
        arrays = [p.data for p in model.parameters().values()] + list(model.buffers().values())
        trained.append([*arrays, *trainer.optimizer.state().values(), logits])
        assert np.isfinite(logits).all()
    assert all(map(same_bits, *trained))


def test_sixty_four_threads_predict_on_one_model(rng):
    model, x = small(), normal(rng, (64, 4, 16, 16, 3))
    expected = [model.predict(part) for part in x]
    wrong, start = [], threading.Barrier(64)

    def work(number):
        start.wait()
        for _ in range(3):
            if not same_bits(model.predict(x[number]), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_gil_is_released_while_kernels_run(rng):
    size, seconds = 256, 0.0
    while seconds < 0.1:  # an operation long enough to be watched
        size *= 2
        x, weight = normal(rng, (size, 1024)), normal(rng, (1024, 512))
        began = time.perf_counter()
        ops.dense(x, weight)
        seconds = time.perf_counter() - began
    thread = threading.Thread(target=ops.dense, args=(x, weight))
    thread.start()
    ticks = 0
    while thread.is_alive():
        time.sleep(0.002)
        ticks += 1
    assert ticks >= 10


def test_number_of_threads_is_checked():
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=str(wrong)):
            cycnn.set_num_threads(wrong)
    for wrong in (1.5, "2", None, True):
        with pytest.raises(TypeError, match="integer"):
            cycnn.set_num_threads(wrong)
        with pytest.raises(TypeError, match="integer"), cycnn.num_threads(wrong):
            pass


def test_number_of_threads_is_the_least_of_all_limits():
    cycnn.set_num_threads(10_000)
    most = cycnn.get_num_threads()
    assert most < 10_000
    with cycnn.num_threads(1):
        assert cycnn.get_num_threads() == 1
        with cycnn.num_threads(10_000):
            assert cycnn.get_num_threads() == most
    assert cycnn.get_num_threads() == most
    cycnn.set_num_threads(1)
    assert cycnn.get_num_threads() == 1
    cycnn.set_num_threads(most)
    with threadpool_limits(1):
        assert cycnn.get_num_threads() == 1
    assert cycnn.get_num_threads() == most


def test_num_threads_holds_for_its_own_thread_only():
    cycnn.set_num_threads(10_000)
    most, seen = cycnn.get_num_threads(), []
    with cycnn.num_threads(1):
        thread = threading.Thread(target=lambda: seen.append(cycnn.get_num_threads()))
        thread.start()
        thread.join()
    assert seen == [most]


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("CYCNN_NUM_THREADS", "1", "1"),
        ("CYCNN_NUM_THREADS", "", None),
        ("OMP_NUM_THREADS", "1", "1"),
        ("OMP_NUM_THREADS", "0", None),
        ("OMP_NUM_THREADS", "abc", None),
        ("OMP_NUM_THREADS", "1000", None),
        ("OMP_THREAD_LIMIT", "1", "1"),
    ],
)
def test_environment(name, value, expected):
    code = """
import numpy as np, cycnn
from cycnn import ops
y = ops.dense(np.ones((300, 300), "float32"), np.ones((300, 200), "float32"))
assert (y == 300).all()
print(cycnn.get_num_threads())
"""
    printed = run_python(code, **{name: value}).stdout.strip()
    if name != "OMP_THREAD_LIMIT":  # OpenMP applies it later than it says
        assert printed == expected or expected is None


def test_more_threads_than_processors():
    code = """
import numpy as np, cycnn
from cycnn import ops
assert cycnn.get_num_threads() == 64
rng = np.random.default_rng(0)
x, weight = rng.standard_normal((64, 9, 9, 64)), rng.standard_normal((3, 3, 64, 64))
many = ops.conv(x, weight), ops.conv_backward_input(x[:, :7, :7].copy(), weight, x.shape)
with cycnn.num_threads(1):
    one = ops.conv(x, weight), ops.conv_backward_input(x[:, :7, :7].copy(), weight, x.shape)
assert all(map(np.array_equal, many, one))
"""
    run_python(code, OMP_NUM_THREADS="64", CYCNN_NUM_THREADS="64")


@pytest.mark.parametrize("value", ["0", "-1", "abc", "1.5"])
def test_wrong_environment_is_named(value):
    done = run_python("import cycnn", check=False, CYCNN_NUM_THREADS=value)
    assert done.returncode != 0
    assert "CYCNN_NUM_THREADS" in done.stderr.splitlines()[-1]
    assert value in done.stderr.splitlines()[-1]


FORK = """
import os, signal, sys, threading, warnings
import numpy as np
import cycnn
warnings.simplefilter("ignore", DeprecationWarning)   # fork while threads run, Python 3.12
count, beside = COUNT, BESIDE
rng = np.random.default_rng(0)
x, y = rng.standard_normal((64, 16, 16, 3), "float32"), rng.integers(0, 10, 64)
model = cycnn.Sequential(
    [cycnn.Conv(16, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.MaxPool(2),
     cycnn.Flatten(), cycnn.Dense(10)], input_shape=(16, 16, 3), rng=0)
trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam(1e-3))
tasks = "/proc/self/task"
before = len(os.listdir(tasks)) if os.path.exists(tasks) else None
trainer.step(x, y)
expected = model.predict(x)
if before and cycnn.get_num_threads() > 1:            # else there is nothing to survive
    assert len(os.listdir(tasks)) > before

def child():
    signal.alarm(60)                                  # a child that hangs dies by it
    assert np.array_equal(model.predict(x), expected)
    trainer.fit(x, y, epochs=2, batch_size=32, verbose=0)
    assert np.isfinite(model.predict(x)).all()

running = True
def predict():
    while running:
        model.predict(x[:8])

if beside:
    thread = threading.Thread(target=predict)
    thread.start()
try:
    HOW
finally:
    running = False
"""
BY_OS = """
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                child()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert np.array_equal(model.predict(x), expected)
"""
BY_MULTIPROCESSING = """
    import multiprocessing
    context = multiprocessing.get_context("fork")
    for _ in range(count):
        process = context.Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 0
        assert np.array_equal(model.predict(x), expected)
"""


@posix
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a running thread"])
@pytest.mark.parametrize("how", [BY_OS, BY_MULTIPROCESSING], ids=["os.fork", "multiprocessing"])
@pytest.mark.parametrize("count", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_children_of_fork_train_and_predict(count, how, beside):
    code = FORK.replace("    HOW", how).replace("COUNT", str(count)).replace("BESIDE", str(beside))
    run_python(code, timeout=60 + 5 * count)


@posix
def test_children_of_fork_of_a_pool():
    code = FORK.replace("COUNT", "1").replace("BESIDE", "False").replace("    HOW", """
    import concurrent.futures, multiprocessing
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        for result in pool.map(model.predict, [x] * 6):
            assert np.array_equal(result, expected)
""")  # fmt: skip
    run_python(code)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_joblib_workers(rng, backend):
    joblib = pytest.importorskip("joblib")
    model, x = small(), normal(rng, (4, 4, 16, 16, 3))
    expected = [model.predict(part) for part in x]
    with joblib.parallel_config(backend, n_jobs=2):
        results = joblib.Parallel()(joblib.delayed(model.predict)(part) for part in x)
    assert all(map(same_bits, results, expected))
