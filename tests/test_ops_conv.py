"""The direct kernels against the reference: exactly on integers, within rounding on reals."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn
from cycnn import engine, ops
from cycnn.ops import blocking

from . import reference
from .configurations import draw_channels, draw_window
from .helpers import DTYPES, assert_near, at_offset, integers, normal, same_bits

conv, conv_backward_input, conv_backward_weight = (
    partial(function, algorithm="direct")
    for function in (ops.conv, ops.conv_backward_input, ops.conv_backward_weight)
)


def case(x, kernel, filters, **options):
    """Name one configuration."""
    label = "x".join(map(str, x)) + f" k{kernel} K{filters} " + " ".join(map(str, options.values()))
    return pytest.param(x, kernel, filters, options, id=label.replace(" ", "_"))


SHAPES = [  # sizes that miss the vector widths (4, 8, 16) and the channel blocks (64)
    case((1, 1, 1, 1), 1, 1),
    case((2, 5, 6, 1), 3, 37, padding="same"),
    case((1, 11, 9, 3), 7, 33, stride=2, padding=3),
    case((2, 9, 7, 5), (3, 4), 13),
    case((2, 6, 5, 70), 3, 37, padding=1),
    case((1, 5, 4, 129), 3, 17, padding=1),
    case((3, 4, 4, 96), 3, 96, padding=1),
    case((13, 2, 2, 96), 3, 20, padding=1),
    case((13, 1, 1, 96), 3, 18, padding=1),
    case((13, 1, 1, 5), 1, 7),
    case((2, 9, 8, 70), 1, 37),
    case((2, 9, 8, 7), 1, 150, stride=2),
    # One tap: pixels are read where they are, unless planes or borders forbid it.
    case((2, 10, 12, 24), 1, 40, stride=2),
    case((2, 6, 7, 128), 1, 20, stride=(3, 2)),
    case((2, 37, 10), 1, 24, stride=3),
    case((1, 2, 2500, 6), 1, 17, stride=2),
    case((2, 4, 5, 6, 8), 1, 18, stride=2),
    case((2, 5, 5, 6, 8), 1, 18, stride=2),
    case((1, 5, 5, 6, 8), 1, 18, stride=2),
    case((2, 9, 8, 12), 1, 8, stride=2, groups=2),
    case((2, 9, 8, 6), (3, 1), 18, stride=2),
    case((2, 8, 9, 6), 3, 18, stride=2, padding="same"),
    case((2, 6, 6, 6), 1, 18, stride=2, padding=1, padding_mode="replicate"),
    case((1, 5, 5, 4), 1, 1400, stride=2),
    case((3, 1, 1, 20), 1, 4200),  # several panels of weights packed together, whatever their width
    # Blocks of full tiles: all pixels in one, planes, rows, columns.
    case((5, 7, 7, 130), 1, 260),
    case((32, 7, 7, 500), 1, 18, stride=2),
    case((2, 27, 27, 600), 1, 17, stride=2),
    case((4, 7, 7, 960), 1, 33),
    case((1, 3, 31, 16), 3, 16, padding="same"),
    case((2, 20, 3, 8), (1, 3), 48, padding="same"),
    case((2, 3, 20, 8), (3, 1), 12, padding="same"),
    case((1, 6, 6, 4), 2, 8, padding="same"),
    case((1, 8, 9, 2), (4, 6), 5, padding="same"),
    case((2, 17, 1), 5, 3, padding="causal"),
    case((2, 23, 6), 4, 19, stride=3, padding="same"),
    case((1, 40, 70), 9, 16, stride=4, padding=4),
    case((1, 5, 6, 7, 3), 3, 9, padding=1),
    case((2, 4, 5, 3, 1), (2, 3, 1), 17, stride=(1, 2, 1), padding="same"),
    case((1, 5, 4, 5, 70), (3, 1, 2), 6, stride=2),
    case((2, 9, 11, 20), 1, 24),
    case((3, 11, 13, 144), 1, 24),
]
STRIDES = [
    case((2, 9, 7, 5), 3, 13, stride=2),
    case((2, 9, 8, 5), 3, 13, stride=2, padding="same"),
    case((1, 10, 11, 6), 3, 16, stride=3, padding=1),
    case((2, 9, 10, 6), 2, 9, stride=3),
    case((2, 10, 9, 6), 1, 9, stride=3),
    case((2, 10, 9, 6), 2, 9, stride=(4, 3), padding=1),
    case((2, 7, 12, 3), (2, 5), 8, stride=(1, 4)),
    case((2, 11, 12, 20), (5, 3), 8, stride=(3, 2), padding="same"),
    case((1, 14, 14, 70), 3, 70, stride=2, padding=1),
]
PADDINGS = [
    case((2, 5, 6, 4), 3, 5, padding=((1, 0), (0, 2))),
    case((2, 5, 6, 4), (2, 3), 5, padding=((0, 3), (4, 1)), stride=(2, 3)),
    case((2, 4, 3, 4), 2, 5, padding=5),
    case((1, 3, 3, 2), 3, 5, padding=((7, 0), (0, 6)), stride=2),
    case((1, 5, 5, 2), 3, 17, padding="causal", stride=2),
    *(
        case(x, kernel, filters, padding_mode=mode, **options)
        for mode in ("reflect", "replicate", "circular")
        for x, kernel, filters, options in [
            ((2, 5, 6, 4), 3, 9, {"padding": 1}),
            ((1, 4, 5, 3), (2, 4), 9, {"padding": "same"}),
            ((2, 6, 7, 5), 3, 6, {"padding": ((2, 3), (1, 0)), "stride": 2}),
            ((2, 6, 7, 5), 1, 6, {"padding": 3, "stride": 2}),
            ((1, 6, 8, 6), 3, 4, {"padding": 2, "dilation": 2, "groups": 2}),
            ((2, 9, 4), 3, 7, {"padding": "causal", "dilation": 2}),
            ((1, 4, 4, 5, 3), 3, 4, {"padding": 1}),
            ((2, 6, 7, 20), 3, 20, {"padding": 1, "groups": 20}),
        ]
    ),
]
DILATIONS = [
    case((2, 9, 8, 5), 3, 9, dilation=2),
    case((2, 9, 8, 5), 3, 9, dilation=3, padding="same"),
    case((1, 13, 12, 4), (2, 3), 17, dilation=(3, 2), stride=2, padding=2),
    case((1, 13, 12, 4), 3, 7, dilation=2, stride=3, padding=((1, 2), (0, 3))),
    case((2, 30, 3), 3, 6, dilation=4, padding="causal"),
    case((1, 6, 7, 6, 2), 2, 5, dilation=(2, 3, 1), padding=1),
]
GROUPS = [
    case((2, 6, 5, 8), 3, 12, groups=2, padding=1),
    case((2, 6, 5, 12), 3, 8, groups=4, stride=2, padding="same"),
    case((1, 5, 6, 70), 1, 74, groups=2),
    case((2, 7, 6, 6), (2, 3), 9, groups=3, dilation=2, padding=1),
    case((2, 11, 8), 3, 8, groups=4, stride=2, padding=1),
    case((1, 4, 5, 4, 6), 2, 4, groups=2),
]
DEPTHWISE = [
    *(
        case((2, 6, 7, C), 3, C * multiplier, groups=C, padding=1)
        for C in (1, 5, 16, 37, 70)
        for multiplier in (1, 2, 3)
    ),
    case((1, 9, 10, 19), 3, 19, groups=19, stride=2, padding="same"),
    case((2, 7, 37, 21), 3, 21, groups=21, stride=2, padding=1),
    case((1, 8, 20, 37), 3, 37, groups=37, stride=2, padding=1),
    case((3, 1, 1, 8), 3, 8, groups=8, stride=2, padding=1),
    case((2, 9, 10, 7), (5, 2), 14, groups=7, stride=(3, 1), padding=((2, 1), (0, 3))),
    case((2, 11, 10, 7), 3, 21, groups=7, dilation=2, padding=2),
    case((1, 7, 7, 33), 2, 33, groups=33, stride=3),
    case((13, 1, 1, 96), 3, 96, groups=96, padding=1),
    case((2, 21, 9), 4, 9, groups=9, padding="causal"),
    case((1, 5, 4, 6, 10), 3, 20, groups=10, padding=1),
    # three taps in a row, by a column or two: rows of many lengths, one block or several
    *(
        case((2, 5, W, 9), 3, 9, groups=9, stride=2, padding=((1, 1), border))
        for W in (1, 2, 3, 8, 17)
        for border in ((0, 2), (1, 1), (2, 0), (2, 5), (3, 1))
    ),
    # the same with several tiles of columns and of channels
    case((2, 9, 45, 70), 3, 70, groups=70, padding=1),
    case((1, 9, 47, 150), 3, 150, groups=150, stride=2, padding="same"),
    case((1, 8, 33, 67), (6, 3), 67, groups=67, padding="same"),
    case((1, 3, 4, 25, 70), 3, 70, groups=70, padding=1),
    case((1, 6, 150, 17), 3, 17, groups=17, padding=1),
    case((1, 6, 151, 17), 3, 17, groups=17, padding=((1, 1), (1, 0))),
    case((1, 6, 150, 17), 3, 17, groups=17, stride=2, padding=1),
    case((2, 7, 80, 24), (5, 3), 24, groups=24, stride=(3, 2), padding=2),
    case((2, 9, 13, 40), (4, 3), 80, groups=40, stride=(1, 2), dilation=(2, 1), padding="same"),
    case((2, 30, 9), 3, 9, groups=9, stride=2, padding="causal"),
    case((1, 1, 9, 12, 6), (1, 3, 3), 6, groups=6, stride=2, padding=1),
    # columns 1 and 3 lie where the middle one's window says, column 2 does not
    case((1, 8, 20), 1, 20, groups=20, stride=2, padding=3, padding_mode="reflect"),
    # rows two at a time: an even and an odd number, of taps in threes, of others and of both
    *(
        case((3, H, 11, 35), kernel, 35, groups=35, padding="same", padding_mode=mode)
        for H in (2, 5)
        for kernel in (2, 3, (2, 3), (4, 3), 5, 7)
        for mode in ("zeros", "circular")
    ),
    case((3, 7, 9, 19), 3, 19, groups=19, padding=1, padding_mode="reflect"),
    case((2, 7, 9, 16), 3, 16, groups=16, padding=((2, 3), (3, 2))),
    case((2, 6, 9, 18), 3, 18, groups=18, stride=(2, 1), padding=1),
    case((2, 9, 9, 18), 3, 18, groups=18, dilation=(3, 2), padding=2),
    case((2, 5, 5, 6, 17), 3, 17, groups=17, padding=1),
]
FEW_CHANNELS = [  # whose input gradient is folded
    case((3, 9, 8, 1), 3, 20, padding=1),
    case((2, 9, 10, 3), (2, 3), 24, stride=(2, 3)),
    case((2, 10, 9, 2), 2, 32, stride=4, padding=1),
    case((1, 3, 3, 2), 3, 32, padding=((7, 0), (0, 6)), stride=2),
    case((2, 5, 6, 7, 1), 3, 16, padding=1, stride=(1, 2, 1)),
    case((2, 30, 2), 4, 40, padding="causal", dilation=2),
    case((150, 9, 9, 3), 7, 33, padding=3),  # in more than one part
]
CASES = FEW_CHANNELS + SHAPES + STRIDES + PADDINGS + DILATIONS + GROUPS + DEPTHWISE
each_case = pytest.mark.parametrize("shape, kernel, filters, options", CASES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def problem(make, rng, shape, kernel, filters, options, dtype):
    """Return x, weight, bias, dy and the options in the names of the reference."""
    plain = {"mode" if k == "padding_mode" else k: v for k, v in options.items()}
    kernel = reference.per_axis(kernel, len(shape) - 2)
    x = make(rng, shape, dtype)
    weight = make(rng, (*kernel, shape[-1] // options.get("groups", 1), filters), dtype)
    bias = make(rng, (filters,), dtype)
    dy = make(rng, reference.conv(x, weight, **plain).shape, dtype)
    return x, weight, bias, dy, kernel, plain


@each_dtype
@each_case
def test_forward_is_exact_on_integers(rng, shape, kernel, filters, options, dtype):
    x, weight, bias, _, _, plain = problem(integers, rng, shape, kernel, filters, options, dtype)
    expected = reference.conv(x, weight, bias, **plain)
    y = conv(x, weight, bias, **options)
    assert y.dtype == dtype
    assert_array_equal(y, expected)
    assert_array_equal(conv(x, weight, **options), expected - bias)
    y = conv(x, weight, bias, activation="relu", **options)
    assert_array_equal(y, np.maximum(expected, 0))


@each_dtype
@pytest.mark.parametrize("vectors", [1, 2, 3, 4, 61, 62, 63, 64, 95, 96])  # up to 3 panels a job
def test_every_shape_of_tile_is_exact_on_integers(rng, vectors, dtype):
    """Any rows left over, of columns that fill the last vector or nearly, in three directions."""
    unit = engine.kernels(dtype)
    for filters in (vectors * unit.VL, vectors * unit.VL - 1):
        weight, bias = integers(rng, (1, 21, filters), dtype), integers(rng, filters, dtype)
        for pixels in range(unit.FEW + 1, unit.FEW + 1 + 2 * 12):
            x, dy = (
                integers(rng, (1, pixels, 21), dtype),
                integers(rng, (1, pixels, filters), dtype),
            )
            assert_array_equal(conv(x, weight, bias), x @ weight[0] + bias)
            assert_array_equal(conv_backward_input(dy, weight, x.shape), dy @ weight[0].T)
            for channels in (pixels % 12 + 1, 21):
                part = np.ascontiguousarray(x[..., :channels])
                dweight, _ = conv_backward_weight(dy, part, (1,))
                assert_array_equal(dweight[0], part[0].T @ dy[0])


@each_dtype
@pytest.mark.parametrize("vectors", range(3, 13))
def test_strips_of_pixels_are_exact_on_integers(rng, vectors, dtype):
    """So many pixels that they go in strips, and so few columns that their panels stay in cache."""
    for columns in (vectors * engine.kernels(dtype).VL, vectors * engine.kernels(dtype).VL - 1):
        weight, bias = integers(rng, (1, 7, columns), dtype), integers(rng, columns, dtype)
        back = np.ascontiguousarray(weight.swapaxes(1, 2))
        for pixels in range(3200, 3224):
            x = integers(rng, (1, pixels, 7), dtype)
            assert_array_equal(conv(x, weight, bias), x @ weight[0] + bias)
            assert_array_equal(conv_backward_input(x, back, (1, pixels, columns)), x @ weight[0])


@each_dtype
@pytest.mark.parametrize("vectors", [3, 5, 6, 7])
def test_tiles_that_add_to_the_channels_before_are_exact_on_integers(rng, vectors, dtype):
    """Two blocks of channels, by jobs that pack their panels and by jobs that do not."""
    unit, channels = engine.kernels(dtype), blocking.PANEL_ROWS + 3
    columns = vectors * unit.VL - 1
    weight, bias = integers(rng, (1, channels, columns), dtype), integers(rng, columns, dtype)
    for pixels in (unit.FEW + 3, blocking.BLOCK_PIXELS + 5):
        x = integers(rng, (1, pixels, channels), dtype)
        assert_array_equal(conv(x, weight, bias), x @ weight[0] + bias)


@each_dtype
@each_case
def test_backward_input_is_exact_on_integers(rng, shape, kernel, filters, options, dtype):
    x, weight, _, dy, _, plain = problem(integers, rng, shape, kernel, filters, options, dtype)
    dx = conv_backward_input(dy, weight, x.shape, **options)
    assert dx.dtype == dtype
    assert_array_equal(dx, reference.conv_backward_input(dy, weight, x.shape, **plain))


@each_dtype
@each_case
def test_backward_weight_is_exact_on_integers(rng, shape, kernel, filters, options, dtype):
    x, _, _, dy, kernel, plain = problem(integers, rng, shape, kernel, filters, options, dtype)
    dweight, dbias = conv_backward_weight(dy, x, kernel, **options)
    expected = reference.conv_backward_weight(dy, x, kernel, **plain)
    assert dweight.dtype == dbias.dtype == dtype
    assert_array_equal(dweight, expected[0])
    assert_array_equal(dbias, expected[1])
    dweight, dbias = conv_backward_weight(dy, x, kernel, bias=False, **options)
    assert_array_equal(dweight, expected[0])
    assert dbias is None


@pytest.mark.parametrize(
    "seed", [*range(60), *(pytest.param(n, marks=pytest.mark.slow) for n in range(60, 1500))]
)
def test_random_configurations_are_exact_on_integers(seed):
    rng = np.random.default_rng(seed)
    shape, kernel, stride, dilation, padding, _, mode = draw_window(rng)
    groups, depth, filters = draw_channels(rng)
    options = {
        "stride": stride, "padding": padding, "padding_mode": mode, "dilation": dilation,
        "groups": groups,
    }  # fmt: skip
    shape = int(rng.choice([1, 2, 3, 7])), *shape, groups * depth
    x, weight, bias, dy, _, plain = problem(
        integers, rng, shape, kernel, filters, options, "float32"
    )
    assert_array_equal(conv(x, weight, bias, **options), reference.conv(x, weight, bias, **plain))
    dx = conv_backward_input(dy, weight, shape, **options)
    assert_array_equal(dx, reference.conv_backward_input(dy, weight, shape, **plain))
    gradients = conv_backward_weight(dy, x, kernel, **options)
    expected = reference.conv_backward_weight(dy, x, kernel, **plain)
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert_array_equal(gradient, wanted)


@each_dtype
@pytest.mark.parametrize("shape, kernel, filters, options", SHAPES[1:8] + DEPTHWISE[8:11])
def test_reals_are_within_the_rounding_of_their_sums(rng, shape, kernel, filters, options, dtype):
    x, weight, bias, dy, kernel, plain = problem(
        normal, rng, shape, kernel, filters, options, dtype
    )
    ax, aweight, abias, ady = (np.abs(a) for a in (x, weight, bias, dy))
    y = conv(x, weight, bias, **options)
    terms = weight[..., 0].size + 1
    magnitude = reference.conv(ax, aweight, abias, **plain)
    assert_near(y, reference.conv(x, weight, bias, **plain), magnitude, terms)
    dx = conv_backward_input(dy, weight, x.shape, **options)
    terms = weight[..., 0, :].size
    magnitude = reference.conv_backward_input(ady, aweight, x.shape, **plain)
    expected = reference.conv_backward_input(dy, weight, x.shape, **plain)
    assert_near(dx, expected, magnitude, terms)
    gradients = conv_backward_weight(dy, x, kernel, **options)
    expected = reference.conv_backward_weight(dy, x, kernel, **plain)
    magnitudes = reference.conv_backward_weight(ady, ax, kernel, **plain)
    for gradient, wanted, magnitude in zip(gradients, expected, magnitudes, strict=True):
        assert_near(gradient, wanted, magnitude, dy[..., 0].size)


BITS = [
    case((3, 15, 14, 19), 3, 37, padding=1),
    case((3, 15, 14, 3), 5, 21, stride=2, padding="same"),
    case((3, 15, 14, 70), 1, 45),
    case((13, 2, 2, 70), 3, 40, padding=1),
    case((3, 15, 14, 21), 3, 42, groups=21, padding=1),
    case((3, 15, 14, 12), 3, 10, groups=2, padding=2, padding_mode="reflect"),
    case((3, 100, 6), 5, 21, stride=3),
    case((3, 6, 7, 8, 5), 3, 21, padding=1),
]


@pytest.mark.parametrize("shape, kernel, filters, options", BITS)
def test_memory_offset_changes_no_bit(rng, shape, kernel, filters, options):
    x, weight, bias, dy, kernel, _ = problem(
        normal, rng, shape, kernel, filters, options, "float32"
    )
    y = conv(x, weight, bias, **options)
    dx = conv_backward_input(dy, weight, x.shape, **options)
    dweight, dbias = conv_backward_weight(dy, x, kernel, **options)
    for offset in (4, 20, 36, 60):
        x, weight, bias, dy = (at_offset(a, offset) for a in (x, weight, bias, dy))
        assert same_bits(conv(x, weight, bias, **options), y)
        assert same_bits(conv_backward_input(dy, weight, x.shape, **options), dx)
        again = conv_backward_weight(dy, x, kernel, **options)
        assert same_bits(again[0], dweight) and same_bits(again[1], dbias)


@pytest.mark.parametrize("shape, kernel, filters, options", BITS)
def test_number_and_place_of_rows_change_no_bit(rng, shape, kernel, filters, options):
    x, weight, bias, dy, _, _ = problem(normal, rng, shape, kernel, filters, options, "float32")
    y = conv(x, weight, bias, **options)
    dx = conv_backward_input(dy, weight, x.shape, **options)
    for rows in ([2], [2, 0], [1, 1, 2, 0, 1, 0, 2]):
        assert same_bits(conv(x[rows], weight, bias, **options), y[rows])
        part = conv_backward_input(dy[rows], weight, x[rows].shape, **options)
        assert same_bits(part, dx[rows])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "shape, kernel, filters, options",
    [
        case((40, 1, 1, 37), 1, 10),
        case((40, 1, 1, 2500), 1, 300),
        case((40, 3, 3, 21), 3, 130, padding=1),
        case((40, 4, 4, 24), 3, 20, groups=2, padding=2, dilation=2),
        case((40, 5, 3, 10), (3, 1), 70, stride=2),
        case((40, 5, 7), 3, 33, padding=1, padding_mode="reflect"),
        case((40, 2, 2, 2, 9), 2, 40, padding=((0, 1),) * 3),
    ],
)
def test_few_pixels_have_the_bits_of_many(rng, shape, kernel, filters, options, dtype):
    """Weights of few pixels are read where they lie, those of many are packed."""
    x, weight, bias, _, _, _ = problem(normal, rng, shape, kernel, filters, options, dtype)
    for extra in ({"activation": "relu"}, {}):
        y = conv(x, weight, bias, **options, **extra)
        for rows in (1, 2, 3, 16):
            assert same_bits(conv(x[:rows], weight, bias, **options, **extra), y[:rows])


@pytest.mark.parametrize(
    "shape, kernel, filters, options",
    [
        case((8, 28, 28, 32), 3, 40, padding=1),
        case((8, 28, 28, 3), 5, 40, stride=2, padding=2),
        case((8, 28, 28, 64), 1, 70),
        case((8, 28, 28, 96), 1, 24),
        case((64, 2, 2, 128), 3, 128, padding=1),
        case((1, 9, 9, 130), 3, 150, padding=1),
        case((1, 4, 4, 130), 3, 300, padding=1),
        case((8, 28, 28, 100), 3, 100, groups=100, padding=1),
        case((8, 28, 28, 32), 3, 32, groups=4, padding=1),
    ],
)
def test_number_of_threads_changes_no_bit(rng, shape, kernel, filters, options):
    x, weight, bias, dy, kernel, _ = problem(
        normal, rng, shape, kernel, filters, options, "float32"
    )
    results = []
    for threads in (1, 2):
        with cycnn.num_threads(threads):
            y = conv(x, weight, bias, **options)
            dx = conv_backward_input(dy, weight, x.shape, **options)
            results.append((y, dx, *conv_backward_weight(dy, x, kernel, **options)))
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True))


def test_inputs_are_left_alone(rng):
    x, weight, bias = integers(rng, (2, 7, 6, 5)), integers(rng, (3, 3, 5, 9)), integers(rng, (9,))
    dy = integers(rng, (2, 5, 4, 9))
    arrays = x, weight, bias, dy
    copies = [a.copy() for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    conv(x, weight, bias)
    conv_backward_input(dy, weight, x.shape)
    conv_backward_weight(dy, x, (3, 3))
    assert all(same_bits(a, b) for a, b in zip(arrays, copies, strict=True))


def test_empty_batch_gives_empty_output_and_zero_gradients(rng):
    x, weight = np.zeros((0, 7, 6, 5), "float32"), integers(rng, (3, 3, 5, 9))
    y = conv(x, weight)
    assert y.shape == (0, 5, 4, 9)
    assert conv_backward_input(y, weight, x.shape).shape == x.shape
    dweight, dbias = conv_backward_weight(y, x, (3, 3))
    assert_array_equal(dweight, np.zeros(weight.shape))
    assert_array_equal(dbias, np.zeros(9))


@each_dtype
def test_nan_reaches_only_the_outputs_whose_window_holds_it(rng, dtype):
    x, weight = normal(rng, (2, 6, 7, 5), dtype), normal(rng, (3, 3, 5, 6), dtype)
    x[1, 4, 3, 2] = np.nan
    expected = np.isnan(reference.conv(x, weight, padding=1))
    assert_array_equal(np.isnan(conv(x, weight, padding=1)), expected)
    activated = conv(x, weight, padding=1, activation="relu")
    assert_array_equal(np.isnan(activated), expected)


@pytest.mark.parametrize("shape, kernel, filters, options", CASES)
def test_output_shape_is_known_without_computing(rng, shape, kernel, filters, options):
    _, _, _, dy, kernel, _ = problem(integers, rng, shape, kernel, filters, options, "float64")
    options = {k: v for k, v in options.items() if k in ("stride", "padding", "dilation")}
    shape = ops.conv_output_shape(
        shape[1:], kernel, filters, **({"stride": 1, "padding": "valid", "dilation": 1} | options)
    )
    assert tuple(shape) == dy.shape[1:]


X, WEIGHT = np.zeros((2, 7, 6, 4), "float32"), np.zeros((3, 3, 4, 8), "float32")


@pytest.mark.parametrize(
    "x, weight, options, message",
    [
        (X[..., :3], WEIGHT, {}, "channels.*4.*3|3.*4"),
        (X[0, 0], WEIGHT, {}, "axes|rank|dimension|shape"),
        (X, WEIGHT[0], {}, "weight"),
        (X, WEIGHT, {"bias": np.zeros(7, "float32")}, "bias.*8.*7|bias.*7.*8"),
        (X, WEIGHT, {"groups": 3}, "groups"),
        (X, WEIGHT[:, :, :2], {"groups": 4}, "groups|channels"),
        (X[:, :2], WEIGHT, {}, "kernel.*3.*2|3.*larger.*2"),
        (X, WEIGHT, {"stride": 0}, "stride.*0"),
        (X, WEIGHT, {"stride": (1, 1, 1)}, "stride"),
        (X, WEIGHT, {"dilation": -1}, "dilation.*-1"),
        (X, WEIGHT, {"padding": -1}, "padding.*-1"),
        (X, WEIGHT, {"padding": "full"}, "padding.*full"),
        (X, WEIGHT, {"padding": ((1, 1),)}, "padding"),
        (X, WEIGHT, {"padding_mode": "mirror"}, "padding_mode.*mirror"),
        (X, WEIGHT, {"activation": "gelu"}, "activation.*gelu"),
    ],
)
def test_wrong_arguments_are_named(x, weight, options, message):
    with pytest.raises(ValueError, match=message):
        conv(x, weight, **options)


def test_wrong_gradients_are_named():
    with pytest.raises(ValueError, match="dy"):
        conv_backward_input(np.zeros((2, 4, 4, 8), "float32"), WEIGHT, X.shape)
    with pytest.raises(ValueError, match="dy"):
        conv_backward_weight(np.zeros((2, 4, 4, 8), "float32"), X, (3, 3))
