"""Where the time of a training step goes: each layer's time, and how close it is to the roofs."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cycnn import engine, roof
from cycnn._check import Array, as_input, positive_int
from cycnn.graph import Model, executor
from cycnn.graph.program import Program, unpack
from cycnn.layers import Backward, Layer, Parameter
from cycnn.layers.building import each
from cycnn.losses import Loss
from cycnn.summary import columns, shape_text
from cycnn.threads import get_num_threads

_WARM_UP = 1  # passes that fill the pool and load kernels

Arrays = tuple[Array, ...]


class Pass(NamedTuple):
    """One direction through a layer, or through all.

    Attributes
    ----------
    ms : float
        Milliseconds, the median of the passes.
    operations : int
        Multiplications and additions of convolutions and dense layers, counted apart.
    bytes : int
        What had to be read and written at least.
    fma_share, copy_share : float
        Operations a second as a share of the FMA peak, bytes a second of a copy's.
    """

    ms: float
    operations: int
    bytes: int
    fma_share: float
    copy_share: float

    @property
    def gflops(self) -> float:
        """Operations a second, in 10^9."""
        return _rate(self.operations, self.ms)

    @property
    def gbytes(self) -> float:
        """Bytes a second, in 10^9."""
        return _rate(self.bytes, self.ms)


class Row(NamedTuple):
    """What one layer costs.

    Attributes
    ----------
    name, kind : str
        The layer's name in the model, and its class.
    macs : int
        Multiply-adds forward for one sample, as the summary has them.
    forward, backward : Pass
        All zero where there was nothing to run.
    """

    name: str
    kind: str
    macs: int
    forward: Pass
    backward: Pass


class Profile(NamedTuple):
    """The rows of a profile, in the order in which the layers run; printing it gives a table.

    Attributes
    ----------
    title : str
        The model, its input and what it ran on.
    rows : tuple of Row
    between : tuple of float
        Milliseconds forward and backward outside of all layers: gradients of a value that several
        layers read are added up, memory is let go, Python goes from layer to layer.
    fma_peak, copy_bandwidth : float
        The roofs, in GFLOP/s and GB/s, for as many threads as the layers had.
    """

    title: str
    rows: tuple[Row, ...]
    between: tuple[float, float]
    fma_peak: float
    copy_bandwidth: float

    @property
    def forward(self) -> Pass:
        """The whole forward pass, what is between the layers counted in."""
        return self._total([row.forward for row in self.rows], self.between[0])

    @property
    def backward(self) -> Pass:
        """The whole backward pass, likewise."""
        return self._total([row.backward for row in self.rows], self.between[1])

    @property
    def macs(self) -> int:
        """Multiply-adds of one sample forward."""
        return sum(row.macs for row in self.rows)

    def _total(self, passes: list[Pass], between: float) -> Pass:
        ms = sum(p.ms for p in passes) + between
        operations, moved = sum(p.operations for p in passes), sum(p.bytes for p in passes)
        return _pass(ms, operations, moved, self.fma_peak, self.copy_bandwidth)

    def __str__(self) -> str:
        measures = ("GFLOP/s", "GB/s", "of FMA", "of copy")
        head = ("layer", "kind", "forward ms", *measures, "backward ms", *measures, "of all")
        whole = self.forward.ms + self.backward.ms
        lines: list[tuple[str, ...]] = [head]
        for row in self.rows:
            share = (row.forward.ms + row.backward.ms) / whole
            cells = (*_cells(row.forward), *_cells(row.backward), f"{share:.1%}")
            lines.append((row.name, row.kind, *cells))
        nothing = ("",) * len(measures)
        forward, backward = self.between
        lines.append((
            "between layers", "", f"{forward:.3f}", *nothing, f"{backward:.3f}", *nothing,
            f"{(forward + backward) / whole:.1%}",
        ))  # fmt: skip
        lines.append(("total", "", *_cells(self.forward), *_cells(self.backward), "100.0%"))
        text = columns(lines, left=2)
        rule = "-" * max(map(len, text))
        roofs = (
            f"FMA peak {self.fma_peak:,.0f} GFLOP/s, copy {self.copy_bandwidth:,.1f} GB/s; "
            "bytes of x, y and parameters, backward of dy, dx and parameter gradients"
        )
        return "\n".join((self.title, rule, text[0], rule, *text[1:-1], rule, text[-1], roofs))


def profile(
    model: Model,
    x: Any,
    target: ArrayLike | None = None,
    loss: Loss | None = None,
    *,
    training: bool = True,
    input_gradient: bool = False,
    repeats: int = 7,
) -> Profile:
    """Measure every layer of a model, forward and backward, one after the other.

    The layers run as the model was written, none fused with the next: what each costs alone. All
    runs are those of a copy: parameters, gradients, running statistics and the random state of the
    model stay as they are. What is counted:

    - time: the median over `repeats` whole passes, after one to warm up, on `get_num_threads()`
      threads. A layer's outputs come from the memory pool, as in training; the loss, the update and
      what lies between layers (`Profile.between`) are not in the rows.
    - operations: two for each multiply-add of the layer's formula, those that meet a border
      included; backward as many for dx and for the weights' gradient, each where it is computed.
      They do not depend on the algorithm: one that needs fewer may pass the FMA peak.
    - bytes: x, y and the parameters once; backward dy, dx and the parameters' gradients once. What
      a layer reads again is not counted (such as x, for the gradient of a weight), and a view, such
      as what `Flatten` makes, is no bytes. Of arrays that a cache holds, more may move in a second
      than of a copy that none holds.
    - the roofs: multiply-adds in registers, in the model's dtype, and a copy of 64 MiB; the better
      of a measurement before the passes and one after.

    Parameters
    ----------
    model : Model
        Built.
    x : array_like of shape (N, *input_shape), or a tuple of them for several inputs
    target : array_like, optional
        With `loss`: what it takes.
    loss : Loss, optional
        Makes the gradient that goes back; without, it is drawn from a normal distribution.
    training : bool
        Whether batch statistics and dropout are at work.
    input_gradient : bool
        Whether the gradient goes back to x, past the first layer that is trained.
    repeats : int

    Returns
    -------
    Profile

    Raises
    ------
    NotBuiltError
        If the model has no input shape yet.
    ValueError
        If x does not fit the model or has no rows, if only one of target and loss is given, or a
        loss for a model of several outputs.

    Examples
    --------
    >>> from cycnn import Conv, ReLU, Sequential
    >>> model = Sequential([Conv(8, 3), ReLU()], input_shape=(8, 8, 1), rng=0)
    >>> result = profile(model, np.zeros((4, 8, 8, 1)), repeats=1)
    >>> [row.name for row in result.rows], result.rows[0].forward.operations
    (['0', '1'], 20736)
    >>> print(result)                                                        # doctest: +SKIP
    """
    if not isinstance(model, Model):
        raise TypeError(f"profile: model must be a Model, got {model!r}")
    if (target is None) != (loss is None):
        given, missing = ("loss", "target") if target is None else ("target", "loss")
        raise ValueError(f"profile: {missing} must come with the {given}, got None")
    outputs = len(each(model.output_shape))
    if loss is not None and outputs > 1:
        raise ValueError(f"profile: loss needs a model of one output, got {outputs}")
    repeats = positive_int(repeats, "profile: repeats")
    inputs = tuple(as_input(a, model.dtype, "profile: x") for a in model._split(x))
    if not len(inputs[0]):
        raise ValueError("profile: x must have at least one row, got 0")

    twin = copy.deepcopy(model).program
    layers = tuple(_Timed(node.layer, node.layer.macs(node.input_shape)) for node in twin.nodes)
    program = twin._replace(
        nodes=tuple(
            node._replace(layer=layer) for node, layer in zip(twin.nodes, layers, strict=True)
        ),
    )
    before = _roofs(model.dtype)
    whole = [
        _run(program, inputs, target, loss, training, input_gradient)
        for _ in range(_WARM_UP + repeats)
    ]
    fma, copied = map(max, zip(before, _roofs(model.dtype), strict=True))
    rows = tuple(
        Row(
            node.name, type(layer.layer).__name__, layer.work,
            *(meter.result(fma, copied) for meter in (layer.forward, layer.backward)),
        )
        for node, layer in zip(program.nodes, layers, strict=True)
    )  # fmt: skip
    forward, backward = zip(*whole, strict=True)
    between = (
        _between(forward, [layer.forward for layer in layers]),
        _between(backward, [layer.backward for layer in layers]),
    )
    threads = get_num_threads()
    title = (
        f"{type(model).__name__} on {len(inputs[0])} x {shape_text(model.input_shape)}, "
        f"{model.dtype}, {engine.ISA}, {threads} thread{'s' * (threads > 1)}, "
        f"{'training' if training else 'inference'}; medians of {repeats}"
    )
    return Profile(title, rows, between, fma, copied)


class _Meter:
    """The seconds of each pass through a layer in one direction, and what a pass does."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.operations = 0
        self.bytes = 0

    def result(self, fma: float, copied: float) -> Pass:
        ms = _median_ms(self.seconds)
        return _pass(ms, self.operations, self.bytes, fma, copied)


