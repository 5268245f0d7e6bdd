"""ReLU, sums, joins, splits and dropout."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn
from cycnn import ops

from .helpers import DTYPES, at_offset, integers, normal, same_bits

SHAPES = [(1, 1), (3, 5), (2, 3, 4, 37), (13, 1, 1, 96), (2, 70, 3), (1, 4097), (0, 3, 2)]
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_shape = pytest.mark.parametrize("shape", SHAPES)


@each_dtype
@each_shape
def test_relu_and_its_gradient(rng, shape, dtype):
    x, dy = integers(rng, shape, dtype), integers(rng, shape, dtype)
    y = ops.relu(x)
    assert y.dtype == dtype
    assert_array_equal(y, np.maximum(x, 0))
    expected = np.where(x > 0, dy, 0)
    assert_array_equal(ops.relu_backward(dy, y), expected)
    assert ops.relu_backward(dy, y, overwrite=True) is dy
    assert_array_equal(dy, expected)


@each_dtype
def test_relu_keeps_nan_and_infinity(dtype):
    x = np.array([[np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0, np.nan, 5.0]], dtype)
    assert_array_equal(ops.relu(x), np.maximum(x, 0))


@each_dtype
@each_shape
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_add(rng, shape, dtype, count):
    arrays = [integers(rng, shape, dtype) for _ in range(count)]
    y = ops.add(arrays)
    assert y.dtype == dtype
    assert_array_equal(y, np.sum(arrays, 0))
    coefficients = [2.0, -0.5, 3.0, 0.25, -1.0][:count]
    expected = sum(c * a for c, a in zip(coefficients, arrays, strict=True))
    assert_array_equal(ops.add(arrays, coefficients), expected)
    assert_array_equal(ops.scale(arrays[0], -0.25), -0.25 * arrays[0])


@each_dtype
@pytest.mark.parametrize("axis", [-1, 1, 2, -2])
def test_concat_and_split_are_inverse(rng, axis, dtype):
    sizes = 5, 1, 16, 3
    shapes = [[2, 3, 4, 6] for _ in sizes]
    for shape, size in zip(shapes, sizes, strict=True):
        shape[axis] = size
    arrays = [integers(rng, shape, dtype) for shape in shapes]
    y = ops.concat(arrays, axis)
    assert y.dtype == dtype
    assert_array_equal(y, np.concatenate(arrays, axis))
    parts = ops.split(y, sizes, axis)
    assert len(parts) == len(arrays)
    for part, array in zip(parts, arrays, strict=True):
        assert_array_equal(part, array)


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 4, 37), (1, 1001)])
def test_memory_offset_changes_no_bit(rng, shape):
    x, dy = normal(rng, shape), normal(rng, shape)
    expected = ops.relu(x), ops.relu_backward(dy, x), ops.add([x, dy], [0.3, 0.7])
    dropped = ops.dropout(x, 0.4, 5)
    for offset in (4, 36, 60):
        x, dy = at_offset(x, offset), at_offset(dy, offset)
        actual = ops.relu(x), ops.relu_backward(dy, x), ops.add([x, dy], [0.3, 0.7])
        assert all(map(same_bits, actual, expected))
        assert same_bits(ops.dropout(x, 0.4, 5), dropped)


@each_dtype
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_mean(rng, rate, dtype):
    x = np.ones((100, 1003), dtype)
    y = ops.dropout(x, rate, 7)
    kept = y != 0
    assert_array_equal(y[kept], np.asarray(1 / (1 - rate), dtype))
    deviation = np.sqrt(rate * (1 - rate) / x.size)
    assert abs(kept.mean() - (1 - rate)) <= 5 * deviation
    for axis in (0, 1):  # no pattern along either axis
        spread = np.sqrt(rate * (1 - rate) / x.shape[axis])
        assert np.abs(kept.mean(axis) - (1 - rate)).max() <= 6 * spread
    assert_array_equal(ops.dropout(x, rate, 7), y)
    dy = normal(rng, x.shape, dtype)
    assert_array_equal(ops.dropout(dy, rate, 7) != 0, kept & (dy != 0))


def test_dropout_mask_depends_on_the_seed_alone():
    x = np.ones((300, 1001), "float32")
    with cycnn.num_threads(1):
        y = ops.dropout(x, 0.5, 3)
    with cycnn.num_threads(2):
        assert same_bits(ops.dropout(x, 0.5, 3), y)
    other = ops.dropout(x, 0.5, 4)
    agreement = np.mean((y != 0) == (other != 0))
    assert abs(agreement - 0.5) < 5 * 0.5 / np.sqrt(x.size)
    assert same_bits(ops.dropout(x.astype("float64"), 0.5, 3).astype("float32"), y)
    for seed in (0, 2**31, 2**40 + 1, 2**63 - 1):
        assert 0.45 < np.mean(ops.dropout(x[:30], 0.5, seed) != 0) < 0.55
    low, high = ops.dropout(x, 0.5, 1), ops.dropout(x, 0.5, 1 + 2**32)
    assert not same_bits(low, high)


def test_wrong_arguments_are_named():
    a, b = np.zeros((2, 3), "float32"), np.zeros((2, 4), "float32")
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        ops.add([a, b])
    with pytest.raises(ValueError, match="coefficients"):
        ops.add([a, a], [1.0])
    with pytest.raises(ValueError, match="."):
        ops.concat([a, np.zeros((3, 4), "float32")], -1)
    with pytest.raises(ValueError, match="."):
        ops.relu_backward(a, b)
    with pytest.raises(ValueError, match=r"seed must be one uint64, got int64 \(1,\)"):
        ops.dropout(a, 0.5, np.array([3]))
