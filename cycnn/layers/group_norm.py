"""Normalisation of each sample by itself, over its pixels: in groups of channels, or each alone."""

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


@register
class GroupNorm(Layer):
    """Normalise each sample's groups of channels over all pixels, then scale and shift channels.

        y = gamma * (x - mean) / sqrt(variance + eps) + beta

    Wu and He (2018), equations 1, 2, 6 and 7: mean and (biased) variance are those of a sample's
    group of C / groups consecutive channels. Training and inference are alike, and no sample
    depends on another.

    Parameters
    ----------
    groups : int
        At least 1; divides the channels.
    eps : float
        Above 0; keeps the division finite.
    affine : bool
        Whether there are gamma and beta.
    name : str, optional

    Attributes
    ----------
    gamma : Parameter of shape (C,), ones
    beta : Parameter of shape (C,), zeros

    Raises
    ------
    ValueError
        If an argument is out of its range or the groups do not divide the channels.

    Examples
    --------
    >>> y, _ = GroupNorm(1).build((2, 2))([[[1, 3], [1, 3]]])
    >>> y.round(3).tolist()
    [[[-1.0, 1.0], [-1.0, 1.0]]]
    """

    def __init__(
        self, groups: int, eps: float = 1e-5, affine: bool = True, *, name: str | None = None
    ) -> None:
        super().__init__(name=name, groups=groups, eps=eps, affine=affine)
        self.groups = positive_int(groups, "GroupNorm: groups")
        self._settle(eps, affine)

    def _settle(self, eps: Any, affine: Any) -> None:
        """Check and keep what all group normalisations take."""
        self.eps = above_zero(eps, f"{type(self).__name__}: eps")
        self.affine = flag(affine, f"{type(self).__name__}: affine")

    def groups_of(self, channels: int) -> int:
        """Return how many groups so many channels fall into."""
        return self.groups

    @property
    def gamma(self) -> Parameter:
        """Scale, a Parameter of shape (C,)."""
        return self.parameter("gamma")

    @property
    def beta(self) -> Parameter:
        """Shift, a Parameter of shape (C,)."""
        return self.parameter("beta")

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the input shape, whose channels the groups must divide."""
        if input_shape[-1] % self.groups_of(input_shape[-1]):
            raise ValueError(
                f"{type(self).__name__}: groups must divide the channels of the input, "
                f"got {self.groups} for {batched(input_shape)}"
            )
        return input_shape

    def weights(self, input_shape: Shapes) -> dict[str, Weight]:
        """Ask for gamma = 1 and beta = 0, unless not affine."""
        shape = input_shape[-1:]
        return {"gamma": Weight(shape, ones), "beta": Weight(shape, zeros)} if self.affine else {}

    def reach(self, input_shape: Shapes) -> tuple[Reach, ...] | None:
        """Return None: every output looks at the whole input."""
        return None

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to y of the same shape."""
        x = self.check_input(x)
        gamma, beta = (self.gamma, self.beta) if self.affine else (None, None)
        scale = None if gamma is None else gamma.data
        shift = None if beta is None else beta.data
        groups = self.groups_of(x.shape[-1])
        y, mean, variance = ops.group_norm(x, scale, shift, groups, self.eps)

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, x.shape)
            dx, dgamma, dbeta = ops.group_norm_backward(
                dy, x, scale, mean, variance, self.eps, input_gradient
            )
            if gamma is not None and beta is not None:
                gamma.add_grad(dgamma)
                beta.add_grad(dbeta)
            return dx

        return y, backward


@register
class InstanceNorm(GroupNorm):
    """Normalise each channel of each sample over its pixels: GroupNorm with a group per channel.

        y = gamma * (x - mean) / sqrt(variance + eps) + beta

    Ulyanov, Vedaldi and Lempitsky (2016), "Instance normalization: the missing ingredient for fast
    stylization". Training and inference are alike.

    Parameters
    ----------
    eps : float
        Above 0; keeps the division finite.
    affine : bool
        Whether there are gamma and beta.
    name : str, optional

    Attributes
    ----------
    gamma : Parameter of shape (C,), ones
    beta : Parameter of shape (C,), zeros

    Raises
    ------
    ValueError
        If an argument is out of its range or the input has no spatial axis.

    Examples
    --------
    >>> y, _ = InstanceNorm().build((2, 2))([[[1, 5], [3, 7]]])
    >>> y.round(3).tolist()
    [[[-1.0, -1.0], [1.0, 1.0]]]
    """

    def __init__(self, eps: float = 1e-5, affine: bool = True, *, name: str | None = None) -> None:
        Layer.__init__(self, name=name, eps=eps, affine=affine)
        self._settle(eps, affine)

    def groups_of(self, channels: int) -> int:
        """Return the number of channels."""
        return channels

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the input shape, which must have an axis to normalise over."""
        if len(input_shape) < 2:
            raise ValueError(
                "InstanceNorm: input must have at least one spatial axis, (N, ..., C), "
                f"got {batched(input_shape)}"
            )
        return input_shape
