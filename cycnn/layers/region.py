"""Layers that take a part of their input, or put a border around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, integer
from cycnn.init import Shape
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Reach, Shapes, axis_from_front, sample_axis
from cycnn.ops.window import PADDING_MODES

Borders = int | Sequence[tuple[int, int]]
"""A width for all sides, or (begin, end) for each spatial axis."""


@register
class Slice(Layer):
    """A range of channels, or of any other axis but the batch: y = x[..., start:stop].

    Backward: dx is dy inside the range and 0 outside.

    Parameters
    ----------
    start, stop : int or None
        As Python counts: negative from the end, None for the beginning and the end.
    axis : int
        Counted with the batch, which is axis 0 and refused; negative from the end.
    name : str, optional

    Raises
    ------
    ValueError
        When built, if the range is empty or not inside the axis.

    Examples
    --------
    >>> Slice(0, 16).build((8, 8, 64)).output_shape
    (8, 8, 16)
    >>> Slice(-3, None, axis=1).build((8, 8, 64)).output_shape
    (3, 8, 64)
    """

    def __init__(
        self, start: int | None, stop: int | None, axis: int = -1, *, name: str | None = None
    ) -> None:
        super().__init__(name=name, start=start, stop=stop, axis=axis)
        self.start, self.stop = (
            None if value is None else integer(value, f"Slice: {argument}", -(2**62))
            for argument, value in (("start", start), ("stop", stop))
        )
        self.axis = sample_axis(axis, "Slice")

    def _range(self, shape: Shape) -> tuple[int, int, int]:
        """Return start, stop and axis, all from the front, for a shape without the batch."""
        axis = axis_from_front(self.axis, shape, "Slice")
        length = shape[axis - 1]
        start, stop = (
            default if value is None else value + length * (value < 0)
            for value, default in ((self.start, 0), (self.stop, length))
        )
        if not 0 <= start < stop <= length:
            raise ValueError(
                f"Slice: start and stop must be a range inside axis {axis} of length {length}, "
                f"got {self.start} and {self.stop}"
            )
        return start, stop, axis

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the input's shape with the range's length on its axis."""
        start, stop, axis = self._range(input_shape)
        return (*input_shape[: axis - 1], stop - start, *input_shape[axis:])

    def reach(self, input_shape: Shapes) -> tuple[Reach, ...]:
        """Each output sees one pixel, `start` further on along the axis."""
        start, _, axis = self._range(input_shape)
        return tuple(
            Reach(1, 1, -start if i + 1 == axis else 0) for i in range(len(input_shape) - 1)
        )

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to its range."""
        x = self.check_input(x)
        shape, (start, stop, axis) = x.shape, self._range(x.shape[1:])
        y = ops.slice_axis(x, start, stop, axis)
        y_shape = y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            if not input_gradient:
                return None
            return ops.slice_axis_backward(dy, shape, start, stop, axis)

        return y, backward


@register
class Split(Layer):
    """Consecutive parts of the channels, or of any other axis but the batch: several outputs.

    `Parallel` given a split feeds its branch i with part i. Backward: dx is the parts' gradients,
    one behind the other. Regions that overlap are taken with `Slice`.

    Parameters
    ----------
    indices_or_sections : int or sequence of int
        The number of equal parts, or where the second and each later part begins (`numpy.split`);
        at least two parts.
    axis : int
        Counted with the batch, which is axis 0 and refused; negative from the end.
    name : str, optional

    Raises
    ------
    ValueError
        When built, if the axis cannot be divided so.

    Examples
    --------
    >>> Split(2).build((8, 8, 6)).output_shape
    ((8, 8, 3), (8, 8, 3))
    >>> upper, lower = Split([3], axis=1).build((8, 8, 6)).output_shape
    >>> upper, lower
    ((3, 8, 6), (5, 8, 6))
    """

    def __init__(
        self, indices_or_sections: int | Sequence[int], axis: int = -1, *, name: str | None = None
    ) -> None:
        argument = "Split: indices_or_sections"
        self.cuts: int | tuple[int, ...]
        if isinstance(indices_or_sections, (tuple, list, np.ndarray)):
            self.cuts = tuple(integer(i, argument, 1) for i in indices_or_sections)
            if not self.cuts or any(a >= b for a, b in zip(self.cuts, self.cuts[1:], strict=False)):
                raise ValueError(f"{argument} must increase, at least one, got {self.cuts}")
        else:
            self.cuts = integer(indices_or_sections, argument, 2)
        super().__init__(name=name, indices_or_sections=self.cuts, axis=axis)
        self.axis = sample_axis(axis, "Split")

    def _sizes(self, shape: Shape) -> tuple[int, tuple[int, ...]]:
        """Return the axis and the length of each part for a shape without the batch."""
        axis = axis_from_front(self.axis, shape, "Split")
        length = shape[axis - 1]
        if isinstance(self.cuts, int):
            if length % self.cuts:
                raise ValueError(
                    f"Split: indices_or_sections must divide the length of axis {axis}, {length}, "
                    f"got {self.cuts}"
                )
            return axis, (length // self.cuts,) * self.cuts
        if self.cuts[-1] >= length:
            raise ValueError(
                f"Split: indices_or_sections must be less than the length of axis {axis}, "
                f"{length}, got {self.cuts}"
            )
        return axis, tuple(np.diff((0, *self.cuts, length)).tolist())

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return a shape for each part."""
        axis, sizes = self._sizes(input_shape)
        return tuple((*input_shape[: axis - 1], size, *input_shape[axis:]) for size in sizes)

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[tuple[Array, ...], Backward]:
        """Map x (N, ..., C) to the tuple of its parts."""
        x = self.check_input(x)
        axis, sizes = self._sizes(x.shape[1:])
        parts = ops.split(x, sizes, axis)
        shapes = tuple(part.shape for part in parts)

        def backward(dy: Any, input_gradient: bool = True) -> Array | None:
            if not isinstance(dy, (tuple, list)) or len(dy) != len(shapes):
                raise ValueError(f"Split: dy must be a tuple of {len(shapes)} arrays, one per part")
            checked = tuple(map(self.check_gradient, dy, shapes))
            return ops.concat(checked, axis) if input_gradient else None

        return parts, backward


