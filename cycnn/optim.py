"""Optimizers: `step(parameters)` moves every trained parameter once and clears its gradient."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import numpy as np

from cycnn import ops
from cycnn._check import Array, real_number
from cycnn.engine import Plan
from cycnn.layers.building import flag
from cycnn.layers.parameter import Parameter
from cycnn.schedules import Schedule, as_schedule


class Optimizer(ABC):
    """What all optimizers share: learning rate, weight decay, clipping, state.

    Parameters
    ----------
    learning_rate : float or Schedule
        Finite and not negative; a schedule gives one for each update.
    weight_decay : float
        Adds `weight_decay * parameter` to every gradient: the penalty weight_decay / 2 times the
        sum of the squares of all trained parameters. `AdamW` and `Lion` decay otherwise.
    clip_norm : float, optional
        Before that, scales all gradients together so that their joint Euclidean norm is at most
        this: Pascanu, Mikolov and Bengio (2013), algorithm 1.
    """

    slots: tuple[str, ...] = ()
    """Names of the arrays kept for each parameter, of its shape and dtype."""

    def __init__(
        self, learning_rate: float | Schedule, weight_decay: float, clip_norm: float | None
    ) -> None:
        self.learning_rate = as_schedule(learning_rate)
        self.weight_decay = self._number("weight_decay", weight_decay)
        self.clip_norm = None if clip_norm is None else self._positive("clip_norm", clip_norm)
        self.steps = 0
        self._arrays: dict[str, Array] = {}  # "slot/parameter": array
        self._updates: dict[str, int] = {}  # parameter: how often it was updated

    def _number(self, name: str, value: float, below: float = math.inf) -> float:
        """Return a setting as a float in [0, below)."""
        if not 0 <= real_number(value, f"{type(self).__name__}: {name}") < below:
            rule = "finite and not negative" if below == math.inf else f"in [0, {below:g})"
            raise ValueError(f"{type(self).__name__}: {name} must be {rule}, got {value!r}")
        return float(value)

    def _positive(self, name: str, value: float) -> float:
        """Return a setting as a finite float above 0."""
        if self._number(name, value) == 0:
            raise ValueError(f"{type(self).__name__}: {name} must be positive, got {value!r}")
        return float(value)

    def step(self, parameters: Mapping[str, Parameter]) -> None:
        """Update every trainable parameter from its gradient, in place, and clear the gradients.

        Parameters
        ----------
        parameters : mapping of str to Parameter
            What `model.parameters()` returns; the state is kept under these names.
        """
        rate = self._number("learning_rate", self.learning_rate(self.steps))
        trained = {name: p for name, p in parameters.items() if p.trainable}
        if self.clip_norm is not None:
            _clip([p.grad for p in trained.values()], self.clip_norm)
        plan = Plan()
        for name, parameter in trained.items():
            arrays = [self._array(f"{slot}/{name}", parameter) for slot in self.slots]
            self._update(plan, parameter, arrays, self._updates.get(name, 0) + 1, rate)
        plan.run()
        for name, parameter in trained.items():
            self._updates[name] = self._updates.get(name, 0) + 1
            parameter._changed()
            parameter.clear_grad()
        self.steps += 1

    def _array(self, key: str, parameter: Parameter) -> Array:
        """Return the state array `key`, zeros when first asked for."""
        array = self._arrays.get(key)
        if array is None:
            array = self._arrays[key] = np.zeros_like(parameter.data)
        elif (array.shape, array.dtype) != (parameter.shape, parameter.dtype):
            raise ValueError(
                f"{type(self).__name__}: the state {key!r} must be like its parameter, "
                f"{parameter.dtype} {parameter.shape}, got {array.dtype} {array.shape}"
            )
        return array

    @abstractmethod
    def _update(
        self, plan: Plan, parameter: Parameter, arrays: list[Array], updates: int, rate: float
    ) -> None:
        """Plan the move of one parameter and its state; `updates` counts its updates, from 1."""

    def state(self) -> dict[str, Array]:
        """Return copies of all that later updates depend on, by name; `load_state` takes it."""
        return {key: array.copy() for key, array in self._live().items()}

    def _live(self) -> dict[str, Array]:
        """Return the state itself: the arrays that updates write to."""
        counts = {f"updates/{name}": np.array(count) for name, count in self._updates.items()}
        learnt = {f"schedule/{k}": np.array(v) for k, v in self.learning_rate.state().items()}
        return {"steps": np.array(self.steps), **counts, **learnt, **self._arrays}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Go on from `state`, a result of `state()` of an optimizer of the same kind."""
        rest = dict(state)
        owner = type(self).__name__
        if "steps" not in rest:
            raise ValueError(f"{owner}: the state must hold 'steps', got {sorted(rest)}")
        steps, updates, arrays, learnt = int(rest.pop("steps")), {}, {}, {}
        for key, array in rest.items():
            slot, _, name = key.partition("/")
            if slot == "updates":
                updates[name] = int(array)
            elif slot == "schedule":
                learnt[name] = float(array)
            elif slot in self.slots:
                arrays[key] = np.array(array)
            else:
                kinds = ", ".join(("steps", "updates", "schedule", *self.slots))
                raise ValueError(f"{owner}: the state must hold only {kinds}, got {key!r}")
        self.learning_rate.load_state(learnt)
        self.steps, self._updates, self._arrays = steps, updates, arrays


