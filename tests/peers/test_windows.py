"""Transposed and locally connected convolutions, and the wider family of pools, against PyTorch.

Ten random configurations of each run wherever PyTorch is installed, three hundred with `-m peers`.
PyTorch computes in float64; the bound on our error is that of the rounded sums themselves.
"""

from __future__ import annotations

import numpy as np
import pytest

import cycnn
from cycnn import ops

from .. import reference
from ..configurations import draw_channels, draw_window
from ..helpers import assert_near, integers, normal
from .test_torch import channels_first, channels_last, one_thread, padded

torch = pytest.importorskip("torch")
F = torch.nn.functional
assert one_thread  # a fixture of this module too

SEEDS = [
    *range(10),
    *(pytest.param(seed, marks=pytest.mark.peers, id=f"peers-{seed}") for seed in range(300)),
]
each_seed = pytest.mark.parametrize("seed", SEEDS)


def draw_dtype(rng):
    return str(rng.choice(["float32", "float64"]))


def distinct(rng, shape, dtype):
    """Return values that are all different, so that every maximum has one place."""
    return (rng.permutation(int(np.prod(shape))).reshape(shape) / 64 - 9).astype(dtype)


def tensor_of(a):
    """Return a float64 tensor that keeps its gradient."""
    return torch.tensor(np.asarray(a, np.float64)).requires_grad_()


@each_seed
def test_conv_transpose(seed):
    rng = np.random.default_rng(seed)
    axes = int(rng.integers(1, 4))
    groups, depth, C = draw_channels(rng)
    K, N, dtype = groups * depth, int(rng.integers(1, 4)), draw_dtype(rng)
    while True:
        shape = tuple(int(n) for n in rng.integers(1, (20, 8, 5)[axes - 1], axes))
        kernel = tuple(int(n) for n in rng.integers(1, 6 if axes < 3 else 4, axes))
        stride = tuple(int(n) for n in rng.integers(1, 4, axes))
        dilation = tuple(int(n) for n in rng.choice([1, 1, 1, 2, 3], axes))
        extra = tuple(int(rng.integers(0, s)) for s in stride)
        padding = int(rng.integers(0, 4))
        size = [
            (n - 1) * s - 2 * padding + d * (k - 1) + 1 + e
            for n, s, d, k, e in zip(shape, stride, dilation, kernel, extra, strict=True)
        ]
        if min(size) > 0:
            break
    x = normal(rng, (N, *shape, C), dtype)
    weight, bias = normal(rng, (*kernel, depth, C), dtype), normal(rng, K, dtype)
    dy = normal(rng, (N, *size, K), dtype)
    options = {
        "stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation,
        "groups": groups,
    }  # fmt: skip
    transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]

    def peer(x, weight, bias, dy):
        """Return y, dx, dweight, dbias."""
        x, b = channels_first(x).requires_grad_(), tensor_of(bias)
        w = tensor_of(np.transpose(weight, (axes + 1, axes, *range(axes))))
        y = transposed(x, w, b, stride, padding, extra, groups, dilation)
        y.backward(channels_first(dy))
        dweight = w.grad.numpy().transpose(*range(2, axes + 2), 1, 0)
        return channels_last(y), channels_last(x.grad), dweight, b.grad.numpy()

    y = ops.conv_transpose(x, weight, bias, **options)
    dx = ops.conv_transpose_backward_input(dy, weight, x.shape, **options)
    actual = y, dx, *ops.conv_transpose_backward_weight(dy, x, kernel, **options)
    magnitudes = peer(*(np.abs(a) for a in (x, weight, bias, dy)))
    taps = int(np.prod(kernel))
    terms = taps * C // groups + 1, taps * depth, x[..., 0].size, dy[..., 0].size
    for a, e, m, n in zip(actual, peer(x, weight, bias, dy), magnitudes, terms, strict=True):
        assert a.dtype == dtype
        assert_near(a, e, m, n)


