"""Normalisation of a network's inputs by statistics of the training data."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from cycnn import ops
from cycnn._check import Array, as_input
from cycnn.init import Initial, Shape
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Shapes, Weight

_ROWS = 1 << 18  # pixels, about, that `adapt` converts at a time


@register
class Normalize(Layer):
    """Standardise each channel of the input by fixed statistics: y = (x - mean) / std.

    The statistics are buffers, kept in float64 and saved with the model; nothing is learnt.
    `adapt(x)` takes them from data.

    Backward: dx = dy / std.

    Parameters
    ----------
    mean, std : float or sequence of float, optional
        For all channels alike, or one for each; 0 and 1 by default. std is above 0.
    name : str, optional

    Raises
    ------
    ValueError
        If a std is not above 0, a value is not finite, or there is not one for each channel.

    Examples
    --------
    >>> layer = Normalize().build((1,)).adapt([[1], [3]])
    >>> layer.buffers()["mean"].tolist(), layer([[1], [3]])[0].tolist()
    ([2.0], [[-1.0], [1.0]])
    """

    def __init__(
        self,
        mean: float | ArrayLike = 0.0,
        std: float | ArrayLike = 1.0,
        *,
        name: str | None = None,
    ) -> None:
        self._start = {"mean": _values(mean, "mean"), "std": _values(std, "std")}
        super().__init__(name=name, **{key: v.tolist() for key, v in self._start.items()})
        if not (self._start["std"] > 0).all():
            raise ValueError(f"Normalize: std must be above 0, got {std!r}")

    def infer(self, input_shape: Shapes) -> Shapes:
        """Return the input shape, whose channels the given statistics must fit."""
        channels = input_shape[-1]
        for name, values in self._start.items():
            if values.ndim and len(values) != channels:
                raise ValueError(
                    f"Normalize: {name} must be one number, or one for each of the {channels} "
                    f"channels, got {len(values)}"
                )
        return input_shape

    def weights(self, input_shape: Shapes) -> dict[str, Weight]:
        """Ask for the statistics, as buffers."""
        shape = input_shape[-1:]
        return {name: Weight(shape, _filled(v), False) for name, v in self._start.items()}

    def adapt(self, x: ArrayLike) -> Self:
        """Take the statistics from data and return the layer itself.

        A channel that is constant keeps its scale: its std is set to 1.

        Parameters
        ----------
        x : ndarray of shape (N, ..., C)
            Of any real dtype; N at least 1.

        Raises
        ------
        ValueError
            If the shape is not that of the layer's input, x is empty, or it holds NaN or
            infinities.
        """
        data = np.asarray(x)
        self.check_input(data[:1])
        if not data.size:
            raise ValueError(f"Normalize: x must hold at least one sample, got shape {data.shape}")
        step = max(_ROWS // max(int(np.prod(data.shape[1:-1])), 1), 1)
        count, mean, square = 0, np.zeros(data.shape[-1]), np.zeros(data.shape[-1])
        for start in range(0, len(data), step):  # Chan, Golub and LeVeque (1983), eq. 2.1
            part = as_input(data[start : start + step], np.float64, "Normalize: x")
            part_mean, part_variance = ops.channel_statistics(part)
            n = part.size // part.shape[-1]
            delta = part_mean - mean
            square += n * part_variance + delta * delta * (count * n / (count + n))
            mean += delta * (n / (count + n))
            count += n
        if not (np.isfinite(mean).all() and np.isfinite(square).all()):
            raise ValueError("Normalize: x must be finite, got NaN or infinities")
        std = np.sqrt(square / count)
        rounding = 64 * np.finfo(np.float64).eps * np.abs(mean)
        self.set_buffer("mean", mean)
        self.set_buffer("std", np.where(std > rounding, std, 1.0))
        return self

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to y of the same shape."""
        x = self.check_input(x)
        mean, std = self._buffers["mean"], self._buffers["std"]
        y = ops.standardize(x, mean, std)

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, x.shape)
            return ops.standardize(dy, np.zeros_like(mean), std) if input_gradient else None

        return y, backward


def _filled(values: Array) -> Initial:
    """Return a start with these values, the one or one for each channel."""

    def start(shape: Shape, rng: np.random.Generator) -> Array:
        return np.broadcast_to(values, shape)

    return start


def _values(value: Any, name: str) -> Array:
    """Return one number or several in float64."""
    array = np.array(as_input(value, np.float64, f"Normalize: {name}"))
    array = array.reshape(()) if np.ndim(value) == 0 else array
    if array.ndim > 1 or not np.isfinite(array).all():
        raise ValueError(
            f"Normalize: {name} must be one finite number or a row of them, got {value!r}"
        )
    return array
