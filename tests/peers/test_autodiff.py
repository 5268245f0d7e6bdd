"""Random functions, written with autodiff and as a Lambda, against PyTorch's own engine."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cycnn
from cycnn import autodiff as ad

torch = pytest.importorskip("torch")

SEEDS = [
    *range(10),
    *(pytest.param(seed, marks=pytest.mark.peers, id=f"peers-{seed}") for seed in range(300)),
]
SHAPE = (3, 4)


class Ours:
    """What the two engines write differently, for cycnn.autodiff."""

    exp, tanh, relu, sigmoid, absolute = ad.exp, ad.tanh, ad.relu, ad.sigmoid, ad.absolute
    maximum, where, concatenate = ad.maximum, ad.where, ad.concatenate

    @staticmethod
    def total(x, axis):
        return x.sum(axis, keepdims=True)

    @staticmethod
    def mean(x, axis):
        return x.mean(axis, keepdims=True)

    @staticmethod
    def largest(x, axis):
        return x.max(axis, keepdims=True)

    @staticmethod
    def permuted(x):
        return x.transpose(1, 0)


class Theirs:
    """The same for PyTorch."""

    exp, tanh, relu, sigmoid, absolute = (
        torch.exp, torch.tanh, torch.relu, torch.sigmoid, torch.abs,
    )  # fmt: skip
    maximum = torch.maximum

    @staticmethod
    def where(condition, a, b):
        return torch.where(torch.tensor(condition), a, b)

    @staticmethod
    def concatenate(parts, axis):
        return torch.cat(parts, axis)

    @staticmethod
    def total(x, axis):
        return x.sum(axis, keepdim=True)

    @staticmethod
    def mean(x, axis):
        return x.mean(axis, keepdim=True)

    @staticmethod
    def largest(x, axis):
        return x.max(axis, keepdim=True).values

    @staticmethod
    def permuted(x):
        return x.permute(1, 0)


STEPS = [
    lambda e, a, b, d: a + b,
    lambda e, a, b, d: a - 2 * b,
    lambda e, a, b, d: a * b,
    lambda e, a, b, d: a / (e.absolute(b) + 1),
    lambda e, a, b, d: 1 / (1 + a * a),
    lambda e, a, b, d: (e.absolute(a) + 0.5) ** e.tanh(b),
    lambda e, a, b, d: e.tanh(a) ** 3 - a,
    lambda e, a, b, d: e.exp(-e.absolute(a)),
    lambda e, a, b, d: e.relu(a) - e.sigmoid(b),
    lambda e, a, b, d: e.maximum(a, b),
    lambda e, a, b, d: e.where(d["mask"], a, b),
    lambda e, a, b, d: e.total(a, d["axis"]) * b,
    lambda e, a, b, d: a - e.mean(b, d["axis"]),
    lambda e, a, b, d: e.largest(a, d["axis"]) - b,
    lambda e, a, b, d: e.total(e.total(a, 0), 1) * 0.1 + b,
    lambda e, a, b, d: a[d["rows"]] * b,
    lambda e, a, b, d: a[:, d["columns"]] + b[d["rows"], :],
    lambda e, a, b, d: e.permuted(a.reshape(4, 3)) * b,
    lambda e, a, b, d: a @ e.permuted(b) @ a * 0.1,
    lambda e, a, b, d: e.concatenate([a[:, :1], b[:, 1:]], 1),
]


def drawn(rng):
    """Return a random function of three arrays, for either engine."""
    plan = [
        (
            STEPS[rng.integers(len(STEPS))], rng.integers(3 + i, size=2),
            {"axis": int(rng.integers(2)), "mask": rng.random(SHAPE) > 0.5,
             "rows": rng.integers(3, size=3), "columns": rng.integers(4, size=4)},
        )
        for i in range(int(rng.integers(3, 12)))
    ]  # fmt: skip

    def function(engine, *arrays):
        values = list(arrays)
        for step, (i, j), detail in plan:
            values.append(engine.tanh(step(engine, values[i], values[j], detail)))
        return sum(values[3:], values[0] * 0)

    return function


@pytest.mark.parametrize("seed", SEEDS)
def test_random_functions(seed):
    rng = np.random.default_rng(seed)
    function = drawn(rng)
    arrays = [rng.standard_normal(SHAPE) for _ in range(3)]
    dy = rng.standard_normal(SHAPE)

    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = function(Theirs, *tensors)
    expected.backward(torch.tensor(dy))
    gradients = [np.zeros(SHAPE) if t.grad is None else t.grad.numpy() for t in tensors]

    variables = [ad.Variable(a) for a in arrays]
    y = function(Ours, *variables)
    y.backward(dy)
    assert_allclose(y.value, expected.detach().numpy(), rtol=1e-12, atol=1e-13)
    for variable, gradient in zip(variables, gradients, strict=True):
        actual = np.zeros(SHAPE) if variable.grad is None else variable.grad
        assert_allclose(actual, gradient, rtol=1e-10, atol=1e-12)

    def rows(a, b, c):  # the same function of each sample, one after the other, as a layer
        parts = [function(Ours, a[n], b[n], c[n]).reshape(1, *SHAPE) for n in range(len(a))]
        return ad.concatenate(parts, axis=0)

    layer = cycnn.Lambda(rows).build((SHAPE,) * 3, dtype="float64")
    y, backward = layer(tuple(np.stack([a, a]) for a in arrays))
    assert_allclose(y[1], expected.detach().numpy(), rtol=1e-12, atol=1e-13)
    for dx, gradient in zip(backward(np.stack([dy * 0, dy])), gradients, strict=True):
        assert not dx[0].any()
        assert_allclose(dx[1], gradient, rtol=1e-10, atol=1e-12)
