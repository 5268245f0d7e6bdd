"""Locally connected layers: windows as in a convolution, weights of their own at every pixel.

    y[n, o, k]          = bias[o, k] + sum over (t, c) of x[n, o, t, c] * weight[o, t, c, k]
    dx[n, i, c]         = sum over the (o, t) that read pixel i, and k, of
                          dy[n, o, k] * weight[o, t, c, k]
    dweight[o, t, c, k] = sum over n of x[n, o, t, c] * dy[n, o, k]
    dbias[o, k]         = sum over n of dy[n, o, k]

with x[n, o, t, c] = x[n, o * stride + t * dilation - begin, c].  With groups, kernel k
sees the channels of group k // (K / groups) alone, and c counts within it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from cycnn import engine
from cycnn._check import Array, hashable, per_axis, positive_int
from cycnn.ops.pool_geometry import Geometry, check_rank, window_axis
from cycnn.ops.window import PADDING_MODES, output_size, resolve_padding

_NAME = "LocallyConnected"
_CHANNELS = 64  # of a job of the input gradient


@functools.lru_cache(maxsize=512)
def _cached_geometry(
    x_shape: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any, padding_mode: str,
    dilation: Any,
) -> Geometry:  # fmt: skip
    size = x_shape[1:-1]
    check_rank(size, x_shape, _NAME)
    kernel = per_axis(kernel_size, len(size), f"{_NAME}: kernel_size")
    strides = per_axis(stride, len(size), f"{_NAME}: stride")
    dilations = per_axis(dilation, len(size), f"{_NAME}: dilation")
    if padding_mode not in PADDING_MODES:
        raise ValueError(
            f"{_NAME}: padding_mode must be one of {PADDING_MODES}, got {padding_mode!r}"
        )
    border = resolve_padding(padding, size, kernel, strides, dilations, _NAME)
    out = output_size(size, kernel, strides, dilations, border, _NAME)
    axes = [
        window_axis(n, o, k, s, d, *pair, padding_mode)
        for n, o, k, s, d, pair in zip(size, out, kernel, strides, dilations, border, strict=True)
    ]
    return Geometry.of(axes, x_shape)


def _geometry(
    x_shape: Sequence[int], kernel_size: Any, stride: Any, padding: Any, padding_mode: str,
    dilation: Any,
) -> Geometry:  # fmt: skip
    """Check a layer's arguments and return its windows, made once for the same arguments."""
    return _cached_geometry(
        tuple(x_shape), hashable(kernel_size), hashable(stride), hashable(padding), padding_mode,
        hashable(dilation),
    )  # fmt: skip


def _extents(g: Geometry, x_shape: Sequence[int], filters: int, groups: int) -> dict[str, Any]:
    d, h, w = g.axes
    return {
        "N": x_shape[0], "D": d.size, "H": h.size, "W": w.size, "C": x_shape[-1],
        "OD": d.out, "OH": h.out, "OW": w.out, "KD": d.taps, "KH": h.taps, "KW": w.taps,
        "K": filters, "depth": x_shape[-1] // groups, "width": filters // groups,
        "work": 2.0 * math.prod(g.y_shape) * g.taps * filters / groups,
    }  # fmt: skip


def _maps(g: Geometry) -> dict[str, Any]:
    return {f"map_{name}": axis.map for name, axis in zip("dhw", g.axes, strict=True)}


