"""Replay: what a model ran once on some shape runs again as one plan, or as two to train it.

The closure protocol is the meaning: the first time is an ordinary run of the executor, which is
recorded (`engine.Recording`), and a replay makes the same kernels run on new rows, in the same
order and on the same memory, so it gives the same bits.  What it saves is Python, the time between
two kernels, and a wake-up of the threads at each.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cycnn import engine, ops
from cycnn._check import Array
from cycnn.graph import executor
from cycnn.graph.executor import Arrays
from cycnn.graph.pace import Paces
from cycnn.graph.program import Program
from cycnn.layers import Lambda, Parameter
from cycnn.threads import get_num_threads

if TYPE_CHECKING:
    from cycnn.graph.model import Model

# Shapes whose runs are kept: those of full batches and of the last one of an epoch.
_SHAPES = 2

# How often in a row a shape is predicted before it is recorded: memory is kept for what is a habit.
HABIT = 8

BackwardOnly = Callable[[Array], None]


class _Place(NamedTuple):
    """Where an array lies whenever its run is replayed."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Run:
    """The plans of one run, and where its arrays lie."""

    def __init__(self, state: Any) -> None:
        self.state = state
        self._begin()
        self.inputs: tuple[_Place, ...] = ()
        self.outputs: tuple[_Place, ...] = ()
        self.dy: _Place | None = None
        self.gradients: dict[int, _Place] = {}  # by the number of the parameter
        self.replays: bool | None = None  # not known before all of it has run

    def _begin(self) -> None:
        self.recording = engine.Recording()
        self.forward = self.backward = engine.Plan()

    def place(self, array: Array) -> _Place:
        """Return where an array lies that was made while recording."""
        return _Place(self.recording.place(array), array.shape, array.dtype)

    def own(self, inputs: Arrays) -> Arrays:
        """Return copies of the inputs in the memory of the recording."""
        copies = tuple(_copy(x) for x in inputs)
        self.inputs = tuple(self.place(x) for x in copies)
        return copies

    def complete(self) -> None:
        """All has run: note whether it can be replayed, or must be recorded once more."""
        self.replays = None if self.recording.crossed else self.recording.usable
        if not self.replays:
            self._begin()  # and let go of the memory

    def start(self, inputs: Arrays) -> Any:
        """Run forward on new inputs; return the lease of the memory, or None if it is in use."""
        lease = self.recording.lease() if self.replays else None
        if lease is not None:
            for place, x in zip(self.inputs, inputs, strict=True):
                np.copyto(lease.array(*place), x)
            self.forward.run()
        return lease


def _copy(array: Array) -> Array:
    copy = engine.empty(array.shape, array.dtype)
    copy[...] = array
    return copy