class Bordered(Layer):
    """What Pad and Crop share: a border for each spatial axis."""

    def _border(self, value: Any, argument: str) -> Any:
        """Return what the constructor was given, checked as far as it can be without an input."""
        given = isinstance(value, (tuple, list, np.ndarray))
        checked = ops.borders(value, len(value) if given else 1, argument)
        return checked if given else checked[0][0]

    def _each(self, value: Any, shape: Shapes, argument: str) -> tuple[tuple[int, int], ...]:
        """Return (begin, end) for each axis of a shape without the batch."""
        axes = len(shape) - 1
        if not 1 <= axes <= 3:
            raise ValueError(
                f"{type(self).__name__}: input must have 1 to 3 spatial axes and the channels, "
                f"got shape {shape}"
            )
        return ops.borders(value, axes, argument)


@register
class Pad(Bordered):
    """A border around the spatial axes.

    On the row 1 2 3 4 with a border of 2::

        zeros      0 0 | 1 2 3 4 | 0 0        (any other `value` too)
        reflect    3 2 | 1 2 3 4 | 3 2
        replicate  1 1 | 1 2 3 4 | 4 4
        circular   3 4 | 1 2 3 4 | 1 2

    Backward: each pixel gets the sum of the gradients of all places that hold a copy of it.

    Parameters
    ----------
    padding : int or sequence of (begin, end)
        Pixels on all sides, or for each spatial axis.
    mode : {"zeros", "reflect", "replicate", "circular"}
        A reflection or a circle goes on as often as the border needs it.
    value : float
        What a border of mode "zeros" holds.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If a width is negative or no int, the mode is unknown, or a value comes with a mode that
        copies pixels; when built, if there are not as many pairs as spatial axes.

    Examples
    --------
    >>> Pad(((1, 2), (0, 0))).build((8, 8, 3)).output_shape
    (11, 8, 3)
    """

    def __init__(
        self, padding: Borders, mode: str = "zeros", value: float = 0, *, name: str | None = None
    ) -> None:
        self.padding = self._border(padding, "Pad: padding")
        super().__init__(name=name, padding=self.padding, mode=mode, value=value)
        if mode not in PADDING_MODES:
            raise ValueError(f"Pad: mode must be one of {', '.join(PADDING_MODES)}, got {mode!r}")
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise TypeError(f"Pad: value must be a number, got {value!r}")
        if not math.isfinite(value) or (value != 0 and mode != "zeros"):
            rule = f"0 in mode {mode!r}, which copies pixels" if mode != "zeros" else "finite"
            raise ValueError(f"Pad: value must be {rule}, got {value!r}")
        self.mode, self.value = mode, float(value)

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the input's shape with the border on each spatial axis."""
        border = self._each(self.padding, input_shape, "Pad: padding")
        sizes = (n + sum(pair) for n, pair in zip(input_shape[:-1], border, strict=True))
        return (*sizes, input_shape[-1])

    def reach(self, input_shape: Shapes) -> tuple[Reach, ...]:
        """Each output sees one pixel, the first of them the border."""
        border = self._each(self.padding, input_shape, "Pad: padding")
        return tuple(Reach(1, 1, begin) for begin, _ in border)

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C) to y (N, spatial..., C)."""
        x = self.check_input(x)
        y = ops.pad(x, self.padding, self.mode, self.value)
        x_shape, y_shape = x.shape, y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            if not input_gradient:
                return None
            return ops.pad_backward(dy, x_shape, self.padding, self.mode)

        return y, backward


@register
class Crop(Bordered):
    """The inside of the spatial axes: a border is cut off.

    Backward: dx is dy inside and 0 on the border.

    Parameters
    ----------
    cropping : int or sequence of (begin, end)
        Pixels from all sides, or for each spatial axis.
    name : str, optional

    Raises
    ------
    ValueError
        When built, if nothing is left.

    Examples
    --------
    >>> Crop(((1, 2), (0, 0))).build((8, 8, 3)).output_shape
    (5, 8, 3)
    """

    def __init__(self, cropping: Borders, *, name: str | None = None) -> None:
        self.cropping = self._border(cropping, "Crop: cropping")
        super().__init__(name=name, cropping=self.cropping)

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the input's shape without the border."""
        cut = self._each(self.cropping, input_shape, "Crop: cropping")
        sizes = tuple(n - sum(pair) for n, pair in zip(input_shape[:-1], cut, strict=True))
        if min(sizes) < 1:
            raise ValueError(
                f"Crop: cropping must leave at least one pixel of {input_shape[:-1]}, "
                f"got {self.cropping}"
            )
        return (*sizes, input_shape[-1])

    def reach(self, input_shape: Shapes) -> tuple[Reach, ...]:
        """Each output sees one pixel, further in."""
        cut = self._each(self.cropping, input_shape, "Crop: cropping")
        return tuple(Reach(1, 1, -begin) for begin, _ in cut)

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C) to y (N, spatial..., C)."""
        x = self.check_input(x)
        y = ops.crop(x, self.cropping)
        x_shape, y_shape = x.shape, y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            return ops.crop_backward(dy, x_shape, self.cropping) if input_gradient else None

        return y, backward
