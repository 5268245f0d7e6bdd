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
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from libraries import LIBRARIES, Array
from shapes import ConvShape


class Server:
    def __init__(self, library: str) -> None:
        self.library = LIBRARIES[library]()
        self.calls: dict[str, Callable[[], Any]] = {}

    def settings(self) -> dict[str, str]:
        return self.library.settings()

    def prepare(self, shape: ConvShape, direction: str, threads: int) -> dict[str, Array]:
        """Make the arrays of one convolution; return the result of each memory format."""
        self.calls = {}
        gc.collect()
        rng = np.random.default_rng(0)  # the same numbers in every worker, of unit variance
        shapes = {"x": shape.x_shape, "weight": shape.weight_shape, "dy": shape.y_shape}
        inputs = {
            name: (rng.random(extents, dtype=np.float32) - np.float32(0.5)) * np.float32(12**0.5)
            for name, extents in shapes.items()
        }
        self.library.set_threads(threads)
        self.calls = self.library.calls(shape, direction, inputs)
        return {name: self.library.to_numpy(direction, f()) for name, f in self.calls.items()}

    def block(self, name: str, threads: int, seconds: float, dropped: float) -> float:
        """Run steps for `seconds`; mean seconds a step of those begun after the first `dropped`."""
        call, now = self.calls[name], time.perf_counter
        self.library.set_threads(threads)
        begin = now()
        while now() < begin + dropped:
            call()
        steps, start = 0, now()
        while True:
            call()
            steps += 1
            end = now()
            if end >= begin + seconds:
                return (end - start) / steps

    def peak(self, threads: int) -> float:
        from peak import fma_peak

        return fma_peak(threads)

    def clock(self) -> float:
        from peak import clock

        return clock()


def serve(pipe: Connection, library: str) -> None:
    """Answer (method, arguments) with (True, result) or (False, what went wrong)."""
    server: Server | None = None
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            server = server or Server(library)
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
