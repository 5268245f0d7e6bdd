"""Variable: a value that remembers what it was computed from, and carries gradients back there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray[Any, Any]


class Edge(NamedTuple):
    """One factor of the chain rule, from a variable to one that it was computed from.

    Attributes
    ----------
    source : Variable
    local : ndarray or str
        The local gradient d(variable)/d(source): one number per element where each element of the
        variable depends on one of the source, else the linear map in words, dy the gradient that
        arrives.
    pull : callable
        Maps the gradient of the variable to what it adds to that of the source.
    """

    source: Variable
    local: Array | str
    pull: Callable[[Array], Array]


class Variable:
    """An array, and how it was computed.

    Arithmetic on variables (`+ - * / ** @`, indexing, the methods below, the functions of this
    package) gives new variables; numbers and arrays may stand among them as constants. `backward`
    then applies the chain rule: with L = f(..., v(u), ...), each variable v adds

        dL/du += dL/dv * dv/du

    to every u that it was computed from, the last variable first. This is reverse accumulation:
    Baydin et al. (2018), "Automatic differentiation in machine learning: a survey", section 3.2.

    Parameters
    ----------
    value : array_like
        Real numbers; float32 and float64 are kept, all else becomes float64.
    name : str, optional
        What traces and drawings call it.

    Attributes
    ----------
    value : ndarray
    grad : ndarray of the shape of value, or None
        What the last `backward` that reached this variable brought.
    operands : tuple of Variable
        What it was computed from, constants among them.
    edges : tuple of Edge
        One for each operand that is no constant.

    Examples
    --------
    >>> x, y, z = Variable(-2, "x"), Variable(5, "y"), Variable(-4, "z")
    >>> f = (x + y) * z
    >>> f.backward()
    >>> float(f), float(x.grad), float(y.grad), float(z.grad)
    (-12.0, -4.0, -4.0, 3.0)
    """

    __array_ufunc__ = None  # so that `array * variable` leaves the work to the variable

    def __init__(self, value: ArrayLike, name: str | None = None) -> None:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"Variable: value must hold real numbers, got dtype {array.dtype}")
        self.value: Array = array if array.dtype in ("f4", "f8") else array.astype(np.float64)
        self.name = name
        self.grad: Array | None = None
        self.formula = ""  # such as "{} + {}", for the names of the operands; "" for an input
        self.operands: tuple[Variable, ...] = ()
        self.edges: tuple[Edge, ...] = ()
        self.constant = False

    # The chain rule

    def backward(self, dy: ArrayLike | None = None) -> None:
        """Set `grad` of this variable and of all that it was computed from.

        Parameters
        ----------
        dy : array_like of the shape of value, optional
            The gradient that arrives here; 1 for a single number.

        Raises
        ------
        ValueError
            If dy has another shape, or is missing where there are several values.
        """
        if dy is None and self.size != 1:
            raise ValueError(f"backward: dy must be given for a value of shape {self.shape}")
        arrives = np.ones_like(self.value) if dy is None else np.asarray(dy, self.dtype)
        if arrives.shape != self.shape:
            raise ValueError(
                f"backward: dy must have the shape of value, {self.shape}, got {arrives.shape}"
            )
        order = self.history()
        for variable in order:
            variable.grad = None
        self.grad = arrives
        for variable in reversed(order):  # each after all that was computed from it
            for edge in variable.edges:
                part, so_far = edge.pull(variable._arrived()), edge.source.grad
                edge.source.grad = part if so_far is None else so_far + part

    def history(self) -> list[Variable]:
        """Return this variable and all that it was computed from, each after its operands."""
        order: list[Variable] = []
        seen: set[int] = set()
        waiting = [(self, False)]
        while waiting:
            variable, ready = waiting.pop()
            if ready:
                order.append(variable)
            elif id(variable) not in seen:
                seen.add(id(variable))
                waiting.append((variable, True))
                waiting.extend((edge.source, False) for edge in reversed(variable.edges))
        return order

    def _arrived(self) -> Array:
        if self.grad is None:
            raise RuntimeError("Variable: no gradient has arrived; call backward()")
        return self.grad

    # Arithmetic

    def __add__(self, other: Any) -> Variable:
        b = lift(other, self)
        return elementwise("{} + {}", self.value + b.value, (self, _one), (b, _one))

    def __sub__(self, other: Any) -> Variable:
        b = lift(other, self)
        return elementwise("{} - {}", self.value - b.value, (self, _one), (b, _minus_one))

    def __mul__(self, other: Any) -> Variable:
        b = lift(other, self)
        return elementwise(
            "{} * {}", self.value * b.value, (self, lambda: b.value), (b, lambda: self.value)
        )

    def __truediv__(self, other: Any) -> Variable:
        b = lift(other, self)
        y = self.value / b.value
        return elementwise("{} / {}", y, (self, lambda: 1 / b.value), (b, lambda: -y / b.value))

    def __pow__(self, other: Any) -> Variable:
        b = lift(other, self)
        y = self.value**b.value
        return elementwise(
            "{} ** {}", y,
            (self, lambda: b.value * self.value ** np.where(b.value == 0, 0, b.value - 1)),
            (b, lambda: y * np.log(self.value)),
        )  # fmt: skip

    def __neg__(self) -> Variable:
        return elementwise("-{}", -self.value, (self, _minus_one))

    def __radd__(self, other: Any) -> Variable:
        return lift(other, self) + self

    def __rsub__(self, other: Any) -> Variable:
        return lift(other, self) - self

    def __rmul__(self, other: Any) -> Variable:
        return lift(other, self) * self

    def __rtruediv__(self, other: Any) -> Variable:
        return lift(other, self) / self

    def __rpow__(self, other: Any) -> Variable:
        return lift(other, self) ** self

    def __matmul__(self, other: Any) -> Variable:
        b = lift(other, self)
        y = self.value @ b.value
        rows = self.value[None] if self.ndim == 1 else self.value
        columns = b.value[:, None] if b.ndim == 1 else b.value

        def matrix(dy: Array) -> Array:
            dy = dy[..., None] if b.ndim == 1 else dy
            return dy[..., None, :] if self.ndim == 1 else dy

        def pull_rows(dy: Array) -> Array:
            return _summed_to(matrix(dy) @ columns.swapaxes(-1, -2), rows).reshape(self.shape)

        def pull_columns(dy: Array) -> Array:
            return _summed_to(rows.swapaxes(-1, -2) @ matrix(dy), columns).reshape(b.shape)

        return linear(
            "{} @ {}", y, (self, "dy @ {1}.T", pull_rows), (b, "{0}.T @ dy", pull_columns)
        )

    def __rmatmul__(self, other: Any) -> Variable:
        return lift(other, self) @ self

    # Comparisons are of values, and give arrays of bool

    def __lt__(self, other: Any) -> Any:
        return self.value < lift(other, self).value

    def __le__(self, other: Any) -> Any:
        return self.value <= lift(other, self).value

    def __gt__(self, other: Any) -> Any:
        return self.value > lift(other, self).value

    def __ge__(self, other: Any) -> Any:
        return self.value >= lift(other, self).value

    # Sums and shapes

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Variable:
        """Return the sum over some axes, or over all."""
        y = self.value.sum(axis=axis, keepdims=keepdims)
        kept = self.value.sum(axis=axis, keepdims=True).shape

        def pull(dy: Array) -> Array:
            return np.broadcast_to(dy.reshape(kept), self.shape)

        return linear(f"sum({{}}{_axes(axis)})", y, (self, "dy for each term", pull))

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Variable:
        """Return the mean over some axes, or over all."""
        total = self.sum(axis, keepdims)
        return total / (self.size / max(total.size, 1))

    def max(self, axis: int | None = None, keepdims: bool = False) -> Variable:
        """Return the largest value along one axis, or of all; among equals the first counts."""
        flat = self.value.reshape(-1) if axis is None else self.value
        along = 0 if axis is None else axis
        first = np.expand_dims(flat.argmax(along), along)
        y = np.take_along_axis(flat, first, along)
        kept = self.value.max(axis=axis, keepdims=keepdims).shape

        def pull(dy: Array) -> Array:
            gradient = np.zeros_like(flat)
            np.put_along_axis(gradient, first, dy.reshape(first.shape), along)
            return gradient.reshape(self.shape)

        return linear(f"max({{}}{_axes(axis)})", y.reshape(kept), (self, "dy for the first", pull))

    def reshape(self, *shape: Any) -> Variable:
        """Return the same values in another shape."""
        y = self.value.reshape(*shape)
        return linear(
            f"reshape({{}}, {y.shape})", y, (self, "dy reshaped", lambda dy: dy.reshape(self.shape))
        )

    def transpose(self, *axes: int) -> Variable:
        """Return the axes in another order, reversed by default."""
        order = axes or tuple(reversed(range(self.ndim)))
        back = tuple(np.argsort(order))
        return linear(
            f"transpose({{}}, {order})", self.value.transpose(order),
            (self, "dy transposed back", lambda dy: dy.transpose(back)),
        )  # fmt: skip

    @property
    def T(self) -> Variable:
        """The transpose."""
        return self.transpose()

    def broadcast_to(self, shape: tuple[int, ...]) -> Variable:
        """Return the values repeated to a larger shape."""
        y = np.broadcast_to(self.value, shape)
        return linear(
            f"broadcast({{}}, {tuple(shape)})", y,
            (self, "dy summed over copies", lambda dy: _summed_to(dy, self.value)),
        )  # fmt: skip

    def __getitem__(self, key: Any) -> Variable:
        """Return a part, by any key that NumPy takes."""

        def pull(dy: Array) -> Array:  # a value taken twice gets two gradients
            taken = np.arange(self.size).reshape(self.shape)[key].ravel()
            gradient = np.bincount(taken, dy.ravel(), self.size)
            return gradient.reshape(self.shape).astype(self.dtype)

        shown = repr(key) if isinstance(key, (int, str)) else "..."
        return linear(f"{{}}[{shown}]", self.value[key], (self, "dy where taken, else 0", pull))

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        shape: tuple[int, ...] = self.value.shape
        return shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.value.ndim

    @property
    def size(self) -> int:
        """The number of values."""
        return self.value.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of value and gradient."""
        dtype: np.dtype[Any] = self.value.dtype
        return dtype

    def __len__(self) -> int:
        return len(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        name = "" if self.name is None else f", name={self.name!r}"
        return f"Variable({np.array2string(self.value, threshold=20)}{name})"


def lift(value: Any, like: Variable | None = None) -> Variable:
    """Return a variable as it is, and a number or array as a constant in the dtype of `like`."""
    if isinstance(value, Variable):
        return value
    constant = Variable(value if like is None else np.asarray(value, dtype=like.dtype))
    constant.constant = True
    return constant


def linear(
    formula: str, value: Any, *terms: tuple[Variable, Array | str, Callable[[Array], Array]]
) -> Variable:
    """Return a computed variable.

    Parameters
    ----------
    formula : str
        Such as "{} @ {}": how the operands' names make it.
    value : ndarray
    *terms : (operand, local gradient, pull)
        See `Edge`; in words, {0} and {1} stand for the operands.
    """
    result = Variable(value)
    result.formula = formula
    result.operands = tuple(operand for operand, _, _ in terms)
    result.edges = tuple(Edge(*term) for term in terms if not term[0].constant)
    result.constant = not result.edges
    return result


def elementwise(
    formula: str, value: Any, *terms: tuple[Variable, Callable[[], ArrayLike]]
) -> Variable:
    """Return a computed variable of which each element depends on one of each operand.

    Parameters
    ----------
    formula : str
    value : ndarray
    *terms : (operand, callable that returns the local gradient)
        Operands may be smaller, and are then broadcast: their gradients are summed.
    """
    result = np.asarray(value)

    def term(
        operand: Variable, local: Callable[[], ArrayLike]
    ) -> tuple[Variable, Array, Callable[[Array], Array]]:
        factor = np.asarray(0 if operand.constant else local(), operand.dtype)
        return operand, factor, lambda dy: _summed_to(dy * factor, operand.value)

    return linear(formula, result, *(term(*pair) for pair in terms))


def _summed_to(gradient: Array, source: Array) -> Array:
    """Undo broadcasting: sum over the axes along which `source` was repeated."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - source.ndim)))
    repeated = tuple(
        i for i, (n, m) in enumerate(zip(gradient.shape, source.shape, strict=True)) if n != m
    )
    return np.asarray(gradient.sum(axis=repeated, keepdims=True), source.dtype)


def _axes(axis: int | tuple[int, ...] | None) -> str:
    return "" if axis is None else f", axis={axis}"


def _one() -> float:
    return 1.0


def _minus_one() -> float:
    return -1.0
