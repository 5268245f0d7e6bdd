"""Convolution and pooling.

A sliding window over *pixel numbers* says which pixel each tap of each output reads, so that one
gather serves every padding mode. -1 is a pixel of the border, -2 one beyond it (ceil_mode reaches
there).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cycnn._check import Array
from cycnn._reference.call import Call, formula
from cycnn.autodiff import Variable, absolute, linear, where

MODES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


# Which pixels


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    """Return `value` once for each of `axes` axes."""
    return (value,) * axes if isinstance(value, int) else tuple(value)


def pads(
    shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Any,
    dilation: Sequence[int],
) -> list[tuple[int, int]]:  # fmt: skip
    """Return the (begin, end) border of each axis."""
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if padding == "valid":
        return [(0, 0)] * len(shape)
    if padding == "causal":
        return [(span - 1, 0) for span in spans]
    if padding == "same":
        totals = [
            max((math.ceil(n / s) - 1) * s + span - n, 0)
            for n, s, span in zip(shape, stride, spans, strict=True)
        ]
        return [(total // 2, total - total // 2) for total in totals]
    if isinstance(padding, int):
        return [(padding, padding)] * len(shape)
    return [(begin, end) for begin, end in padding]


def output_length(n: int, span: int, stride: int, pad: tuple[int, int], ceil_mode: bool) -> int:
    """Return how many windows an axis of n pixels has; the last starts before the end border."""
    if not ceil_mode:
        return (n + sum(pad) - span) // stride + 1
    length = -(-(n + sum(pad) - span) // stride) + 1
    return length - 1 if (length - 1) * stride >= n + pad[0] else length


def taps(
    shape: Sequence[int], kernel: Any, stride: Any, padding: Any, mode: str = "zeros",
    dilation: Any = 1, ceil_mode: bool = False,
) -> Array:  # fmt: skip
    """Return the pixel that each tap of each output reads, shape (outputs..., taps)."""
    axes = len(shape)
    kernel, stride, dilation = (per_axis(v, axes) for v in (kernel, stride, dilation))
    border = pads(shape, kernel, stride, padding, dilation)
    pixel = np.arange(math.prod(shape)).reshape(shape)
    if mode == "zeros":
        pixel = np.pad(pixel, border, constant_values=-1)
    else:
        pixel = np.pad(pixel, border, mode=MODES[mode])
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    length = [
        output_length(n, span, s, pad, ceil_mode)
        for n, span, s, pad in zip(shape, spans, stride, border, strict=True)
    ]
    beyond = [
        (0, max((o - 1) * s + span - n, 0))
        for o, s, span, n in zip(length, stride, spans, pixel.shape, strict=True)
    ]
    window = sliding_window_view(np.pad(pixel, beyond, constant_values=-2), spans)
    window = window[
        tuple(slice(0, (o - 1) * s + 1, s) for o, s in zip(length, stride, strict=True))
    ]
    spread: Any = (..., *(slice(None, None, d) for d in dilation))
    pixels: Array = window[spread].reshape(*length, math.prod(kernel))
    return pixels


def pixels(x: Variable) -> Variable:
    """Return x (N, spatial..., C) with its pixels in one row, (N, pixels, C)."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def gather(x: Variable, pixel: Array, border: float = 0.0) -> Variable:
    """Return x (N, spatial..., C) at pixel numbers (...) of any shape, (N, ..., C)."""
    found = pixels(x)[:, np.maximum(pixel, 0)]
    return found if (pixel >= 0).all() else where((pixel >= 0)[..., None], found, border)


def scatter(values: Variable, pixel: Array, count: int) -> Variable:
    """Return (N, count, C) in which values (N, places, C) are added to their pixels (places)."""
    inside = pixel >= 0
    kept = values[:, inside]
    y = np.zeros((kept.shape[0], count, kept.shape[-1]), kept.dtype)
    place: Any = (slice(None), pixel[inside])
    np.add.at(y, place, kept.value)
    return linear("scatter({})", y, (kept, "dy at its pixel", lambda dy: dy[place]))


def pool_taps(call: Call) -> Array:
    """Return the taps of a pooling layer."""
    o = call.options
    size = o["pool_size"]
    return taps(
        call.x.shape[1:-1], size, size if o["stride"] is None else o["stride"], o["padding"],
        o["padding_mode"], o["dilation"], o["ceil_mode"],
    )  # fmt: skip


