"""The affine map against the reference: exactly on integers, within rounding on reals."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn
from cycnn import ops

from . import reference
from .helpers import DTYPES, assert_near, at_offset, integers, normal, same_bits

SIZES = [  # (N, C, K)
    (1, 1, 1), (2, 3, 5), (13, 70, 37), (7, 37, 70), (1, 129, 10), (64, 5, 1),
    (3, 1, 33), (33, 16, 16), (5, 300, 130), (1, 513, 97),
]  # fmt: skip
each_size = pytest.mark.parametrize("N, C, K", SIZES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def problem(make, rng, N, C, K, dtype="float32"):
    """Return x, weight, bias, dy."""
    return tuple(make(rng, shape, dtype) for shape in ((N, C), (C, K), (K,), (N, K)))


@each_dtype
@each_size
def test_forward_is_exact_on_integers(rng, N, C, K, dtype):
    x, weight, bias, _ = problem(integers, rng, N, C, K, dtype)
    expected = reference.dense(x, weight, bias)
    y = ops.dense(x, weight, bias)
    assert y.dtype == dtype
    assert_array_equal(y, expected)
    assert_array_equal(ops.dense(x, weight), expected - bias)
    assert_array_equal(ops.dense(x, weight, bias, activation="relu"), np.maximum(expected, 0))


@each_dtype
@each_size
def test_backward_is_exact_on_integers(rng, N, C, K, dtype):
    x, weight, _, dy = problem(integers, rng, N, C, K, dtype)
    dx, dweight, dbias = reference.dense_backward(dy, x, weight)
    assert_array_equal(ops.dense_backward_input(dy, weight), dx)
    gradients = ops.dense_backward_weight(dy, x)
    assert gradients[0].dtype == gradients[1].dtype == dtype
    assert_array_equal(gradients[0], dweight)
    assert_array_equal(gradients[1], dbias)
    gradients = ops.dense_backward_weight(dy, x, bias=False)
    assert_array_equal(gradients[0], dweight)
    assert gradients[1] is None


@each_dtype
@each_size
def test_reals_are_within_the_rounding_of_their_sums(rng, N, C, K, dtype):
    x, weight, bias, dy = problem(normal, rng, N, C, K, dtype)
    ax, aweight, abias, ady = (np.abs(a) for a in (x, weight, bias, dy))
    y, magnitude = reference.dense(x, weight, bias), reference.dense(ax, aweight, abias)
    assert_near(ops.dense(x, weight, bias), y, magnitude, C + 1)
    expected = reference.dense_backward(dy, x, weight)
    magnitudes = reference.dense_backward(ady, ax, aweight)
    actual = ops.dense_backward_input(dy, weight), *ops.dense_backward_weight(dy, x)
    for a, e, magnitude, terms in zip(actual, expected, magnitudes, (K, N, N), strict=True):
        assert_near(a, e, magnitude, terms)


@pytest.mark.parametrize("N, C, K", SIZES[2:6])
def test_memory_offset_and_rows_change_no_bit(rng, N, C, K):
    x, weight, bias, dy = problem(normal, rng, N, C, K)
    y, dx = ops.dense(x, weight, bias), ops.dense_backward_input(dy, weight)
    dweight, dbias = ops.dense_backward_weight(dy, x)
    for offset in (4, 20, 60):
        x, weight, bias, dy = (at_offset(a, offset) for a in (x, weight, bias, dy))
        assert same_bits(ops.dense(x, weight, bias), y)
        assert same_bits(ops.dense_backward_input(dy, weight), dx)
        again = ops.dense_backward_weight(dy, x)
        assert same_bits(again[0], dweight) and same_bits(again[1], dbias)
    for rows in ([N - 1], [N // 2, 0], [*range(N), *range(N)]):
        assert same_bits(ops.dense(x[rows], weight, bias), y[rows])
        assert same_bits(ops.dense_backward_input(dy[rows], weight), dx[rows])


@pytest.mark.parametrize("N, C, K", [(1, 2000, 1000), (300, 300, 150), (2, 4000, 10)])
def test_number_of_threads_changes_no_bit(rng, N, C, K):
    x, weight, bias, dy = problem(normal, rng, N, C, K)
    results = []
    for threads in (1, 2):
        with cycnn.num_threads(threads):
            y, dx = ops.dense(x, weight, bias), ops.dense_backward_input(dy, weight)
            results.append((y, dx, *ops.dense_backward_weight(dy, x)))
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True))


def test_empty_batch():
    x, weight = np.zeros((0, 4), "float32"), np.ones((4, 3), "float32")
    assert ops.dense(x, weight).shape == (0, 3)
    assert ops.dense_backward_input(np.zeros((0, 3), "float32"), weight).shape == (0, 4)
    dweight, dbias = ops.dense_backward_weight(np.zeros((0, 3), "float32"), x)
    assert_array_equal(dweight, np.zeros((4, 3)))
    assert_array_equal(dbias, np.zeros(3))


def zeros(*shape):
    """Return float32 zeros."""
    return np.zeros(shape, "float32")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((zeros(2, 4), zeros(5, 3)), "4.*5|5.*4"),
        ((zeros(2, 4, 1), zeros(4, 3)), "axes|rank|dimension|shape"),
        ((zeros(2, 4), zeros(4)), r"\(4,\)"),
        ((zeros(2, 4), zeros(4, 3), zeros(4)), "bias.*3.*4|bias.*4.*3"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ops.dense(*arguments)
