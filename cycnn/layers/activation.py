"""Activations made of straight pieces, and what every activation shares."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, real_number
from cycnn.init import constant
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Shapes, Weight
from cycnn.layers.parameter import Parameter


@register
class ReLU(Layer):
    """Rectifier y = max(x, 0): Nair and Hinton (2010).

    Backward: dx = dy where y > 0, else 0.

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> y, backward = ReLU().build((3,))([[-1, 0, 2]])
    >>> y.tolist(), backward([[5, 5, 5]]).tolist()
    ([[0.0, 0.0, 2.0]], [[0.0, 0.0, 5.0]])
    """

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to y of the same shape."""
        y = ops.relu(self.check_input(x))

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, y.shape)
            return ops.relu_backward(dy, y) if input_gradient else None

        return y, backward


class Elementwise(Layer):
    """A function of each value by itself: a subclass names a function of `ops.activation`.

    Backward: dx = dy f'(x), from x, where no digit of the slope is lost.
    """

    function = ""
    """What `ops.activation` calls it."""

    constants: tuple[float, ...] = ()
    """The constants that go with it."""

    def __init__(self, *, name: str | None = None, **config: Any) -> None:
        super().__init__(name=name, **config)

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to y of the same shape."""
        x = self.check_input(x)
        y = ops.activation(x, self.function, *self.constants)

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, x.shape)
            if not input_gradient:
                return None
            return ops.activation_backward(dy, x, self.function, *self.constants)

        return y, backward


def above_zero(value: Any, name: str) -> float:
    """Return `value` as a float, which must be finite and above 0."""
    number = real_number(value, name)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return number


def finite_number(value: Any, name: str) -> float:
    """Return `value` as a float, which must be finite."""
    number = real_number(value, name)
    if math.isinf(number):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return number


@register
class Clip(Elementwise):
    """Cut off at both ends: y = min(max(x, low), high).

    Backward: dx = dy where low < x < high, else 0, also at the ends themselves, as ReLU at 0.
    NaN stays NaN.

    Parameters
    ----------
    low, high : float
        low < high; -inf and inf leave an end open.
    name : str, optional

    Raises
    ------
    ValueError
        If low is not below high.

    Examples
    --------
    >>> y, backward = Clip(-1, 1).build((3,))([[-2, 0.5, 2]])
    >>> y.tolist(), backward([[1, 1, 1]]).tolist()
    ([[-1.0, 0.5, 1.0]], [[0.0, 1.0, 0.0]])
    """

    function = "clip"

    def __init__(self, low: float, high: float, *, name: str | None = None) -> None:
        super().__init__(name=name, low=low, high=high)
        self.low = real_number(low, "Clip: low")
        self.high = real_number(high, "Clip: high")
        if not self.low < self.high:
            raise ValueError(f"Clip: low must be below high, got {low!r} and {high!r}")
        self.constants = (self.low, self.high)


@register
class ReLU6(Elementwise):
    """Rectifier with a ceiling, y = min(max(x, 0), 6): Krizhevsky (2010).

    Backward: dx = dy where 0 < x < 6, else 0.

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> y, _ = ReLU6().build((3,))([[-1, 3, 9]])
    >>> y.tolist()
    [[0.0, 3.0, 6.0]]
    """

    function = "clip"
    constants = (0.0, 6.0)

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)


@register
class LeakyReLU(Elementwise):
    """Rectifier that lets a little through, y = x if x > 0 else slope * x: Maas et al. (2013).

    Backward: dx = dy if x > 0 else slope * dy.

    Parameters
    ----------
    slope : float
        Finite.
    name : str, optional

    Raises
    ------
    ValueError
        If the slope is not finite.

    Examples
    --------
    >>> y, _ = LeakyReLU(0.5).build((2,))([[-2, 2]])
    >>> y.tolist()
    [[-1.0, 2.0]]
    """

    function = "leaky_relu"

    def __init__(self, slope: float = 0.01, *, name: str | None = None) -> None:
        super().__init__(name=name, slope=slope)
        self.slope = finite_number(slope, "LeakyReLU: slope")
        self.constants = (self.slope,)


@register
class PReLU(Layer):
    """Rectifier with a learnt slope below 0, one for each channel: y = x if x > 0 else slope * x.

    Backward: dx = dy if x > 0 else slope * dy; dslope = sum of dy * x over all x <= 0 of the
    channel. He et al. (2015), "Delving deep into rectifiers", equations 1 to 3. Weight decay pulls
    the slopes to 0, towards ReLU; the authors use none.

    Parameters
    ----------
    start : float
        What all slopes start from; finite.
    name : str, optional

    Attributes
    ----------
    slope : Parameter of shape (C,)

    Raises
    ------
    ValueError
        If `start` is not finite.

    Examples
    --------
    >>> layer = PReLU(0.5).build((2,))
    >>> y, backward = layer([[-2, 2]])
    >>> y.tolist(), backward([[1, 1]]).tolist(), layer.slope.grad.tolist()
    ([[-1.0, 2.0]], [[0.5, 1.0]], [-2.0, 0.0])
    """

    def __init__(self, start: float = 0.25, *, name: str | None = None) -> None:
        super().__init__(name=name, start=start)
        self.start = finite_number(start, "PReLU: start")

    @property
    def slope(self) -> Parameter:
        """Slopes below 0, a Parameter of shape (C,)."""
        return self.parameter("slope")

    def weights(self, input_shape: Shapes) -> dict[str, Weight]:
        """Ask for one slope for each channel."""
        return {"slope": Weight(input_shape[-1:], constant(self.start))}

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to y of the same shape."""
        x, slope = self.check_input(x), self.slope
        y = ops.prelu(x, slope.data)

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, x.shape)
            dx, dslope = ops.prelu_backward(dy, x, slope.data, input_gradient)
            slope.add_grad(dslope)
            return dx

        return y, backward


@register
class HardSigmoid(Elementwise):
    """Sigmoid of straight pieces, y = min(max(x + 3, 0), 6) / 6: Howard et al. (2019), section 5.2.

    Backward: dx = dy / 6 where -3 < x < 3, else 0.

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> y, _ = HardSigmoid().build((3,))([[-4, 0, 4]])
    >>> y.tolist()
    [[0.0, 0.5, 1.0]]
    """

    function = "hard_sigmoid"

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)


@register
class HardSwish(Elementwise):
    """SiLU of straight pieces, y = x * min(max(x + 3, 0), 6) / 6.

    Howard et al. (2019), section 5.2.

    Backward: dx = dy * (x / 3 + 1 / 2) where -3 < x < 3, 0 below and dy above.

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> y, _ = HardSwish().build((3,))([[-4, 0, 4]])
    >>> y.tolist()
    [[-0.0, 0.0, 4.0]]
    """

    function = "hard_swish"

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)
