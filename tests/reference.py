"""Plain float64 references, the oracle for every build of every kernel.

All arrays are channels last. A sliding window over *pixel numbers* says which pixel each tap of
each output reads, so that one gather serves every padding mode and its transpose, one scatter,
every gradient. -1 is a pixel of the border, -2 one beyond the border (ceil_mode reaches there).
"""

from __future__ import annotations

import math

import numpy as np

from cycnn._reference.windows import MODES, output_length, pads, per_axis, taps  # noqa: F401


def gather(x, pixel, border=0.0):
    """Return x (N, shape..., C) under every tap, (N, outputs..., taps, C)."""
    flat = np.asarray(x, np.float64).reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])
    return np.where((pixel < 0)[..., None], border, flat[:, np.maximum(pixel, 0)])


def scatter(dwindow, pixel, x_shape):
    """Return the transpose of gather: every tap's value added to its pixel."""
    dx = np.zeros((x_shape[0], math.prod(x_shape[1:-1]), x_shape[-1]))
    inside = pixel >= 0
    np.add.at(dx, (slice(None), pixel[inside]), dwindow[:, inside])
    return dx.reshape(x_shape)


def conv(x, weight, bias=None, *, stride=1, padding="valid", mode="zeros", dilation=1, groups=1):
    """y[n, o, k] = bias[k] + sum over (t, c) of x[n, o*stride + t*dilation, c] weight[t, c, k]."""
    kernel, (depth, K) = weight.shape[:-2], weight.shape[-2:]
    window = gather(x, taps(x.shape[1:-1], kernel, stride, padding, mode, dilation))
    window = window.reshape(*window.shape[:-1], groups, depth)
    weight = np.asarray(weight, np.float64).reshape(-1, depth, groups, K // groups)
    y = np.einsum("n...tgc,tcgk->n...gk", window, weight, optimize=True)
    return y.reshape(*y.shape[:-2], K) + (0 if bias is None else bias)


def conv_backward_input(
    dy, weight, x_shape, *, stride=1, padding="valid", mode="zeros", dilation=1, groups=1
):
    """Return dx: each output's gradient goes back to the pixels of its taps."""
    kernel, (depth, K) = weight.shape[:-2], weight.shape[-2:]
    weight = np.asarray(weight, np.float64).reshape(-1, depth, groups, K // groups)
    dy = np.asarray(dy, np.float64).reshape(*dy.shape[:-1], groups, K // groups)
    dwindow = np.einsum("n...gk,tcgk->n...tgc", dy, weight, optimize=True)
    dwindow = dwindow.reshape(*dwindow.shape[:-2], groups * depth)
    return scatter(dwindow, taps(x_shape[1:-1], kernel, stride, padding, mode, dilation), x_shape)


def conv_backward_weight(
    dy, x, kernel, *, stride=1, padding="valid", mode="zeros", dilation=1, groups=1
):
    """Return dweight and dbias."""
    C, K = x.shape[-1], dy.shape[-1]
    window = gather(x, taps(x.shape[1:-1], kernel, stride, padding, mode, dilation))
    window = window.reshape(len(x), -1, window.shape[-2], groups, C // groups)
    dy = np.asarray(dy, np.float64).reshape(len(x), -1, groups, K // groups)
    dweight = np.einsum("notgc,nogk->tcgk", window, dy, optimize=True)
    kernel = per_axis(kernel, x.ndim - 2)
    return dweight.reshape(*kernel, C // groups, K), dy.sum((0, 1)).reshape(K)


def dense(x, weight, bias=None):
    """y = x @ weight + bias."""
    y = np.einsum("nc,ck->nk", np.asarray(x, np.float64), np.asarray(weight, np.float64))
    return y + (0 if bias is None else bias)


def dense_backward(dy, x, weight):
    """Return dx, dweight, dbias."""
    dy, x, weight = (np.asarray(a, np.float64) for a in (dy, x, weight))
    return dy @ weight.T, x.T @ dy, dy.sum(0)


def max_pool(x, pool, *, stride=None, padding="valid", mode="zeros", ceil_mode=False, dilation=1):
    """y = max over the window; the border is -inf; NaN wins."""
    pixel = taps(x.shape[1:-1], pool, stride or pool, padding, mode, dilation, ceil_mode)
    return gather(x, pixel, -np.inf).max(-2)


def max_pool_backward(
    dy, x, pool, *, stride=None, padding="valid", mode="zeros", ceil_mode=False, dilation=1
):
    """Return dx: the first tap of the window that holds the maximum takes the gradient."""
    pixel = taps(x.shape[1:-1], pool, stride or pool, padding, mode, dilation, ceil_mode)
    first = gather(x, pixel, -np.inf).argmax(-2)[..., None, :]
    won = np.arange(pixel.shape[-1])[:, None] == first
    return scatter(won * np.asarray(dy, np.float64)[..., None, :], pixel, x.shape)


def average_weight(pixel, count_include_pad):
    """Return the weight 1 / count of each tap, for avg_pool."""
    counted = pixel > -2 if count_include_pad else pixel >= 0
    return 1 / np.maximum(counted.sum(-1, keepdims=True), 1)[..., None]


def avg_pool(
    x, pool, *, stride=None, padding="valid", mode="zeros", ceil_mode=False,
    count_include_pad=False, dilation=1,
):  # fmt: skip
    """y = mean over the window, of the pixels in the input or also of those of the border."""
    pixel = taps(x.shape[1:-1], pool, stride or pool, padding, mode, dilation, ceil_mode)
    return (gather(x, pixel) * average_weight(pixel, count_include_pad)).sum(-2)


def avg_pool_backward(
    dy, x_shape, pool, *, stride=None, padding="valid", mode="zeros", ceil_mode=False,
    count_include_pad=False, dilation=1,
):  # fmt: skip
    """Return dx: each output's gradient is shared equally by the counted pixels of its window."""
    pixel = taps(x_shape[1:-1], pool, stride or pool, padding, mode, dilation, ceil_mode)
    share = average_weight(pixel, count_include_pad) * np.ones((pixel.shape[-1], 1))
    return scatter(np.asarray(dy, np.float64)[..., None, :] * share, pixel, x_shape)


def batch_norm(x, gamma, beta, eps):
    """y = gamma (x - mean) / sqrt(variance + eps) + beta, over all axes but the last."""
    flat = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    mean, variance = flat.mean(0), flat.var(0)
    return gamma * (x - mean) / np.sqrt(variance + eps) + beta, mean, variance


def batch_norm_backward(dy, x, gamma, eps):
    """Return dx, dgamma, dbeta (Ioffe and Szegedy 2015, section 3)."""
    dy, x = np.asarray(dy, np.float64), np.asarray(x, np.float64)
    axes, gamma = tuple(range(x.ndim - 1)), np.asarray(gamma, np.float64)
    scale = 1 / np.sqrt(x.var(axes) + eps)
    normalised = (x - x.mean(axes)) * scale
    dgamma, dbeta = (dy * normalised).sum(axes), dy.sum(axes)
    dx = gamma * scale * (dy - dy.mean(axes) - normalised * (dy * normalised).mean(axes))
    return dx, dgamma, dbeta


def relu(x):
    """y = max(x, 0)."""
    return np.maximum(np.asarray(x, np.float64), 0)


def softmax_cross_entropy(logits, target, weight=None):
    """Return the weighted mean of -log softmax(logits)[target], and its gradient."""
    logits = np.asarray(logits, np.float64)
    weight = np.ones(len(logits)) if weight is None else np.asarray(weight, np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    logsoftmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    rows = np.arange(len(logits))
    value = -(weight * logsoftmax[rows, target]).sum() / weight.sum()
    dlogits = np.exp(logsoftmax)
    dlogits[rows, target] -= 1
    return value, dlogits * (weight / weight.sum())[:, None]


def sgd(data, grad, velocity, *, learning_rate, momentum=0.0, nesterov=False, weight_decay=0.0):
    """Return the new data and velocity (Sutskever et al. 2013, in the form of PyTorch)."""
    grad = grad + weight_decay * data
    velocity = momentum * velocity + grad
    step = grad + momentum * velocity if nesterov else velocity
    return data - learning_rate * step, velocity


def adam(data, grad, m, v, step, *, learning_rate, beta1=0.9, beta2=0.999, eps=1e-8):
    """Return the new data, m and v (Kingma and Ba 2015, algorithm 1)."""
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    corrected = np.sqrt(v / (1 - beta2**step)) + eps
    return data - learning_rate * m / (1 - beta1**step) / corrected, m, v
