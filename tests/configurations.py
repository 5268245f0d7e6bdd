"""Random configurations of windows that fit together, the same for every seed."""

from __future__ import annotations

from . import reference

MODES = "zeros", "reflect", "replicate", "circular"


def draw_padding(rng, kernel):
    """Return any kind of padding."""
    kind = rng.integers(5)
    if kind < 3:
        return ("valid", "same", "causal")[kind]
    if kind == 3:
        return int(rng.integers(4))
    return tuple(tuple(int(n) for n in rng.integers(0, k + 2, 2)) for k in kernel)


def draw_window(rng, *, pool=False):
    """Return a spatial shape and a kernel, stride, dilation, padding, border and mode that fit."""
    axes = int(rng.integers(1, 4))
    while True:
        shape = tuple(int(n) for n in rng.integers(1, (30, 14, 7)[axes - 1], axes))
        kernel = tuple(int(n) for n in rng.integers(1, 6 if axes < 3 else 4, axes))
        stride = tuple(int(n) for n in rng.integers(1, 4, axes))
        dilation = tuple(int(n) for n in rng.choice([1, 1, 1, 2, 3], axes))
        padding = int(rng.integers(3)) if pool else draw_padding(rng, kernel)
        mode = "zeros" if pool else str(rng.choice(["zeros", "zeros", *MODES]))
        border = reference.pads(shape, kernel, stride, padding, dilation)
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        reach = [max(pair) for pair in border]
        fits = all(n + sum(p) >= s for n, p, s in zip(shape, border, spans, strict=True))
        if mode == "reflect":  # PyTorch reflects and wraps once only
            fits &= all(p < n for p, n in zip(reach, shape, strict=True))
        elif mode == "circular":
            fits &= all(p <= n for p, n in zip(reach, shape, strict=True))
        if pool:
            fits &= all(p <= k // 2 for p, k in zip(reach, kernel, strict=True))
            # PyTorch's avg_pool3d insists on an image as large as the window before its border.
            fits &= axes < 3 or all(k <= n for k, n in zip(kernel, shape, strict=True))
        if fits and pool:  # PyTorch writes out of bounds for a window that holds no pixel
            window = reference.taps(shape, kernel, stride, padding, "zeros", dilation, True)
            fits = (window >= 0).any(-1).all()
        if fits:
            return shape, kernel, stride, dilation, padding, border, mode


def draw_channels(rng):
    """Return groups, channels of a group and filters; every fourth time of a depthwise kind."""
    groups, depth = (int(n) for n in rng.integers(1, (5, 20)))
    filters = groups * int(rng.integers(1, 20))
    if rng.random() < 0.25:
        groups, depth = int(rng.integers(1, 40)), 1
        filters = groups * int(rng.integers(1, 4))
    elif rng.random() < 0.25:
        groups, depth, filters = 1, int(rng.integers(60, 140)), int(rng.integers(20, 140))
    return groups, depth, filters
