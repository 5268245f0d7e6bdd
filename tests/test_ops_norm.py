"""Batch normalisation against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cycnn
from cycnn import ops

from . import reference
from .helpers import DTYPES, at_offset, normal, same_bits

SHAPES = [
    (2, 1), (13, 37), (2, 3, 5), (2, 4, 5, 7), (13, 1, 1, 96), (3, 2, 2, 129),
    (2, 3, 4, 2, 19), (1, 30, 31, 3), (5, 40, 41, 16),
]  # fmt: skip
EPS = 1e-5
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_shape = pytest.mark.parametrize("shape", SHAPES)


def problem(rng, shape, dtype="float32"):
    """Return x with a mean and a scale of its own in each channel, gamma, beta, dy."""
    C = shape[-1]
    x = normal(rng, shape, dtype) * rng.uniform(0.5, 2, C) + rng.uniform(-2, 2, C)
    gamma = rng.uniform(0.5, 1.5, C)
    dy = normal(rng, shape, dtype)
    return x.astype(dtype), gamma.astype(dtype), normal(rng, C, dtype), dy


@each_dtype
@each_shape
def test_forward(rng, shape, dtype):
    x, gamma, beta, _ = problem(rng, shape, dtype)
    y, mean, variance = ops.batch_norm(x, gamma, beta, EPS)
    expected = reference.batch_norm(x, gamma, beta, EPS)
    eps = np.finfo(dtype).eps
    assert y.dtype == dtype and mean.dtype == variance.dtype == np.float64
    # The statistics merge (count, mean, M2) of short runs in float64; y rounds a few times, and the
    # cancellation of x - mean is amplified by 1 / sqrt(variance).
    scale = np.abs(gamma) / np.sqrt(expected[2] + EPS)
    magnitude = scale * (np.abs(x) + np.abs(expected[1])) + np.abs(beta)
    assert np.all(np.abs(y - expected[0]) <= 32 * eps * magnitude)
    peak = np.abs(x).max(axis=tuple(range(x.ndim - 1))).astype("float64")
    assert np.all(np.abs(mean - expected[1]) <= 16 * eps * peak)
    assert np.all(np.abs(variance - expected[2]) <= 32 * eps * peak**2)


@each_dtype
@each_shape
@pytest.mark.parametrize("input_gradient", [True, False])
def test_backward(rng, shape, dtype, input_gradient):
    x, gamma, _, dy = problem(rng, shape, dtype)
    _, mean, variance = ops.batch_norm(x, gamma, np.zeros_like(gamma), EPS)
    dx, dgamma, dbeta = ops.batch_norm_backward(
        dy, x, gamma, mean, variance, EPS, input_gradient=input_gradient
    )
    expected = reference.batch_norm_backward(dy, x, gamma, EPS)
    # Sums of n terms of unit size err like n eps at worst.
    terms, eps = x[..., 0].size, np.finfo(dtype).eps
    amplify = (1 / np.sqrt(variance + EPS)).max() * max(1.0, np.abs(x).max())
    tolerance = 16 * eps * amplify * terms
    if input_gradient:
        assert dx.dtype == dtype
        assert_allclose(dx, expected[0], rtol=0, atol=64 * eps * amplify**3)
    else:
        assert dx is None
    assert_allclose(dgamma, expected[1], rtol=0, atol=tolerance)
    assert_allclose(dbeta, expected[2], rtol=0, atol=tolerance)


@each_dtype
@each_shape
def test_inference_and_its_gradient(rng, shape, dtype):
    x, gamma, beta, dy = problem(rng, shape, dtype)
    C, eps = shape[-1], np.finfo(dtype).eps
    mean, variance = rng.normal(size=C), rng.uniform(0.5, 2, C)
    scale = gamma / np.sqrt(variance + EPS)
    y = ops.batch_norm_inference(x, gamma, beta, mean, variance, EPS)
    assert y.dtype == dtype
    magnitude = np.abs(scale) * (np.abs(x) + np.abs(mean)) + np.abs(beta)
    expected = scale * (x.astype("float64") - mean) + beta
    assert np.all(np.abs(y - expected) <= 8 * eps * magnitude)
    axes, x64, dy64 = tuple(range(x.ndim - 1)), x.astype("float64"), dy.astype("float64")
    normalised = (x64 - mean) / np.sqrt(variance + EPS)
    gradients = ops.batch_norm_inference_backward(dy, x, gamma, mean, variance, EPS, True)
    expected = dy64 * scale, (dy64 * normalised).sum(axes), dy64.sum(axes)
    terms = x[..., 0].size
    factors = 8, 16 * terms, 4 * terms
    for actual, wanted, rounding in zip(gradients, expected, factors, strict=True):
        assert_allclose(actual, wanted, rtol=0, atol=rounding * eps * (1 + np.abs(x).max()) * 4)
    gradients = ops.batch_norm_inference_backward(dy, x, gamma, mean, variance, EPS, False)
    assert gradients[0] is None


@pytest.mark.parametrize("mean", [10.0, 1e4])
def test_a_large_mean_costs_no_digits(rng, mean):  # statistics are float64
    shape, one, zero = (16, 20, 20, 5), np.ones(5, "float32"), np.zeros(5, "float32")
    x = (rng.standard_normal(shape) + mean).astype("float32")
    dy = (rng.standard_normal(shape) + 1).astype("float32")
    y, found, variance = ops.batch_norm(x, one, zero, EPS)
    dx, dgamma, dbeta = ops.batch_norm_backward(dy, x, one, found, variance, EPS)
    eps = np.finfo("float32").eps
    expected = reference.batch_norm(x, one, zero, EPS)
    assert_allclose(variance, expected[2], rtol=64 * eps)
    assert_allclose(y, expected[0], rtol=0, atol=64 * eps * np.sqrt(mean))
    assert_allclose(
        ops.batch_norm_inference(x, one, zero, found, variance, EPS), y, rtol=0, atol=64 * eps
    )
    gradients = reference.batch_norm_backward(dy, x, one, EPS)
    assert_allclose(dx, gradients[0], rtol=0, atol=64 * eps * np.sqrt(mean))
    frozen = ops.batch_norm_inference_backward(dy, x, one, found, variance, EPS, True)
    for sums in ((dgamma, dbeta), frozen[1:]):
        for actual, wanted in zip(sums, gradients[1:], strict=True):
            # Runs of up to 256 terms are added in float32, which errs by a few eps of their sum.
            assert_allclose(actual, wanted, rtol=0, atol=4 * eps * np.abs(dy).sum() / 5)


def test_a_constant_channel_becomes_beta():
    x = np.full((3, 5, 7, 6), 0.1, "float32")
    y, mean, variance = ops.batch_norm(x, np.ones(6, "float32"), np.full(6, 2, "float32"), EPS)
    assert np.all(y == 2) and np.all(variance < 1e-30)
    assert_allclose(mean, np.float32(0.1), rtol=1e-15)


@pytest.mark.parametrize("shape", [(8, 40, 41, 37), (500, 37), (2, 30, 300)])
def test_offset_and_threads_change_no_bit(rng, shape):
    def run(x, gamma, beta, dy):
        y, mean, variance = ops.batch_norm(x, gamma, beta, EPS)
        back = ops.batch_norm_backward(dy, x, gamma, mean, variance, EPS)
        inference = ops.batch_norm_inference(x, gamma, beta, mean, variance, EPS)
        frozen = ops.batch_norm_inference_backward(dy, x, gamma, mean, variance, EPS, True)
        return y, mean, variance, *back, inference, *frozen

    arrays = problem(rng, shape)
    with cycnn.num_threads(1):
        expected = run(*arrays)
    with cycnn.num_threads(2):
        assert all(map(same_bits, run(*arrays), expected))
    for offset in (4, 36, 60):
        assert all(map(same_bits, run(*(at_offset(a, offset) for a in arrays)), expected))


def test_inference_does_not_depend_on_the_rows(rng):
    x, gamma, beta, _ = problem(rng, (5, 9, 8, 21))
    mean, variance = rng.normal(size=21), rng.uniform(0.5, 2, 21)
    y = ops.batch_norm_inference(x, gamma, beta, mean, variance, EPS)
    for rows in ([3], [4, 1], [0, 0, 4, 3, 2, 1, 2]):
        part = ops.batch_norm_inference(x[rows], gamma, beta, mean, variance, EPS)
        assert same_bits(part, y[rows])


def test_wrong_arguments_are_named():
    x, one = np.zeros((2, 3, 4), "float32"), np.ones(4, "float32")
    with pytest.raises(ValueError, match="gamma"):
        ops.batch_norm(x, one[:3], one, EPS)
    with pytest.raises(ValueError, match="beta"):
        ops.batch_norm(x, one, one[:3], EPS)
    with pytest.raises(ValueError, match="at least 2 values per channel"):
        ops.batch_norm(x[:1, :1], one, one, EPS)
