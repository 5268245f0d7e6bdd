"""Borders, resolutions, orders, products and maxima against PyTorch, on random configurations."""

from __future__ import annotations

import numpy as np
import pytest

import cycnn

from ..helpers import assert_near, normal
from .test_torch import MODES, channels_first, channels_last, one_thread

torch = pytest.importorskip("torch")
F = torch.nn.functional
assert one_thread  # a fixture of this module too

SEEDS = [
    *range(10),
    *(pytest.param(seed, marks=pytest.mark.peers, id=f"peers-{seed}") for seed in range(300)),
]
each_seed = pytest.mark.parametrize("seed", SEEDS)
LINEAR = ("linear", "bilinear", "trilinear")


def draw(rng, least=0):
    """Return an array of 1 to 3 spatial axes (or from `least` on)."""
    axes = int(rng.integers(max(least, 1), 4)) if least or rng.integers(6) else 0
    spatial = (int(n) for n in rng.integers(1, (40, 40, 12, 7)[axes], axes))
    shape = (int(rng.integers(1, 4)), *spatial, int(rng.integers(1, 40)))
    return normal(rng, shape, str(rng.choice(["float32", "float64"])))


def compare(rng, layer, inputs, peer, terms, magnitude=None):
    """Hold y and every dx of a layer to those of a function of tensors.

    Sums of `terms` products of size `magnitude` (that of the inputs if not given) are rounded.
    """
    several = isinstance(inputs, tuple)
    arrays = inputs if several else (inputs,)
    shapes = tuple(x.shape[1:] for x in arrays)
    layer.build(shapes if several else shapes[0], dtype=arrays[0].dtype)
    y, backward = layer(inputs)
    tensors = [channels_first(x).requires_grad_() for x in arrays]
    expected = peer(*tensors)
    dy = normal(rng, y.shape, y.dtype)
    dx = backward(dy)
    expected.backward(channels_first(dy))
    scale = max(float(np.abs(x).max()) for x in arrays) if magnitude is None else magnitude
    assert_near(y, channels_last(expected), np.full(y.shape, scale), terms)
    peak = float(np.abs(dy).max()) * (1 if magnitude is None else magnitude) * terms
    for actual, tensor in zip(dx if several else (dx,), tensors, strict=True):
        assert_near(actual, channels_last(tensor.grad), np.full(actual.shape, peak), terms)


@each_seed
def test_pad(seed):
    rng = np.random.default_rng(seed)
    x, mode = draw(rng, least=1), str(rng.choice(list(MODES)))
    most = [
        (4 if mode in ("zeros", "replicate") else n - (mode == "reflect")) for n in x.shape[1:-1]
    ]
    border = tuple(tuple(int(b) for b in rng.integers(0, min(n, 4) + 1, 2)) for n in most)
    value = float(rng.normal()) if mode == "zeros" else 0.0
    flat = [n for pair in reversed(border) for n in pair]
    layer = cycnn.Pad(border, mode, value)
    copies = int(np.prod([1 + b + e for b, e in border]))
    with_value = (value,) if mode == "zeros" else ()
    compare(rng, layer, x, lambda t: F.pad(t, flat, MODES[mode], *with_value), copies + 1)


@each_seed
@pytest.mark.parametrize("kind", ["nearest", "linear", "align_corners"])
def test_upsample(seed, kind):
    rng = np.random.default_rng(seed)
    x = draw(rng, least=1)
    axes = x.ndim - 2
    factor = tuple(int(n) for n in rng.integers(1, (8, 5, 4)[axes - 1], axes))
    options = {"mode": "nearest"} if kind == "nearest" else {"mode": LINEAR[axes - 1]}
    if kind != "nearest":
        options["align_corners"] = kind == "align_corners"
    sizes = [n * f for n, f in zip(x.shape[1:-1], factor, strict=True)]
    layer = cycnn.Upsample(
        factor, "nearest" if kind == "nearest" else "linear", kind == "align_corners"
    )
    terms = 3 + int(np.prod([2 * f for f in factor]))
    # PyTorch rounds positions, which go up to n, and takes the weights from them.
    terms += 4 * sum(x.shape[1:-1]) * (kind != "nearest" and x.dtype == np.float64)
    compare(rng, layer, x, lambda t: F.interpolate(t, sizes, **options), terms)


