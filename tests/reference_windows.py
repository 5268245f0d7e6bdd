"""Plain float64 references of the less common windows: transposed, unshared, adaptive, p-norms."""

from __future__ import annotations

import itertools
import math

import numpy as np

from .reference import gather, per_axis, scatter, taps


def transposed(shape, kernel, stride, border, extra, dilation):
    """Return, for a transposed convolution, the full size and where tap t of all pixels goes."""
    axes = len(shape)
    stride, dilation, extra = (per_axis(v, axes) for v in (stride, dilation, extra))
    full = [
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, k, s, d, e in zip(shape, kernel, stride, dilation, extra, strict=True)
    ]
    places = {
        t: tuple(
            slice(i * d, i * d + (n - 1) * s + 1, s)
            for i, n, s, d in zip(t, shape, stride, dilation, strict=True)
        )
        for t in itertools.product(*map(range, kernel))
    }
    inside = tuple(slice(b, n - e) for n, (b, e) in zip(full, border, strict=True))
    return full, places, inside


def conv_transpose(x, weight, bias=None, *, stride=1, border, extra=0, dilation=1, groups=1):
    """Every input pixel adds its multiple of the kernel to the output, stride apart."""
    kernel, (depth, C) = weight.shape[:-2], weight.shape[-2:]
    full, places, inside = transposed(x.shape[1:-1], kernel, stride, border, extra, dilation)
    y = np.zeros((len(x), *full, groups, depth))
    x = np.asarray(x, np.float64).reshape(*x.shape[:-1], groups, C // groups)
    weight = np.asarray(weight, np.float64).reshape(*kernel, depth, groups, C // groups)
    for t, place in places.items():
        y[(slice(None), *place)] += np.einsum("n...gc,kgc->n...gk", x, weight[t])
    y = y[(slice(None), *inside)].reshape(len(x), *(s.stop - s.start for s in inside), -1)
    return y + (0 if bias is None else bias)


def conv_transpose_backward(dy, x, weight, *, stride=1, border, extra=0, dilation=1, groups=1):
    """Return dx, dweight, dbias."""
    kernel, (depth, C) = weight.shape[:-2], weight.shape[-2:]
    full, places, inside = transposed(x.shape[1:-1], kernel, stride, border, extra, dilation)
    whole = np.zeros((len(x), *full, groups, depth))
    whole[(slice(None), *inside)] = np.reshape(dy, (*dy.shape[:-1], groups, depth))
    split = (*x.shape[:-1], groups, C // groups)
    x = np.asarray(x, np.float64).reshape(split)
    weight = np.asarray(weight, np.float64).reshape(*kernel, depth, groups, C // groups)
    dx, dweight = np.zeros(split), np.zeros(weight.shape)
    for t, place in places.items():
        part = whole[(slice(None), *place)]
        dx += np.einsum("n...gk,kgc->n...gc", part, weight[t])
        dweight[t] = np.einsum(
            "ngk,ngc->kgc", part.reshape(-1, groups, depth), x.reshape(-1, groups, C // groups)
        )
    axes = tuple(range(dy.ndim - 1))
    dweight = dweight.reshape(*kernel, depth, C)
    return dx.reshape(*split[:-2], C), dweight, np.asarray(dy, np.float64).sum(axes)


def locally_connected(
    x, weight, bias=None, *, stride=1, padding="valid", mode="zeros", dilation=1, groups=1
):
    """y[n, o, k] = bias[o, k] + sum over (t, c) of x[n, o, t, g, c] weight[o, t, c, k], k in g."""
    axes, (C, K) = x.ndim - 2, weight.shape[-2:]
    pixel = taps(x.shape[1:-1], weight.shape[axes : 2 * axes], stride, padding, mode, dilation)
    window = gather(x, pixel).reshape(len(x), -1, pixel.shape[-1], groups, C)
    weight = np.asarray(weight, np.float64).reshape(-1, pixel.shape[-1], C, groups, K // groups)
    y = np.einsum("notgc,otcgk->nogk", window, weight, optimize=True)
    return y.reshape(len(x), *pixel.shape[:-1], K) + (0 if bias is None else bias)


def locally_connected_backward(
    dy, x, weight, *, stride=1, padding="valid", mode="zeros", dilation=1, groups=1
):
    """Return dx, dweight, dbias."""
    axes, shape, (C, K) = x.ndim - 2, weight.shape, weight.shape[-2:]
    pixel = taps(x.shape[1:-1], shape[axes : 2 * axes], stride, padding, mode, dilation)
    window = gather(x, pixel).reshape(len(x), -1, pixel.shape[-1], groups, C)
    weight = np.asarray(weight, np.float64).reshape(-1, pixel.shape[-1], C, groups, K // groups)
    dy = np.asarray(dy, np.float64)
    dbias, dy = dy.sum(0), dy.reshape(len(x), -1, groups, K // groups)
    dweight = np.einsum("notgc,nogk->otcgk", window, dy, optimize=True)
    dwindow = np.einsum("nogk,otcgk->notgc", dy, weight, optimize=True)
    dx = scatter(dwindow.reshape(len(x), *pixel.shape, groups * C), pixel, x.shape)
    return dx, dweight.reshape(shape), dbias


def lp_pool(x, pool, p, *, stride=None, padding="valid", mode="zeros", ceil_mode=False, dilation=1):
    """y = (sum of |x|^p over the window)^(1 / p)."""
    pixel = taps(x.shape[1:-1], pool, stride or pool, padding, mode, dilation, ceil_mode)
    return (np.abs(gather(x, pixel)) ** p).sum(-2) ** (1 / p)


def lp_pool_backward(
    dy, x, pool, p, *, stride=None, padding="valid", mode="zeros", ceil_mode=False, dilation=1
):
    """Return dx: sign(x) (|x| / y)^(p - 1) of the gradient to each input of a window."""
    pixel = taps(x.shape[1:-1], pool, stride or pool, padding, mode, dilation, ceil_mode)
    window = gather(x, pixel)
    y = (np.abs(window) ** p).sum(-2, keepdims=True) ** (1 / p)
    share = np.sign(window) * (np.abs(window) / np.where(y == 0, 1, y)) ** (p - 1)
    return scatter(share * np.asarray(dy, np.float64)[..., None, :], pixel, x.shape)


def adaptive(shape, output_size):
    """Yield (output index, slices of its window) of an adaptive pool."""
    out = per_axis(output_size, len(shape))
    for o in np.ndindex(*out):
        yield (
            (slice(None), *o),
            (
                slice(None),
                *(
                    slice(i * n // k, math.ceil((i + 1) * n / k))
                    for i, n, k in zip(o, shape, out, strict=True)
                ),
            ),
        )


def adaptive_pool(x, output_size, reduce):
    """y[o] = reduce over window o."""
    axes = tuple(range(1, x.ndim - 1))
    y = np.zeros((len(x), *per_axis(output_size, len(axes)), x.shape[-1]))
    for o, window in adaptive(x.shape[1:-1], output_size):
        y[o] = reduce(np.asarray(x, np.float64)[window], axis=axes)
    return y


def adaptive_avg_pool_backward(dy, x_shape, output_size):
    """Return dx: equal shares of each window's gradient."""
    dx = np.zeros(x_shape)
    for o, window in adaptive(x_shape[1:-1], output_size):
        pixels = math.prod(s.stop - s.start for s in window[1:])
        dx[window] += np.asarray(dy, np.float64)[o].reshape(
            len(dx), *(1 for _ in x_shape[1:-1]), -1
        ) / pixels  # fmt: skip
    return dx


def unpool(x, index, output_size):
    """y[n, index[n, o, c], c] = sum of x[n, o, c]."""
    y = np.zeros((len(x), math.prod(output_size), x.shape[-1]))
    n, _, c = np.indices((len(x), math.prod(x.shape[1:-1]), x.shape[-1]))
    np.add.at(y, (n, index.reshape(n.shape), c), x.reshape(n.shape))
    return y.reshape(len(x), *output_size, x.shape[-1])
