"""All ways to add up a weight gradient: exact on integers; a cut in other jobs changes no bit."""

from __future__ import annotations

import pytest
from numpy.testing import assert_array_equal

import cycnn
from cycnn import ops
from cycnn.engine import CacheSizes, kernels
from cycnn.ops import weight_gradient

from . import reference
from .helpers import DTYPES, integers, normal, same_bits

CASES = [
    pytest.param((3, 9, 13, 70), 3, 150, {"padding": 1}, id="3x3"),
    pytest.param((2, 11, 9, 31), (2, 3), 37, {"padding": "same", "dilation": 2}, id="dilated"),
    pytest.param((2, 3, 5, 6, 26), 3, 40, {"padding": 1}, id="volumes"),
    pytest.param((2, 12, 11, 20), 3, 70, {"stride": 2, "padding": 1}, id="stride"),
    pytest.param((2, 8, 8, 28), 3, 72, {"padding": 1, "groups": 2}, id="groups"),
    pytest.param((5, 9, 8, 132), 1, 72, {}, id="1x1"),
    pytest.param((5, 9, 8, 100), 1, 17, {"stride": 2}, id="1x1-stride"),
]
each_case = pytest.mark.parametrize("x_shape, kernel, filters, options", CASES)


def problem(make, rng, x_shape, kernel, filters, options, dtype="float32"):
    """Return (x, dy, kernel_size) of one convolution."""
    axes = len(x_shape) - 2
    sizes = (kernel,) * axes if isinstance(kernel, int) else kernel
    options = {name: value for name, value in options.items() if name != "groups"}
    dy = x_shape[:1] + ops.conv_output_shape(x_shape[1:], sizes, filters, **options)
    return make(rng, x_shape, dtype), make(rng, dy, dtype), sizes


@pytest.fixture
def orders(monkeypatch):
    """Return a function that yields (order, results of run, one for each cut) for every order."""

    def all_orders(run):
        asked, chosen = [], {}
        original = weight_gradient._best_order
        with monkeypatch.context() as patch:
            patch.setattr(weight_gradient, "_best_order", lambda p: asked.append(p) or original(p))
            weight_gradient._weight_gradient.cache_clear()
            run()
        p = asked[0]
        unit = kernels(p.dtype)
        monkeypatch.setattr(weight_gradient, "_best_order", lambda p: chosen["order"])
        monkeypatch.setattr(weight_gradient, "_best_cut", lambda *_: chosen["cut"])
        for m in weight_gradient._products(p, unit):
            panels = -(-m.filters // unit.NR)
            for order in [order for _, order in weight_gradient._orders(m, unit)]:
                for chunks in {1, min(3, order.blocks.number)}:
                    chosen["order"], results = order._replace(chunks=chunks), []
                    for channel_block in order.channel_blocks:
                        for split in (s for s in (1, 2, 4) if s <= panels):
                            chosen["cut"] = channel_block, split
                            weight_gradient._weight_gradient.cache_clear()
                            results.append(run())
                    yield chosen["order"], results

    yield all_orders
    weight_gradient._weight_gradient.cache_clear()


@pytest.mark.parametrize("dtype", DTYPES)
@each_case
def test_each_order_is_exact_on_integers(rng, orders, x_shape, kernel, filters, options, dtype):
    x, dy, size = problem(integers, rng, x_shape, kernel, filters, options, dtype)
    expected, expected_bias = reference.conv_backward_weight(dy, x, size, **options)
    count = 0
    for order, results in orders(
        lambda: ops.conv_backward_weight(dy, x, size, algorithm="direct", **options)
    ):
        for dweight, dbias in results:
            assert_array_equal(dweight, expected, err_msg=str(order))
            assert_array_equal(dbias, expected_bias, err_msg=str(order))
        count += 1
    assert count


@each_case
def test_cuts_and_threads_change_no_bit(rng, orders, x_shape, kernel, filters, options):
    x, dy, size = problem(normal, rng, x_shape, kernel, filters, options)

    def run():
        results = []
        for threads in (1, 2):
            with cycnn.num_threads(threads):
                results += ops.conv_backward_weight(dy, x, size, algorithm="direct", **options)
        return results

    for order, results in orders(run):
        for dweight, dbias, *others in results:
            assert same_bits(dweight, results[0][0]), order
            assert same_bits(dbias, results[0][1]), order
            assert same_bits(others[0], dweight) and same_bits(others[1], dbias), order


def test_more_threads_get_more_jobs(rng, orders):
    x, dy, size = problem(normal, rng, (4, 14, 14, 256), 1, 256, {})
    unit = kernels(x.dtype)
    best_cut = weight_gradient._best_cut
    for order, _ in orders(lambda: ops.conv_backward_weight(dy, x, size, algorithm="direct")):
        jobs = []
        for threads in (1, 2, 4):
            channel_block, split = best_cut(order, threads, unit)
            jobs.append(order.chunks * -(-order.product.channels // channel_block) * split)
            assert jobs[-1] >= threads
        assert jobs == sorted(jobs)


def test_a_larger_first_level_cache_makes_a_copy_of_x_worth_less(rng, orders, monkeypatch):
    x, dy, size = problem(normal, rng, (4, 14, 14, 64), 1, 384, {})
    unit, threads, fell = kernels(x.dtype), weight_gradient.THREADS, {}
    for order, _ in orders(lambda: ops.conv_backward_weight(dy, x, size, algorithm="direct")):
        times = []
        for l1 in (32 << 10, 48 << 10):
            sizes = CacheSizes(l1, 1 << 20, 32 << 20)
            monkeypatch.setattr(weight_gradient, "cache_sizes", lambda sizes=sizes: sizes)
            times.append(weight_gradient._times(order, [order.chunks], threads, unit).sum())
        m = order.product
        fell.setdefault("lanes" if m.lanes else "slab" if m.copy else "in place", set()).add(
            times[1] < times[0]
        )
    assert fell == {"lanes": {False}, "slab": {True}, "in place": {True}}
