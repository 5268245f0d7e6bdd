"""Fusion: a program whose layers do in one pass over memory what they did in several.

A layer is joined with those that come right after it:

    BatchNorm, Add, ReLU or LeakyReLU       Add and activation may each be missing
    Conv, DepthwiseConv or Dense, ReLU, MaxPool         MaxPool may be missing

where nobody else reads what passes between them. Each value goes through the same operations as
before, in the same order, and so do the gradients: a fused program gives the same bits.

What is saved: a normalisation computes its activation's mask again from the x that it keeps
anyway; a convolution applies ReLU while its output is in registers; and where pooling follows, the
mask costs nothing, since a window passes on its maximum, and the pool notes where that is 0. The
large output is let go as soon as it is pooled. And where a gradient was made for one node alone,
that node writes its own over it: to write to other memory, a processor first reads it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from cycnn import ops
from cycnn._check import Array
from cycnn.graph.program import Node, Program, last_uses, shape_of
from cycnn.layers import (
    Add,
    AvgPool,
    Backward,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    GlobalAvgPool,
    Layer,
    LeakyReLU,
    MaxPool,
    Parameter,
    ReLU,
)
from cycnn.layers.conv import Convolution

# What may follow a layer in a chain that begins with the class named first: these very classes, as
# a subclass may do anything.
Followers = dict[type[Layer], tuple[type[Layer], ...]]
_AFTER_NORM: Followers = {BatchNorm: (Add, ReLU, LeakyReLU), Add: (ReLU, LeakyReLU)}
_AFTER_AFFINE: Followers = {
    Conv: (ReLU,), DepthwiseConv: (ReLU,), Dense: (ReLU,), ReLU: (MaxPool,)
}  # fmt: skip
_CHAINS: dict[type[Layer], Followers] = {
    BatchNorm: _AFTER_NORM, Conv: _AFTER_AFFINE, DepthwiseConv: _AFTER_AFFINE, Dense: _AFTER_AFFINE
}  # fmt: skip
# Layers whose input gradient is a new array that nobody else holds.
_NEW_GRADIENT = (
    Conv, DepthwiseConv, Dense, BatchNorm, ReLU, LeakyReLU, MaxPool, AvgPool, GlobalAvgPool
)  # fmt: skip


class Normalised(Layer):
    """A BatchNorm with what follows it: y = activation(residual + norm(x)).

    With `overwrite`, its backward may write over the gradient that it is given.
    """

    def __init__(
        self, norm: BatchNorm, joined: bool, activation: Layer | None, overwrite: bool
    ) -> None:
        super().__init__()
        self.norm, self.joined, self.activation = norm, joined, activation
        self.overwrite = overwrite

    def parameters(self) -> dict[str, Parameter]:
        """Return those of the BatchNorm."""
        return self.norm.parameters()

    def __call__(self, x: Any, training: bool = False) -> tuple[Array, Backward]:
        """Map x, or the pair of residual and x, to y."""
        residual, x = x if self.joined else (None, x)
        options: dict[str, Any] = {}
        if isinstance(self.activation, LeakyReLU):
            options = {"activation": "leaky_relu", "slope": self.activation.constants[0]}
        elif self.activation is not None:
            options = {"activation": "relu"}
        return self.norm.normalise(x, training, residual, overwrite=self.overwrite, **options)


class Activated(Layer):
    """A convolution or dense layer with the ReLU after it, and perhaps the MaxPool after that."""

    def __init__(self, affine: Convolution | Dense, pool: MaxPool | None, overwrite: bool) -> None:
        super().__init__()
        self.affine, self.pool, self.overwrite = affine, pool, overwrite

    def parameters(self) -> dict[str, Parameter]:
        """Return those of the layer before the activation."""
        return self.affine.parameters()

    def __call__(self, x: Any, training: bool = False) -> tuple[Array, Backward]:
        """Map x to y."""
        y, affine_backward = self.affine.affine(x, "relu")
        if self.pool is None:
            kept = [y]

            def mask(dy: Array) -> Array:
                y = kept.pop()  # the executor calls it once
                return ops.relu_backward(dy, y, overwrite=self.overwrite)

        else:
            y, mask = self.pool.pool(y, rectified=True)

        def backward(dy: Array, input_gradient: bool = True) -> Array | None:
            dy = mask(dy)  # and let go of the one that came
            dx: Array | None = affine_backward(dy, input_gradient)
            return dx

        return y, backward


def fuse(program: Program) -> Program:
    """Return a program that computes the same with fewer nodes.

    Parameters
    ----------
    program : Program

    Returns
    -------
    Program
        Its values have the numbers that they had; those inside a fused node are never made.
        Parameters and buffers are those of the layers of `program`.
    """
    readers = _only_readers(program)
    own = _own_gradients(program)
    nodes: list[Node | None] = list(program.nodes)
    for start in range(len(nodes)):
        chain = _chain(program, readers, start)
        while not _may_wait(program, chain):
            chain.pop()
        members = [program.nodes[i] for i in chain]
        overwrite = members[-1].outputs[0] in own
        alone = len(chain) == 1 and not (overwrite and type(members[0].layer) is BatchNorm)
        if not alone and all(nodes[i] is program.nodes[i] for i in chain):
            for i in chain:
                nodes[i] = None
            nodes[chain[-1]] = _fused(program, members, overwrite)
    kept = tuple(node for node in nodes if node is not None)
    return program._replace(nodes=kept, last_use=last_uses(kept, program.outputs))


def _only_readers(program: Program) -> dict[int, int]:
    """Return, for each value that is read once and is no output, which node reads it."""
    uses = Counter(program.outputs)
    uses.update(value for node in program.nodes for value in node.inputs)
    return {
        value: i
        for i, node in enumerate(program.nodes)
        for value in node.inputs
        if uses[value] == 1
    }


def _own_gradients(program: Program) -> set[int]:
    """Return the values whose gradient is a new array that only their node holds.

    It was made by the one layer that reads the value, or is the sum of several gradients.
    """
    readers: dict[int, list[type[Layer]]] = {value: [] for value in range(len(program.shapes))}
    for node in program.nodes:
        for value in node.inputs:
            readers[value].append(type(node.layer))
    outputs = Counter(program.outputs)
    return {
        value
        for value, kinds in readers.items()
        if all(kind in (*_NEW_GRADIENT, Add) for kind in kinds)
        and (len(kinds) + outputs[value] > 1 or (kinds and kinds[0] is not Add))
    }


def _chain(program: Program, readers: dict[int, int], start: int) -> list[int]:
    """Return the positions of the nodes, `start` and what follows it, that may become one."""
    followers = _CHAINS.get(type(program.nodes[start].layer), {})
    chain = [start]
    while True:
        last = program.nodes[chain[-1]]
        reader = readers.get(last.outputs[0])
        if reader is None:
            return chain
        kind = type(program.nodes[reader].layer)
        if kind not in followers.get(type(last.layer), ()) or not _is_plain(program.nodes[reader]):
            return chain
        chain.append(reader)


def _is_plain(node: Node) -> bool:
    """Say whether a layer is set up as the fused kernels have it."""
    layer = node.layer
    if isinstance(layer, Add):
        return layer.coefficients is None and len(node.inputs) == 2
    if isinstance(layer, LeakyReLU):
        return layer.slope >= 0  # else y > 0 does not say where x > 0
    return not (isinstance(layer, MaxPool) and layer.return_indices)


def _may_wait(program: Program, chain: list[int]) -> bool:
    """Say whether the first node of a chain may run as late as its last.

    Not where a node between them reads what the chain reads, or calls the same layer: gradients
    and running statistics would add up in another order.
    """
    inputs = {value for i in chain for value in program.nodes[i].inputs}
    between = set(range(chain[0], chain[-1])).difference(chain)
    return not any(
        inputs.intersection(program.nodes[i].inputs)
        or program.nodes[i].layer is program.nodes[chain[0]].layer
        for i in between
    )


def _fused(program: Program, members: list[Node], overwrite: bool) -> Node:
    """Return one node for several in a row."""
    first, last = members[0], members[-1]
    inputs = first.inputs
    layer: Layer
    if isinstance(first.layer, BatchNorm):
        add = next((node for node in members if isinstance(node.layer, Add)), None)
        if add is not None:
            (residual,) = set(add.inputs) - set(first.outputs)
            inputs = (residual, *inputs)  # its gradient has always been the first to arrive
        after = None if last is add or last is first else last.layer
        layer = Normalised(first.layer, add is not None, after, overwrite)
    else:
        assert isinstance(first.layer, (Convolution, Dense))
        pool = last.layer if isinstance(last.layer, MaxPool) else None
        layer = Activated(first.layer, pool, overwrite)
    return Node(
        first.name, layer, inputs, last.outputs, shape_of(program.shapes, inputs),
        last.output_shape,
    )  # fmt: skip
