"""Layers that slice, split, join and rearrange: what the contract does not say of them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn
from cycnn.summary import summarize

from .helpers import integers, normal, same_bits


@pytest.mark.parametrize("shape", [(6,), (4, 6), (3, 4, 6), (2, 3, 4, 6)])
def test_concat_undoes_split_along_every_axis(rng, shape):
    x = integers(rng, (3, *shape))
    for axis in (*range(1, len(shape) + 1), *range(-len(shape), 0)):
        length = x.shape[axis]
        for cuts in (length, [1], list(range(1, length)), (length - 1,)):
            split = cycnn.Split(cuts, axis=axis).build(shape)
            parts, split_backward = split(x)
            expected = np.split(x, cuts, axis=axis)
            for part, e in zip(parts, expected, strict=True):
                assert_array_equal(part, e)
            assert split.output_shape == tuple(part.shape[1:] for part in parts)
            concat = cycnn.Concat(axis=axis).build(split.output_shape)
            y, concat_backward = concat(parts)
            assert_array_equal(y, x)
            assert_array_equal(split_backward(concat_backward(x)), x)
            assert split_backward(parts, input_gradient=False) is None


@pytest.mark.parametrize("axis", [1, 2, 3, -1, -2, -3])
def test_slice_counts_as_python_does(rng, axis):
    x = integers(rng, (2, 5, 6, 7))
    for start, stop in ((None, 2), (2, None), (-3, -1), (1, 4), (None, None)):
        layer = cycnn.Slice(start, stop, axis=axis).build((5, 6, 7))
        y, _ = layer(x)
        assert_array_equal(y, np.moveaxis(np.moveaxis(x, axis, 0)[start:stop], 0, axis))
        assert layer.output_shape == y.shape[1:]


def test_a_layer_takes_other_extents_than_it_was_built_for(rng):
    x = integers(rng, (2, 9, 4, 3))
    built = (5, 6, 3)
    assert_array_equal(cycnn.Slice(-2, None, axis=1).build(built)(x)[0], x[:, -2:])
    assert cycnn.Reshape((-1, 3)).build(built)(x)[0].shape == (2, 36, 3)
    assert cycnn.Upsample(2).build(built)(x)[0].shape == (2, 18, 8, 3)
    with pytest.raises(ValueError, match="Crop: cropping"):
        cycnn.Crop(2).build(built)(x)


def test_reshape_and_flatten_are_views(rng):
    x = normal(rng, (2, 4, 9))
    y, backward = cycnn.Reshape((3, -1, 2)).build((4, 9))(x)
    assert y.shape == (2, 3, 6, 2)
    assert np.shares_memory(x, y)
    assert_array_equal(backward(y), x)


@pytest.mark.parametrize(
    "make, shape, message",
    [
        (lambda: cycnn.Slice(0, 3, axis=0), None, "Slice: axis.*0, the batch"),
        (lambda: cycnn.Split(2, axis=0), None, "Split: axis.*0, the batch"),
        (lambda: cycnn.Slice(0, 3, axis=1.5), None, r"Slice: axis.*1\.5"),
        (lambda: cycnn.Slice(0.5, 3), None, r"Slice: start.*0\.5"),
        (lambda: cycnn.Split(1), None, "Split: indices_or_sections.*1"),
        (lambda: cycnn.Split([]), None, "Split: indices_or_sections"),
        (lambda: cycnn.Split([3, 3]), None, r"Split: indices_or_sections.*\(3, 3\)"),
        (lambda: cycnn.Slice(0, 3, axis=-4), (4, 5, 6), "Slice: axis.*-4"),
        (lambda: cycnn.Concat(axis=4), ((4, 5, 6), (4, 5, 6)), "Concat: axis.*4"),
        (lambda: cycnn.Concat(axis=-4), ((4, 5, 6), (4, 5, 6)), "Concat: axis.*-4"),
        (lambda: cycnn.Slice(2, 9), (4, 5, 6), "Slice: start and stop.*6.*2 and 9"),
        (lambda: cycnn.Slice(3, 3), (4, 5, 6), "Slice: start and stop"),
        (lambda: cycnn.Split(4), (4, 5, 6), "Split: indices_or_sections.*6.*4"),
        (lambda: cycnn.Split([2, 6]), (4, 5, 6), "Split: indices_or_sections.*6"),
        (lambda: cycnn.Multiply(), ((4, 5), (4, 6)), "Multiply: inputs"),
        (lambda: cycnn.Maximum(), ((4, 5),), "Maximum: inputs"),
        (lambda: cycnn.Average(), ((4,), (5,)), "Average: inputs"),
        (lambda: cycnn.Pad(-1), None, "Pad: padding.*-1"),
        (lambda: cycnn.Pad("same"), None, "Pad: padding.*same"),
        (lambda: cycnn.Pad(1, "mirror"), None, "Pad: mode.*mirror"),
        (lambda: cycnn.Pad(1, "reflect", 1.0), None, "Pad: value.*reflect"),
        (lambda: cycnn.Pad(1, value=np.inf), None, "Pad: value.*inf"),
        (lambda: cycnn.Pad(1, value="0"), None, "Pad: value"),
        (lambda: cycnn.Pad(((1, 1),)), (4, 5, 6), "Pad: padding.*2 spatial"),
        (lambda: cycnn.Pad(1), (4,), "Pad: input"),
        (lambda: cycnn.Crop(-1), None, "Crop: cropping.*-1"),
        (lambda: cycnn.Crop(2), (4, 5, 6), "Crop: cropping.*2"),
        (lambda: cycnn.Upsample(0), None, "Upsample: factor.*0"),
        (lambda: cycnn.Upsample(1.5), None, r"Upsample: factor.*1\.5"),
        (lambda: cycnn.Upsample(2, "cubic"), None, "Upsample: mode.*cubic"),
        (lambda: cycnn.Upsample(2, align_corners=True), None, "Upsample: align_corners"),
        (lambda: cycnn.Upsample((2, 2)), (4, 5), "Upsample: factor"),
        (lambda: cycnn.Reshape((-1, -1)), None, "Reshape: shape"),
        (lambda: cycnn.Reshape((0, 3)), None, "Reshape: shape"),
        (lambda: cycnn.Reshape(3), None, "Reshape: shape"),
        (lambda: cycnn.Reshape((7, -1)), (4, 5), "Reshape: shape.*20"),
        (lambda: cycnn.Permute((0, 1)), None, "Permute: axes"),
        (lambda: cycnn.Permute((1, 1)), None, "Permute: axes"),
        (lambda: cycnn.Permute((2, 1)), (4, 5, 6), "Permute: axes.*3"),
        (lambda: cycnn.Dropout(0.5, channelwise=1), None, "Dropout: channelwise.*1"),
    ],
)
def test_wrong_arguments_are_named(make, shape, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make() if shape is None else make().build(shape)


def test_split_names_a_wrong_gradient(rng):
    parts, backward = cycnn.Split(2).build((6,))(normal(rng, (2, 6)))
    with pytest.raises(ValueError, match="Split: dy.*2"):
        backward(parts[0])
    with pytest.raises(ValueError, match=r"dy.*\(2, 3\)"):
        backward((parts[0], parts[0][:1]))


def regions():
    """Return a network that splits an image into regions and fuses what their branches say."""
    return cycnn.Sequential(
        [
            cycnn.Split([3, 5], axis=1),
            cycnn.Parallel(
                [
                    [cycnn.Conv(4, 3, padding="same"), cycnn.ReLU(), cycnn.GlobalAvgPool()],
                    [cycnn.Pad(1, "reflect"), cycnn.Conv(4, 3), cycnn.GlobalAvgPool()],
                    [cycnn.Upsample(2, "linear"), cycnn.Conv(4, 2), cycnn.GlobalAvgPool()],
                ],
                merge=cycnn.Maximum(),
            ),
            cycnn.Dense(3),
        ],
        input_shape=(8, 6, 2),
        rng=0,
    )


def test_split_feeds_parallel_item_by_item(rng):
    model, x = regions(), normal(rng, (5, 8, 6, 2))
    y, backward = model(x)
    upper, middle, lower = np.split(x, [3, 5], axis=1)
    branches = [
        cycnn.Sequential(branch.layers, input_shape=part.shape[1:])
        for branch, part in zip(model[1].branches, (upper, middle, lower), strict=True)
    ]
    outputs = [b(part) for b, part in zip(branches, (upper, middle, lower), strict=True)]
    expected, _ = model[2](np.maximum(np.maximum(outputs[0][0], outputs[1][0]), outputs[2][0]))
    assert same_bits(y, expected)
    assert backward(np.ones_like(y)).shape == x.shape
    assert all(p.grad.any() for p in model.parameters().values())


def test_a_part_that_nobody_reads_gets_no_gradient(rng):
    graph = cycnn.Graph(
        {
            "parts": (cycnn.Split(3), "x"),
            "gate": (cycnn.Multiply(), ("parts:0", "parts:2")),
            "mean": (cycnn.Average(), ("gate", "parts:0")),
        },
        inputs={"x": (6,)},
        outputs=("mean",),
    )
    x = integers(rng, (4, 6))
    a, _, c = np.split(x, 3, axis=1)
    y, backward = graph(x)
    assert_array_equal(y, (a * c + a) / 2)
    half = np.full_like(a, 0.5)
    expected = np.concatenate([half * c + half, 0 * a, half * a], axis=1)
    assert_array_equal(backward(np.ones_like(y)), expected)


def test_a_saved_network_of_regions_predicts_the_same(tmp_path, rng):
    model, x = regions(), normal(rng, (5, 8, 6, 2))
    model.save(tmp_path / "regions.cycnn")
    assert same_bits(cycnn.load(tmp_path / "regions.cycnn").predict(x), model.predict(x))
    one = cycnn.Sequential(
        [
            cycnn.Permute((2, 1, 3)), cycnn.Reshape((4, 12, 2)), cycnn.Slice(1, -1, axis=2),
            cycnn.Crop(((1, 0), (2, 1))), cycnn.Upsample((2, 1)), cycnn.Pad(((0, 1), (2, 0))),
            cycnn.Dropout(0.2, channelwise=True),
        ],
        input_shape=(8, 6, 2),
    )  # fmt: skip
    one.save(tmp_path / "one.cycnn")
    again = cycnn.load(tmp_path / "one.cycnn")
    assert same_bits(again.predict(x), one.predict(x))
    assert [repr(layer) for layer in again.layers] == [repr(layer) for layer in one.layers]


def test_receptive_fields_go_through_borders_and_regions():
    model = cycnn.Sequential(
        [
            cycnn.Pad(((2, 1),)), cycnn.Crop(((1, 1),)), cycnn.Slice(1, 7, axis=1),
            cycnn.Conv(2, 3), cycnn.Upsample(2),
        ],
        input_shape=(8, 1), rng=0,
    )  # fmt: skip
    fields = [row.receptive_field for row in summarize(model).rows]
    assert fields == [(1,), (1,), (1,), (3,), None]
