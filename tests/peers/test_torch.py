"""Convolution, pooling and normalisation against PyTorch, on random configurations.

Fifty of each run wherever PyTorch is installed, three hundred with `-m peers`. PyTorch computes in
float64; the bound on our error is the one of the rounded sums themselves.
"""

from __future__ import annotations

import numpy as np
import pytest

import cycnn
from cycnn import ops

from ..configurations import draw_channels, draw_window
from ..helpers import assert_near, normal

torch = pytest.importorskip("torch")
F = torch.nn.functional

SEEDS = [
    *range(50),
    *(pytest.param(seed, marks=pytest.mark.peers, id=f"peers-{seed}") for seed in range(300)),
]
each_seed = pytest.mark.parametrize("seed", SEEDS)
MODES = {
    "zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Keep PyTorch from starting threads of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def channels_first(a):
    """Return a float64 tensor (N, C, ...) of an array (N, ..., C)."""
    return torch.tensor(np.moveaxis(np.asarray(a, np.float64), -1, 1).copy())


def channels_last(tensor):
    """Return an array (N, ..., C) of a tensor (N, C, ...)."""
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def padded(x, border, mode, value=0.0):
    """Return the tensor x with the border (begin, end) of each axis."""
    flat = [n for pair in reversed(border) for n in pair]
    return F.pad(x, flat, MODES[mode], value) if mode == "zeros" else F.pad(x, flat, MODES[mode])


@each_seed
def test_conv(seed):
    rng = np.random.default_rng(seed)
    shape, kernel, stride, dilation, padding, border, mode = draw_window(rng)
    N, (groups, depth, K) = int(rng.integers(1, 4)), draw_channels(rng)
    dtype = str(rng.choice(["float32", "float64"]))
    options = {
        "stride": stride, "padding": padding, "padding_mode": mode, "dilation": dilation,
        "groups": groups,
    }  # fmt: skip
    x = normal(rng, (N, *shape, groups * depth), dtype)
    weight, bias = normal(rng, (*kernel, depth, K), dtype), normal(rng, K, dtype)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(shape) - 1]

    def peer(x, weight, bias, dy=None):
        """Return y, dx, dweight, dbias."""
        x = channels_first(x).requires_grad_()
        axes = len(kernel)
        order = (axes + 1, axes, *range(axes))
        w = torch.tensor(np.asarray(weight, np.float64).transpose(order).copy()).requires_grad_()
        b = torch.tensor(np.asarray(bias, np.float64)).requires_grad_()
        y = convolve(padded(x, border, mode), w, b, stride, 0, dilation, groups)
        dy = torch.ones_like(y) if dy is None else channels_first(dy)
        y.backward(dy)
        dweight = w.grad.numpy().transpose(*range(2, axes + 2), 1, 0)
        return channels_last(y), channels_last(x.grad), dweight, b.grad.numpy()

    options["algorithm"] = "direct"  # its bound is that of a sum; see test_ops_winograd.py
    y = ops.conv(x, weight, bias, **options)
    dy = normal(rng, y.shape, dtype)
    dx = ops.conv_backward_input(dy, weight, x.shape, **options)
    actual = y, dx, *ops.conv_backward_weight(dy, x, kernel, **options)
    magnitudes = peer(*(np.abs(a) for a in (x, weight, bias, dy)))
    taps, outputs = int(np.prod(kernel)), dy[..., 0].size
    # A border of copies sends up to `copies` gradients to one pixel.
    copies = 1 + int(np.prod([1 + b + e for b, e in border]))
    terms = taps * depth + 1, taps * K // groups * copies, outputs, outputs
    for a, e, m, n in zip(actual, peer(x, weight, bias, dy), magnitudes, terms, strict=True):
        assert a.dtype == dtype
        assert_near(a, e, m, n)