@each_seed
def test_locally_connected(seed):
    rng = np.random.default_rng(seed)
    shape, kernel, stride, dilation, padding, border, mode = draw_window(rng)
    N, C, K, dtype = *(int(n) for n in rng.integers(1, (9, 9, 40))), draw_dtype(rng)
    groups = int(rng.choice([1, 1, 2, 3, 5]))
    K *= groups
    axes, options = len(shape), {
        "stride": stride, "padding": padding, "padding_mode": mode, "dilation": dilation,
        "groups": groups,
    }  # fmt: skip
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    outputs = [
        reference.output_length(n, span, s, pad, False)
        for n, span, s, pad in zip(shape, spans, stride, border, strict=True)
    ]
    x, dy = normal(rng, (N, *shape, groups * C), dtype), normal(rng, (N, *outputs, K), dtype)
    weight = normal(rng, (*outputs, *kernel, C, K), dtype)
    bias = normal(rng, (*outputs, K), dtype)

    def peer(x, weight, bias, dy):
        """Return y, dx, dweight, dbias of the unfolded windows (N, C, outputs..., taps...)."""
        x, w, b = channels_first(x).requires_grad_(), tensor_of(weight), tensor_of(bias)
        window = padded(x, border, mode)
        for axis, (span, s, d) in enumerate(zip(spans, stride, dilation, strict=True)):
            window = window.unfold(axis + 2, span, s)[..., ::d]
        taps = int(np.prod(kernel))
        window = window.reshape(N, groups, C, -1, taps)
        y = torch.einsum("ngcot,otcgk->nogk", window, w.reshape(-1, taps, C, groups, K // groups))
        y = y.reshape(N, *outputs, K) + b
        y.backward(torch.tensor(np.asarray(dy, np.float64)))
        return y.detach().numpy(), channels_last(x.grad), w.grad.numpy(), b.grad.numpy()

    y = ops.locally_connected(x, weight, bias, **options)
    dx = ops.locally_connected_backward_input(dy, weight, x.shape, **options)
    actual = y, dx, *ops.locally_connected_backward_weight(dy, x, kernel, **options)
    magnitudes = peer(*(np.abs(a) for a in (x, weight, bias, dy)))
    taps = int(np.prod(kernel))
    copies = 1 + int(np.prod([1 + b + e for b, e in border]))
    terms = taps * C + 1, taps * K * copies, N, N
    for a, e, m, n in zip(actual, peer(x, weight, bias, dy), magnitudes, terms, strict=True):
        assert a.dtype == dtype
        assert_near(a, e, m, n)
    assert axes == x.ndim - 2


@each_seed
def test_conv_of_a_region(seed):
    rng = np.random.default_rng(seed)
    shape, kernel, stride, dilation, padding, border, mode = draw_window(rng)
    (groups, depth, K), dtype = draw_channels(rng), draw_dtype(rng)
    outside = rng.integers(0, 4, (len(shape), 2))
    region = tuple((int(b), int(b) + n) for n, (b, _) in zip(shape, outside, strict=True))
    whole = (*(n + int(b + e) for n, (b, e) in zip(shape, outside, strict=True)), groups * depth)
    layer = cycnn.Conv(
        K, kernel, stride=stride, padding=padding, padding_mode=mode, dilation=dilation,
        groups=groups, bias=False, region=region, algorithm="direct",
    ).build(whole, dtype=dtype)  # fmt: skip
    x, weight = integers(rng, (2, *whole), dtype), integers(rng, layer.weight.shape, dtype)
    layer.weight.assign(weight)
    y, backward = layer(x)
    dy = integers(rng, y.shape, dtype)
    dx = backward(dy)

    axes, tensor = len(shape), channels_first(x).requires_grad_()
    inside = tensor[(..., *(slice(*pair) for pair in region))]
    w = tensor_of(weight.transpose(axes + 1, axes, *range(axes)))
    convolve = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    expected = convolve(padded(inside, border, mode), w, None, stride, 0, dilation, groups)
    expected.backward(channels_first(dy))
    # Small integers: exact in every order.
    np.testing.assert_array_equal(y, channels_last(expected))
    np.testing.assert_array_equal(dx, channels_last(tensor.grad))
    dweight = w.grad.numpy().transpose(*range(2, axes + 2), 1, 0)
    np.testing.assert_array_equal(layer.weight.grad, dweight)


@each_seed
def test_lp_pool(seed):
    rng = np.random.default_rng(seed)
    shape, pool, stride, *_ = draw_window(rng, pool=True)
    N, C, dtype = *(int(n) for n in rng.integers(1, (4, 40))), draw_dtype(rng)
    p = float(rng.choice([1, 1.5, 2, 2, 3, 5]))
    axes = len(shape)
    shape = tuple(max(n, k) for n, k in zip(shape, pool, strict=True))  # it pads nothing
    # PyTorch takes the power of x itself: it needs values above 0, unless the power is even.
    x = normal(rng, (N, *shape, C), dtype)
    x = x if p == 2 else np.abs(x) + np.array(0.01, dtype)
    tensor = channels_first(x).requires_grad_()
    peer = (F.lp_pool1d, F.lp_pool2d, F.lp_pool3d)[axes - 1]
    window, step = (pool[0], stride[0]) if axes == 1 else (pool, stride)
    expected = peer(tensor, p, window, step)
    y = ops.lp_pool(x, pool, p=p, stride=stride)
    dy = normal(rng, y.shape, dtype)
    expected.backward(channels_first(dy))
    dx = ops.lp_pool_backward(dy, x, y, pool, p=p, stride=stride)
    terms = int(np.prod(pool))
    assert y.dtype == dx.dtype == dtype
    assert_near(y, channels_last(expected), channels_last(expected), terms + 4)
    peak = np.abs(dy).max() * terms * np.ones_like(dx)
    assert_near(dx, channels_last(tensor.grad), peak, (terms + 6) * max(p - 1, 1))


@each_seed
def test_adaptive_pools(seed):
    rng = np.random.default_rng(seed)
    axes = int(rng.integers(1, 4))
    shape = tuple(int(n) for n in rng.integers(1, (40, 20, 9)[axes - 1], axes))
    out = tuple(int(n) for n in rng.integers(1, (20, 9, 5)[axes - 1], axes))
    N, C, dtype = *(int(n) for n in rng.integers(1, (4, 40))), draw_dtype(rng)
    x = distinct(rng, (N, *shape, C), dtype)
    dy = normal(rng, (N, *out, C), dtype)
    pixels = int(np.prod(shape))
    peak = np.abs(dy).max() * pixels * np.ones_like(x)

    tensor = channels_first(x).requires_grad_()
    peer = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[axes - 1]
    expected, index = peer(tensor, out, return_indices=True)
    expected.backward(channels_first(dy))
    layer = cycnn.AdaptiveMaxPool(out, return_indices=True).build(x.shape[1:], dtype=dtype)
    (y, own), backward = layer(x)
    np.testing.assert_array_equal(y, channels_last(expected))
    np.testing.assert_array_equal(own, channels_last(index))
    assert_near(backward((dy, own)), channels_last(tensor.grad), peak, 1)

    tensor = channels_first(x).requires_grad_()
    peer = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[axes - 1]
    expected = peer(tensor, out)
    expected.backward(channels_first(dy))
    y = ops.adaptive_avg_pool(x, out)
    assert y.dtype == dtype
    assert_near(y, channels_last(expected), np.abs(x).max() * np.ones_like(y), pixels)
    dx = ops.adaptive_avg_pool_backward(dy, x.shape, out)
    assert_near(dx, channels_last(tensor.grad), peak, pixels)


@each_seed
def test_max_pool_indices_and_unpooling(seed):
    rng = np.random.default_rng(seed)
    shape, pool, stride, dilation, padding, _, _ = draw_window(rng, pool=True)
    N, C, dtype = *(int(n) for n in rng.integers(1, (4, 40))), draw_dtype(rng)
    axes, ceil_mode = len(shape), bool(rng.integers(2))
    x = distinct(rng, (N, *shape, C), dtype)
    options = {
        "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode
    }  # fmt: skip
    layer = cycnn.MaxPool(pool, return_indices=True, **options).build(x.shape[1:], dtype=dtype)
    (y, index), _ = layer(x)
    peer = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1]
    tensor, indices = peer(channels_first(x), pool, return_indices=True, **options)
    np.testing.assert_array_equal(y, channels_last(tensor))
    np.testing.assert_array_equal(index, channels_last(indices))

    # Windows that do not overlap: PyTorch keeps one of the values that meet, cycnn adds them.
    (y, index), _ = cycnn.MaxPool(pool, return_indices=True, ceil_mode=True).build(
        x.shape[1:], dtype=dtype
    )(x)
    dy = normal(rng, x.shape, dtype)
    values = channels_first(y).requires_grad_()
    unpool = (F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)[axes - 1]
    expected = unpool(values, channels_first(index).long(), pool, output_size=shape)
    expected.backward(channels_first(dy))
    layer = cycnn.MaxUnpool(pool, output_size=shape).build((y.shape[1:],) * 2, dtype=dtype)
    actual, backward = layer((y, index))
    np.testing.assert_array_equal(actual, channels_last(expected))
    np.testing.assert_array_equal(backward(dy)[0], channels_last(values.grad))


@each_seed
def test_global_max_pool(seed):
    rng = np.random.default_rng(seed)
    axes = int(rng.integers(1, 4))
    shape = tuple(int(n) for n in rng.integers(1, (60, 20, 9)[axes - 1], axes))
    N, C, dtype = *(int(n) for n in rng.integers(1, (5, 90))), draw_dtype(rng)
    x = distinct(rng, (N, *shape, C), dtype)
    y, index = ops.global_max_pool(x)
    dy = normal(rng, y.shape, dtype)
    tensor = channels_first(x).requires_grad_()
    expected, place = tensor.flatten(2).max(2)
    expected.backward(torch.tensor(np.asarray(dy, np.float64)))
    np.testing.assert_array_equal(y, expected.detach().numpy())
    np.testing.assert_array_equal(index, place.numpy())
    dx = ops.global_max_pool_backward(dy, index, x.shape)
    np.testing.assert_array_equal(dx, channels_last(tensor.grad))