class _Runs:
    """The runs of a program that are kept."""

    def __init__(self, program: Program, parameters: Sequence[Parameter] = ()) -> None:
        self._program = program
        self._parameters = parameters
        self._kept: dict[Hashable, _Run] = {}
        self.paces = Paces()
        # Our layers say what plans do not show; others may do anything.
        self._known = all(
            type(node.layer).__module__.startswith("cycnn.layers.")
            and not isinstance(node.layer, Lambda)
            for node in program.nodes
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": {}}

    def forget(self) -> None:
        """Let go of all that was recorded, and of its memory."""
        self._kept.clear()

    def _state(self) -> Any:
        """Return all but arrays that a run depends on."""
        return (
            tuple([parameter.trainable for parameter in self._parameters]),
            tuple([node.layer.changes for node in self._program.nodes]),
        )

    def _find(self, key: Hashable, state: Any) -> _Run | None:
        """Return what was recorded in this state."""
        run = self._kept.get(key)
        return None if run is None or run.replays is None or run.state != state else run

    def _keep(self, key: Hashable, run: _Run) -> None:
        """Keep a run, and let go of the oldest of too many; other threads may do the same."""
        self._kept.pop(key, None)
        self._kept[key] = run
        for oldest in list(self._kept)[:-_SHAPES]:
            self._kept.pop(oldest, None)


class TrainingRuns(_Runs):
    """Runs a model forward and back, as training does; what it ran on a shape before, it replays.

    Parameters
    ----------
    model : Model
        With one input and one output.
    """

    def __init__(self, model: "Model") -> None:
        super().__init__(model.program, tuple(model.parameters().values()))
        self._model = model

    def __call__(self, x: Array) -> tuple[Array, BackwardOnly]:
        """Return y and a function that adds the gradient of every parameter for a dy, once.

        Both are what ``y, backward = model(x, training=True)`` and
        ``backward(dy, input_gradient=False)`` give, bit for bit. y may be written to as soon as the
        function has been called.

        Parameters
        ----------
        x : ndarray of shape (N, *input_shape)
            Checked: C-contiguous, in the model's dtype, with at least one row.
        """
        if not self._known or any(parameter.has_grad for parameter in self._parameters):
            return self._run(x)
        # How a weight gradient is cut in jobs depends on the number of threads.
        key, state = (x.shape, get_num_threads()), self._state()
        run = self._find(key, state)
        if run is None:
            return self._record(x, key, state)
        lease = run.start((x,))
        return self._run(x) if lease is None else self._replay(run, lease)

    def _run(self, x: Array) -> tuple[Array, BackwardOnly]:
        y, backward = self._model(x, training=True)
        return y, lambda dy: backward(dy, input_gradient=False)

    def _record(self, x: Array, key: Hashable, state: Any) -> tuple[Array, BackwardOnly]:
        run = _Run(state)
        self._keep(key, run)
        with run.recording.part() as run.forward:
            (x,) = run.own((x,))
            y, backward = self._model(x, training=True)
            run.outputs = (run.place(y),)

        def record_backward(dy: Array) -> None:
            with run.recording.part() as run.backward:
                dy = _copy(dy)
                run.dy = run.place(dy)
                backward(dy, input_gradient=False)
                run.gradients = {
                    i: run.place(parameter.grad)
                    for i, parameter in enumerate(self._parameters)
                    if parameter.has_grad
                }
            run.complete()

        return y, record_backward

    def _replay(self, run: _Run, lease: Any) -> tuple[Array, BackwardOnly]:
        def backward(dy: Array) -> None:
            assert run.dy is not None
            np.copyto(lease.array(*run.dy), dy)
            run.backward.run()
            for i, place in run.gradients.items():
                self._parameters[i].add_grad(lease.array(*place))

        return lease.array(*run.outputs[0]), backward


class PredictionRuns(_Runs):
    """Runs a program forward; a shape that came HABIT times in a row it replays from then on."""

    def __init__(self, program: Program, fused: Program) -> None:
        super().__init__(program)
        self._fused = fused
        self._last: Hashable = None
        self._times = 0  # that it came in a row

    def __call__(self, inputs: Arrays, batch_size: int) -> Arrays:
        """Return the outputs, which the caller copies.

        Parameters
        ----------
        inputs : tuple of ndarray
            Checked: C-contiguous, in the model's dtype.
        batch_size : int
            For how many rows algorithms are chosen.
        """
        key: Hashable = (batch_size, *[x.shape for x in inputs])
        with ops.planned_for(batch_size), self.paces.run() as pace:
            pace.on(key)
            if not self._known:
                return self._run(inputs)
            self._last, self._times = key, self._times + 1 if self._last == key else 1
            state = self._state()
            run = self._find(key, state)
            if run is None and self._times >= HABIT:
                return self._record(inputs, key, state)
            lease = None if run is None else run.start(inputs)
            if run is None or lease is None:
                return self._run(inputs)
            return tuple(lease.array(*place) for place in run.outputs)

    def _run(self, inputs: Arrays) -> Arrays:
        return executor.forward(self._fused, inputs, False, keep=False)[0]

    def _record(self, inputs: Arrays, key: Hashable, state: Any) -> Arrays:
        run = _Run(state)
        with run.recording.part() as run.forward:
            outputs = self._run(run.own(inputs))
            run.outputs = tuple(map(run.place, outputs))
        run.complete()
        self._keep(key, run)
        return outputs