class _Timed(Layer):
    """Stands for a layer in a program, and takes its time."""

    def __init__(self, layer: Layer, macs: int) -> None:
        super().__init__()
        self.layer, self.work = layer, macs
        self.forward, self.backward = _Meter(), _Meter()

    def parameters(self) -> dict[str, Parameter]:
        return self.layer.parameters()

    def __call__(self, x: Any, training: bool = False) -> tuple[Any, Backward]:
        start = time.perf_counter()
        y, layer_backward = self.layer(x, training)
        seconds = time.perf_counter() - start
        rows = len(_each(x)[0])
        parameters = tuple(self.parameters().values())
        if not self.forward.seconds:
            self.forward.operations = 2 * self.work * rows
            self.forward.bytes = _moved(_each(x), _each(y), sum(map(_size, parameters)))
        self.forward.seconds.append(seconds)

        def backward(dy: Any, input_gradient: bool = True) -> Any:
            start = time.perf_counter()
            dx = layer_backward(dy, input_gradient)
            seconds = time.perf_counter() - start
            if not self.backward.seconds:
                trained = [p for p in parameters if p.trainable]
                gradients = (dx is not None) + bool(trained)
                results = () if dx is None else _each(dx)
                self.backward.operations = 2 * self.work * rows * gradients
                self.backward.bytes = _moved(_each(dy), results, sum(map(_size, trained)))
            self.backward.seconds.append(seconds)
            return dx

        return y, backward


