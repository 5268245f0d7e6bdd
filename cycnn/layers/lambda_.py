"""A layer made of a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from cycnn._check import Array, as_input
from cycnn.init import Initial
from cycnn.layers.base import Backward, Layer
from cycnn.layers.building import Shapes, Weight, each

if TYPE_CHECKING:
    from cycnn.autodiff import Variable


class Lambda(Layer):
    """A layer from a function written with `cycnn.autodiff`, which gives the backward pass.

    It runs in NumPy, step by step: the place to try a formula before it has a kernel. What NumPy
    computes by BLAS, `@`, may differ in its last bits with the number of rows and threads. A model
    file holds no code, so a model with a Lambda cannot be saved; a class of one's own can.

    Parameters
    ----------
    function : callable
        Takes a Variable of shape (N, ..., C), or several, and returns one of N rows. Arguments
        without a default, but for the weights, are its inputs.
    weights : mapping of str to array_like, optional
        Starting values of what it learns, which `function` takes as keyword arguments.
    name : str, optional

    Raises
    ------
    TypeError, ValueError
        If `function` is not callable, does not return a Variable, or does not keep the rows.

    Examples
    --------
    >>> from cycnn.autodiff import sigmoid
    >>> swish = Lambda(lambda x, slope: x * sigmoid(slope * x), weights={"slope": 1.0})
    >>> y, backward = swish.build((2,), dtype="float64")([[0.0, 2.0]])
    >>> y.round(4).tolist(), backward([[1.0, 1.0]]).round(4).tolist()
    ([[0.0, 1.7616]], [[0.5, 1.0908]])
    >>> round(float(swish.parameter("slope").grad), 4)
    0.42
    """

    def __init__(
        self,
        function: Callable[..., Variable],
        *,
        weights: Mapping[str, ArrayLike] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name, function=function, weights=weights)
        if not callable(function):
            raise TypeError(f"Lambda: function must be callable, got {function!r}")
        self.function = function
        self.start = {key: as_input(v, np.float64, key) for key, v in (weights or {}).items()}
        self.merges = _counts_inputs(function, self.start) > 1

    def infer(self, input_shape: Shapes) -> Shapes:
        """Run the function on two rows of ones and return the shape that comes out."""
        with np.errstate(all="ignore"):
            _, _, y = self._run([np.ones((2, *shape)) for shape in each(input_shape)], self.start)
        if y.shape[:1] != (2,) or y.ndim < 2:
            raise ValueError(
                f"Lambda: function must keep the rows, (2, ...), got {y.shape} from inputs of "
                f"{', '.join(str((2, *shape)) for shape in each(input_shape))}"
            )
        return y.shape[1:]

    def weights(self, input_shape: Shapes) -> dict[str, Weight]:
        """Ask for the weights, as they were given."""
        return {name: Weight(v.shape, _constant(v)) for name, v in self.start.items()}

    def reach(self, input_shape: Shapes) -> None:
        """A function may look anywhere."""

    def __call__(self, x: Any, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C), or a tuple of them, to what the function returns."""
        arrays = self.check_inputs(x) if self.merges else (self.check_input(x),)
        parameters = self.parameters()
        inputs, weights, result = self._run(arrays, {n: p.data for n, p in parameters.items()})
        y = as_input(result.value, self.dtype, "Lambda: y")

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Any:
            result.backward(self.check_gradient(dy, y.shape))
            for name, weight in weights.items():
                parameters[name].add_grad(_gradient(weight))
            if not input_gradient:
                return None
            return tuple(map(_gradient, inputs)) if self.merges else _gradient(inputs[0])

        return y, backward

    def _run(
        self, arrays: Sequence[Array], start: Mapping[str, Array]
    ) -> tuple[list[Variable], dict[str, Variable], Variable]:
        """Return the inputs and weights as variables, and what the function makes of them."""
        from cycnn.autodiff import Variable  # which `import cycnn` need not wait for

        inputs, weights = [Variable(x) for x in arrays], {n: Variable(w) for n, w in start.items()}
        y = self.function(*inputs, **weights)
        if not isinstance(y, Variable):
            raise TypeError(f"Lambda: function must return a Variable, got {type(y).__name__}")
        return inputs, weights, y

    def __repr__(self) -> str:
        known = getattr(self.function, "__name__", repr(self.function))
        return f"Lambda({', '.join([known, *self.start])})"


def _counts_inputs(function: Callable[..., Any], weights: Mapping[str, Any]) -> int:
    """Return how many inputs a function takes; 2 stands for any number."""
    import inspect  # two milliseconds that `import cycnn` need not take

    arguments = inspect.signature(function).parameters.values()
    if any(a.kind is a.VAR_POSITIONAL for a in arguments):
        return 2
    return sum(
        a.default is a.empty and a.name not in weights and a.kind is not a.VAR_KEYWORD
        for a in arguments
    )


def _constant(values: Array) -> Initial:
    return lambda shape, rng: values


def _gradient(variable: Variable) -> Array:
    """Return the gradient that arrived: zeros where the function did not use the variable."""
    gradient = np.zeros_like(variable.value) if variable.grad is None else variable.grad
    return np.require(gradient, requirements=("C", "W"))
