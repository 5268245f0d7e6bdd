"""Which number of threads short work is given: the quickest, of those tried."""

from __future__ import annotations

import copy
import sys

import pytest

import cycnn
from cycnn.graph.pace import Pace, Paces
from cycnn.threads import limit

from .helpers import normal, run_python, same_bits


def run(pace, seconds, runs):
    """Return on how many threads each of some runs was, which take `seconds[threads]`."""
    threads = []
    for _ in range(runs):
        threads.append(pace.threads)
        pace.note(threads[-1], seconds[threads[-1]])
    return threads


def test_work_that_one_thread_does_quicker_is_left_to_one():
    ran = run(Pace(2), {1: 1e-3, 2: 2e-3}, 10_000)
    assert set(ran[:64]) == {2}
    assert ran.count(2) < 200
    assert set(ran[-1000:]) == {1}


def test_work_that_two_threads_do_quicker_keeps_both():
    ran = run(Pace(2), {1: 1.2e-3, 2: 1e-3}, 20_000)
    assert ran.count(1) < 100


def test_a_little_quicker_is_not_worth_a_change():
    ran = run(Pace(2), {1: 0.96e-3, 2: 1e-3}, 10_000)
    assert ran.count(1) < 100


def test_the_best_of_many_numbers_of_threads_is_found():
    seconds = {8: 4e-3, 4: 2e-3, 2: 1e-3, 1: 1.5e-3}
    ran = run(Pace(8), seconds, 20_000)
    assert ran.count(2) > 19_000
    assert set(run(Pace(6), {6: 3e-3, 3: 1e-3, 1: 2e-3}, 5000)) == {6, 3, 1}


def test_a_change_of_the_machine_is_followed_both_ways():
    pace = Pace(2)
    near, far = {1: 1e-3, 2: 0.6e-3}, {1: 1e-3, 2: 2e-3}
    for seconds, best in ((near, 2), (far, 1), (near, 2), (far, 1)):
        ran = run(pace, seconds, 15_000)
        assert ran[-5000:].count(best) > 4900


def test_a_trial_without_hope_is_short():
    ran = run(Pace(2), {1: 2e-3, 2: 1e-3}, 20_000)
    assert 0 < ran.count(1) < 30


def test_long_work_is_given_all_threads():
    assert set(run(Pace(4), {4: 0.03, 2: 1e-3, 1: 1e-3}, 5000)) == {4}
    pace = Pace(4)
    assert run(pace, {4: 4e-3, 2: 2e-3, 1: 1e-3}, 1000)[-1] == 1
    ran = run(pace, {4: 25e-3, 2: 50e-3, 1: 100e-3}, 10_000)
    assert set(ran[-1000:]) == {4}


def test_short_work_that_others_slow_down_is_tried_on_fewer_threads_at_once():
    quiet, crowded = {1: 1.5e-3, 2: 1e-3}, {1: 3e-3, 2: 24e-3}
    pace = Pace(2)
    assert run(pace, quiet, 20_000)[-1000:].count(1) < 10
    assert run(pace, crowded, 2000).count(2) < 100  # most of them up to the first trial
    assert run(pace, quiet, 2000)[1024:].count(1) < 20


def test_a_trial_that_slow_runs_began_is_soon_followed_by_another():
    pace = Pace(2)
    run(pace, {1: 1.5e-3, 2: 1e-3}, 20_000)  # trials are thousands of runs apart
    assert run(pace, {1: 8e-3, 2: 5e-3}, 20).count(1) > 0
    assert set(run(pace, {1: 3e-3, 2: 5e-3}, 300)[-100:]) == {1}


def test_work_that_stays_slow_is_not_tried_again_and_again():
    pace = Pace(2)
    run(pace, {1: 1.5e-3, 2: 1e-3}, 1000)
    assert run(pace, {1: 8e-3, 2: 5e-3}, 10_000).count(1) < 30


def test_a_run_that_began_before_a_change_is_not_noted():
    pace = Pace(2)
    run(pace, {2: 1e-3}, 64)
    assert pace.threads == 1
    for _ in range(100):
        pace.note(2, 1e-6)
    assert pace.threads == 1


def test_shapes_have_paces_of_their_own_and_few_are_kept():
    paces = Paces()
    first = paces.of("a", 2)
    run(first, {1: 1e-3, 2: 2e-3}, 1000)
    assert paces.of("a", 2) is first
    assert paces.of("b", 2).threads == paces.of("a", 4).threads // 2 == 2
    for key in range(20):
        paces.of(key, 2)
    assert paces.of("a", 2) is not first
    assert copy.deepcopy(paces).of(19, 2) is not paces.of(19, 2)


def test_a_run_takes_its_shapes_threads_and_leaves_no_limit(monkeypatch):
    monkeypatch.setattr("cycnn.graph.pace.get_num_threads", lambda: 4)
    paces, none = Paces(), limit.get()
    run(paces.of("x", 4), {4: 4e-3, 2: 1e-3, 1: 2e-3}, 200)
    with paces.run() as paced:
        assert limit.get() == none
        paced.on("x")
        paced.on("a second part")
        assert limit.get() == 2
    assert limit.get() == none
    paced = paces.run()
    paced.on("x")
    assert limit.get() == 2
    paced.__exit__(RuntimeError, RuntimeError(), None)
    assert limit.get() == none


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads of the process in /proc")
def test_plans_keep_to_the_limit():
    code = """if True:
    import os
    import numpy as np
    from cycnn import get_num_threads, ops, set_num_threads
    from cycnn.threads import limit
    set_num_threads(2)
    x, weight = np.ones((64, 1024), np.float32), np.ones((1024, 512), np.float32)
    token = limit.set(1)
    before = len(os.listdir("/proc/self/task"))
    ops.dense(x, weight)
    print(len(os.listdir("/proc/self/task")) - before)
    limit.reset(token)
    ops.dense(x, weight)
    print(len(os.listdir("/proc/self/task")) - before, get_num_threads() - 1)
    """
    limited, unlimited, more = map(int, run_python(code).stdout.split())
    assert limited == 0
    assert unlimited == more


def test_training_and_prediction_have_the_same_bits_on_any_threads(rng, monkeypatch):
    x, y = normal(rng, (256, 12, 12, 3)), rng.integers(0, 4, 256)
    with cycnn.num_threads(2):
        if cycnn.get_num_threads() < 2:
            pytest.skip("OpenMP gives one thread")

    def trained():
        model = cycnn.Sequential(
            [
                cycnn.Conv(16, 3), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.DepthwiseConv(3),
                cycnn.Flatten(), cycnn.Dense(4),
            ],
            input_shape=(12, 12, 3), rng=0,
        )  # fmt: skip
        trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.SGD(0.05, momentum=0.9))
        with cycnn.num_threads(2):
            trainer.fit(x, y, epochs=6, batch_size=64, rng=0, verbose=0)
            logits = [model.predict(x) for _ in range(12)]
        return [*(p.data for p in model.parameters().values()), *logits]

    expected = trained()
    turns = iter(range(10_000))
    monkeypatch.setattr(Pace, "threads", property(lambda self: 1 + next(turns) // 3 % 2))
    assert all(map(same_bits, expected, trained()))
    assert next(turns) > 24
