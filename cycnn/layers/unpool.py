"""Max unpooling: the values of a max pool put back where they came from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, as_input, per_axis
from cycnn.init import Shape
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Shapes, kinds
from cycnn.layers.window import Window


@register
class MaxUnpool(Layer):
    """Put each value of a max pool into the pixel that it came from, 0 into all others.

        y[n, indices[n, o, c], c] = x[n, o, c]

    It takes the tuple (values, indices) that `MaxPool(return_indices=True)` gives; the values may
    have gone through other layers in between. Where windows overlap, values that meet in a pixel
    are added. Zeiler and Fergus (2014), section 2.1; SegNet's decoder (Badrinarayanan et al., 2017,
    section 3). Backward: dx[n, o, c] = dy[n, indices[n, o, c], c]; indices have a gradient of 0.

    Parameters
    ----------
    pool_size, stride, padding, dilation
        Those of the MaxPool; padding "valid", an int or (begin, end) pairs.
    output_size : int or tuple of int, optional
        The spatial extents of the MaxPool's input. By default the smallest that fit,
        (size - 1) stride + span - begin - end, where span = (pool_size - 1) dilation + 1; a pool
        that leaves out pixels at the end, or hangs over it, needs to be told: less than stride
        away.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range; when called, if an index is no whole number or lies
        outside the output.

    Examples
    --------
    >>> from cycnn.layers import MaxPool
    >>> pool = MaxPool(2, return_indices=True).build((4, 1))
    >>> unpool = MaxUnpool(2).build(pool.output_shape)
    >>> y, backward = unpool(pool([[[1], [5], [2], [3]]])[0])
    >>> y.ravel().tolist()
    [0.0, 5.0, 0.0, 3.0]
    """

    merges = True

    def __init__(
        self,
        pool_size: int | tuple[int, ...],
        *,
        stride: int | tuple[int, ...] | None = None,
        padding: str | int | tuple[tuple[int, int], ...] = "valid",
        dilation: int | tuple[int, ...] = 1,
        output_size: int | tuple[int, ...] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            name=name, pool_size=pool_size, stride=stride, padding=padding, dilation=dilation,
            output_size=output_size,
        )  # fmt: skip
        if isinstance(padding, str) and padding != "valid":
            raise ValueError(
                'MaxUnpool: padding must be "valid", an integer or a (begin, end) pair for each '
                f"spatial axis, got {padding!r}"
            )
        self.window = Window(
            "MaxUnpool", "pool_size", pool_size, pool_size if stride is None else stride, padding,
            "zeros", dilation, pooling=True,
        )  # fmt: skip
        self.output_size = output_size

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return (*output_size, C)."""
        if len(input_shape) != 2 or input_shape[0] != input_shape[1]:
            raise ValueError(
                f"MaxUnpool: input must be values and indices of one shape, got {input_shape}"
            )
        shape = input_shape[0]
        return (*self._output(shape[:-1]), shape[-1])

    def _output(self, spatial: Shape) -> Shape:
        """Return the spatial extents of the output."""
        shape = (*spatial, 1)
        smallest = self.window.smallest_input(shape)
        if self.output_size is None:
            out = smallest
        else:
            out = per_axis(self.output_size, len(spatial), "MaxUnpool: output_size")
            axes = zip(out, smallest, self.window.reach(shape), strict=True)
            if any(abs(o - s) >= axis.stride for o, s, axis in axes):
                raise ValueError(
                    f"MaxUnpool: output_size must be less than stride away from {smallest}, "
                    f"got {out}"
                )
        if min(out) < 1:
            raise ValueError(f"MaxUnpool: output_size must be at least 1 per axis, got {out}")
        return out

    def reach(self, input_shape: Shapes) -> None:
        """Where a value goes depends on the values that the pool saw."""

    def __call__(self, x: Any, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C) and indices of that shape to y (N, *output_size, C)."""
        values, indices = self.check_inputs(x)
        y = ops.max_unpool(values, indices, self._output(values.shape[1:-1]))
        y_shape = y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> tuple[Array, Array] | None:
            dy = self.check_gradient(dy, y_shape)
            if not input_gradient:
                return None
            dx = ops.max_unpool_backward(dy, indices)
            return dx, ops.zeros(dx.shape, dx.dtype)

        return y, backward

    def check_inputs(self, arrays: Any) -> tuple[Array, ...]:
        """Return the values in the layer's dtype and the indices as int64."""
        if not isinstance(arrays, (tuple, list)) or len(arrays) != 2:
            raise TypeError("MaxUnpool: x must be a tuple of two arrays, values and indices")
        values = as_input(arrays[0], self.dtype, "MaxUnpool: x[0]")
        indices = np.asarray(arrays[1])
        if kinds((values.shape[1:], indices.shape[1:])) not in self._kinds:
            self._refuse((values, indices))
        if values.shape != indices.shape:
            raise ValueError(
                f"MaxUnpool: x must be values and indices of one shape, got {values.shape} and "
                f"{indices.shape}"
            )
        if indices.dtype.kind == "f" and not np.array_equal(indices, np.rint(indices)):
            raise ValueError("MaxUnpool: indices must be whole numbers, got fractions or NaN")
        return values, as_input(indices, np.int64, "MaxUnpool: x[1]")
