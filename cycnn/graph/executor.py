"""The executor: runs a program forward, and its gradient back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cycnn import ops
from cycnn._check import Array
from cycnn.graph.program import Program, Values, pack, unpack
from cycnn.layers import Backward

Arrays = tuple[Array, ...]


def forward(
    program: Program, inputs: Arrays, training: bool, *, keep: bool = True
) -> tuple[Arrays, list[Backward]]:
    """Run all nodes in order; every value is let go after its last use.

    Parameters
    ----------
    program : Program
    inputs : tuple of ndarray, checked
    training : bool
    keep : bool
        Whether the nodes' backward functions, and all that they hold, are kept.

    Returns
    -------
    outputs : tuple of ndarray
    closures : list, the backward function of each node; empty unless `keep`
    """
    values: list[Any] = [None] * len(program.shapes)
    for value, x in zip(program.inputs, inputs, strict=True):
        values[value] = x
    closures: list[Backward] = []
    for node, finished in zip(program.nodes, program.last_use, strict=True):
        y, backward = node.layer(_read(values, node.inputs), training)
        if keep:
            closures.append(backward)
        for value, array in zip(node.outputs, pack(y, len(node.outputs)), strict=True):
            values[value] = array
        for value in finished:
            values[value] = None
        del y, backward  # or they would outlive their last use by one layer
    return tuple(values[value] for value in program.outputs), closures


def _read(values: list[Any], numbers: Values) -> Any:
    """Return one value as it is, several as a tuple."""
    return values[numbers[0]] if len(numbers) == 1 else tuple(values[v] for v in numbers)


def backward(
    program: Program,
    closures: list[Backward],
    gradients: Arrays,
    rows: int,
    dtype: Any,
    input_gradient: bool,
) -> tuple[Array, ...] | None:
    """Carry gradients from the outputs to the inputs, in reverse order.

    The gradients of a value that several nodes read are added. Each node's backward function is
    released as soon as it has run, and nothing before the first trained layer is run at all unless
    the gradient of the inputs is asked for.

    Returns
    -------
    tuple of ndarray, one for each input; None unless `input_gradient`
    """
    wanted = program.wanted(input_gradient)
    arrived: list[list[Array]] = [[] for _ in program.shapes]
    for value, dy in zip(program.outputs, gradients, strict=True):
        arrived[value].append(dy)

    def total(value: int) -> Array:
        parts, arrived[value] = arrived[value], []
        if not parts:  # one of several outputs of a node, which nobody read
            return ops.zeros((rows, *program.shapes[value]), dtype)
        return parts[0] if len(parts) == 1 else ops.add(tuple(parts))

    for node in reversed(program.nodes):
        run: Callable[..., Any] = closures.pop()
        if wanted.isdisjoint(node.outputs):
            continue
        dx = run(  # given away: who is done with dy lets it go
            unpack(tuple(total(value) for value in node.outputs)),
            input_gradient=not wanted.isdisjoint(node.inputs),
        )
        if dx is not None:
            for value, part in zip(node.inputs, pack(dx, len(node.inputs)), strict=True):
                if value in wanted:
                    arrived[value].append(part)
        del run, dx
    return tuple(total(value) for value in program.inputs) if input_gradient else None
