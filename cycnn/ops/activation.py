"""Activations: element by element, with a slope per channel, and softmax along the last axis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cycnn import engine
from cycnn._check import Array, as_input
from cycnn.ops.elementwise import copy_rows, same_shape
from cycnn.ops.rows import channel_rows
from cycnn.ops.sums import add_up

_CHUNK = 4096  # elements of a job: in the first-level cache together
_FUNCTIONS = (  # in the order of Function in kernels/activation.pyx
    "clip", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "mish", "sigmoid", "tanh",
    "hard_sigmoid", "hard_swish", "softplus", "softsign", "exp", "log",
)  # fmt: skip
_NUMBERS = {name: number for number, name in enumerate(_FUNCTIONS)}


def _run(
    job: str, function: str, x: Array, dy: Array | None, constants: tuple[float, ...], work: int
) -> Array:
    """Return what the job of that name makes of x."""
    if function not in _NUMBERS:
        raise ValueError(
            f"activation: function must be one of {', '.join(_FUNCTIONS)}, got {function!r}"
        )
    a, b, c = (*map(float, constants), 0.0, 0.0, 0.0)[:3]
    y = engine.empty(x.shape, x.dtype)
    plan = engine.Plan()
    plan.add(
        getattr(engine.kernels(x.dtype), job), -(-x.size // _CHUNK), x=x, dy=dy, y=y, count=x.size,
        chunk=_CHUNK, function=_NUMBERS[function], a=a, b=b, c=c, work=work * x.nbytes,
    )  # fmt: skip
    plan.run()
    return y


def activation(x: Array, function: str, *constants: float) -> Array:
    """Return y = function(x), element by element.

    Parameters
    ----------
    x : ndarray of any shape
    function : str
        "clip" (low, high), "leaky_relu" (slope), "elu" (a, b, c: a x above 0, b (exp(c x) - 1)
        below), "gelu", "gelu_tanh", "silu", "mish", "sigmoid", "tanh", "hard_sigmoid",
        "hard_swish", "softplus" (beta), "softsign", "exp" or "log".
    *constants : float
        Those in parentheses above.

    Raises
    ------
    ValueError
        If there is no such function.

    Examples
    --------
    >>> import numpy as np
    >>> activation(np.array([-3.0, 0.5, 8.0]), "clip", 0, 6)
    array([0. , 0.5, 6. ])
    """
    return _run("activation_forward", function, x, None, constants, 8)


def activation_backward(dy: Array, x: Array, function: str, *constants: float) -> Array:
    """Return dx = dy function'(x).

    Parameters
    ----------
    dy, x : ndarray of one shape
        The gradient of the output and the input.
    function : str
    *constants : float
        As for `activation`.

    Raises
    ------
    ValueError
        If the shapes differ or there is no such function.
    """
    dy = same_shape(dy, x, "dy", "activation")
    return _run("activation_backward", function, x, dy, constants, 16)


def _slopes(slope: Any, x: Array) -> Array:
    """Return `slope` in the dtype of x, one value for each of its channels."""
    values = as_input(slope, x.dtype, "PReLU: slope")
    if x.ndim < 2 or values.shape != x.shape[-1:]:
        raise ValueError(
            f"PReLU: slope must have one value for each channel of x, got {values.shape} "
            f"for x of shape {x.shape}"
        )
    return values


def _repeated(plan: engine.Plan, slope: Array, rows: dict[str, int]) -> Array:
    """Return the slope of each column of the kernels' rows, once `plan` has run."""
    C, period = rows["C"], rows["period"]
    if period == C:
        return slope
    columns = engine.empty((period,), slope.dtype)
    copy_rows(plan, slope, columns, period // C, C, 0, C)
    return columns


def prelu(x: Array, slope: Array) -> Array:
    """Return y = x where x > 0, else slope x.

    Parameters
    ----------
    x : ndarray of shape (N, ..., C)
    slope : ndarray of shape (C,)

    Raises
    ------
    ValueError
        If there is not one slope for each channel.

    References
    ----------
    He et al. (2015), equation 1.
    """
    slope = _slopes(slope, x)
    rows, jobs = channel_rows(x)
    y = engine.empty(x.shape, x.dtype)
    plan = engine.Plan()
    columns = _repeated(plan, slope, rows)
    plan.add(
        engine.kernels(x.dtype).prelu_forward, jobs, x=x, y=y, slope=columns, **rows,
        work=2 * x.nbytes,
    )  # fmt: skip
    plan.run()
    return y


def prelu_backward(
    dy: Array, x: Array, slope: Array, input_gradient: bool = True
) -> tuple[Array | None, Array]:
    """Return dx = dy (x > 0), dy slope (else), and dslope = sum of dy x where x <= 0.

    Parameters
    ----------
    dy, x : ndarray of shape (N, ..., C)
    slope : ndarray of shape (C,)
    input_gradient : bool
        False leaves dx out.

    Returns
    -------
    dx : ndarray of the shape of x, or None
    dslope : ndarray of shape (C,)

    Raises
    ------
    ValueError
        If a shape is wrong.

    References
    ----------
    He et al. (2015), equations 2 and 3.
    """
    slope = _slopes(slope, x)
    dy = same_shape(dy, x, "dy", "PReLU")
    rows, jobs = channel_rows(x)
    dx = engine.empty(x.shape, x.dtype) if input_gradient else None
    dslope = engine.empty(slope.shape, x.dtype)
    kernels = engine.kernels(x.dtype)
    partial = engine.empty((jobs, rows["C"]), np.float64)
    plan = engine.Plan()
    columns = _repeated(plan, slope, rows)
    plan.add(
        kernels.prelu_backward, jobs, dy=dy, x=x, dx=dx, partial=partial, slope=columns, **rows,
        scratch=(rows["period"] + kernels.VL) * x.itemsize, work=3 * x.nbytes,
    )  # fmt: skip
    add_up(plan, partial, dslope)
    plan.run()
    return dx, dslope


def _softmax_rows(x: Array, name: str) -> dict[str, int]:
    if x.ndim < 1 or not x.shape[-1]:
        raise ValueError(f"{name}: x must have at least one channel, got shape {x.shape}")
    K = x.shape[-1]
    return {"rows": math.prod(x.shape[:-1]), "K": K, "chunk": max(_CHUNK // K, 1)}


def _softmax(x: Array, job: str, name: str) -> Array:
    rows = _softmax_rows(x, name)
    y = engine.empty(x.shape, x.dtype)
    plan = engine.Plan()
    plan.add(
        getattr(engine.kernels(x.dtype), job), -(-rows["rows"] // rows["chunk"]), x=x, y=y, **rows,
        work=16 * x.size,
    )  # fmt: skip
    plan.run()
    return y


def _softmax_backward(dy: Array, y: Array, job: str, name: str) -> Array:
    dy = same_shape(dy, y, "dy", name)
    rows = _softmax_rows(y, name)
    dx = engine.empty(y.shape, y.dtype)
    plan = engine.Plan()
    plan.add(
        getattr(engine.kernels(y.dtype), job), -(-rows["rows"] // rows["chunk"]), dy=dy, y=y, dx=dx,
        **rows, work=16 * y.size,
    )  # fmt: skip
    plan.run()
    return dx


def softmax(x: Array) -> Array:
    """Return y = exp(x) / sum of exp(x) over the last axis.

    Parameters
    ----------
    x : ndarray of shape (..., K)
        NaN, or a row whose largest value is infinite, gives NaN.

    Raises
    ------
    ValueError
        If the last axis is empty.

    References
    ----------
    Goodfellow, Bengio and Courville (2016), equation 6.29.
    """
    return _softmax(x, "softmax_forward", "Softmax")


def softmax_backward(dy: Array, y: Array) -> Array:
    """Return dx = y (dy - sum of dy y over the last axis).

    Parameters
    ----------
    dy, y : ndarray of shape (..., K)
        The gradient of the output and the output itself.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    return _softmax_backward(dy, y, "softmax_backward", "Softmax")


def log_softmax(x: Array) -> Array:
    """Return y = x - log(sum of exp(x)) over the last axis.

    Parameters
    ----------
    x : ndarray of shape (..., K)
        NaN, or a row whose largest value is infinite, gives NaN.

    Raises
    ------
    ValueError
        If the last axis is empty.

    References
    ----------
    Goodfellow, Bengio and Courville (2016), equation 6.30.
    """
    return _softmax(x, "log_softmax_forward", "LogSoftmax")


def log_softmax_backward(dy: Array, y: Array) -> Array:
    """Return dx = dy - exp(y) times the sum of dy over the last axis.

    Parameters
    ----------
    dy, y : ndarray of shape (..., K)
        The gradient of the output and the output itself.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    return _softmax_backward(dy, y, "log_softmax_backward", "LogSoftmax")
