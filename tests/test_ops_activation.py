"""Activations: densely against float64, at the edges of the range, and in memory."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn
from cycnn import ops

from . import reference_activation as reference
from .helpers import DTYPES, at_offset, integers, normal, same_bits

each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_function = pytest.mark.parametrize("function", reference.FUNCTIONS)

# Errors in units of eps, relative to the value (and to x times the slope of a factor, for the last
# three): exp, log and the rest of vmath.pxd err by 1 or 2, and the formulas add a few roundings.
UNITS = {
    "gelu": 8, "exp": 2, "log": 2, "sigmoid": 4, "tanh": 5, "softplus": 4, "elu": 4, "silu": 5,
    "mish": 8, "hard_sigmoid": 2, "hard_swish": 3, "softsign": 3, "leaky_relu": 1, "clip": 0,
}  # fmt: skip


def dense(rng, function, dtype):
    """Return numbers of every size at which the function says something."""
    top = 85.0 if dtype == "float32" else 700.0
    if function in ("gelu", "gelu_tanh"):
        top = 9.0 if dtype == "float32" else 30.0
    if function == "log":
        sizes = np.exp(rng.uniform(-85, 85, 6000))
        return np.concatenate([sizes, np.linspace(0.3, 3, 4001)]).astype(dtype)
    spread = np.concatenate([
        rng.uniform(-top, top, 6000), np.linspace(-8, 8, 8001), 1e-3 * rng.standard_normal(999),
        np.exp(rng.uniform(-80, 0, 300)), -np.exp(rng.uniform(-80, 0, 300)),
    ])  # fmt: skip
    return spread.astype(dtype)


def steepness(function, x, dtype):
    """Return how many eps of itself a value moves for the roundings inside the formula.

    The reference, in float64, rounds the argument of erfc, which float64 kernels are spared.
    """
    if function == "gelu_tanh":  # by the exponent, which is rounded
        return 8 + 4 * np.abs(reference.tanh_argument(x)[0])
    return UNITS[function] + (x * x if function == "gelu" and x.dtype == dtype else 0 * x)


@each_dtype
@each_function
def test_values_are_right_to_a_few_units(rng, function, dtype):
    constants, value, _ = reference.FUNCTIONS[function]
    x = dense(rng, function, dtype)
    y = ops.activation(x, function, *constants)
    assert y.dtype == dtype
    wide = x.astype("float64")
    expected = value(wide)
    # The reference itself is float64: it errs by as much as the float64 kernels do.
    units = steepness(function, wide, dtype) * (1 if dtype == "float32" else 2)
    bound = np.finfo(dtype).eps * units * np.abs(expected) + 4 * np.finfo(dtype).smallest_subnormal
    error = np.abs(y - expected)
    assert np.all(error <= bound), (np.max(error / bound), x[np.argmax(error / bound)])


@each_dtype
@each_function
def test_slopes(rng, function, dtype):
    constants, _, slope = reference.FUNCTIONS[function]
    x = dense(rng, function, dtype)
    dy = normal(rng, x.shape, dtype)
    dx = ops.activation_backward(dy, x, function, *constants)
    assert dx.dtype == dtype
    wide = x.astype("float64")
    expected = dy * slope(wide)
    units = 16.0
    if function in ("gelu", "gelu_tanh", "silu", "mish", "hard_swish"):  # sums, 0 somewhere
        u = np.abs(reference.tanh_argument(wide)[0]) if function == "gelu_tanh" else 0 * wide
        units = 16 + 8 * u
        magnitude = np.abs(dy) * (np.abs(slope(wide)) + np.abs(wide) * np.minimum(
            1, np.exp(-np.abs(wide))) * (1 + np.abs(wide)) ** 2)  # fmt: skip
    else:
        magnitude = np.abs(expected)
    bound = np.finfo(dtype).eps * units * magnitude + 16 * np.finfo(dtype).smallest_subnormal
    error = np.abs(dx - expected)
    assert np.all(error <= bound), (np.max(error / bound), x[np.argmax(error / bound)])


@each_dtype
@each_function
def test_integers_are_exact_where_the_function_is(rng, function, dtype):
    if function not in ("clip", "hard_swish", "leaky_relu"):
        pytest.skip("never exact")
    x, dy = integers(rng, (7, 19), dtype, -9, 10), integers(rng, (7, 19), dtype)
    constants = {"clip": (-3, 6), "leaky_relu": (0.25,)}.get(function, ())
    if function == "clip":
        expected = np.clip(x, -3, 6), dy * ((x > -3) & (x < 6))
    elif function == "leaky_relu":
        expected = np.where(x > 0, x, x / 4), np.where(x > 0, dy, dy / 4)
    else:
        x = 3 * x  # y is 0 or x, but for 0
        expected = np.maximum(x, 0), np.where(x > 0, dy, np.where(x < 0, 0, dy / 2))
    assert_array_equal(ops.activation(x, function, *constants), expected[0])
    assert_array_equal(ops.activation_backward(dy, x, function, *constants), expected[1])


@each_dtype
def test_the_edges_of_the_range(dtype):
    info = np.finfo(dtype)
    x = np.array([np.inf, -np.inf, np.nan, info.max, -info.max, 0, info.smallest_subnormal], dtype)
    zero, one, nan, inf = 0.0, 1.0, np.nan, np.inf
    half = np.float64(0.5)
    expected = {
        "clip": [2.5, -1.5, nan, 2.5, -1.5, zero],
        "gelu": [inf, zero, nan, info.max, zero, zero],
        "gelu_tanh": [inf, zero, nan, info.max, zero, zero],
        "silu": [inf, zero, nan, info.max, zero, zero],
        "mish": [inf, zero, nan, info.max, zero, zero],
        "sigmoid": [one, zero, nan, one, zero, half],
        "tanh": [one, -one, nan, one, -one, zero],
        "hard_sigmoid": [one, zero, nan, one, zero, half],
        "hard_swish": [inf, zero, nan, None, zero, zero],
        "softplus": [inf, zero, nan, info.max, zero, np.log(2) / 0.5],
        "softsign": [one, -one, nan, one, -one, zero],
        "exp": [inf, zero, nan, inf, zero, one],
        "log": [inf, nan, nan, np.log(info.max), nan, -inf],
        "leaky_relu": [inf, -inf, nan, info.max, None, zero],
        "elu": [inf, -0.75, nan, None, -0.75, zero],
    }
    assert set(expected) == set(reference.FUNCTIONS)
    for function, wanted in expected.items():
        constants = reference.FUNCTIONS[function][0]
        y = ops.activation(x, function, *constants)
        for a, e in zip(y, wanted, strict=False):
            if e is not None:
                np.testing.assert_allclose(a, e, rtol=4 * info.eps, err_msg=function)
        dx = ops.activation_backward(np.ones_like(x), x, function, *constants)
        if function not in ("exp", "log"):
            assert np.isfinite(np.delete(dx, 2)).all(), function


@each_dtype
def test_results_underflow_gradually(dtype):
    info = np.finfo(dtype)
    low = np.log(float(info.smallest_subnormal))
    x = np.linspace(low - 3, np.log(float(info.tiny)) + 1, 1001).astype(dtype)
    for function in ("exp", "sigmoid"):
        y = ops.activation(x, function)
        expected = np.exp(x.astype("longdouble"))
        assert np.all(np.abs(y - expected) <= info.smallest_subnormal + 4 * info.eps * expected)
    tiny = np.array([info.smallest_subnormal, 7 * info.smallest_subnormal, info.tiny / 2], dtype)
    assert_array_equal(ops.activation(tiny, "tanh"), tiny)
    assert_array_equal(ops.activation(-tiny, "elu", 1, 1, 1), -tiny)
    np.testing.assert_allclose(
        ops.activation(tiny, "log"), np.log(tiny.astype("longdouble")).astype(dtype), rtol=2e-7
    )


@each_function
@pytest.mark.parametrize("count", [0, 1, 37, 4096, 9001])
def test_place_and_threads_change_no_bit(rng, function, count):
    constants = reference.FUNCTIONS[function][0]
    x, dy = np.abs(normal(rng, count)), normal(rng, count)
    with cycnn.num_threads(1):
        y = ops.activation(x, function, *constants)
        dx = ops.activation_backward(dy, x, function, *constants)
    for offset in (4, 36, 60):
        moved, moved_dy = at_offset(x, offset), at_offset(dy, offset)
        assert same_bits(ops.activation(moved, function, *constants), y)
        assert same_bits(ops.activation_backward(moved_dy, moved, function, *constants), dx)
    assert same_bits(ops.activation(x[3:], function, *constants), y[3:])


SHAPES = [(1, 1), (3, 5), (2, 3, 4, 37), (500, 3), (13, 1, 1, 96), (2, 70, 129)]


@each_dtype
@pytest.mark.parametrize("shape", SHAPES)
def test_prelu_is_exact_on_integers(rng, shape, dtype):
    x, dy, slope = (integers(rng, s, dtype) for s in (shape, shape, shape[-1:]))
    assert_array_equal(ops.prelu(x, slope), np.where(x > 0, x, slope * x))
    dx, dslope = ops.prelu_backward(dy, x, slope)
    assert_array_equal(dx, np.where(x > 0, dy, slope * dy))
    assert_array_equal(dslope, (dy * x * (x <= 0)).reshape(-1, shape[-1]).sum(0))
    nothing, again = ops.prelu_backward(dy, x, slope, False)
    assert nothing is None and same_bits(again, dslope)


@each_dtype
@pytest.mark.parametrize("K", [1, 2, 7, 16, 37, 1000, 5003])
def test_softmax(rng, K, dtype):
    x, dy = (3 * normal(rng, (6, 2, K))).astype(dtype), normal(rng, (6, 2, K), dtype)
    eps, wide = np.finfo(dtype).eps, x.astype("float64")
    y, expected = ops.softmax(x), reference.softmax(wide)
    # x - top rounds, by eps / 2 of up to `reach`; blocks of 64 vectors are added in float64.
    reach = np.ptp(wide, axis=-1, keepdims=True)
    assert y.dtype == dtype
    assert np.all(np.abs(y - expected) <= (16 + 64 + reach) * eps * expected)
    dx = ops.softmax_backward(dy, y)
    dot = (dy * y.astype("float64")).sum(-1, keepdims=True)
    size = np.abs(y) * (np.abs(dy) + (np.abs(dy) * y).sum(-1, keepdims=True))
    assert np.all(np.abs(dx - y * (dy - dot)) <= (8 + 64) * eps * size + np.finfo(dtype).tiny)
    log, expected = ops.log_softmax(x), reference.log_softmax(wide)
    assert np.all(np.abs(log - expected) <= (80 + reach) * eps * (1 + np.abs(expected)))
    dx = ops.log_softmax_backward(dy, log)
    total, p = dy.astype("float64").sum(-1, keepdims=True), np.exp(log.astype("float64"))
    size = np.abs(dy) + p * np.abs(dy).sum(-1, keepdims=True)
    assert np.all(np.abs(dx - (dy - p * total)) <= (8 + 64) * eps * size)


@each_dtype
def test_softmax_of_the_extreme(dtype):
    x = np.array([[1e4, 0, -1e4], [-1e30] * 3, [3e38, 0, -3e38], [0, -np.inf, 0]], dtype)
    third, half = 1 / 3, 0.5
    expected = [[1, 0, 0], [third] * 3, [1, 0, 0], [half, 0, half]]
    np.testing.assert_allclose(ops.softmax(x), expected, rtol=1e-6)
    np.testing.assert_allclose(ops.log_softmax(x)[0], [0, -1e4, -2e4])
    for row in ([np.nan, 0, 1], [0, 1, np.nan], [-np.inf] * 3, [np.inf, 0, 0]):
        y = ops.softmax(np.array([row, [0, 0, 0]], dtype))
        assert np.isnan(y[0]).any() and np.all(np.isfinite(y[1]))


def test_softmax_place_and_threads_change_no_bit(rng):
    x, dy = normal(rng, (900, 101)), normal(rng, (900, 101))

    def run(x, dy):
        y, log = ops.softmax(x), ops.log_softmax(x)
        return y, log, ops.softmax_backward(dy, y), ops.log_softmax_backward(dy, log)

    with cycnn.num_threads(1):
        expected = run(x, dy)
    with cycnn.num_threads(2):
        assert all(map(same_bits, run(x, dy), expected))
    for offset in (4, 36, 60):
        actual = run(at_offset(x, offset), at_offset(dy, offset))
        assert all(map(same_bits, actual, expected))
    assert all(same_bits(a, e[7:9]) for a, e in zip(run(x[7:9], dy[7:9]), expected, strict=True))


def test_wrong_arguments_are_named():
    x, y = np.zeros((2, 3), "float32"), np.zeros((2, 4), "float32")
    with pytest.raises(ValueError, match=r"function must be one of clip.*'swish'"):
        ops.activation(x, "swish")
    for backward in (ops.softmax_backward, ops.log_softmax_backward):
        with pytest.raises(ValueError, match=r"dy must have shape \(2, 4\), got \(2, 3\)"):
            backward(x, y)
    with pytest.raises(ValueError, match=r"dy must have shape \(2, 4\)"):
        ops.activation_backward(x, y, "tanh")
    with pytest.raises(ValueError, match=r"slope must have one value for each channel.*\(4,\)"):
        ops.prelu(x, np.zeros(4, "float32"))
    with pytest.raises(ValueError, match="at least one channel"):
        ops.softmax(np.zeros((2, 0)))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: cycnn.Clip(1, 1), "low must be below high, got 1 and 1"),
        (lambda: cycnn.Clip(float("nan"), 1), "low must be a number, got nan"),
        (lambda: cycnn.LeakyReLU(float("inf")), "slope must be a finite number, got inf"),
        (lambda: cycnn.ELU(0), "ELU: alpha must be a finite number above 0, got 0"),
        (lambda: cycnn.CELU(-1), "CELU: alpha must be a finite number above 0, got -1"),
        (lambda: cycnn.Softplus(0), "beta must be a finite number above 0, got 0"),
        (lambda: cycnn.PReLU(float("inf")), "start must be a finite number, got inf"),
        (lambda: cycnn.GELU("erf"), "approximate must be 'none' or 'tanh', got 'erf'"),
    ],
)
def test_wrong_layers_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_word_is_no_number():
    with pytest.raises(TypeError, match="alpha must be a number, got 'big'"):
        cycnn.ELU("big")