def _clip(gradients: Iterable[Array], clip_norm: float) -> None:
    """Scale the gradients in place so that their joint norm is at most `clip_norm`.

    Summed by einsum, in float64 and in order: unlike a BLAS it gives the same bits for any number
    of threads, and it allocates nothing.
    """
    flat = [gradient.reshape(-1) for gradient in gradients]
    norm = math.sqrt(sum(float(np.einsum("i,i->", g, g, dtype=np.float64)) for g in flat))
    if norm > clip_norm:
        for g in flat:
            g *= clip_norm / norm


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    With g = grad + weight_decay * p, one update is p -= learning_rate * g; with momentum

        v = momentum * v + g,    p -= learning_rate * v,

    and with `nesterov` p -= learning_rate * (g + momentum * v): Sutskever et al. (2013), eqs. 1 to
    4, with the learning rate taken out of v.

    Parameters
    ----------
    learning_rate : float or Schedule
    momentum : float
        In [0, 1).
    nesterov : bool
        Look ahead along v; needs a momentum.
    weight_decay, clip_norm : float
        See `Optimizer`.

    Examples
    --------
    >>> optimizer = SGD(0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip_norm)
        self.momentum = self._number("momentum", momentum, below=1)
        self.nesterov = flag(nesterov, "SGD: nesterov")
        if nesterov and momentum == 0:
            raise ValueError("SGD: nesterov must come with a momentum above 0, got momentum=0")
        self.slots = ("velocity",) if momentum else ()

    def _update(
        self, plan: Plan, parameter: Parameter, arrays: list[Array], updates: int, rate: float
    ) -> None:
        ops.sgd_update(
            parameter._writable,
            parameter.grad,
            arrays[0] if arrays else None,
            learning_rate=rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            plan=plan,
        )


