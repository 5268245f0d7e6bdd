"""Graph, Sequential, Residual, Parallel: one executor, whatever the way to write the network."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cycnn

from .helpers import normal, same_bits


def small(**options):
    """Return a built network with every kind of layer."""
    layers = [
        cycnn.Conv(6, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.MaxPool(2),
        cycnn.Residual([cycnn.Conv(6, 3, padding=1), cycnn.BatchNorm()]), cycnn.ReLU(),
        cycnn.Parallel([[cycnn.Conv(3, 1)], [cycnn.AvgPool(3, stride=1, padding=1)]]),
        cycnn.GlobalAvgPool(), cycnn.Dense(5),
    ]  # fmt: skip
    return cycnn.Sequential(layers, **({"input_shape": (8, 9, 2), "rng": 0} | options))


def test_sequential_is_its_layers_one_after_the_other(rng):
    layers = [cycnn.Conv(4, 3), cycnn.ReLU(), cycnn.Flatten(), cycnn.Dense(3)]
    model = cycnn.Sequential(layers, input_shape=(5, 6, 2), rng=0)
    x = normal(rng, (3, 5, 6, 2))
    y, backward = model(x)
    value, closures = x, []
    for layer in layers:
        value, closure = layer(value)
        closures.append(closure)
    assert same_bits(y, value)
    dy = normal(rng, y.shape)
    dx = backward(dy)
    gradients = [p.grad.copy() for p in model.parameters().values()]
    for p in model.parameters().values():
        p.grad[...] = 0
    for closure in reversed(closures):
        dy = closure(dy)
    assert same_bits(dx, dy)
    for p, gradient in zip(model.parameters().values(), gradients, strict=True):
        assert_array_equal(p.grad, gradient)


def test_shapes_dtype_and_names():
    model = small()
    assert tuple(model.input_shape) == (8, 9, 2)
    assert tuple(model.output_shape) == (5,)
    assert model.dtype == np.float32
    names = list(model.parameters())
    assert names[:4] == ["0.weight", "0.bias", "1.gamma", "1.beta"]
    assert "4.body.0.weight" in names and "4.body.1.gamma" in names
    assert names[-2:] == ["8.weight", "8.bias"]
    assert len(set(names)) == len(names)
    assert set(model.buffers()) == {
        f"{place}.{buffer}"
        for place in ("1", "4.body.1")
        for buffer in ("running_mean", "running_variance")
    }


def test_a_layer_may_have_a_name():
    model = cycnn.Sequential(
        [cycnn.Conv(4, 3, name="stem"), cycnn.Flatten(), cycnn.Dense(3, name="head")],
        input_shape=(5, 6, 2), rng=0,
    )  # fmt: skip
    assert list(model.parameters()) == ["stem.weight", "stem.bias", "head.weight", "head.bias"]
    twice = [cycnn.Dense(3, name="a"), cycnn.Dense(3, name="a")]
    with pytest.raises(ValueError, match="a"):
        cycnn.Sequential(twice, input_shape=(2,), rng=0)


def test_same_seed_same_network():
    a, b, c = small(rng=3), small(rng=np.random.default_rng(3)), small(rng=4)
    for name, p in a.parameters().items():
        assert same_bits(p.data, b.parameters()[name].data)
    assert not same_bits(a.parameters()["0.weight"].data, c.parameters()["0.weight"].data)


def test_float64_network(rng):
    model, x = small(dtype="float64"), normal(rng, (2, 8, 9, 2))
    y, backward = model(x, training=True)
    assert y.dtype == np.float64
    assert backward(np.ones_like(y)).dtype == np.float64


def test_residual_adds_the_shortcut(rng):
    body = cycnn.Conv(3, 3, padding=1)
    model = cycnn.Sequential([cycnn.Residual([body])], input_shape=(4, 5, 3), rng=0)
    x = normal(rng, (2, 4, 5, 3))
    y, backward = model(x)
    inner, inner_backward = body(x)
    assert_array_equal(y, inner + x)
    dy = normal(rng, y.shape)
    assert_array_equal(backward(dy), inner_backward(dy) + dy)


def test_residual_shapes_must_agree():
    body = [cycnn.Conv(4, 3, padding=1)]
    with pytest.raises(ValueError, match=r"4.*3|3.*4"):
        cycnn.Sequential([cycnn.Residual(body)], input_shape=(4, 5, 3), rng=0)


def test_parallel_joins_its_branches(rng):
    left, right = cycnn.Conv(2, 3, padding=1), cycnn.Conv(4, 1)
    model = cycnn.Sequential([cycnn.Parallel([[left], [right], []])], input_shape=(4, 5, 3), rng=0)
    x = normal(rng, (2, 4, 5, 3))
    y, backward = model(x)
    parts = [left(x), right(x)]
    assert_array_equal(y, np.concatenate([parts[0][0], parts[1][0], x], -1))
    dy = normal(rng, y.shape)
    slices = [np.ascontiguousarray(part) for part in np.split(dy, [2, 6], -1)]
    expected = parts[0][1](slices[0]) + parts[1][1](slices[1]) + slices[2]
    assert_allclose(backward(dy), expected, rtol=0, atol=16 * np.finfo("float32").eps)


def test_graph_of_named_values(rng):
    first, second = cycnn.Conv(4, 3, padding=1), cycnn.Conv(4, 1)
    graph = cycnn.Graph(
        {"a": (first, "x"), "b": (second, "x"), "s": (cycnn.Add(), ("a", "b")),
         "r": (cycnn.ReLU(), "s")},
        inputs={"x": (5, 6, 2)}, outputs=("r", "a"), rng=0,
    )  # fmt: skip
    x = normal(rng, (2, 5, 6, 2))
    (r, a), backward = graph(x)
    (a2, back_a), (b2, back_b) = first(x), second(x)
    assert same_bits(a, a2)
    assert_array_equal(r, np.maximum(a2 + b2, 0))
    dr, da = normal(rng, r.shape), normal(rng, a.shape)
    ds = dr * (r > 0)
    expected = back_a(ds + da) + back_b(ds)
    dx = backward((dr, da))
    assert_allclose(dx, expected, rtol=0, atol=64 * np.finfo("float32").eps)
    assert {"a.weight", "b.bias"} <= set(graph.parameters())


def test_graph_with_two_inputs(rng):
    graph = cycnn.Graph(
        {"j": (cycnn.Concat(), ("u", "v")), "y": (cycnn.Dense(3), "j")},
        inputs={"u": (2,), "v": (4,)}, outputs=("y",), rng=0,
    )  # fmt: skip
    u, v = normal(rng, (5, 2)), normal(rng, (5, 4))
    y, backward = graph((u, v))
    du, dv = backward(np.ones_like(y))
    weight = graph.parameters()["y.weight"].data
    expected = np.ones((5, 3)) @ weight.T
    assert_allclose(np.concatenate([du, dv], 1), expected, rtol=1e-5)


def test_reusing_an_object_shares_its_weights(rng):
    shared = cycnn.Dense(4)
    graph = cycnn.Graph(
        {"a": (shared, "u"), "b": (shared, "v"), "s": (cycnn.Add(), ("a", "b"))},
        inputs={"u": (3,), "v": (3,)}, outputs=("s",), rng=0,
    )  # fmt: skip
    assert len(graph.parameters()) == 2
    u, v = normal(rng, (5, 3)), normal(rng, (5, 3))
    y, backward = graph((u, v))
    dy = normal(rng, y.shape)
    backward(dy)
    expected = (u + v).T.astype("float64") @ dy
    assert_allclose(shared.weight.grad, expected, rtol=0, atol=1e-5)
    again = pickle.loads(pickle.dumps(graph))
    assert len(again.parameters()) == 2
    assert same_bits(again((u, v))[0], y)


@pytest.mark.parametrize(
    "nodes, message",
    [
        ({"a": (cycnn.ReLU(), "missing")}, "missing"),
        ({"a": (cycnn.Add(), ("x", "b")), "b": (cycnn.ReLU(), "a")}, "cycle"),
        ({"x": (cycnn.ReLU(), "x")}, "x"),
        ({"a": (cycnn.Add(), "x")}, "Add|input"),
    ],
)
def test_impossible_graphs_are_refused(nodes, message):
    with pytest.raises((ValueError, KeyError), match=message):
        cycnn.Graph(nodes, inputs={"x": (3,)}, outputs=("a",), rng=0)


def test_unknown_output_is_refused():
    with pytest.raises((ValueError, KeyError), match="z"):
        cycnn.Graph({"a": (cycnn.ReLU(), "x")}, inputs={"x": (3,)}, outputs=("z",), rng=0)


def test_nodes_may_come_in_any_order(rng):
    nodes = {"b": (cycnn.ReLU(), "a"), "a": (cycnn.Dense(3), "x")}
    graph = cycnn.Graph(nodes, inputs={"x": (4,)}, outputs=("b",), rng=0)
    assert graph.predict(normal(rng, (2, 4))).shape == (2, 3)


def test_a_slice_shares_the_layers(rng):
    model, x = small(), normal(rng, (3, 8, 9, 2))
    features = model[:-1]
    assert tuple(features.output_shape) == (9,)
    y, _ = features(x)
    assert same_bits(model[-1](y)[0], model(x)[0])
    assert model[0] is features[0]
    features[0].weight.assign(np.zeros_like(features[0].weight.data))
    assert not model.parameters()["0.weight"].data.any()
    assert same_bits(model[0:2](x)[0], model[1](model[0](x)[0])[0])


def test_input_gradient_is_optional(rng):
    model, x = small(), normal(rng, (3, 8, 9, 2))
    y, backward = model(x)
    backward(np.ones_like(y))
    full = {name: p.grad.copy() for name, p in model.parameters().items()}
    for p in model.parameters().values():
        p.grad[...] = 0
    y, backward = model(x)
    assert backward(np.ones_like(y), input_gradient=False) is None
    for name, p in model.parameters().items():
        assert_array_equal(p.grad, full[name])


def test_no_gradient_is_computed_before_the_first_trained_layer(rng, monkeypatch):
    model, x = small(), normal(rng, (3, 8, 9, 2))
    model[0].freeze()
    model[1].freeze()
    calls = []
    original = type(model[0]).__call__

    def watched(self, x, training=False):
        y, backward = original(self, x, training=training)

        def watch(dy, input_gradient=True):
            calls.append((self, input_gradient))
            return backward(dy, input_gradient)

        return y, watch

    monkeypatch.setattr(type(model[0]), "__call__", watched)
    y, backward = model(x)
    backward(np.ones_like(y), input_gradient=False)
    assert not any(layer is model[0] and wanted for layer, wanted in calls)
    assert not model[0].weight.grad.any()
    assert model[8].weight.grad.any()


def test_predict_does_not_depend_on_rows_or_chunks(rng):
    model, x = small(), normal(rng, (70, 8, 9, 2))
    y = model.predict(x)
    assert y.shape == (70, 5)
    assert same_bits(model.predict(x[65:]), y[65:])
    assert same_bits(model.predict(x[::-1])[::-1], y)
    assert same_bits(model.predict(x[7:8]), y[7:8])
    assert model.predict(x[:0]).shape == (0, 5)
    assert_allclose(model.predict(x, batch_size=9), y, rtol=0, atol=1e-5)
    y[...] = 0  # the caller's own
    assert model.predict(x).any()


def test_predict_leaves_the_model_alone(rng):
    model, x = small(), normal(rng, (5, 8, 9, 2))
    before = {name: b.copy() for name, b in model.buffers().items()}
    model.predict(x)
    assert all(same_bits(b, before[name]) for name, b in model.buffers().items())
    model(x, training=True)
    assert not any(same_bits(b, before[name]) for name, b in model.buffers().items())


def test_predict_sees_changed_weights(rng):
    model, x = small(), normal(rng, (5, 8, 9, 2))
    model.predict(x)
    head = model.parameters()["8.bias"]
    version = head.version
    head.assign(np.full(5, 100.0))
    assert head.version > version
    assert np.all(model.predict(x) > 50)
    with pytest.raises(ValueError, match="read-only"):
        head.data[0] = 1


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))]
)
def test_a_copied_parameter_shows_its_own_values(copied):
    twin = copied(cycnn.Parameter(np.zeros(3)))
    twin.assign([1, 2, 3])
    assert_array_equal(twin.data, [1, 2, 3])
    with pytest.raises(ValueError, match="read-only"):
        twin.data[0] = 4


def test_batch_norm_running_statistics(rng):
    layer = cycnn.BatchNorm(momentum=0.75).build((4, 3))
    x = 3 * normal(rng, (5, 4, 3)) + 2
    layer(x, training=True)
    flat = x.reshape(-1, 3).astype("float64")
    buffers = layer.buffers()
    assert_allclose(buffers["running_mean"], 0.25 * flat.mean(0), rtol=1e-5)
    expected = 0.75 + 0.25 * flat.var(0, ddof=1)
    assert_allclose(buffers["running_variance"], expected, rtol=1e-5)
    kept = {name: b.copy() for name, b in buffers.items()}
    layer.freeze()
    y, _ = layer(x, training=True)
    assert same_bits(y, layer(x)[0])
    assert all(same_bits(b, kept[name]) for name, b in layer.buffers().items())


def test_summary_counts(capsys):
    model = cycnn.Sequential(
        [cycnn.Conv(8, 3, padding="same"), cycnn.MaxPool(2), cycnn.Conv(16, 3),
         cycnn.Flatten(), cycnn.Dense(10)],
        input_shape=(8, 8, 3), rng=0,
    )  # fmt: skip
    model.summary()
    text = capsys.readouterr().out
    total = sum(p.data.size for p in model.parameters().values())
    assert total == 9 * 3 * 8 + 8 + 9 * 8 * 16 + 16 + 4 * 16 * 10 + 10
    assert f"{total:,}" in text or str(total) in text
    for shape in ("(8, 8, 8)", "(4, 4, 8)", "(2, 2, 16)", "(64,)", "(10,)"):
        assert shape in text or shape.replace(", ", " x ").strip("(,)") in text
