"""On how many threads short work runs that is done again and again: steps, predictions.

Two threads that share a cache may halve the time of a small step.  Two that do not may double it:
what one has written, the other must fetch from far away.  Which of the two holds is not known
beforehand, and can change while a program runs: where a virtual machine's processors are moved, or
where other programs want them too, so that threads wait for one that is not running.  So it is
tried out: now and then, and when runs become much slower, a few take half or twice as many threads
as those before, and what was quicker stays.  No bit of a result depends on it.
"""

from __future__ import annotations

import math
import time
from _thread import allocate_lock  # threading.Lock, without a millisecond of import
from collections.abc import Hashable
from contextvars import Token
from types import TracebackType

from cycnn.threads import get_num_threads, limit

# Runs of a trial, the quickest of which counts.  Some more come before, in which threads wake up
# and what they read moves to their caches.
_TRIES, _BEFORE = 6, 3
# Runs between two trials: doubled by each that brings nothing, up to the second number, or to the
# third after a trial that slow runs began.
_FIRST, _LAST, _SOON = 64, 4096, 1024
_GAIN = 0.95  # what a run must take of the time before, to be called quicker
_HOPELESS = 1.3  # of that time, on fewer threads: the trial ends
_SLOW = 3.0  # the same on more; and of the quickest run since the last trial: try at once
_LONG = 0.01  # seconds of a run that is worth all threads
_KEPT = 8  # shapes


class Pace:
    """How many threads one piece of work takes, as its runs are timed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._halvings = self._tried = 0  # of the number of threads: now, and in the next run
        self._more = 1  # halvings, at the next trial
        self._seconds = math.inf  # of a run before the trial
        self._quick = math.inf  # of the quickest run since the last trial
        self._slow = False  # whether slow runs began the trial
        self._left = self._wait = _FIRST  # runs up to the next change, and to the next trial
        self._longest = _LAST  # of the waits
        self._times: list[float] = []
        self._lock = allocate_lock()

    @property
    def threads(self) -> int:
        """The number of threads for the next run."""
        return self._most >> self._tried

    def note(self, threads: int, seconds: float) -> None:
        """Note how long a run took on so many threads."""
        if self._lock.acquire(blocking=False):  # else one that ended at the same time is noted
            try:
                if threads == self.threads:  # else it began before the last change
                    self._note(seconds)
            finally:
                self._lock.release()

    def _note(self, seconds: float) -> None:
        self._times = [*self._times[1 - _TRIES :], seconds]
        self._left -= 1
        if self._tried == self._halvings:
            self._quick = min(self._quick, seconds)
            late = self._wait - self._left >= _FIRST
            self._slow = late and min(self._times) > _SLOW * self._quick
            if self._slow:
                self._left = 0
        # Fewer threads are awake from the start: their second run tells.
        hope = _HOPELESS if self._tried > self._halvings else _SLOW
        hopeless = (
            self._tried != self._halvings
            and self._left <= _BEFORE + _TRIES - 2
            and seconds > hope * self._seconds
        )
        if self._left > 0 and not hopeless:
            return
        quickest, self._times = min(self._times), []
        if self._tried == self._halvings:
            self._try(quickest)
            return
        quicker = quickest < _GAIN * self._seconds and not hopeless
        if self._slow:
            self._wait, self._longest = _FIRST, _SOON
        elif quicker:
            self._longest = _LAST
        if quicker:
            self._quick = quickest
            self._halvings = self._tried
            self._left = self._wait = _FIRST
        else:
            self._quick = self._seconds
            self._tried, self._more = self._halvings, -self._more
            self._left = self._wait = min(2 * self._wait, self._longest)

    def _try(self, seconds: float) -> None:
        """Begin a trial, but take no threads from a long run."""
        if self._quick > _LONG:
            self._more = -1
        elif not 0 <= self._halvings + self._more < self._most.bit_length():
            self._more = -self._more
        if self._halvings + self._more < 0:
            self._left = self._wait
        else:
            self._tried = self._halvings + self._more
            self._left = _BEFORE + _TRIES
            self._seconds = seconds


class Paces:
    """The paces of work on some shapes.

    Examples
    --------
    >>> paces = Paces()
    >>> with paces.run() as run:
    ...     run.on((32, 28, 28, 1))  # all that follows takes as many threads as this shape should
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, Pace] = {}

    def __getstate__(self) -> dict[str, dict[Hashable, Pace]]:
        return {"_kept": {}}

    def of(self, key: Hashable, most: int) -> Pace:
        """Return the pace of a shape on at most so many threads."""
        pace = self._kept.get((key, most))
        if pace is None:
            pace = self._kept[key, most] = Pace(most)
            for oldest in list(self._kept)[:-_KEPT]:
                self._kept.pop(oldest, None)
        return pace

    def run(self) -> PacedRun:
        """Return a context that is one run."""
        return PacedRun(self)


class PacedRun:
    """A run, on as many threads as the pace of its shape says, timed."""

    __slots__ = ("_began", "_pace", "_paces", "_parts", "_threads", "_token")

    def __init__(self, paces: Paces) -> None:
        self._paces = paces
        self._parts = 0
        self._pace: Pace | None = None
        self._token: Token[int] | None = None

    def __enter__(self) -> PacedRun:
        return self

    def on(self, key: Hashable) -> None:
        """Begin a part of the run; the first one's shape counts."""
        self._parts += 1
        most = get_num_threads() if self._parts == 1 else 1
        if most > 1:
            self._pace = self._paces.of(key, most)
            self._threads = self._pace.threads
            if self._threads < most:
                self._token = limit.set(self._threads)
            self._began = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._token is not None:
            limit.reset(self._token)
        if self._pace is not None and kind is None:
            self._pace.note(self._threads, (time.perf_counter() - self._began) / self._parts)
