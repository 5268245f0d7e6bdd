"""Local response normalisation."""

from __future__ import annotations

from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, positive_int
from cycnn.layers.activation import above_zero, finite_number
from cycnn.layers.base import Backward, Layer, batched, register
from cycnn.layers.building import Reach, Shapes, flag


@register
class LocalResponseNorm(Layer):
    """Divide each value by a power of the mean square near by, across or within channels.

        y = x * (k + alpha * mean)**-beta

    Across channels, `mean` is the sum of x**2 over the channels c - size // 2 to
    c - size // 2 + size - 1 of the same pixel, divided by `size`: Krizhevsky, Sutskever and Hinton
    (2012), section 3.3, whose alpha is alpha / size here, as in Caffe and PyTorch: their network
    has size=5, alpha=5e-4, beta=0.75, k=2. Within channels, it is the sum over as many pixels along
    each spatial axis, divided by the number of pixels in the window (Caffe's WITHIN_CHANNEL, which
    has k=1). What lies outside counts as 0 and is counted.

    Backward: dx = dy * s**-beta - 2 * alpha * beta * x * m, s = k + alpha * mean, m the mean of
    dy * x * s**(-beta - 1) over the places that have this one in their window.

    Parameters
    ----------
    size : int
        Width of the window, at least 1.
    alpha : float
        At least 0.
    beta : float
        Finite.
    k : float
        Above 0.
    within : bool
        Within channels instead of across them.
    name : str, optional

    Raises
    ------
    ValueError
        If an argument is out of its range, or within channels the input has not 1 to 3 spatial
        axes.

    Examples
    --------
    >>> y, _ = LocalResponseNorm(1, alpha=1, beta=1).build((2,), dtype="float64")([[1, 2]])
    >>> y.round(3).tolist()
    [[0.5, 0.4]]
    """

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        within: bool = False,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name, size=size, alpha=alpha, beta=beta, k=k, within=within)
        self.size = positive_int(size, "LocalResponseNorm: size")
        self.alpha = finite_number(alpha, "LocalResponseNorm: alpha")
        if self.alpha < 0:
            raise ValueError(f"LocalResponseNorm: alpha must be at least 0, got {alpha!r}")
        self.beta = finite_number(beta, "LocalResponseNorm: beta")
        self.k = above_zero(k, "LocalResponseNorm: k")
        self.within = flag(within, "LocalResponseNorm: within")

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the input shape, which must have pixels to look at within channels."""
        if self.within and not 2 <= len(input_shape) <= 4:
            raise ValueError(
                "LocalResponseNorm: within channels the input must have 1 to 3 spatial axes, "
                f"(N, ..., C), got {batched(input_shape)}"
            )
        return input_shape

    def reach(self, input_shape: Shapes) -> tuple[Reach, ...] | None:
        """Return the window within channels; across them, one pixel."""
        size = self.size if self.within else 1
        return tuple(Reach(size, 1, size // 2) for _ in input_shape[:-1])

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to y of the same shape."""
        x, within = self.check_input(x), self.within
        constants = self.size, self.alpha, self.beta, self.k
        y, window = ops.local_response_norm(x, *constants, within=within)

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, x.shape)
            if not input_gradient:
                return None
            return ops.local_response_norm_backward(dy, x, window, *constants, within=within)

        return y, backward
