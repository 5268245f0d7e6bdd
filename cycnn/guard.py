"""What keeps a model whole while it is trained: a way back, and interrupts that wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from cycnn._check import Array
from cycnn.graph import Model
from cycnn.optim import Optimizer

_UPDATES_BETWEEN_COPIES = 16


class TrainingError(FloatingPointError):
    """Training stopped because the loss, or a weight, is no longer a finite number."""


class LastGood:
    """The latest state that is known to give a finite loss, in memory that is used again."""

    def __init__(self, model: Model, optimizer: Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.parameters: dict[str, Array] = {}
        self.buffers: dict[str, Array] = {}
        self.state: dict[str, Array] = {}
        self.offers = 0
        self._take()

    def offer(self) -> None:
        """Take each sixteenth state offered: a copy at every update would cost time."""
        self.offers += 1
        if self.offers % _UPDATES_BETWEEN_COPIES == 0:
            self._take()

    def _take(self) -> None:
        weights = {name: p.data for name, p in self.model.parameters().items() if p.trainable}
        _copy(weights, self.parameters)
        _copy(self.model.buffers(), self.buffers)
        _copy(self.optimizer._live(), self.state)

    def restore(self) -> None:
        """Put the state back."""
        parameters = self.model.parameters()
        for name, array in self.parameters.items():
            parameters[name].assign(array)
        for name, array in self.buffers.items():
            self.model.set_buffer(name, array)
        self.optimizer.load_state(self.state)


def _copy(source: Mapping[str, Array], target: dict[str, Array]) -> None:
    """Copy all arrays of `source` into those of `target`, which gets what it lacks."""
    for name, array in source.items():
        if name in target:
            np.copyto(target[name], array)
        else:
            target[name] = array.copy()


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Let a Ctrl-C that comes inside the block wait for its end: no update is left half done."""
    previous = signal.getsignal(signal.SIGINT)
    if not callable(previous) or threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: waiting.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if waiting:
            previous(*waiting[0])


def random_states(model: Model) -> dict[str, Any]:
    """Return the states of all generators that layers of the model draw from, as Dropout does."""
    return {name: rng.bit_generator.state for name, rng in _generators(model).items()}


def set_random_states(model: Model, states: Mapping[str, Any]) -> None:
    """Undo `random_states`."""
    for name, rng in _generators(model).items():
        rng.bit_generator.state = states[name]


def _generators(model: Model) -> dict[str, np.random.Generator]:
    return {
        f"{node.name}.{attribute}": value
        for node in model.program.nodes
        for attribute, value in vars(node.layer).items()
        if isinstance(value, np.random.Generator)
    }