@each_seed
def test_crop_slice_and_permute(seed):
    rng = np.random.default_rng(seed)
    x = draw(rng, least=1)
    cut = []
    for n in x.shape[1:-1]:
        begin = int(rng.integers(0, n))
        cut.append((begin, int(rng.integers(0, n - begin))))
    inside = tuple(slice(b, n - e) for n, (b, e) in zip(x.shape[1:-1], cut, strict=True))
    compare(rng, cycnn.Crop(cut), x, lambda t: t[(slice(None), slice(None), *inside)], 1)

    axis = int(rng.integers(1, x.ndim))
    start = int(rng.integers(0, x.shape[axis]))
    stop = int(rng.integers(start + 1, x.shape[axis] + 1))
    place = 1 if axis == x.ndim - 1 else axis + 1
    layer = cycnn.Slice(start, stop, axis=axis)
    compare(rng, layer, x, lambda t: t.narrow(place, start, stop - start), 1)

    axes = tuple(int(a) for a in 1 + rng.permutation(x.ndim - 1))

    def permuted(t):
        return t.movedim(1, -1).permute(0, *axes).movedim(-1, 1)

    compare(rng, cycnn.Permute(axes), x, permuted, 1)


@each_seed
def test_several_inputs(seed):
    rng = np.random.default_rng(seed)
    x = draw(rng)
    count = int(rng.integers(2, 6))
    arrays = (x, *(normal(rng, x.shape, x.dtype) for _ in range(count - 1)))
    peak = float(max(np.abs(a).max() for a in arrays)) + 1
    factors = [float(c) for c in rng.normal(size=count)]

    def product(*tensors):
        return torch.stack(tensors).prod(0)

    compare(rng, cycnn.Multiply(), arrays, product, count, peak**count)
    compare(rng, cycnn.Maximum(), arrays, lambda *t: torch.stack(t).amax(0), 1)
    compare(rng, cycnn.Average(), arrays, lambda *t: torch.stack(t).mean(0), count, count * peak)

    def weighted(*tensors):
        return sum(c * t for c, t in zip(factors, tensors, strict=True))

    compare(rng, cycnn.Add(factors), arrays, weighted, count + 1, 4 * count * peak)


@each_seed
def test_concat_and_split(seed):
    rng = np.random.default_rng(seed)
    x = draw(rng)
    axis = int(rng.integers(1, x.ndim))
    place = 1 if axis == x.ndim - 1 else axis + 1
    sizes = [int(n) for n in rng.integers(1, 9, int(rng.integers(2, 6)))]
    parts = tuple(normal(rng, (*x.shape[:axis], n, *x.shape[axis + 1 :]), x.dtype) for n in sizes)
    compare(rng, cycnn.Concat(axis=axis), parts, lambda *t: torch.cat(t, place), 1)

    whole = np.concatenate(parts, axis)
    layer = cycnn.Split([int(n) for n in np.cumsum(sizes)[:-1]], axis=axis)
    y, backward = layer.build(whole.shape[1:], dtype=whole.dtype)(whole)
    tensor = channels_first(whole).requires_grad_()
    expected = torch.split(tensor, sizes, place)
    dy = tuple(normal(rng, part.shape, part.dtype) for part in y)
    torch.autograd.backward(expected, [channels_first(d) for d in dy])
    for part, e in zip(y, expected, strict=True):
        np.testing.assert_array_equal(part, channels_last(e))
    np.testing.assert_array_equal(backward(dy), channels_last(tensor.grad))