# Convolution


def grouped(window: Variable, weight: Variable, groups: int) -> Variable:
    """Return window (rows, taps, C) times weight (taps, C / groups, K), group by group."""
    (rows, T, C), K = window.shape, weight.shape[-1]
    left = window.reshape(rows, T, groups, C // groups).transpose(2, 0, 1, 3)
    right = weight.reshape(T, C // groups, groups, K // groups).transpose(2, 0, 1, 3)
    y = left.reshape(groups, rows, -1) @ right.reshape(groups, -1, K // groups)
    return y.transpose(1, 0, 2).reshape(rows, K)


@formula("Conv", "DepthwiseConv")
def conv(call: Call) -> Variable:
    """y[o, k] = bias[k] + sum over t, c of x[o stride - begin + t dilation, c] weight[t, c, k]."""
    x, weight, o = call.x, call.state["weight"], call.options
    if o.get("region") is not None:
        x = x[(slice(None), *(slice(*part) for part in o["region"]))]
    kernel, (depth, K) = weight.shape[:-2], weight.shape[-2:]
    pixel = taps(x.shape[1:-1], kernel, o["stride"], o["padding"], o["padding_mode"], o["dilation"])
    window = gather(x, pixel).reshape(-1, pixel.shape[-1], x.shape[-1])
    y = grouped(window, weight.reshape(-1, depth, K), x.shape[-1] // depth)
    return biased(y.reshape(len(x), *pixel.shape[:-1], K), call)


@formula("LocallyConnected")
def locally_connected(call: Call) -> Variable:
    """As conv, with a weight of its own for each output."""
    x, weight, o = call.x, call.state["weight"], call.options
    axes = x.ndim - 2
    pixel = taps(
        x.shape[1:-1], weight.shape[axes:-2], o["stride"], o["padding"], o["padding_mode"],
        o["dilation"],
    )  # fmt: skip
    (depth, K), C, outputs, T = weight.shape[-2:], x.shape[-1], pixel.shape[:-1], pixel.shape[-1]
    groups, places = C // depth, math.prod(outputs)
    left = gather(x, pixel).reshape(len(x), places, T, groups, depth).transpose(0, 1, 3, 2, 4)
    right = weight.reshape(places, T, depth, groups, K // groups).transpose(0, 3, 1, 2, 4)
    y = left.reshape(len(x), places, groups, 1, -1) @ right.reshape(places, groups, -1, K // groups)
    return biased(y.reshape(len(x), *outputs, K), call)


@formula("ConvTranspose")
def conv_transpose(call: Call) -> Variable:
    """y[i, k] = bias[k] + sum of x[o, c] weight[t, k, c] with o stride + t dilation - begin = i."""
    x, weight, o = call.x, call.state["weight"], call.options
    kernel, (depth, C), spatial = weight.shape[:-2], weight.shape[-2:], x.shape[1:-1]
    stride, dilation, more = (
        per_axis(o[name], len(spatial)) for name in ("stride", "dilation", "output_padding")
    )
    if o["padding"] == "same":
        out = [n * s for n, s in zip(spatial, stride, strict=True)]
    else:
        border = pads(spatial, kernel, stride, o["padding"], dilation)
        out = [
            (n - 1) * s + (k - 1) * d + 1 - sum(pad) + extra
            for n, s, k, d, pad, extra in zip(
                spatial, stride, kernel, dilation, border, more, strict=True
            )
        ]
    pixel = taps(out, kernel, stride, o["padding"], "zeros", dilation)
    G, T = o["groups"], pixel.shape[-1]
    left = pixels(x).reshape(-1, G, C // G).transpose(1, 0, 2)
    right = weight.reshape(T * depth, G, C // G).transpose(1, 2, 0)
    window = (left @ right).reshape(G, len(x), -1, T, depth).transpose(1, 2, 3, 0, 4)
    window = window.reshape(len(x), -1, G * depth)
    y = scatter(window, pixel.reshape(-1), math.prod(out))
    return biased(y.reshape(len(x), *out, G * depth), call)


@formula("Dense")
def dense(call: Call) -> Variable:
    """y = x @ weight + bias."""
    return biased(call.x @ call.state["weight"], call)


def biased(y: Variable, call: Call) -> Variable:
    """Return y + bias where the layer has one."""
    return y + call.state["bias"] if "bias" in call.state else y


# Pooling


@formula("MaxPool")
def max_pool(call: Call) -> Variable | tuple[Variable, ...]:
    """y = max over the window, the first among equals; the border is -inf."""
    return largest(call, pool_taps(call))


def largest(call: Call, pixel: Array) -> Variable | tuple[Variable, ...]:
    """Return the largest value of each window, and its pixel number where that is asked for."""
    window = gather(call.x, pixel, -np.inf)
    y = window.max(-2)
    if not call.options.get("return_indices"):
        return y
    rows = np.broadcast_to(pixel[..., None], window.shape)
    won = np.take_along_axis(rows, window.value.argmax(-2)[..., None, :], -2)
    return y, Variable(won[..., 0, :])


def count(taps: Array) -> Array:
    """Return how many taps of each window count, at least 1, for all channels."""
    number: Array = np.maximum(taps.sum(-1), 1)
    return number[..., None]


@formula("AvgPool")
def avg_pool(call: Call) -> Variable:
    """y = mean over the window, of the pixels in the input or also of those of the border."""
    pixel = pool_taps(call)
    counted = pixel > -2 if call.options["count_include_pad"] else pixel >= 0
    return gather(call.x, pixel).sum(-2) / count(counted)


@formula("LpPool")
def lp_pool(call: Call) -> Variable:
    """y = (sum over the window of |x|^p)^(1 / p)."""
    p = float(call.options["p"])
    return (absolute(gather(call.x, pool_taps(call))) ** p).sum(-2) ** (1 / p)


@formula("GlobalAvgPool")
def global_avg_pool(call: Call) -> Variable:
    """y = mean over all pixels."""
    return pixels(call.x).mean(1)


@formula("GlobalMaxPool")
def global_max_pool(call: Call) -> Variable:
    """y = max over all pixels."""
    return pixels(call.x).max(1)


def adaptive_taps(shape: Sequence[int], out: Any) -> Array:
    """Return each window's pixels, floor(o n / out) ... ceil((o + 1) n / out) - 1, filled by -1."""
    axes = []
    for n, count in zip(shape, per_axis(out, len(shape)), strict=True):
        windows = [range(o * n // count, -(-(o + 1) * n // count)) for o in range(count)]
        most = max(map(len, windows))
        axes.append(np.array([[*window, *[-1] * (most - len(window))] for window in windows]))
    pixel = np.zeros((1, 1), int)
    outputs: tuple[int, ...] = ()
    for n, axis in zip(shape, axes, strict=True):
        first, second = pixel[:, None, :, None], axis[None, :, None, :]
        inside = (first >= 0) & (second >= 0)
        pixel = np.where(inside, first * n + second, -1)
        pixel = pixel.reshape(pixel.shape[0] * pixel.shape[1], -1)
        outputs += (len(axis),)
    return pixel.reshape(*outputs, -1)


@formula("AdaptiveMaxPool")
def adaptive_max_pool(call: Call) -> Variable | tuple[Variable, ...]:
    """y = max over windows that cover the input in equal parts."""
    return largest(call, adaptive_taps(call.x.shape[1:-1], call.options["output_size"]))


@formula("AdaptiveAvgPool")
def adaptive_avg_pool(call: Call) -> Variable:
    """y = mean over windows that cover the input in equal parts."""
    pixel = adaptive_taps(call.x.shape[1:-1], call.options["output_size"])
    return gather(call.x, pixel).sum(-2) / count(pixel >= 0)


@formula("MaxUnpool")
def max_unpool(call: Call) -> Variable:
    """y[n, p, c] = sum over o of x[n, o, c] where indices[n, o, c] is p."""
    (N, P, C), made = pixels(call.x).shape, call.made[0].shape
    index = call.inputs[1].value.reshape(N, P, C).astype(int)
    place: Array = np.arange(math.prod(made[1:-1]))
    one_hot: Array = (index[:, None] == place[:, None, None]).astype(float)
    return (pixels(call.x).reshape(N, 1, P, C) * one_hot).sum(2).reshape(made)
