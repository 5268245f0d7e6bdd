"""Which algorithm computes a convolution: the one that a model of their costs finds cheapest.

A choice follows from the shape of the layer and the number of rows that the plan was made for:
never from threads, nor, in prediction, from how many rows came.
"""

from __future__ import annotations

import math
from functools import lru_cache
from types import SimpleNamespace

import numpy as np

from cycnn.engine import kernels
from cycnn.ops import blocking
from cycnn.ops.algorithm import DEFAULT, OUTPUTS, ROWS, check_algorithm
from cycnn.ops.problem import Problem, forward_axes, input_gradient_axes
from cycnn.ops.winograd import fits, tiling


def choose(p: Problem, direction: str, algorithm: str) -> str:
    """Return the algorithm for one direction ("forward", "input" or "weight") of a convolution.

    One asked for by name that does not compute this direction (an input gradient with a stride in
    depth) gives way to "direct".

    Raises
    ------
    ValueError
        If `algorithm` is unknown, or an algorithm that does not compute `p`.
    """
    if algorithm != "auto":
        check_algorithm(algorithm, p.kernel, p.stride, p.dilation, p.groups, "conv")
    elif DEFAULT == "auto":
        rows = ROWS.get()
        return _cheapest(p if rows is None else p._replace(batch=rows), direction)
    name = DEFAULT if algorithm == "auto" else algorithm
    return name if name in OUTPUTS and fits(p, direction, OUTPUTS[name]) else "direct"


@lru_cache(maxsize=2048)
def _cheapest(p: Problem, direction: str) -> str:
    names = [name for name in OUTPUTS if fits(p, direction, OUTPUTS[name])]
    if not names:
        return "direct"
    costs = {name: winograd_cost(p, direction, OUTPUTS[name]) for name in names}
    costs["direct"] = direct_cost(p, direction)
    return min(costs, key=costs.__getitem__)


# What they cost, in cycles of one core
#
# Each cost is a sum of counts times cycles.  The cycles were fitted to measured times of every
# 3 x 3 layer of the benchmark networks at training's batch and at batch 1, in two instruction
# sets.  Only their order matters: `benchmarks/compare.py conv --auto` holds it to measurements.
# --------------------------------------------------------------------------------


# Weights of more bytes come from far away: no second-level cache holds them.
NEAR_BYTES = 1 << 20


def _product(
    rows: float, inputs: float, columns: int, unit: SimpleNamespace
) -> tuple[float, float]:
    """Return the multiply-adds and the stores of a matrix product, in vectors, rows filled up."""
    third = unit.MR // 3
    stores = float(math.ceil(rows / third) * third * -(-columns // unit.VL))
    return stores * inputs, stores


def _share_inside(p: Problem) -> float:
    """Return the share of taps that read a pixel rather than a zero of the border."""
    if p.mode != "zeros":
        return 1.0
    return math.prod(float(np.mean(axis.table >= 0)) for axis in forward_axes(p))


def _share_of_classes(p: Problem, inputs: int, columns: int, unit: SimpleNamespace) -> float:
    """Return the share of products that remain where those by zeros of the border are left out."""
    axes, block = forward_axes(p), blocking.channel_block(inputs, p.taps, unit)
    blocks = blocking.tile_blocks(max(p.batch, 1), axes, block, columns, unit, copy=True)
    classes = blocking.worthwhile_classes(axes, blocks, block, unit)
    return classes.cost / (p.taps * blocks.pixels) if classes else 1.0


@lru_cache(maxsize=2048)
def folds(p: Problem) -> bool:
    """Whether the direct input gradient is a product with a column for each tap, folded."""
    return p.groups == 1 and p.taps > 1 and _folded_cost(p) < _sum_cost(p, "input")


def direct_cost(p: Problem, direction: str) -> float:
    """Return about how many cycles of one core the direct kernels take."""
    cost = _sum_cost(p, direction)
    return min(cost, _folded_cost(p)) if direction == "input" else cost


def _folded_cost(p: Problem) -> float:
    unit, columns = kernels(p.dtype), p.taps * p.channels
    pixels = p.batch * math.prod(p.out)
    products = float(p.filters * -(-columns // unit.VL))
    return pixels * (0.52 * products + 2.2 * columns) + 1.9 * columns * p.filters


def _sum_cost(p: Problem, direction: str) -> float:
    unit = kernels(p.dtype)
    pixels = p.batch * math.prod(p.out)
    if direction == "weight":
        products, stores = _product(p.taps * p.channels, pixels, p.filters, unit)
        return 0.55 * products + 2.9 * stores + 4.7 * pixels * p.filters / float(unit.VL)
    backward = direction == "input"
    inputs, columns = (p.filters, p.channels) if backward else (p.channels, p.filters)
    products, stores = _product(pixels, p.taps * inputs, columns, unit)
    inside = _share_inside(p)
    weights = p.taps * p.channels * p.filters
    if pixels <= unit.FEW and not backward:  # read where they lie
        longer = 0.5 + float(unit.VL * unit.itemsize) / 64  # than a vector of 32 bytes takes
        return longer * (2.0 + 1.05 * pixels * inside) * weights / float(unit.VL)
    if inside < blocking.CLASSES_WORTH:
        products *= _share_of_classes(p, inputs, columns, unit)
    packing = 11.2 if pixels > blocking.BLOCK_PIXELS else 6.0  # by the jobs that read them
    return 0.52 * products + 4.4 * stores + weights * (1.9 if backward else packing / unit.VL)


def winograd_cost(p: Problem, direction: str, outputs: int) -> float:
    """Return about how many cycles of one core Winograd's algorithm takes."""
    unit = kernels(p.dtype)
    axes, channels, filters = forward_axes(p), p.channels, p.filters
    if direction == "input":
        ((axes, _),) = input_gradient_axes(p)
        channels, filters = filters, channels
    t = tiling(p.batch, axes, channels, filters, outputs, p.dtype)
    tile_inputs = t.number * t.elements * -(-t.inputs // unit.VL)
    tile_outputs = t.number * t.elements * -(-filters // unit.VL)
    if direction == "weight":
        products, stores = _product(t.inputs, t.number, filters, unit)
        transforms: float = 14.7 * tile_inputs + 6.0 * tile_outputs
        return t.elements * (0.56 * products + 4.3 * stores) + transforms
    products, stores = _product(t.number, t.inputs, filters, unit)
    weights = 3.5 * t.elements * t.inputs * -(-filters // unit.VL)
    if p.taps * channels * filters * unit.itemsize > NEAR_BYTES:
        weights += 4.0 * p.taps * channels * -(-filters // unit.VL)
    if direction == "input":  # transposed one by one
        weights += 0.75 * p.taps * p.channels * p.filters
    transforms = 7.2 * tile_inputs + weights
    return t.elements * (0.59 * products + 5.8 * stores) + transforms
