"""Dropout."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cycnn import engine, ops
from cycnn._check import Array, real_number
from cycnn.layers.base import Backward, Layer, register
from cycnn.layers.building import Source, flag


@register
class Dropout(Layer):
    """In training, set each value to 0 with probability `rate` and divide the rest by 1 - rate.

    Srivastava et al. (2014), in the inverted form: at inference nothing is left to do, and nothing
    is done. Each call in training draws a new mask from a stream that the build's rng fixes; the
    mask itself is never stored, backward makes it again.

    Neighbouring pixels of a map are so alike that dropping one of them hides nothing; with
    `channelwise` a channel of a sample is dropped as a whole: Tompson et al. (2015), section 3.2,
    "SpatialDropout".

    Parameters
    ----------
    rate : float
        In [0, 1).
    channelwise : bool
        Whether a channel of a sample is kept or dropped as a whole.
    name : str, optional

    Raises
    ------
    ValueError, TypeError
        If `rate` is no number in [0, 1).

    Examples
    --------
    >>> y, backward = Dropout(0.5).build((4,), rng=0)(np.ones((1, 4)), training=True)
    >>> set(y.ravel().tolist()) <= {0.0, 2.0}
    True
    """

    def __init__(self, rate: float, *, channelwise: bool = False, name: str | None = None) -> None:
        super().__init__(name=name, rate=rate, channelwise=channelwise)
        if not 0 <= real_number(rate, "Dropout: rate") < 1:
            raise ValueError(f"Dropout: rate must be in [0, 1), got {rate!r}")
        self.rate = float(rate)
        self.channelwise = flag(channelwise, "Dropout: channelwise")

    def seed(self, source: Source) -> None:
        """Begin the stream of seeds."""
        self._seeds = np.random.default_rng(source.rng.integers(2**63))

    def __call__(self, x: ArrayLike, training: bool = False) -> tuple[Array, Backward]:
        """Map x (N, ..., C) to y of the same shape; outside training y is x."""
        x = self.check_input(x)
        shape, dropping = x.shape, training and self.rate > 0
        seed = np.zeros(1, np.uint64)

        def draw() -> None:
            seed[0] = self._seeds.integers(2**63)

        if dropping:
            draw()
            engine.before_replay(draw)
        drop = ops.channel_dropout if self.channelwise else ops.dropout
        y = drop(x, self.rate, seed) if dropping else x

        def backward(dy: ArrayLike, input_gradient: bool = True) -> Array | None:
            dy = self.check_gradient(dy, shape)
            if not input_gradient:
                return None
            return drop(dy, self.rate, seed) if dropping else dy

        return y, backward
