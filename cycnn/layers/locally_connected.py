"""Locally connected layers: windows of a convolution whose weights are not shared."""

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
class LocallyConnected(Layer):
    """Convolution with a kernel of its own at every output pixel, over 1, 2 or 3 spatial axes.

        y[n, o, k] = bias[o, k] + sum over t, c of
                     weight[o, t, c, k] * x[n, o * stride - begin + t * dilation, c]

    With groups, output channel k sees the input channels of group k // (filters / groups) alone,
    and c counts within it.

    For images that are aligned, such as faces, where each place has features of its own: Taigman et
    al. (2014), "DeepFace", section 3. Parameters to learn: as many times those of a Conv as there
    are output pixels, so the layer keeps the input size that it was built for.

    Parameters
    ----------
    filters : int
        Kernels at each pixel, the channels of the output.
    kernel_size, stride, padding, padding_mode, dilation, groups, bias, name
        See `Conv`.

    Attributes
    ----------
    weight : Parameter of shape (outputs..., kernel..., C_in / groups, filters)
        Drawn as `init.he_normal` does for the kernel * C_in / groups inputs of an output.
    bias : Parameter of shape (outputs..., filters), zeros; None without

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range, when made; if the kernel does not fit into the padded
        input or groups do not divide the channels, when built; if an input has another size, when
        called.

    Examples
    --------
    >>> local = LocallyConnected(4, 3).build((8, 8, 2), rng=0)
    >>> local.weight.shape, local.output_shape
    ((6, 6, 3, 3, 2, 4), (6, 6, 4))
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        *,
        stride: int | tuple[int, ...] = 1,
        padding: str | int | tuple[tuple[int, int], ...] = "valid",
        padding_mode: str = "zeros",
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        name: str | None = None,
    ) -> None:
        self.filters = positive_int(filters, "LocallyConnected: filters")
        self.groups = positive_int(groups, "LocallyConnected: groups")
        if filters % groups:
            raise ValueError(
                f"LocallyConnected: groups must divide filters={filters}, got groups={groups}"
            )
        self.slide: dict[str, Any] = {
            "stride": stride, "padding": padding, "padding_mode": padding_mode, "dilation": dilation
        }  # fmt: skip
        super().__init__(
            name=name, filters=filters, kernel_size=kernel_size, **self.slide, groups=groups,
            bias=bias,
        )  # fmt: skip
        self.window = Window(
            "LocallyConnected", "kernel_size", kernel_size, stride, padding, padding_mode, dilation
        )
        self.has_bias = flag(bias, "LocallyConnected: bias")

    @property
    def weight(self) -> Parameter:
        """Parameter of shape (outputs..., kernel..., C_in / groups, filters)."""
        return self.parameter("weight")

    @property
    def bias(self) -> Parameter | None:
        """Parameter of shape (outputs..., filters), or None."""
        return self.parameter("bias") if self.has_bias else None

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return (spatial..., filters)."""
        if self.built and input_shape != self.input_shape:
            raise ValueError(
                f"LocallyConnected: input must have the shape that it was built for, "
                f"{self.input_shape}, got {input_shape}"
            )
        outputs = self.window.output(input_shape)
        if input_shape[-1] % self.groups:
            raise ValueError(
                f"LocallyConnected: groups must divide the input's channels, got "
                f"groups={self.groups} on {input_shape[-1]} channels"
            )
        return (*outputs, self.filters)

    def weights(self, input_shape: Shapes) -> dict[str, Weight]:
        """Ask for the kernels (He et al., 2015, eq. 10) and for biases of zero."""
        outputs, kernel = self.window.output(input_shape), self.window.taps(input_shape)

        def initial(shape: Shape, rng: np.random.Generator) -> Array:
            return he_normal(shape, rng) * math.sqrt(math.prod(outputs))  # fan_in is a kernel's

        bias = {"bias": Weight((*outputs, self.filters), zeros)} if self.has_bias else {}
        depth = input_shape[-1] // self.groups
        weight = Weight((*outputs, *kernel, depth, self.filters), initial)
        return {"weight": weight, **bias}

    def macs(self, input_shape: Shapes) -> int:
        """Return the number of weights: each is used once."""
        return math.prod(self.weights(input_shape)["weight"].shape)

    def reach(self, input_shape: Shapes) -> tuple[Reach, ...]:
        """Return the window of one output."""
        return self.window.reach(input_shape)

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C_in) to y (N, spatial..., filters)."""
        x = self.check_input(x)
        weight, bias, axes = self.weight, self.bias, x.ndim - 2
        options = {**self.slide, "groups": self.groups}
        y = ops.locally_connected(x, weight.data, None if bias is None else bias.data, **options)
        x_shape, y_shape, kernel = x.shape, y.shape, weight.shape[axes : 2 * axes]

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            add_gradients(
                weight,
                bias,
                lambda b: ops.locally_connected_backward_weight(dy, x, kernel, bias=b, **options),
            )
            if not input_gradient:
                return None
            return ops.locally_connected_backward_input(dy, weight.data, x_shape, **options)

        return y, backward
