"""Sliding windows: paddings, output sizes, and which input pixel a tap of a window reads.

Convolutions and pools share this page, so "same" or "reflect" means one thing in the whole library.
One axis at a time, with `span = (kernel - 1) * dilation + 1` the pixels a window reaches over:

    ---- begin ---- | 0 1 2 ... size - 1 | ---- end ----
    window o covers positions o * stride - begin + tap * dilation, tap = 0 ... kernel - 1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cycnn._check import integer

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def resolve_padding(
    padding: Any,
    input_size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    name: str,
) -> tuple[tuple[int, int], ...]:
    """Return the border (begin, end) of each spatial axis.

    Parameters
    ----------
    padding : "valid", "same", "causal", int or sequence of (begin, end) pairs
        "valid" adds nothing; "same" makes the output ceil(input / stride) long, an odd extra pixel
        at the end; "causal" adds span - 1 at the beginning, so no output sees a later input; an
        int adds that many pixels on every side.
    input_size, kernel, stride, dilation : sequence of int
        One entry per spatial axis.
    name : str
        Who asks, for the error messages.

    Raises
    ------
    ValueError
        If `padding` is none of the above or is negative.

    Examples
    --------
    >>> resolve_padding("same", (8,), (4,), (1,), (1,), "Conv")
    ((1, 2),)
    """
    spans = [span(k, d) for k, d in zip(kernel, dilation, strict=True)]
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * len(spans)
        if padding == "causal":
            return tuple((reach - 1, 0) for reach in spans)
        if padding == "same":
            totals = [
                max((-(-size // step) - 1) * step + reach - size, 0)
                for size, step, reach in zip(input_size, stride, spans, strict=True)
            ]
            return tuple((total // 2, total - total // 2) for total in totals)
    elif not isinstance(padding, (tuple, list, np.ndarray)):
        border = integer(padding, f"{name}: padding")
        return ((border, border),) * len(spans)
    elif len(padding) == len(spans) and all(np.shape(pair) == (2,) for pair in padding):
        return tuple(
            (integer(begin, f"{name}: padding"), integer(end, f"{name}: padding"))
            for begin, end in padding
        )
    raise ValueError(
        f'{name}: padding must be "valid", "same", "causal", an integer or a (begin, end) pair for '
        f"each of the {len(spans)} spatial axes, got {padding!r}"
    )


def output_size(
    input_size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[tuple[int, int]],
    name: str,
    *,
    ceil_mode: bool = False,
) -> tuple[int, ...]:
    """Return how many windows fit along each spatial axis.

    floor((size + begin + end - span) / stride) + 1; with `ceil_mode` the division rounds up, so a
    last window may hang over the end, but never one that would start beyond the last pixel.

    Raises
    ------
    ValueError
        If no window fits into the padded input, or the input has no pixels.
    """
    sizes = []
    for size, k, step, d, (begin, end) in zip(
        input_size, kernel, stride, dilation, padding, strict=True
    ):
        reach, padded = span(k, d), size + begin + end
        if size < 1:
            raise ValueError(
                f"{name}: every spatial axis must have at least one pixel, got {tuple(input_size)}"
            )
        windows = (padded - reach) // step + 1
        if ceil_mode and (padded - reach) % step and windows * step < size + begin:
            windows += 1
        if windows < 1:
            raise ValueError(
                f"{name}: the kernel must fit into the padded input, got a kernel of {reach} "
                f"(with dilation) on an input of {padded} (with padding)"
            )
        sizes.append(windows)
    return tuple(sizes)


def span(kernel: int, dilation: int) -> int:
    """Return the number of pixels a dilated kernel reaches over."""
    return (kernel - 1) * dilation + 1


def tap_map(
    size: int,
    out: int,
    taps: int,
    stride: int,
    dilation: int,
    begin: int,
    mode: str,
    end: int | None = None,
) -> npt.NDArray[np.int64]:
    """Return which input index each tap of each window reads along one axis, -1 for none.

    Parameters
    ----------
    size, out, taps : int
        Pixels of the input, windows, taps of a window.
    mode : {"zeros", "reflect", "replicate", "circular"}
        What the border holds, shown on the row 1 2 3 4 with a border of 2::

            zeros      0 0 | 1 2 3 4 | 0 0
            reflect    3 2 | 1 2 3 4 | 3 2
            replicate  1 1 | 1 2 3 4 | 4 4
            circular   3 4 | 1 2 3 4 | 1 2
    end : int, optional
        Width of the border at the end: taps of an overhanging window beyond it read nothing.

    Returns
    -------
    ndarray of int64 of shape (out, taps)

    Raises
    ------
    ValueError
        If `mode` is unknown.

    Examples
    --------
    >>> tap_map(4, 3, 2, 2, 1, 1, "reflect")
    array([[1, 0],
           [1, 2],
           [3, 2]])
    """
    position = (
        np.arange(out, dtype=np.int64)[:, None] * stride
        - begin
        + np.arange(taps, dtype=np.int64) * dilation
    )
    if mode == "zeros":
        index = np.where((position >= 0) & (position < size), position, -1)
    elif mode == "replicate":
        index = np.clip(position, 0, size - 1)
    elif mode == "circular":
        index = position % size
    elif mode == "reflect":
        last = size - 1
        index = last - np.abs(position % max(2 * last, 1) - last)
    else:
        raise ValueError(f"padding_mode must be one of {', '.join(PADDING_MODES)}, got {mode!r}")
    if end is not None:
        index = np.where(position < size + end, index, -1)
    return index
