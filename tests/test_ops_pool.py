"""Pooling against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn
from cycnn import ops

from . import reference
from .helpers import DTYPES, assert_near, at_offset, integers, normal, same_bits


def case(x, pool, **options):
    """Name one configuration."""
    label = "x".join(map(str, x)) + f" {pool} " + " ".join(map(str, options.values()))
    return pytest.param(x, pool, options, id=label.replace(" ", "_"))


GLOBAL_SHAPES = [
    (2, 3, 5, 37), (1, 1, 1, 3), (13, 7, 5), (2, 3, 2, 4, 70), (2, 3, 1100), (2, 3, 3, 1100),
]  # fmt: skip
CASES = [
    case((2, 6, 8, 5), 2),
    case((1, 1, 1, 1), 1),
    case((2, 7, 9, 37), 3, stride=2),
    case((2, 7, 9, 70), 3, stride=2, padding=1),
    case((13, 2, 2, 96), 2),
    case((13, 4, 4, 96), 2, stride=1),
    case((2, 7, 9, 5), (2, 3), stride=(3, 1), padding=((1, 0), (0, 1))),
    case((2, 7, 9, 5), 3, padding="same"),
    case((2, 8, 9, 5), 2, stride=2, padding="same"),
    case((2, 7, 10, 5), 2, stride=3),
    case((2, 7, 9, 5), 2, ceil_mode=True),
    case((2, 7, 10, 3), 3, stride=2, padding=1, ceil_mode=True),
    case((2, 6, 8, 3), 3, stride=4, padding=1, ceil_mode=True),
    case((2, 6, 8, 3), 2, stride=3, padding=1, ceil_mode=True),
    case((2, 9, 11, 5), 3, stride=2, dilation=2),
    case((2, 9, 11, 5), 2, stride=1, dilation=3, padding=1),
    case((2, 9, 11, 5), 3, stride=2, dilation=2, padding=1, ceil_mode=True),
    case((2, 17, 5), 3, stride=2),
    case((2, 17, 37), 4, padding="same", stride=3),
    case((1, 4, 5, 6, 7), 2),
    case((2, 5, 4, 5, 3), (3, 2, 1), stride=(2, 1, 2), padding=((1, 1), (0, 1), (0, 0))),
    case((1, 20, 18, 3), 16, stride=1),
    case((1, 40, 38, 3), 20, stride=9),
    *(
        case(x, pool, padding_mode=mode, **options)
        for mode in ("reflect", "replicate", "circular")
        for x, pool, options in [
            ((2, 7, 9, 5), 3, {"stride": 2, "padding": 1}),
            ((2, 7, 8, 5), 3, {"stride": 1, "padding": "same"}),
            ((2, 9, 19), 2, {"stride": 2, "padding": 1, "dilation": 2}),
        ]
    ),
]
each_case = pytest.mark.parametrize("shape, pool, options", CASES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def plain(options):
    """Return the options in the names of the reference."""
    return {"mode" if k == "padding_mode" else k: v for k, v in options.items()}


@each_dtype
@each_case
def test_max_pool_and_its_gradient_are_exact(rng, shape, pool, options, dtype):
    x = integers(rng, shape, dtype)  # few values, so that windows have ties
    expected = reference.max_pool(x, pool, **plain(options))
    y, offset = ops.max_pool(x, pool, **options)
    assert y.dtype == dtype
    assert_array_equal(y, expected)
    dy = integers(rng, y.shape, dtype)
    dx = ops.max_pool_backward(dy, offset, x.shape, pool, **options)
    assert dx.dtype == dtype
    assert_array_equal(dx, reference.max_pool_backward(dy, x, pool, **plain(options)))


@each_dtype
@pytest.mark.parametrize("count_include_pad", [False, True])
@each_case
def test_avg_pool_and_its_gradient(rng, shape, pool, options, count_include_pad, dtype):
    x, options = normal(rng, shape, dtype), options | {"count_include_pad": count_include_pad}
    expected = reference.avg_pool(x, pool, **plain(options))
    y = ops.avg_pool(x, pool, **options)
    assert y.dtype == dtype
    terms = np.prod(reference.per_axis(pool, len(shape) - 2))
    assert_near(y, expected, reference.avg_pool(np.abs(x), pool, **plain(options)), terms)
    dy = normal(rng, y.shape, dtype)
    dx = ops.avg_pool_backward(dy, x.shape, pool, **options)
    expected = reference.avg_pool_backward(dy, x.shape, pool, **plain(options))
    magnitude = reference.avg_pool_backward(np.abs(dy), x.shape, pool, **plain(options))
    assert_near(dx, expected, magnitude, terms)


@each_dtype
@pytest.mark.parametrize("shape", GLOBAL_SHAPES)
def test_global_avg_pool_and_its_gradient(rng, shape, dtype):
    x, axes = normal(rng, shape, dtype), tuple(range(1, len(shape) - 1))
    terms = np.prod(shape[1:-1])
    y = ops.global_avg_pool(x)
    expected = x.astype("float64").mean(axes)
    assert_near(y, expected, np.abs(x).astype("float64").mean(axes), terms)
    dy = normal(rng, y.shape, dtype)
    dx = ops.global_avg_pool_backward(dy, x.shape)
    expected = np.broadcast_to(dy.reshape(len(dy), *(1 for _ in axes), -1) / terms, shape)
    assert_near(dx, expected, np.abs(expected), 2)


@each_dtype
@pytest.mark.parametrize("C", [1, 7, 40])
def test_nan_wins_the_maximum_wherever_it_stands(rng, dtype, C):
    x = normal(rng, (1, 2, 18, C), dtype)
    for tap in range(4):
        x[0, tap // 2, 4 * tap + tap % 2] = np.nan
    x[0, 1, 17] = -np.inf
    y, _ = ops.max_pool(x, 2)
    assert_array_equal(y, reference.max_pool(x, 2))


def test_border_never_wins_the_maximum():
    x = np.full((1, 3, 3, 5), -np.inf, "float32")
    y, offset = ops.max_pool(x, 3, stride=1, padding=1)
    assert np.all(y == -np.inf)
    dx = ops.max_pool_backward(np.ones_like(y), offset, x.shape, 3, stride=1, padding=1)
    assert dx.sum() == y.size


def test_a_window_that_holds_no_pixel():
    x, options = np.full((1, 1, 5), 7, "float32"), {"stride": 1, "dilation": 3, "padding": 2}
    y, offset = ops.max_pool(x, 2, **options)
    assert_array_equal(y, np.full((1, 2, 5), -np.inf))
    assert_array_equal(ops.max_pool_backward(y, offset, x.shape, 2, **options), 0 * x)
    assert_array_equal(ops.avg_pool(x, 2, **options), np.zeros(y.shape))
    assert_array_equal(ops.avg_pool_backward(y, x.shape, 2, **options), 0 * x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape, pool, options",
    [
        ((2, 8, 9, 21), 2, {}), ((2, 7, 6, 3), 3, {"stride": 1, "padding": 1}),
        ((1, 20, 20, 5), (15, 17), {"stride": 1}), ((1, 20, 20, 5), 16, {"stride": 2}),
        ((1, 300, 4), 257, {"stride": 5}),
    ],
)  # fmt: skip
def test_the_mask_of_a_relu_before_it(rng, shape, pool, options, dtype):
    z = normal(rng, shape, dtype)
    z[:, :4] -= 3  # whole windows of zeros
    z.flat[::11] = 0
    z.flat[7], z.flat[-3] = np.nan, -0.0
    x = ops.relu(z)
    y, offset = ops.max_pool(x, pool, **options)
    again, masked = ops.max_pool(x, pool, **options, rectified=True)
    assert same_bits(again, y)
    dy = normal(rng, y.shape, dtype)
    expected = ops.relu_backward(ops.max_pool_backward(dy, offset, shape, pool, **options), x)
    assert same_bits(ops.max_pool_backward(dy, masked, shape, pool, **options), expected)


@pytest.mark.parametrize("pool", ["max", "avg", "global"])
def test_offset_rows_and_threads_change_no_bit(rng, pool):
    def run(x, dy):
        if pool == "max":
            y, offset = ops.max_pool(x, 3, stride=2, padding=1)
            dx = ops.max_pool_backward(dy[:, : y.shape[1]], offset, x.shape, 3, stride=2, padding=1)
        elif pool == "avg":
            y = ops.avg_pool(x, 3, stride=2, padding=1)
            dx = ops.avg_pool_backward(dy, x.shape, 3, stride=2, padding=1)
        else:
            y = ops.global_avg_pool(x)
            dx = ops.global_avg_pool_backward(np.ascontiguousarray(dy[:, 0, 0]), x.shape)
        return y, dx

    x, dy = normal(rng, (5, 60, 61, 37)), normal(rng, (5, 30, 31, 37))
    with cycnn.num_threads(1):
        expected = run(x, dy)
    with cycnn.num_threads(2):
        assert all(map(same_bits, run(x, dy), expected))
    for offset in (4, 36, 60):
        assert all(map(same_bits, run(at_offset(x, offset), at_offset(dy, offset)), expected))
    for rows in ([3], [4, 1], [0, 0, 4, 3, 2, 1, 2]):
        part = (a[rows] for a in expected)
        assert all(map(same_bits, run(x[rows], dy[rows]), part))


X = np.zeros((2, 6, 7, 3), "float32")


@pytest.mark.parametrize("op", [ops.max_pool, ops.avg_pool])
@pytest.mark.parametrize(
    "x, pool, options, message",
    [
        (X, 8, {}, "8.*6|6.*8"),
        (X, 0, {}, "pool_size.*0"),
        (X, (2, 2, 2), {}, "pool_size"),
        (X, 2, {"stride": -1}, "stride.*-1"),
        (X, 2, {"dilation": 0}, "dilation.*0"),
        (X, 2, {"padding": -1}, "padding.*-1"),
        (X, 2, {"padding": 2}, "padding.*2"),
        (X, 3, {"padding": ((0, 2), (1, 1))}, "padding.*2"),
        (X, 2, {"padding_mode": "mirror"}, "padding_mode.*mirror"),
        (X[0, 0], 2, {}, "axes|rank|dimension|shape"),
        (X[:, :0], 1, {}, "0"),
    ],
)
def test_wrong_arguments_are_named(op, x, pool, options, message):
    with pytest.raises(ValueError, match=message):
        op(x, pool, **options)


def test_empty_batch():
    y, offset = ops.max_pool(X[:0], 2)
    assert y.shape == (0, 3, 3, 3)
    assert ops.max_pool_backward(y, offset, (0, 6, 7, 3), 2).shape == (0, 6, 7, 3)
    assert ops.avg_pool(X[:0], 2).shape == (0, 3, 3, 3)
    assert ops.global_avg_pool(X[:0]).shape == (0, 3)
