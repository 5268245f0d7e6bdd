"""Model: a layer made of layers, run by the one executor."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from cycnn._check import Array, as_input, positive_int
from cycnn.graph import executor
from cycnn.graph.fuse import fuse
from cycnn.graph.program import Composite, Program, lower, pack, unpack
from cycnn.graph.replay import PredictionRuns
from cycnn.layers import Backward, Layer, Parameter, Shapes, Source
from cycnn.layers.base import batched
from cycnn.layers.building import each

if TYPE_CHECKING:
    from cycnn.graph.trace import Trace
    from cycnn.losses import Loss

DEFAULT_BATCH_SIZE = 64


class Model(Composite):
    """What Sequential, Residual, Parallel and Graph share; each says how it places its layers.

    A model is a layer like any other: it has the same protocol, and it may stand inside another
    model, where its layers become nodes of the outer one.
    """

    _program: Program | None = None
    _fused: tuple[Program, Program] | None = None  # a program, and what is run in its place
    _predictions: tuple[Program, PredictionRuns] | None = None  # of a program
    _classes: tuple[str, ...] | None = None

    def children(self) -> dict[str, Layer]:
        """Return the layers of this model by name, models inside as one."""
        raise NotImplementedError

    # Building

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the output shape for an input shape, both without the batch."""
        return lower(self, input_shape, self._dtype or np.dtype(np.float32)).output_shape

    def prepare(self, input_shape: Shapes, source: Source, prefix: str = "") -> None:
        """Build every layer from `source`, in the order in which they run."""
        if self.built:
            if (input_shape, source.dtype) != (self._input_shape, self._dtype):
                raise ValueError(
                    f"{type(self).__name__}: built for {self._input_shape}, {self._dtype}; a new "
                    f"model of the same layers can share them, got {input_shape}, {source.dtype}"
                )
            return
        program = lower(self, input_shape, source.dtype)
        for node in program.nodes:
            node.layer.prepare(node.input_shape, source, f"{prefix}{node.name}.")
        for inner, shape in program.inner:
            if not inner.built:
                inner.prepare(shape, source)
        self._program, self._dtype = program, source.dtype
        self._input_shape, self._output_shape = input_shape, program.output_shape

    @property
    def program(self) -> Program:
        """The flat form, layer by layer."""
        return self._when_built(self._program)

    def _runnable(self) -> Program:
        """Return what is run: the program, its layers fused where that gives the same bits."""
        program = self.program
        if self._fused is None or self._fused[0] is not program:
            self._fused = program, fuse(program)
        return self._fused[1]

    def _prediction_runs(self) -> PredictionRuns:
        """Return what runs predictions."""
        if self._predictions is None or self._predictions[0] is not self.program:
            runs = PredictionRuns(self.program, self._runnable())
            self._predictions = self.program, runs
        return self._predictions[1]

    def __getstate__(self) -> dict[str, Any]:
        left_out = "_fused", "_predictions"
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def macs(self, input_shape: Shapes) -> int:
        """Return the multiply-adds of all layers for one sample."""
        program = lower(self, input_shape, self._dtype or np.dtype(np.float32))
        return sum(node.layer.macs(node.input_shape) for node in program.nodes)

    # Running

    def __call__(self, x: Any, training: bool = False) -> tuple[Any, Backward]:
        """Return the output and the function that carries the gradient back, once.

        Parameters
        ----------
        x : ndarray of shape (N, *input_shape), or a tuple of them for several inputs
        training : bool
            Whether batch statistics and dropout are at work.

        Raises
        ------
        ValueError
            If a shape is not (N, *input_shape), or there is nothing to train on.
        """
        program, dtype, owner = self._runnable(), self.dtype, type(self).__name__
        inputs = tuple(as_input(a, dtype, f"{owner}: x") for a in self._split(x))
        rows = len(inputs[0])
        if training and not rows:
            raise ValueError(f"{owner}: training needs at least one row, got x of 0 rows")
        outputs, closures = executor.forward(program, inputs, training)
        shapes = tuple(y.shape for y in outputs)
        spent = False

        def backward(dy: Any, input_gradient: bool = True) -> Any:
            nonlocal spent
            gradients = pack(dy, len(shapes))
            if len(gradients) != len(shapes):
                raise ValueError(
                    f"{owner}: dy must be one array per output, {len(shapes)}, got {len(gradients)}"
                )
            checked = tuple(map(self.check_gradient, gradients, shapes))
            if spent:
                raise RuntimeError(
                    f"{owner}: backward may run once for each call of the model, as it lets go of "
                    "what it needed; call the model again"
                )
            spent = True
            dx = executor.backward(program, closures, checked, rows, dtype, input_gradient)
            return None if dx is None else unpack(dx)

        return unpack(outputs), backward

    def predict(self, x: Any, batch_size: int | None = None) -> Any:
        """Return the raw outputs (logits) for every row.

        Parameters
        ----------
        x : array_like of shape (N, *input_shape), or a tuple of them for several inputs
            N may be 0. Cast to the model's dtype batch by batch.
        batch_size : int, optional
            Rows that go through the model at a time: more need more memory. Algorithms are chosen
            for so many rows, whatever number comes, so the last bits differ between batch sizes,
            and rows that come one by one are answered soonest with 1.

        Returns
        -------
        ndarray of shape (N, *output_shape), or a tuple of them
            New arrays that belong to the caller.

        Raises
        ------
        NotBuiltError
            If the model was made without an input shape.
        ValueError
            If a shape is not (N, *input_shape).
        """
        runs, dtype, owner = self._prediction_runs(), self.dtype, type(self).__name__
        step = positive_int(
            DEFAULT_BATCH_SIZE if batch_size is None else batch_size, f"{owner}: batch_size"
        )
        inputs = self._split(x)
        rows = len(inputs[0])
        results = tuple(np.empty((rows, *shape), dtype) for shape in each(self.output_shape))
        for start in range(0, rows, step):
            part = slice(start, start + step)
            batch = tuple(as_input(a[part], dtype, f"{owner}: x") for a in inputs)
            for result, y in zip(results, runs(batch, step), strict=True):
                result[part] = y
            del y  # it may lie where the next one will
        return unpack(results)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes in the order of the outputs, saved with the model.

        A model of one output, above 0 for the second class, has two names.
        """
        return self._classes

    @classes.setter
    def classes(self, names: Iterable[str] | None) -> None:
        if names is None:
            self._classes = None
            return
        owner, names = type(self).__name__, tuple(names)
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise ValueError(f"{owner}: classes must be different texts, got {names!r}")
        if len(self.output_shape) != 1 or max(self.output_shape[0], 2) != len(names):
            raise ValueError(
                f"{owner}: classes must be one name for each output, of shape {self.output_shape}, "
                f"got {len(names)}"
            )
        self._classes = names

    def classify(self, x: Any, batch_size: int | None = None) -> Array:
        """Return the name of the class of every row: that of its largest output.

        Parameters
        ----------
        x : array_like of shape (N, *input_shape)
        batch_size : int, optional
            As for `predict`.

        Returns
        -------
        ndarray of str of shape (N,)

        Raises
        ------
        ValueError
            If `classes` is not set.

        Examples
        --------
        >>> from cycnn import Dense, Sequential
        >>> model = Sequential([Dense(2)], input_shape=(2,), rng=0)
        >>> model[0].weight.assign([[1, 0], [0, 1]])
        >>> model.classes = ["left", "right"]
        >>> model.classify([[3, 1], [0, 2]]).tolist()
        ['left', 'right']
        """
        if self._classes is None:
            raise ValueError(
                f"{type(self).__name__}: classes must be set first, such as "
                "model.classes = ['cat', 'dog'], got None"
            )
        y = self.predict(x, batch_size)
        number = (y[:, 0] > 0).astype(np.int64) if y.shape[1] == 1 else y.argmax(axis=1)
        names: Array = np.array(self._classes)[number]
        return names

    def _split(self, x: Any) -> tuple[Array, ...]:
        """Return the inputs as a tuple of arrays of any real dtype; raise if a shape is wrong."""
        owner, shapes = type(self).__name__, each(self.input_shape)
        if len(shapes) > 1 and not (isinstance(x, (tuple, list)) and len(x) == len(shapes)):
            got = f"{len(x)}" if isinstance(x, (tuple, list)) else type(x).__name__
            raise ValueError(f"{owner}: x must be a tuple of {len(shapes)} arrays, got {got}")
        arrays = tuple(np.asarray(item) for item in pack(x, len(shapes)))
        for array, shape in zip(arrays, shapes, strict=True):
            as_input(array[:0] if array.ndim else array, self.dtype, f"{owner}: x")  # its kind
            if array.shape[1:] != shape or not array.ndim:
                raise ValueError(f"{owner}: x must have shape {batched(shape)}, got {array.shape}")
        if len({len(array) for array in arrays}) > 1:
            raise ValueError(
                f"{owner}: all inputs must have as many rows, got {[len(a) for a in arrays]}"
            )
        return arrays

    def trace(self, x: Any, target: ArrayLike, loss: Loss, training: bool = True) -> Trace:
        """Return what passes through each layer, forward and backward, from the loss back.

        Per layer x, y, dy, dx and the parameters' gradients: those of a trainer's step, bit for bit
        (and dx for every layer). The model stays as it is. See `cycnn.graph.trace`.
        """
        from cycnn.graph.trace import trace

        return trace(self, x, target, loss, training)

    # State

    def parameters(self) -> dict[str, Parameter]:
        """Return every parameter once, by position or by layer name: "3.body.0.weight"."""
        return dict(self.program.parameters)

    def buffers(self) -> dict[str, Array]:
        """Return the arrays that are kept but not learnt, named like the parameters.

        They are read-only views, which follow what training writes.
        """
        return {name: layer.buffers()[own] for name, (layer, own) in self._owners().items()}

    def set_buffer(self, name: str, values: ArrayLike) -> None:
        """Copy `values`, of the same shape, into a buffer."""
        layer, own = self._owners()[name]
        layer.set_buffer(own, values)

    def _owners(self) -> dict[str, tuple[Layer, str]]:
        return self.program.buffers()

    def _set_frozen(self, frozen: bool) -> Self:
        self.frozen = frozen
        for layer in self.children().values():
            layer._set_frozen(frozen)
        return self

    def __getitem__(self, name: str) -> Any:
        return self.children()[name]

    # Description and files

    def summary(self) -> None:
        """Print, layer by layer: output shape, parameters, multiply-adds, receptive field, memory.

        `cycnn.summary.summarize(model)` returns the same as an object.
        """
        from cycnn.summary import summarize

        sys.stdout.write(f"{summarize(self)}\n")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, which `cycnn.load` reads.

        An older file at `path` stays whole until the new one is.
        """
        from cycnn.serialize import save

        save(self, path)
