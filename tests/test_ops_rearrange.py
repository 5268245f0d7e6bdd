"""Slices, permutations, borders, resolutions, products and maxima against plain references."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn
from cycnn import ops

from . import reference_rearrange as reference
from .helpers import DTYPES, assert_near, at_offset, integers, normal, same_bits

SHAPES = [(2, 7, 3), (1, 300, 37), (3, 4, 5, 19), (2, 9, 1, 1), (2, 3, 2, 5, 6), (0, 3, 4, 2)]
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
MODES = ("zeros", "reflect", "replicate", "circular")


def draw_borders(rng, shape, most=4):
    """Return a (begin, end) pair for each spatial axis."""
    return tuple(tuple(int(n) for n in rng.integers(0, most, 2)) for _ in shape[1:-1])


@each_dtype
@each_shape
@pytest.mark.parametrize("mode", MODES)
def test_pad_is_exact(rng, shape, mode, dtype):
    x, border = integers(rng, shape, dtype), draw_borders(rng, shape)
    matrices = [
        reference.pad_matrix(n, *pair, mode) for n, pair in zip(shape[1:-1], border, strict=True)
    ]
    y = ops.pad(x, border, mode)
    assert y.dtype == dtype
    assert_array_equal(y, reference.apply(x, matrices))
    dy = integers(rng, y.shape, dtype)
    dx = ops.pad_backward(dy, shape, border, mode)
    assert dx.dtype == dtype
    assert_array_equal(dx, reference.apply_backward(dy, matrices))


@each_dtype
def test_pad_with_a_value_is_numpys(rng, dtype):
    x = integers(rng, (2, 3, 4, 5), dtype)
    border = ((1, 2), (0, 3))
    expected = np.pad(x, ((0, 0), *border, (0, 0)), constant_values=-2.5)
    assert_array_equal(ops.pad(x, border, "zeros", -2.5), expected)


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_border_may_be_wider_than_the_input(rng, mode):
    x = integers(rng, (2, 3, 2))
    matrices = [reference.pad_matrix(3, 11, 8, mode)]
    y = ops.pad(x, ((11, 8),), mode)
    assert_array_equal(y, reference.apply(x, matrices))
    dx = ops.pad_backward(y, x.shape, ((11, 8),), mode)
    assert_array_equal(dx, reference.apply_backward(y, matrices))


@each_dtype
@pytest.mark.parametrize("shape", [(2, 9, 3), (2, 6, 5, 37), (1, 4, 5, 6, 3), (0, 4, 5, 2)])
def test_crop_is_exact(rng, shape, dtype):
    x, cut = integers(rng, shape, dtype), draw_borders(rng, shape, 3)
    cut = ((1, 2), *cut[1:])
    matrices = [reference.crop_matrix(n, *p) for n, p in zip(shape[1:-1], cut, strict=True)]
    y = ops.crop(x, cut)
    assert_array_equal(y, reference.apply(x, matrices))
    dy = integers(rng, y.shape, dtype)
    assert_array_equal(ops.crop_backward(dy, shape, cut), reference.apply_backward(dy, matrices))


@each_dtype
@each_shape
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_upsampling_by_powers_of_two_is_exact(rng, shape, factor, dtype):
    x = integers(rng, shape, dtype)
    for mode in ("nearest", "linear"):
        matrices = [
            reference.nearest_matrix(n, factor)
            if mode == "nearest"
            else reference.linear_matrix(n, factor, False)
            for n in shape[1:-1]
        ]
        y = ops.upsample(x, factor, mode)
        assert y.dtype == dtype
        assert_array_equal(y, reference.apply(x, matrices))
        dy = integers(rng, y.shape, dtype)
        dx = ops.upsample_backward(dy, shape, factor, mode)
        assert_array_equal(dx, reference.apply_backward(dy, matrices))


@each_dtype
@each_shape
@pytest.mark.parametrize("align_corners", [False, True])
def test_linear_upsampling_by_any_factor(rng, shape, align_corners, dtype):
    factors = (3, 1, 5)[: len(shape) - 2]
    x = normal(rng, shape, dtype)
    matrices = [
        reference.linear_matrix(n, f, align_corners)
        for n, f in zip(shape[1:-1], factors, strict=True)
    ]
    y = ops.upsample(x, factors, "linear", align_corners=align_corners)
    # A weight is rounded once, products of weights twice more, and two terms an axis are added.
    assert_near(y, reference.apply(x, matrices), reference.apply(np.abs(x), matrices), 11)
    dy = normal(rng, y.shape, dtype)
    dx = ops.upsample_backward(dy, shape, factors, "linear", align_corners=align_corners)
    magnitude = reference.apply_backward(np.abs(dy), matrices)
    assert_near(dx, reference.apply_backward(dy, matrices), magnitude, 3 + 3 * 2 * 5)


@each_dtype
@pytest.mark.parametrize(
    "shape",
    [(3, 5), (2, 5, 19), (2, 70, 33), (2, 3, 5, 7), (1, 1, 6, 1, 4), (2, 3, 4, 5, 6)],
    ids=str,
)
def test_permute_in_every_order(rng, shape, dtype):
    x = integers(rng, shape, dtype)
    for axes in itertools.permutations(range(len(shape))):
        y = ops.permute(x, axes)
        assert y.dtype == dtype
        assert_array_equal(y, x.transpose(axes))


@pytest.mark.parametrize("axes", [(0, 2, 1, 3), (0, 3, 1, 2), (0, 1, 3, 2)])
def test_permute_of_arrays_larger_than_a_tile(rng, axes):
    x = normal(rng, (2, 100, 70, 131))
    assert_array_equal(ops.permute(x, axes), x.transpose(axes))


@each_dtype
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_slice_and_its_gradient(rng, axis, dtype):
    x = integers(rng, (2, 5, 6, 19), dtype)
    for start, stop in ((0, 5), (1, 4), (4, 5)):
        index = (slice(None),) * axis + (slice(start, stop),)
        y = ops.slice_axis(x, start, stop, axis)
        assert_array_equal(y, x[index])
        expected = np.zeros_like(x)
        expected[index] = y
        dx = ops.slice_axis_backward(y, x.shape, start, stop, axis)
        assert_array_equal(dx, expected)


@each_dtype
@pytest.mark.parametrize("shape", [(1, 1), (2, 3, 37), (1, 9000), (0, 3)])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_products_and_maxima(rng, shape, count, dtype):
    arrays = [integers(rng, shape, dtype) for _ in range(count)]
    dy = integers(rng, shape, dtype)
    y = ops.multiply(arrays)
    assert y.dtype == dtype
    assert_array_equal(y, np.prod(arrays, 0))
    for i, dx in enumerate(ops.multiply_backward(dy, arrays)):
        assert_array_equal(dx, dy * np.prod([a for j, a in enumerate(arrays) if j != i], 0))
    y = ops.maximum(arrays)
    assert_array_equal(y, np.max(arrays, 0))
    first = np.argmax(arrays, 0)  # so many ties
    for i, dx in enumerate(ops.maximum_backward(dy, arrays, y)):
        assert_array_equal(dx, np.where(first == i, dy, 0))


@each_dtype
def test_maximum_of_nan_infinity_and_both_zeros(dtype):
    nan, inf = np.nan, np.inf
    arrays = [
        np.array(values, dtype)
        for values in ([nan, 1, nan, inf, -inf, 0.0], [2, nan, nan, inf, -inf, -0.0])
    ]
    y = ops.maximum(arrays)
    assert_array_equal(y, np.array([nan, nan, nan, inf, -inf, 0], dtype))
    dx = ops.maximum_backward(np.arange(1, 7).astype(dtype), arrays, y)
    assert_array_equal(dx[0], [1, 0, 3, 4, 5, 6])
    assert_array_equal(dx[1], [0, 2, 0, 0, 0, 0])


def test_a_dropped_channel_is_dropped_as_a_whole(rng):
    x = 1 + np.abs(normal(rng, (300, 4, 5, 37)))
    y = ops.channel_dropout(x, 0.3, 11)
    kept = (y != 0).all((1, 2))
    assert_array_equal(kept, (y != 0).any((1, 2)))
    mask = ops.dropout(np.ones((300, 37), "float32"), 0.3, 11)
    assert_array_equal(y, x * mask[:, None, None])
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.21 / kept.size)
    assert same_bits(ops.channel_dropout(x[:7], 0.3, 11), y[:7])
    x[:, 0, 0, 0] = np.nan
    assert_array_equal(np.isnan(ops.channel_dropout(x, 0.3, 11)[:, 0, 0, 0]), kept[:, 0])


def results(x, dy):
    """Return what every kernel makes of two arrays of one shape (N, H, W, C)."""
    y = ops.maximum([x, dy])
    return (
        ops.multiply([x, dy]), y, *ops.maximum_backward(dy, [x, dy], y),
        ops.channel_dropout(x, 0.4, 5), ops.permute(x, (0, 3, 1, 2)), ops.permute(x, (0, 2, 1, 3)),
        ops.pad(x, 2, "reflect"), ops.pad_backward(dy, (*dy.shape[:1], 5, 7, 19), 2, "circular"),
        ops.upsample(x, 3, "linear"), ops.upsample_backward(dy, (2, 3, 11, 19), (3, 1), "linear"),
        ops.upsample(x, 2), ops.slice_axis(x, 3, 8, 2), ops.crop(x, 1),
    )  # fmt: skip


def test_memory_offset_and_threads_change_no_bit(rng):
    x, dy = normal(rng, (2, 9, 11, 19)), normal(rng, (2, 9, 11, 19))
    with cycnn.num_threads(1):
        expected = results(x, dy)
    with cycnn.num_threads(2):
        assert all(map(same_bits, results(x, dy), expected))
    for offset in (4, 36, 60):
        actual = results(at_offset(x, offset), at_offset(dy, offset))
        assert all(map(same_bits, actual, expected))


def test_wrong_arguments_are_named():
    x = np.zeros((2, 4, 5, 3), "float32")
    for call, message in (
        (lambda: ops.pad(x, ((1, 2),)), r"Pad: padding.*2 spatial.*\(\(1, 2\),\)"),
        (lambda: ops.pad(x, -1), "Pad: padding.*-1"),
        (lambda: ops.pad(x, 1, "mirror"), "Pad: mode.*mirror"),
        (lambda: ops.pad(x[0, 0], 1), r"Pad: x.*\(5, 3\)"),
        (lambda: ops.pad_backward(x, x.shape, 1), r"Pad: dy.*\(2, 6, 7, 3\).*\(2, 4, 5, 3\)"),
        (lambda: ops.crop(x, 2), r"Crop: cropping.*\(4, 5\)"),
        (lambda: ops.crop_backward(x, x.shape, 1), r"Crop: dy.*\(2, 2, 3, 3\)"),
        (lambda: ops.upsample(x, 0), "Upsample: factor.*0"),
        (lambda: ops.upsample(x, (1, 2, 3)), "Upsample: factor"),
        (lambda: ops.upsample(x, 2, "cubic"), "Upsample: mode.*cubic"),
        (lambda: ops.upsample_backward(x, x.shape, 2), r"Upsample: dy.*\(2, 8, 10, 3\)"),
        (lambda: ops.permute(x, (0, 1, 2)), "Permute: axes.*3"),
        (lambda: ops.permute(x, (0, 1, 1, 3)), "Permute: axes"),
        (lambda: ops.slice_axis(x, 0, 2, 0), "Slice: axis.*0"),
        (lambda: ops.slice_axis(x, 2, 2, 1), "Slice: .*start 2 and stop 2"),
        (lambda: ops.slice_axis_backward(x, x.shape, 0, 2, 1), r"Slice: dy.*\(2, 2, 5, 3\)"),
        (lambda: ops.multiply([x]), "Multiply: arrays.*1"),
        (lambda: ops.maximum([x, x[:1]]), r"Maximum: .*\(2, 4, 5, 3\).*\(1, 4, 5, 3\)"),
        (lambda: ops.multiply_backward(x[:1], [x, x]), "Multiply"),
        (lambda: ops.maximum_backward(x[:1], [x, x], x), "Maximum: dy"),
        (lambda: ops.channel_dropout(x, 1.0, 3), "Dropout: rate.*1.0"),
        (lambda: ops.channel_dropout(x[0, 0, 0], 0.5, 3), r"Dropout: x.*\(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
