"""Weight gradient of a convolution: how the sum over all pixels is cut in jobs.

    dweight[t, c, k] = sum over n, o of x[n, o * stride + t * dilation - begin, c] * dy[n, o, k]
    dbias[k]         = sum over n, o of dy[n, o, k]

It is a matrix product: rows are pairs (t, c), columns are k, and the sum runs over pixels.  Columns
are padded to panels, each of which costs something; of a 1x1 kernel, whose two factors are alike,
rows and columns change places where that costs less (with 64 channels and 256 kernels, say), which
gives dweight transposed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import NamedTuple

from cycnn._check import Array
from cycnn.engine import Bound, Plan, empty, kernels
from cycnn.ops import blocking
from cycnn.ops.blocking import Axis, Blocks, Scratch
from cycnn.ops.partials import add_partials
from cycnn.ops.problem import Problem, forward_axes

# Pixels of a block: a panel of dy and what a tile reads of x fit the first-level cache.
BLOCK_PIXELS = 128
POINTWISE_PIXELS = 96  # where x is read where it is
# Channels of a block, at most: a block of x fits the second-level cache.
BLOCK_CHANNELS = (64, 128, 256)
IN_PLACE_CHANNELS = (48, *BLOCK_CHANNELS)  # of an x that is read where it is
# What parts of a job take, as measured, in cycles.
ROW = 1.1  # a row of a tile, for each pixel
MEET = 0.25  # added to it where x is in place and its pixels meet in the first-level cache
READ = 3.5  # a pixel of a panel of dy, in place
PACK = 4.0  # the same, packed
PACK_FAR = 28.0  # the same, where pixels are a page or more apart
ALONE = 8.0  # added where a job has one panel of several: lines of dy, not whole rows
HALF = 0.7  # a panel of one vector, of one of two
COPY = 0.9  # an element of the slab
UPDATE = 5.0  # a row of a panel of dweight, read and written once for each block of pixels
BLOCK = 500.0  # a block of pixels
JOB = 4000.0
ADD = 3.5  # a vector of a partial sum
TURN = 3.0  # an element of dweight, transposed
# Lines of one set that stay in the first-level cache.
WAYS = 8
WAYS_OF_X = 6  # of them, beside a panel of dy


class _Product(NamedTuple):
    """The sum over pixels as a matrix product: x gives the rows, dy the columns."""

    batch: int
    axes: Sequence[Axis]
    taps: tuple[int, ...]
    channels: int  # of one group, as filters
    filters: int
    groups: int
    pixels: int  # of a block, about
    copy: bool  # x goes through a slab
    swapped: bool  # x and dy have changed places


class _Cut(NamedTuple):
    """A cut of the sum in jobs."""

    product: _Product
    channel_block: int
    blocks: Blocks
    chunks: int
    panels: int  # of a job
    in_place: bool  # panels of dy are read where they are, not packed
    jobs: int
    cost: float


class _WeightSum(NamedTuple):
    """The weight gradient kernel, all but the arrays, and how many partial sums it makes."""

    sum: Bound
    chunks: int
    swapped: bool


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _sets(pitch: int, itemsize: int) -> int:
    """Return over how many sets of the first-level cache lines `pitch` elements apart spread.

    An address picks its set by its place in a page of 4 KB.
    """
    return min(64, 4096 // math.gcd(pitch * itemsize, 4096))


def _products(p: Problem, unit: SimpleNamespace) -> Iterator[_Product]:
    """Yield the matrix products that give the weight gradient.

    Of a 1x1 kernel there are two, and each may read x where it is, unless a tile would read beyond
    a row of it.
    """
    channels, filters = p.channels // p.groups, p.filters // p.groups
    batch, axes, sides = p.batch, forward_axes(p), [(channels, filters)]
    if p.pointwise:
        batch, axes = 1, blocking.pointwise_axes(p.batch * math.prod(p.out))
        sides += [(filters, channels)] * (p.groups == 1)
    for swapped, (rows, columns) in enumerate(sides):
        product = _Product(
            batch, axes, p.kernel, rows, columns, p.groups, BLOCK_PIXELS, True, bool(swapped)
        )
        yield product
        whole = rows % (unit.MR // 3) == 0 and p.groups == 1
        if whole and blocking.readable_in_place(batch, axes):
            yield product._replace(pixels=POINTWISE_PIXELS, copy=False)


def _cuts(m: _Product, unit: SimpleNamespace) -> Iterator[_Cut]:
    """Yield the cuts to choose from and their cost: the times on 1, 2, 4, 8 and 16 threads, added.

    Channels and panels can be cut freely, but each job copies its x and packs its dy; pixels can be
    cut in chunks, each with a partial sum of its own, at most PARTIAL_BYTES together.
    """
    panels = -(-m.filters // unit.NR)
    last = m.filters - (panels - 1) * unit.NR
    narrow = 1 - HALF if last <= unit.VL else 0.0  # what the last panel costs less
    size = math.prod(m.taps) * m.channels * m.filters * m.groups
    whole = math.lcm(unit.VL, unit.MR // 3)  # vectors of x, and tiles that read nothing beyond
    most = BLOCK_CHANNELS if m.copy else IN_PLACE_CHANNELS
    for channels in sorted({blocking.even_part(m.channels, n, whole) for n in most}):
        blocks = blocking.pixel_blocks(m.batch, m.axes, channels, unit, m.pixels)
        rows = m.taps[0] * m.taps[1] * _round_up(m.taps[2] * channels, unit.MR // 3)
        sets = _sets(m.filters * m.groups, unit.itemsize)
        in_place = WAYS * sets >= blocks.pixels
        read = READ if in_place else PACK if sets > 1 else PACK_FAR
        row = ROW
        if not m.copy:
            sets_of_x = _sets(m.axes[2].spacing * m.channels, unit.itemsize)
            row += MEET * max(0.0, 1 - WAYS_OF_X * sets_of_x / blocks.pixels)
        for split, chunks in itertools.product((1, 2, 4, 8, 16, 32), repeat=2):
            partial = chunks * size if chunks > 1 or m.swapped else 0
            if (
                split > panels
                or chunks > blocks.number
                or (chunks > 1 and partial * unit.itemsize > blocking.PARTIAL_BYTES)
            ):
                continue
            per_job = -(-panels // split)
            jobs = chunks * m.groups * -(-m.channels // channels) * -(-panels // per_job)
            alone = ALONE if per_job == 1 < panels else 0.0
            panel = blocks.pixels * (row * rows + read + alone) + UPDATE * rows
            block = panel * (per_job - narrow / split) + BLOCK
            if m.copy:
                block += COPY * blocks.slab
            job = -(-blocks.number // chunks) * block + JOB
            adding = ADD * partial / unit.VL + (TURN * size if m.swapped else 0)
            cost = sum(-(-jobs // n) * job + adding / n for n in (1, 2, 4, 8, 16))
            yield _Cut(m, channels, blocks, chunks, per_job, in_place, jobs, cost)


@lru_cache(maxsize=512)
def _weight_gradient(p: Problem) -> _WeightSum:
    unit = kernels(p.dtype)
    cuts = itertools.chain.from_iterable(_cuts(m, unit) for m in _products(p, unit))
    cut = min(cuts, key=lambda cut: cut.cost)
    m, blocks = cut.product, cut.blocks
    weights = p.taps * m.channels * m.filters * m.groups
    scratch = Scratch()
    scratch.take(8 * blocks.pixels)
    at_rows = scratch.take(8 * p.taps * (cut.channel_block + unit.MR))
    at_dy = scratch.take(((blocks.pixels + 1) * unit.NR + unit.MR) * unit.itemsize)
    at_spare = scratch.take((m.filters + unit.NR) * unit.itemsize)
    at_slab = scratch.take((blocks.slab + unit.MR) * unit.itemsize if m.copy else 0)
    slots = blocking.window_slots(m.batch, m.axes, blocks, m.channels * m.groups, m.copy)
    slots |= {
        "K": m.filters * m.groups, "groups": m.groups,
        "channel_block": cut.channel_block, "blocks": blocks.number, "chunks": cut.chunks,
        "panels": cut.panels, "in_place": cut.in_place, "swapped": m.swapped,
        "at_rows": at_rows, "at_dy": at_dy, "at_spare": at_spare, "at_slab": at_slab,
        "scratch": scratch.size, "work": p.work + 2.0 * unit.itemsize * weights,
    }  # fmt: skip
    return _WeightSum(unit.weight_gradient.bind(cut.jobs, **slots), cut.chunks, m.swapped)


def backward_weight(p: Problem, dy: Array, x: Array, dweight: Array, dbias: Array | None) -> None:
    """Write dweight and, if given, dbias."""
    s = _weight_gradient(p)
    plan = Plan()
    if s.chunks == 1 and not s.swapped:
        plan.append(s.sum, x=x, dy=dy, dweight=dweight, dbias=dbias)
    else:
        if s.swapped:
            x, dy = dy, x
        partial = empty((s.chunks, dweight.size), x.dtype)
        partial_bias = None if dbias is None else empty((s.chunks, dbias.size), x.dtype)
        plan.append(s.sum, x=x, dy=dy, dweight=partial, dbias=partial_bias)
        add_partials(plan, partial, dweight, transposed=s.swapped)
        if partial_bias is not None and dbias is not None:
            add_partials(plan, partial_bias, dbias)
    plan.run()
