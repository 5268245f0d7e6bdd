"""Sequential, Residual and Parallel: the usual ways to put layers together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import DTypeLike

from cycnn.graph.model import Model
from cycnn.graph.program import Builder, Values, lower
from cycnn.layers import Add, Concat, Layer, Rng, Shapes, register

Block = Layer | Sequence[Layer]
"""A layer, or a list of layers that run one after the other."""


@register
class Sequential(Model):
    """Layers one after the other: y = layers[-1](... layers[1](layers[0](x))).

    Parameters
    ----------
    layers : sequence of Layer
        May be empty: then y = x.
    input_shape : tuple of int, optional
        Shape of one sample; given, everything is built at once. Without, `build` or an outer model
        does it.
    rng : int or numpy.random.Generator, optional
        Draws the parameters; None draws differently every time.
    dtype : {"float32", "float64"}
    name : str, optional

    Raises
    ------
    ValueError
        If a layer cannot take what comes to it; the message names the layer and the shapes.

    Examples
    --------
    >>> from cycnn.layers import Conv, Dense, Flatten, ReLU
    >>> model = Sequential([Conv(8, 3), ReLU(), Flatten(), Dense(10)], input_shape=(8, 8, 1), rng=0)
    >>> model.output_shape, list(model.parameters())
    ((10,), ['0.weight', '0.bias', '3.weight', '3.bias'])
    >>> model[:-1].output_shape, model[0].weight is model.parameters()["0.weight"]
    ((288,), True)
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        input_shape: Shapes | None = None,
        rng: Rng = None,
        dtype: DTypeLike = "float32",
        name: str | None = None,
    ) -> None:
        self.layers = tuple(layers)
        super().__init__(name=name, layers=self.layers)
        self._names = tuple(
            checked_layer(layer, f"Sequential: layers[{i}]").name or str(i)
            for i, layer in enumerate(self.layers)
        )
        if len(set(self._names)) < len(self._names):
            raise ValueError(f"Sequential: names must differ, got {', '.join(self._names)}")
        if input_shape is not None:
            self.build(input_shape, rng=rng, dtype=dtype)
        elif rng is not None:
            raise ValueError("Sequential: rng must come with an input_shape, got rng alone")

    def children(self) -> dict[str, Layer]:
        """Return the layers by name or position."""
        return dict(zip(self._names, self.layers, strict=True))

    def place(self, builder: Builder, prefix: str, inputs: Values) -> Values:
        """Put each layer on what the one before makes."""
        for name, layer in self.children().items():
            inputs = builder.add(prefix + name, layer, inputs)
        return inputs

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, key: int | slice | str) -> Any:
        """Return a layer by position or name, or a model that shares a range of the layers."""
        if isinstance(key, str):
            return super().__getitem__(key)
        if not isinstance(key, slice):
            return self.layers[key]
        start, stop, step = key.indices(len(self.layers))
        if step != 1:
            raise ValueError(f"Sequential: a slice must have step 1, got {step}")
        if not self.built:
            return Sequential(self.layers[start:stop])
        before = lower(Sequential(self.layers[:start]), self.input_shape, self.dtype)
        return Sequential(
            self.layers[start:stop], input_shape=before.output_shape, dtype=self.dtype
        )


