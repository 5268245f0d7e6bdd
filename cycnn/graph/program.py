"""The one form that every model is brought to: a flat list of layers on numbered values.

Sequential, Residual, Parallel and Graph each say how they place their layers (`place`); what comes
out is a Program, and only a Program is run.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from cycnn.init import Shape
from cycnn.layers import Layer, Parameter, Shapes
from cycnn.layers.building import each, kinds

Values = tuple[int, ...]
"""Numbers of values: each value is an input of the program or an output of one node."""


class Composite(Layer):
    """A layer made of layers."""

    def place(self, builder: "Builder", prefix: str, inputs: Values) -> Values:
        """Add its layers to a program, `prefix` before their names; return the output values."""
        raise NotImplementedError


class Node(NamedTuple):
    """One call of a layer, on values by number."""

    name: str
    layer: Layer
    inputs: Values
    outputs: Values
    input_shape: Shapes
    output_shape: Shapes


class _Fields(NamedTuple):
    nodes: tuple[Node, ...]
    shapes: tuple[Shape, ...]
    inputs: Values
    outputs: Values
    last_use: tuple[Values, ...]
    inner: tuple[tuple[Composite, Shapes], ...]


class Program(_Fields):
    """A model as a flat list of nodes, each after all that it reads.

    A tuple, not a dataclass: `import cycnn` waits for no module that makes one.

    Attributes
    ----------
    nodes : tuple of Node
    shapes : tuple of shapes, one for each value
    inputs, outputs : tuple of int
    last_use : tuple of tuple of int
        For each node, the values that nothing reads after it.
    inner : tuple of (Composite, input shape)
        The models inside this one.
    """

    @property
    def output_shape(self) -> Shapes:
        """The shape of the output, or of each."""
        return shape_of(self.shapes, self.outputs)

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """Each parameter once, under the first name it is reached by, when the layers are built."""
        found = {
            id(parameter): (f"{node.name}.{name}", parameter)
            for node in reversed(self.nodes)
            for name, parameter in reversed(node.layer.parameters().items())
        }
        return dict(reversed(found.values()))

    @cached_property
    def _learns(self) -> tuple[tuple[Parameter, ...], ...]:
        """The parameters of each node, when the layers are built."""
        return tuple(tuple(node.layer.parameters().values()) for node in self.nodes)

    def buffers(self) -> dict[str, tuple[Layer, str]]:
        """Return the layer of each buffer and its name there, under the first name it has."""
        found: dict[tuple[int, str], tuple[str, tuple[Layer, str]]] = {}
        for node in self.nodes:
            for name in node.layer.buffers():
                found.setdefault(
                    (id(node.layer), name), (f"{node.name}.{name}", (node.layer, name))
                )
        return dict(found.values())

    def wanted(self, input_gradient: bool) -> set[int]:
        """Return the values whose gradient is needed: something trained lies before them."""
        wanted = set(self.inputs if input_gradient else ())
        for node, parameters in zip(self.nodes, self._learns, strict=True):
            if not wanted.isdisjoint(node.inputs) or any(p.trainable for p in parameters):
                wanted.update(node.outputs)
        return wanted


class Builder:
    """Collects the nodes of a program while models place their layers; changes no layer."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.nodes: list[Node] = []
        self.shapes: list[Shape] = []
        self.inner: list[tuple[Composite, Shapes]] = []
        self._kinds: dict[int, tuple[tuple[int, int], ...]] = {}

    def values(self, shapes: Shapes) -> Values:
        """Return a new value for each shape."""
        first = len(self.shapes)
        self.shapes.extend(each(shapes))
        return tuple(range(first, len(self.shapes)))

    def shape(self, values: Values) -> Shapes:
        """Return the shape of one value, the shapes of several."""
        return shape_of(self.shapes, values)

    def add(self, name: str, layer: Layer, inputs: Values) -> Values:
        """Place a layer on values and return the values that it makes.

        Raises
        ------
        ValueError
            If the layer cannot take their shapes; the message names the node and the shapes.
        """
        input_shape = self.shape(inputs)
        if isinstance(layer, Composite):
            self.inner.append((layer, input_shape))
            return layer.place(self, f"{name}.", inputs)
        try:
            output_shape = layer.admit(input_shape, self.dtype)
        except ValueError as error:
            raise ValueError(f"layer {name!r} on input {input_shape}: {error}") from None
        kind = kinds(input_shape)
        if self._kinds.setdefault(id(layer), kind) != kind and layer.weights(input_shape):
            raise ValueError(
                f"layer {name!r} on input {input_shape}: {type(layer).__name__} shares its weights "
                "with an earlier node, whose input has other axes or channels"
            )
        outputs = self.values(output_shape)
        self.nodes.append(Node(name, layer, inputs, outputs, input_shape, output_shape))
        return outputs


def lower(model: Composite, input_shape: Shapes, dtype: np.dtype[Any]) -> Program:
    """Return the program of a model for an input shape, without building any layer."""
    builder = Builder(dtype)
    inputs = builder.values(input_shape)
    outputs = model.place(builder, "", inputs)
    return Program(
        tuple(builder.nodes), tuple(builder.shapes), inputs, outputs,
        last_uses(builder.nodes, outputs), tuple(builder.inner),
    )  # fmt: skip


def last_uses(nodes: Sequence[Node], outputs: Values) -> tuple[Values, ...]:
    """Return, for each node, the values that nothing reads after it."""
    seen, last_use = set(outputs), []
    for node in reversed(nodes):
        last = {*node.inputs, *node.outputs} - seen
        seen |= last
        last_use.append(tuple(last))
    return tuple(reversed(last_use))


def shape_of(shapes: Sequence[Shape], values: Values) -> Shapes:
    """Return the shape of one value, a tuple of the shapes of several."""
    chosen = tuple(shapes[value] for value in values)
    return chosen[0] if len(chosen) == 1 else chosen


def unpack(items: tuple[Any, ...]) -> Any:
    """Return the item of a tuple of one, a longer tuple as it is."""
    return items[0] if len(items) == 1 else items


def pack(item: Any, count: int) -> tuple[Any, ...]:
    """Undo `unpack`."""
    return (item,) if count == 1 else tuple(item)
