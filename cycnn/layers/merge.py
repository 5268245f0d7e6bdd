"""Layers that bring several inputs together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cycnn import ops
from cycnn._check import Array
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Shapes


@register
class Add(Layer):
    """Weighted sum of inputs of one shape: y = sum over i of coefficients[i] * x[i].

    Backward: dx[i] = coefficients[i] * dy.

    Parameters
    ----------
    coefficients : sequence of float, optional
        One finite number per input; all 1 by default.
    name : str, optional

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
            coefficients = tuple(float(c) for c in coefficients)
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
class Concat(Layer):
    """Put inputs one behind the other along an axis, the channels by default.

    Backward: each input gets back its part of dy.

    Parameters
    ----------
    axis : int
        Counted with the batch, which is axis 0 and refused; negative from the end.
    name : str, optional

    Examples
    --------
    >>> Concat().build(((8, 8, 3), (8, 8, 5))).output_shape
    (8, 8, 8)
    """

    merges = True

    def __init__(self, axis: int = -1, *, name: str | None = None) -> None:
        super().__init__(name=name, axis=axis)
        if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
            raise TypeError(f"Concat: axis must be an int, got {axis!r}")
        if axis == 0:
            raise ValueError("Concat: axis must not be 0, the batch, got 0")
        self.axis = int(axis)

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the inputs' shape with the extents along the axis added up."""
        axes = len(input_shape[0]) + 1
        if not 1 <= self.axis % axes or not -axes <= self.axis < axes:
            raise ValueError(
                f"Concat: axis must be one of 1 ... {axes - 1} (0 is the batch) or negative for "
                f"inputs of {axes} axes, got {self.axis}"
            )
        at = self.axis % axes - 1
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