@register
class Residual(Model):
    """y = body(x) + shortcut(x): He, Zhang, Ren and Sun (2016), eqs. 1 and 2. No activation after.

    Backward: dx is the sum of the gradients of body and shortcut.

    Parameters
    ----------
    layers : sequence of Layer, or Layer
        The body.
    shortcut : sequence of Layer, or Layer, optional
        None is the identity; layers are needed where the body changes the shape.
    name : str, optional

    Raises
    ------
    ValueError
        When built, if body and shortcut give different shapes.

    Examples
    --------
    >>> from cycnn.layers import Conv
    >>> block = Residual([Conv(8, 3, padding="same")]).build((6, 6, 8), rng=0)
    >>> list(block.parameters()), block.output_shape
    (['body.0.weight', 'body.0.bias'], (6, 6, 8))
    """

    def __init__(
        self, layers: Block, shortcut: Block | None = None, *, name: str | None = None
    ) -> None:
        super().__init__(name=name, layers=_listed(layers), shortcut=_listed(shortcut))
        self.body = _as_layer(layers, "Residual: layers")
        self.shortcut = _as_layer([] if shortcut is None else shortcut, "Residual: shortcut")
        self.add = Add()

    def children(self) -> dict[str, Layer]:
        """Return body, shortcut and the sum."""
        return {"body": self.body, "shortcut": self.shortcut, "add": self.add}

    def place(self, builder: Builder, prefix: str, inputs: Values) -> Values:
        """Put body and shortcut on the input, the sum on both."""
        body = builder.add(f"{prefix}body", self.body, inputs)
        shortcut = builder.add(f"{prefix}shortcut", self.shortcut, inputs)
        if builder.shape(body) != builder.shape(shortcut):
            raise ValueError(
                f"{_where(prefix)}Residual: body and shortcut must give one shape, got "
                f"{builder.shape(body)} and {builder.shape(shortcut)}"
            )
        return builder.add(f"{prefix}add", self.add, body + shortcut)


@register
class Parallel(Model):
    """Branches side by side, merged into one output.

    Parameters
    ----------
    branches : sequence of (sequence of Layer, or Layer)
        At least two; [] is the identity. All get the input; a tuple of as many inputs feeds branch
        i item i.
    merge : Layer, optional
        Takes the branches' outputs; None is `Concat()`, along the channels.
    name : str, optional

    Examples
    --------
    >>> from cycnn.layers import Conv
    >>> block = Parallel([[Conv(4, 1)], [Conv(8, 3, padding="same")], []]).build((6, 6, 3), rng=0)
    >>> block.output_shape, list(block.parameters())[2]
    ((6, 6, 15), 'branches.1.0.weight')
    """

    def __init__(
        self, branches: Sequence[Block], merge: Layer | None = None, *, name: str | None = None
    ) -> None:
        super().__init__(name=name, branches=tuple(map(_listed, branches)), merge=merge)
        if len(branches) < 2:
            raise ValueError(f"Parallel: branches must be at least two, got {len(branches)}")
        self.branches = tuple(
            _as_layer(branch, f"Parallel: branches[{i}]") for i, branch in enumerate(branches)
        )
        self.merge = Concat() if merge is None else checked_layer(merge, "Parallel: merge")

    def children(self) -> dict[str, Layer]:
        """Return the branches and the merging layer."""
        branches = {f"branches.{i}": branch for i, branch in enumerate(self.branches)}
        return {**branches, "merge": self.merge}

    def place(self, builder: Builder, prefix: str, inputs: Values) -> Values:
        """Put every branch on the input, or each on its own, and the merging layer on all."""
        if len(inputs) not in (1, len(self.branches)):
            raise ValueError(
                f"{_where(prefix)}Parallel: input must be one or one per branch "
                f"({len(self.branches)}), got {len(inputs)}"
            )
        each = [(value,) for value in inputs] if len(inputs) > 1 else [inputs] * len(self.branches)
        outputs: Values = ()
        for i, (branch, values) in enumerate(zip(self.branches, each, strict=True)):
            outputs += builder.add(f"{prefix}branches.{i}", branch, values)
        return builder.add(f"{prefix}merge", self.merge, outputs)


def checked_layer(layer: Any, argument: str) -> Layer:
    """Return `layer`; raise TypeError if it is none."""
    if not isinstance(layer, Layer):
        hint = ", a class; add ()" if isinstance(layer, type) else ""
        raise TypeError(f"{argument} must be a Layer, got {layer!r}{hint}")
    return layer


def _where(prefix: str) -> str:
    """Return the start of an error message: the name of a model inside another."""
    return f"layer {prefix[:-1]!r}: " if prefix else ""


def _listed(block: Any) -> Any:
    """Return a list of layers as a tuple, anything else as it is."""
    return tuple(block) if isinstance(block, Sequence) else block


def _as_layer(block: Any, argument: str) -> Layer:
    """Return a list of layers as one layer."""
    return Sequential(block) if isinstance(block, Sequence) else checked_layer(block, argument)
