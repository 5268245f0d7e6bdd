"""Convolution layers: many small kernels slide over the input, each makes one feature map."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, integer, positive_int
from cycnn.init import he_normal, zeros
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Reach, Shapes, Weight, flag
from cycnn.layers.parameter import Parameter, add_gradients
from cycnn.layers.window import Window

Borders = tuple[tuple[int, int], ...]


def _region(region: Any) -> Borders | None:
    """Return the (start, stop) pairs of a region; raise unless 0 <= start < stop in each."""
    if region is None:
        return None
    if not isinstance(region, (tuple, list)) or not all(
        isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in region
    ):
        raise TypeError(f"Conv: region must be a (start, stop) pair for each axis, got {region!r}")
    pairs = tuple(
        (integer(start, "Conv: region"), integer(stop, "Conv: region")) for start, stop in region
    )
    if not pairs or any(start >= stop for start, stop in pairs):
        raise ValueError(f"Conv: region must have start < stop on every axis, got {region!r}")
    return pairs


class Convolution(Layer):
    """What Conv and DepthwiseConv share: everything but how inputs meet outputs."""

    algorithms: tuple[str, ...] = ops.ALGORITHMS

    def __init__(
        self,
        *,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...],
        padding: str | int | tuple[tuple[int, int], ...],
        padding_mode: str,
        dilation: int | tuple[int, ...],
        bias: bool,
        algorithm: str,
        name: str | None,
        **config: Any,
    ) -> None:
        slide: dict[str, Any] = {
            "stride": stride, "padding": padding, "padding_mode": padding_mode, "dilation": dilation
        }  # fmt: skip
        super().__init__(
            name=name, **config, kernel_size=kernel_size, **slide, bias=bias, algorithm=algorithm
        )
        owner = type(self).__name__
        if algorithm not in self.algorithms:
            raise ValueError(
                f"{owner}: algorithm must be one of {', '.join(self.algorithms)}, got {algorithm!r}"
            )
        self.algorithm = algorithm
        self.window = Window(
            owner, "kernel_size", kernel_size, stride, padding, padding_mode, dilation
        )
        self.slide = slide
        self.has_bias = flag(bias, f"{owner}: bias")

    def groups_and_filters(self, channels: int) -> tuple[int, int]:
        """Return groups and the number of output channels for an input of `channels`."""
        raise NotImplementedError

    @property
    def weight(self) -> Parameter:
        """Parameter of shape (kernel..., C_in / groups, C_out)."""
        return self.parameter("weight")

    @property
    def bias(self) -> Parameter | None:
        """Parameter of shape (C_out,), or None."""
        return self.parameter("bias") if self.has_bias else None

    def borders(self, input_shape: Shapes) -> Borders | None:
        """Return the (begin, end) pixels of each axis that are not covered; None if all are."""
        return None

    def covered(self, input_shape: Shapes) -> Shapes:
        """Return the shape of the part of the input that is covered."""
        outside = self.borders(input_shape) or ((0, 0),) * (len(input_shape) - 1)
        inside = (n - sum(pair) for n, pair in zip(input_shape[:-1], outside, strict=True))
        return (*inside, input_shape[-1])

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return (spatial..., C_out)."""
        spatial = self.window.output(self.covered(input_shape))
        groups, filters = self.groups_and_filters(input_shape[-1])
        kernel, stride, dilation = self.window.numbers(len(spatial))
        ops.check_algorithm(self.algorithm, kernel, stride, dilation, groups, type(self).__name__)
        return (*spatial, filters)

    def weights(self, input_shape: Shapes) -> dict[str, Weight]:
        """Ask for the kernels (He et al., 2015, eq. 10) and for biases of zero."""
        groups, filters = self.groups_and_filters(input_shape[-1])
        shape = (*self.window.taps(input_shape), input_shape[-1] // groups, filters)
        bias = {"bias": Weight((filters,), zeros)} if self.has_bias else {}
        return {"weight": Weight(shape, he_normal), **bias}

    def macs(self, input_shape: Shapes) -> int:
        """Return kernel values x output pixels."""
        return math.prod(self.weights(input_shape)["weight"].shape) * math.prod(
            self.window.output(self.covered(input_shape))
        )

    def reach(self, input_shape: Shapes) -> tuple[Reach, ...]:
        """Return the window of one output."""
        reach = self.window.reach(self.covered(input_shape))
        outside = self.borders(input_shape) or ((0, 0),) * len(reach)
        return tuple(
            axis._replace(begin=axis.begin - begin)
            for axis, (begin, _) in zip(reach, outside, strict=True)
        )

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C_in) to y (N, spatial..., C_out)."""
        return self.affine(x)

    def affine(self, x: ArrayLike, activation: str | None = None) -> tuple[Array, Backward]:
        """Do the same, and in the same pass apply an activation, which backward leaves out."""
        x = self.check_input(x)
        whole, outside = x.shape, self.borders(x.shape[1:])
        if outside is not None:
            x = ops.crop(x, outside)
        weight, bias = self.weight, self.bias
        kernel, groups = weight.shape[:-2], x.shape[-1] // weight.shape[-2]
        options = {**self.slide, "groups": groups, "algorithm": self.algorithm}
        b = None if bias is None else bias.data
        y = ops.conv(x, weight.data, b, activation=activation, **options)
        x_shape, y_shape = x.shape, y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            add_gradients(
                weight, bias, lambda b: ops.conv_backward_weight(dy, x, kernel, bias=b, **options)
            )
            if not input_gradient:
                return None
            dx = ops.conv_backward_input(dy, weight.data, x_shape, **options)
            return dx if outside is None else ops.crop_backward(dx, whole, outside)

        return y, backward


@register
class Conv(Convolution):
    """Convolution over 1, 2 or 3 spatial axes.

        y[n, o, k] = bias[k] + sum over t, c of
                     weight[t, c, k] * x[n, o * stride - begin + t * dilation, c]

    with o, t one index per axis, begin the padding in front. As everywhere in this field the kernel
    is not flipped (a cross-correlation): Goodfellow, Bengio and Courville, *Deep Learning* (2016),
    eqs. 9.7 and 9.8. Backward, with i = o * stride - begin + t * dilation:

        dx[n, i, c]      = sum over o, t, k of dy[n, o, k] * weight[t, c, k]
        dweight[t, c, k] = sum over n, o of dy[n, o, k] * x[n, i, c]
        dbias[k]         = sum over n, o of dy[n, o, k]

    Parameters to learn: k x k x m x n weights for n kernels of k x k on m channels, and n biases.

    Parameters
    ----------
    filters : int
        Number of kernels, the channels of the output.
    kernel_size : int or tuple of int
        Extent of a kernel; a tuple sets each axis. Odd or even.
    stride : int or tuple of int
        Pixels from one window to the next.
    padding : "valid", "same", "causal", int or (begin, end) pairs
        "valid" adds no border; "same" gives ceil(input / stride) outputs, an odd extra pixel at the
        end; "causal" pads in front only, so no output sees a later input; an int pads every side;
        pairs set each axis.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What the border holds.
    dilation : int or tuple of int
        Pixels from one kernel tap to the next.
    groups : int
        Cuts input and output channels into groups that do not see each other.
    bias : bool
        Whether a bias is added. A BatchNorm right after makes it useless.
    region : (start, stop) per axis, optional
        The part of the input that is covered, as if the rest were not there: pixels start ...
        stop - 1. The gradient of the rest is 0.
    algorithm : {"auto", "direct", "winograd4", "winograd2"}
        "direct" multiplies and adds as the formula says. "winograd4" and "winograd2" transform
        tiles of 4 x 4 or 2 x 2 outputs, with 4 or 2.25 times fewer multiplications, and for
        "winograd4" up to 3 times the error bound (docs/performance.md); they take 3 x 3 kernels
        ("winograd4" also 3 on the last axis), stride and dilation 1 there, and one group. "auto"
        takes what costs least for this shape and batch.
    name : str, optional

    Attributes
    ----------
    weight : Parameter of shape (kernel..., C_in / groups, filters), drawn by `init.he_normal`
    bias : Parameter of shape (filters,), zeros; None without

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range, when made; if the kernel does not fit into the padded
        input, or groups do not divide the channels, when built.

    Examples
    --------
    >>> conv = Conv(16, 3, padding="same").build((32, 32, 3), rng=0)
    >>> conv.weight.shape, conv.output_shape
    ((3, 3, 3, 16), (32, 32, 16))
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
        region: tuple[tuple[int, int], ...] | None = None,
        algorithm: str = "auto",
        name: str | None = None,
    ) -> None:
        self.region = _region(region)
        self.filters = positive_int(filters, "Conv: filters")
        self.groups = positive_int(groups, "Conv: groups")
        if filters % groups:
            raise ValueError(f"Conv: groups must divide filters={filters}, got groups={groups}")
        super().__init__(
            filters=filters, kernel_size=kernel_size, stride=stride, padding=padding,
            padding_mode=padding_mode, dilation=dilation, groups=groups, bias=bias,
            region=self.region, algorithm=algorithm, name=name,
        )  # fmt: skip

    def borders(self, input_shape: Shapes) -> Borders | None:
        """Return the (begin, end) pixels of each axis that lie outside the region."""
        if self.region is None:
            return None
        spatial = input_shape[:-1]
        if len(self.region) != len(spatial) or any(
            stop > n for n, (_, stop) in zip(spatial, self.region, strict=False)
        ):
            raise ValueError(
                f"Conv: region must be a (start, stop) pair within each of the axes {spatial}, "
                f"got {self.region}"
            )
        return tuple(
            (start, n - stop) for n, (start, stop) in zip(spatial, self.region, strict=True)
        )

    def groups_and_filters(self, channels: int) -> tuple[int, int]:
        """Return groups and filters; raise ValueError if groups do not divide the channels."""
        if channels % self.groups:
            raise ValueError(
                f"Conv: groups must divide the input's channels, got groups={self.groups} on "
                f"{channels} channels"
            )
        return self.groups, self.filters


