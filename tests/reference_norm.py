"""Normalisations in plain float64: each returns y, and the gradients for a given dy."""

from __future__ import annotations

import numpy as np


def over_axes(x, gamma, beta, axes, eps, centred=True):
    """Return y: x normalised over some axes, gamma and beta broadcast."""
    x = np.asarray(x, "float64")
    mean = x.mean(axes, keepdims=True) if centred else 0.0
    variance = ((x - mean) ** 2).mean(axes, keepdims=True)
    return gamma * (x - mean) / np.sqrt(variance + eps) + beta


def over_axes_backward(dy, x, gamma, axes, eps, centred=True):
    """Return dx, and dy xhat, which sums to dgamma."""
    x, g = np.asarray(x, "float64"), gamma * np.asarray(dy, "float64")
    mean = x.mean(axes, keepdims=True) if centred else 0.0
    inverse = 1 / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + eps)
    xhat = (x - mean) * inverse
    g_mean = g.mean(axes, keepdims=True) if centred else 0.0
    return inverse * (g - g_mean - xhat * (g * xhat).mean(axes, keepdims=True)), dy * xhat


def grouped(a, groups):
    """Return an array (N, ..., C) as (N, P, groups, C / groups)."""
    return np.asarray(a, "float64").reshape(len(a), -1, groups, a.shape[-1] // groups)


def group_norm(x, gamma, beta, groups, eps):
    shape = 1, 1, groups, -1
    scale, shift = (np.asarray(a, "float64").reshape(shape) for a in (gamma, beta))
    return over_axes(grouped(x, groups), scale, shift, (1, 3), eps).reshape(x.shape)


def group_norm_backward(dy, x, gamma, groups, eps):
    """Return dx, dgamma, dbeta."""
    scale = np.asarray(gamma, "float64").reshape(1, 1, groups, -1)
    dx, product = over_axes_backward(
        grouped(dy, groups), grouped(x, groups), scale, (1, 3), eps
    )  # fmt: skip
    return dx.reshape(x.shape), product.sum((0, 1)).ravel(), dy.reshape(-1, x.shape[-1]).sum(0)


def lrn_windows(shape, size, within):
    """Yield (to, from): slices of x whose squares are in the window of the others."""
    axes = range(1, len(shape) - 1) if within else [len(shape) - 1]
    for step in np.ndindex(*(size for _ in axes)):
        here, there = [slice(None)] * len(shape), [slice(None)] * len(shape)
        for axis, s in zip(axes, step, strict=True):
            move, n = s - size // 2, shape[axis]
            here[axis] = slice(max(-move, 0), max(n - max(move, 0), 0))
            there[axis] = slice(max(move, 0), max(n + min(move, 0), 0))
        yield tuple(here), tuple(there)


def lrn(x, size, alpha, beta, k, within):
    """Return y and s = k + alpha mean."""
    x = np.asarray(x, "float64")
    total = np.zeros_like(x)
    for here, there in lrn_windows(x.shape, size, within):
        total[here] += x[there] ** 2
    s = k + alpha / size ** (x.ndim - 2 if within else 1) * total
    return x * s**-beta, s


def lrn_backward(dy, x, size, alpha, beta, k, within):
    """Return dx."""
    x = np.asarray(x, "float64")
    _, s = lrn(x, size, alpha, beta, k, within)
    ratio, spread = dy * x * s ** (-beta - 1), np.zeros_like(x)
    for here, there in lrn_windows(x.shape, size, within):
        spread[there] += ratio[here]
    a = alpha / size ** (x.ndim - 2 if within else 1)
    return dy * s**-beta - 2 * a * beta * x * spread
