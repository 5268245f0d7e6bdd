"""Transposed convolution: from each input pixel, a kernel's worth of outputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, positive_int
from cycnn.init import Shape, he_normal, zeros
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Reach, Shapes, Weight, flag
from cycnn.layers.parameter import Parameter, add_gradients
from cycnn.layers.window import Window


@register
class ConvTranspose(Layer):
    """Transposed convolution over 1, 2 or 3 spatial axes, which enlarges where Conv reduces.

        y[n, i, k] = bias[k] + sum over (o, t, c) with o * stride + t * dilation - begin = i
                     of x[n, o, c] * weight[t, k, c]

    This is the gradient of a Conv of the same arguments with respect to its input, taken as a
    layer; its own input gradient is that Conv. Dumoulin and Visin (2016), "A guide to convolution
    arithmetic for deep learning", chapter 4.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size : int or tuple of int
    stride : int or tuple of int
        Output pixels from one input pixel's kernel to the next one's.
    padding : "valid", "same", int or (begin, end) pairs
        Pixels cut off the output: "valid" none, so (size - 1) stride + (kernel - 1) dilation + 1
        are left; "same" leaves size * stride.
    output_padding : int or tuple of int
        Pixels added at the end, fewer than stride, to undo a Conv whose stride did not divide.
    dilation : int or tuple of int
    groups : int
        Cuts input and output channels into groups that do not see each other.
    bias : bool
    name : str, optional

    Attributes
    ----------
    weight : Parameter of shape (kernel..., filters / groups, C_in)
        Drawn as `init.he_normal` does for the C_in / groups * kernel / stride inputs that an output
        sees on average.
    bias : Parameter of shape (filters,), zeros; None without

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range, when made; if padding leaves no output or groups do not
        divide the channels, when built.

    Examples
    --------
    >>> ConvTranspose(16, 3, stride=2, padding="same").build((8, 8, 32), rng=0).output_shape
    (16, 16, 16)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        *,
        stride: int | tuple[int, ...] = 1,
        padding: str | int | tuple[tuple[int, int], ...] = "valid",
        output_padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        name: str | None = None,
    ) -> None:
        self.filters = positive_int(filters, "ConvTranspose: filters")
        self.groups = positive_int(groups, "ConvTranspose: groups")
        if filters % groups:
            raise ValueError(
                f"ConvTranspose: groups must divide filters={filters}, got groups={groups}"
            )
        self.slide: dict[str, Any] = {
            "stride": stride, "padding": padding, "output_padding": output_padding,
            "dilation": dilation,
        }  # fmt: skip
        super().__init__(
            name=name, filters=filters, kernel_size=kernel_size, **self.slide, groups=groups,
            bias=bias,
        )  # fmt: skip
        self.window = Window(
            "ConvTranspose", "kernel_size", kernel_size, stride, padding, "zeros", dilation
        )
        self.has_bias = flag(bias, "ConvTranspose: bias")
        given = (kernel_size, stride, dilation, output_padding, padding)
        axes = next((len(v) for v in given if isinstance(v, (tuple, list))), 1)
        # What can be refused without an input's size: all but padding in numbers.
        slide = self.slide if isinstance(padding, str) else self.slide | {"padding": "valid"}
        ops.conv_transpose_output_shape((1,) * (axes + 1), kernel_size, filters, **slide)

    @property
    def weight(self) -> Parameter:
        """Parameter of shape (kernel..., filters / groups, C_in)."""
        return self.parameter("weight")

    @property
    def bias(self) -> Parameter | None:
        """Parameter of shape (filters,), or None."""
        return self.parameter("bias") if self.has_bias else None

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return (spatial..., filters)."""
        kernel = self.window.taps(input_shape)
        if input_shape[-1] % self.groups:
            raise ValueError(
                f"ConvTranspose: groups must divide the input's channels, got groups={self.groups} "
                f"on {input_shape[-1]} channels"
            )
        return ops.conv_transpose_output_shape(input_shape, kernel, self.filters, **self.slide)

    def weights(self, input_shape: Shapes) -> dict[str, Weight]:
        """Ask for the kernels and for biases of zero."""
        shape = (*self.window.taps(input_shape), self.filters // self.groups, input_shape[-1])
        strides = math.prod(axis.stride for axis in self.window.reach(input_shape))
        fan_in = math.prod(shape[:-2]) * input_shape[-1] / self.groups / strides

        def initial(shape: Shape, rng: np.random.Generator) -> Array:
            return he_normal(shape, rng) * math.sqrt(math.prod(shape[:-1]) / fan_in)

        bias = {"bias": Weight((self.filters,), zeros)} if self.has_bias else {}
        return {"weight": Weight(shape, initial), **bias}

    def macs(self, input_shape: Shapes) -> int:
        """Return kernel values x input pixels."""
        weight = self.weights(input_shape)["weight"].shape
        return math.prod(weight) * math.prod(input_shape[:-1])

    def reach(self, input_shape: Shapes) -> tuple[Reach, ...] | None:
        """Return the window of one output; none with a stride, which makes it differ by place."""
        window = self.window.reach(input_shape)
        if any(axis.stride > 1 for axis in window):
            return None
        return tuple(Reach(axis.span, 1, axis.span - 1 - axis.begin) for axis in window)

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C_in) to y (N, spatial..., filters)."""
        x = self.check_input(x)
        weight, bias = self.weight, self.bias
        options = {**self.slide, "groups": self.groups}
        y = ops.conv_transpose(x, weight.data, None if bias is None else bias.data, **options)
        x_shape, y_shape, kernel = x.shape, y.shape, weight.shape[:-2]

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            add_gradients(
                weight,
                bias,
                lambda b: ops.conv_transpose_backward_weight(dy, x, kernel, bias=b, **options),
            )
            if not input_gradient:
                return None
            return ops.conv_transpose_backward_input(dy, weight.data, x_shape, **options)

        return y, backward
