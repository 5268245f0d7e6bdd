"""Softmax cross-entropy against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cycnn
from cycnn import ops

from . import reference
from .helpers import DTYPES, at_offset, normal, same_bits

each_dtype = pytest.mark.parametrize("dtype", DTYPES)


@each_dtype
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("N, K", [(1, 1), (1, 2), (13, 3), (64, 10), (7, 37), (5, 1000), (257, 16)])
def test_value_and_gradient(rng, N, K, weighted, dtype):
    logits = (3 * normal(rng, (N, K))).astype(dtype)
    target = rng.integers(0, K, N)
    weight = rng.uniform(0, 2, N) + 0.1 if weighted else None
    value, dlogits = ops.softmax_cross_entropy(logits, target, weight)
    expected, gradient = reference.softmax_cross_entropy(logits, target, weight)
    eps = np.finfo(dtype).eps
    assert isinstance(value, float)
    assert dlogits.dtype == dtype
    assert_allclose(value, expected, rtol=0, atol=32 * eps * (1 + np.abs(logits).max()))
    share = np.ones(N) / N if weight is None else weight / weight.sum()
    assert np.all(np.abs(dlogits - gradient) <= 32 * eps * share[:, None])


@each_dtype
def test_gradient_is_the_slope_of_the_value(rng, dtype):
    logits, target = normal(rng, (4, 5), "float64"), np.array([0, 4, 2, 2])
    _, dlogits = ops.softmax_cross_entropy(logits.astype(dtype), target, None)
    for index in np.ndindex(4, 5):
        step = np.zeros((4, 5))
        step[index] = 1e-6
        up, _ = reference.softmax_cross_entropy(logits + step, target)
        down, _ = reference.softmax_cross_entropy(logits - step, target)
        assert_allclose(dlogits[index], (up - down) / 2e-6, rtol=0, atol=1e-6)


@each_dtype
def test_large_logits_do_not_overflow(dtype):
    logits = np.array([[1e4, 0, -1e4], [-1e30, -1e30, -1e30], [3e38, 0, 0]], dtype)
    value, dlogits = ops.softmax_cross_entropy(logits, np.array([0, 1, 0]), None)
    assert_allclose(value, np.log(3) / 3, rtol=1e-6)
    assert np.all(np.isfinite(dlogits))
    value, _ = ops.softmax_cross_entropy(logits[:1], np.array([2]), None)
    assert_allclose(value, 2e4, rtol=1e-6)


@each_dtype
@pytest.mark.parametrize(
    "row", [[np.nan, 0, 0], [-np.inf] * 3, [np.inf, np.inf, 0], [np.inf, 0, 0]]
)
def test_a_row_without_a_softmax_gives_nan(row, dtype):
    logits = np.array([row, [0, 0, 0]], dtype)
    value, dlogits = ops.softmax_cross_entropy(logits, np.array([1, 1]), None)
    assert not np.isfinite(value)
    assert np.isnan(dlogits[0]).any()
    assert np.all(np.isfinite(dlogits[1]))


def test_offset_and_threads_change_no_bit(rng):
    logits, target = normal(rng, (3000, 101)), rng.integers(0, 101, 3000)
    with cycnn.num_threads(1):
        value, dlogits = ops.softmax_cross_entropy(logits, target, None)
    with cycnn.num_threads(2):
        again = ops.softmax_cross_entropy(logits, target, None)
    assert again[0] == value and same_bits(again[1], dlogits)
    for offset in (4, 36, 60):
        again = ops.softmax_cross_entropy(at_offset(logits, offset), target, None)
        assert again[0] == value and same_bits(again[1], dlogits)


@pytest.mark.parametrize(
    "logits, target, weight, message",
    [
        (np.zeros((2, 3)), [0, 3], None, "target.*3"),
        (np.zeros((2, 3)), [-1, 0], None, "target.*-1"),
        (np.zeros((2, 3)), [0, 1, 2], None, "target.*3.*2|2.*3"),
        (np.zeros((2, 3)), [0, 1], [0.0, 0.0], "weight"),
        (np.zeros((2, 3)), [0, 1], [1.0, -1.0], "weight"),
        (np.zeros((2, 3)), [0, 1], [1.0, np.nan], "weight"),
        (np.zeros((2, 3)), [0, 1], [1.0], "weight"),
        (np.zeros((0, 3)), [], None, "at least 1"),
        (np.zeros(3), [0], None, "axes|rank|shape|dimension"),
    ],
)
def test_wrong_arguments_are_named(logits, target, weight, message):
    weight = None if weight is None else np.array(weight)
    with pytest.raises(ValueError, match=message):
        ops.softmax_cross_entropy(logits, np.array(target, np.int64), weight)
