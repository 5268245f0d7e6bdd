"""What a library must be able to do to be compared, each in a process of its own (worker.py).

A function that is timed does one whole step, allocation of the result included. A library gives one
for each of its ways: memory formats, or algorithms.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from shapes import ConvShape

Array = np.ndarray[Any, Any]
Calls = dict[str, Callable[[], Any]]
MOMENTUM = 0.9
SWEPT = 16 << 20  # 64 MB that are read, and as many written


class Library(Protocol):
    def settings(self) -> dict[str, str]:
        """Versions and instruction sets, for the record."""

    def set_threads(self, n: int) -> None: ...

    def other_data(self) -> Callable[[], Any]:
        """A pass over SWEPT numbers, on all threads: afterwards they are awake, with no other data
        in their caches."""

    def convolution(
        self, shape: ConvShape, direction: str, inputs: dict[str, Array], algorithms: Sequence[str]
    ) -> Calls:
        """One direction of a convolution, without bias; other libraries know no algorithms."""

    def to_numpy(self, direction: str, result: Any) -> Array:
        """The result in cycnn's layout: (N, H, W, C), or (KH, KW, C/groups, K) for a weight."""

    def ways(self, network: str) -> tuple[str, ...]:
        """The memory formats that a network can be held in."""

    def training(
        self,
        network: str,
        batch: int,
        way: str,
        rate: float,
        weights: Sequence[Array] | None = None,
        dropout: bool = True,
    ) -> Callable[[], float]:
        """A step of SGD with momentum on cross-entropy, on one batch; it returns the loss."""

    def prediction(self, network: str, batch: int, way: str) -> Callable[[], Any]:
        """The outputs for one batch, as a trained model gives them."""


def library(name: str) -> Library:
    """Import the library `name`, "cycnn" or "torch"."""
    module, cls = {"cycnn": ("ours", "Cycnn"), "torch": ("peers", "Torch")}[name]
    loaded: Library = getattr(importlib.import_module(module), cls)()
    return loaded
