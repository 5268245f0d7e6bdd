"""Dense and depthwise layers, means over pixels, fixed statistics, shapes and dropout.

Ten random configurations of each run wherever PyTorch is installed, three hundred with `-m peers`.
PyTorch computes in float64.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn

from ..configurations import draw_window
from ..helpers import assert_near, integers, normal
from .test_rearrange import compare, draw
from .test_torch import channels_first, channels_last, one_thread, padded

torch = pytest.importorskip("torch")
F = torch.nn.functional
assert one_thread  # a fixture of this module too

SEEDS = [
    *range(10),
    *(pytest.param(seed, marks=pytest.mark.peers, id=f"peers-{seed}") for seed in range(300)),
]
each_seed = pytest.mark.parametrize("seed", SEEDS)


def tensor_of(a):
    """Return a float64 tensor that keeps its gradient."""
    return torch.tensor(np.asarray(a, np.float64)).requires_grad_()


@each_seed
def test_dense(seed):
    rng = np.random.default_rng(seed)
    N, C, K = (int(n) for n in rng.integers(1, (40, 300, 90)))
    dtype = str(rng.choice(["float32", "float64"]))
    arrays = [normal(rng, shape, dtype) for shape in ((N, C), (C, K), K, (N, K))]
    x, weight, bias, dy = arrays
    layer = cycnn.Dense(K).build((C,), dtype=dtype)
    layer.weight.assign(weight)
    layer.bias.assign(bias)
    y, backward = layer(x)
    actual = y, backward(dy), layer.weight.grad, layer.bias.grad

    def peer(x, weight, bias, dy):
        """Return y, dx, dweight, dbias."""
        x, weight, bias = map(tensor_of, (x, weight, bias))
        y = F.linear(x, weight.T, bias)
        y.backward(torch.tensor(np.asarray(dy, np.float64)))
        return [t.detach().numpy() for t in (y, x.grad, weight.grad, bias.grad)]

    magnitudes = peer(*map(np.abs, arrays))
    for a, e, m, n in zip(actual, peer(*arrays), magnitudes, (C + 1, K, N, N), strict=True):
        assert a.dtype == dtype
        assert_near(a, e, m, n)


@each_seed
def test_depthwise_conv(seed):
    rng = np.random.default_rng(seed)
    shape, kernel, stride, dilation, padding, border, mode = draw_window(rng)
    N, C, multiplier = (int(n) for n in rng.integers(1, (4, 40, 4)))
    axes, dtype = len(shape), str(rng.choice(["float32", "float64"]))
    layer = cycnn.DepthwiseConv(
        kernel, multiplier=multiplier, stride=stride, padding=padding, padding_mode=mode,
        dilation=dilation,
    ).build((*shape, C), dtype=dtype)  # fmt: skip
    x, weight = integers(rng, (N, *shape, C), dtype), integers(rng, layer.weight.shape, dtype)
    bias = integers(rng, layer.bias.shape, dtype)
    layer.weight.assign(weight)
    layer.bias.assign(bias)
    y, backward = layer(x)
    dy = integers(rng, y.shape, dtype)
    dx = backward(dy)

    tensor, b = channels_first(x).requires_grad_(), tensor_of(bias)
    w = tensor_of(weight.transpose(axes + 1, axes, *range(axes)))
    convolve = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    expected = convolve(padded(tensor, border, mode), w, b, stride, 0, dilation, C)
    expected.backward(channels_first(dy))
    # Small integers: exact in every order.
    assert_array_equal(y, channels_last(expected))
    assert_array_equal(dx, channels_last(tensor.grad))
    dweight = w.grad.numpy().transpose(*range(2, axes + 2), 1, 0)
    assert_array_equal(layer.weight.grad, dweight)
    assert_array_equal(layer.bias.grad, b.grad.numpy())


@each_seed
def test_global_avg_pool(seed):
    rng = np.random.default_rng(seed)
    x = draw(rng, least=1)
    pixels = x[0, ..., 0].size
    compare(rng, cycnn.GlobalAvgPool(), x, lambda t: t.flatten(2).mean(2), pixels + 2)


@each_seed
def test_normalize(seed):
    rng = np.random.default_rng(seed)
    x = draw(rng)
    mean, std = rng.normal(size=x.shape[-1]), rng.uniform(0.3, 3, x.shape[-1])
    each = (1, -1, *[1] * (x.ndim - 2))
    m, s = (torch.tensor(values).reshape(each) for values in (mean, std))
    magnitude = float((np.abs(x).max() + np.abs(mean).max() + 1) / std.min())
    compare(rng, cycnn.Normalize(mean, std), x, lambda t: (t - m) / s, 4, magnitude)


@each_seed
def test_flatten_and_reshape(seed):
    rng = np.random.default_rng(seed)
    x = draw(rng)
    N, C = len(x), x.shape[-1]

    def reshaped(t):
        return t.movedim(1, -1).reshape(N, C, -1).movedim(-1, 1)

    compare(rng, cycnn.Flatten(), x, lambda t: t.movedim(1, -1).flatten(1), 1)
    compare(rng, cycnn.Reshape((C, -1)), x, reshaped, 1)


@each_seed
@pytest.mark.parametrize("channelwise", [False, True])
def test_dropout(seed, channelwise):
    """With the mask given, which a layer of the same seed tells, it is a product."""
    rng = np.random.default_rng(seed)
    x, rate = draw(rng), float(rng.uniform(0, 0.9))
    layer, twin = (
        cycnn.Dropout(rate, channelwise=channelwise).build(x.shape[1:], rng=seed, dtype=x.dtype)
        for _ in range(2)
    )
    mask = twin(np.ones_like(x), training=True)[0] > 0
    y, backward = layer(x, training=True)
    dy = normal(rng, y.shape, x.dtype)
    tensor = channels_first(x).requires_grad_()
    expected = tensor * channels_first(mask) / (1 - rate)
    expected.backward(channels_first(dy))
    scale = 1 / (1 - rate)
    assert_near(y, channels_last(expected), np.abs(x) * scale, 3)
    assert_near(backward(dy), channels_last(tensor.grad), np.abs(dy) * scale, 3)
