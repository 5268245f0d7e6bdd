"""Winograd convolution: within its error bound of float64, the same bits however it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn
from cycnn import engine, ops
from cycnn.ops import algorithm, winograd
from cycnn.ops.cost import _share_of_classes, choose
from cycnn.ops.problem import resolve

from . import reference
from .helpers import DTYPES, at_offset, integers, normal, run_python, same_bits

# Error, in eps of the largest sum of |x| |w|: what docs/performance.md promises.
BOUND = {"direct": 4, "winograd2": 4, "winograd4": 12}
ALGORITHMS = tuple(algorithm.OUTPUTS)

CASES = [  # x, kernel, filters, options: sizes that fill neither tiles nor vectors, and that do
    ((1, 1, 1, 1), (3, 3), 1, {"padding": 1}),
    ((2, 9, 11, 5), (3, 3), 7, {}),
    ((2, 4, 3, 17), (3, 3), 33, {"padding": "same"}),
    ((1, 8, 8, 70), (3, 3), 40, {"padding": 1}),
    ((3, 16, 16, 32), (3, 3), 32, {"padding": 1}),
    ((2, 5, 6, 4), (3, 3), 9, {"padding": ((1, 0), (0, 2))}),
    ((2, 4, 3, 4), (3, 3), 5, {"padding": 4}),
    *(
        ((2, 6, 7, 5), (3, 3), 9, {"padding": 2, "padding_mode": mode})
        for mode in ("reflect", "replicate", "circular")
    ),
    ((2, 6, 7, 8, 5), (3, 3, 3), 9, {"padding": 1}),
    ((2, 7, 6, 5, 6), (2, 3, 3), 8, {"stride": (2, 1, 1), "dilation": (3, 1, 1)}),
    ((40, 20, 20, 16), (3, 3), 16, {"padding": 1}),
]
FLAT = [  # kernels of 3 on the last axis
    ((2, 1, 3), (3,), 4, {"padding": 1}),
    ((3, 50, 19), (3,), 37, {"padding": "causal"}),
    ((2, 33, 6), (3,), 9, {"padding": 2, "padding_mode": "circular"}),
    ((2, 7, 9, 5), (1, 3), 6, {"padding": "same"}),
    ((2, 7, 9, 5), (1, 3), 6, {"stride": (2, 1), "padding": ((1, 0), (1, 1))}),
]
each_case = pytest.mark.parametrize(
    "x_shape, kernel, filters, options, name",
    [(*case, name) for case in CASES for name in ALGORITHMS]
    + [(*case, "winograd4") for case in FLAT],
)


def problem(make, rng, x_shape, kernel, filters, dtype, options):
    """Return x, weight, bias and dy."""
    x = make(rng, x_shape, dtype)
    weight = make(rng, (*kernel, x_shape[-1], filters), dtype)
    dy = make(rng, ops.conv(x, weight, **options).shape, dtype)
    return x, weight, make(rng, (filters,), dtype), dy


def directions(x, weight, bias, dy, **options):
    """Return y, dx, dweight and dbias."""
    y = ops.conv(x, weight, bias, **options)
    dx = ops.conv_backward_input(dy, weight, x.shape, **options)
    return y, dx, *ops.conv_backward_weight(dy, x, weight.shape[:-2], **options)


def plain(x, weight, bias, dy, **options):
    """Return the same from the float64 reference."""
    options = {"mode" if k == "padding_mode" else k: v for k, v in options.items()}
    y = reference.conv(x, weight, bias, **options)
    dx = reference.conv_backward_input(dy, weight, x.shape, **options)
    return y, dx, *reference.conv_backward_weight(dy, x, weight.shape[:-2], **options)


def assert_within_bound(actual, arrays, options, name):
    """Hold all directions to the error bound of an algorithm."""
    expected = plain(*arrays, **options)
    magnitudes = plain(*map(np.abs, arrays), **options)
    for got, wanted, magnitude in zip(actual, expected, magnitudes, strict=True):
        assert got.shape == wanted.shape
        bound = BOUND[name] * np.finfo(got.dtype).eps * np.max(magnitude)
        error = np.max(np.abs(got - wanted))
        assert error <= bound, f"error {error / bound:.2f} of the bound"


@pytest.mark.parametrize("dtype", DTYPES)
@each_case
def test_error_is_within_the_bound(rng, x_shape, kernel, filters, options, name, dtype):
    arrays = problem(normal, rng, x_shape, kernel, filters, dtype, options)
    actual = directions(*arrays, **options, algorithm=name)
    assert all(a.dtype == dtype for a in actual)
    assert_within_bound(actual, arrays, options, name)


@pytest.mark.parametrize("channels, filters", [(1, 8), (16, 64), (64, 16), (256, 64)])
def test_documented_error_bound_holds_for_layers_as_they_are(rng, channels, filters):
    x = normal(rng, (2, 16, 16, channels))
    weight = normal(rng, (3, 3, channels, filters)) * np.float32(np.sqrt(2 / (9 * channels)))
    arrays = x, weight, normal(rng, (filters,)), normal(rng, (2, 16, 16, filters))
    for name in BOUND:
        actual = directions(*arrays, padding=1, algorithm=name)
        assert_within_bound(actual, arrays, {"padding": 1}, name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_winograd2_is_exact_on_small_integers(rng, dtype):
    """Its transforms multiply by 1/2 only."""
    arrays = problem(integers, rng, (2, 9, 11, 19), (3, 3), 21, dtype, {"padding": 1})
    actual = directions(*arrays, padding=1, algorithm="winograd2")
    for got, wanted in zip(actual, plain(*arrays, padding=1), strict=True):
        assert_array_equal(got, wanted)


def test_activation_follows_the_bias(rng):
    x, weight, bias, _ = problem(normal, rng, (2, 9, 11, 5), (3, 3), 7, "float32", {})
    y = ops.conv(x, weight, bias, algorithm="winograd4")
    activated = ops.conv(x, weight, bias, algorithm="winograd4", activation="relu")
    assert same_bits(activated, np.maximum(y, 0))


def test_nan_reaches_all_outputs_of_its_tiles_and_no_other(rng):
    x, weight, _, _ = problem(normal, rng, (2, 16, 16, 5), (3, 3), 6, "float32", {"padding": 1})
    x[1, 9, 9, 2] = np.nan
    expected = np.zeros((2, 16, 16, 6), bool)
    expected[1, 8:12, 8:12] = True
    got = np.isnan(ops.conv(x, weight, padding=1, algorithm="winograd4"))
    assert_array_equal(got, expected)


def test_infinity_in_x_leaves_other_tiles_alone(rng):
    x, weight, _, _ = problem(normal, rng, (2, 16, 16, 5), (3, 3), 6, "float32", {"padding": 1})
    expected = ops.conv(x, weight, padding=1, algorithm="winograd4")
    x[1, 9, 9, 2] = np.inf
    got = ops.conv(x, weight, padding=1, algorithm="winograd4")
    assert not np.isfinite(got[1, 8:11, 8:11]).any()
    got[1, 8:12, 8:12] = expected[1, 8:12, 8:12]
    assert same_bits(got, expected)


# Bits
# --------------------------------------------------------------------------------

BITS = [
    ((3, 15, 14, 19), (3, 3), 37, {"padding": 1}, "winograd4"),
    ((3, 15, 14, 70), (3, 3), 45, {"padding": 1}, "winograd2"),
    ((64, 8, 8, 32), (3, 3), 24, {"padding": 1}, "winograd4"),
    ((3, 100, 6), (3,), 21, {}, "winograd4"),
    ((3, 6, 7, 8, 5), (3, 3, 3), 21, {"padding": 1}, "winograd4"),
    ((3, 6, 6, 100), (3, 3), 20, {"padding": 1}, "winograd4"),
]
each_bits = pytest.mark.parametrize("x_shape, kernel, filters, options, name", BITS)


@pytest.fixture
def caches(monkeypatch):
    """Pretend to other caches, and say how many blocks of tiles each thread must have."""

    def pretend(l2, l3, blocks=1):
        monkeypatch.setattr(winograd, "cache_sizes", lambda: engine.CacheSizes(32 << 10, l2, l3))
        monkeypatch.setattr(winograd, "MIN_BLOCKS", blocks)
        forget()

    def forget():
        for cached in (winograd.forward, winograd.input_gradient, winograd._weight_gradient):
            cached.cache_clear()

    yield pretend
    forget()


def all_bits(arrays, options, name):
    return b"".join(a.tobytes() for a in directions(*arrays, **options, algorithm=name))


@each_bits
def test_blocks_stages_and_threads_change_no_bit(
    rng, caches, x_shape, kernel, filters, options, name
):
    arrays = problem(normal, rng, x_shape, kernel, filters, "float32", options)
    expected = all_bits(arrays, options, name)
    few, many = 1 << 10, 1 << 30
    # Short blocks; long ones; one stage; many stages, whose weights are transformed before.
    for l2, l3, blocks in ((few, many, 1), (many, many, 1), (many, many, many), (few, few, 1)):
        caches(l2, l3, blocks)
        for threads in (1, 2, 3, 8):
            with cycnn.num_threads(threads):
                assert all_bits(arrays, options, name) == expected


@each_bits
def test_memory_offset_changes_no_bit(rng, x_shape, kernel, filters, options, name):
    arrays = problem(normal, rng, x_shape, kernel, filters, "float32", options)
    expected = all_bits(arrays, options, name)
    for offset in (4, 36, 60):
        assert all_bits([at_offset(a, offset) for a in arrays], options, name) == expected


@each_bits
def test_number_and_place_of_rows_change_no_bit(rng, x_shape, kernel, filters, options, name):
    x, weight, bias, dy = problem(normal, rng, x_shape, kernel, filters, "float32", options)
    options = {**options, "algorithm": name}
    y = ops.conv(x, weight, bias, **options)
    dx = ops.conv_backward_input(dy, weight, x.shape, **options)
    for rows in ([2], [2, 0], [1, 1, 2, 0, 1, 0, 2]):
        assert same_bits(ops.conv(x[rows], weight, bias, **options), y[rows])
        part = ops.conv_backward_input(dy[rows], weight, x[rows].shape, **options)
        assert same_bits(part, dx[rows])


@pytest.mark.parametrize(
    "vectors, panels, most, beside, threads, share",
    [
        (16, 8, 16, 1, 1, (16, 8)),  # one thread transforms everything once
        (16, 8, 4, 1, 1, (4, 8)),  # unless an accumulator would be too large
        (16, 8, 16, 1, 2, (8, 8)),
        (16, 8, 16, 1, 4, (8, 4)),
        (16, 8, 16, 3, 2, (8, 8)),  # six jobs on two threads, not three
        (16, 8, 16, 16, 3, (16, 8)),  # enough already
        (64, 32, 8, 1, 16, (8, 16)),
        (1, 8, 1, 1, 16, (1, 1)),  # as small as there can be
    ],
)
def test_weight_gradients_of_few_jobs_are_cut_for_all_threads(
    vectors, panels, most, beside, threads, share
):
    assert winograd._share(vectors, panels, most, beside, threads) == share


def test_weights_too_large_to_keep_are_transformed_in_each_stage(rng, caches, monkeypatch):
    arrays = problem(normal, rng, (3, 15, 14, 19), (3, 3), 37, "float32", {})
    expected = all_bits(arrays, {}, "winograd4")
    caches(1 << 10, 1 << 10)
    monkeypatch.setattr(winograd, "WEIGHT_BYTES", 0)
    assert all_bits(arrays, {}, "winograd4") == expected


def test_prediction_does_not_depend_on_how_many_rows_came(rng, monkeypatch):
    """The choice of an algorithm does, so predict makes it for its batch size."""
    monkeypatch.setattr(algorithm, "DEFAULT", "auto")
    model = cycnn.Sequential([cycnn.Conv(128, 3, padding=1)], input_shape=(4, 4, 128), rng=0)
    x = normal(rng, (64, 4, 4, 128))
    chosen = {choose(_problem((n, 4, 4, 128), (3, 3), 128), "forward", "auto") for n in (1, 64)}
    y = model.predict(x)
    assert same_bits(model.predict(x[:1]), y[:1])
    assert same_bits(model.predict(x[:5]), y[:5])
    assert len(chosen) > 1, "a shape whose algorithm depends on the batch would test more"


# The choice
# --------------------------------------------------------------------------------


def _problem(x_shape, kernel, filters, stride=1, dilation=1, groups=1):
    weight = (*kernel, x_shape[-1] // groups, filters)
    return resolve(x_shape, weight, np.dtype("float32"), stride, 1, "zeros", dilation, groups)


def test_auto_is_direct_where_winograd_does_not_fit():
    for more in ({"stride": 2}, {"dilation": 2}, {"groups": 2}):
        p = _problem((8, 32, 32, 64), (3, 3), 64, **more)
        for direction in ("forward", "input", "weight"):
            assert choose(p, direction, "auto") == "direct"


def test_auto_is_winograd_on_a_large_layer_and_direct_on_one_channel(monkeypatch):
    monkeypatch.setattr(algorithm, "DEFAULT", "auto")
    large, thin = (_problem((16, 32, 32, c), (3, 3), 64) for c in (64, 1))
    assert {choose(large, d, "auto") for d in ("forward", "input", "weight")} == {"winograd4"}
    assert choose(thin, "forward", "auto") == "direct"


def test_auto_knows_which_zeros_the_direct_kernel_leaves_out(monkeypatch):
    """Those of small images, a few at a time too; none of volumes, whose windows go in whole."""
    monkeypatch.setattr(algorithm, "DEFAULT", "auto")
    images = _problem((64, 2, 2, 256), (3, 3), 256)
    volumes = _problem((16, 6, 6, 6, 32), (3, 3, 3), 32)
    assert choose(images, "forward", "auto") == "direct"
    for direction in ("forward", "input"):
        assert choose(volumes, direction, "auto").startswith("winograd")


def test_auto_counts_no_zeros_of_images_that_make_no_block():
    """Windows far apart have many zeros, and a plane of any size must be soon looked at."""
    p = _problem((1, 2048, 2048, 16), (3, 3), 16, dilation=900)
    assert _share_of_classes(p, 16, 16, engine.kernels(p.dtype)) == 1.0
    few = _problem((64, 2, 2, 2), (3, 3), 256)
    assert _share_of_classes(few, 2, 256, engine.kernels(p.dtype)) == 1.0
    assert _share_of_classes(few, 256, 2, engine.kernels(p.dtype)) < 0.5


@pytest.mark.parametrize(
    "x_shape, kernel, options, message",
    [
        ((2, 8, 8, 4), (3, 3), {"algorithm": "fft"}, "algorithm must be one of auto, direct.*fft"),
        ((2, 8, 8, 4), (3, 3), {"stride": 2}, "winograd4.*stride"),
        ((2, 8, 8, 4), (5, 5), {}, "winograd4.*3 x 3"),
        ((2, 8, 8, 4), (3, 3), {"dilation": 2}, "winograd4.*dilation"),
        ((2, 8, 8, 4), (3, 3), {"groups": 2}, "winograd4.*groups=2"),
    ],
)
def test_an_algorithm_that_does_not_fit_is_refused(x_shape, kernel, options, message):
    options = {"algorithm": "winograd4"} | options
    x = np.zeros(x_shape, "float32")
    weight = np.zeros((*kernel, 4 // options.get("groups", 1), 6), "float32")
    with pytest.raises(ValueError, match=message):
        ops.conv(x, weight, **options)
    with pytest.raises(ValueError, match=message):
        cycnn.Conv(6, kernel, **options).build(x_shape[1:])


def test_a_layer_computes_by_the_algorithm_it_is_told(rng):
    x, dy = normal(rng, (2, 8, 8, 4)), normal(rng, (2, 8, 8, 6))
    for name in ("direct", *ALGORITHMS):
        layer = cycnn.Conv(6, 3, padding=1, algorithm=name).build((8, 8, 4), rng=0)
        y, backward = layer(x)
        weight, options = layer.weight.data, {"padding": 1, "algorithm": name}
        assert same_bits(y, ops.conv(x, weight, layer.bias.data, **options))
        assert same_bits(backward(dy), ops.conv_backward_input(dy, weight, x.shape, **options))
        dweight, _ = ops.conv_backward_weight(dy, x, 3, **options)
        assert same_bits(layer.weight.grad, dweight)


@pytest.mark.parametrize("name", ["direct", "winograd2"])
def test_environment_sets_what_auto_stands_for(name):
    code = f"""
