"""Group, instance, layer, RMS and local response normalisation against PyTorch.

Two random configurations of each run wherever PyTorch is installed, three hundred with `-m peers`.
PyTorch computes in float64.
"""

from __future__ import annotations

import numpy as np
import pytest

import cycnn

from .. import reference_norm
from ..helpers import normal

torch = pytest.importorskip("torch")
F = torch.nn.functional

SEEDS = [
    *range(2),
    *(pytest.param(seed, marks=pytest.mark.peers, id=f"peers-{seed}") for seed in range(300)),
]
each_seed = pytest.mark.parametrize("seed", SEEDS)


def draw(rng, least=0, channels=None):
    """Return x, dy and a dtype, with at least so many spatial axes."""
    axes = int(rng.integers(least, 4))
    shape = (int(rng.integers(1, 5)), *(int(n) for n in rng.integers(2, 8, axes)))
    shape += (channels or int(rng.integers(2, 90)),)
    dtype = str(rng.choice(["float32", "float64"]))
    x = normal(rng, shape) * rng.uniform(0.5, 2, shape[-1]) + rng.normal(size=shape[-1])
    return x.astype(dtype), normal(rng, shape, dtype), dtype


def first(a):
    """Return a float64 tensor (N, C, ...) of an array (N, ..., C)."""
    return torch.tensor(np.moveaxis(a.astype("float64"), -1, 1).copy(), requires_grad=True)


def plain(a):
    return torch.tensor(a.astype("float64"), requires_grad=True)


def randomise(layer, rng):
    """Give gamma and beta values of their own; return them as tensors."""
    for parameter in layer.parameters().values():
        parameter.assign(normal(rng, parameter.shape, "float64") + 0.5)
    return [plain(p.data) for p in layer.parameters().values()]


def compare(layer, x, dy, expected, tensor, weights, last, inverse):
    """Require y, dx and the gradients of gamma and beta to be PyTorch's.

    Values divided by a small deviation err the more, the smaller it is; sums of n terms err like
    n eps at worst.
    """
    y, backward = layer(x)
    dx = backward(dy)
    expected.backward(torch.tensor(dy.astype("float64")) if last else first(dy).detach())
    move = (lambda t: t) if last else lambda t: np.moveaxis(t, 1, -1)
    eps = np.finfo(x.dtype).eps
    amplify = (1 + np.abs(x).max() * inverse) * (1 + inverse)
    gamma = max([1.0, *(w.detach().abs().max().item() for w in weights)])
    assert y.dtype == dx.dtype == x.dtype
    wanted = move(expected.detach().numpy())
    assert np.all(np.abs(y - wanted) <= 64 * eps * amplify * gamma * (1 + np.abs(wanted).max()))
    wanted = move(tensor.grad.numpy())
    peak = gamma * np.abs(dy).max()
    assert np.all(np.abs(dx - wanted) <= 128 * eps * amplify**2 * (1 + inverse) * peak)
    terms = x[..., 0].size + 16
    for parameter, weight in zip(layer.parameters().values(), weights, strict=True):
        error = np.abs(parameter.grad - weight.grad.numpy())
        assert np.all(error <= 4 * terms * eps * amplify**2 * np.abs(dy).max())


@each_seed
@pytest.mark.parametrize("kind", ["group", "instance"])
def test_group_norm(seed, kind):
    rng = np.random.default_rng(seed)
    groups, eps = int(rng.integers(1, 9)), float(rng.choice([1e-5, 1e-3, 0.1]))
    affine = bool(rng.integers(4))
    x, dy, dtype = draw(rng, 1, groups * int(rng.integers(1, 20)))
    if kind == "instance":
        layer, groups = cycnn.InstanceNorm(eps, affine), x.shape[-1]
    else:
        layer = cycnn.GroupNorm(groups, eps, affine)
    layer.build(x.shape[1:], dtype=dtype)
    weights, tensor = randomise(layer, rng), first(x)
    if kind == "instance":
        expected = F.instance_norm(tensor, None, None, *weights or (None, None), eps=eps)
    else:
        expected = F.group_norm(tensor, groups, *weights or (None, None), eps=eps)
    variance = reference_norm.grouped(x, groups).var((1, 3)).min()
    compare(layer, x, dy, expected, tensor, weights, False, 1 / np.sqrt(variance + eps))


@each_seed
@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_row_norm(seed, kind):
    rng = np.random.default_rng(seed)
    x, dy, dtype = draw(rng)
    axes, eps = int(rng.integers(1, x.ndim)), float(rng.choice([1e-5, 1e-3, 0.1]))
    make, peer = (cycnn.LayerNorm, F.layer_norm) if kind == "layer" else (cycnn.RMSNorm, F.rms_norm)
    layer = make(axes, eps, bool(rng.integers(4))).build(x.shape[1:], dtype=dtype)
    weights, tensor = randomise(layer, rng), plain(x)
    expected = peer(tensor, x.shape[-axes:], *weights, eps=eps)
    over = tuple(range(x.ndim - axes, x.ndim))
    wide = x.astype("float64")
    least = (wide.var(over) if kind == "layer" else (wide**2).mean(over)).min()
    compare(layer, x, dy, expected, tensor, weights, True, 1 / np.sqrt(least + eps))


@each_seed
@pytest.mark.parametrize("within", [False, True])
def test_local_response_norm(seed, within):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 8)) if not within else int(rng.choice([1, 3, 5]))
    alpha, beta, k = (float(v) for v in rng.uniform((0, 0.2, 0.5), (2, 2, 3)))
    x, dy, dtype = draw(rng, 1)
    layer = cycnn.LocalResponseNorm(size, alpha, beta, k, within).build(x.shape[1:], dtype=dtype)
    tensor = first(x)
    if within:  # as Caffe defines it: an average pool of squares that counts its border
        axes = x.ndim - 2
        pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
        window = pool(F.pad(tensor**2, [size // 2] * 2 * axes), size, 1)
        expected = tensor * (k + alpha * window) ** -beta
    else:
        expected = F.local_response_norm(tensor, size, alpha, beta, k)
    peak = np.abs(x).max() ** 2
    inverse = 1 + beta * np.log(k + alpha * peak) + k**-beta + size**2
    compare(layer, x, dy, expected, tensor, [], False, inverse)