def _run(
    program: Program,
    inputs: Arrays,
    target: ArrayLike | None,
    loss: Loss | None,
    training: bool,
    input_gradient: bool,
) -> tuple[float, float]:
    """Run all layers once and return the seconds forward and backward."""
    for parameter in program.parameters.values():
        parameter.clear_grad()  # as an update leaves them
    start = time.perf_counter()
    outputs, closures = executor.forward(program, inputs, training)
    forward = time.perf_counter() - start
    if loss is None or target is None:
        rng = np.random.default_rng(0)
        gradients = tuple(rng.standard_normal(y.shape, dtype=y.dtype.type) for y in outputs)
    else:
        _, loss_backward = loss(unpack(outputs), target)
        gradients = (loss_backward(),)
    rows, dtype = len(inputs[0]), inputs[0].dtype
    start = time.perf_counter()
    executor.backward(program, closures, gradients, rows, dtype, input_gradient)
    return forward, time.perf_counter() - start


def _roofs(dtype: np.dtype[Any]) -> tuple[float, float]:
    return roof.fma_peak(dtype), roof.copy_bandwidth()


def _between(whole: Sequence[float], meters: Sequence[_Meter]) -> float:
    """Return the milliseconds of a pass that no layer took."""
    inside = zip(*(meter.seconds for meter in meters if meter.seconds), strict=True)
    sums = [sum(seconds) for seconds in inside] or [0.0] * len(whole)
    return _median_ms([a - b for a, b in zip(whole, sums, strict=True)])


def _median_ms(seconds: Sequence[float]) -> float:
    """Return the median in milliseconds, without the passes that warm up; 0 of nothing."""
    return 1e3 * statistics.median(seconds[_WARM_UP:]) if seconds else 0.0


def _moved(read: Arrays, written: Arrays, others: int) -> int:
    """Return the bytes of what is read, of what is written and is no view of it, and of others."""
    fresh = [a for a in written if not any(np.may_share_memory(a, b) for b in read)]
    if not fresh and not others:
        return 0
    return sum(a.nbytes for a in (*read, *fresh)) + others


def _size(parameter: Parameter) -> int:
    return parameter.size * parameter.dtype.itemsize


def _each(arrays: Any) -> Arrays:
    return arrays if isinstance(arrays, tuple) else (arrays,)


def _pass(ms: float, operations: int, moved: int, fma: float, copied: float) -> Pass:
    shares = _rate(operations, ms) / fma, _rate(moved, ms) / copied
    return Pass(ms, operations, moved, *shares)


def _rate(count: int, ms: float) -> float:
    """Return 10^9 a second; 0 where there was nothing to do."""
    return count / ms / 1e6 if ms and count else 0.0


def _cells(taken: Pass) -> tuple[str, ...]:
    """Return one direction as text."""
    rates = (f"{taken.gflops:,.1f}", f"{taken.gbytes:,.1f}")
    shares = (f"{taken.fma_share:.0%}", f"{taken.copy_share:.0%}")
    pairs = zip((taken.operations, taken.bytes), rates, shares, strict=True)
    (gflops, fma), (gbytes, copied) = ((a, b) if count else ("-", "-") for count, a, b in pairs)
    return f"{taken.ms:.3f}", gflops, gbytes, fma, copied
