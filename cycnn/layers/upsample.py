"""Higher resolution by copies or by interpolation."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, per_axis
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Shapes, flag


@register
class Upsample(Layer):
    """Every spatial axis made `factor` times as long; nothing is learnt.

    Nearest: y[o] = x[floor(o / factor)]. Linear, along each axis: y[o] lies on the straight line
    between the two pixels beside position p of the input, p = max((o + 1/2) / factor - 1/2, 0), or
    with `align_corners` p = o (size - 1) / (size factor - 1); on two axes bilinear, on three
    trilinear. Both as `torch.nn.functional.interpolate`.

    Backward: each pixel gets the sum of what every output took of it.

    Parameters
    ----------
    factor : int or one per axis
    mode : {"nearest", "linear"}
    align_corners : bool
        Whether the first and the last pixel keep their values: mode "linear" only.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If a factor is no int of at least 1 or the mode is unknown; when built, if there are not as
        many factors as spatial axes.

    Examples
    --------
    >>> y, backward = Upsample(2, "linear").build((2, 1))([[[0], [4]]])
    >>> y.ravel().tolist(), Upsample((1, 3)).build((8, 8, 3)).output_shape
    ([0.0, 1.0, 3.0, 4.0], (8, 24, 3))
    """

    def __init__(
        self,
        factor: int | tuple[int, ...],
        mode: str = "nearest",
        align_corners: bool = False,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name, factor=factor, mode=mode, align_corners=align_corners)
        per_axis(
            factor, len(factor) if isinstance(factor, (tuple, list)) else 1, "Upsample: factor"
        )
        ops.check_upsample_mode(mode)
        if flag(align_corners, "Upsample: align_corners") and mode != "linear":
            raise ValueError('Upsample: align_corners must be False unless mode is "linear"')
        self.factor, self.mode, self.align_corners = factor, mode, bool(align_corners)

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the input's shape with every spatial axis multiplied."""
        axes = len(input_shape) - 1
        if not 1 <= axes <= 3:
            raise ValueError(
                "Upsample: input must have 1 to 3 spatial axes and the channels, "
                f"got shape {input_shape}"
            )
        factors = per_axis(self.factor, axes, "Upsample: factor")
        return (*(n * f for n, f in zip(input_shape[:-1], factors, strict=True)), input_shape[-1])

    def reach(self, input_shape: Shapes) -> None:
        """A pixel of the input is seen by several outputs: no whole number tells their distance."""

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, spatial..., C) to y (N, spatial..., C)."""
        x = self.check_input(x)
        options: dict[str, Any] = {"align_corners": self.align_corners}
        y = ops.upsample(x, self.factor, self.mode, **options)
        x_shape, y_shape = x.shape, y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            if not input_gradient:
                return None
            return ops.upsample_backward(dy, x_shape, self.factor, self.mode, **options)

        return y, backward
