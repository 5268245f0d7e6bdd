"""Weight gradient of a convolution: how the sum over all pixels is cut in jobs.

    dweight[t, c, k] = sum over n, o of x[n, o * stride + t * dilation - begin, c] * dy[n, o, k]
    dbias[k]         = sum over n, o of dy[n, o, k]

It is a matrix product: rows are pairs (t, c), columns are k, and the sum runs over pixels.  Columns
are padded to panels, each of which costs something; of a 1x1 kernel, whose two factors are alike,
rows and columns change places where that costs less (with 64 channels and 256 kernels, say), which
gives dweight transposed.

The blocks of pixels and the chunks decide in which order products are added: they follow from the
shape and the size of the first-level cache, never from threads.  How many rows and columns a job
takes does not decide it, so it follows from the number of threads too: each job copies its x and
packs its dy, and a single thread had better do so once.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cycnn._check import Array
from cycnn.engine import Bound, Plan, cache_sizes, empty, kernels
from cycnn.ops import blocking
from cycnn.ops.blocking import Axis, Blocks, Scratch
from cycnn.ops.partials import add_partials
from cycnn.ops.problem import Problem, forward_axes
from cycnn.threads import get_num_threads

# Pixels of a block: a panel of dy and what a tile reads of x fit the first-level cache.
BLOCK_PIXELS = 128
POINTWISE_PIXELS = 96  # where x is read where it is
LANE_BYTES = 19 << 10  # of a panel and a lane: part of 32 KB, the least of first-level caches
# Channels of a block, at most: a block of x fits the second-level cache.
BLOCK_CHANNELS = (64, 96, 128, 192, 256)
IN_PLACE_CHANNELS = (48, *BLOCK_CHANNELS)  # of an x that is read where it is
SPLITS = (1, 2, 4, 8, 16, 32)  # of columns, and of pixels in chunks
THREADS = np.array([1, 2, 4, 8])  # for which an order is good


class _RowCost(NamedTuple):
    """What a row of a tile takes for each pixel, in cycles, by where x is."""

    lanes: float
    slab: float
    in_place: float


# What parts of a job take, as measured, in cycles.
ROW = _RowCost(lanes=1.09, slab=1.11, in_place=1.1)
ROW_IN_48K = ROW._replace(slab=1.06, in_place=0.97)  # twelve ways hold more pixels that meet
MEET = 0.13  # added to a row in place, if all its pixels meet in the first-level cache
PANEL = 7.6  # a pixel of a panel of dy
PANEL_BESIDE_X = 4.0  # the same where x is in place, and blocks are smaller
FAR = 3.5  # added where pixels are a page or more apart, and the panel is packed
ALONE = 3.5  # added where a job has one panel of several: lines of dy, not whole rows
HALF = 0.83  # a panel of one vector, of one of two
COPY_TO_LANES = 0.52  # an element of the slab
COPY = 0.28
UPDATE = 2.0  # a row of a panel of dweight, read and written once for each block of pixels
BLOCK = 1500.0  # a block of pixels
JOB = 1100.0
LATE = 0.03  # of a job, by which the last thread is late
ADD = 7.0  # a vector of a partial sum
ADDING = 5000.0  # another step of the plan
TURN = 1.75  # an element of dweight, transposed
# Lines of one set that stay in the first-level cache, which has eight at least.
WAYS_OF_DY = 4  # beside x, the sums and what is fetched ahead
WAYS_OF_X = 2


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
    lanes: bool  # which is in lanes of MR channels
    swapped: bool  # x and dy have changed places


class _Order(NamedTuple):
    """The order in which products are added, and how jobs may be cut without changing it."""

    product: _Product
    blocks: Blocks
    chunks: int
    channel_blocks: list[int]  # of which a job has one


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
    a row of it.  Lanes are for windows side by side: others would read a part of each line of them.
    """
    lane = LANE_BYTES // ((unit.NR + unit.MR) * unit.itemsize)
    channels, filters = p.channels // p.groups, p.filters // p.groups
    batch, axes, sides = p.batch, forward_axes(p), [(channels, filters)]
    if p.pointwise:
        batch, axes = 1, blocking.pointwise_axes(p.batch * math.prod(p.out))
        sides += [(filters, channels)] * (p.groups == 1)
    for swapped, (rows, columns) in enumerate(sides):
        product = _Product(
            batch, axes, p.kernel, rows, columns, p.groups, BLOCK_PIXELS,
            copy=True, lanes=False, swapped=bool(swapped),
        )  # fmt: skip
        yield product
        if all(axis.step == 1 for axis in axes):
            yield product._replace(pixels=lane, lanes=True)
        whole = rows % (unit.MR // 3) == 0 and p.groups == 1
        if whole and blocking.readable_in_place(batch, axes):
            yield product._replace(pixels=POINTWISE_PIXELS, copy=False)


def _in_place(m: _Product, pixels: int, unit: SimpleNamespace) -> bool:
    """Whether the lines of a panel of dy stay in the first-level cache where they are."""
    return WAYS_OF_DY * _sets(m.filters * m.groups, unit.itemsize) >= pixels


def _times(
    order: _Order, chunks: Sequence[int], threads: npt.NDArray[np.int64], unit: SimpleNamespace
) -> npt.NDArray[np.float64]:
    """Return the time by (chunks, channel blocks, splits of the columns, threads), in cycles."""
    m, blocks = order.product, order.blocks
    panels = -(-m.filters // unit.NR)
    parts = np.array(chunks)[:, None, None, None]
    channels = np.array(order.channel_blocks)[:, None, None]
    split = np.array([s for s in SPLITS if s <= panels])[:, None]
    per_job = -(-panels // split)
    jobs = parts * m.groups * -(-m.channels // channels) * -(-panels // per_job)

    third = unit.MR // 3
    merged = 1 if m.lanes else m.taps[2]
    rows = math.prod(m.taps) // merged * (-(-merged * channels // third) * third)
    row = ROW_IN_48K if cache_sizes().l1 >= 48 << 10 else ROW
    if m.copy:
        pixel = rows * (row.lanes if m.lanes else row.slab) + PANEL
    else:
        sets = _sets(m.axes[2].spacing * m.channels, unit.itemsize)
        meet = MEET * max(0.0, 1 - WAYS_OF_X * sets / blocks.pixels)
        pixel = rows * (row.in_place + meet) + PANEL_BESIDE_X
    if _sets(m.filters * m.groups, unit.itemsize) == 1:
        pixel = pixel + FAR
    pixel = pixel + ALONE * ((per_job == 1) & (panels > 1))
    last = m.filters - (panels - 1) * unit.NR
    narrow = 1 - HALF if last <= unit.VL else 0.0  # what the last panel costs less
    block = (blocks.pixels * pixel + UPDATE * rows) * (per_job - narrow / split) + BLOCK
    if m.copy:
        copy = COPY_TO_LANES if m.lanes else COPY
        block = block + copy * blocks.slab * channels / max(order.channel_blocks)
    job = blocks.number / parts * block + JOB
    longest = -(-blocks.number // parts) * block + JOB
    size = math.prod(m.taps) * m.channels * m.filters * m.groups
    adding = ADD * size / unit.VL * parts / threads + ADDING
    times: npt.NDArray[np.float64] = (
        (-(-jobs // threads) - 1) * job + longest + LATE * job * (threads > 1)
        + np.where((parts > 1) | m.swapped, adding, 0) + TURN * size * m.swapped / threads
    )  # fmt: skip
    return times


def _orders(m: _Product, unit: SimpleNamespace) -> Iterator[tuple[float, _Order]]:
    """Yield orders to choose from and their cost: the times on 1, 2, 4 and 8 threads, added.

    Pixels can be cut in chunks, each with a partial sum of its own, at most PARTIAL_BYTES together.
    A block of channels in lanes can be cut further: a row is added up alike in each tile of MR.
    """
    # Whole lanes, or vectors of x and tiles that read nothing beyond.
    whole = unit.MR if m.lanes else math.lcm(unit.VL, unit.MR // 3)
    size = math.prod(m.taps) * m.channels * m.filters * m.groups * unit.itemsize
    most = BLOCK_CHANNELS if m.copy else IN_PLACE_CHANNELS
    choices = sorted({blocking.even_part(m.channels, n, whole) for n in most})
    for i, channels in enumerate(choices):
        blocks = blocking.pixel_blocks(m.batch, m.axes, channels, unit, m.pixels, m.lanes)
        order = _Order(m, blocks, 1, choices[: i + 1] if m.lanes else [channels])
        chunks = [1] + [
            n for n in SPLITS[1:] if n <= blocks.number and n * size <= blocking.PARTIAL_BYTES
        ]
        costs = _times(order, chunks, THREADS, unit).min(axis=(1, 2)).sum(axis=1)
        best = int(np.argmax(costs <= 1.01 * costs.min()))  # the fewest: they cost one thread most
        yield float(costs[best]), order._replace(chunks=chunks[best])


@lru_cache(maxsize=512)
def _best_order(p: Problem) -> _Order:
    """Return the order that costs least, of all products and blocks."""
    unit = kernels(p.dtype)
    orders = [pair for m in _products(p, unit) for pair in _orders(m, unit)]
    return min(orders, key=lambda pair: pair[0])[1]


def _best_cut(order: _Order, threads: int, unit: SimpleNamespace) -> tuple[int, int]:
    """Return the channels of a job, and in how many parts the columns are cut."""
    times = _times(order, [order.chunks], np.array([threads]), unit)[0, :, :, 0]
    i, j = np.unravel_index(times.argmin(), times.shape)
    return order.channel_blocks[i], SPLITS[j]


@lru_cache(maxsize=512)
def _weight_gradient(p: Problem, threads: int) -> _WeightSum:
    """Return the kernel, in jobs for so many threads."""
    unit, order = kernels(p.dtype), _best_order(p)
    channel_block, split = _best_cut(order, threads, unit)
    m, blocks = order.product, order.blocks
    all_panels = -(-m.filters // unit.NR)
    panels = -(-all_panels // split)
    jobs = order.chunks * m.groups * -(-m.channels // channel_block) * -(-all_panels // panels)
    weights = p.taps * m.channels * m.filters * m.groups
    scratch = Scratch()
    scratch.take(8 * blocks.pixels)
    at_taps = scratch.take(8 * p.taps)
    at_rows = scratch.take(8 * p.taps * (channel_block + unit.MR))
    at_dy = scratch.take(blocks.pixels * unit.NR * unit.itemsize)
    at_spare = scratch.take((m.filters + unit.NR) * unit.itemsize)
    at_slab = scratch.take((blocks.slab + unit.MR) * unit.itemsize if m.copy else 0)
    # Rows whose sums wait for the next block, if there is one.
    rows = p.taps * _round_up(channel_block, unit.MR) if blocks.number > order.chunks else 0
    at_sums = scratch.take(rows * panels * unit.NR * unit.itemsize)
    slots = blocking.window_slots(m.batch, m.axes, blocks, m.channels * m.groups, m.copy)
    slots |= {
        "K": m.filters * m.groups, "groups": m.groups,
        "channel_block": channel_block, "blocks": blocks.number, "chunks": order.chunks,
        "panels": panels, "in_place": _in_place(m, blocks.pixels, unit), "swapped": m.swapped,
        "lanes": m.lanes,
        "at_taps": at_taps, "at_rows": at_rows, "at_dy": at_dy, "at_spare": at_spare,
        "at_slab": at_slab, "at_sums": at_sums,
        "scratch": scratch.size, "work": p.work + 2.0 * unit.itemsize * weights,
    }  # fmt: skip
    return _WeightSum(unit.weight_gradient.bind(jobs, **slots), order.chunks, m.swapped)


def backward_weight(p: Problem, dy: Array, x: Array, dweight: Array, dbias: Array | None) -> None:
    """Write dweight and, if given, dbias."""
    s = _weight_gradient(p, get_num_threads())
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
