"""Batch normalisation against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

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
    y, how = ops.batch_norm(x, gamma, beta, EPS)
    mean, variance = how.mean, how.variance
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
    _, how = ops.batch_norm(x, gamma, np.zeros_like(gamma), EPS)
    dx, dgamma, dbeta, dresidual = ops.batch_norm_backward(dy, x, gamma, how, input_gradient)
    assert dresidual is None
    expected = reference.batch_norm_backward(dy, x, gamma, EPS)
    # Sums of n terms of unit size err like n eps at worst.
    terms, eps = x[..., 0].size, np.finfo(dtype).eps
    amplify = (1 / np.sqrt(how.variance + EPS)).max() * max(1.0, np.abs(x).max())
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
    y, how = ops.batch_norm_inference(x, gamma, beta, mean, variance, EPS)
    assert y.dtype == dtype
    magnitude = np.abs(scale) * (np.abs(x) + np.abs(mean)) + np.abs(beta)
    expected = scale * (x.astype("float64") - mean) + beta
    assert np.all(np.abs(y - expected) <= 8 * eps * magnitude)
    axes, x64, dy64 = tuple(range(x.ndim - 1)), x.astype("float64"), dy.astype("float64")
    normalised = (x64 - mean) / np.sqrt(variance + EPS)
    gradients = ops.batch_norm_backward(dy, x, gamma, how)[:3]
    expected = dy64 * scale, (dy64 * normalised).sum(axes), dy64.sum(axes)
    terms = x[..., 0].size
    factors = 8, 16 * terms, 4 * terms
    for actual, wanted, rounding in zip(gradients, expected, factors, strict=True):
        assert_allclose(actual, wanted, rtol=0, atol=rounding * eps * (1 + np.abs(x).max()) * 4)
    assert ops.batch_norm_backward(dy, x, gamma, how, False)[0] is None


@pytest.mark.parametrize("mean", [10.0, 1e4])
def test_a_large_mean_costs_no_digits(rng, mean):  # statistics are float64
    shape, one, zero = (16, 20, 20, 5), np.ones(5, "float32"), np.zeros(5, "float32")
    x = (rng.standard_normal(shape) + mean).astype("float32")
    dy = (rng.standard_normal(shape) + 1).astype("float32")
    y, how = ops.batch_norm(x, one, zero, EPS)
    dx, *sums, _ = ops.batch_norm_backward(dy, x, one, how)
    eps = np.finfo("float32").eps
    expected = reference.batch_norm(x, one, zero, EPS)
    assert_allclose(how.variance, expected[2], rtol=64 * eps)
    assert_allclose(y, expected[0], rtol=0, atol=64 * eps * np.sqrt(mean))
    again, constant = ops.batch_norm_inference(x, one, zero, how.mean, how.variance, EPS)
    assert_allclose(again, y, rtol=0, atol=64 * eps)
    gradients = reference.batch_norm_backward(dy, x, one, EPS)
    assert_allclose(dx, gradients[0], rtol=0, atol=64 * eps * np.sqrt(mean))
    for found in (sums, ops.batch_norm_backward(dy, x, one, constant)[1:3]):
        for actual, wanted in zip(found, gradients[1:], strict=True):
            # Runs of up to 256 terms are added in float32, which errs by a few eps of their sum.
            assert_allclose(actual, wanted, rtol=0, atol=4 * eps * np.abs(dy).sum() / 5)


@each_dtype
@pytest.mark.parametrize("rows", [slice(1), slice(7), slice(690, 700), slice(0, 700, 5)], ids=str)
@pytest.mark.parametrize("away", [3.0, 1e3, 1e6])
def test_rows_unlike_the_others_cost_few_digits(rng, rows, away, dtype):
    x = normal(rng, (700, 40), dtype)
    x[rows] += np.asarray(away, dtype)  # sums are of differences to one of three rows
    mean, variance = ops.norm.channel_statistics(x)
    eps, exact = np.finfo(dtype).eps, x.astype("longdouble")
    assert_allclose(mean, exact.mean(0).astype(float), rtol=0, atol=16 * eps * np.abs(x).mean())
    assert_allclose(variance, exact.var(0).astype(float), rtol=32 * eps)


def test_a_constant_channel_becomes_beta():
    x = np.full((3, 5, 7, 6), 0.1, "float32")
    y, how = ops.batch_norm(x, np.ones(6, "float32"), np.full(6, 2, "float32"), EPS)
    assert np.all(y == 2) and np.all(how.variance < 1e-30)
    assert_allclose(how.mean, np.float32(0.1), rtol=1e-15)


# A residual and an activation in the same passes

AFTER = [(None, 0.0), ("relu", 0.0), ("leaky_relu", 0.25), ("leaky_relu", 0.0)]
each_activation = pytest.mark.parametrize("activation, slope", AFTER)
each_way = pytest.mark.parametrize("joined", [False, True], ids=["alone", "with a residual"])


def apart(x, gamma, beta, dy, residual, activation, slope, given):
    """Return what one op after another gives: y, dx, dgamma, dbeta and dresidual."""
    if given:
        z, how = ops.batch_norm_inference(x, gamma, beta, *given, EPS)
    else:
        z, how = ops.batch_norm(x, gamma, beta, EPS)
    added = z if residual is None else ops.add((z, residual))
    if activation == "relu":
        y = ops.relu(added)
        g = ops.relu_backward(dy, y)
    elif activation:
        y = ops.activation(added, activation, slope)
        g = ops.activation_backward(dy, added, activation, slope)
    else:
        y, g = added, dy
    return y, *ops.batch_norm_backward(g, x, gamma, how)[:3], g


@each_dtype
@each_shape
@each_way
@each_activation
@pytest.mark.parametrize("given", [False, True], ids=["batch", "given"])
def test_joined_passes_have_the_bits_of_single_ones(
    rng, shape, dtype, joined, activation, slope, given
):
    x, gamma, beta, dy = problem(rng, shape, dtype)
    residual = normal(rng, shape, dtype) if joined else None
    statistics = (rng.normal(size=shape[-1]), rng.uniform(0.5, 2, shape[-1])) if given else ()
    function = ops.batch_norm_inference if given else ops.batch_norm
    y, how = function(
        x, gamma, beta, *statistics, EPS, residual=residual, activation=activation, slope=slope
    )
    *gradients, dresidual = ops.batch_norm_backward(dy, x, gamma, how, y=y)
    expected = apart(x, gamma, beta, dy, residual, activation, slope, statistics)
    for actual, wanted in zip((y, *gradients), expected, strict=False):
        assert same_bits(actual, wanted)
    assert same_bits(dresidual, expected[-1]) if joined else dresidual is None
    assert ops.batch_norm_backward(dy, x, gamma, how, False, y=y)[0] is None
    place = dy.copy()
    results = ops.batch_norm_backward(place, x, gamma, how, y=y, overwrite=True)
    for actual, wanted in zip(results, (*gradients, dresidual), strict=True):
        assert actual is wanted is None or same_bits(actual, wanted)
    assert any(result is place for result in results)


@each_way
@each_activation
def test_the_gradients_are_slopes(rng, joined, activation, slope):
    shape = 4, 3, 5
    x, gamma, beta, dy = problem(rng, shape, "float64")
    residual = normal(rng, shape, "float64")

    def forward(x, gamma, beta, residual):
        more = {"residual": residual} if joined else {}
        return ops.batch_norm(x, gamma, beta, EPS, **more, activation=activation, slope=slope)

    arguments = [x, gamma, beta, residual]
    y, how = forward(*arguments)
    gradients = ops.batch_norm_backward(dy, x, gamma, how, y=y)
    for i, gradient in enumerate(gradients if joined else gradients[:3]):
        direction = normal(rng, arguments[i].shape, "float64")
        sides = []
        for step in (1e-6, -1e-6):
            moved = list(arguments)
            moved[i] = moved[i] + step * direction
            sides.append((forward(*moved)[0] * dy).sum())
        assert_allclose((sides[0] - sides[1]) / 2e-6, (gradient * direction).sum(), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -0.0])
@each_way
@each_activation
def test_special_values_have_the_bits_of_single_ops(value, joined, activation, slope):
    x = np.linspace(-2, 2, 36, dtype="float32").reshape(3, 4, 3)
    x[1, 2, 1] = value
    residual = -x if joined else None
    one, zero = np.ones(3, "float32"), np.zeros(3, "float32")
    given = np.zeros(3), np.ones(3)
    options = {"residual": residual, "activation": activation, "slope": slope}
    y, how = ops.batch_norm_inference(x, one, zero, *given, EPS, **options)
    found = y, *ops.batch_norm_backward(x, x, one, how, y=y)[:3]
    expected = apart(x, one, zero, x, residual, activation, slope, given)
    for actual, wanted in zip(found, expected, strict=False):  # which NaN it is may differ
        assert_array_equal(np.isnan(actual), np.isnan(wanted))
        assert same_bits(np.nan_to_num(actual), np.nan_to_num(wanted))


@pytest.mark.parametrize("shape", [(8, 40, 41, 37), (500, 37), (2, 30, 300)])
@each_way
def test_offset_and_threads_change_no_bit(rng, shape, joined):
    after = {"activation": "relu"}

    def run(x, gamma, beta, dy, residual):
        more = {**after, "residual": residual} if joined else after
        y, how = ops.batch_norm(x, gamma, beta, EPS, **more)
        back = ops.batch_norm_backward(dy, x, gamma, how, y=y)
        inference, constant = ops.batch_norm_inference(
            x, gamma, beta, how.mean, how.variance, EPS, **more
        )
        frozen = ops.batch_norm_backward(dy, x, gamma, constant, y=y)
        ends = (back[3], frozen[3]) if joined else ()
        return y, how.mean, how.variance, *back[:3], inference, *frozen[:3], *ends

    arrays = *problem(rng, shape), normal(rng, shape)
    with cycnn.num_threads(1):
        expected = run(*arrays)
    with cycnn.num_threads(2):
        assert all(map(same_bits, run(*arrays), expected))
    for offset in (4, 36, 60):
        assert all(map(same_bits, run(*(at_offset(a, offset) for a in arrays)), expected))


def test_inference_does_not_depend_on_the_rows(rng):
    x, gamma, beta, _ = problem(rng, (5, 9, 8, 21))
    mean, variance = rng.normal(size=21), rng.uniform(0.5, 2, 21)
    y, _ = ops.batch_norm_inference(x, gamma, beta, mean, variance, EPS)
    for rows in ([3], [4, 1], [0, 0, 4, 3, 2, 1, 2]):
        part, _ = ops.batch_norm_inference(x[rows], gamma, beta, mean, variance, EPS)
        assert same_bits(part, y[rows])


def test_wrong_arguments_are_named():
    x, one = np.zeros((2, 3, 4), "float32"), np.ones(4, "float32")
    with pytest.raises(ValueError, match="gamma"):
        ops.batch_norm(x, one[:3], one, EPS)
    with pytest.raises(ValueError, match="beta"):
        ops.batch_norm(x, one, one[:3], EPS)
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\], got 1.5"):
        ops.batch_norm(x, one, one, 1e-5, momentum=1.5)
    mean, fixed = np.zeros(4), np.zeros(4)
    fixed.flags.writeable = False
    for variance in (fixed, one):
        with pytest.raises(ValueError, match="running variance must be a writable float64 array"):
            ops.batch_norm(x, one, one, 1e-5, running=(mean, variance))
    with pytest.raises(ValueError, match="at least 2 values per channel"):
        ops.batch_norm(x[:1, :1], one, one, EPS)
    with pytest.raises(ValueError, match=r"residual must have shape \(2, 3, 4\), got \(2, 3, 1\)"):
        ops.batch_norm(x, one, one, EPS, residual=x[..., :1])
    with pytest.raises(ValueError, match="activation must be one of .* got 'tanh'"):
        ops.batch_norm(x, one, one, EPS, activation="tanh")
    with pytest.raises(ValueError, match="slope must be at least 0, got -1"):
        ops.batch_norm(x, one, one, EPS, activation="leaky_relu", slope=-1)
    _, how = ops.batch_norm(x, one, one, EPS, residual=x, activation="relu")
    with pytest.raises(ValueError, match="y must be given after a residual and an activation"):
        ops.batch_norm_backward(x, x, one, how)
