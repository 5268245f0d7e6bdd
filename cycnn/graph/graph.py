"""Graph: layers put together in any way without a cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import DTypeLike

from cycnn.graph.containers import checked_layer
from cycnn.graph.model import Model
from cycnn.graph.program import Builder, Values
from cycnn.layers import Layer, Rng, Shapes, register
from cycnn.layers.building import as_shapes

NodeSpec = tuple[Layer, str | Sequence[str]]


@register
class Graph(Model):
    """Named layers, each on named inputs.

    Parameters
    ----------
    nodes : dict of str to (Layer, str or tuple of str)
        Each node's layer and what it reads: inputs of the graph or other nodes, in any order. The
        same layer object in two nodes shares its weights. Of a node with several outputs, "name"
        stands for all and "name:0", "name:1" for each.
    inputs : dict of str to shape
        The inputs of the graph and the shape of one sample. A tuple of names only leaves the graph
        to be built by `build` or by an outer model.
    outputs : tuple of str
        What the graph gives; more than one makes the output a tuple.
    rng : int or numpy.random.Generator, optional
    dtype : {"float32", "float64"}
    name : str, optional

    Raises
    ------
    ValueError
        If a name is unknown, taken or never used, if nodes form a cycle, or if a layer cannot take
        its input; the message names the node.

    Examples
    --------
    >>> from cycnn.layers import Add, Conv
    >>> graph = Graph(
    ...     {"a": (Conv(4, 3, padding="same"), "x"), "s": (Add(), ("a", "x"))},
    ...     inputs={"x": (6, 6, 4)},
    ...     outputs=("s",),
    ...     rng=0,
    ... )
    >>> graph.output_shape, list(graph.parameters())
    ((6, 6, 4), ['a.weight', 'a.bias'])
    """

    def __init__(
        self,
        nodes: Mapping[str, NodeSpec],
        *,
        inputs: Mapping[str, Shapes] | Sequence[str],
        outputs: str | Sequence[str],
        rng: Rng = None,
        dtype: DTypeLike = "float32",
        name: str | None = None,
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = _names(outputs)
        self.nodes = {
            node: (checked_layer(layer, f"Graph: node {node!r}"), _names(reads))
            for node, (layer, reads) in nodes.items()
        }
        super().__init__(name=name, nodes=self.nodes, inputs=self.inputs, outputs=self.outputs)
        self._check_names()
        self._order = self._sorted()
        if isinstance(inputs, Mapping):
            shapes = tuple(as_shapes(inputs[i], f"Graph: inputs[{i!r}]") for i in self.inputs)
            self.build(shapes[0] if len(shapes) == 1 else shapes, rng=rng, dtype=dtype)
        elif rng is not None:
            raise ValueError("Graph: rng must come with the shapes of inputs, got rng alone")

    def _check_names(self) -> None:
        """Raise ValueError if a name is no name, is taken or is unknown."""
        if not self.inputs or not self.outputs:
            raise ValueError("Graph: inputs and outputs must each name at least one, got none")
        known = (*self.inputs, *self.nodes)
        for name in known:
            if not (isinstance(name, str) and name.isidentifier()):
                raise ValueError(
                    f"Graph: names must be letters, digits and _, not a digit first, got {name!r}"
                )
        if len(set(known)) < len(known):
            raise ValueError(f"Graph: inputs and nodes must have names of their own, got {known}")
        reads = {node: names for node, (_, names) in self.nodes.items()}
        for reader, names in {**reads, "outputs": self.outputs}.items():
            for name in names:
                if _node(name) not in known:
                    raise ValueError(
                        f"Graph: {reader!r} must read inputs or nodes, {', '.join(known)}, "
                        f"got {name!r}"
                    )

    def _sorted(self) -> tuple[str, ...]:
        """Return the nodes so that each comes after all that it reads.

        Raises ValueError if that cannot be, or if a node or an input leads nowhere.
        """
        from graphlib import CycleError, TopologicalSorter  # a millisecond, which can wait

        reads = {node: [_node(name) for name in names] for node, (_, names) in self.nodes.items()}
        try:
            order = tuple(TopologicalSorter(reads).static_order())
        except CycleError as error:
            cycle = " -> ".join(error.args[1])
            raise ValueError(f"Graph: nodes must not form a cycle, got {cycle}") from None
        used = set(map(_node, self.outputs))
        for node in reversed(order):
            if node in used:
                used.update(reads.get(node, ()))
        if unused := [name for name in (*self.inputs, *self.nodes) if name not in used]:
            raise ValueError(f"Graph: every name must lead to an output, got unused {unused}")
        return tuple(node for node in order if node in self.nodes)

    def children(self) -> dict[str, Layer]:
        """Return the layers by node."""
        return {node: layer for node, (layer, _) in self.nodes.items()}

    def place(self, builder: Builder, prefix: str, inputs: Values) -> Values:
        """Put each node on the values it names."""
        if len(inputs) != len(self.inputs):
            raise ValueError(
                f"Graph: input must be one array for each of {', '.join(self.inputs)}, "
                f"got {len(inputs)}"
            )
        made: dict[str, Values] = {
            name: (value,) for name, value in zip(self.inputs, inputs, strict=True)
        }
        for node in self._order:
            layer, reads = self.nodes[node]
            made[node] = builder.add(prefix + node, layer, _read(made, reads))
        return _read(made, self.outputs)


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _node(value: str) -> str:
    """Return the node of a value: "a" for "a:1"."""
    return value.partition(":")[0]


def _read(made: dict[str, Values], names: Sequence[Any]) -> Values:
    """Return the values that `names` stand for."""
    values: Values = ()
    for name in names:
        node, colon, index = name.partition(":")
        if not colon:
            values += made[node]
        elif index.isdecimal() and int(index) < len(made[node]):
            values += (made[node][int(index)],)
        else:
            raise ValueError(
                f"Graph: {name!r} must have a number below {len(made[node])}, the outputs of "
                f"{node!r}, got {index!r}"
            )
    return values
