"""Normalisation."""

from __future__ import annotations

from collections.abc import Iterable

from cycnn._reference.call import Call, formula
from cycnn._reference.windows import gather, taps
from cycnn.autodiff import Variable


def standardised(x: Variable, axes: Iterable[int], eps: float) -> Variable:
    """Return (x - mean) / sqrt(variance + eps), both over `axes`."""
    over = tuple(axes)
    centred = x - x.mean(over, keepdims=True)
    return centred / ((centred**2).mean(over, keepdims=True) + eps) ** 0.5


def scaled(x: Variable, call: Call) -> Variable:
    """Return gamma x + beta, as far as the layer has them."""
    y = x * call.state["gamma"] if "gamma" in call.state else x
    return y + call.state["beta"] if "beta" in call.state else y


@formula("BatchNorm")
def batch_norm(call: Call) -> Variable:
    """y = gamma (x - mean) / sqrt(variance + eps) + beta, over all axes but the last."""
    x, eps = call.x, call.options["eps"]
    if call.training:
        return scaled(standardised(x, range(x.ndim - 1), eps), call)
    mean, variance = (call.state[f"running_{name}"].value for name in ("mean", "variance"))
    return scaled((x - mean) / (variance + eps) ** 0.5, call)


@formula("GroupNorm", "InstanceNorm")
def group_norm(call: Call) -> Variable:
    """The same over all pixels of a group of channels of a sample."""
    x, groups = call.x, call.options.get("groups", call.x.shape[-1])
    grouped = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    return scaled(standardised(grouped, (1, 3), call.options["eps"]).reshape(x.shape), call)


@formula("LayerNorm")
def layer_norm(call: Call) -> Variable:
    """The same over the last axes."""
    axes, eps = call.options["axes"], call.options["eps"]
    return scaled(standardised(call.x, range(-axes, 0), eps), call)


@formula("RMSNorm")
def rms_norm(call: Call) -> Variable:
    """y = gamma x / sqrt(mean(x^2) + eps), over the last axes."""
    axes, eps = call.options["axes"], call.options["eps"]
    mean = (call.x**2).mean(tuple(range(-axes, 0)), keepdims=True)
    return scaled(call.x / (mean + eps) ** 0.5, call)


@formula("LocalResponseNorm")
def local_response_norm(call: Call) -> Variable:
    """y = x (k + alpha mean of x^2 near by)^-beta, across or within channels."""
    x, o = call.x, call.options
    size, begin = o["size"], o["size"] // 2
    near = x if o["within"] else x.reshape(-1, x.shape[-1], 1)
    border = ((begin, size - 1 - begin),) * (near.ndim - 2)
    pixel = taps(near.shape[1:-1], size, 1, border)
    mean = (gather(near, pixel) ** 2).mean(-2).reshape(x.shape)
    alpha, beta, k = (float(o[name]) for name in ("alpha", "beta", "k"))
    return x * (mean * alpha + k) ** -beta


@formula("Normalize")
def normalize(call: Call) -> Variable:
    """y = (x - mean) / std."""
    return (call.x - call.state["mean"].value) / call.state["std"].value
