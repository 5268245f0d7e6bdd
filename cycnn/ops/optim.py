"""Parameter updates, in place: each parameter, gradient and state is read and written once."""

from __future__ import annotations

import math

from cycnn import engine
from cycnn._check import Array

_CHUNK = 8192


def _check_state(name: str, **arrays: Array | None) -> None:
    """Require arrays that can be updated together in place."""
    data = arrays["data"]
    assert data is not None
    for argument, array in arrays.items():
        if array is None:
            continue
        if array.shape != data.shape or array.dtype != data.dtype:
            raise ValueError(
                f"{name}: {argument} must be {data.dtype} of shape {data.shape} like data, "
                f"got {array.dtype} of shape {array.shape}"
            )
        if not (array.flags.c_contiguous and array.flags.writeable and array.flags.aligned):
            raise ValueError(f"{name}: {argument} must be writable and C-contiguous, it is not")


def sgd_update(
    data: Array,
    grad: Array,
    velocity: Array | None,
    learning_rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    *,
    clear: bool = False,
) -> None:
    """Move `data` one step of gradient descent with momentum, in place.

    g = grad + weight_decay data; velocity = momentum velocity + g; data -= learning_rate velocity,
    or, with Nesterov's momentum, data -= learning_rate (g + momentum velocity).

    Parameters
    ----------
    data, grad : ndarray of one shape and dtype
    velocity : ndarray of that shape and dtype, or None
        The state, zeros before the first step; None takes the plain step by g.
    learning_rate, momentum, weight_decay : float
    nesterov : bool
    clear : bool
        Set `grad` to zero in the same pass.

    Raises
    ------
    ValueError
        If an array differs from `data` in shape or dtype, or cannot be updated in place.

    References
    ----------
    Sutskever et al. (2013), eqs. 1 to 4, in the form of PyTorch: the rate multiplies the velocity.
    """
    _check_state("SGD", data=data, grad=grad, velocity=velocity)
    plan = engine.Plan()
    plan.add(
        engine.kernels(data.dtype).sgd_update, -(-data.size // _CHUNK), data=data, grad=grad,
        velocity=velocity, count=data.size, chunk=_CHUNK, nesterov=bool(nesterov),
        clear=bool(clear), learning_rate=float(learning_rate), momentum=float(momentum),
        weight_decay=float(weight_decay), work=5 * data.nbytes,
    )  # fmt: skip
    plan.run()


def adam_update(
    data: Array,
    grad: Array,
    m: Array,
    v: Array,
    step: int,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    clear: bool = False,
) -> None:
    """Move `data` one step of Adam, in place.

    g = grad + weight_decay data; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    data -= learning_rate m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps).

    Parameters
    ----------
    data, grad, m, v : ndarray of one shape and dtype
        m and v are the state, zeros before the first step.
    step : int
        1 for the first step.
    learning_rate, beta1, beta2, eps, weight_decay : float
    clear : bool
        Set `grad` to zero in the same pass.

    Raises
    ------
    ValueError
        If an array differs from `data` in shape or dtype, cannot be updated in place, or `step` is
        less than 1.

    References
    ----------
    Kingma and Ba (2015), algorithm 1.
    """
    _check_state("Adam", data=data, grad=grad, m=m, v=v)
    if step < 1:
        raise ValueError(f"Adam: step must be at least 1, got {step!r}")
    plan = engine.Plan()
    plan.add(
        engine.kernels(data.dtype).adam_update, -(-data.size // _CHUNK), data=data, grad=grad, m=m,
        v=v, count=data.size, chunk=_CHUNK, clear=bool(clear),
        rate=learning_rate / (1 - beta1**step), correction=1 / math.sqrt(1 - beta2**step),
        beta1=float(beta1), beta2=float(beta2), eps=float(eps), weight_decay=float(weight_decay),
        work=8 * data.nbytes,
    )  # fmt: skip
    plan.run()
