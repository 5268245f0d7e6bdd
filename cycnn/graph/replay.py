"""Replay: a training step that was run once runs again as two plans, one forward and one back.

The closure protocol is the meaning: the first step on a shape is an ordinary run of the executor,
which is recorded (`engine.Recording`), and a replay makes the same kernels run on new rows, in the
same order and on the same memory, so it gives the same bits.  What it saves is Python, the time
between two kernels, and a wake-up of the threads at each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cycnn import engine
from cycnn._check import Array
from cycnn.graph.model import Model
from cycnn.layers import Lambda

# Shapes whose steps are kept: those of full batches and of the last one of an epoch.
_SHAPES = 2

BackwardOnly = Callable[[Array], None]


class _Place(NamedTuple):
    """Where an array lies whenever the step is replayed."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Step:
    """The plans of one step."""

    def __init__(self, state: Any) -> None:
        self.state = state
        self.recording = engine.Recording()
        self.forward = self.backward = engine.Plan()
        self.x = self.y = self.dy = _Place(0, (), np.dtype(np.float32))
        self.gradients: dict[int, _Place] = {}  # by the number of the parameter
        self.replays: bool | None = None  # not known before backward has run

    def place(self, array: Array) -> _Place:
        """Return where an array lies that was made while recording."""
        return _Place(self.recording.place(array), array.shape, array.dtype)

    def own(self, array: Array) -> Array:
        """Return a copy in the memory of the recording."""
        copy = engine.empty(array.shape, array.dtype)
        copy[...] = array
        return copy


class TrainingRuns:
    """Runs a model forward and back, as training does; what it ran on a shape before, it replays.

    Parameters
    ----------
    model : Model
        With one input and one output.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._steps: dict[tuple[int, ...], _Step] = {}
        self._parameters = tuple(model.parameters().values())
        # Ours say what plans do not show; others may do anything.
        self._known = all(
            type(node.layer).__module__.startswith("cycnn.") and not isinstance(node.layer, Lambda)
            for node in model.program.nodes
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_steps": {}}

    def forget(self) -> None:
        """Let go of all that was recorded, and of its memory."""
        self._steps.clear()

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
        state, step = self._state(), self._steps.get(x.shape)
        if step is None or step.replays is None or step.state != state:
            return self._record(x, state)
        lease = step.recording.lease() if step.replays else None
        return self._run(x) if lease is None else self._replay(step, lease, x)

    def _state(self) -> Any:
        """Return all but arrays that a step depends on."""
        nodes = self.model.program.nodes
        return (
            tuple([parameter.trainable for parameter in self._parameters]),
            tuple([node.layer.changes for node in nodes]),
        )

    def _run(self, x: Array) -> tuple[Array, BackwardOnly]:
        y, backward = self.model(x, training=True)
        return y, lambda dy: backward(dy, input_gradient=False)

    def _record(self, x: Array, state: Any) -> tuple[Array, BackwardOnly]:
        step = _Step(state)
        with step.recording.part() as step.forward:
            x = step.own(x)
            step.x = step.place(x)
            y, backward = self.model(x, training=True)
            step.y = step.place(y)
        del x

        def record_backward(dy: Array) -> None:
            with step.recording.part() as step.backward:
                dy = step.own(dy)
                step.dy = step.place(dy)
                backward(dy, input_gradient=False)
                step.gradients = {
                    i: step.place(parameter.grad)
                    for i, parameter in enumerate(self._parameters)
                    if parameter.has_grad
                }
            step.replays = None if step.recording.crossed else step.recording.usable

        self._steps.pop(step.x.shape, None)
        while len(self._steps) >= _SHAPES:
            del self._steps[next(iter(self._steps))]
        self._steps[step.x.shape] = step
        return y, record_backward

    def _replay(self, step: _Step, lease: Any, x: Array) -> tuple[Array, BackwardOnly]:
        np.copyto(lease.array(*step.x), x)
        step.forward.run()

        def backward(dy: Array) -> None:
            np.copyto(lease.array(*step.dy), dy)
            step.backward.run()
            for i, place in step.gradients.items():
                self._parameters[i].add_grad(lease.array(*place))

        return lease.array(*step.y), backward
