"""Layers that bring several inputs together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cycnn import ops
from cycnn._check import Array, real_number
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Shapes, axis_from_front, sample_axis


@register
class Add(Layer):
    """Weighted sum of inputs of one shape: y = sum over i of coefficients[i] * x[i].

    Backward: dx[i] = coefficients[i] * dy.

    Parameters
    ----------
    coefficients : sequence of float, optional
        One finite number per input; all 1 by default.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If a coefficient is no finite number; when built, if the inputs differ in shape or there
        is not one coefficient for each.

    Examples
    --------
    >>> y, backward = Add((1, -1)).build(((2,), (2,)))(([[5, 5]], [[1, 2]]))
    >>> y.tolist()
    [[4.0, 3.0]]
    """

    merges = True

    def __init__(
        self, coefficients: Sequence[float] | None = None, *, name: str | None = None
    ) -> None:
        if coefficients is not None:
            coefficients = tuple(real_number(c, "Add: coefficients") for c in coefficients)
            if not coefficients or not np.isfinite(coefficients).all():
                raise ValueError(f"Add: coefficients must be finite numbers, got {coefficients}")
        super().__init__(name=name, coefficients=coefficients)
        self.coefficients = coefficients

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the one shape that all inputs must have."""
        if len(set(input_shape)) > 1:
            raise ValueError(f"Add: all inputs must have one shape, got {input_shape}")
        if self.coefficients and len(self.coefficients) != len(input_shape):
            raise ValueError(
                f"Add: coefficients must be one per input, got {len(self.coefficients)} for "
                f"{len(input_shape)} inputs"
            )
        return tuple(input_shape[0])

    def __call__(self, x: Any, training: bool = False) -> tuple[Array, Backward]:
        """Map a tuple of x (N, ..., C) to y (N, ..., C)."""
        inputs = self.check_inputs(x)
        y = ops.add(inputs, self.coefficients)
        shape, factors = y.shape, self.coefficients or (1.0,) * len(inputs)

        def backward(dy: Any, input_gradient: bool = True) -> tuple[Array, ...] | None:
            dy = self.check_gradient(dy, shape)
            if not input_gradient:
                return None
            return tuple(dy if factor == 1 else ops.scale(dy, factor) for factor in factors)

        return y, backward


@register
class Average(Layer):
    """Mean of n inputs of one shape: y = (x[0] + ... + x[n - 1]) / n.

    Backward: dx[i] = dy / n.

    Parameters
    ----------
    name : str, optional

    Raises
    ------
    ValueError
        When built, if the inputs are not at least two of one shape.

    Examples
    --------
    >>> y, backward = Average().build(((2,), (2,)))(([[5, 1]], [[1, 2]]))
    >>> y.tolist(), backward([[2, 4]])[0].tolist()
    ([[3.0, 1.5]], [[1.0, 2.0]])
    """

    merges = True

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the one shape that all inputs must have."""
        return one_shape(input_shape, "Average")

    def __call__(self, x: Any, training: bool = False) -> tuple[Array, Backward]:
        """Map a tuple of x (N, ..., C) to y (N, ..., C)."""
        inputs = self.check_inputs(x)
        count = len(inputs)
        y = ops.add(inputs, [1 / count] * count)
        shape = y.shape

        def backward(dy: Any, input_gradient: bool = True) -> tuple[Array, ...] | None:
            dy = self.check_gradient(dy, shape)
            return (ops.scale(dy, 1 / count),) * count if input_gradient else None

        return y, backward


@register
class Multiply(Layer):
    """Product of inputs of one shape: y = x[0] * x[1] * ...; attention and gates are made of it.

    Backward: dx[i] = dy times the product of all other inputs.

    Parameters
    ----------
    name : str, optional

    Raises
    ------
    ValueError
        As `Average`.

    Examples
    --------
    >>> y, backward = Multiply().build(((2,), (2,)))(([[5, 0]], [[2, 3]]))
    >>> y.tolist(), [dx.tolist() for dx in backward([[1, 1]])]
    ([[10.0, 0.0]], [[[2.0, 3.0]], [[5.0, 0.0]]])
    """

    merges = True

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the one shape that all inputs must have."""
        return one_shape(input_shape, "Multiply")

    def __call__(self, x: Any, training: bool = False) -> tuple[Array, Backward]:
        """Map a tuple of x (N, ..., C) to y (N, ..., C)."""
        inputs = self.check_inputs(x)
        y = ops.multiply(inputs)
        shape = y.shape

        def backward(dy: Any, input_gradient: bool = True) -> tuple[Array, ...] | None:
            dy = self.check_gradient(dy, shape)
            return ops.multiply_backward(dy, inputs) if input_gradient else None

        return y, backward


