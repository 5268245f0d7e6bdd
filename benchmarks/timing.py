"""Taking turns: the libraries run one after the other in blocks while the others are stopped.

An idle thread pool of one library that still spins would otherwise be timed with the other library,
and blocks that alternate meet the same disturbances from outside.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

Name = TypeVar("Name", bound=Hashable)
DROPPED = 0.05  # seconds at the start of a block: caches, clocks and thread pools warm up


class WorkerError(RuntimeError):
    """A library could not do what it was asked."""


class Worker:
    """A library in a process of its own, stopped whenever it has nothing to do."""

    def __init__(self, name: str, library: str, environment: Mapping[str, str]) -> None:
        self.name, self.environment = name, dict(environment)
        here, there = socket.socketpair()
        script = str(Path(__file__).with_name("worker.py"))
        with there:
            self._process = subprocess.Popen(
                [sys.executable, script, str(there.fileno()), library],
                pass_fds=[there.fileno()],
                env={**os.environ, **environment},
            )
        self._pipe = Connection(here.detach())

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.wait()

    def call(self, method: str, *arguments: Any) -> Any:
        """Let the worker run for as long as it needs to answer."""
        process = self._process
        try:
            process.send_signal(signal.SIGCONT)
            self._pipe.send((method, arguments))
            done, answer = self._pipe.recv()
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)  # until it stands still
        except (EOFError, ConnectionError) as error:
            raise SystemExit(f"{self.name}: its process ended, status {process.wait()}") from error
        if not done:
            raise WorkerError(f"{self.name}: {answer}")
        return answer


@dataclass(frozen=True)
class Contestant:
    """One way of one library to do the step."""

    worker: Worker
    variant: str

    @property
    def name(self) -> str:
        return f"{self.worker.name}, {self.variant}"

    def block(self, threads: int, seconds: float, cold: bool = False) -> float:
        dropped = min(DROPPED, seconds / 2)
        return float(self.worker.call("block", self.variant, threads, seconds, dropped, cold))


def promising(
    contestants: Sequence[Contestant], threads: int, seconds: float, cold: bool = False
) -> list[Contestant]:
    """Those that a short look finds within 20 % of the fastest."""
    look = {c: c.block(threads, min(seconds, 2 * DROPPED), cold) for c in contestants}
    return [c for c in contestants if look[c] <= 1.2 * min(look.values())]


def take_turns(blocks: Mapping[Name, Callable[[], float]], repeats: int) -> dict[Name, list[float]]:
    """What each block gives in each round, by name; every other round goes backwards."""
    given: dict[Name, list[float]] = {name: [] for name in blocks}
    for turn in range(repeats):
        for name in list(blocks)[:: 1 if turn % 2 == 0 else -1]:
            given[name].append(float(f"{blocks[name]():.5g}"))
    return given


def in_turn(
    contestants: Sequence[Contestant], threads: int, seconds: float, repeats: int,
    cold: bool = False,
) -> dict[str, list[float]]:  # fmt: skip
    """Seconds a step in each block, by contestant."""
    blocks = {c.name: partial(c.block, threads, seconds, cold) for c in contestants}
    return take_turns(blocks, repeats)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Quartiles of theirs / ours over the rounds: above 1 where ours is faster."""
    return quartiles([b / a for a, b in zip(ours, theirs, strict=True)] if theirs else [math.nan])


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
