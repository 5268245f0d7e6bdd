"""What a model is made of: shapes, parameters, work, receptive fields, memory, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from cycnn.graph import Model, Node
from cycnn.init import Shape
from cycnn.layers import Shapes
from cycnn.layers.building import each, several

_BIASES = ("bias", "beta")


class Extent(NamedTuple):
    """What output o sees along one axis of the input: o * stride + (first ... last)."""

    first: int
    last: int
    stride: int


Field = tuple[Extent, ...]


class Row(NamedTuple):
    """One layer of a model; sizes are those of one sample.

    Attributes
    ----------
    name, kind : str
        The layer's name in the model, and its class.
    output_shape : shape, or tuple of shapes
    parameters : int
        Weights (k x k x m x n for n kernels of k x k on m channels) and scales; 0 where they are
        those of an earlier row.
    biases : int
        Biases and shifts, counted apart.
    trainable : int
        How many of both are trained.
    macs : int
        Multiply-adds of convolutions and dense layers.
    receptive_field : tuple of int, or None
        Pixels of the input that one output depends on, per axis, the border included; None where
        there is no place left: every output sees the whole input.
    stride : tuple of int, or None
        Pixels of the input from one output to the next.
    memory : int
        Bytes of the output.
    """

    name: str
    kind: str
    output_shape: Shapes
    parameters: int
    biases: int
    trainable: int
    macs: int
    receptive_field: Shape | None
    stride: Shape | None
    memory: int


class Summary(NamedTuple):
    """The rows of a model; printing it gives a table with their totals."""

    title: str
    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """Weights and scales of all layers."""
        return sum(row.parameters for row in self.rows)

    @property
    def biases(self) -> int:
        """Biases and shifts of all layers."""
        return sum(row.biases for row in self.rows)

    @property
    def trainable(self) -> int:
        """Parameters, biases counted in, that are trained."""
        return sum(row.trainable for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-adds of one sample forward."""
        return sum(row.macs for row in self.rows)

    @property
    def memory(self) -> int:
        """Bytes of all outputs of one sample, as training keeps them."""
        return sum(row.memory for row in self.rows)

    def __str__(self) -> str:
        head = (
            "layer", "kind", "output", "parameters", "biases", "multiply-adds", "receptive field",
            "stride", "memory",
        )  # fmt: skip
        total = (
            "total", "", "", f"{self.parameters:,}", f"{self.biases:,}", f"{self.macs:,}", "", "",
            _bytes(self.memory),
        )  # fmt: skip
        lines = [head, *map(_cells, self.rows), total]
        text = columns(lines, left=3)
        rule = "-" * max(map(len, text))
        both = self.parameters + self.biases
        return "\n".join((
            self.title, rule, text[0], rule, *text[1:-1], rule, text[-1],
            f"{both:,} parameters with biases, {self.trainable:,} trained; memory of one sample",
        ))  # fmt: skip


def summarize(model: Model) -> Summary:
    """Return what the layers of a built model make, cost and see.

    Parameters
    ----------
    model : Model

    Returns
    -------
    Summary
        Its `rows` in the order in which the layers run; `str` of it is the table.

    Raises
    ------
    NotBuiltError
        If the model has no input shape yet.

    Examples
    --------
    >>> from cycnn.graph import Sequential
    >>> from cycnn.layers import Conv, MaxPool
    >>> summary = summarize(Sequential([Conv(8, 3), MaxPool(2)], input_shape=(8, 8, 1), rng=0))
    >>> summary.parameters, summary.biases, summary.macs
    (72, 8, 2592)
    >>> summary.rows[1].receptive_field, summary.rows[1].stride
    ((4, 4), (2, 2))
    """
    program, size = model.program, model.dtype.itemsize
    fields: list[Field | None] = [None] * len(program.shapes)
    for value in program.inputs:
        fields[value] = tuple(Extent(0, 0, 1) for _ in program.shapes[value][:-1])
    rows, seen = [], set[int]()
    for node in program.nodes:
        field = receptive_field(node, [fields[value] for value in node.inputs])
        for value in node.outputs:
            fields[value] = field
        rows.append(_row(node, field, size, seen))
    title = f"{type(model).__name__} of input {shape_text(model.input_shape)}, {model.dtype}"
    return Summary(title, tuple(rows))


def receptive_field(node: Node, inputs: list[Field | None]) -> Field | None:
    """Return what the outputs of a node see, from what its inputs see.

    A window of `span` taps that starts `begin` pixels early and moves by `stride` sees, with an
    input that sees first ... last and moves by s,

        first - begin * s  ...  last + (span - 1 - begin) * s,    moving by stride * s:

    Araujo, Norris and Sim (2019), "Computing receptive fields of convolutional neural networks".
    Of several inputs all is seen.
    """
    reach = node.layer.reach(node.input_shape)
    known = [field for field in inputs if field is not None]
    if not reach or len(known) < len(inputs) or any(len(f) != len(reach) for f in known):
        return None
    return tuple(
        Extent(
            min(e.first for e in extents) - axis.begin * extents[0].stride,
            max(e.last for e in extents) + (axis.span - 1 - axis.begin) * extents[0].stride,
            extents[0].stride * axis.stride,
        )
        for axis, extents in zip(reach, zip(*known, strict=True), strict=True)
    )


def _row(node: Node, field: Field | None, itemsize: int, seen: set[int]) -> Row:
    """Return the row of a node; parameters in `seen` have been counted."""
    own = {n: p for n, p in node.layer.parameters().items() if id(p) not in seen}
    seen.update(map(id, own.values()))
    return Row(
        name=node.name,
        kind=type(node.layer).__name__,
        output_shape=node.output_shape,
        parameters=sum(p.size for name, p in own.items() if name not in _BIASES),
        biases=sum(p.size for name, p in own.items() if name in _BIASES),
        trainable=sum(p.size for p in own.values() if p.trainable),
        macs=node.layer.macs(node.input_shape),
        receptive_field=None if field is None else tuple(e.last - e.first + 1 for e in field),
        stride=None if field is None else tuple(e.stride for e in field),
        memory=sum(map(math.prod, each(node.output_shape))) * itemsize,
    )


def _cells(row: Row) -> tuple[str, ...]:
    """Return a row as text."""
    return (
        row.name, row.kind, shape_text(row.output_shape), _count(row.parameters),
        _count(row.biases), _count(row.macs), _field(row.receptive_field, "all"),
        _field(row.stride, "-"), _bytes(row.memory),
    )  # fmt: skip


def columns(lines: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return the lines of a table: the `left` first cells to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in lines
    ]


def shape_text(shapes: Shapes) -> str:
    """Return a shape as 8 x 8 x 3, several with commas between."""
    return ", ".join(map(shape_text, shapes)) if several(shapes) else " x ".join(map(str, shapes))


def _field(extents: Shape | None, nowhere: str) -> str:
    return nowhere if extents is None else " x ".join(map(str, extents))


def _count(number: int) -> str:
    return f"{number:,}" if number else "-"


def _bytes(number: int) -> str:
    if number < 1024:
        return f"{number} B"
    return f"{number / 2**10:.1f} KiB" if number < 2**20 else f"{number / 2**20:,.1f} MiB"
