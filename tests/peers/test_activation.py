"""Activations against PyTorch, on random configurations.

Two of each family, and one of each function, run wherever PyTorch is installed, three hundred with
`-m peers`. PyTorch computes in float64.
"""

from __future__ import annotations

import numpy as np
import pytest

import cycnn

from ..helpers import normal

torch = pytest.importorskip("torch")
F = torch.nn.functional

SEEDS = [
    *range(2),
    *(pytest.param(seed, marks=pytest.mark.peers, id=f"peers-{seed}") for seed in range(300)),
]
each_seed = pytest.mark.parametrize("seed", SEEDS)


def draw(rng):
    """Return x, dy and a dtype: any number of axes and channels."""
    axes = int(rng.integers(0, 4))
    shape = (int(rng.integers(1, 6)), *(int(n) for n in rng.integers(1, 8, axes)))
    shape += (int(rng.integers(1, 150)),)
    dtype = str(rng.choice(["float32", "float64"]))
    x = (normal(rng, shape) * rng.choice([0.1, 1, 3, 10])).astype(dtype)
    return x, normal(rng, shape, dtype), dtype


def pairs(rng):
    """Return (a layer of ours, the function of PyTorch) for each elementwise activation."""
    a, b = float(rng.uniform(0.1, 3)), float(rng.uniform(-2, 0))
    approximate = str(rng.choice(["none", "tanh"]))
    return {
        "relu": (cycnn.ReLU(), F.relu),
        "relu6": (cycnn.ReLU6(), F.relu6),
        "clip": (cycnn.Clip(b, a), lambda x: F.hardtanh(x, b, a)),
        "leaky_relu": (cycnn.LeakyReLU(a), lambda x: F.leaky_relu(x, a)),
        "elu": (cycnn.ELU(a), lambda x: F.elu(x, a)),
        "selu": (cycnn.SELU(), F.selu),
        # PyTorch's own backward of CELU and of hardsigmoid has a constant rounded to float32.
        "celu": (cycnn.CELU(a), lambda x: F.relu(x) - a * F.relu(-torch.expm1(x / a))),
        "gelu": (cycnn.GELU(approximate), lambda x: F.gelu(x, approximate=approximate)),
        "silu": (cycnn.SiLU(), F.silu),
        "mish": (cycnn.Mish(), F.mish),
        "sigmoid": (cycnn.Sigmoid(), torch.sigmoid),
        "tanh": (cycnn.Tanh(), torch.tanh),
        "hard_sigmoid": (cycnn.HardSigmoid(), lambda x: F.relu6(x + 3) / 6),
        "hard_swish": (cycnn.HardSwish(), F.hardswish),
        "softplus": (cycnn.Softplus(a), lambda x: F.softplus(x, a, 1e9)),
        "softsign": (cycnn.Softsign(), F.softsign),
    }


def compare(layer, function, x, dy, dtype, amplify=1.0):
    """Require y and dx to be those of PyTorch to a few eps of the largest value."""
    y, backward = layer.build(x.shape[1:], dtype=dtype)(x)
    dx = backward(dy)
    tensor = torch.tensor(x.astype("float64"), requires_grad=True)
    expected = function(tensor)
    expected.backward(torch.tensor(dy.astype("float64")))
    assert y.dtype == dx.dtype == dtype
    eps = np.finfo(dtype).eps
    wanted, slope = expected.detach().numpy(), tensor.grad.numpy()
    assert np.all(np.abs(y - wanted) <= 16 * amplify * eps * (1 + np.abs(wanted)))
    assert np.all(np.abs(dx - slope) <= 32 * amplify * eps * (1 + np.abs(dy)))


@each_seed
def test_elementwise(seed):
    rng = np.random.default_rng(seed)
    x, dy, dtype = draw(rng)
    layers = pairs(rng)
    name = list(layers)[seed % len(layers)]
    layer, function = layers[name]
    # CELU and Softplus stretch x by up to 10, by which the exponent's rounding grows.
    compare(layer, function, x, dy, dtype, 10 if name in ("celu", "softplus", "gelu") else 4)


@pytest.mark.parametrize("name", pairs(np.random.default_rng(0)))
def test_each_function(name):
    rng = np.random.default_rng(1)
    x, dy, dtype = draw(rng)
    compare(*pairs(rng)[name], x, dy, dtype, 10)


@each_seed
@pytest.mark.parametrize("log", [False, True])
def test_softmax(seed, log):
    x, dy, dtype = draw(np.random.default_rng(seed))
    layer = cycnn.LogSoftmax() if log else cycnn.Softmax()
    function = F.log_softmax if log else F.softmax
    reach = 1 + np.ptp(x)
    total = 1 + np.abs(dy).sum(-1).max()  # of what one output hands on
    compare(layer, lambda x: function(x, dim=-1), x, dy, dtype, reach * total)


@each_seed
def test_prelu(seed):
    rng = np.random.default_rng(seed)
    x, dy, dtype = draw(rng)
    layer = cycnn.PReLU().build(x.shape[1:], dtype=dtype)
    layer.slope.assign(normal(rng, x.shape[-1:], dtype))
    y, backward = layer(x)
    dx = backward(dy)
    tensor = torch.tensor(np.moveaxis(x.astype("float64"), -1, 1).copy(), requires_grad=True)
    slope = torch.tensor(layer.slope.data.astype("float64"), requires_grad=True)
    expected = F.prelu(tensor, slope)
    expected.backward(torch.tensor(np.moveaxis(dy.astype("float64"), -1, 1).copy()))
    eps = np.finfo(dtype).eps
    wanted = np.moveaxis(expected.detach().numpy(), 1, -1)
    assert np.all(np.abs(y - wanted) <= eps * np.abs(wanted))
    wanted = np.moveaxis(tensor.grad.numpy(), 1, -1)
    assert np.all(np.abs(dx - wanted) <= eps * np.abs(wanted))
    terms = np.abs(dy * x).reshape(-1, x.shape[-1])
    bound = (len(terms) + 2) * eps * terms.sum(0)
    assert np.all(np.abs(layer.slope.grad - slope.grad.numpy()) <= bound)
