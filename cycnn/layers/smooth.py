"""Smooth activations."""

from __future__ import annotations

from cycnn.layers.activation import Elementwise, above_zero
from cycnn.layers.base import register


@register
class ELU(Elementwise):
    """Exponential linear unit, y = x if x > 0 else alpha * (exp(x) - 1).

    Clevert, Unterthiner and Hochreiter (2016), section 3.

    Backward: dx = dy if x > 0 else alpha * exp(x) * dy.

    Parameters
    ----------
    alpha : float
        Above 0: y ends at -alpha.
    name : str, optional

    Raises
    ------
    ValueError
        If alpha is not a finite number above 0.

    Examples
    --------
    >>> y, _ = ELU().build((2,), dtype="float64")([[-1, 1]])
    >>> y.round(3).tolist()
    [[-0.632, 1.0]]
    """

    function = "elu"

    def __init__(self, alpha: float = 1.0, *, name: str | None = None) -> None:
        super().__init__(name=name, alpha=alpha)
        self.alpha = above_zero(alpha, "ELU: alpha")
        self.constants = (1.0, self.alpha, 1.0)


@register
class SELU(Elementwise):
    """Self-normalising unit, y = scale * ELU(x) with fixed scale and alpha.

    Klambauer et al. (2017), equation 2: with scale 1.0507 and alpha 1.6733, to 17 digits, values of
    mean 0 and variance 1 stay so from layer to layer.

    Backward: dx = scale * dy if x > 0 else scale * alpha * exp(x) * dy.

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> y, _ = SELU().build((2,), dtype="float64")([[-1, 1]])
    >>> y.round(3).tolist()
    [[-1.111, 1.051]]
    """

    function = "elu"
    constants = (1.0507009873554805, 1.0507009873554805 * 1.6732632423543772, 1.0)

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)


@register
class CELU(Elementwise):
    """ELU with a slope without a step, y = x if x > 0 else alpha * (exp(x / alpha) - 1).

    Barron (2017), "Continuously differentiable exponential linear units".

    Backward: dx = dy if x > 0 else exp(x / alpha) * dy.

    Parameters
    ----------
    alpha : float
        Above 0: y ends at -alpha.
    name : str, optional

    Raises
    ------
    ValueError
        If alpha is not a finite number above 0.

    Examples
    --------
    >>> y, _ = CELU(2).build((2,), dtype="float64")([[-1, 1]])
    >>> y.round(3).tolist()
    [[-0.787, 1.0]]
    """

    function = "elu"

    def __init__(self, alpha: float = 1.0, *, name: str | None = None) -> None:
        super().__init__(name=name, alpha=alpha)
        self.alpha = above_zero(alpha, "CELU: alpha")
        self.constants = (1.0, self.alpha, 1 / self.alpha)


@register
class GELU(Elementwise):
    """Gaussian error linear unit, y = x * P(z < x) for a standard normal z.

    Hendrycks and Gimpel (2016), section 2. With approximate="none",
    y = x * (1 + erf(x / sqrt(2))) / 2, to full precision also far below 0; with "tanh",
    y = x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2.

    Backward: dx = dy * y'(x), of the formula that was chosen.

    Parameters
    ----------
    approximate : {"none", "tanh"}
    name : str, optional

    Raises
    ------
    ValueError
        If `approximate` is neither.

    Examples
    --------
    >>> y, _ = GELU().build((2,), dtype="float64")([[-1, 1]])
    >>> y.round(3).tolist()
    [[-0.159, 0.841]]
    """

    def __init__(self, approximate: str = "none", *, name: str | None = None) -> None:
        super().__init__(name=name, approximate=approximate)
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate
        self.function = "gelu" if approximate == "none" else "gelu_tanh"


@register
class SiLU(Elementwise):
    """Sigmoid linear unit (swish), y = x * sigmoid(x): Elfwing et al. (2018).

    Backward: dx = dy * s * (1 + x * (1 - s)), s = sigmoid(x).

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> y, _ = SiLU().build((2,), dtype="float64")([[-1, 1]])
    >>> y.round(3).tolist()
    [[-0.269, 0.731]]
    """

    function = "silu"

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)


@register
class Mish(Elementwise):
    """Smooth and self-gated, y = x * tanh(log(1 + exp(x))): Misra (2020).

    Backward: dx = dy * (w + x * sigmoid(x) * (1 - w**2)), w = tanh(log(1 + exp(x))).

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> y, _ = Mish().build((2,), dtype="float64")([[-1, 1]])
    >>> y.round(3).tolist()
    [[-0.303, 0.865]]
    """

    function = "mish"

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)


@register
class Sigmoid(Elementwise):
    """Logistic function, y = 1 / (1 + exp(-x)).

    Goodfellow, Bengio and Courville (2016), equation 3.30.

    Backward: dx = dy * y * (1 - y).

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> y, backward = Sigmoid().build((1,))([[0]])
    >>> y.tolist(), backward([[1]]).tolist()
    ([[0.5]], [[0.25]])
    """

    function = "sigmoid"

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)


@register
class Tanh(Elementwise):
    """Hyperbolic tangent, y = (exp(x) - exp(-x)) / (exp(x) + exp(-x)).

    Backward: dx = dy * (1 - y**2). LeCun et al. (1998), "Efficient BackProp", section 4.4.

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> y, backward = Tanh().build((1,))([[0]])
    >>> y.tolist(), backward([[1]]).tolist()
    ([[0.0]], [[1.0]])
    """

    function = "tanh"

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)


@register
class Softplus(Elementwise):
    """Smooth rectifier, y = log(1 + exp(beta * x)) / beta: Dugas et al. (2001).

    Backward: dx = dy * sigmoid(beta * x).

    Parameters
    ----------
    beta : float
        Above 0: the larger, the closer to ReLU.
    name : str, optional

    Raises
    ------
    ValueError
        If beta is not a finite number above 0.

    Examples
    --------
    >>> y, backward = Softplus().build((1,), dtype="float64")([[0]])
    >>> y.round(3).tolist(), backward([[1]]).tolist()
    ([[0.693]], [[0.5]])
    """

    function = "softplus"

    def __init__(self, beta: float = 1.0, *, name: str | None = None) -> None:
        super().__init__(name=name, beta=beta)
        self.beta = above_zero(beta, "Softplus: beta")
        self.constants = (self.beta,)


@register
class Softsign(Elementwise):
    """Bounded by straight means, y = x / (1 + |x|).

    Bergstra et al. (2009), "Quadratic polynomials learn better image features".

    Backward: dx = dy / (1 + |x|)**2.

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> y, backward = Softsign().build((1,))([[1]])
    >>> y.tolist(), backward([[1]]).tolist()
    ([[0.5]], [[0.25]])
    """

    function = "softsign"

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)
