"""What is particular to the normalisation layers: arguments, shapes, statistics of the inputs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cycnn

from .helpers import normal, same_bits


@pytest.mark.parametrize(
    "make, shape, message",
    [
        (lambda: cycnn.GroupNorm(4), (5, 6), r"groups must divide.*got 4 for \(N, 5, 6\)"),
        (lambda: cycnn.GroupNorm(0), (6,), "groups must be at least 1, got 0"),
        (lambda: cycnn.GroupNorm(2, 0), (6,), "GroupNorm: eps must be .* above 0, got 0"),
        (cycnn.InstanceNorm, (6,), r"at least one spatial axis.*\(N, 6\)"),
        (lambda: cycnn.LayerNorm(3), (5, 6), r"axes must be at most the axes.*got 3"),
        (lambda: cycnn.RMSNorm(0), (5, 6), "axes must be at least 1, got 0"),
        (lambda: cycnn.LocalResponseNorm(0), (6,), "size must be at least 1, got 0"),
        (lambda: cycnn.LocalResponseNorm(3, k=0), (6,), "k must be a finite number above 0"),
        (lambda: cycnn.LocalResponseNorm(3, -1), (6,), "alpha must be at least 0, got -1"),
        (lambda: cycnn.LocalResponseNorm(3, within=True), (6,), "1 to 3 spatial axes"),
        (lambda: cycnn.Normalize(std=0), (6,), "std must be above 0, got 0"),
        (lambda: cycnn.Normalize(np.nan), (6,), "mean must be one finite number"),
        (lambda: cycnn.Normalize([1, 2]), (6,), "one for each of the 6 channels, got 2"),
    ],
)
def test_wrong_arguments_are_named(make, shape, message):
    with pytest.raises(ValueError, match=message):
        make().build(shape)


def test_flags_are_flags():
    for make in (lambda: cycnn.GroupNorm(1, affine=1), lambda: cycnn.LayerNorm(affine="no")):
        with pytest.raises(TypeError, match="affine must be True or False"):
            make()


def test_relations_between_the_layers(rng):
    x = normal(rng, (3, 4, 5, 6), "float64")

    def y(layer):
        return layer.build(x.shape[1:], dtype="float64")(x)[0]

    assert_allclose(y(cycnn.InstanceNorm()), y(cycnn.GroupNorm(6)), rtol=1e-13)
    assert_allclose(y(cycnn.LayerNorm(3)), y(cycnn.GroupNorm(1)), rtol=1e-11, atol=1e-13)
    centred = x - x.mean(-1, keepdims=True)
    rms = cycnn.RMSNorm().build(x.shape[1:], dtype="float64")(centred)[0]
    assert_allclose(y(cycnn.LayerNorm()), rms, rtol=1e-11, atol=1e-13)
    assert y(cycnn.LayerNorm(2)).shape == x.shape
    assert cycnn.LayerNorm(2).build((4, 5, 6)).gamma.shape == (5, 6)
    assert not cycnn.GroupNorm(2, affine=False).build((4, 6)).parameters()
    assert set(cycnn.RMSNorm().build((4, 6)).parameters()) == {"gamma"}


def test_reach():
    image = (8, 9, 6)
    assert cycnn.GroupNorm(2).reach(image) is None
    assert cycnn.LayerNorm(2).reach(image) is None
    assert [r.span for r in cycnn.LayerNorm().reach(image)] == [1, 1]
    assert [r.span for r in cycnn.LocalResponseNorm(5).reach(image)] == [1, 1]
    within = cycnn.LocalResponseNorm(5, within=True).reach(image)
    assert [(r.span, r.stride, r.begin) for r in within] == [(5, 1, 2), (5, 1, 2)]


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("shape", [(40, 6, 5, 3), (900, 4), (3, 5, 1)])
def test_normalize_adapts(rng, shape, dtype):
    x = (40 * rng.standard_normal(shape) * np.arange(1, shape[-1] + 1) + 99).clip(0, 255)
    x = x.astype(dtype)
    layer = cycnn.Normalize().build(shape[1:], dtype="float64")
    assert layer.adapt(x) is layer
    axes, wide = tuple(range(x.ndim - 1)), x.astype("float64")
    assert_allclose(layer.buffers()["mean"], wide.mean(axes), rtol=1e-13)
    assert_allclose(layer.buffers()["std"], wide.std(axes), rtol=1e-12)
    y, backward = layer(x)
    assert_allclose(y, (wide - wide.mean(axes)) / wide.std(axes), rtol=1e-11, atol=1e-12)
    assert_allclose(backward(np.ones(shape)), np.ones(shape) / wide.std(axes), rtol=1e-12)


def test_normalize_adapts_in_parts(rng, monkeypatch):
    x = normal(rng, (50, 7, 3), "float64") + np.array([1e6, 0, -3])
    whole = cycnn.Normalize().build((7, 3), dtype="float64").adapt(x).buffers()
    monkeypatch.setattr("cycnn.layers.normalize._ROWS", 40)
    parts = cycnn.Normalize().build((7, 3), dtype="float64").adapt(x).buffers()
    for name in ("mean", "std"):
        assert_allclose(parts[name], whole[name], rtol=1e-9)


def test_a_constant_channel_keeps_its_scale(rng):
    x = normal(rng, (9, 2), "float64")
    x[:, 1] = 5
    layer = cycnn.Normalize().build((2,), dtype="float64").adapt(x)
    assert layer.buffers()["std"][1] == 1
    assert np.all(np.abs(layer(x)[0][:, 1]) <= 1e-14)


def test_normalize_refuses_what_is_not_finite():
    layer = cycnn.Normalize().build((2,))
    for data, message in (([[np.nan, 1]], "finite"), (np.zeros((0, 2)), "at least one sample")):
        with pytest.raises(ValueError, match=message):
            layer.adapt(data)
    with pytest.raises(ValueError, match="axes and channels"):
        layer.adapt(np.zeros((3, 5)))
    with pytest.raises(cycnn.NotBuiltError):
        cycnn.Normalize().adapt([[1, 2]])


def test_statistics_are_saved_with_the_model(rng, tmp_path):
    layers = [cycnn.Normalize(), cycnn.GroupNorm(1), cycnn.PReLU(), cycnn.Dense(3), cycnn.Softmax()]
    model = cycnn.Sequential(layers, input_shape=(4,), rng=0)
    x = 100 + 30 * normal(rng, (20, 4))
    model[0].adapt(x)
    model.save(tmp_path / "model.cycnn")
    again = cycnn.load(tmp_path / "model.cycnn")
    assert same_bits(again.predict(x), model.predict(x))
    assert same_bits(again[0].buffers()["std"], model[0].buffers()["std"])
    assert "Normalize" in str(model[0]) and model[0].config()["std"] == 1.0
