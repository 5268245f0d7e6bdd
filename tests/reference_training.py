"""Losses and optimizers in plain float64 NumPy: what the kernels are compared with."""

from __future__ import annotations

import numpy as np


def weighted(rows, slopes, weight):
    """Return the weighted mean of the rows' losses and its gradient, from the rows' own."""
    weight = np.ones(len(rows)) if weight is None else np.asarray(weight, np.float64)
    share = (weight / weight.sum()).reshape(-1, *[1] * (slopes.ndim - 1))
    return (weight * rows).sum() / weight.sum(), share * slopes


def elements(name, y, target, weight=None, delta=1.0):
    """Return value and gradient of a loss that has one target for each output."""
    y, t = np.asarray(y, np.float64), np.asarray(target, np.float64)
    d = y - t
    loss, slope = {
        "squared": lambda: (d**2, 2 * d),
        "absolute": lambda: (np.abs(d), np.sign(d)),
        "huber": lambda: (
            np.where(np.abs(d) <= delta, d**2 / 2, delta * (np.abs(d) - delta / 2)),
            np.clip(d, -delta, delta),
        ),
        "logistic": lambda: (np.logaddexp(0, y) - t * y, np.exp(-np.logaddexp(0, -y)) - t),
        "binary_hinge": lambda: (np.maximum(0, 1 - t * y), np.where(1 - t * y > 0, -t, 0.0)),
    }[name]()
    width = y.size // len(y)
    return weighted(loss.reshape(len(y), -1).mean(1), slope / width, weight)


def hinge(y, target, weight=None, margin=1.0):
    """Return value and gradient of sum_{k != t} max(0, margin + y[k] - y[t]) / K."""
    y, rows = np.asarray(y, np.float64), np.arange(len(y))
    above = margin + y - y[rows, target][:, None]
    above[rows, target] = 0
    slope = (above > 0).astype(np.float64)
    slope[rows, target] = -slope.sum(1)
    return weighted(np.maximum(above, 0).mean(1), slope / y.shape[1], weight)


def soft_cross_entropy(logits, share, weight=None):
    """Return value and gradient of -sum_k share[k] log softmax(logits)[k]."""
    logits, share = np.asarray(logits, np.float64), np.asarray(share, np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    logsoftmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return weighted(-(share * logsoftmax).sum(1), np.exp(logsoftmax) - share, weight)


def rmsprop(data, grad, v, velocity, *, learning_rate, rho, momentum, eps, weight_decay):
    """Return the new data, v and velocity."""
    g = grad + weight_decay * data
    v = rho * v + (1 - rho) * g**2
    velocity = momentum * velocity + g / (np.sqrt(v) + eps)
    return data - learning_rate * velocity, v, velocity


def adagrad(data, grad, v, *, learning_rate, eps, weight_decay):
    """Return the new data and v."""
    g = grad + weight_decay * data
    v = v + g**2
    return data - learning_rate * g / (np.sqrt(v) + eps), v


def lion(data, grad, m, *, learning_rate, beta1, beta2, weight_decay):
    """Return the new data and m: Chen et al. (2023), algorithm 2."""
    c = beta1 * m + (1 - beta1) * grad
    return (
        data - learning_rate * (np.sign(c) + weight_decay * data),
        beta2 * m + (1 - beta2) * grad,
    )