def _parts(filters: int, groups: int, dtype: Any) -> int:
    """Return how many jobs an output pixel makes: groups x panels of kernels."""
    columns: int = engine.kernels(dtype).NR
    return groups * -(-filters // groups // columns)


def locally_connected(
    x: Array, weight: Array, bias: Array | None = None, *, stride: Any = 1, padding: Any = "valid",
    padding_mode: str = "zeros", dilation: Any = 1, groups: int = 1,
) -> Array:  # fmt: skip
    """Multiply every window of `x` by the weights of its place.

    Parameters
    ----------
    x : ndarray of shape (N, spatial..., C), 1 to 3 spatial axes
    weight : ndarray of shape (outputs..., kernel..., C / groups, K)
    bias : ndarray of shape (outputs..., K), optional
    stride, dilation : int or one per axis
    padding : "valid", "same", "causal", int or (begin, end) per axis
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
    groups : int
        Groups of channels, each with its own K / groups kernels.

    Returns
    -------
    y : ndarray of shape (N, outputs..., K)

    Raises
    ------
    ValueError
        If a shape or an argument does not fit; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> weight = np.array([1.0, 10.0]).reshape(2, 1, 1, 1)  # one tap at each of two places
    >>> locally_connected(np.array([[[3.0], [4.0]]]), weight).ravel()
    array([ 3., 40.])
    """
    g = _checked(x.shape, weight, stride, padding, padding_mode, dilation, groups)
    filters = weight.shape[-1]
    shape = (*g.y_shape[:-1], filters)
    if bias is not None and bias.shape != shape[1:]:
        raise ValueError(f"{_NAME}: bias must have shape {shape[1:]}, got {bias.shape}")
    y = engine.empty(shape, x.dtype)
    parts = _parts(filters, groups, x.dtype)
    plan = engine.Plan()
    plan.add(
        engine.kernels(x.dtype).local_forward, math.prod(shape[1:-1]) * parts, x=x,
        weight=weight, bias=bias, y=y, parts=parts, scratch=16 * g.taps, **_maps(g),
        **_extents(g, x.shape, filters, groups),
    )  # fmt: skip
    plan.run()
    return y


def locally_connected_backward_input(
    dy: Array, weight: Array, x_shape: Sequence[int], *, stride: Any = 1, padding: Any = "valid",
    padding_mode: str = "zeros", dilation: Any = 1, groups: int = 1,
) -> Array:  # fmt: skip
    """Return dx of shape `x_shape`.

    Arguments are those of `locally_connected`; errors likewise.
    """
    g = _checked(x_shape, weight, stride, padding, padding_mode, dilation, groups)
    filters, channels = weight.shape[-1], x_shape[-1]
    _check_dy(dy, (*g.y_shape[:-1], filters))
    dx = engine.empty(tuple(x_shape), dy.dtype)
    chunks, reads = -(-channels // groups // _CHANNELS), math.prod(axis.readers for axis in g.axes)
    tables: dict[str, Any] = {}
    for name, axis in zip("dhw", g.axes, strict=True):
        tables |= {f"start_{name}": axis.start, f"window_{name}": axis.window}
        tables |= {f"tap_{name}": axis.tap}
    plan = engine.Plan()
    plan.add(
        engine.kernels(dy.dtype).local_backward_input,
        math.prod(axis.size for axis in g.axes) * groups * chunks, dy=dy, weight=weight, dx=dx,
        chunk=_CHANNELS, chunks=chunks, parts=groups * chunks, reads=reads, scratch=16 * reads,
        **tables, **_extents(g, x_shape, filters, groups),
    )  # fmt: skip
    plan.run()
    return dx


def locally_connected_backward_weight(
    dy: Array, x: Array, kernel_size: Any, *, stride: Any = 1, padding: Any = "valid",
    padding_mode: str = "zeros", dilation: Any = 1, groups: int = 1, bias: bool = True,
) -> tuple[Array, Array | None]:  # fmt: skip
    """Return dweight (outputs..., kernel..., C / groups, K) and dbias (outputs..., K).

    dbias is None without `bias`.  Arguments are those of `locally_connected`; errors likewise.
    """
    g = _geometry(x.shape, kernel_size, stride, padding, padding_mode, dilation)
    filters, outputs = dy.shape[-1], g.y_shape[1:-1]
    _check_groups(groups, x.shape[-1], filters)
    _check_dy(dy, (*g.y_shape[:-1], filters))
    kernel = tuple(axis.taps for axis in g.axes)[3 - len(outputs) :]
    dweight = engine.empty((*outputs, *kernel, x.shape[-1] // groups, filters), dy.dtype)
    dbias = engine.empty((*outputs, filters), dy.dtype) if bias else None
    parts = _parts(filters, groups, dy.dtype)
    plan = engine.Plan()
    plan.add(
        engine.kernels(dy.dtype).local_backward_weight, math.prod(outputs) * parts, dy=dy, x=x,
        dweight=dweight, dbias=dbias, parts=parts, **_maps(g),
        **_extents(g, x.shape, filters, groups),
    )  # fmt: skip
    plan.run()
    return dweight, dbias


def _checked(
    x_shape: Sequence[int], weight: Array, stride: Any, padding: Any, padding_mode: str,
    dilation: Any, groups: int,
) -> Geometry:  # fmt: skip
    """Return the windows; raise ValueError unless `weight` has a kernel for each of them."""
    axes = len(x_shape) - 2
    if weight.ndim != 2 * axes + 2:
        raise ValueError(
            f"{_NAME}: weight must be (outputs..., kernel..., C / groups, K) for x of "
            f"shape {tuple(x_shape)}, got {weight.shape}"
        )
    kernel = weight.shape[axes : 2 * axes]
    g = _geometry(x_shape, kernel, stride, padding, padding_mode, dilation)
    _check_groups(groups, x_shape[-1], weight.shape[-1])
    expected = (*g.y_shape[1:-1], *kernel, x_shape[-1] // groups)
    if weight.shape[:-1] != expected:
        raise ValueError(
            f"{_NAME}: weight must have shape {(*expected, weight.shape[-1])} for x of shape "
            f"{tuple(x_shape)} and groups={groups}, got {weight.shape}"
        )
    return g


def _check_groups(groups: int, channels: int, filters: int) -> None:
    if channels % positive_int(groups, f"{_NAME}: groups") or filters % groups:
        raise ValueError(
            f"{_NAME}: groups must divide the channels of x and the filters, got groups={groups} "
            f"for {channels} channels and {filters} filters"
        )


def _check_dy(dy: Array, shape: tuple[int, ...]) -> None:
    if dy.shape != shape:
        raise ValueError(f"{_NAME}: dy must have y's shape {shape}, got {dy.shape}")
