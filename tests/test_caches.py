"""The sizes of the caches, and what is fetched ahead of its use by them."""

from __future__ import annotations

import numpy as np
import pytest

from cycnn import engine, ops
from cycnn.engine import caches
from cycnn.ops import depthwise, norm

from .helpers import DTYPES, normal, same_bits


@pytest.fixture
def pretend(monkeypatch):
    """Pretend to other caches: pretend(l2, l3)."""

    def to(l2, l3):
        monkeypatch.setattr(caches, "cache_sizes", lambda: engine.CacheSizes(32 << 10, l2, l3))
        norm._passes.cache_clear()
        for planned in (depthwise._forward, depthwise._pairs, depthwise._input_gradient):
            planned.cache_clear()

    yield to
    monkeypatch.undo()
    to(*caches.cache_sizes()[1:])
    monkeypatch.undo()


def test_a_cache_is_too_small_for_an_array_where_four_do_not_fit(pretend):
    pretend(4096, 16384)
    assert [engine.beyond(size) for size in (0, 1023, 1024, 4095, 4096, 1 << 40)] == [
        0, 0, 2, 2, 3, 3,
    ]  # fmt: skip


def test_the_caches_of_this_machine_order_sizes():
    levels = [engine.beyond(1 << n) for n in range(40)]
    assert levels == sorted(levels)
    assert set(levels) == {0, 2, 3}


@pytest.mark.parametrize(
    "reported, expected",
    [
        ({}, (32, 512, 8192)),
        ({0: ("1", "Instruction", "64K"), 1: ("1", "Data", "48K"), 2: ("2", "Unified", "1024K")},
         (48, 1024, 8192)),
        ({0: ("1", "Data", "32K"), 3: ("3", "Unified", "262144K")}, (32, 512, 32768)),
        ({0: ("1", "Data", "many"), 1: ("2", "Unified", "4K")}, (32, 256, 8192)),
    ],
)  # fmt: skip
def test_sizes_are_read_and_kept_within_reason(tmp_path, monkeypatch, reported, expected):
    for index, values in reported.items():
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, value in zip(("level", "type", "size"), values, strict=True):
            (folder / name).write_text(f"{value}\n", encoding="utf-8")
    monkeypatch.setattr(caches, "CACHE", str(tmp_path / "index{}" / "{}"))
    assert caches.cache_sizes.__wrapped__() == tuple(size << 10 for size in expected)


def normalised(rng, dtype):
    x, residual, dy = (normal(rng, (3, 5, 7, 19), dtype) for _ in range(3))
    gamma, beta = normal(rng, (19,), dtype), normal(rng, (19,), dtype)
    y, how = ops.batch_norm(x, gamma, beta, 1e-3, residual=residual, activation="relu")
    yield y
    yield from ops.batch_norm_backward(dy, x, gamma, how, y=y)
    y, how = ops.batch_norm(x, gamma, beta, 1e-3, activation="leaky_relu", slope=0.1)
    yield y
    yield from ops.batch_norm_backward(dy, x, gamma, how)


def convolved(rng, dtype, shape, stride):
    x, w = normal(rng, (2, *shape, 19), dtype), normal(rng, (3,) * len(shape) + (1, 19), dtype)
    how = {"stride": stride, "padding": "same", "groups": 19}
    y = ops.conv(x, w, **how)
    yield y
    yield ops.conv_backward_input(y, w, x.shape, **how)
    yield from ops.conv_backward_weight(y, x, 3, **how)


@pytest.mark.parametrize("dtype", DTYPES)
def test_fetching_ahead_changes_no_bit(pretend, dtype):
    results = []
    for l2, l3 in [(1 << 40, 1 << 41), (1, 1 << 41), (1, 1)]:
        pretend(l2, l3)
        rng = np.random.default_rng(0)
        results.append(list(normalised(rng, dtype)))
        for shape in [(9,), (9, 23), (4, 5, 6)]:
            for stride in (1, 2):
                results[-1] += convolved(rng, dtype, shape, stride)
    for others in results[1:]:
        assert all(map(same_bits, others, results[0]))
