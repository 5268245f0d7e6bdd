"""Layer: what every layer can do, and what a new one has to say.

Every layer follows one protocol: `y, backward = layer(x)`, then `dx = backward(dy)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from cycnn._check import Array, NotBuiltError, as_input, is_input
from cycnn.layers.building import (
    Reach,
    Rng,
    Shapes,
    Source,
    Weight,
    as_shapes,
    each,
    kinds,
    several,
)
from cycnn.layers.parameter import Parameter, read_only

Backward = Callable[..., Any]
"""backward(dy, input_gradient=True) -> dx, or None when not asked for."""

REGISTRY: dict[str, type[Layer]] = {}
"""The library's own layers by class name: the only classes that `load` makes unasked."""

_T = TypeVar("_T")
_LayerClass = TypeVar("_LayerClass", bound="type[Layer]")


def register(layer_class: _LayerClass) -> _LayerClass:
    """Let model files name this class (a class of one's own goes to `load(custom=...)` instead)."""
    REGISTRY[layer_class.__name__] = layer_class
    return layer_class


class Layer:
    """A function with parameters: it maps an input to an output and carries the gradient back.

    A layer of one's own hands its constructor arguments to `super().__init__`, answers `infer`
    (unless its output has the shape of its input) and `weights` (if it has any), and defines
    `__call__`. It is then built, counted, frozen, copied and saved like any other.

    Parameters
    ----------
    name : str, optional
        Stands for the layer's position in the names of a model's parameters.
    **config
        The constructor's arguments, kept for `config()`, `repr` and model files.

    Examples
    --------
    >>> class Scale(Layer):  # y = scale * x, one learnt scale per channel
    ...     def __init__(self, start=1.0, *, name=None):
    ...         super().__init__(name=name, start=start)
    ...         self.start = start
    ...
    ...     def weights(self, input_shape):
    ...         start = lambda shape, rng: np.full(shape, self.start)
    ...         return {"scale": Weight(input_shape[-1:], start)}
    ...
    ...     def __call__(self, x, training=False):
    ...         x, scale = self.check_input(x), self.parameter("scale")
    ...
    ...         def backward(dy, input_gradient=True):
    ...             scale.grad += (dy * x).sum(axis=0)
    ...             return dy * scale.data if input_gradient else None
    ...
    ...         return x * scale.data, backward
    >>> layer = Scale(2.0).build((3,))
    >>> y, backward = layer(np.ones((1, 3)))
    >>> y.tolist(), backward(y).tolist(), layer
    ([[2.0, 2.0, 2.0]], [[4.0, 4.0, 4.0]], Scale(start=2.0))
    """

    merges = False
    """Whether the layer takes a tuple of several inputs."""

    changes = 0
    """How often an attribute of the layer was set."""

    def __init__(self, *, name: str | None = None, **config: Any) -> None:
        if name is not None and not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(
                f"{type(self).__name__}: name must be letters, digits and _, not a digit first, "
                f"got {name!r}"
            )
        self.name = name
        self.frozen = False
        self._config = config
        self._parameters: dict[str, Parameter] = {}
        self._buffers: dict[str, Array] = {}
        self._kinds: set[tuple[tuple[int, int], ...]] = set()
        self._input_shape: Shapes | None = None
        self._output_shape: Shapes | None = None
        self._dtype: np.dtype[Any] | None = None

    # What a new layer answers

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the output shape for an input shape, both without the batch.

        Raises
        ------
        ValueError
            If the layer cannot take this shape.
        """
        return input_shape

    def weights(self, input_shape: Shapes) -> dict[str, Weight]:
        """Return the parameters and buffers that the layer needs for this input shape."""
        return {}

    def seed(self, source: Source) -> None:
        """Draw what else is random from `source.rng`, once, when the layer is built."""

    def macs(self, input_shape: Shapes) -> int:
        """Return the multiply-adds of its weights for one sample."""
        return 0

    def reach(self, input_shape: Shapes) -> tuple[Reach, ...] | None:
        """Return how far one output looks along each spatial axis; None for the whole input."""
        return tuple(Reach(1, 1, 0) for _ in each(input_shape)[0][:-1])

    def __call__(self, x: Any, training: bool = False) -> tuple[Any, Backward]:
        """Return the output and the function that carries the gradient back."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    # Building

    def build(self, input_shape: Shapes, *, rng: Rng = None, dtype: DTypeLike = "float32") -> Self:
        """Make the parameters and return the layer itself.

        A layer is built once: built again for an input of as many axes and channels it keeps its
        parameters, which is how two places share them.

        Parameters
        ----------
        input_shape : tuple of int
            Shape without the batch; a tuple of shapes for a layer with several inputs.
        rng : int or numpy.random.Generator, optional
        dtype : {"float32", "float64"}

        Raises
        ------
        ValueError
            If the layer cannot take this shape or was built for another kind of input.
        """
        self.prepare(as_shapes(input_shape), Source(rng, dtype))
        return self

    def admit(self, input_shape: Shapes, dtype: np.dtype[Any]) -> Shapes:
        """Return the output shape; raise ValueError if the layer cannot be built for this input."""
        owner = type(self).__name__
        if several(input_shape) != self.merges:
            rule = "several inputs" if self.merges else "one input"
            raise ValueError(f"{owner}: input must be {rule}, got shape {input_shape}")
        if self._dtype is not None:
            if self._dtype != dtype:
                raise ValueError(f"{owner}: dtype must be {self._dtype}, as built, got {dtype}")
            if self._parameters and kinds(input_shape) not in self._kinds:
                raise ValueError(
                    f"{owner}: to share its weights, an input must have the axes and channels of "
                    f"{self._input_shape}, which it was built for, got {input_shape}"
                )
        return self.infer(input_shape)

    def prepare(self, input_shape: Shapes, source: Source, prefix: str = "") -> None:
        """Build the layer from `source`, where its arrays are called `prefix` + their name."""
        output_shape = self.admit(input_shape, source.dtype)
        if self._dtype is None:
            wanted = self.weights(input_shape)
            arrays = {name: source.array(prefix + name, wanted[name]) for name in wanted}
            for name, array in arrays.items():
                if wanted[name].learnt:
                    values = array.astype(source.dtype, copy=False)
                    self._parameters[name] = Parameter(values, trainable=not self.frozen)
                else:
                    self._buffers[name] = np.array(array, np.float64)  # as statistics are kept
            self.seed(source)
            self._input_shape, self._output_shape = input_shape, output_shape
            self._dtype = source.dtype
        self._kinds.add(kinds(input_shape))

    @property
    def built(self) -> bool:
        """Whether `build`, or a model, has given the layer a shape and parameters."""
        return self._dtype is not None

    @property
    def input_shape(self) -> Shapes:
        """The shape without the batch that the layer was built for."""
        return self._when_built(self._input_shape)

    @property
    def output_shape(self) -> Shapes:
        """The shape without the batch that comes out for `input_shape`."""
        return self._when_built(self._output_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that the layer computes in."""
        return self._when_built(self._dtype)

    def _when_built(self, value: _T | None) -> _T:
        if value is None:
            raise NotBuiltError(
                f"{type(self).__name__}: not built; call build(input_shape) or put it in a model"
            )
        return value

    # Checks at the start of a call

    def check_input(self, x: ArrayLike) -> Array:
        """Return `x` in the layer's dtype; raise ValueError if its axes or channels are wrong."""
        dtype = self.dtype
        array = x if is_input(x, dtype) else as_input(x, dtype, f"{type(self).__name__}: x")
        shape = array.shape[1:]
        if ((len(shape), shape[-1] if shape else 0),) not in self._kinds:
            self._refuse((array,))
        return array

    def check_inputs(self, arrays: Any) -> tuple[Array, ...]:
        """Return a tuple of inputs in the layer's dtype, checked like `check_input`."""
        owner = type(self).__name__
        if not isinstance(arrays, (tuple, list)):
            raise TypeError(f"{owner}: x must be a tuple of arrays, got {type(arrays).__name__}")
        inputs = tuple(as_input(x, self.dtype, f"{owner}: x[{i}]") for i, x in enumerate(arrays))
        if kinds(tuple(x.shape[1:] for x in inputs)) not in self._kinds:
            self._refuse(inputs)
        return inputs

    def _refuse(self, inputs: tuple[Array, ...]) -> None:
        expected = ", ".join(batched(shape) for shape in each(self.input_shape))
        got = ", ".join(str(x.shape) for x in inputs)
        raise ValueError(
            f"{type(self).__name__}: x must have the axes and channels of {expected}, got {got}"
        )

    def check_gradient(self, dy: ArrayLike, shape: tuple[int, ...]) -> Array:
        """Return `dy` in the layer's dtype; raise ValueError if it has not the output's shape."""
        dtype = self.dtype
        array = dy if is_input(dy, dtype) else as_input(dy, dtype, f"{type(self).__name__}: dy")
        if array.shape != shape:
            raise ValueError(
                f"{type(self).__name__}: dy must have the shape of y, {shape}, got {array.shape}"
            )
        return array

    # State

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, and count it: what was prepared for the layer may be out of date."""
        super().__setattr__(name, value)
        vars(self)["changes"] = self.changes + 1

    def parameter(self, name: str) -> Parameter:
        """Return one parameter by its own name, such as "weight"."""
        self._when_built(self._dtype)
        return self._parameters[name]

    def parameters(self) -> dict[str, Parameter]:
        """Return the parameters by name."""
        return dict(self._parameters)

    def buffers(self) -> dict[str, Array]:
        """Return the arrays that are kept but not learnt, by name: read-only views."""
        return {name: read_only(array) for name, array in self._buffers.items()}

    def set_buffer(self, name: str, values: ArrayLike) -> None:
        """Copy `values`, of the same shape, into a buffer.

        Raises
        ------
        KeyError
            If the layer has no such buffer.
        ValueError
            If the shape differs.
        """
        array = as_input(values, np.float64, f"{type(self).__name__}: {name}")
        if array.shape != self._buffers[name].shape:
            raise ValueError(
                f"{type(self).__name__}: {name} must have shape {self._buffers[name].shape}, "
                f"got {array.shape}"
            )
        self._buffers[name][...] = array

    def freeze(self) -> Self:
        """Keep the parameters as they are, and batch statistics too; return the layer itself."""
        return self._set_frozen(True)

    def unfreeze(self) -> Self:
        """Undo `freeze` and return the layer itself."""
        return self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> Self:
        self.frozen = frozen
        for parameter in self._parameters.values():
            parameter.trainable = not frozen
        return self

    # Description

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments; `type(layer)(**layer.config())` is a twin."""
        return {**self._config, "name": self.name}

    def __repr__(self) -> str:
        config, words = self.config(), []
        import inspect  # two milliseconds that `import cycnn` need not take

        for argument in inspect.signature(type(self)).parameters.values():
            value = config.get(argument.name, argument.default)
            if argument.default is argument.empty:
                words.append(repr(value))
            elif value != argument.default:
                words.append(f"{argument.name}={value!r}")
        return f"{type(self).__name__}({', '.join(words)})"


def batched(shape: tuple[int, ...]) -> str:
    """Return how a shape reads with the batch: (3, 4) is "(N, 3, 4)"."""
    return f"({', '.join(map(str, ('N', *shape)))})"
