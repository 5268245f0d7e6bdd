"""Parameter updates, in place: each parameter, gradient and state is read and written once."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from cycnn._check import Array
from cycnn.engine import Bound, Plan, kernels

_CHUNK = 8192


@lru_cache(maxsize=2048)
def _bound(kernel: str, size: int, dtype: Any, passes: int) -> Bound:
    """Return the update of `size` elements in `passes` reads and writes, all but its arguments."""
    jobs, work = -(-size // _CHUNK), passes * size * dtype.itemsize
    bound: Bound = getattr(kernels(dtype), kernel).bind(jobs, count=size, chunk=_CHUNK, work=work)
    return bound


def _update(
    name: str, kernel: str, passes: int, plan: Plan | None, arrays: dict[str, Any],
    **numbers: Any,
) -> None:  # fmt: skip
    """Check the arrays, which are updated together in place, and run the kernel on them."""
    data = arrays["data"]
    shape, dtype = data.shape, data.dtype
    for argument, array in arrays.items():
        if array is None:
            continue
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"{name}: {argument} must be {dtype} of shape {shape} like data, "
                f"got {array.dtype} of shape {array.shape}"
            )
        if not array.flags.carray:  # contiguous, writable and aligned
            raise ValueError(f"{name}: {argument} must be writable and C-contiguous, it is not")
    bound = _bound(kernel, data.size, dtype, passes)
    if plan is None:
        alone = Plan()
        alone.append(bound, **arrays, **numbers)
        alone.run()
    else:
        plan.append(bound, beside=True, **arrays, **numbers)


def sgd_update(
    data: Array,
    grad: Array,
    velocity: Array | None,
    learning_rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    *,
    plan: Plan | None = None,
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
    plan : Plan, optional
        Where to put the step, side by side with its others, instead of running it here and now.

    Raises
    ------
    ValueError
        If an array differs from `data` in shape or dtype, or cannot be updated in place.

    References
    ----------
    Sutskever et al. (2013), eqs. 1 to 4, in the form of PyTorch: the rate multiplies the velocity.
    """
    arrays = {"data": data, "grad": grad, "velocity": velocity}
    _update(
        "SGD", "sgd_update", 5, plan, arrays, nesterov=bool(nesterov), learning_rate=learning_rate,
        momentum=momentum, weight_decay=weight_decay,
    )  # fmt: skip


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
    plan: Plan | None = None,
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
    plan : Plan, optional
        Where to put the step, side by side with its others, instead of running it here and now.

    Raises
    ------
    ValueError
        If an array differs from `data` in shape or dtype, cannot be updated in place, or `step` is
        less than 1.

    References
    ----------
    Kingma and Ba (2015), algorithm 1; Loshchilov and Hutter (2019), algorithm 2.
    """
    if step < 1:
        raise ValueError(f"Adam: step must be at least 1, got {step!r}")
    _update(
        "Adam", "adam_update", 8, plan, {"data": data, "grad": grad, "m": m, "v": v},
        rate=learning_rate / (1 - beta1**step), correction=1 / math.sqrt(1 - beta2**step),
        beta1=beta1, beta2=beta2, eps=eps, weight_decay=0.0 if decoupled else weight_decay,
        keep=1 - learning_rate * weight_decay if decoupled else 1.0,
    )  # fmt: skip


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
    plan: Plan | None = None,
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
    plan : Plan, optional
        Where to put the step, side by side with its others, instead of running it here and now.

    Raises
    ------
    ValueError
        If an array differs from `data` in shape or dtype, or cannot be updated in place.

    References
    ----------
    Tieleman and Hinton (2012), lecture 6.5, with momentum in the form of PyTorch.
    """
    _update(
        "RMSprop", "rmsprop_update", 7, plan,
        {"data": data, "grad": grad, "v": v, "velocity": velocity}, learning_rate=learning_rate,
        rho=rho, momentum=momentum, eps=eps, weight_decay=weight_decay,
    )  # fmt: skip


def adagrad_update(
    data: Array,
    grad: Array,
    v: Array,
    learning_rate: float,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    *,
    plan: Plan | None = None,
) -> None:
    """Move `data` one step of Adagrad, in place.

    g = grad + weight_decay data; v += g^2; data -= learning_rate g / (sqrt(v) + eps).

    Parameters
    ----------
    data, grad, v : ndarray of one shape and dtype
        v is the state, zeros before the first step.
    learning_rate, eps, weight_decay : float
    plan : Plan, optional
        Where to put the step, side by side with its others, instead of running it here and now.

    Raises
    ------
    ValueError
        If an array differs from `data` in shape or dtype, or cannot be updated in place.

    References
    ----------
    Duchi, Hazan and Singer (2011), figure 1.
    """
    _update(
        "Adagrad", "adagrad_update", 5, plan, {"data": data, "grad": grad, "v": v},
        learning_rate=learning_rate, eps=eps, weight_decay=weight_decay,
    )  # fmt: skip


def lion_update(
    data: Array,
    grad: Array,
    m: Array,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.99,
    weight_decay: float = 0.0,
    *,
    plan: Plan | None = None,
) -> None:
    """Move `data` one step of Lion, in place.

    data = (1 - learning_rate weight_decay) data - learning_rate sign(beta1 m + (1 - beta1) grad);
    m = beta2 m + (1 - beta2) grad.

    Parameters
    ----------
    data, grad, m : ndarray of one shape and dtype
        m is the state, zeros before the first step.
    learning_rate, beta1, beta2, weight_decay : float
    plan : Plan, optional
        Where to put the step, side by side with its others, instead of running it here and now.

    Raises
    ------
    ValueError
        If an array differs from `data` in shape or dtype, or cannot be updated in place.

    References
    ----------
    Chen et al. (2023), "Symbolic discovery of optimization algorithms", algorithm 2.
    """
    _update(
        "Lion", "lion_update", 5, plan, {"data": data, "grad": grad, "m": m},
        learning_rate=learning_rate, beta1=beta1, beta2=beta2,
        keep=1 - learning_rate * weight_decay,
    )  # fmt: skip
