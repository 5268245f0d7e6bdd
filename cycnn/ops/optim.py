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
        if not array.flags.carray:  # contiguous, writable and aligned
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
    decoupled: bool = False,
    clear: bool = False,
) -> None:
    """Move `data` one step of Adam or AdamW, in place.

    g = grad + weight_decay data; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    data -= learning_rate m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps).

    Decoupled (AdamW), g = grad and data is first multiplied by 1 - learning_rate weight_decay.

    Parameters
    ----------
    data, grad, m, v : ndarray of one shape and dtype
        m and v are the state, zeros before the first step.
    step : int
        1 for the first step.
    learning_rate, beta1, beta2, eps, weight_decay : float
    decoupled : bool
    clear : bool
        Set `grad` to zero in the same pass.

    Raises
    ------
    ValueError
        If an array differs from `data` in shape or dtype, cannot be updated in place, or `step` is
        less than 1.

    References
    ----------
    Kingma and Ba (2015), algorithm 1; Loshchilov and Hutter (2019), algorithm 2.
    """
    _check_state("Adam", data=data, grad=grad, m=m, v=v)
    if step < 1:
        raise ValueError(f"Adam: step must be at least 1, got {step!r}")
    plan = engine.Plan()
    plan.add(
        engine.kernels(data.dtype).adam_update, -(-data.size // _CHUNK), data=data, grad=grad, m=m,
        v=v, count=data.size, chunk=_CHUNK, clear=bool(clear),
        rate=learning_rate / (1 - beta1**step), correction=1 / math.sqrt(1 - beta2**step),
        beta1=float(beta1), beta2=float(beta2), eps=float(eps),
        weight_decay=0.0 if decoupled else float(weight_decay),
        keep=1 - learning_rate * weight_decay if decoupled else 1.0, work=8 * data.nbytes,
    )  # fmt: skip
    plan.run()


def rmsprop_update(
    data: Array,
    grad: Array,
    v: Array,
    velocity: Array | None,
    learning_rate: float,
    rho: float = 0.9,
    momentum: float = 0.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    clear: bool = False,
) -> None:
    """Move `data` one step of RMSprop, in place.

    g = grad + weight_decay data; v = rho v + (1 - rho) g^2;
    velocity = momentum velocity + g / (sqrt(v) + eps); data -= learning_rate velocity.

    Parameters
    ----------
    data, grad, v : ndarray of one shape and dtype
        v is the state, zeros before the first step.
    velocity : ndarray of that shape and dtype, or None
        More state; None without momentum.
    learning_rate, rho, momentum, eps, weight_decay : float
    clear : bool
        Set `grad` to zero in the same pass.

    Raises
    ------
    ValueError
        If an array differs from `data` in shape or dtype, or cannot be updated in place.

    References
    ----------
    Tieleman and Hinton (2012), lecture 6.5, with momentum in the form of PyTorch.
    """
    _check_state("RMSprop", data=data, grad=grad, v=v, velocity=velocity)
    plan = engine.Plan()
    plan.add(
        engine.kernels(data.dtype).rmsprop_update, -(-data.size // _CHUNK), data=data, grad=grad,
        v=v, velocity=velocity, count=data.size, chunk=_CHUNK, clear=bool(clear),
        learning_rate=float(learning_rate), rho=float(rho), momentum=float(momentum),
        eps=float(eps), weight_decay=float(weight_decay), work=7 * data.nbytes,
    )  # fmt: skip
    plan.run()


def adagrad_update(
    data: Array,
    grad: Array,
    v: Array,
    learning_rate: float,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    *,
    clear: bool = False,
) -> None:
    """Move `data` one step of Adagrad, in place.

    g = grad + weight_decay data; v += g^2; data -= learning_rate g / (sqrt(v) + eps).

    Parameters
    ----------
    data, grad, v : ndarray of one shape and dtype
        v is the state, zeros before the first step.
    learning_rate, eps, weight_decay : float
    clear : bool
        Set `grad` to zero in the same pass.

    Raises
    ------
    ValueError
        If an array differs from `data` in shape or dtype, or cannot be updated in place.

    References
    ----------
    Duchi, Hazan and Singer (2011), figure 1.
    """
    _check_state("Adagrad", data=data, grad=grad, v=v)
    plan = engine.Plan()
    plan.add(
        engine.kernels(data.dtype).adagrad_update, -(-data.size // _CHUNK), data=data, grad=grad,
        v=v, count=data.size, chunk=_CHUNK, clear=bool(clear), learning_rate=float(learning_rate),
        eps=float(eps), weight_decay=float(weight_decay), work=5 * data.nbytes,
    )  # fmt: skip
    plan.run()


def lion_update(
    data: Array,
    grad: Array,
    m: Array,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.99,
    weight_decay: float = 0.0,
    *,
    clear: bool = False,
) -> None:
    """Move `data` one step of Lion, in place.

    data = (1 - learning_rate weight_decay) data - learning_rate sign(beta1 m + (1 - beta1) grad);
    m = beta2 m + (1 - beta2) grad.

    Parameters
    ----------
    data, grad, m : ndarray of one shape and dtype
        m is the state, zeros before the first step.
    learning_rate, beta1, beta2, weight_decay : float
    clear : bool
        Set `grad` to zero in the same pass.

    Raises
    ------
    ValueError
        If an array differs from `data` in shape or dtype, or cannot be updated in place.

    References
    ----------
    Chen et al. (2023), "Symbolic discovery of optimization algorithms", algorithm 2.
    """
    _check_state("Lion", data=data, grad=grad, m=m)
    plan = engine.Plan()
    plan.add(
        engine.kernels(data.dtype).lion_update, -(-data.size // _CHUNK), data=data, grad=grad, m=m,
        count=data.size, chunk=_CHUNK, clear=bool(clear), learning_rate=float(learning_rate),
        beta1=float(beta1), beta2=float(beta2), keep=1 - learning_rate * weight_decay,
        work=5 * data.nbytes,
    )  # fmt: skip
    plan.run()
