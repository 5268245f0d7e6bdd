"""Dense layers: a matrix product is a convolution of one pixel with a kernel of one pixel.

y[n, k] = bias[k] + sum over c of x[n, c] * weight[c, k]
dx = dy @ weight.T        dweight = x.T @ dy        dbias = sum over n of dy[n]
"""

from __future__ import annotations

from cycnn._check import Array
from cycnn.ops.conv import conv, conv_backward_input, conv_backward_weight


def _check(a: Array, b: Array, b_name: str, channels: int, extent: str) -> None:
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"dense: arguments must be matrices, got shapes {a.shape} and {b.shape}")
    if a.shape[1] != channels:
        raise ValueError(
            f"dense: {b_name} of shape {b.shape} must match the {extent} of an array of shape "
            f"{a.shape}"
        )


def dense(
    x: Array, weight: Array, bias: Array | None = None, *, activation: str | None = None
) -> Array:
    """Return ``activation(x @ weight + bias)``.

    Parameters
    ----------
    x : ndarray of shape (N, C)
    weight : ndarray of shape (C, K)
    bias : ndarray of shape (K,), optional
    activation : {None, "relu"}

    Returns
    -------
    y : ndarray of shape (N, K)

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> dense(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), np.array([-1.0]))
    array([[10.]])
    """
    _check(x, weight, "weight", weight.shape[0] if weight.ndim else 0, "columns")
    return conv(x[:, None, :], weight[None], bias, activation=activation)[:, 0, :]


def dense_backward_input(dy: Array, weight: Array) -> Array:
    """Return dx = dy @ weight.T of shape (N, C)."""
    _check(dy, weight, "weight", weight.shape[-1] if weight.ndim else 0, "columns")
    shape = (len(dy), 1, weight.shape[0])
    return conv_backward_input(dy[:, None, :], weight[None], shape)[:, 0, :]


def dense_backward_weight(dy: Array, x: Array, bias: bool = True) -> tuple[Array, Array | None]:
    """Return dweight = x.T @ dy of shape (C, K) and dbias of shape (K,), None without `bias`."""
    if dy.ndim != 2 or x.ndim != 2 or len(dy) != len(x):
        raise ValueError(
            f"dense: dy and x must be matrices of one length, got {dy.shape}, {x.shape}"
        )
    dweight, dbias = conv_backward_weight(dy[:, None, :], x[:, None, :], 1, bias=bias)
    return dweight[0], dbias
