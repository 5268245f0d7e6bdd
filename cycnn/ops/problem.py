"""A convolution problem: its arguments checked, its sizes resolved, its axes laid out."""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from cycnn._check import hashable, per_axis, positive_int
from cycnn.ops import blocking
from cycnn.ops.blocking import Axis
from cycnn.ops.window import PADDING_MODES, output_size, resolve_padding

Pairs = tuple[tuple[int, int], ...]


class Problem(NamedTuple):
    """A convolution with its sizes resolved: three spatial axes, the missing ones in front."""

    batch: int
    size: tuple[int, ...]
    channels: int
    kernel: tuple[int, ...]
    filters: int
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs
    mode: str
    groups: int
    out: tuple[int, ...]
    axes: int
    dtype: Any

    @property
    def taps(self) -> int:
        """Pixels of the kernel."""
        return math.prod(self.kernel)

    @property
    def work(self) -> float:
        """Operations of one direction, a multiply-add counting two."""
        return (
            2.0
            * self.batch
            * math.prod(self.out)
            * self.taps
            * self.filters
            * (self.channels // self.groups)
        )

    @property
    def pointwise(self) -> bool:
        """Whether this is a matrix product over all pixels."""
        return self.taps == 1 and self.size == self.out and set(self.stride) == {1}

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved by itself."""
        return self.groups == self.channels > 1


def _front(values: Sequence[Any], fill: Any) -> tuple[Any, ...]:
    return (fill,) * (3 - len(values)) + tuple(values)


@lru_cache(maxsize=512)
def _problem(
    x_shape: tuple[int, ...], kernel_size: Any, filters: int, weight_channels: int | None,
    stride: Any, padding: Any, padding_mode: str, dilation: Any, groups: int, dtype: Any,
) -> Problem:  # fmt: skip
    """Check a convolution's arguments and resolve its sizes."""
    axes = len(x_shape) - 2
    if axes not in (1, 2, 3):
        raise ValueError(
            "conv: x must have 3, 4 or 5 axes (batch, 1 to 3 spatial axes, channels), got shape "
            f"{x_shape}"
        )
    batch, *size, channels = x_shape
    kernel = per_axis(kernel_size, axes, "conv: kernel_size")
    stride = per_axis(stride, axes, "conv: stride")
    dilation = per_axis(dilation, axes, "conv: dilation")
    groups = positive_int(groups, "conv: groups")
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"conv: padding_mode must be one of {PADDING_MODES}, got {padding_mode!r}")
    if channels < 1 or channels % groups or filters < 1 or filters % groups:
        raise ValueError(
            f"conv: groups must divide the channels of x and the filters, got groups={groups} for "
            f"{channels} channels and {filters} filters"
        )
    if weight_channels is not None and weight_channels * groups != channels:
        raise ValueError(
            f"conv: weight must have C / groups = {channels // groups} input channels for x of "
            f"shape {x_shape} and groups={groups}, got {weight_channels}"
        )
    pairs = resolve_padding(padding, size, kernel, stride, dilation, "conv")
    out = output_size(size, kernel, stride, dilation, pairs, "conv")
    if (
        math.prod((batch, *out, filters)) >= 2**60
        or math.prod((*kernel, channels, filters)) >= 2**60
    ):
        raise ValueError(
            f"conv: sizes must fit into memory, got x of shape {x_shape}, {filters} filters"
        )
    return Problem(
        batch, _front(size, 1), channels, _front(kernel, 1), filters, _front(stride, 1),
        _front(dilation, 1), _front(pairs, (0, 0)), padding_mode, groups, _front(out, 1), axes,
        dtype,
    )  # fmt: skip


def resolve(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], dtype: Any, stride: Any, padding: Any,
    padding_mode: str, dilation: Any, groups: int,
) -> Problem:  # fmt: skip
    """Return the problem of a convolution of x with weight, checked; see `cycnn.ops.conv`."""
    if len(weight_shape) != len(x_shape):
        raise ValueError(
            f"conv: weight must be (kernel..., C / groups, K) with as many axes as x {x_shape}, "
            f"got {weight_shape}"
        )
    return resolve_kernel(
        x_shape, weight_shape[:-2], weight_shape[-1], weight_shape[-2], dtype, stride, padding,
        padding_mode, dilation, groups,
    )  # fmt: skip


def resolve_kernel(
    x_shape: tuple[int, ...], kernel_size: Any, filters: int, weight_channels: int | None,
    dtype: Any, stride: Any, padding: Any, padding_mode: str, dilation: Any, groups: int,
) -> Problem:  # fmt: skip
    """Return the same without a weight, whose channels are those that fit if they are None."""
    try:
        hash((kernel_size, stride, padding, dilation))
    except TypeError:
        kernel_size, stride = hashable(kernel_size), hashable(stride)
        padding, dilation = hashable(padding), hashable(dilation)
    return _problem(
        x_shape, kernel_size, filters, weight_channels, stride, padding, padding_mode, dilation,
        groups, dtype,
    )  # fmt: skip


def forward_axes(p: Problem) -> tuple[Axis, ...]:
    """Return the axes on which y is a sum over x."""
    return tuple(
        blocking.forward_axis(size, out, k, s, d, pad[0], p.mode)
        for size, out, k, s, d, pad in zip(
            p.size, p.out, p.kernel, p.stride, p.dilation, p.padding, strict=True
        )
    )


def input_gradient_axes(p: Problem) -> list[tuple[tuple[Axis, ...], list[int]]]:
    """Return, for each phase of the stride, the axes on which dx is a sum over dy, and its taps."""
    phases = itertools.product(
        *(
            blocking.input_gradient_axes(size, out, k, s, d, pad[0])
            for size, out, k, s, d, pad in zip(
                p.size, p.out, p.kernel, p.stride, p.dilation, p.padding, strict=True
            )
        )
    )
    return [
        (
            axes,
            [
                (td * p.kernel[1] + th) * p.kernel[2] + tw
                for td, th, tw in itertools.product(*(axis.taps for axis in axes))
            ],
        )
        for axes in phases
    ]


def every_phase_has_taps(p: Problem) -> bool:
    """Whether the phases of the stride, those with taps, make up all input pixels."""
    axes = zip(p.kernel, p.stride, p.dilation, strict=True)
    return all(len({t * d % s for t in range(k)}) == s for k, s, d in axes)


def conv_output_shape(
    input_shape: Sequence[int],
    kernel_size: Any,
    filters: int,
    *,
    stride: Any = 1,
    padding: Any = "valid",
    dilation: Any = 1,
) -> tuple[int, ...]:
    """Return the output shape, without the batch, of a convolution over `input_shape` (..., C)."""
    p = resolve_kernel(
        (1, *input_shape), kernel_size, filters, None, "float32", stride, padding, "zeros",
        dilation, 1,
    )  # fmt: skip
    return (*p.out[3 - p.axes :], filters)
