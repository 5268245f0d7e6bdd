"""Lp, adaptive and global maximum pools, indices and unpooling, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn
from cycnn import ops

from . import reference, reference_windows
from .helpers import DTYPES, assert_near, at_offset, integers, normal, same_bits
from .test_ops_pool import CASES, GLOBAL_SHAPES, plain

each_case = pytest.mark.parametrize("shape, pool, options", CASES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
ADAPTIVE = [
    ((2, 7, 9, 5), 3),
    ((2, 7, 9, 37), (4, 2)),
    ((3, 5, 4, 3), 1),
    ((2, 3, 4, 5), (7, 4)),
    ((2, 17, 19), 5),
    ((1, 5, 4, 7, 6), (2, 3, 5)),
    ((1, 40, 38, 3), 1),
]


@each_dtype
@pytest.mark.parametrize("p", [1, 2, 3.5])
@each_case
def test_lp_pool_and_its_gradient(rng, shape, pool, options, p, dtype):
    x = integers(rng, shape, dtype)  # with zeros, in which the norm has its corner
    expected = reference_windows.lp_pool(x, pool, p, **plain(options))
    y = ops.lp_pool(x, pool, p=p, **options)
    assert y.dtype == dtype
    # A power errs by an ulp, its sum by one a term; the root shrinks that and adds its own.
    terms = int(np.prod(reference.per_axis(pool, len(shape) - 2)))
    assert_near(y, expected, expected, terms + 4)
    dy = normal(rng, y.shape, dtype)
    dx = ops.lp_pool_backward(dy, x, y, pool, p=p, **options)
    expected = reference_windows.lp_pool_backward(dy, x, pool, p, **plain(options))
    magnitude = reference_windows.lp_pool_backward(np.abs(dy), np.abs(x), pool, p, **plain(options))
    assert dx.dtype == dtype
    assert_near(dx, expected, magnitude, (terms + 6) * max(p - 1, 1) + terms)


def test_powers_of_small_and_large_numbers_do_not_overflow():
    x = np.array([3e-12, 4e-12, 3e11, 4e11], "float32").reshape(1, 4, 1)
    y = ops.lp_pool(x, 2, p=3)
    dx = ops.lp_pool_backward(np.ones_like(y), x, y, 2, p=3)
    share = np.array([3, 4]) / 91 ** (1 / 3)
    assert np.allclose(y.ravel(), [91 ** (1 / 3) * 1e-12, 91 ** (1 / 3) * 1e11], rtol=1e-6)
    assert np.allclose(dx.ravel(), [*share**2, *share**2], rtol=1e-6)
    x = np.full((1, 4, 1), 1e30, "float32")
    y = ops.lp_pool(x, 2, p=2)  # 1e60 is more than float32 has, and the docstring says so
    assert np.all(np.isinf(y))
    assert_array_equal(ops.lp_pool_backward(np.ones_like(y), x, y, 2, p=2), 0 * x)


def test_nan_reaches_the_norm_and_its_gradient():
    x = np.array([1.0, np.nan, 3.0, 4.0]).reshape(1, 4, 1)
    y = ops.lp_pool(x, 2)
    assert_array_equal(y.ravel(), [np.nan, 5])
    dx = ops.lp_pool_backward(np.ones_like(y), x, y, 2)
    assert_array_equal(np.isnan(dx.ravel()), [True, True, False, False])


@each_dtype
@pytest.mark.parametrize("shape, output_size", ADAPTIVE)
def test_adaptive_pools_and_their_gradients(rng, shape, output_size, dtype):
    x = rng.permutation(int(np.prod(shape))).reshape(shape).astype(dtype)
    y, offset = ops.adaptive_max_pool(x, output_size)
    assert_array_equal(y, reference_windows.adaptive_pool(x, output_size, np.max))
    index = ops.adaptive_max_index(offset, shape, dtype, output_size)
    flat = x.reshape(len(x), -1, shape[-1])
    values = np.take_along_axis(flat, index.reshape(len(x), -1, shape[-1]), 1)
    assert_array_equal(values.reshape(y.shape), y)
    dy = integers(rng, y.shape, dtype)
    dx = ops.adaptive_max_pool_backward(dy, offset, shape, output_size)
    assert_array_equal(dx, reference_windows.unpool(dy, index, shape[1:-1]))

    y = ops.adaptive_avg_pool(x, output_size)
    expected = reference_windows.adaptive_pool(x, output_size, np.mean)
    assert y.dtype == dx.dtype == dtype
    terms = int(np.prod(shape[1:-1]))
    assert_near(y, expected, expected, terms)
    dx = ops.adaptive_avg_pool_backward(dy, shape, output_size)
    expected = reference_windows.adaptive_avg_pool_backward(dy, shape, output_size)
    magnitude = reference_windows.adaptive_avg_pool_backward(np.abs(dy), shape, output_size)
    assert_near(dx, expected, magnitude, terms)


@each_dtype
@pytest.mark.parametrize("shape", GLOBAL_SHAPES)
def test_global_max_pool_and_its_gradient_are_exact(rng, shape, dtype):
    x = integers(rng, shape, dtype)  # few values, so that there are ties
    y, index = ops.global_max_pool(x)
    flat = x.reshape(len(x), -1, shape[-1])
    assert_array_equal(y, flat.max(1))
    assert_array_equal(index, flat.argmax(1))
    dy = integers(rng, y.shape, dtype)
    dx = ops.global_max_pool_backward(dy, index, shape)
    expected = (np.arange(flat.shape[1])[:, None] == index[:, None]) * dy[:, None]
    assert y.dtype == dx.dtype == dtype
    assert_array_equal(dx, expected.reshape(shape))


@each_dtype
def test_nan_wins_the_global_maximum(dtype):
    x = np.zeros((1, 9, 19), dtype)
    x[0, 4, 3], x[0, :, 7], x[0, 2, 7] = np.nan, -np.inf, np.nan
    x[0, :, 9] = -np.inf
    y, index = ops.global_max_pool(x)
    assert np.flatnonzero(np.isnan(y)).tolist() == [3, 7]
    assert (index[0, 3], index[0, 7], index[0, 9], y[0, 9]) == (4, 2, 0, -np.inf)


def test_global_maximum_beyond_the_pixels_that_a_float_can_number():
    x = np.zeros((1, (1 << 20) + 3, 1), "float32")
    x[0, -2] = 1
    assert ops.global_max_pool(x)[1].item() == (1 << 20) + 1


@each_dtype
@each_case
def test_indices_name_the_pixels_of_the_maxima(rng, shape, pool, options, dtype):
    x = rng.permutation(int(np.prod(shape))).reshape(shape).astype(dtype)
    y, offset = ops.max_pool(x, pool, **options)
    index = ops.max_pool_index(offset, shape, dtype, pool, **options)
    flat = x.reshape(len(x), -1, shape[-1])
    values = np.take_along_axis(flat, index.reshape(len(x), -1, shape[-1]), 1)
    assert_array_equal(values.reshape(y.shape), y)
    dy = integers(rng, y.shape, dtype)
    expected = ops.max_pool_backward(dy, offset, shape, pool, **options)
    assert_array_equal(ops.max_unpool(dy, index, shape[1:-1]), expected)
    back = ops.max_unpool_backward(x, index)
    assert_array_equal(back, y)


def test_a_window_without_pixels_has_no_index_and_no_value():
    x, options = np.full((1, 1, 5), 7, "float32"), {"stride": 1, "dilation": 3, "padding": 2}
    y, offset = ops.max_pool(x, 2, **options)
    index = ops.max_pool_index(offset, x.shape, x.dtype, 2, **options)
    assert_array_equal(index, np.full(y.shape, -1))
    assert_array_equal(ops.max_unpool(y, index, (1,)), 0 * x)
    assert_array_equal(ops.max_unpool_backward(x, index), np.zeros(y.shape))


@pytest.mark.parametrize("kind", ["lp", "adaptive", "global", "unpool"])
def test_offset_rows_and_threads_change_no_bit(rng, kind):
    def run(x, dy):
        if kind == "lp":
            y = ops.lp_pool(x, 3, p=3, stride=2, padding=1)
            return y, ops.lp_pool_backward(dy, x, y, 3, p=3, stride=2, padding=1)
        if kind == "adaptive":
            y, offset = ops.adaptive_max_pool(x, (30, 31))
            average = ops.adaptive_avg_pool(x, (30, 31))
            return (
                y, average, ops.adaptive_max_pool_backward(dy, offset, x.shape, (30, 31)),
                ops.adaptive_avg_pool_backward(dy, x.shape, (30, 31)),
            )  # fmt: skip
        if kind == "global":
            y, index = ops.global_max_pool(x)
            return y, index, ops.global_max_pool_backward(y, index, x.shape)
        _, offset = ops.max_pool(x, 2)
        index = ops.max_pool_index(offset, x.shape, x.dtype, 2)
        y = ops.max_unpool(at_offset(dy[:, :, :30], 4), index, (60, 61))
        return index, y, ops.max_unpool_backward(y, index)

    x, dy = normal(rng, (5, 60, 61, 37)), normal(rng, (5, 30, 31, 37))
    with cycnn.num_threads(1):
        expected = run(x, dy)
    with cycnn.num_threads(2):
        assert all(map(same_bits, run(x, dy), expected))
    for offset in (4, 36, 60):
        assert all(map(same_bits, run(at_offset(x, offset), at_offset(dy, offset)), expected))
    for rows in ([3], [4, 1], [0, 0, 4, 3, 2, 1, 2]):
        assert all(map(same_bits, run(x[rows], dy[rows]), (a[rows] for a in expected)))


def test_an_encoder_and_decoder_share_indices(rng):
    model = cycnn.Graph(
        {
            "conv": (cycnn.Conv(4, 3, padding=1), "x"),
            "pool": (cycnn.MaxPool(2, return_indices=True), "conv"),
            "inner": (cycnn.Conv(4, 3, padding=1), "pool:0"),
            "unpool": (cycnn.MaxUnpool(2, output_size=(7, 6)), ("inner", "pool:1")),
            "out": (cycnn.ConvTranspose(1, 3, padding=1), "unpool"),
        },
        inputs={"x": (7, 6, 1)},
        outputs="out",
        rng=0,
        dtype="float64",
    )
    x = normal(rng, (2, 7, 6, 1), "float64")
    y, backward = model(x)
    assert y.shape == x.shape
    dy = normal(rng, y.shape, "float64")
    dx = backward(dy)
    direction = normal(rng, x.shape, "float64")
    ahead, behind = (model(x + s * 1e-6 * direction)[0] for s in (1, -1))
    slope = ((ahead - behind) * dy).sum() / 2e-6
    assert abs((dx * direction).sum() - slope) < 1e-6 * (1 + abs(slope))
    assert all(p.grad.any() for p in model.parameters().values())


def test_unpooling_undoes_pooling():
    model = cycnn.Sequential(
        [cycnn.MaxPool(2, return_indices=True), cycnn.MaxUnpool(2)], input_shape=(4, 6, 3)
    )
    x = np.arange(72.0).reshape(1, 4, 6, 3)
    y = model.predict(x)
    kept = y != 0
    assert_array_equal(y[kept], x[kept])
    assert kept.sum() == 18
    (pooled, index), backward = cycnn.AdaptiveMaxPool(2, return_indices=True).build((4, 6, 3))(x)
    assert index.dtype == np.int64
    dx = backward((np.ones_like(pooled), None))
    assert_array_equal(np.sort(np.flatnonzero(dx[0, ..., 0])), np.sort(index[0, ..., 0].ravel()))


X = np.zeros((2, 6, 7, 3), "float32")


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: cycnn.LpPool(2, p=0.5), ValueError, "p must be.*0.5"),
        (lambda: cycnn.LpPool(2, p=np.inf), ValueError, "p must be.*inf"),
        (lambda: cycnn.LpPool(2, p="2"), ValueError, "p must be.*'2'"),
        (lambda: cycnn.LpPool(2, padding=2), ValueError, "padding.*half.*2"),
        (lambda: cycnn.AdaptiveMaxPool(0), ValueError, "output_size.*0"),
        (lambda: cycnn.AdaptiveAvgPool((2, 1.5)), TypeError, "output_size.*1.5"),
        (lambda: cycnn.AdaptiveAvgPool((2, 2)).build((5, 3)), ValueError, "output_size.*2"),
        (lambda: cycnn.AdaptiveMaxPool(2).build((3,)), ValueError, "spatial axes"),
        (lambda: cycnn.GlobalMaxPool().build((3,)), ValueError, "GlobalMaxPool.*spatial axes"),
        (lambda: cycnn.MaxPool(2, return_indices=1), TypeError, "return_indices.*1"),
        (lambda: cycnn.MaxUnpool(2, padding="same"), ValueError, "padding.*same"),
        (lambda: cycnn.MaxUnpool(2).build((3, 3, 2)), ValueError, "several inputs"),
        (
            lambda: cycnn.MaxUnpool(2).build(((3, 3, 2), (3, 4, 2))),
            ValueError,
            "values and indices of one shape",
        ),
        (
            lambda: cycnn.MaxUnpool(2, output_size=8).build(((3, 3, 2), (3, 3, 2))),
            ValueError,
            r"output_size.*\(6, 6\)",
        ),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "index, error, message",
    [
        (np.full((1, 3, 2), 6), ValueError, "0 ... 5.*6"),
        (np.full((1, 3, 2), -2), ValueError, "-2"),
        (np.full((1, 3, 2), 0.5), ValueError, "whole numbers"),
        (np.full((1, 3, 2), np.nan), ValueError, "whole numbers"),
        (np.zeros((2, 3, 2), int), ValueError, "one shape"),
        (np.zeros((1, 3, 3), int), ValueError, "axes and channels"),
        (np.zeros((1, 3, 2), complex), TypeError, "real numbers"),
    ],
)
def test_wrong_indices_are_named(index, error, message):
    layer = cycnn.MaxUnpool(2).build(((3, 2), (3, 2)))
    with pytest.raises(error, match=message):
        layer((np.zeros((1, 3, 2)), index))
    with pytest.raises(TypeError, match="tuple of two"):
        layer(np.zeros((1, 3, 2)))


def test_ops_name_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="p must be"):
        ops.lp_pool(X, 2, p=0)
    y = ops.lp_pool(X, 2)
    with pytest.raises(ValueError, match=r"LpPool: y must have shape \(2, 3, 3, 3\)"):
        ops.lp_pool_backward(y, X, X, 2)
    with pytest.raises(ValueError, match="dy must have shape"):
        ops.adaptive_avg_pool_backward(y, X.shape, 2)
    with pytest.raises(ValueError, match="offset must be uint8"):
        ops.max_pool_index(y, X.shape, "float32", 2)
    with pytest.raises(ValueError, match="at least one pixel"):
        ops.adaptive_avg_pool(X[:, :0], 2)
    with pytest.raises(ValueError, match="at most 16777216 pixels, got 25000000"):
        ops.adaptive_avg_pool_backward(y, (1, 5000, 5000, 1), 1)
    with pytest.raises(ValueError, match="GlobalMaxPool: every spatial"):
        ops.global_max_pool(X[:, :0])
    with pytest.raises(ValueError, match="dy and index"):
        ops.global_max_pool_backward(X[:, 0, 0], np.zeros((2, 2), np.int64), X.shape)
    with pytest.raises(ValueError, match="int64"):
        ops.max_unpool(X, np.zeros(X.shape, np.int32), (8, 8))


def test_empty_batch():
    for make in (lambda: cycnn.LpPool(2), lambda: cycnn.MaxPool(2, return_indices=True)):
        y, _ = make().build((6, 7, 3))(X[:0])
        assert all(len(part) == 0 for part in (y if isinstance(y, tuple) else (y,)))
