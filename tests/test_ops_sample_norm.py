"""Normalisations that take no statistics over the batch, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cycnn
from cycnn import ops

from . import reference_norm as reference
from .helpers import DTYPES, at_offset, integers, normal, same_bits

EPS = 1e-5
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
GROUPS = [
    ((2, 4, 5, 6), 3), ((3, 7, 2), 1), ((2, 3, 4, 2, 20), 5), ((4, 96), 8), ((1, 30, 31, 3), 3),
    ((2, 41, 7, 129), 43), ((5, 1, 1, 70), 2), ((2, 40, 40, 16), 16), ((3, 5), 1),
]  # fmt: skip
ROWS = [
    ((2, 4, 5, 6), 1), ((3, 7, 2), 2), ((4, 96), 1), ((2, 3, 4, 5, 3), 4), ((700, 3), 1),
    ((3, 1000), 1), ((2, 9, 10, 37), 3), ((2, 5003), 1), ((300, 65), 1),
]  # fmt: skip


def problem(rng, shape, channels, dtype, mean=1.0):
    """Return x, gamma, beta, dy; the values of x have a mean and a scale of their own."""
    x = normal(rng, shape, dtype) * rng.uniform(0.5, 2, shape[-1]) + mean
    gamma = rng.uniform(0.5, 1.5, channels).astype(dtype)
    return x.astype(dtype), gamma, normal(rng, channels, dtype), normal(rng, shape, dtype)


def check(actual, expected, x, dtype, rows):
    """Compare y, dx, dgamma and dbeta, the last two sums of `rows` terms.

    y and dx round a few times at the scale of x over the standard deviation, sums in real go on for
    256 rows or 64 vectors at most.
    """
    eps = np.finfo(dtype).eps
    spread = np.abs(x).max() / np.sqrt(np.asarray(x, "float64").var() + 1e-3) + 4
    assert all(a.dtype == dtype for a in actual)
    assert_allclose(actual[0], expected[0], rtol=0, atol=64 * eps * spread**2)
    peak = 1 + np.abs(expected[1]).max()
    assert_allclose(actual[1], expected[1], rtol=0, atol=128 * eps * spread**2 * peak)
    for a, e in zip(actual[2:], expected[2:], strict=True):
        assert_allclose(a, e, rtol=0, atol=8 * eps * spread**2 * (rows + 8))


@each_dtype
@pytest.mark.parametrize("shape, groups", GROUPS)
def test_group_norm(rng, shape, groups, dtype):
    x, gamma, beta, dy = problem(rng, shape, shape[-1], dtype)
    y, mean, variance = ops.group_norm(x, gamma, beta, groups, EPS)
    assert mean.shape == variance.shape == (shape[0], groups) and mean.dtype == np.float64
    if x[0].size == groups:  # one value in a group
        assert_allclose(y, np.broadcast_to(beta, shape), atol=1e-6)
        return
    wide = reference.grouped(x, groups)
    assert_allclose(mean, wide.mean((1, 3)), rtol=0, atol=16 * np.finfo(dtype).eps * 8)
    assert_allclose(variance, wide.var((1, 3)), rtol=64 * np.finfo(dtype).eps)
    actual = y, *ops.group_norm_backward(dy, x, gamma, mean, variance, EPS)
    expected = (
        reference.group_norm(x, gamma, beta, groups, EPS),
        *reference.group_norm_backward(dy, x, gamma, groups, EPS),
    )
    check(actual, expected, x, dtype, x[..., 0].size)
    nothing, *sums = ops.group_norm_backward(dy, x, gamma, mean, variance, EPS, False)
    assert nothing is None and all(map(same_bits, sums, actual[2:]))
    one, zero = np.ones_like(gamma), np.zeros_like(gamma)
    with_ones = ops.group_norm(x, one, zero, groups, EPS)
    assert all(map(same_bits, ops.group_norm(x, None, None, groups, EPS), with_ones))


@each_dtype
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("shape, axes", ROWS)
def test_row_norm(rng, shape, axes, centred, dtype):
    last, over = shape[-axes:], tuple(range(len(shape) - axes, len(shape)))
    x, gamma, beta, dy = problem(rng, shape, last, dtype)
    y, mean, inverse = ops.row_norm(x, gamma, beta, axes, EPS, centred=centred)
    actual = y, *ops.row_norm_backward(dy, x, gamma, mean, inverse, axes, centred=centred)
    dx, product = reference.over_axes_backward(
        dy, x, gamma.astype("float64"), over, EPS, centred
    )  # fmt: skip
    rows = tuple(range(len(shape) - axes))
    expected = (
        reference.over_axes(x, gamma.astype("float64"), beta, over, EPS, centred),
        dx, product.sum(rows), dy.astype("float64").sum(rows),
    )  # fmt: skip
    # Two close values divide by a small deviation, which amplifies.
    amplify = inverse.max() * np.sqrt(x.var() + 1e-3)
    eps = np.finfo(dtype).eps
    size = np.abs(x).max() / np.sqrt(x.var() + 1e-3) + 4
    assert all(a.dtype == dtype for a in actual)
    assert_allclose(actual[0], expected[0], rtol=0, atol=64 * eps * (size * amplify) ** 2)
    atol = 128 * eps * size**2 * amplify**3 * (1 + np.abs(dy).max())
    assert_allclose(actual[1], expected[1], rtol=0, atol=atol)
    for a, e in zip(actual[2:], expected[2:], strict=True):
        assert_allclose(a, e, rtol=0, atol=8 * eps * (size * amplify) ** 2 * (x[..., 0].size + 8))
    nothing, *sums = ops.row_norm_backward(
        dy, x, gamma, mean, inverse, axes, centred=centred, input_gradient=False
    )
    assert nothing is None and all(map(same_bits, sums, actual[2:]))


@pytest.mark.parametrize("mean", [10.0, 1e4])
def test_a_large_mean_costs_no_digits(rng, mean):
    x, gamma, _, dy = problem(rng, (3, 20, 20, 6), 6, "float32", mean)
    wide, one = x.astype("float64"), np.ones(6, "float32")
    y, *statistics = ops.group_norm(x, one, one, 2, EPS)
    atol = 64 * np.finfo("float32").eps * np.sqrt(mean)
    assert_allclose(y, reference.group_norm(wide, one, one, 2, EPS), rtol=0, atol=atol)
    dx, *_ = ops.group_norm_backward(dy, x, gamma, *statistics, EPS)
    expected = reference.group_norm_backward(dy.astype("float64"), wide, gamma, 2, EPS)
    assert_allclose(dx, expected[0], rtol=0, atol=8 * atol)
    y, mean, inverse = ops.row_norm(x, None, None, 3, EPS)
    assert_allclose(y, reference.over_axes(wide, 1, 0, (1, 2, 3), EPS), rtol=0, atol=atol)
    dx, *_ = ops.row_norm_backward(dy, x, None, mean, inverse, 3)
    expected = reference.over_axes_backward(dy, wide, 1.0, (1, 2, 3), EPS)
    assert_allclose(dx, expected[0], rtol=0, atol=8 * atol)


def test_a_constant_input_becomes_beta():
    x, beta = np.full((3, 5, 7, 6), 0.1, "float32"), np.arange(6, dtype="float32")
    y, *_ = ops.group_norm(x, np.ones(6, "float32"), beta, 3, EPS)
    assert_allclose(y, np.broadcast_to(beta, x.shape), rtol=0, atol=1e-13)  # merged in float64
    y, *_ = ops.row_norm(x, np.ones(6, "float32"), beta, 1, EPS)
    assert_array_equal(y, np.broadcast_to(beta, x.shape))


LRN = [
    ((2, 3, 4, 19), 5, False), ((3, 7), 2, False), ((2, 4, 1), 3, False), ((2, 5, 70), 9, False),
    ((2, 5, 6, 7), 3, True), ((2, 9, 3), 4, True), ((1, 4, 3, 5, 2), 3, True),
    ((2, 3, 2, 5), 7, True), ((2, 3, 37), 1, False),
]  # fmt: skip


@each_dtype
@pytest.mark.parametrize("shape, size, within", LRN)
def test_local_response_norm(rng, shape, size, within, dtype):
    constants = size, 0.7, 0.75, 1.5
    x, dy = 2 * normal(rng, shape, dtype), normal(rng, shape, dtype)
    y, window = ops.local_response_norm(x, *constants, within=within)
    expected, s = reference.lrn(x, *constants, within)
    # Sums of `size` squares per axis are right to as many eps, and a power of s at most so many:
    # exp of -beta log s, which rounds.
    taps = size ** (len(shape) - 2 if within else 1)
    units = (8 + taps + 2 * np.log(s).max()) * np.finfo(dtype).eps
    assert y.dtype == dtype
    assert np.all(np.abs(y - expected) <= units * np.abs(expected))
    dx = ops.local_response_norm_backward(dy, x, window, *constants, within=within)
    wanted = reference.lrn_backward(dy, x, *constants, within)
    size_of = reference.lrn_backward(np.abs(dy), np.abs(x), *constants[:2], -0.75, 1.5, within)
    assert np.all(np.abs(dx - wanted) <= 4 * units * (np.abs(size_of) + np.abs(dy)))


@each_dtype
def test_lrn_windows_are_exact_on_integers(rng, dtype):
    x = integers(rng, (3, 4, 21), dtype)
    for size in (1, 2, 5, 8):
        _, window = ops.local_response_norm(x, size, 1, 1, 1)
        _, s = reference.lrn(x, size, float(size), 1, 1, False)
        assert_array_equal(window, s - 1)


def test_lrn_as_in_the_paper():
    """Krizhevsky et al. (2012): k = 2, n = 5, alpha = 1e-4, beta = 0.75, written as printed."""
    a = np.random.default_rng(3).uniform(0, 50, (2, 3, 3, 12))
    b, N, n = np.empty_like(a), 12, 5
    for i in range(N):
        near = a[..., max(0, i - n // 2) : min(N - 1, i + n // 2) + 1]
        b[..., i] = a[..., i] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
    layer = cycnn.LocalResponseNorm(n, n * 1e-4, 0.75, 2).build(a.shape[1:], dtype="float64")
    assert_allclose(layer(a)[0], b, rtol=1e-14)


@pytest.mark.parametrize("shape", [(8, 40, 41, 36), (500, 36), (2, 30, 300)])
def test_place_and_threads_change_no_bit(rng, shape):
    C = shape[-1]

    def run(x, gamma, beta, dy):
        y, mean, variance = ops.group_norm(x, gamma, beta, 4, EPS)
        back = ops.group_norm_backward(dy, x, gamma, mean, variance, EPS)
        row, *of_row = ops.row_norm(x, gamma, beta, 1, EPS)
        row_back = ops.row_norm_backward(dy, x, gamma, *of_row, 1)
        z, window = ops.local_response_norm(x, 5, 1, 0.75, 1)
        z_back = ops.local_response_norm_backward(dy, x, window, 5, 1, 0.75, 1)
        slope = ops.prelu_backward(dy, x, gamma)
        return y, mean, variance, *back, row, *of_row, *row_back, z, window, z_back, *slope

    arrays = problem(rng, shape, C, "float32")
    with cycnn.num_threads(1):
        expected = run(*arrays)
    with cycnn.num_threads(2):
        assert all(map(same_bits, run(*arrays), expected))
    for offset in (4, 36, 60):
        assert all(map(same_bits, run(*(at_offset(a, offset) for a in arrays)), expected))


def test_wrong_arguments_are_named():
    x, one = np.zeros((2, 3, 6), "float32"), np.ones(6, "float32")
    with pytest.raises(ValueError, match="groups must divide the channels of x, got 4 for 6"):
        ops.group_norm(x, one, one, 4, EPS)
    with pytest.raises(ValueError, match=r"gamma must have shape \(6,\), got \(5,\)"):
        ops.group_norm(x, one[1:], one, 2, EPS)
    with pytest.raises(ValueError, match=r"gamma must have the shape of the last axes"):
        ops.row_norm(x, one[1:], one, 1, EPS)
    with pytest.raises(ValueError, match="axes must be at least 1 and leave out the batch"):
        ops.row_norm(x, None, None, 3, EPS)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        ops.local_response_norm(x, 0, 1, 1, 1)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 1 to 3 spatial axes, C\)"):
        ops.local_response_norm(x[0], 3, 1, 1, 1, within=True)
    with pytest.raises(ValueError, match="dy must have shape"):
        ops.local_response_norm_backward(x[:1], x, x, 3, 1, 1, 1)
