"""Functions of variables: of each value by itself, of two, of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cycnn.autodiff.variable import Array, Variable, elementwise, lift, linear

Function = Callable[["Variable | ArrayLike"], Variable]


def function(
    name: str, value: Callable[[Array], Array], derivative: Callable[[Array, Array], Any]
) -> Function:
    """Return a new function of variables that acts on each value by itself.

    Parameters
    ----------
    name : str
        What traces call it.
    value : callable
        y of x, on arrays.
    derivative : callable
        dy/dx of (x, y), on arrays.

    Examples
    --------
    >>> sin = function("sin", np.sin, lambda x, y: np.cos(x))
    >>> x = Variable(0.0)
    >>> sin(x).backward()
    >>> float(x.grad)
    1.0
    """

    def call(x: Variable | ArrayLike) -> Variable:
        operand = lift(x)
        y = value(operand.value)
        return elementwise(f"{name}({{}})", y, (operand, lambda: derivative(operand.value, y)))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"Return {name} of each value."
    return call


def _sigmoid(x: Array) -> Array:
    small: Array = np.exp(-np.abs(x))  # never overflows
    y: Array = np.where(x >= 0, 1, small) / (1 + small)
    return y


exp = function("exp", np.exp, lambda x, y: y)
log = function("log", np.log, lambda x, y: 1 / x)
sqrt = function("sqrt", np.sqrt, lambda x, y: 0.5 / y)
tanh = function("tanh", np.tanh, lambda x, y: 1 - y * y)
sigmoid = function("sigmoid", _sigmoid, lambda x, y: y * (1 - y))
relu = function("relu", lambda x: np.maximum(x, 0), lambda x, y: y > 0)
absolute = function("absolute", np.abs, lambda x, y: np.sign(x))


def maximum(a: Variable | ArrayLike, b: Variable | ArrayLike) -> Variable:
    """Return the larger of a and b, value by value; where they are equal a gets the gradient."""
    first = lift(a, b if isinstance(b, Variable) else None)
    second = lift(b, first)
    wins = second.value > first.value
    return elementwise(
        "max({}, {})", np.maximum(first.value, second.value), (first, lambda: ~wins),
        (second, lambda: wins),
    )  # fmt: skip


def max(  # noqa: A001
    x: Variable | ArrayLike, *others: Variable | ArrayLike, axis: int | None = None
) -> Variable:
    """Return the largest of several, value by value, or the largest value of one.

    Where values are equal, the first one gets the gradient.
    """
    if not others:
        return lift(x).max(axis)
    if axis is not None:
        raise ValueError(f"max: axis must come with one argument, got {1 + len(others)}")
    result = lift(x)
    for other in others:
        result = maximum(result, other)
    return result


def sum(  # noqa: A001
    x: Variable | ArrayLike, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Variable:
    """Return the sum over some axes, or over all."""
    return lift(x).sum(axis, keepdims)


def mean(
    x: Variable | ArrayLike, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Variable:
    """Return the mean over some axes, or over all."""
    return lift(x).mean(axis, keepdims)


def where(condition: ArrayLike, a: Variable | ArrayLike, b: Variable | ArrayLike) -> Variable:
    """Return a where the condition holds and b elsewhere; so go the gradients."""
    chosen = np.asarray(condition, dtype=bool)
    first = lift(a, b if isinstance(b, Variable) else None)
    second = lift(b, first)
    return elementwise(
        "where(..., {}, {})", np.where(chosen, first.value, second.value), (first, lambda: chosen),
        (second, lambda: ~chosen),
    )  # fmt: skip


def concatenate(variables: Sequence[Variable | ArrayLike], axis: int = -1) -> Variable:
    """Return several one behind the other along an axis; each gets back its part of dy."""
    like = next((v for v in variables if isinstance(v, Variable)), None)
    items = [lift(v, like) for v in variables]
    ends = np.cumsum([item.shape[axis] for item in items])

    def part(start: int, end: int) -> Callable[[Array], Array]:
        return lambda dy: np.take(dy, np.arange(start, end), axis)

    return linear(
        f"concatenate({', '.join(['{}'] * len(items))}, axis={axis})",
        np.concatenate([item.value for item in items], axis),
        *(
            (item, "its part of dy", part(int(end) - item.shape[axis], int(end)))
            for item, end in zip(items, ends, strict=True)
        ),
    )
