"""The activations in plain float64: value and slope, written as their definitions say."""

from __future__ import annotations

import math

import numpy as np

erf = np.vectorize(math.erf, otypes=[float])
erfc = np.vectorize(math.erfc, otypes=[float])


def sigmoid(x):
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x)))


def softplus(x, beta=1.0):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(beta * x))) / beta


def normal(x):
    """Return the cumulative distribution and the density of a standard normal number."""
    return erfc(-x / math.sqrt(2)) / 2, np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def tanh_argument(x):
    """Return what GELU's tanh is taken of, and its slope."""
    factor = math.sqrt(2 / math.pi)
    return factor * (x + 0.044715 * x**3), factor * (1 + 3 * 0.044715 * x**2)


def gelu(x):
    return x * normal(x)[0]


def gelu_slope(x):
    cdf, density = normal(x)
    return cdf + x * density


def gelu_tanh_slope(x):
    u, du = tanh_argument(x)
    s = sigmoid(2 * u)
    return s + 2 * x * s * sigmoid(-2 * u) * du


def mish_slope(x):
    w, e = np.tanh(softplus(x)), np.exp(-2 * softplus(x))
    return w + x * sigmoid(x) * 4 * e / (1 + e) ** 2


FUNCTIONS = {  # name: constants, value, slope
    "clip": (
        (-1.5, 2.5),
        lambda x: np.clip(x, -1.5, 2.5),
        lambda x: ((x > -1.5) & (x < 2.5)) * 1.0,
    ),
    "leaky_relu": (
        (0.01,),
        lambda x: np.where(x > 0, x, 0.01 * x),
        lambda x: np.where(x > 0, 1, 0.01),
    ),
    "elu": (
        (1.25, 0.75, 0.5),
        lambda x: np.where(x > 0, 1.25 * x, 0.75 * np.expm1(np.minimum(x, 0) * 0.5)),
        lambda x: np.where(x > 0, 1.25, 0.375 * np.exp(np.minimum(x, 0) * 0.5)),
    ),
    "gelu": ((), gelu, gelu_slope),
    "gelu_tanh": ((), lambda x: x * sigmoid(2 * tanh_argument(x)[0]), gelu_tanh_slope),
    "silu": (
        (),
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) + x * sigmoid(x) * sigmoid(-x),
    ),
    "mish": ((), lambda x: x * np.tanh(softplus(x)), mish_slope),
    "sigmoid": ((), sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "tanh": ((), np.tanh, lambda x: 4 * sigmoid(2 * x) * sigmoid(-2 * x)),
    "hard_sigmoid": (
        (),
        lambda x: np.clip(x + 3, 0, 6) / 6,
        lambda x: (np.abs(x) < 3) / 6,
    ),
    "hard_swish": (
        (),
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
        lambda x: np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5)),
    ),
    "softplus": ((0.5,), lambda x: softplus(x, 0.5), lambda x: sigmoid(0.5 * x)),
    "softsign": ((), lambda x: x / (1 + np.abs(x)), lambda x: 1 / (1 + np.abs(x)) ** 2),
    "exp": ((), np.exp, np.exp),
    "log": ((), np.log, lambda x: 1 / x),
}


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))
