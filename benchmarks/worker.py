"""One library in a process of its own: it answers the calls that come through a socket.

Started by timing.Worker as ``python worker.py FD LIBRARY``.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import cached_property
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from libraries import Array, library
from shapes import ConvShape

CHECKED_RATE = 1e-3  # moves the loss enough to be seen
TIMED_RATE = 1e-6  # hundreds of steps on one batch: nothing diverges, no unit dies


class Server:
    def __init__(self, name: str) -> None:
        self.name, self.library = name, library(name)
        self.calls: dict[str, Callable[[], Any]] = {}

    @cached_property
    def sweep(self) -> Callable[[], Any]:
        return self.library.other_data()

    def settings(self) -> dict[str, str]:
        return self.library.settings()

    def convolution(
        self, shape: ConvShape, direction: str, threads: int, algorithms: Sequence[str]
    ) -> dict[str, Array]:
        """Make the arrays of one convolution; return the result of each way to compute it."""
        self.clear(threads)
        self.calls = self._convolution(shape, direction, algorithms)
        return {name: self.library.to_numpy(direction, f()) for name, f in self.calls.items()}

    def layer(self, shape: ConvShape, algorithms: Sequence[str]) -> dict[str, Array]:
        """The same for the forward pass of one more layer beside those that are ready."""
        calls = self._convolution(shape, "forward", algorithms)
        self.calls |= {f"{name}, {shape.K}": call for name, call in calls.items()}
        return {name: self.library.to_numpy("forward", f()) for name, f in calls.items()}

    def _convolution(
        self, shape: ConvShape, direction: str, algorithms: Sequence[str]
    ) -> dict[str, Callable[[], Any]]:
        rng = np.random.default_rng(0)  # the same numbers in every worker, of unit variance
        shapes = {"x": shape.x_shape, "weight": shape.weight_shape, "dy": shape.y_shape}
        inputs = {
            name: (rng.random(extents, dtype=np.float32) - np.float32(0.5)) * np.float32(12**0.5)
            for name, extents in shapes.items()
        }
        return self.library.convolution(shape, direction, inputs, algorithms)

    def network(self, name: str) -> tuple[list[Array], int]:
        """The parameters that cycnn draws, and its multiply-adds for one sample."""
        import networks

        model = networks.build(name)
        parameters = [parameter.data for parameter in model.parameters().values()]
        return parameters, model.macs(networks.NETWORKS[name].input_shape)

    def losses(self, name: str, batch: int, threads: int, weights: list[Array]) -> dict[str, Any]:
        """Of the first three steps from these weights, in each memory format.

        The first shows the forward pass, the second the gradients, the third the momentum. Dropout,
        whose random numbers each library draws in its own way, is off.
        """
        self.clear(threads)
        found = {}
        for way in self.library.ways(name):
            step = self.library.training(name, batch, way, CHECKED_RATE, weights, dropout=False)
            found[way] = [step() for _ in range(3)]
        return found

    def step(
        self, kind: str, name: str, batch: int, threads: int, ways: Sequence[str] = ()
    ) -> list[str]:
        """Make ready the training step or the prediction of a network, in all ways or in some."""
        self.clear(threads)
        for way in ways or self.library.ways(name):
            if kind == "train":
                self.calls[way] = self.library.training(name, batch, way, TIMED_RATE)
            else:
                self.calls[way] = self.library.prediction(name, batch, way)
            self.calls[way]()
        return list(self.calls)

    def clear(self, threads: int) -> None:
        self.calls = {}
        gc.collect()
        self.library.set_threads(threads)

    def block(
        self, name: str, threads: int, seconds: float, dropped: float, cold: bool = False
    ) -> float:
        """Run steps for `seconds`; mean seconds a step of those begun after the first `dropped`.

        If `cold`, each of these finds other data in the caches.
        """
        call, now = self.calls[name], time.perf_counter
        self.library.set_threads(threads)
        begin = now()
        while now() < begin + dropped:
            call()
        steps, spent = 0, 0.0
        while True:
            if cold:
                self.sweep()
            start = now()
            call()
            end = now()
            steps, spent = steps + 1, spent + end - start
            if end >= begin + seconds:
                return spent / steps

    def memory(self, name: str, batch: int, way: str, threads: int, steps: int) -> dict[str, float]:
        from footprint import footprint

        gc.enable()  # as where users run it
        self.clear(threads)
        return footprint(lambda: self.library.training(name, batch, way, TIMED_RATE), steps)

    def ways(self, name: str) -> tuple[str, ...]:
        return self.library.ways(name)

    def disk(self) -> dict[str, int]:
        from disk import sizes

        return sizes(self.name)

    def passes(self, threads: int) -> dict[str, int]:
        """Make ready what moves memory; return the bytes of each."""
        from ours import passes

        self.clear(threads)
        found = passes()
        self.calls = {name: call for name, (call, _) in found.items()}
        return {name: size for name, (_, size) in found.items()}

    def copy(self, threads: int) -> float:
        from peak import copy_bandwidth

        return copy_bandwidth(threads)

    def peak(self, threads: int) -> float:
        from peak import fma_peak

        return fma_peak(threads)

    def clock(self) -> float:
        from peak import clock

        return clock()


def serve(pipe: Connection, name: str) -> None:
    """Answer (method, arguments) with (True, result) or (False, what went wrong)."""
    server: Server | None = None
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            server = server or Server(name)
            answer = True, getattr(server, method)(*arguments)
        except Exception as error:
            short = traceback.format_exception_only(error)[-1].strip()
            answer = False, short
        pipe.send(answer)


if __name__ == "__main__":
    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    with contextlib.suppress(AttributeError):  # Linux: a stopped worker must not outlive its parent
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    serve(Connection(int(sys.argv[1])), sys.argv[2])
