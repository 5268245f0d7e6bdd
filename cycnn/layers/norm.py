"""Batch normalisation."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, real_number
from cycnn.init import ones, zeros
from cycnn.layers.activation import above_zero
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Shapes, Weight
from cycnn.layers.parameter import Parameter


@register
class BatchNorm(Layer):
    """Normalise each channel over the batch and all pixels, then scale and shift it.

        y = gamma * (x - mean) / sqrt(variance + eps) + beta

    Ioffe and Szegedy (2015), algorithm 1. In training, mean and (biased) variance are those of the
    batch, and the running statistics follow them:

        running = momentum * running + (1 - momentum) * batch

    with the unbiased variance. Otherwise, and when frozen, the running statistics are used.

    Backward, with xhat = (x - mean) / sqrt(variance + eps), g = gamma * dy, and means over the
    batch and all pixels: dgamma = sum of dy * xhat, dbeta = sum of dy, and

        dx = (g - mean(g) - xhat * mean(g * xhat)) / sqrt(variance + eps)

    of which, with the running statistics, which are constants, g / sqrt(variance + eps) is left.

    Parameters
    ----------
    momentum : float
        In [0, 1]: how much of the running statistics stays at each batch.
    eps : float
        Above 0; keeps the division finite.
    name : str, optional

    Attributes
    ----------
    gamma : Parameter of shape (C,), ones
    beta : Parameter of shape (C,), zeros

    Raises
    ------
    ValueError
        If an argument is out of its range; in training, if there is one value per channel only.

    Examples
    --------
    >>> norm = BatchNorm().build((8, 8, 3))
    >>> norm.gamma.shape, sorted(norm.buffers())
    ((3,), ['running_mean', 'running_variance'])
    """

    def __init__(
        self, momentum: float = 0.9, eps: float = 1e-5, *, name: str | None = None
    ) -> None:
        super().__init__(name=name, momentum=momentum, eps=eps)
        if not 0 <= real_number(momentum, "BatchNorm: momentum") <= 1:
            raise ValueError(f"BatchNorm: momentum must be in [0, 1], got {momentum!r}")
        self.momentum = float(momentum)
        self.eps = above_zero(eps, "BatchNorm: eps")

    @property
    def gamma(self) -> Parameter:
        """Scale, a Parameter of shape (C,)."""
        return self.parameter("gamma")

    @property
    def beta(self) -> Parameter:
        """Shift, a Parameter of shape (C,)."""
        return self.parameter("beta")

    def weights(self, input_shape: Shapes) -> dict[str, Weight]:
        """Ask for gamma = 1, beta = 0 and running statistics of mean 0 and variance 1."""
        shape = input_shape[-1:]
        return {
            "gamma": Weight(shape, ones),
            "beta": Weight(shape, zeros),
            "running_mean": Weight(shape, zeros, learnt=False),
            "running_variance": Weight(shape, ones, learnt=False),
        }

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to y of the same shape."""
        return self.normalise(x, training)

    def normalise(
        self,
        x: ArrayLike,
        training: bool,
        residual: Array | None = None,
        *,
        overwrite: bool = False,
        **activation: Any,
    ) -> tuple[Array, Backward]:
        """Do the same, and in the same pass add a residual and apply an activation.

        With a residual, backward returns the gradients of residual and x. With `overwrite`, it may
        write one of its results over dy. For `activation` and `slope`, see `ops.batch_norm`.
        """
        x = self.check_input(x)
        gamma, beta = self.gamma, self.beta
        options = {"residual": residual, **activation}
        running = self._buffers["running_mean"], self._buffers["running_variance"]
        if training and not self.frozen:
            count = x.size // x.shape[-1]
            if count < 2:
                raise ValueError(
                    "BatchNorm: training needs more than one value per channel, "
                    f"got x of shape {x.shape}"
                )
            y, how = ops.batch_norm(
                x, gamma.data, beta.data, self.eps, running=running, momentum=self.momentum,
                **options,
            )  # fmt: skip
        else:
            y, how = ops.batch_norm_inference(
                x, gamma.data, beta.data, *running, self.eps, **options
            )
        kept = y if how.needs_y else None

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Any:
            dy = self.check_gradient(dy, x.shape)
            dx, dgamma, dbeta, dresidual = ops.batch_norm_backward(
                dy, x, gamma.data, how, input_gradient, y=kept, overwrite=overwrite
            )
            gamma.add_grad(dgamma)
            beta.add_grad(dbeta)
            return (dresidual, dx) if how.joined else dx

        return y, backward
