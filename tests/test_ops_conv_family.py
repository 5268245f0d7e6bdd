"""Transposed and locally connected layers, and a convolution of a region, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn
from cycnn import ops
from cycnn.summary import summarize

from . import reference, reference_windows
from .helpers import DTYPES, assert_near, at_offset, integers, normal, same_bits


def case(x, kernel, filters, **options):
    """Name one configuration."""
    label = "x".join(map(str, x)) + f" k{kernel} K{filters} " + " ".join(map(str, options.values()))
    return pytest.param(x, kernel, filters, options, id=label.replace(" ", "_"))


TRANSPOSED = [
    case((1, 1, 1, 1), 1, 1),
    case((2, 4, 5, 3), 3, 5),
    case((2, 4, 5, 19), 3, 37, stride=2),
    case((2, 4, 5, 3), (3, 2), 5, stride=(2, 3), padding="same"),
    case((2, 4, 5, 3), (4, 3), 5, stride=(2, 1), padding="same"),
    case((2, 4, 5, 3), 2, 5, stride=3, padding="same"),
    case((2, 4, 5, 3), 1, 5, stride=3, output_padding=(2, 1)),
    case((2, 4, 5, 6), 3, 4, stride=2, padding=1, output_padding=1, groups=2),
    case((2, 4, 5, 7), 3, 7, stride=2, padding=1, groups=7),
    case((2, 4, 5, 14), 3, 7, stride=2, groups=7),
    case((2, 5, 4, 6), 3, 8, stride=2, dilation=2, padding=((1, 2), (0, 3))),
    case((2, 5, 4, 6), 3, 8, dilation=(3, 1), padding=2),
    case((2, 9, 5), 4, 17, stride=3, padding=((2, 0),), output_padding=2),
    case((1, 2, 3, 2, 3), (2, 3, 1), 4, stride=(2, 1, 3), padding="same"),
    case((2, 2, 3, 2, 4), 2, 6, stride=2, groups=2, output_padding=1),
]
LOCAL = [
    case((1, 1, 1, 1), 1, 1),
    case((5, 6, 7, 5), 3, 37),
    case((3, 6, 7, 3), 3, 5, padding="same", stride=2),
    case((4, 5, 4, 21), (2, 3), 18, padding=((0, 1), (2, 0)), stride=(2, 1)),
    case((2, 7, 6, 3), 3, 5, padding=2, dilation=2),
    case((6, 9, 2), 4, 33, padding="causal", stride=2),
    case((2, 3, 4, 3, 2), (2, 1, 3), 6, padding="same"),
    case((2, 3, 3, 70), 3, 40),
    case((5, 5, 4, 6), (3, 2), 8, padding=1, groups=2),
    case((2, 4, 3, 7), 2, 7, stride=2, groups=7),
    case((3, 3, 3, 140), 2, 70, padding="same", groups=2),
    case((2, 6, 130), 3, 390, groups=65, dilation=2),
    case((2, 3, 2, 3, 9), 2, 51, padding=1, padding_mode="circular", groups=3),
    *(
        case((3, 5, 6, 3), 3, 5, padding=2, padding_mode=mode, stride=(1, 2))
        for mode in ("reflect", "replicate", "circular")
    ),
]
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def transposed_options(x, kernel, options):
    """Return the options as the reference takes them, with the border worked out."""
    axes = len(x) - 2
    kernel, stride, dilation = (
        reference.per_axis(v, axes)
        for v in (kernel, options.get("stride", 1), options.get("dilation", 1))
    )
    padding, extra = options.get("padding", "valid"), options.get("output_padding", 0)
    if padding == "same":  # the border with which a convolution of n * stride pixels makes n
        size = [n * s for n, s in zip(x[1:-1], stride, strict=True)]
        border = reference.pads(size, kernel, stride, "same", dilation)
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        extra = tuple(max(s - n, 0) for s, n in zip(stride, spans, strict=True))
    else:
        border = reference.pads(x[1:-1], kernel, stride, padding, dilation)
    return kernel, {
        "stride": stride, "border": border, "extra": extra, "dilation": dilation,
        "groups": options.get("groups", 1),
    }  # fmt: skip


@each_dtype
@pytest.mark.parametrize("shape, kernel, filters, options", TRANSPOSED)
def test_conv_transpose_is_exact_on_integers(rng, shape, kernel, filters, options, dtype):
    kernel, plain = transposed_options(shape, kernel, options)
    x = integers(rng, shape, dtype)
    weight = integers(rng, (*kernel, filters // plain["groups"], shape[-1]), dtype)
    bias = integers(rng, (filters,), dtype)
    y = ops.conv_transpose(x, weight, bias, **options)
    assert y.dtype == dtype
    assert_array_equal(y, reference_windows.conv_transpose(x, weight, bias, **plain))
    assert_array_equal(
        ops.conv_transpose(x, weight, **options),
        reference_windows.conv_transpose(x, weight, **plain),
    )
    dy = integers(rng, y.shape, dtype)
    dx = ops.conv_transpose_backward_input(dy, weight, x.shape, **options)
    gradients = dx, *ops.conv_transpose_backward_weight(dy, x, kernel, **options)
    expected = reference_windows.conv_transpose_backward(dy, x, weight, **plain)
    for a, e in zip(gradients, expected, strict=True):
        assert a.dtype == dtype
        assert_array_equal(a, e)


@each_dtype
@pytest.mark.parametrize("shape, kernel, filters, options", LOCAL)
def test_locally_connected_is_exact_on_integers(rng, shape, kernel, filters, options, dtype):
    axes = len(shape) - 2
    kernel = reference.per_axis(kernel, axes)
    plain = {"mode" if k == "padding_mode" else k: v for k, v in options.items()}
    layer = cycnn.LocallyConnected(filters, kernel, **options).build(shape[1:], dtype=dtype)
    outputs = layer.output_shape[:-1]
    x = integers(rng, shape, dtype)
    weight = integers(rng, layer.weight.shape, dtype)
    depth = shape[-1] // options.get("groups", 1)
    assert weight.shape == (*outputs, *kernel, depth, filters)
    bias = integers(rng, (*outputs, filters), dtype)
    y = ops.locally_connected(x, weight, bias, **options)
    assert y.dtype == dtype
    assert_array_equal(y, reference_windows.locally_connected(x, weight, bias, **plain))
    dy = integers(rng, y.shape, dtype)
    dx = ops.locally_connected_backward_input(dy, weight, x.shape, **options)
    gradients = dx, *ops.locally_connected_backward_weight(dy, x, kernel, **options)
    expected = reference_windows.locally_connected_backward(dy, x, weight, **plain)
    for a, e in zip(gradients, expected, strict=True):
        assert a.dtype == dtype
        assert_array_equal(a, e)
    assert ops.locally_connected_backward_weight(dy, x, kernel, bias=False, **options)[1] is None


@each_dtype
def test_real_values_stay_within_rounding(rng, dtype):
    x, weight = normal(rng, (3, 5, 6, 19), dtype), normal(rng, (3, 3, 21, 19), dtype)
    plain = {"stride": 2, "border": [(1, 1)] * 2, "extra": 1}
    options = {"stride": 2, "padding": 1, "output_padding": 1}
    y = ops.conv_transpose(x, weight, **options)
    magnitude = reference_windows.conv_transpose(np.abs(x), np.abs(weight), **plain)
    expected = reference_windows.conv_transpose(x, weight, **plain)
    assert_near(y, expected, magnitude, 9 * 19)
    weight, bias = normal(rng, (3, 4, 3, 3, 19, 21), dtype), normal(rng, (3, 4, 21), dtype)
    y = ops.locally_connected(x, weight, bias)
    magnitude = reference_windows.locally_connected(np.abs(x), np.abs(weight), np.abs(bias))
    assert_near(y, reference_windows.locally_connected(x, weight, bias), magnitude, 9 * 19 + 1)


def test_a_transposed_convolution_is_the_transpose(rng):
    """sum(conv(a) * b) = sum(a * conv_transpose(b)) for any a and b."""
    a, weight = integers(rng, (2, 9, 8, 5)), integers(rng, (3, 3, 5, 7))
    y = ops.conv(a, weight, stride=2, padding=1)
    b = integers(rng, y.shape)
    back = ops.conv_transpose(b, weight, stride=2, padding=1, output_padding=(0, 1))
    assert back.shape == a.shape
    assert (y * b).sum(dtype="float64") == (a * back).sum(dtype="float64")


@pytest.mark.parametrize("kind", ["transposed", "local"])
def test_offset_rows_and_threads_change_no_bit(rng, kind):
    axes = (3, 3) if kind == "transposed" else (13, 11, 3, 3)
    weight = normal(rng, (*axes, 37, 19) if kind == "transposed" else (*axes, 19, 37))

    def run(x, dy=None):
        if kind == "transposed":
            y = ops.conv_transpose(x, weight, np.ones(37, "float32"), stride=2)
            return y, ops.conv_transpose_backward_input(y, weight, x.shape, stride=2)
        y = ops.locally_connected(x, weight)
        return y, ops.locally_connected_backward_input(y, weight, x.shape)

    def weights(x, dy):
        if kind == "transposed":
            return ops.conv_transpose_backward_weight(dy, x, 3, stride=2)
        return ops.locally_connected_backward_weight(dy, x, 3)

    x = normal(rng, (9, 15, 13, 19))
    with cycnn.num_threads(1):
        expected = run(x)
        gradients = weights(x, expected[0])
    with cycnn.num_threads(2):
        assert all(map(same_bits, run(x), expected))
        assert all(map(same_bits, weights(x, expected[0]), gradients))
    for offset in (4, 36, 60):
        assert all(map(same_bits, run(at_offset(x, offset)), expected))
    for rows in ([3], [8, 1], [0, 0, 4, 3, 2, 1, 2]):
        assert all(map(same_bits, run(x[rows]), (a[rows] for a in expected)))


@pytest.mark.parametrize(
    "shape, region, options",
    [
        ((6, 7, 3), ((1, 5), (2, 7)), {"padding": 1}),
        ((6, 7, 3), ((0, 6), (3, 4)), {"padding": "same", "stride": 2}),
        ((9, 2), ((4, 9),), {"padding": 2, "padding_mode": "reflect"}),
        ((4, 5, 3, 2), ((0, 3), (1, 5), (0, 3)), {"padding": "causal"}),
    ],
)
def test_conv_of_a_region_is_conv_of_the_part(rng, shape, region, options):
    conv = cycnn.Conv(4, 3, region=region, **options).build(shape, rng=0)
    inside = (slice(None), *(slice(*pair) for pair in region))
    x = integers(rng, (3, *shape))
    part = cycnn.Conv(4, 3, **options).build(x[inside].shape[1:], rng=0)
    y, backward = conv(x)
    expected, backward_of_part = part(x[inside].copy())
    assert conv.output_shape == y.shape[1:]
    assert same_bits(y, expected)
    dy = integers(rng, y.shape)
    dx = np.zeros_like(x)
    dx[inside] = backward_of_part(dy)
    assert_array_equal(backward(dy), dx)
    assert same_bits(conv.weight.grad, part.weight.grad)
    assert conv.macs(shape) == part.macs(x[inside].shape[1:])
    begins = [a.begin - b.begin for a, b in zip(part.reach(shape), conv.reach(shape), strict=True)]
    assert begins == [start for start, _ in region]


def test_reach_and_multiply_adds():
    model = cycnn.Sequential(
        [cycnn.LocallyConnected(4, 3), cycnn.ConvTranspose(2, 3, padding=1)],
        input_shape=(8, 8, 2),
        rng=0,
    )
    local, transposed = summarize(model).rows
    assert (local.macs, local.parameters) == (36 * 9 * 2 * 4, 36 * 9 * 2 * 4)
    assert (transposed.macs, transposed.parameters) == (36 * 9 * 2 * 4, 9 * 2 * 4)
    assert (local.receptive_field, transposed.receptive_field) == ((3, 3), (5, 5))
    upward = cycnn.ConvTranspose(2, 2, stride=2).build((4, 4, 3), rng=0)
    assert upward.reach((4, 4, 3)) is None
    assert upward.macs((4, 4, 3)) == 16 * 4 * 2 * 3
    grouped = cycnn.LocallyConnected(4, 3, groups=2).build((8, 8, 6), rng=0)
    assert grouped.macs((8, 8, 6)) == 36 * 9 * 3 * 4


def test_outputs_start_with_the_scale_of_the_inputs(rng):
    """With ReLU in front, weights drawn after He et al. keep the second moment."""
    x = np.maximum(rng.standard_normal((4, 24, 24, 16)), 0)
    for layer in (
        cycnn.ConvTranspose(16, 4, stride=2, padding=1),
        cycnn.ConvTranspose(16, 3, groups=4),
        cycnn.LocallyConnected(16, 3),
        cycnn.LocallyConnected(16, 3, groups=4),
    ):
        y, _ = layer.build(x.shape[1:], rng=0, dtype="float64")(x)
        inner = y[:, 4:-4, 4:-4]
        assert 0.8 < np.mean(inner**2) < 1.25


X = np.zeros((2, 5, 4, 6), "float32")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"stride": 0}, "stride.*0"),
        ({"dilation": (1, 0)}, "dilation.*0"),
        ({"padding": "causal"}, "padding.*causal"),
        ({"padding": -1}, "padding.*-1"),
        ({"output_padding": 1}, "output_padding must be below stride"),
        ({"output_padding": 1, "stride": 2, "padding": "same"}, "output_padding must be 0.*same"),
        ({"output_padding": -1}, "output_padding.*-1"),
        ({"groups": 4}, "groups must divide filters=6"),
    ],
)
def test_wrong_arguments_of_conv_transpose_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        cycnn.ConvTranspose(6, 3, **arguments)


@pytest.mark.parametrize(
    "make, shape, message",
    [
        (lambda: cycnn.ConvTranspose(6, 3, padding=9), (5, 4, 6), "padding must leave"),
        (lambda: cycnn.ConvTranspose(4, 3, groups=4), (5, 4, 6), "groups must divide.*6 channels"),
        (lambda: cycnn.ConvTranspose(4, 3), (6,), "spatial axes"),
        (lambda: cycnn.LocallyConnected(4, 6), (5, 4, 6), "kernel must fit"),
        (lambda: cycnn.LocallyConnected(4, 3, groups=4), (5, 4, 6), "divide.*6 channels"),
        (lambda: cycnn.LocallyConnected(4, 3), (1, 2, 3, 4, 5), "spatial axes"),
        (lambda: cycnn.Conv(4, 3, region=((0, 4),)), (5, 4, 6), "region.*each"),
        (lambda: cycnn.Conv(4, 3, region=((0, 4), (1, 5))), (5, 4, 6), r"region.*\(5, 4\)"),
        (lambda: cycnn.Conv(4, 3, region=((0, 4), (2, 4))), (5, 4, 6), "kernel must fit"),
    ],
)
def test_inputs_that_do_not_fit_are_named(make, shape, message):
    with pytest.raises(ValueError, match=message):
        make().build(shape)


@pytest.mark.parametrize(
    "region, error, message",
    [
        (((2, 2),), ValueError, "start < stop"),
        (((-1, 2),), ValueError, "region.*-1"),
        ((1, 2), TypeError, "pair"),
        ((), ValueError, "start < stop"),
        (((0.5, 2),), TypeError, "0.5"),
    ],
)
def test_wrong_regions_are_named(region, error, message):
    with pytest.raises(error, match=message):
        cycnn.Conv(4, 3, region=region)


def test_locally_connected_keeps_its_input_size():
    layer = cycnn.LocallyConnected(4, 3).build((5, 4, 6))
    with pytest.raises(ValueError, match="built for"):
        layer.build((6, 4, 6))
    with pytest.raises(ValueError, match="weight must have shape"):
        layer(np.zeros((2, 6, 4, 6)))
    with pytest.raises(ValueError, match="padding_mode.*mirror"):
        cycnn.LocallyConnected(4, 3, padding_mode="mirror")


def test_groups_of_locally_connected():
    with pytest.raises(ValueError, match="groups must divide filters=6, got groups=4"):
        cycnn.LocallyConnected(6, 3, groups=4)
    with pytest.raises(ValueError, match=r"groups.*0"):
        cycnn.LocallyConnected(6, 3, groups=0)
    with pytest.raises(TypeError, match=r"groups.*2\.0"):
        cycnn.LocallyConnected(6, 3, groups=2.0)
    assert cycnn.LocallyConnected(6, 3, groups=2).config()["groups"] == 2
    local = np.zeros((3, 2, 3, 3, 3, 4), "float32")
    with pytest.raises(ValueError, match=r"weight must have shape .* 6, 4\).*groups=1"):
        ops.locally_connected(X, local)
    with pytest.raises(ValueError, match="groups must divide.*groups=4 for 6 channels"):
        ops.locally_connected(X, local, groups=4)
    with pytest.raises(ValueError, match="groups.*0"):
        ops.locally_connected_backward_input(X, local, X.shape, groups=0)
    with pytest.raises(ValueError, match="groups must divide.*and 4 filters"):
        ops.locally_connected_backward_weight(np.zeros((2, 3, 2, 4)), X, 3, groups=3)


def test_ops_name_shapes_that_do_not_fit():
    weight = np.zeros((3, 3, 4, 6), "float32")
    with pytest.raises(ValueError, match=r"weight.*\(3, 3, 4, 6\)"):
        ops.conv_transpose(X[..., :5].copy(), weight)
    with pytest.raises(ValueError, match=r"bias must have shape \(4,\)"):
        ops.conv_transpose(X, weight, np.zeros(5, "float32"))
    with pytest.raises(ValueError, match=r"dy must have y's shape \(2, 7, 6, 4\)"):
        ops.conv_transpose_backward_input(X, weight, X.shape)
    with pytest.raises(ValueError, match=r"dy must have y's shape"):
        ops.conv_transpose_backward_weight(X, X, 3)
    local = np.zeros((3, 2, 3, 3, 6, 4), "float32")
    with pytest.raises(ValueError, match=r"weight must have shape \(2, 1,"):
        ops.locally_connected(X, local, stride=2)
    with pytest.raises(ValueError, match=r"bias must have shape \(3, 2, 4\)"):
        ops.locally_connected(X, local, np.zeros(4, "float32"))
    with pytest.raises(ValueError, match=r"dy must have y's shape \(2, 3, 2, 4\)"):
        ops.locally_connected_backward_input(X, local, X.shape)
