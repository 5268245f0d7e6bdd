"""Transposed convolution: the input gradient of a convolution, taken as a layer.

A convolution with this stride, padding and dilation makes an image of x's size from one of y's
size; its gradient goes the other way, from x to y:

    y[n, i, k] = bias[k] + sum over (o, t, c) with o * stride + t * dilation - begin = i
                 of x[n, o, c] * weight[t, k, c]

So forward is `conv_backward_input`, and the gradients are `conv` and `conv_backward_weight` with x
and dy in each other's place.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from cycnn._check import Array, per_axis, positive_int
from cycnn.ops.bias import add_bias, bias_gradient
from cycnn.ops.conv import conv, conv_backward_input, conv_backward_weight
from cycnn.ops.window import resolve_padding, span


class _Geometry(NamedTuple):
    """The size of y, and the options of the convolution from y to x."""

    out: tuple[int, ...]
    options: dict[str, Any]


def _geometry(
    x_shape: Sequence[int], kernel_size: Any, stride: Any, padding: Any, output_padding: Any,
    dilation: Any, groups: int,
) -> _Geometry:  # fmt: skip
    size = tuple(x_shape[1:-1])
    axes = len(size)
    if axes not in (1, 2, 3):
        raise ValueError(
            "ConvTranspose: x must have 3, 4 or 5 axes (batch, 1 to 3 spatial axes, channels), "
            f"got shape {tuple(x_shape)}"
        )
    kernel = per_axis(kernel_size, axes, "ConvTranspose: kernel_size")
    strides = per_axis(stride, axes, "ConvTranspose: stride")
    dilations = per_axis(dilation, axes, "ConvTranspose: dilation")
    extra = per_axis(output_padding, axes, "ConvTranspose: output_padding", 0)
    if any(e >= s for e, s in zip(extra, strides, strict=True)):
        raise ValueError(
            f"ConvTranspose: output_padding must be below stride {strides}, got {output_padding!r}"
        )
    if padding == "causal":
        raise ValueError(
            'ConvTranspose: padding must be "valid", "same", an integer or a (begin, end) pair '
            "for each spatial axis, got 'causal'"
        )
    spans = [span(k, d) for k, d in zip(kernel, dilations, strict=True)]
    if padding == "same":
        if any(extra):
            raise ValueError(
                'ConvTranspose: output_padding must be 0 with padding "same", which fixes the '
                f"output size, got {output_padding!r}"
            )
        extra = tuple(max(s - reach, 0) for s, reach in zip(strides, spans, strict=True))
        cuts = [max(reach - s, 0) for s, reach in zip(strides, spans, strict=True)]
        padding = tuple((cut // 2, cut - cut // 2) for cut in cuts)
    border = resolve_padding(padding, size, kernel, strides, dilations, "ConvTranspose")
    out = tuple(
        (n - 1) * s + reach - sum(pair) + e
        for n, s, reach, pair, e in zip(size, strides, spans, border, extra, strict=True)
    )
    if min(out) < 1 or min(size) < 1:
        raise ValueError(
            f"ConvTranspose: padding must leave at least one output pixel per axis, got {out} for "
            f"x of shape {tuple(x_shape)} and padding {padding!r}"
        )
    options = {
        "stride": strides, "padding": border, "dilation": dilations,
        "groups": positive_int(groups, "ConvTranspose: groups"),
    }  # fmt: skip
    return _Geometry(out, options)


def conv_transpose_output_shape(
    input_shape: Sequence[int], kernel_size: Any, filters: int, *, stride: Any = 1,
    padding: Any = "valid", output_padding: Any = 0, dilation: Any = 1,
) -> tuple[int, ...]:  # fmt: skip
    """Return the output shape, without the batch, for an input of shape (spatial..., C).

    (size - 1) stride + span - begin - end + output_padding per axis, where span = (kernel - 1)
    dilation + 1; size * stride with padding "same".

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> conv_transpose_output_shape((4, 4, 8), 3, 16, stride=2, padding="same")
    (8, 8, 16)
    """
    shape = (1, *input_shape)
    out, _ = _geometry(shape, kernel_size, stride, padding, output_padding, dilation, 1)
    return (*out, filters)


def conv_transpose(
    x: Array, weight: Array, bias: Array | None = None, *, stride: Any = 1, padding: Any = "valid",
    output_padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Array:  # fmt: skip
    """Convolve `x` with the transpose of the matrix that `conv` multiplies by.

    Parameters
    ----------
    x : ndarray of shape (N, spatial..., C), 1 to 3 spatial axes
    weight : ndarray of shape (kernel..., K / groups, C)
        The weight of the convolution from y to x.
    bias : ndarray of shape (K,), optional
    stride, dilation : int or one per axis
    padding : "valid", "same", int or (begin, end) per axis
        Pixels cut off the full output; "same" gives size * stride.
    output_padding : int or one per axis
        Pixels added at the end, fewer than stride: a convolution with a stride makes the same size
        from several, and this picks one of them.
    groups : int

    Returns
    -------
    y : ndarray of shape (N, outputs..., K)

    Raises
    ------
    ValueError
        If a shape or an argument does not fit; the message names it.

    References
    ----------
    Dumoulin and Visin (2016), "A guide to convolution arithmetic for deep learning", chapter 4.

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose(np.array([[[1.0], [2.0]]]), np.ones((3, 1, 1)), stride=2).ravel()
    array([1., 1., 3., 2., 2.])
    """
    _check_weight(x.shape, weight)
    kernel = weight.shape[:-2]
    out, options = _geometry(x.shape, kernel, stride, padding, output_padding, dilation, groups)
    y = conv_backward_input(x, weight, (len(x), *out, weight.shape[-2] * groups), **options)
    if bias is not None:
        if bias.shape != y.shape[-1:]:
            raise ValueError(
                f"ConvTranspose: bias must have shape ({y.shape[-1]},), got {bias.shape}"
            )
        add_bias(y, bias)
    return y


def conv_transpose_backward_input(
    dy: Array, weight: Array, x_shape: Sequence[int], *, stride: Any = 1, padding: Any = "valid",
    output_padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Array:  # fmt: skip
    """Return dx, of shape `x_shape`: the convolution of dy with `weight`.

    Arguments are those of `conv_transpose`; errors likewise.
    """
    _check_weight(x_shape, weight)
    kernel = weight.shape[:-2]
    out, options = _geometry(x_shape, kernel, stride, padding, output_padding, dilation, groups)
    _check_dy(dy, (x_shape[0], *out, weight.shape[-2] * groups))
    return conv(dy, weight, **options)


def conv_transpose_backward_weight(
    dy: Array, x: Array, kernel_size: Any, *, stride: Any = 1, padding: Any = "valid",
    output_padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
) -> tuple[Array, Array | None]:  # fmt: skip
    """Return dweight of shape (kernel..., K / groups, C) and dbias of shape (K,), None without.

    Arguments are those of `conv_transpose`; errors likewise.
    """
    out, options = _geometry(
        x.shape, kernel_size, stride, padding, output_padding, dilation, groups
    )
    _check_dy(dy, (len(x), *out, dy.shape[-1]))
    dweight, _ = conv_backward_weight(x, dy, kernel_size, bias=False, **options)
    return dweight, bias_gradient(dy) if bias else None


def _check_weight(x_shape: Sequence[int], weight: Array) -> None:
    if weight.ndim != len(x_shape) or weight.shape[-1] != x_shape[-1]:
        raise ValueError(
            "ConvTranspose: weight must be (kernel..., K / groups, C) with as many axes and as "
            f"many channels C as x of shape {tuple(x_shape)}, got {weight.shape}"
        )


def _check_dy(dy: Array, shape: tuple[int, ...]) -> None:
    if dy.shape != shape:
        raise ValueError(f"ConvTranspose: dy must have y's shape {shape}, got {dy.shape}")
