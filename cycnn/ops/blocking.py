"""How a convolution is cut in jobs: axis tables, pixel blocks, channel blocks, pixel classes.

Everything here follows from shapes alone (never from the number of threads), so the order in which
products are added does too.  Tables are built once per shape and kept.
"""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cycnn.ops.window import tap_map

Ints = npt.NDArray[np.int64]

_NO_TABLE: Ints = np.empty(0, np.int64)

# Rows (taps times channels) of a packed panel of weights: it streams from the second-level cache
# once per tile, beside a slab and the outputs of its block.
PANEL_ROWS = 1152
SLAB_BYTES = 256 << 10
BLOCK_PIXELS = 1024
# Products by zeros of the border are left out where so large a part remains at most.
CLASSES_WORTH = 0.9
# All pixels make one block where x, times pixels per kernel, takes at most this.
WHOLE_BYTES = 1 << 20
# Enough jobs to share out evenly among many cores.
MIN_JOBS = 32
# The partial sums of a weight gradient may take this much, all chunks together.
PARTIAL_BYTES = 4 << 20


class Scratch:
    """Offsets of the areas of a job's scratch memory, each on a cache line of its own."""

    def __init__(self) -> None:
        self.size = 0

    def take(self, size: int) -> int:
        """Return the offset of a new area of `size` bytes."""
        at = self.size
        self.size += -(-size // 64) * 64
        return at


class Axis(NamedTuple):
    """One axis of a sliding window: output o, tap t reads input ``source[o * step + offset[t]]``.

    `taps` names the taps of the kernel in the order of `offset`; a source of -1 is a zero, and no
    source at all means that each position reads itself.  `start` and `stride` place output o at
    ``start + o * stride`` in the result.
    """

    size: int
    out: int
    step: int
    taps: tuple[int, ...]
    offset: tuple[int, ...]
    source: Ints
    start: int = 0
    stride: int = 1

    @property
    def length(self) -> int:
        """Positions of the axis with its border."""
        return (self.out - 1) * self.step + max(self.offset, default=0) + 1

    @property
    def spacing(self) -> int:
        """How far apart the inputs 0, s, 2 s, ... of one tap lie; 0 if they are not like that."""
        if len(self.taps) != 1:
            return 0
        if not self.source.size:
            return self.step
        spacing = int(self.source[1]) if self.out > 1 else 1
        regular = np.array_equal(self.source, np.arange(self.out) * spacing)
        return spacing if regular and spacing > 0 else 0

    @property
    def table(self) -> Ints:
        """The input index that each output (row) reads with each tap (column)."""
        places = np.arange(self.out)[:, None] * self.step + np.array(self.offset)
        table: Ints = np.take(self.source, places)
        return table


def forward_axis(
    size: int, out: int, kernel: int, stride: int, dilation: int, begin: int, mode: str
) -> Axis:
    """Return the axis of a convolution, its border filled in by `mode`."""
    table = tap_map(size, out, kernel, stride, dilation, begin, mode)
    taps = tuple(range(kernel))
    reach = (kernel - 1) * dilation + 1
    if (
        stride >= reach
    ):  # windows that do not overlap: lay them side by side, without what lies between
        return Axis(size, out, kernel, taps, taps, table.ravel())
    source = np.full((out - 1) * stride + reach, -1, np.int64)
    offset = np.array(taps) * dilation
    source[np.arange(out)[:, None] * stride + offset] = table
    return Axis(size, out, stride, taps, tuple(offset.tolist()), source)


def input_gradient_axes(
    size: int, out: int, kernel: int, stride: int, dilation: int, begin: int
) -> list[Axis]:
    """Return, for each phase of the stride, the axis on which dx is a convolution of dy.

    Input i = phase + o * stride was read by output j with tap t where i = j * stride - begin + t *
    dilation; so it gathers dy[j] * w[t] from j = o + (phase + begin - t * dilation) / stride, where
    that is whole.  Without any such tap, its gradient is an empty sum.
    """
    axes = []
    for phase in range(min(stride, size)):
        reads = [
            ((phase + begin - t * dilation) // stride, t)
            for t in range(kernel)
            if (phase + begin - t * dilation) % stride == 0
        ]
        count = -(-(size - phase) // stride)
        if not reads:
            axes.append(Axis(out, count, 1, (), (), _NO_TABLE, phase, stride))
            continue
        first = min(reads)[0]
        source = np.arange(count + max(reads)[0] - first, dtype=np.int64) + first
        source[(source < 0) | (source >= out)] = -1
        ordered = sorted(reads)
        taps = tuple(t for _, t in ordered)
        offset = tuple(j - first for j, _ in ordered)
        axes.append(Axis(out, count, 1, taps, offset, source, phase, stride))
    return axes


def pointwise_axes(pixels: int) -> tuple[Axis, ...]:
    """Return the axes of a matrix product over `pixels` rows."""
    one = Axis(1, 1, 1, (0,), (0,), _NO_TABLE)
    return one, Axis(pixels, pixels, 1, (0,), (0,), _NO_TABLE), one


def readable_in_place(batch: int, axes: Sequence[Axis]) -> bool:
    """Whether windows need no slab: one tap and no border, and planes at equal distances."""
    if not all(axis.taps for axis in axes):
        return True  # nothing is read
    d = axes[0]
    return all(axis.spacing for axis in axes) and (
        batch == 1 or d.out == 1 or d.out * d.spacing == d.size
    )


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def channel_block(channels: int, taps: int, unit: SimpleNamespace) -> int:
    """Return how many input channels to sum over at a time: their panel stays in cache."""
    if not taps:
        return channels  # nothing is summed
    most = max(PANEL_ROWS // taps, unit.VL)
    return even_part(channels, most, unit.VL)


def even_part(total: int, most: int, multiple: int) -> int:
    """Return the size of equal parts of `total`, about `most`: a multiple if not the whole."""
    parts = -(-total // most)
    return min(total, _round_up(-(-total // parts), multiple))


class Blocks(NamedTuple):
    """A cut of all output pixels in blocks that follow each other in memory."""

    planes: int
    rows: int
    columns: int
    number: int
    pixels: int  # of the largest block
    slab: int  # elements of its slab


def _slab(
    axes: Sequence[Axis], channels: int, unit: SimpleNamespace, cut: tuple[int, int, int],
    lanes: bool = False,
) -> int:  # fmt: skip
    """Return the elements of the slab under a block of so many planes, rows and columns."""
    d, h, w = axes
    planes, rows, columns = cut
    line: int = 64 // unit.itemsize

    def odd_lines(elements: int) -> int:
        return (_round_up(elements, line) // line | 1) * line

    slab_rows = planes * len(d.taps) * (h.length - (h.out - rows) * h.step)
    slab_columns = w.length - (w.out - columns) * w.step
    if lanes:
        image = slab_rows * slab_columns * unit.MR
        return int(-(-channels // unit.MR) * odd_lines(image + unit.VL))
    return slab_rows * odd_lines(slab_columns * channels)


def _blocks(batch: int, axes: Sequence[Axis], cut: tuple[int, int, int], slab: int) -> Blocks:
    planes, rows, columns = cut
    d, h, w = axes
    count = -(-batch * d.out // planes) * -(-h.out // rows) * -(-w.out // columns)
    return Blocks(*cut, count, math.prod(cut), slab)


def _even(total: int, most: int) -> int:
    """Return the size of equal parts of `total`, at most `most`."""
    return -(-total // -(-total // max(1, min(most, total))))


def pixel_blocks(
    batch: int,
    axes: Sequence[Axis],
    channels: int,
    unit: SimpleNamespace,
    pixels: int,
    lanes: bool = False,
) -> Blocks:
    """Cut the outputs in blocks of about `pixels`, with slabs of at most SLAB_BYTES if possible."""
    d, h, w = axes
    most = SLAB_BYTES // unit.itemsize

    def slab(planes: int, rows: int, columns: int) -> int:
        return _slab(axes, channels, unit, (planes, rows, columns), lanes)

    planes = rows = 1
    columns = w.out
    total = batch * d.out
    if columns > pixels or slab(1, 1, columns) > most:
        while columns > unit.MR and (columns > pixels or slab(1, 1, columns) > most):
            columns = _even(w.out, columns // 2)
    else:
        rows = _even(h.out, pixels // columns)
        while rows > 1 and slab(1, rows, columns) > most:
            rows = _even(h.out, rows - max(1, rows // 8))
        if rows == h.out:
            planes = _even(total, pixels // (rows * columns))
            while planes > 1 and slab(planes, rows, columns) > most:
                planes = _even(total, planes - max(1, planes // 8))
    return _blocks(batch, axes, (planes, rows, columns), slab(planes, rows, columns))


def tile_blocks(
    batch: int,
    axes: Sequence[Axis],
    channels: int,
    filters: int,
    unit: SimpleNamespace,
    copy: bool,
    most: int = BLOCK_PIXELS,
) -> Blocks:
    """Cut the outputs in blocks of about `most` pixels, whose tiles are full where that is free.

    A few pixels that are read where they lie make one block: each panel of weights is then met
    once, and packed by the job that reads it.  For many pixels and few panels that would not pay:
    each job reads all of x.
    """
    d, h, w = axes
    whole = batch * d.out, h.out, w.out
    pixels, size = math.prod(whole), _slab(axes, channels, unit, whole)
    few = pixels <= BLOCK_PIXELS and size * unit.itemsize * pixels <= WHOLE_BYTES * filters
    if few and not copy:
        return _blocks(batch, axes, whole, size)
    planes, rows, columns = pixel_blocks(batch, axes, channels, unit, most)[:3]
    if columns < w.out:
        columns = min(w.out, _round_up(columns, unit.MR))
    elif rows == h.out:
        planes = _full_tiles(batch * d.out, planes, rows * columns, unit)
    elif len(h.taps) == 1:  # no two windows share a row, which both blocks would copy
        rows = _full_tiles(h.out, rows, columns, unit)
    cut = planes, rows, columns
    return _blocks(batch, axes, cut, _slab(axes, channels, unit, cut))


def _full_tiles(total: int, most: int, pixels: int, unit: SimpleNamespace) -> int:
    """Return how many of `total`, each of so many pixels, to put in a block: about `most`.

    What is left over of a block makes a tile of two thirds or one third of MR rows, of one panel,
    which takes at least as long as one of four: so many keep both multipliers busy.
    """
    mr: int = unit.MR
    if pixels == 1:
        return min(total, _round_up(most, mr))

    def rows(part: int) -> int:
        full, left = divmod(part * pixels, mr)
        return full * mr + (max(_round_up(left, mr // 3), 4) if left else 0)

    def cost(part: int) -> int:
        return total // part * rows(part) + rows(total % part)

    part = min(range(most, most * 2 // 3, -1), key=cost)
    return part if cost(part) <= 0.99 * cost(most) else most  # smaller blocks cost something too


class Classes(NamedTuple):
    """Pixels of a plane grouped by the taps that read a pixel rather than a zero of the border."""

    pixels: Ints
    start: Ints
    taps: Ints
    tap_start: Ints
    cost: float  # tile rows times taps for one block


def pixel_classes(axes: Sequence[Axis], planes: int, unit: SimpleNamespace) -> Classes | None:
    """Return the classes of a 2-D plane, or None if all pixels have all taps."""
    d, h, w = axes
    if d.out != 1 or len(d.taps) != 1 or (h.source.min() >= 0 and w.source.min() >= 0):
        return None
    inside_h, inside_w = h.table >= 0, w.table >= 0
    groups: dict[bytes, tuple[list[int], list[int]]] = {}
    for oh in range(h.out):
        for ow in range(w.out):
            mask = inside_h[oh][:, None] & inside_w[ow][None, :]
            taps = np.flatnonzero(mask).tolist()
            groups.setdefault(mask.tobytes(), ([], taps))[0].append(oh * w.out + ow)
    third = unit.MR // 3
    cost = sum(_round_up(len(p) * planes, third) * len(t) for p, t in groups.values())

    def packed(lists: list[list[int]]) -> tuple[Ints, Ints]:
        starts = np.cumsum([0] + [len(items) for items in lists])
        return np.array([i for items in lists for i in items], np.int64), starts.astype(np.int64)

    pixels, start = packed([p for p, _ in groups.values()])
    all_taps, tap_start = packed([t for _, t in groups.values()])
    return Classes(pixels, start, all_taps, tap_start, cost)


def worthwhile_classes(
    axes: Sequence[Axis], blocks: Blocks, channels: int, unit: SimpleNamespace
) -> Classes | None:
    """Return the classes of the pixels of a block, if it is of whole images and they are worth it.

    The axes are those of windows in a slab, which holds so many channels of them at a time.
    """
    _, h, w = axes
    if channels < unit.VL or blocks.pixels != blocks.planes * h.out * w.out:
        return None
    classes = pixel_classes(axes, blocks.planes, unit)
    most = CLASSES_WORTH * len(h.taps) * len(w.taps) * blocks.pixels
    return classes if classes and classes.cost <= most else None


def window_slots(
    batch: int, axes: Sequence[Axis], blocks: Blocks, channels: int, copy: bool = True
) -> dict[str, Any]:
    """Return the slots of kernels/window.pxd's Window, all but x.

    Without `copy`, axes must be readable in place.
    """
    source = np.concatenate([axis.source for axis in axes])
    slots: dict[str, Any] = {
        "copy": copy,
        "offset": np.array([o for axis in axes for o in axis.offset], np.int64),
        "source": source if copy and source.size else None,
        "C": channels,
        "planes": batch * axes[0].out,
        "block_planes": blocks.planes,
        "block_rows": blocks.rows,
        "block_columns": blocks.columns,
    }
    for letter, axis in zip("DHW", axes, strict=True):
        slots[letter] = axis.size
        slots[f"O{letter}"] = axis.out
        slots[f"S{letter}"] = axis.step if copy else axis.spacing
        slots[f"T{letter}"] = len(axis.taps)
        slots[f"L{letter}"] = axis.length
    return slots
