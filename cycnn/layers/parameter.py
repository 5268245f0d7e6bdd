"""Parameters: the arrays that training changes, each with its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cycnn import engine
from cycnn._check import Array, as_input, float_dtype


class Parameter:
    """An array that is learnt, and the gradient of the loss with respect to it.

    Parameters
    ----------
    data : ndarray of float32 or float64
        The starting values; copied.
    trainable : bool
        Whether optimizers change it. A layer's `freeze()` says no for all of its parameters.

    Attributes
    ----------
    version : int
        Grows with every change of the values.

    Examples
    --------
    >>> weight = Parameter(np.ones(3))
    >>> weight.assign([1, 2, 3])
    >>> weight.data, weight.grad, weight.version
    (array([1., 2., 3.]), array([0., 0., 0.]), 1)
    """

    def __init__(self, data: Array, *, trainable: bool = True) -> None:
        dtype = float_dtype(data.dtype, "Parameter: dtype")
        self._writable = engine.empty(data.shape, dtype)
        self._writable[...] = data
        self._data = read_only(self._writable)
        self._grad: Array | None = None  # None stands for zeros that nobody has looked at
        self.version = 0
        self.trainable = trainable

    @property
    def data(self) -> Array:
        """The values, read-only; `assign` changes them."""
        return self._data

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values and of the gradient."""
        shape: tuple[int, ...] = self._writable.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values and of the gradient."""
        dtype: np.dtype[Any] = self._writable.dtype
        return dtype

    @property
    def size(self) -> int:
        """The number of values."""
        return self._writable.size

    @property
    def has_grad(self) -> bool:
        """Whether anything was added to `grad`, or somebody looked at it, since the last update."""
        return self._grad is not None

    @property
    def grad(self) -> Array:
        """What `backward` has added since the last update; zeros after build."""
        if self._grad is None:
            self._grad = engine.zeros(self.shape, self.dtype)
        return self._grad

    @grad.setter
    def grad(self, value: ArrayLike) -> None:
        if value is not self._grad:  # not the last half of `parameter.grad += dweight`
            self._grad = self._checked(value, "grad").copy()

    def add_grad(self, gradient: Array) -> None:
        """Add to `grad`, unless the parameter is frozen.

        The first gradient after an update is kept itself instead of being added to zeros, which
        spares a pass over memory: hand over an array that nobody else writes to.
        """
        if not self.trainable:
            return
        if self._grad is None:
            self._grad = gradient
        else:
            engine.outside_plans()
            self._grad += gradient

    def clear_grad(self) -> None:
        """Set `grad` to zeros."""
        self._grad = None

    def assign(self, values: ArrayLike) -> None:
        """Copy `values` in, cast to the parameter's dtype.

        Raises
        ------
        ValueError
            If the shape is not the parameter's.
        """
        self._writable[...] = self._checked(values, "values")
        self._changed()

    def _checked(self, values: ArrayLike, name: str) -> Array:
        array = as_input(values, self.dtype, f"Parameter: {name}")
        if array.shape != self.shape:
            raise ValueError(
                f"Parameter: {name} must have shape {self.shape}, got shape {array.shape}"
            )
        return array

    def _changed(self) -> None:
        """Record that `_writable` was written to."""
        self.version += 1

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_data"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._data = read_only(self._writable)

    def __repr__(self) -> str:
        frozen = "" if self.trainable else ", trainable=False"
        return f"Parameter(shape={self.shape}, dtype={self.dtype.name}{frozen})"


def read_only(array: Array) -> Array:
    """Return a view that nobody can write through."""
    view = array.view()
    view.flags.writeable = False
    return view


def add_gradients(
    weight: Parameter,
    bias: Parameter | None,
    gradients: Callable[[bool], tuple[Array, Array | None]],
) -> None:
    """Add the gradients of a layer's weight and bias, unless both are frozen.

    `gradients(bias is not None)` computes them: dweight, and dbias or None.
    """
    if weight.trainable or (bias is not None and bias.trainable):
        dweight, dbias = gradients(bias is not None)
        weight.add_grad(dweight)
        if bias is not None and dbias is not None:
            bias.add_grad(dbias)
