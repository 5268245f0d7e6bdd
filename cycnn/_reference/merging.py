"""Layers that bring inputs together, take them apart, or move values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import reduce
from itertools import pairwise
from operator import add as add_two
from operator import mul

import numpy as np

from cycnn._check import Array
from cycnn._reference.call import Call, formula
from cycnn._reference.windows import gather, per_axis, taps
from cycnn.autodiff import Variable, concatenate, maximum

# Several inputs


@formula("Add")
def add(call: Call) -> Variable:
    """y = sum over i of coefficients[i] x[i]."""
    factors = call.options["coefficients"] or (1.0,) * len(call.inputs)
    return total(x * float(factor) for x, factor in zip(call.inputs, factors, strict=True))


def total(variables: Iterable[Variable]) -> Variable:
    """Return the sum of several."""
    return reduce(add_two, variables)


@formula("Average")
def average(call: Call) -> Variable:
    """y = mean of the inputs."""
    return total(call.inputs) / len(call.inputs)


@formula("Multiply")
def multiply(call: Call) -> Variable:
    """y = product of the inputs."""
    return reduce(mul, call.inputs)


@formula("Maximum")
def largest(call: Call) -> Variable:
    """y = max of the inputs, the first among equals."""
    return reduce(maximum, call.inputs)


@formula("Concat")
def concat(call: Call) -> Variable:
    """y = the inputs one behind the other."""
    return concatenate(call.inputs, call.options["axis"])


# Parts


def part(x: Variable, axis: int, start: int | None, stop: int | None) -> Variable:
    """Return x[start:stop] along an axis."""
    return x[(*[slice(None)] * (axis % x.ndim), slice(start, stop))]


@formula("Slice")
def sliced(call: Call) -> Variable:
    """y = x[..., start:stop]."""
    return part(call.x, call.options["axis"], call.options["start"], call.options["stop"])


@formula("Split")
def split(call: Call) -> tuple[Variable, ...]:
    """y[i] = the i-th part."""
    cuts, axis = call.options["indices_or_sections"], call.options["axis"]
    length = call.x.shape[axis]
    if isinstance(cuts, int):
        cuts = range(length // cuts, length, length // cuts)
    ends = (0, *cuts, length)
    return tuple(part(call.x, axis, a, b) for a, b in pairwise(ends))


@formula("Pad")
def pad(call: Call) -> Variable:
    """y = x with a border."""
    padding, mode = call.options["padding"], call.options["mode"]
    pixel = taps(call.x.shape[1:-1], 1, 1, padding, mode)[..., 0]
    return gather(call.x, pixel, call.options["value"])


@formula("Crop")
def crop(call: Call) -> Variable:
    """y = x without a border."""
    shape, cut = call.x.shape[1:-1], call.options["cropping"]
    pairs = [(cut, cut)] * len(shape) if isinstance(cut, int) else cut
    inside = (slice(a, n - b) for n, (a, b) in zip(shape, pairs, strict=True))
    return call.x[(slice(None), *inside)]


# Shapes


@formula("Flatten")
def flatten(call: Call) -> Variable:
    """y = the values of a sample in a row."""
    return call.x.reshape(len(call.x), math.prod(call.x.shape[1:]))


@formula("Reshape")
def reshape(call: Call) -> Variable:
    """y = the values of a sample in another shape."""
    return call.x.reshape(len(call.x), *call.options["shape"])


@formula("Permute")
def permute(call: Call) -> Variable:
    """y = x with its axes in another order."""
    return call.x.transpose(0, *call.options["axes"])


# Resolution


def repeated(n: int, factor: int) -> Array:
    """Return the matrix (n factor, n) that repeats every pixel."""
    return np.repeat(np.eye(n), factor, axis=0)


def interpolated(n: int, factor: int, align_corners: bool) -> Array:
    """Return the matrix (n factor, n) whose rows hold the two weights of each output."""
    o = np.arange(n * factor)
    if align_corners:
        position = o * (n - 1) / np.maximum(n * factor - 1, 1)
    else:
        position = np.maximum((o + 0.5) / factor - 0.5, 0.0)
    low = np.minimum(position.astype(int), n - 1)
    share = (position - low)[:, None]
    matrix: Array = (1 - share) * np.eye(n)[low] + share * np.eye(n)[np.minimum(low + 1, n - 1)]
    return matrix


@formula("Upsample")
def upsample(call: Call) -> Variable:
    """y = x times one matrix per spatial axis."""
    x, o = call.x, call.options
    for axis, factor in enumerate(per_axis(o["factor"], x.ndim - 2), start=1):
        n = x.shape[axis]
        linear = o["mode"] == "linear"
        matrix = interpolated(n, factor, o["align_corners"]) if linear else repeated(n, factor)
        order = [*(i for i in range(x.ndim) if i != axis), axis]
        x = (x.transpose(*order) @ matrix.T).transpose(*np.argsort(order))
    return x