import numpy as np
from cycnn import ops
rng = np.random.default_rng(0)
for kernel in (3, 5):           # which it does not fit
    x, w = rng.standard_normal((2, 9, 9, 8)), rng.standard_normal((kernel, kernel, 8, 8))
    expected = ops.conv(x, w, algorithm={name!r} if kernel == 3 else "direct")
    assert (ops.conv(x, w) == expected).all()
"""
    run_python(code, CYCNN_ALGORITHM=name)
    done = run_python("import cycnn", check=False, CYCNN_ALGORITHM="fast")
    assert "CYCNN_ALGORITHM must be one of auto, direct" in done.stderr


# Training
# --------------------------------------------------------------------------------


@pytest.mark.slow
def test_loss_curves_of_resnet18_agree_within_the_spread_of_two_seeds(monkeypatch):
    """Under auto and under direct, from the same weights and batches."""
    rng = np.random.default_rng(0)
    patterns = normal(rng, (10, 32, 32, 3))
    y = rng.integers(0, 10, 1024)
    x = patterns[y] * np.float32(0.3) + normal(rng, (1024, 32, 32, 3))

    def curve(name, seed):
        monkeypatch.setattr(algorithm, "DEFAULT", name)
        model = cycnn.models.resnet18(10, (32, 32, 3), rng=seed)
        trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.SGD(0.02, momentum=0.9))
        losses = [
            trainer.step(x[i : i + 32], y[i : i + 32]) for _ in range(2) for i in range(0, 1024, 32)
        ]
        return np.array(losses).reshape(-1, 8).mean(1)

    auto, direct, other = curve("auto", 0), curve("direct", 0), curve("direct", 1)
    assert direct[-1] < 0.5 * direct[0]
    assert np.max(np.abs(auto - direct)) <= np.max(np.abs(other - direct))
