"""Winograd convolution: which convolutions it fits, and how they are cut in jobs.

The kernels (kernels/winograd.pyx, kernels/winograd_gradient.pyx) work on tiles of 4 x 4 or 2 x 2
outputs, or of 4 outputs in a row.  Sizes follow from the shape, this processor's caches and the
threads; they change no bit of a result: products of one element are added channel after channel,
and in the weight gradient tile after tile, however tiles are grouped.
"""

from collections.abc import Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from cycnn._check import Array
from cycnn.engine import Bound, Plan, cache_sizes, empty, kernels
from cycnn.ops import blocking
from cycnn.ops.algorithm import tiles_fit
from cycnn.ops.blocking import Axis, Ints, Scratch
from cycnn.ops.partials import add_partials
from cycnn.ops.problem import Problem, forward_axes, input_gradient_axes
from cycnn.threads import get_num_threads

# A multiple of the rows of every build's register tile.
TILES = 12
# A block has at most so many tiles, and each thread at least so many blocks.
MAX_BLOCK, MIN_BLOCKS = 48, 3
# A stage, or a run of the weight gradient, has at least so many tiles: long enough for each weight
# that is loaded, for each accumulator that is loaded and stored.
MIN_RUN = 24
# Channels of the weights that one job transforms, as in kernels/winograd.pyx.
WEIGHT_CHANNELS = 16
# Transformed weights, four times as many, may take this much memory; beyond, each stage transforms
# them again.
WEIGHT_BYTES = 64 << 20
# Kernels whose weights one job transforms, and jobs that there should be.
FUSED_KERNELS, FUSED_JOBS = 64, 16


def fits(p: Problem, direction: str, outputs: int) -> bool:
    """Whether they compute one direction of it: an input gradient in one phase, of zeros."""
    return tiles_fit(outputs, p.kernel, p.stride, p.dilation, p.groups) and (
        direction != "input"
        or (set(p.stride) == {1} and (p.mode == "zeros" or not any(map(any, p.padding))))
    )


# Tiles and memory
# --------------------------------------------------------------------------------


