"""The sliding window of convolutions and pools: its arguments checked, its geometry worked out."""

from __future__ import annotations

from typing import Any

import numpy as np

from cycnn._check import per_axis
from cycnn.init import Shape
from cycnn.layers.building import Reach, Shapes
from cycnn.ops.window import PADDING_MODES, output_size, resolve_padding, span


class Window:
    """A window of `size` taps that slides over every spatial axis.

    Arguments are an int for all axes or one per axis, so the number of axes may stay open until an
    input comes; what can be refused without it is refused at once.

    Parameters
    ----------
    owner : str
        The class it belongs to, for error messages.
    argument : str
        What the owner calls `size`.
    pooling : bool
        Whether padding is limited to half the window, so that no window lies in padding alone.
    """

    def __init__(
        self,
        owner: str,
        argument: str,
        size: Any,
        stride: Any,
        padding: Any,
        padding_mode: str,
        dilation: Any,
        ceil_mode: bool = False,
        pooling: bool = False,
    ) -> None:
        self.owner, self.argument, self.size, self.stride = owner, argument, size, stride
        self.padding, self.padding_mode, self.dilation = padding, padding_mode, dilation
        self.ceil_mode, self.pooling = ceil_mode, pooling
        if self.padding_mode not in PADDING_MODES:
            raise ValueError(
                f"{self.owner}: padding_mode must be one of {', '.join(PADDING_MODES)}, "
                f"got {self.padding_mode!r}"
            )
        given = (self.size, self.stride, self.dilation, self.padding)
        axes = next((len(v) for v in given if isinstance(v, (tuple, list, np.ndarray))), 1)
        size, stride, dilation = self.numbers(axes)
        border = resolve_padding(self.padding, (1,) * axes, size, stride, dilation, self.owner)
        if self.pooling and not isinstance(self.padding, str):
            for pads, taps, step in zip(border, size, dilation, strict=True):
                if max(pads) > span(taps, step) // 2:
                    raise ValueError(
                        f"{self.owner}: padding must be at most half of {self.argument} (with "
                        f"dilation), {span(taps, step) // 2}, got {self.padding!r}"
                    )

    def numbers(self, axes: int) -> tuple[tuple[int, ...], ...]:
        """Return size, stride and dilation, each per axis."""
        return (
            per_axis(self.size, axes, f"{self.owner}: {self.argument}"),
            per_axis(self.stride, axes, f"{self.owner}: stride"),
            per_axis(self.dilation, axes, f"{self.owner}: dilation"),
        )

    def taps(self, input_shape: Shapes) -> Shape:
        """Return the size per axis; raise ValueError unless there are 1 to 3 spatial axes."""
        axes = len(input_shape) - 1
        if not 1 <= axes <= 3:
            raise ValueError(
                f"{self.owner}: input must have 1 to 3 spatial axes and the channels, "
                f"got shape {input_shape}"
            )
        return self.numbers(axes)[0]

    def output(self, input_shape: Shapes) -> Shape:
        """Return the spatial extents of the output."""
        self.taps(input_shape)
        spatial = input_shape[:-1]
        size, stride, dilation = self.numbers(len(spatial))
        return output_size(
            spatial, size, stride, dilation, self._border(spatial), self.owner,
            ceil_mode=self.ceil_mode,
        )  # fmt: skip

    def smallest_input(self, output_shape: Shapes) -> Shape:
        """Return the least spatial extents of an input that gives this output."""
        self.taps(output_shape)
        spatial = output_shape[:-1]
        border = self._border(spatial)
        return tuple(
            (n - 1) * axis.stride + axis.span - sum(pair)
            for n, axis, pair in zip(spatial, self.reach(output_shape), border, strict=True)
        )

    def reach(self, input_shape: Shapes) -> tuple[Reach, ...]:
        """Return how far one output looks along each axis."""
        spatial = input_shape[:-1]
        size, stride, dilation = self.numbers(len(spatial))
        return tuple(
            Reach(span(taps, between), step, begin)
            for taps, step, between, (begin, _) in zip(
                size, stride, dilation, self._border(spatial), strict=True
            )
        )

    def _border(self, spatial: Shape) -> tuple[tuple[int, int], ...]:
        """Return the padding (begin, end) of each axis."""
        size, stride, dilation = self.numbers(len(spatial))
        return resolve_padding(self.padding, spatial, size, stride, dilation, self.owner)
