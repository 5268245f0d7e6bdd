"""What a layer says about itself while it is built: shapes, the arrays it asks for, its reach."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from cycnn._check import Array, float_dtype, integer
from cycnn.init import Initial, Shape

Rng: TypeAlias = "int | np.random.Generator | None"  # a text: importing numpy.random takes 9 ms
Shapes = tuple[Any, ...]
"""A shape without the batch, or a tuple of shapes where there are several inputs or outputs."""


class Weight(NamedTuple):
    """An array that a layer asks for: a parameter, or (not learnt) a buffer."""

    shape: Shape
    initial: Initial
    learnt: bool = True


class Reach(NamedTuple):
    """How far outputs look along one axis: o sees inputs o * stride - begin + (0 ... span - 1)."""

    span: int
    stride: int
    begin: int


class Source:
    """Where the arrays of a layer or model come from while it is built: drawn at random.

    Parameters
    ----------
    rng : int, numpy.random.Generator or None
        None draws differently every time.
    dtype : float32 or float64
    """

    def __init__(self, rng: Rng, dtype: DTypeLike) -> None:
        self._rng = np.random.default_rng(rng)
        self.dtype = float_dtype(dtype)

    @property
    def rng(self) -> "np.random.Generator":
        """Draws the weights, and what else a layer draws while it is built."""
        return self._rng

    def array(self, name: str, weight: Weight) -> Array:
        """Return the starting values of the array called `name`."""
        return weight.initial(weight.shape, self.rng)


def flag(value: Any, name: str) -> bool:
    """Return `value`, which must be True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def several(shapes: Shapes) -> bool:
    """Say whether `shapes` is a tuple of shapes instead of one shape."""
    return bool(shapes) and isinstance(shapes[0], tuple)


def as_shapes(value: Any, name: str = "input_shape") -> Shapes:
    """Return a shape as a tuple of ints of at least 1, several shapes as a tuple of such.

    Raises
    ------
    TypeError, ValueError
        If it is no sequence, is empty, or has an axis that is not an int of at least 1.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"{name} must be a tuple of ints without the batch, got {value!r}")
    if not value:
        raise ValueError(f"{name} must have at least one axis, the channels, got ()")
    if all(isinstance(item, Sequence) for item in value):
        return tuple(as_shapes(item, name) for item in value)
    return tuple(integer(item, f"{name}: every axis", 1) for item in value)


def kinds(shapes: Shapes) -> tuple[tuple[int, int], ...]:
    """Return (axes, channels) of each input: what a layer built for `shapes` insists on."""
    return tuple((len(shape), shape[-1] if shape else 0) for shape in each(shapes))


def each(shapes: Shapes) -> tuple[Shape, ...]:
    """Return the shapes one by one."""
    return shapes if several(shapes) else (shapes,)


def sample_axis(value: Any, owner: str) -> int:
    """Return an axis, counted with the batch; raise if it is no int or 0, the batch."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{owner}: axis must be an int, got {value!r}")
    if value == 0:
        raise ValueError(f"{owner}: axis must not be 0, the batch, got 0")
    return int(value)


def axis_from_front(axis: int, shape: Shape, owner: str) -> int:
    """Return `axis` as one of 1 ... len(shape) for a shape without the batch, which is axis 0."""
    axes = len(shape) + 1
    if not -axes < axis < axes:
        raise ValueError(
            f"{owner}: axis must be one of 1 ... {axes - 1} (0 is the batch) or negative for "
            f"inputs of {axes} axes, got {axis}"
        )
    return axis % axes