@each_seed
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pool(seed, kind):
    rng = np.random.default_rng(seed)
    shape, pool, stride, dilation, padding, _, _ = draw_window(rng, pool=True)
    N, C = (int(n) for n in rng.integers(1, (4, 40)))
    dtype, ceil_mode = str(rng.choice(["float32", "float64"])), bool(rng.integers(2))
    options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    axes, values = len(shape), rng.permutation(N * int(np.prod(shape)) * C) / 64 - 9
    x = values.reshape(N, *shape, C).astype(dtype)
    tensor = channels_first(x).requires_grad_()
    if kind == "max":
        options["dilation"] = dilation
        y, offset = ops.max_pool(x, pool, **options)
        dy = normal(rng, y.shape, dtype)
        dx = ops.max_pool_backward(dy, offset, x.shape, pool, **options)
        peer = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
        expected = peer(tensor, pool, stride, padding, dilation, ceil_mode=ceil_mode)
        scale = np.abs(x).max() * np.ones_like(y)
    else:
        options["count_include_pad"] = include = bool(rng.integers(2))
        y = ops.avg_pool(x, pool, **options)
        dy = normal(rng, y.shape, dtype)
        dx = ops.avg_pool_backward(dy, x.shape, pool, **options)
        peer = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
        expected = peer(tensor, pool, stride, padding, ceil_mode, include)
        scale = np.abs(x).max() * np.ones_like(y)
    expected.backward(channels_first(dy))
    terms = int(np.prod(pool))
    assert y.dtype == dx.dtype == dtype
    assert_near(y, channels_last(expected), scale, terms)
    peak = np.abs(dy).max() * terms * np.ones_like(dx)
    assert_near(dx, channels_last(tensor.grad), peak, terms)


@each_seed
def test_batch_norm(seed):
    rng = np.random.default_rng(seed)
    axes = int(rng.integers(0, 4))
    shape = (int(rng.integers(2, 9)), *(int(n) for n in rng.integers(1, 7, axes)))
    shape += (int(rng.integers(1, 70)),)
    C, dtype = shape[-1], str(rng.choice(["float32", "float64"]))
    training, eps = bool(rng.integers(2)), float(rng.choice([1e-5, 1e-3, 0.1]))
    momentum = float(rng.uniform(0.5, 1))
    layer = cycnn.BatchNorm(momentum=momentum, eps=eps).build(shape[1:], dtype=dtype)
    x = (normal(rng, shape) * rng.uniform(0.5, 2, C) + rng.normal(size=C)).astype(dtype)
    gamma, beta = normal(rng, C, dtype), normal(rng, C, dtype)
    mean, variance = normal(rng, C, dtype), rng.uniform(0.5, 2, C).astype(dtype)
    dy = normal(rng, shape, dtype)
    named = dict(layer.parameters())
    named["gamma"].assign(gamma)
    named["beta"].assign(beta)
    layer.set_buffer("running_mean", mean)
    layer.set_buffer("running_variance", variance)
    y, backward = layer(x, training=training)
    dx = backward(dy)

    tensor = channels_first(x).requires_grad_()
    w, b = (torch.tensor(a.astype("float64")).requires_grad_() for a in (gamma, beta))
    running = [torch.tensor(a.astype("float64")) for a in (mean, variance)]
    expected = F.batch_norm(tensor, *running, w, b, training, 1 - momentum, eps)
    expected.backward(channels_first(dy))

    # y and dx round a few times at the scale below; the sums over n rows err like n eps at worst.
    used = x.reshape(-1, C).astype("float64").var(0) if training else variance.astype("float64")
    scale = 1 / np.sqrt(used + eps)
    spread = np.abs(x - (x.reshape(-1, C).mean(0) if training else mean)).max() + np.abs(x).max()
    amplified = np.abs(gamma) * scale * (1 + spread * scale)
    n = x[..., 0].size
    ones = np.ones(shape)
    assert y.dtype == dx.dtype == dtype
    assert_near(y, channels_last(expected), ones * (spread * amplified + np.abs(beta)), 8)
    peak = np.abs(dy).max() * amplified * (1 + spread * scale)
    assert_near(dx, channels_last(tensor.grad), ones * peak, 32)
    total = np.abs(dy).reshape(-1, C).sum(0)
    dgamma = total * spread * scale
    assert_near(named["gamma"].grad, w.grad.numpy(), dgamma * (1 + spread * scale), n + 16)
    assert_near(named["beta"].grad, b.grad.numpy(), total, n)
    buffers = layer.buffers()
    for name, wanted in zip(("running_mean", "running_variance"), running, strict=True):
        size = 2 * (np.abs(x).max() + 2) ** 2
        error = np.abs(buffers[name] - wanted.numpy())
        assert np.all(error <= 16 * np.finfo(dtype).eps * size)