@register
class DepthwiseConv(Convolution):
    """Convolution of each channel by itself, with `multiplier` kernels for each.

    The same as Conv with groups = C and filters = multiplier * C: output channel
    c * multiplier + j comes from input channel c. Followed by a 1 x 1 Conv it is a depthwise
    separable convolution (Howard et al., 2017, section 3.1).

    Parameters
    ----------
    kernel_size : int or tuple of int
    multiplier : int
        Outputs per input channel.
    algorithm : {"auto", "direct"}
        There is one algorithm.
    stride, padding, padding_mode, dilation, bias, name
        See `Conv`.

    Attributes
    ----------
    weight : Parameter of shape (kernel..., 1, multiplier * C), drawn by `init.he_normal`
    bias : Parameter of shape (multiplier * C,), zeros; None without

    Raises
    ------
    ValueError, TypeError
        As `Conv`.

    Examples
    --------
    >>> DepthwiseConv(3, multiplier=2).build((8, 8, 5), rng=0).output_shape
    (6, 6, 10)
    """

    algorithms = ("auto", "direct")

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        *,
        multiplier: int = 1,
        stride: int | tuple[int, ...] = 1,
        padding: str | int | tuple[tuple[int, int], ...] = "valid",
        padding_mode: str = "zeros",
        dilation: int | tuple[int, ...] = 1,
        bias: bool = True,
        algorithm: str = "auto",
        name: str | None = None,
    ) -> None:
        self.multiplier = positive_int(multiplier, "DepthwiseConv: multiplier")
        super().__init__(
            kernel_size=kernel_size, multiplier=multiplier, stride=stride, padding=padding,
            padding_mode=padding_mode, dilation=dilation, bias=bias, algorithm=algorithm, name=name,
        )  # fmt: skip

    def groups_and_filters(self, channels: int) -> tuple[int, int]:
        """Return one group per channel and `multiplier` outputs for each."""
        return channels, channels * self.multiplier