@register
class Maximum(Layer):
    """Largest of inputs of one shape, element by element: y = max(x[0], x[1], ...); NaN wins.

    Goodfellow et al. (2013), "Maxout networks", where the inputs are the maps of one unit.

    Backward: dy goes to the input that is the maximum, 0 to the others. Where several are (a tie),
    the first of them gets all of it; so does the first NaN.

    Parameters
    ----------
    name : str, optional

    Raises
    ------
    ValueError
        As `Average`.

    Examples
    --------
    >>> y, backward = Maximum().build(((3,), (3,)))(([[1, 5, 2]], [[1, 4, 3]]))
    >>> y.tolist(), [dx.tolist() for dx in backward([[7, 8, 9]])]
    ([[1.0, 5.0, 3.0]], [[[7.0, 8.0, 0.0]], [[0.0, 0.0, 9.0]]])
    """

    merges = True

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the one shape that all inputs must have."""
        return one_shape(input_shape, "Maximum")

    def __call__(self, x: Any, training: bool = False) -> tuple[Array, Backward]:
        """Map a tuple of x (N, ..., C) to y (N, ..., C)."""
        inputs = self.check_inputs(x)
        y = ops.maximum(inputs)

        def backward(dy: Any, input_gradient: bool = True) -> tuple[Array, ...] | None:
            dy = self.check_gradient(dy, y.shape)
            return ops.maximum_backward(dy, inputs, y) if input_gradient else None

        return y, backward


@register
class Concat(Layer):
    """Put inputs one behind the other along an axis, the channels by default.

    Backward: each input gets back its part of dy.

    Parameters
    ----------
    axis : int
        Counted with the batch, which is axis 0 and refused; negative from the end.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If the axis is 0 or no int; when built, if the inputs differ along another axis.

    Examples
    --------
    >>> Concat().build(((8, 8, 3), (8, 8, 5))).output_shape
    (8, 8, 8)
    """

    merges = True

    def __init__(self, axis: int = -1, *, name: str | None = None) -> None:
        super().__init__(name=name, axis=axis)
        self.axis = sample_axis(axis, "Concat")

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the inputs' shape with the extents along the axis added up."""
        at = axis_from_front(self.axis, input_shape[0], "Concat") - 1
        if len({(*shape[:at], *shape[at + 1 :], len(shape)) for shape in input_shape}) > 1:
            raise ValueError(
                f"Concat: inputs must have one shape except along axis {self.axis}, "
                f"got {input_shape}"
            )
        first = input_shape[0]
        return (*first[:at], sum(shape[at] for shape in input_shape), *first[at + 1 :])

    def __call__(self, x: Any, training: bool = False) -> tuple[Array, Backward]:
        """Map a tuple of x (N, ..., C_i) to y (N, ..., sum of C_i)."""
        inputs = self.check_inputs(x)
        y = ops.concat(inputs, self.axis)
        shape, sizes = y.shape, tuple(item.shape[self.axis] for item in inputs)

        def backward(dy: Any, input_gradient: bool = True) -> tuple[Array, ...] | None:
            dy = self.check_gradient(dy, shape)
            return tuple(ops.split(dy, sizes, self.axis)) if input_gradient else None

        return y, backward


def one_shape(input_shape: Shapes, owner: str) -> Shapes:
    """Return the shape that all of several inputs have; raise ValueError otherwise."""
    if len(input_shape) < 2 or len(set(input_shape)) > 1:
        raise ValueError(f"{owner}: inputs must be at least two of one shape, got {input_shape}")
    return tuple(input_shape[0])
