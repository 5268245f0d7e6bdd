"""What every public layer promises, over the table in contract.py."""

from __future__ import annotations

import copy
import inspect
import io
import json
import pickle

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cycnn

from .contract import ROWS, cases
from .helpers import DTYPES, normal, placements, same_bits

each_row = pytest.mark.parametrize("row", cases())
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def as_tuple(value):
    """Return several arrays as they are and one as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def parameters(layer):
    """Return {name: Parameter} of a layer or container."""
    return layer.parameters()


def run(row, layer, inputs, dy=None, training=False):
    """Return y, dx and the gradient of every parameter, in one flat list."""
    y, backward = row.call(layer, inputs, training)
    for parameter in parameters(layer).values():
        parameter.grad[...] = 0
    dx = backward(np.cos(np.arange(y.size)).reshape(y.shape).astype(y.dtype) if dy is None else dy)
    gradients = [p.grad.copy() for p in parameters(layer).values()]
    return [y, *as_tuple(dx), *gradients]


def test_every_public_layer_has_a_row():
    public = {
        name
        for name in cycnn.__all__
        if inspect.isclass(value := getattr(cycnn, name)) and issubclass(value, cycnn.Layer)
    }
    assert public - {"Layer", "Model", "Sequential", "Graph"} == set(ROWS)


def slope(function, array, step=1e-5):
    """Return the derivative of function() by every element of array, by central differences."""
    gradient = np.empty(array.shape)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        up = function()
        array[index] = kept - step
        gradient[index] = (up - function()) / (2 * step)
        array[index] = kept
    return gradient


@pytest.mark.parametrize("training", [False, True])
@each_row
def test_gradients_are_slopes(rng, row, training):
    if training and not row.training:
        pytest.skip("the same in training")
    layer = row.build("float64")
    inputs = row.inputs(rng, 2, "float64")
    y, _ = row.call(copy.deepcopy(layer), inputs, training)
    dy = normal(rng, y.shape, "float64")
    gradients = run(row, copy.deepcopy(layer), inputs, dy, training)[1:]

    def value():  # a copy: every call draws the same dropout mask and meets the same statistics
        for parameter in parameters(layer).values():
            parameter._changed()
        return float((row.call(copy.deepcopy(layer), inputs, training)[0] * dy).sum())

    arrays = [*inputs, *(p._writable for p in parameters(layer).values())]
    assert len(gradients) == len(arrays)
    for gradient, array in zip(gradients, arrays, strict=True):
        if array.dtype.kind == "i":  # indices have nowhere to go
            assert not gradient.any()
            continue
        # Truncation is about step^2, rounding eps / step: both near 1e-10, times sums of 100 terms.
        assert_allclose(gradient, slope(value, array), rtol=1e-6, atol=2e-7)


@each_dtype
@each_row
def test_dtype_is_kept_and_inputs_are_left_alone(rng, row, dtype):
    layer, inputs = row.build(dtype), row.inputs(rng, 3, dtype)
    kept = [x.copy() for x in inputs]
    before = [p.data.copy() for p in parameters(layer).values()]
    results = run(row, layer, inputs, training=True)
    assert all(a.dtype == dtype for a in results)
    assert all(map(same_bits, inputs, kept))
    after = [p.data for p in parameters(layer).values()]
    assert all(map(same_bits, after, before))
    assert all(p.data.dtype == p.grad.dtype == dtype for p in parameters(layer).values())


@each_row
def test_any_real_numbers_are_cast(row):
    layer = row.build()
    inputs = [np.arange(2 * np.prod(s)).reshape(2, *s) % 7 for s in row.shapes]
    expected, _ = row.call(layer, [x.astype("float32") for x in inputs])
    for dtype in ("uint8", "int64", "float64", "float16", "bool"):
        if dtype == "bool":
            inputs = [x > 2 for x in inputs]
            expected, _ = row.call(layer, [x.astype("float32") for x in inputs])
        y, _ = row.call(layer, [x.astype(dtype) for x in inputs])
        assert same_bits(y, expected)
    for wrong in ("complex64", "object", "str"):
        with pytest.raises((TypeError, ValueError)):
            row.call(layer, [x.astype(wrong) for x in inputs])


@pytest.mark.parametrize("training", [False, True])
@each_row
def test_the_way_arrays_lie_in_memory_changes_no_bit(rng, row, training):
    layer, inputs = row.build(), row.inputs(rng, 3)
    expected = run(row, copy.deepcopy(layer), inputs, training=training)
    dy = np.cos(np.arange(expected[0].size)).reshape(expected[0].shape).astype("float32")
    for placed in zip(*(placements(x) for x in inputs), placements(dy), strict=True):
        name = placed[0][0]
        *moved, moved_dy = (array for _, array in placed)
        actual = run(row, copy.deepcopy(layer), moved, moved_dy, training)
        assert all(map(same_bits, actual, expected)), name


@each_row
def test_a_row_depends_on_no_other(rng, row):
    layer, inputs = row.build(), row.inputs(rng, 5)
    y, dx, *_ = run(row, layer, inputs, dy=None)
    dy = np.cos(np.arange(y.size)).reshape(y.shape).astype(y.dtype)
    for rows in ([3], [4, 1], [0, 0, 4, 3, 2, 1, 2, 4]):
        part = run(row, layer, [x[rows] for x in inputs], dy[rows])
        assert same_bits(part[0], y[rows])
        assert same_bits(part[1], dx[rows])


@each_row
def test_batch_of_none_and_of_one(rng, row):
    layer = row.build()
    y, _ = row.call(layer, row.inputs(rng, 1))
    assert y.shape[0] == 1
    empty, backward = row.call(layer, row.inputs(rng, 0))
    assert empty.shape == (0, *y.shape[1:])
    assert all(len(dx) == 0 for dx in as_tuple(backward(empty)))
    assert not any(p.grad.any() for p in parameters(layer).values())


@pytest.mark.parametrize("training", [False, True])
@each_row
def test_number_of_threads_changes_no_bit(rng, row, training):
    layer, inputs = row.build(), row.inputs(rng, 700)
    with cycnn.num_threads(1):
        expected = run(row, copy.deepcopy(layer), inputs, training=training)
    with cycnn.num_threads(2):
        actual = run(row, copy.deepcopy(layer), inputs, training=training)
    assert all(map(same_bits, actual, expected))


def through_joblib(layer):
    """Return the layer after a joblib file."""
    file = io.BytesIO()
    joblib.dump(layer, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)), through_joblib],
    ids=["copy", "deepcopy", "pickle", "joblib"],
)
@each_row
def test_copies_compute_the_same(rng, row, copied):
    layer, inputs = row.build(), row.inputs(rng, 3)
    row.call(layer, inputs, training=True)  # batch normalisation has now met data
    again = copied(layer)
    assert type(again) is type(layer)
    assert list(parameters(again)) == list(parameters(layer))
    for a, b in zip(parameters(again).values(), parameters(layer).values(), strict=True):
        assert a.trainable == b.trainable
        assert not a.data.flags.writeable
    assert all(map(same_bits, run(row, again, inputs), run(row, layer, inputs)))


@each_row
def test_copies_before_the_build(row):
    layer = pickle.loads(pickle.dumps(copy.deepcopy(row.make())))
    assert layer.build(row.shape, rng=0) is layer
    for a, b in zip(parameters(layer).values(), parameters(row.build()).values(), strict=True):
        assert same_bits(a.data, b.data)


@each_row
def test_config_makes_the_same_layer(row):
    layer = row.make()
    config = layer.config()
    assert repr(type(layer)(**config)) == repr(layer)
    assert repr(layer).startswith(f"{type(layer).__name__}(")
    if not isinstance(layer, (cycnn.Model, cycnn.Lambda)):  # whose arguments are layers, or code
        json.dumps(config)


@each_row
def test_use_before_build_is_refused(rng, row):
    with pytest.raises(cycnn.NotBuiltError, match=type(row.make()).__name__):
        row.call(row.make(), row.inputs(rng, 2))


@each_row
def test_build_needs_real_extents_and_a_real_dtype(row):
    layer = row.make()
    with pytest.raises(ValueError, match="float16"):
        layer.build(row.shape, dtype="float16")
    zero = tuple((*s[:-1], 0) for s in row.shapes)
    with pytest.raises(ValueError, match="0"):
        row.make().build(zero if row.several else zero[0])


@each_row
def test_input_of_another_shape_is_refused(rng, row):
    layer = row.build()
    for change in (
        lambda x: np.zeros((*x.shape[:-1], x.shape[-1] + 1), x.dtype),
        lambda x: x[..., None],
        lambda x: x[0],
    ):
        with pytest.raises(ValueError, match=r"."):
            row.call(layer, [change(x) for x in row.inputs(rng, 2)])


@each_row
def test_gradient_of_another_shape_is_refused(rng, row):
    layer = row.build()
    y, backward = row.call(layer, row.inputs(rng, 2))
    with pytest.raises(ValueError, match=r"."):
        backward(np.zeros((*y.shape[:-1], y.shape[-1] + 1), y.dtype))


@each_row
def test_gradients_add_up_and_the_input_gradient_is_optional(rng, row):
    layer, inputs = row.build(), row.inputs(rng, 3)
    y, backward = row.call(layer, inputs)
    assert backward(np.ones_like(y), input_gradient=False) is None
    once = [p.grad.copy() for p in parameters(layer).values()]
    _, backward = row.call(layer, inputs)
    backward(np.ones_like(y))
    for parameter, grad in zip(parameters(layer).values(), once, strict=True):
        assert_array_equal(parameter.grad, 2 * grad)


@each_row
def test_same_rng_same_parameters(row):
    generators = (7, 7, np.random.default_rng(7))
    first, *others = (list(parameters(row.build(rng=g)).values()) for g in generators)
    for other in others:
        assert all(same_bits(a.data, b.data) for a, b in zip(first, other, strict=True))
    different = list(parameters(row.build(rng=8)).values())
    weights = [(a, b) for a, b in zip(first, different, strict=True) if a.data.std() > 0]
    assert not any(same_bits(a.data, b.data) for a, b in weights)


@each_row
def test_freeze_keeps_parameters_out_of_training(rng, row):
    layer = row.build()
    layer.freeze()
    assert not any(p.trainable for p in parameters(layer).values())
    inputs = row.inputs(rng, 3)
    if not any(isinstance(layer, kind) for kind in (cycnn.Dropout,)):
        trained, _ = row.call(layer, inputs, training=True)
        assert same_bits(trained, row.call(layer, inputs)[0])  # frozen statistics
    layer.unfreeze()
    assert all(p.trainable for p in parameters(layer).values())