def odd_lines(elements: int, unit: SimpleNamespace) -> int:
    """Round up to an odd number of cache lines."""
    line = 64 // int(unit.itemsize)
    return (-(-elements // line) | 1) * line


class Tiling(NamedTuple):
    """The tiles of a convolution and the slots of kernels/winograd_tiles.pxd that say so."""

    slots: dict[str, Any]
    number: int
    elements: int
    inputs: int  # of one element of a tile
    pitch: int


def tiling(
    batch: int, axes: Sequence[Axis], channels: int, filters: int, outputs: int,
    dtype: Any,
) -> Tiling:  # fmt: skip
    """Lay tiles over the outputs of a convolution."""
    unit = kernels(dtype)
    d, h, w = axes
    flat = len(h.taps) == 1
    down = 1 if flat else outputs
    rows, columns = -(-h.out // down), -(-w.out // outputs)

    def beyond(source: Ints, length: int) -> Ints:
        return np.concatenate([source, np.full(length - len(source), -1, np.int64)])

    source_h = h.table[:, 0] if flat else beyond(h.source, rows * down + 2)
    source_w = beyond(w.source, columns * outputs + 2)
    inputs = len(d.taps) * channels
    slots: dict[str, Any] = {
        "source": np.concatenate([d.source, source_h, source_w]),
        "offset": np.array(d.offset, np.int64),
        "zeros": np.zeros(max(channels, filters), dtype),
        "D": d.size, "H": h.size, "W": w.size, "C": channels,
        "OD": d.out, "OH": h.out, "OW": w.out, "SD": d.step, "TD": len(d.taps),
        "LD": len(d.source), "LH": len(source_h), "rows": rows, "columns": columns,
        "EH": 1 if flat else outputs + 2, "EW": outputs + 2,
    }  # fmt: skip
    return Tiling(
        slots, batch * d.out * rows * columns, slots["EH"] * slots["EW"], inputs,
        odd_lines(inputs + max(unit.VL, unit.MR), unit),
    )  # fmt: skip


def runs(total: int, most: int) -> list[tuple[int, int]]:
    """Cut `total` tiles in equal (first, count) runs of about `most`, multiples of TILES."""
    parts = -(-total // most)
    size = -(-total // (parts * TILES)) * TILES
    return [(first, min(size, total - first)) for first in range(0, total, size)]


def tiles_in(memory: int, tile_bytes: int) -> int:
    """Return how many tiles of `tile_bytes` (all elements together) about `memory` bytes hold."""
    return max(TILES, memory // tile_bytes // TILES * TILES)


# The sum over taps and channels: forward, input gradient
# --------------------------------------------------------------------------------


class Sum(NamedTuple):
    """A convolution sum, all but the arrays."""

    steps: tuple[Bound, ...]
    u_size: int = 0  # of the memory that steps share
    v_size: int = 0
    m_size: int = 0


class _Cut:
    """A convolution sum while it is cut in steps: the slots that they all have."""

    def __init__(
        self, batch: int, axes: Sequence[Axis], channels: int, filters: int, tap: Sequence[int],
        strides: dict[str, int], outputs: int, dtype: Any,
    ) -> None:  # fmt: skip
        self.unit = unit = kernels(dtype)
        self.tiling = t = tiling(batch, axes, channels, filters, outputs, dtype)
        self.channels, self.filters = channels, filters
        self.panels = -(-filters // unit.NR)
        self.m_pitch = odd_lines(self.panels * unit.NR, unit)
        self.tile_bytes = t.elements * (t.pitch + self.m_pitch) * unit.itemsize
        self.u_element = odd_lines(t.inputs * self.panels * unit.NR, unit)
        self.u_size = t.elements * self.u_element
        self.gathered = 9 * WEIGHT_CHANNELS * unit.NR * unit.itemsize  # weights, before a transform
        self.slots = t.slots | strides | {
            "tap": np.array(tap, np.int64), "pitch": t.pitch, "K": filters, "panels": self.panels,
            "m_pitch": self.m_pitch, "u_element": self.u_element, "channel_block": 0,
            "first": 0, "count": t.number, "at_gathered": 0, "at_u": 0, "at_v": 0, "at_m": 0,
        }  # fmt: skip

    def lay_out(self, tiles: int) -> None:
        """Make room for `tiles` tiles at a time in V, M and the lists of their rows."""
        unit, elements = self.unit, self.tiling.elements
        rows = -(-tiles // TILES) * TILES
        element, m_element = odd_lines(rows * self.tiling.pitch, unit), rows * self.m_pitch
        m_element = odd_lines(m_element, unit)
        self.v_size, self.m_size = elements * element, elements * m_element
        self.scratch = Scratch()
        self.scratch.take(8 * rows)
        self.slots |= {
            "block": tiles, "element": element, "m_element": m_element,
            "at_y": self.scratch.take(8 * rows),
            "at_spare": self.scratch.take(self.m_pitch * unit.itemsize),
        }  # fmt: skip

    def bind(self, name: str, jobs: int, work: float, scratch: int = 0, **slots: Any) -> Bound:
        """Return `jobs` jobs of a kernel; `scratch` bytes more than the lists of rows take."""
        bound: Bound = getattr(self.unit, name).bind(
            jobs, **(self.slots | slots), scratch=self.scratch.size + scratch, work=work
        )
        return bound

    def weights(self) -> Bound:
        """Return the step that transforms all weights."""
        parts = self.tiling.slots["TD"] * -(-self.channels // WEIGHT_CHANNELS)
        return self.bind(
            "winograd_weight", self.panels * parts, 2.0 * self.u_size, self.gathered
        )  # fmt: skip

    def in_blocks(self, tiles: int) -> Sum:
        """Return a sum in which each job takes `tiles` tiles through all steps."""
        self.lay_out(tiles)
        number, itemsize = self.tiling.number, self.unit.itemsize
        at_v, v_bytes = self.scratch.size, -(-self.v_size * itemsize // 64) * 64
        block = self.bind(
            "winograd", -(-number // tiles), self.products(number),
            v_bytes + self.m_size * itemsize, at_v=at_v, at_m=at_v + v_bytes,
        )  # fmt: skip
        return Sum((self.weights(), block), self.u_size)

    def products(self, tiles: int) -> float:
        """Return the operations of the products of some tiles."""
        return 2.0 * tiles * self.tiling.elements * self.tiling.inputs * self.filters

    def in_stages(self, spans: Sequence[tuple[int, int]]) -> Sum:
        """Return a sum that takes all tiles, or one span after another, step by step."""
        t = self.tiling
        self.lay_out(spans[0][1])
        once = len(spans) == 1 or self.u_size * self.unit.itemsize > WEIGHT_BYTES
        steps = [] if once else [self.weights()]
        for first, count in spans:
            part = max(1, count // blocking.MIN_JOBS)
            self.slots |= {"first": first, "count": count, "block": part}
            jobs, moved = -(-count // part), 2.0 * count * t.elements
            steps += [
                self.bind("winograd_input", jobs, moved * t.inputs),
                self.fused(count) if once else self.multiply(count),
                self.bind("winograd_output", jobs, moved * self.filters),
            ]
        return Sum(tuple(steps), 0 if once else self.u_size, self.v_size, self.m_size)

    def multiply(self, count: int) -> Bound:
        """Return the step that multiplies `count` tiles by weights that are transformed."""
        elements = self.tiling.elements
        splits = min(self.panels, -(-2 * blocking.MIN_JOBS // elements))
        part = -(-self.panels // splits)
        jobs = elements * -(-self.panels // part)
        return self.bind("winograd_multiply", jobs, self.products(count), panels=part)

    def fused(self, count: int) -> Bound:
        """Return the step that transforms the weights of some panels and multiplies by them."""
        unit, elements = self.unit, self.tiling.elements
        panels = max(1, min(FUSED_KERNELS // unit.NR, self.panels // FUSED_JOBS))
        most = cache_sizes().l2 // (elements * panels * unit.NR * unit.itemsize)
        part = blocking.even_part(self.channels, max(most, WEIGHT_CHANNELS), WEIGHT_CHANNELS)
        element = odd_lines(part * panels * unit.NR, unit)
        own = -(-elements * element * unit.itemsize // 64) * 64
        return self.bind(
            "winograd_panels", -(-self.panels // panels), self.products(count), own + self.gathered,
            panels=panels, u_element=element, channel_block=part, at_u=self.scratch.size,
            at_gathered=self.scratch.size + own,
        )  # fmt: skip


def _sum(
    batch: int, axes: Sequence[Axis], channels: int, filters: int, tap: Sequence[int],
    strides: dict[str, int], outputs: int, dtype: Any, threads: int,
) -> Sum:  # fmt: skip
    """Cut one convolution sum, over `channels` inputs to `filters` outputs, in jobs.

    Blocks keep tiles in a core's own cache, and each reads all weights from the cache that cores
    share. Stages move all tiles through that cache; a single one reads each weight once.
    """
    cut = _Cut(batch, axes, channels, filters, tap, strides, outputs, dtype)
    tiles, (_, l2, l3) = cut.tiling.number, cache_sizes()
    spans = runs(tiles, max(MIN_RUN, tiles_in(l3 // 2, cut.tile_bytes)))
    most = tiles // (MIN_BLOCKS * threads) // TILES * TILES
    if most and cut.u_size * cut.unit.itemsize <= l3 // (6 if len(spans) == 1 else 3):
        most = min(most, MAX_BLOCK, tiles_in(l2 // 4, cut.tile_bytes))
        return cut.in_blocks(runs(tiles, most)[0][1])
    return cut.in_stages(spans)


def run_sum(s: Sum, x: Array, weight: Array, bias: Array | None, y: Array, flags: int) -> None:
    """Compute y, with tile.pxd's `flags`."""
    arrays: dict[str, Any] = {"x": x, "w": weight, "bias": bias, "y": y, "flags": flags}
    sizes = {"u": s.u_size, "v": s.v_size, "m": s.m_size}
    arrays |= {name: empty((size,), x.dtype) if size else None for name, size in sizes.items()}
    plan = Plan()
    for step in s.steps:
        plan.append(step, **arrays)
    plan.run()


@lru_cache(maxsize=512)
def forward(p: Problem, outputs: int, threads: int) -> Sum:
    """Return y as a sum over x."""
    strides = {"ST": p.channels * p.filters, "SC": p.filters, "SK": 1}
    return _sum(
        p.batch, forward_axes(p), p.channels, p.filters, range(p.taps), strides, outputs, p.dtype,
        threads,
    )  # fmt: skip


@lru_cache(maxsize=512)
def input_gradient(p: Problem, outputs: int, threads: int) -> Sum:
    """Return dx as a sum over dy: a stride of 1 has one phase."""
    strides = {"ST": p.channels * p.filters, "SC": 1, "SK": p.filters}
    ((axes, tap),) = input_gradient_axes(p)
    return _sum(
        p.batch, axes, p.filters, p.channels, tap, strides, outputs, p.dtype, threads
    )  # fmt: skip


# Weight gradient
# --------------------------------------------------------------------------------


# A job takes at most so many tiles at a time.
MAX_RUN = 96
# A job sums at most so many channels, in an accumulator of about so many bytes.
GRADIENT_CHANNELS, ACCUMULATOR_BYTES = 128, 5 << 20
# Jobs that there should be, tiles of the least chunk, and bytes of all partial sums.  To transform
# an accumulator back takes about as long as the products of ten tiles.
GRADIENT_JOBS, GRADIENT_TILES, GRADIENT_BYTES = 16, 256, 8 << 20
# To transform a vector of channels of a tile takes about as long as its products with one panel of
# kernels, to transform a panel as long as its products with two vectors.
PER_VECTOR, PER_PANEL = 1.0, 2.0


class WeightGradient(NamedTuple):
    """A weight gradient, all but the arrays, and how many partial sums it makes."""

    sum: Bound
    chunks: int


def _parts(total: int, most: int) -> list[int]:
    """Return the sizes, up to `most`, that the largest of some equal parts can have."""
    return sorted({-(-total // parts) for parts in range(-(-total // most), total + 1)})


def _share(vectors: int, panels: int, most: int, beside: int, threads: int) -> tuple[int, int]:
    """Return how many vectors of channels, at most `most`, and panels of kernels a job takes.

    These are the shares with which threads are done first, each of them being `beside` jobs.
    """

    def time(share: tuple[int, int]) -> tuple[float, int]:
        v, p = share
        jobs = -(-vectors // v) * -(-panels // p) * beside
        return -(-jobs // threads) * (PER_VECTOR * v + PER_PANEL * p + v * p), jobs

    return min(((v, p) for v in _parts(vectors, most) for p in _parts(panels, panels)), key=time)


@lru_cache(maxsize=512)
def _weight_gradient(p: Problem, outputs: int, threads: int) -> WeightGradient:
    """Return dweight and dbias as sums over all tiles, in jobs for so many threads."""
    unit = kernels(p.dtype)
    t = tiling(p.batch, forward_axes(p), p.channels, p.filters, outputs, p.dtype)
    depth, vectors, panels = t.slots["TD"], -(-p.channels // unit.VL), -(-p.filters // unit.NR)
    most = ACCUMULATOR_BYTES // (t.elements * panels * unit.NR * unit.itemsize)
    most = max(1, min(GRADIENT_CHANNELS, most) // unit.VL)
    # Chunks decide in which order tiles are added up, whatever the threads; shares do not.
    jobs = depth * -(-vectors // most)
    size = p.taps * p.channels * p.filters * unit.itemsize
    wanted = min(GRADIENT_JOBS // jobs, t.number // GRADIENT_TILES, GRADIENT_BYTES // size)
    chunks = 1 << max(0, wanted.bit_length() - 1)  # a power of two: equal shares for two threads
    share, part = _share(vectors, panels, most, chunks * depth, threads)
    jobs, channels = chunks * depth * -(-vectors // share) * -(-panels // part), share * unit.VL
    pitch = odd_lines(channels + max(unit.VL, unit.MR), unit)
    tile_bytes = t.elements * (pitch + unit.NR) * unit.itemsize
    block = tiles_in(cache_sizes().l2 * 3 // 4, tile_bytes)
    block = min(max(block, MIN_RUN), MAX_RUN, -(-t.number // chunks))
    element, g_element = odd_lines(block * pitch, unit), odd_lines(block * unit.NR, unit)
    rows = -(-channels // unit.MR) * unit.MR
    sum_element = odd_lines(rows * unit.NR, unit)
    sum_panel = t.elements * sum_element
    scratch = Scratch()
    scratch.take(8 * block)
    slots = t.slots | {
        "pitch": pitch, "element": element, "K": p.filters, "number": t.number, "chunks": chunks,
        "block": block, "channel_block": channels, "panels": part, "g_element": g_element,
        "sum_element": sum_element, "sum_panel": sum_panel,
        "at_dy": scratch.take(8 * 16 * block),
        "at_v": scratch.take((t.elements * element + unit.MR) * unit.itemsize),
        "at_g": scratch.take(t.elements * g_element * unit.itemsize),
        "at_accumulator": scratch.take(part * sum_panel * unit.itemsize),
    }  # fmt: skip
    bound = unit.winograd_gradient.bind(
        jobs, **slots, scratch=scratch.size,
        work=2.0 * t.number * t.elements * t.inputs * p.filters,
    )  # fmt: skip
    return WeightGradient(bound, chunks)


def backward_weight(
    p: Problem, outputs: int, dy: Array, x: Array, dweight: Array, dbias: Array | None
) -> None:
    """Write dweight and, if given, dbias."""
    s = _weight_gradient(p, outputs, get_num_threads())
    plan = Plan()
    if s.chunks == 1:
        plan.append(s.sum, x=x, dy=dy, dweight=dweight, dbias=dbias)
    else:
        partial = empty((s.chunks, dweight.size), x.dtype)
        partial_bias = None if dbias is None else empty((s.chunks, dbias.size), x.dtype)
        plan.append(s.sum, x=x, dy=dy, dweight=partial, dbias=partial_bias)
        add_partials(plan, partial, dweight)
        if partial_bias is not None and dbias is not None:
            add_partials(plan, partial_bias, dbias)
    plan.run()
