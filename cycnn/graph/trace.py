"""Trace: one backward pass of a model in the open, layer by layer, from the loss back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cycnn._check import Array
from cycnn.autodiff.tracing import Steps, table
from cycnn.layers import Backward, Layer, Parameter
from cycnn.losses import Loss

if TYPE_CHECKING:
    from cycnn.graph.model import Model


class Step(NamedTuple):
    """One layer in a backward pass, or (first of all) the loss.

    Attributes
    ----------
    name, kind : str
        The layer's name in the model, and its class.
    x, y : ndarray, or tuple of ndarray
        What the layer read and what it made; of the loss, the model's output and the value.
    dy, dx : ndarray, or tuple of ndarray
        The gradient that arrived, dL/dy, and the one handed on, dL/dx.
    gradients : dict of str to ndarray
        dL/dparameter by the parameter's own name; frozen ones have none.
    """

    name: str
    kind: str
    x: Any
    y: Any
    dy: Any
    dx: Any
    gradients: dict[str, Array]


class Trace(Steps[Step]):
    """The steps of a backward pass, from the loss back to the input; printing it gives a table.

    Attributes
    ----------
    loss : float
        The value of the loss.
    """

    def __init__(self, loss: float, steps: Sequence[Step]) -> None:
        super().__init__(steps)
        self.loss = loss

    def __str__(self) -> str:
        lines = [("layer", "kind", "x", "y", "|dy|", "|dx|", "parameter gradients")]
        for step in self.steps:
            gradients = ", ".join(f"|d{n}| {_size(g)}" for n, g in step.gradients.items())
            lines.append((
                step.name, step.kind, _shape(step.x), _shape(step.y), _size(step.dy),
                _size(step.dx), gradients,
            ))  # fmt: skip
        text = table(lines)
        rule = "-" * max(map(len, text))
        title = f"loss {self.loss:.6g}; |.| is the root of the mean square"
        return "\n".join((title, rule, text[0], rule, *text[1:]))

    __repr__ = __str__


def trace(model: Model, x: Any, target: ArrayLike, loss: Loss, training: bool = True) -> Trace:
    """Run a model and its gradient on the same kernels as training, and keep all that passes.

    The run is that of a copy: parameters, gradients, running statistics and the random state of
    the model stay as they are.

    Parameters
    ----------
    model : Model
        With one output.
    x : ndarray of shape (N, *input_shape), or a tuple of them
    target : array_like
        As the loss takes it.
    loss : Loss
    training : bool
        Whether batch statistics and dropout are at work.

    Returns
    -------
    Trace
        The loss, then every layer, the last one first.
    """
    twin = copy.deepcopy(model)
    steps: list[Step] = []
    program = twin.program
    twin._program = program._replace(
        nodes=tuple(
            node._replace(layer=_Recorder(node.name, node.layer, steps)) for node in program.nodes
        ),
    )
    y, backward = twin(x, training)
    value, loss_backward = loss(y, target)
    dy = loss_backward()
    steps.append(Step("loss", type(loss).__name__, y, np.asarray(value), np.ones(()), dy, {}))
    backward(dy)
    return Trace(value, steps)


class _Recorder(Layer):
    """Stands for a layer in a program, and notes what passes through it."""

    def __init__(self, name: str, layer: Layer, steps: list[Step]) -> None:
        super().__init__()
        self.label, self.layer, self.steps = name, layer, steps

    def parameters(self) -> dict[str, Parameter]:
        return self.layer.parameters()

    def __call__(self, x: Any, training: bool = False) -> tuple[Any, Backward]:
        y, layer_backward = self.layer(x, training)

        def backward(dy: Any, input_gradient: bool = True) -> Any:
            parameters = self.parameters()
            for parameter in parameters.values():  # of a shared layer, this place alone
                parameter.clear_grad()
            dx = layer_backward(dy, input_gradient)
            gradients = {name: p.grad for name, p in parameters.items() if p.trainable}
            kind = type(self.layer).__name__
            self.steps.append(Step(self.label, kind, x, y, dy, dx, gradients))
            return dx

        return y, backward


def _each(arrays: Any) -> tuple[Array, ...]:
    return arrays if isinstance(arrays, tuple) else (arrays,)


def _shape(arrays: Any) -> str:
    return ", ".join(" x ".join(map(str, a.shape)) or "1" for a in _each(arrays))


def _size(arrays: Any) -> str:
    """Return the root mean square of each array."""
    squares = [np.mean(np.square(a, dtype=np.float64)) for a in _each(arrays) if a.size]
    return ", ".join(f"{np.sqrt(square):.3g}" for square in squares) or "-"
