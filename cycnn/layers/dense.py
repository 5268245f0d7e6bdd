"""The fully connected layer."""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, positive_int
from cycnn.init import he_normal, zeros
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Shapes, Weight, flag
from cycnn.layers.parameter import Parameter, add_gradients


@register
class Dense(Layer):
    """Affine map y = x @ weight + bias (one output per feature).

    Backward: dx = dy @ weight.T, dweight = x.T @ dy, dbias = sum of dy over the batch.
    Rumelhart, Hinton and Williams (1986), eqs. 1, 6 and 7.

    Parameters
    ----------
    features : int
        Number of outputs.
    bias : bool
        Whether a bias is added.
    name : str, optional

    Attributes
    ----------
    weight : Parameter of shape (C, features), drawn by `init.he_normal`
    bias : Parameter of shape (features,), zeros; None without

    Raises
    ------
    ValueError, TypeError
        If `features` is no int of at least 1; when built, if the input is not (N, C).

    Examples
    --------
    >>> dense = Dense(10).build((64,), rng=0)
    >>> dense.weight.shape, dense.output_shape
    ((64, 10), (10,))
    """

    def __init__(self, features: int, *, bias: bool = True, name: str | None = None) -> None:
        super().__init__(name=name, features=features, bias=bias)
        self.features = positive_int(features, "Dense: features")
        self.has_bias = flag(bias, "Dense: bias")

    @property
    def weight(self) -> Parameter:
        """Parameter of shape (C, features)."""
        return self.parameter("weight")

    @property
    def bias(self) -> Parameter | None:
        """Parameter of shape (features,), or None."""
        return self.parameter("bias") if self.has_bias else None

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return (features,)."""
        if len(input_shape) != 1:
            raise ValueError(
                "Dense: input must have shape (N, C), so put Flatten() or GlobalAvgPool() before, "
                f"got shape {input_shape} without the batch"
            )
        return (self.features,)

    def weights(self, input_shape: Shapes) -> dict[str, Weight]:
        """Ask for the matrix (He et al., 2015, eq. 10) and for biases of zero."""
        bias = {"bias": Weight((self.features,), zeros)} if self.has_bias else {}
        return {"weight": Weight((*input_shape, self.features), he_normal), **bias}

    def macs(self, input_shape: Shapes) -> int:
        """Return the size of the matrix."""
        return math.prod(input_shape) * self.features

    def reach(self, input_shape: Shapes) -> None:
        """Every output sees every input."""

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, C) to y (N, features)."""
        return self.affine(x)

    def affine(self, x: ArrayLike, activation: str | None = None) -> tuple[Array, Backward]:
        """Do the same, and in the same pass apply an activation, which backward leaves out."""
        x = self.check_input(x)
        weight, bias = self.weight, self.bias
        b = None if bias is None else bias.data
        y = ops.dense(x, weight.data, b, activation=activation)
        y_shape = y.shape

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y_shape)
            add_gradients(
                weight, bias, lambda with_bias: ops.dense_backward_weight(dy, x, with_bias)
            )
            return ops.dense_backward_input(dy, weight.data) if input_gradient else None

        return y, backward
