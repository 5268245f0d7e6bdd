"""Layers that act on each value by itself: activations and dropout."""

from __future__ import annotations

import math

import numpy as np

from cycnn._check import Array
from cycnn._reference.call import Call, formula
from cycnn.autodiff import Variable, absolute, exp, function, log, maximum, relu, tanh, where
from cycnn.autodiff import sigmoid as logistic

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. (2017)


def _erf(x: Array) -> Array:
    return np.array([math.erf(v) for v in x.ravel()], x.dtype).reshape(x.shape)


erf = function("erf", _erf, lambda x, y: 2 / math.sqrt(math.pi) * np.exp(-x * x))
softplus_of = function("softplus", lambda x: np.logaddexp(0, x), lambda x, y: 1 - np.exp(-y))


def minimum(a: Variable, b: float) -> Variable:
    """Return the smaller of a and b."""
    return -maximum(-a, -b)


# Of straight pieces


@formula("ReLU")
def rectifier(call: Call) -> Variable:
    """y = max(x, 0)."""
    return relu(call.x)


@formula("Clip")
def clip(call: Call) -> Variable:
    """y = min(max(x, low), high)."""
    return minimum(maximum(call.x, call.options["low"]), call.options["high"])


@formula("ReLU6")
def relu6(call: Call) -> Variable:
    """y = min(max(x, 0), 6)."""
    return minimum(relu(call.x), 6)


@formula("LeakyReLU")
def leaky_relu(call: Call) -> Variable:
    """y = x where x > 0, else slope x."""
    return where(call.x > 0, call.x, call.x * call.options["slope"])


@formula("PReLU")
def prelu(call: Call) -> Variable:
    """y = x where x > 0, else slope x, the slope learnt."""
    return where(call.x > 0, call.x, call.x * call.state["slope"])


@formula("HardSigmoid")
def hard_sigmoid(call: Call) -> Variable:
    """y = min(max(x + 3, 0), 6) / 6."""
    return minimum(relu(call.x + 3), 6) / 6


@formula("HardSwish")
def hard_swish(call: Call) -> Variable:
    """y = x min(max(x + 3, 0), 6) / 6."""
    return call.x * minimum(relu(call.x + 3), 6) / 6


# Smooth


def exponential(x: Variable, alpha: float, divisor: float = 1) -> Variable:
    """Return x where x > 0, else alpha (exp(x / divisor) - 1)."""
    return where(x > 0, x, (exp(minimum(x, 0) / divisor) - 1) * alpha)


@formula("ELU")
def elu(call: Call) -> Variable:
    """y = x where x > 0, else alpha (exp(x) - 1)."""
    return exponential(call.x, call.options["alpha"])


@formula("SELU")
def selu(call: Call) -> Variable:
    """y = scale x where x > 0, else scale alpha (exp(x) - 1)."""
    return exponential(call.x, _SELU_ALPHA) * _SELU_SCALE


@formula("CELU")
def celu(call: Call) -> Variable:
    """y = x where x > 0, else alpha (exp(x / alpha) - 1)."""
    return exponential(call.x, call.options["alpha"], call.options["alpha"])


@formula("GELU")
def gelu(call: Call) -> Variable:
    """y = x (1 + erf(x / sqrt(2))) / 2, or the tanh that is near it."""
    x = call.x
    if call.options["approximate"] == "none":
        return x * (erf(x / math.sqrt(2)) + 1) / 2
    return x * (tanh((x + x**3 * 0.044715) * math.sqrt(2 / math.pi)) + 1) / 2


@formula("SiLU")
def silu(call: Call) -> Variable:
    """y = x / (1 + exp(-x))."""
    return call.x * logistic(call.x)


@formula("Mish")
def mish(call: Call) -> Variable:
    """y = x tanh(log(1 + exp(x)))."""
    return call.x * tanh(softplus_of(call.x))


@formula("Sigmoid")
def sigmoid(call: Call) -> Variable:
    """y = 1 / (1 + exp(-x))."""
    return logistic(call.x)


@formula("Tanh")
def hyperbolic_tangent(call: Call) -> Variable:
    """y = tanh(x)."""
    return tanh(call.x)


@formula("Softplus")
def softplus(call: Call) -> Variable:
    """y = log(1 + exp(beta x)) / beta."""
    beta = float(call.options["beta"])
    return softplus_of(call.x * beta) / beta


@formula("Softsign")
def softsign(call: Call) -> Variable:
    """y = x / (1 + |x|)."""
    return call.x / (absolute(call.x) + 1)


# Over the channels


def log_softmax_of(call: Call) -> Variable:
    """Return x - log(sum of exp(x)), after the largest is taken off."""
    largest: Array = call.x.value.max(-1, keepdims=True)
    shifted = call.x - largest
    return shifted - log(exp(shifted).sum(-1, keepdims=True))


@formula("Softmax")
def softmax(call: Call) -> Variable:
    """y = exp(x) / sum of exp(x)."""
    return exp(log_softmax_of(call))


@formula("LogSoftmax")
def log_softmax(call: Call) -> Variable:
    """y = x - log(sum of exp(x))."""
    return log_softmax_of(call)


# At random


@formula("Dropout")
def dropout(call: Call) -> Variable:
    """y = x / (1 - rate) where kept, else 0. Which values are kept is read off; their share is not.

    Of n independent choices the share is right within 6 standard deviations but once in 10^9.
    """
    rate, made = float(call.options["rate"]), call.made[0]
    if not call.training or rate == 0:
        return call.x
    kept = made
    if call.options["channelwise"]:
        kept = np.abs(made).max(axis=tuple(range(1, made.ndim - 1)), keepdims=True)
    kept = (kept != 0).astype(float)
    if abs(kept.mean() - (1 - rate)) > 6 * np.sqrt(rate * (1 - rate) / kept.size):
        raise ArithmeticError(f"{kept.mean():.3f} of the values are kept at a rate of {rate}")
    factor: Array = kept / (1 - rate)
    return call.x * factor