class Adam(Optimizer):
    """Adam: steps of about the learning rate, whatever the scale of the gradient.

    With g = grad + weight_decay * p, update number t of a parameter is

        m = beta1 * m + (1 - beta1) * g,    v = beta2 * v + (1 - beta2) * g^2,
        p -= learning_rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps):

    Kingma and Ba (2015), algorithm 1.

    Parameters
    ----------
    learning_rate : float or Schedule
    beta1, beta2 : float
        In [0, 1); how much of the means of g and g^2 stays.
    eps : float
        Above 0.
    weight_decay, clip_norm : float
        See `Optimizer`.

    Examples
    --------
    >>> optimizer = Adam(1e-3, clip_norm=1.0)
    """

    slots = ("m", "v")
    decoupled = False

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip_norm)
        self.beta1 = self._number("beta1", beta1, below=1)
        self.beta2 = self._number("beta2", beta2, below=1)
        self.eps = self._positive("eps", eps)

    def _update(
        self, plan: Plan, parameter: Parameter, arrays: list[Array], updates: int, rate: float
    ) -> None:
        m, v = arrays
        ops.adam_update(
            parameter._writable,
            parameter.grad,
            m,
            v,
            step=updates,
            learning_rate=rate,
            beta1=self.beta1,
            beta2=self.beta2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            decoupled=self.decoupled,
            plan=plan,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: p is scaled by itself, and g stays the plain gradient.

    Before the step of `Adam`, p = (1 - learning_rate * weight_decay) * p: Loshchilov and Hutter
    (2019), algorithm 2, with their schedule multiplier in the learning rate.

    Parameters
    ----------
    learning_rate : float or Schedule
    beta1, beta2, eps : float
        See `Adam`.
    weight_decay : float
        Not divided by sqrt(v): the same for all parameters.
    clip_norm : float, optional
        See `Optimizer`.

    Examples
    --------
    >>> optimizer = AdamW(1e-3, weight_decay=0.05)
    """

    decoupled = True

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, eps, weight_decay, clip_norm)


class RMSprop(Optimizer):
    """RMSprop: the gradient over the root of the moving mean of its square.

    With g = grad + weight_decay * p, one update is

        v = rho * v + (1 - rho) * g^2,    p -= learning_rate * g / (sqrt(v) + eps);

    with momentum, u = momentum * u + g / (sqrt(v) + eps) and p -= learning_rate * u. Tieleman and
    Hinton (2012), lecture 6.5; momentum and the place of eps as in PyTorch.

    Parameters
    ----------
    learning_rate : float or Schedule
    rho, momentum : float
        In [0, 1).
    eps : float
        Above 0.
    weight_decay, clip_norm : float
        See `Optimizer`.

    Examples
    --------
    >>> optimizer = RMSprop(1e-3, momentum=0.9)
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-3,
        rho: float = 0.9,
        momentum: float = 0.0,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip_norm)
        self.rho = self._number("rho", rho, below=1)
        self.momentum = self._number("momentum", momentum, below=1)
        self.eps = self._positive("eps", eps)
        self.slots = ("v", "velocity") if momentum else ("v",)

    def _update(
        self, plan: Plan, parameter: Parameter, arrays: list[Array], updates: int, rate: float
    ) -> None:
        ops.rmsprop_update(
            parameter._writable,
            parameter.grad,
            arrays[0],
            arrays[1] if self.momentum else None,
            learning_rate=rate,
            rho=self.rho,
            momentum=self.momentum,
            eps=self.eps,
            weight_decay=self.weight_decay,
            plan=plan,
        )


class Adagrad(Optimizer):
    """Adagrad: the gradient over the root of the sum of all its squares so far.

    With g = grad + weight_decay * p, one update is

        v = v + g^2,    p -= learning_rate * g / (sqrt(v) + eps):

    Duchi, Hazan and Singer (2011), figure 1.

    Parameters
    ----------
    learning_rate : float or Schedule
    eps : float
        Above 0.
    weight_decay, clip_norm : float
        See `Optimizer`.

    Examples
    --------
    >>> optimizer = Adagrad(0.01)
    """

    slots = ("v",)

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip_norm)
        self.eps = self._positive("eps", eps)

    def _update(
        self, plan: Plan, parameter: Parameter, arrays: list[Array], updates: int, rate: float
    ) -> None:
        ops.adagrad_update(
            parameter._writable,
            parameter.grad,
            arrays[0],
            learning_rate=rate,
            eps=self.eps,
            weight_decay=self.weight_decay,
            plan=plan,
        )


class Lion(Optimizer):
    """Lion: every parameter moves by the learning rate, in the direction of a moving mean.

    One update is

        p = (1 - learning_rate * weight_decay) * p
            - learning_rate * sign(beta1 * m + (1 - beta1) * grad),
        m = beta2 * m + (1 - beta2) * grad:

    Chen et al. (2023), "Symbolic discovery of optimization algorithms", algorithm 2. Its authors
    take a learning rate 3 to 10 times smaller than for AdamW, and a decay as much larger.

    Parameters
    ----------
    learning_rate : float or Schedule
    beta1, beta2 : float
        In [0, 1).
    weight_decay : float
        Decoupled from the gradient, as in `AdamW`.
    clip_norm : float, optional
        See `Optimizer`.

    Examples
    --------
    >>> optimizer = Lion(1e-4, weight_decay=0.1)
    """

    slots = ("m",)

    def __init__(
        self,
        learning_rate: float | Schedule = 1e-4,
        beta1: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip_norm)
        self.beta1 = self._number("beta1", beta1, below=1)
        self.beta2 = self._number("beta2", beta2, below=1)

    def _update(
        self, plan: Plan, parameter: Parameter, arrays: list[Array], updates: int, rate: float
    ) -> None:
        ops.lion_update(
            parameter._writable,
            parameter.grad,
            arrays[0],
            learning_rate=rate,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=self.weight_decay,
            plan=plan,
        )
