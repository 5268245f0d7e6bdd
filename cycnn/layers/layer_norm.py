"""Normalisation over the last axes: layer normalisation and RMS normalisation."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, positive_int
from cycnn.init import ones, zeros
from cycnn.layers.activation import above_zero
from cycnn.layers.base import Backward, Layer, batched, register
from cycnn.layers.building import Reach, Shapes, Weight, flag
from cycnn.layers.parameter import Parameter


class _RowNorm(Layer):
    """What both normalisations over the last axes share."""

    centred = True
    """Whether the mean is taken out, and a shift put in."""

    def _settle(self, axes: Any, eps: Any, affine: Any) -> None:
        """Check and keep the arguments."""
        self.axes = positive_int(axes, f"{type(self).__name__}: axes")
        self.eps = above_zero(eps, f"{type(self).__name__}: eps")
        self.affine = flag(affine, f"{type(self).__name__}: affine")

    @property
    def gamma(self) -> Parameter:
        """Scale, a Parameter of the shape of the last axes."""
        return self.parameter("gamma")

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the input shape, which must have so many axes."""
        if self.axes > len(input_shape):
            raise ValueError(
                f"{type(self).__name__}: axes must be at most the axes of the input without the "
                f"batch, got {self.axes} for {batched(input_shape)}"
            )
        return input_shape

    def weights(self, input_shape: Shapes) -> dict[str, Weight]:
        """Ask for gamma = 1 and (centred) beta = 0, unless not affine."""
        shape = input_shape[-self.axes :]
        wanted = {"gamma": Weight(shape, ones), "beta": Weight(shape, zeros)}
        if not self.centred:
            del wanted["beta"]
        return wanted if self.affine else {}

    def reach(self, input_shape: Shapes) -> tuple[Reach, ...] | None:
        """Return None where pixels are averaged: every output looks at the whole input."""
        return super().reach(input_shape) if self.axes == 1 else None

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to y of the same shape."""
        x = self.check_input(x)
        named = self.parameters()
        gamma, beta = named.get("gamma"), named.get("beta")
        scale = None if gamma is None else gamma.data
        shift = None if beta is None else beta.data
        axes, centred = self.axes, self.centred
        y, mean, inverse = ops.row_norm(x, scale, shift, axes, self.eps, centred=centred)

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, x.shape)
            dx, dgamma, dbeta = ops.row_norm_backward(
                dy, x, scale, mean, inverse, axes, centred=centred, input_gradient=input_gradient
            )
            if gamma is not None:
                gamma.add_grad(dgamma)
            if beta is not None:
                beta.add_grad(dbeta)
            return dx

        return y, backward


@register
class LayerNorm(_RowNorm):
    """Normalise over the last axes of each sample, then scale and shift each of their elements.

        y = gamma * (x - mean) / sqrt(variance + eps) + beta

    Ba, Kiros and Hinton (2016), equation 3, with the biased variance. With axes=1 mean and variance
    are those of one pixel's channels (Keras' axis=-1; PyTorch's normalized_shape=C). With more axes
    they are those of the last axes together, and gamma and beta have a value for each of their
    elements (PyTorch's normalized_shape of so many axes), so the input's size is fixed. For one
    scale per channel over the whole sample use GroupNorm(1).

    Parameters
    ----------
    axes : int
        How many of the last axes, at least 1; the batch is none of them.
    eps : float
        Above 0; keeps the division finite.
    affine : bool
        Whether there are gamma and beta.
    name : str, optional

    Attributes
    ----------
    gamma : Parameter of the shape of the last axes, ones
    beta : Parameter of the shape of the last axes, zeros

    Raises
    ------
    ValueError
        If an argument is out of its range or the input has too few axes.

    Examples
    --------
    >>> y, _ = LayerNorm().build((2,))([[1, 3]])
    >>> y.round(3).tolist()
    [[-1.0, 1.0]]
    """

    def __init__(
        self, axes: int = 1, eps: float = 1e-5, affine: bool = True, *, name: str | None = None
    ) -> None:
        super().__init__(name=name, axes=axes, eps=eps, affine=affine)
        self._settle(axes, eps, affine)

    @property
    def beta(self) -> Parameter:
        """Shift, a Parameter of the shape of the last axes."""
        return self.parameter("beta")


@register
class RMSNorm(_RowNorm):
    """Divide by the root mean square over the last axes, then scale each of their elements.

        y = gamma * x / sqrt(mean(x**2) + eps)

    Zhang and Sennrich (2019), equation 4: layer normalisation without the mean and the shift.

    Parameters
    ----------
    axes : int
        How many of the last axes, at least 1; the batch is none of them.
    eps : float
        Above 0; keeps the division finite.
    affine : bool
        Whether there is gamma.
    name : str, optional

    Attributes
    ----------
    gamma : Parameter of the shape of the last axes, ones

    Raises
    ------
    ValueError
        If an argument is out of its range or the input has too few axes.

    Examples
    --------
    >>> y, _ = RMSNorm().build((2,), dtype="float64")([[1, 7]])
    >>> y.round(3).tolist()
    [[0.2, 1.4]]
    """

    centred = False

    def __init__(
        self, axes: int = 1, eps: float = 1e-5, affine: bool = True, *, name: str | None = None
    ) -> None:
        super().__init__(name=name, axes=axes, eps=eps, affine=affine)
        self._settle(axes, eps, affine)
