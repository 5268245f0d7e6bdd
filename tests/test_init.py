"""Starting values: their spread, their structure, and how they are assigned."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cycnn
from cycnn import init

from .helpers import same_bits

SHAPE = (3, 3, 32, 64)  # fan_in 288, fan_out 576
VARIANCE = {"he": 2 / 288, "glorot": 2 / (288 + 576), "lecun": 1 / 288}


@pytest.mark.parametrize("family", VARIANCE)
@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_spread(rng, family, kind):
    weight = getattr(init, f"{family}_{kind}")(SHAPE, rng)
    assert weight.shape == SHAPE and weight.dtype == np.float64
    assert_allclose(weight.var(), VARIANCE[family], rtol=0.05)
    assert abs(weight.mean()) < 4 * math.sqrt(VARIANCE[family] / weight.size)
    largest = np.abs(weight).max() / math.sqrt(VARIANCE[family])
    assert largest > 3 if kind == "normal" else largest <= math.sqrt(3)


@pytest.mark.parametrize("shape", [(5, 5), (3, 3, 2, 40), (3, 3, 40, 5), (1, 9), (9, 1)])
def test_orthogonal(rng, shape):
    weight = init.orthogonal(shape, rng).reshape(-1, shape[-1])
    product = weight.T @ weight if len(weight) >= shape[-1] else weight @ weight.T
    assert_allclose(product, np.eye(len(product)), atol=1e-14)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_identity_is_the_identity(rng, axes):
    layer = cycnn.Conv(5, 3, padding="same").build((*range(4, 4 + axes), 5), rng=0)
    layer.weight.assign(init.identity(layer.weight.shape, rng))
    x = rng.normal(size=(2, *range(4, 4 + axes), 5)).astype("float32")
    assert_array_equal(layer(x)[0], x)
    dense = cycnn.Dense(7).build((4,))
    dense.weight.assign(init.identity((4, 7), rng))
    assert_array_equal(dense(x.reshape(-1)[:8].reshape(2, 4))[0][:, 4:], np.zeros((2, 3)))


def test_a_whole_model(rng):
    model = cycnn.Sequential(
        [cycnn.Conv(4, 3), cycnn.Flatten(), cycnn.Dense(3)], input_shape=(5, 5, 2), rng=0
    )
    for name, parameter in model.parameters().items():
        start = init.orthogonal if name.endswith("weight") else init.constant(0.1)
        parameter.assign(start(parameter.shape, rng))
    assert np.all(model[0].bias.data == np.float32(0.1))
    weight = model[2].weight.data
    assert_allclose(weight.T @ weight, np.eye(3), atol=1e-6)


def test_one_seed_is_one_start():
    for function in (init.he_uniform, init.glorot_normal, init.orthogonal):
        first, second = (function((4, 3), np.random.default_rng(1)) for _ in range(2))
        assert same_bits(first, second)


def test_shapes_without_fans(rng):
    for function in (init.he_normal, init.orthogonal, init.identity):
        with pytest.raises(ValueError, match=r"\(3,\)"):
            function((3,), rng)
