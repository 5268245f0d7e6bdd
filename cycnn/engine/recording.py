"""Recordings: what ran once, kernel by kernel, runs again by one call, on the same memory.

The first run is like any other.  Meanwhile the plans that run are joined to a long one, and a
Reserve takes note of the blocks of the pool that are handed out.  Since arrays die and their blocks
are handed out again in the same order in which the plans run, the long plan may use these blocks in
the same way: nothing is allocated, checked or chosen any more.

Only what plans do is done again.  Code that computes otherwise, with NumPy say, calls
`outside_plans`, and is not run again; what is drawn anew for each run is drawn in a function given
to `before_replay`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from cycnn.engine.memory import Lease, Reserve
from cycnn.engine.plan import Plan, begin_recording, end_recording


class Recording:
    """A run, in one or several parts, that can be run again.

    Attributes
    ----------
    crossed : bool
        Whether a part is missing because another thread was recording: one at a time may.

    Examples
    --------
    >>> from cycnn import engine
    >>> x, recording = engine.zeros((4,), "float32"), Recording()
    >>> with recording.part() as plan:
    ...     y = engine.empty((4,), "float32")  # and run plans that write to it
    >>> place = recording.place(y)
    >>> del y
    >>> with_all_blocks = recording.lease()
    >>> plan.run()
    >>> y = with_all_blocks.array(place, (4,), np.dtype("float32"))
    """

    def __init__(self) -> None:
        self._memory = Reserve()
        self.crossed = False

    @property
    def usable(self) -> bool:
        """Whether all that was done can be done again."""
        return self._memory.complete and not self.crossed

    @contextmanager
    def part(self) -> Iterator[Plan]:
        """Add to a new plan what this thread runs inside the block."""
        plan = Plan()
        if not begin_recording(plan, self._memory):
            self.crossed = True
            yield plan
            return
        try:
            yield plan
        except BaseException:
            self._memory.complete = False
            raise
        finally:
            end_recording()

    def place(self, array: np.ndarray[Any, Any]) -> int:
        """Return the address of an array that was made in one of the parts."""
        address: int = array.__array_interface__["data"][0]
        if not (self._memory.holds(address) and array.flags.c_contiguous):
            self._memory.complete = False
        return address

    def lease(self) -> Lease | None:
        """Take the blocks that the parts use, to run their plans; None while somebody has one."""
        lease = self._memory.lease()
        if lease is not None:
            for function in self._memory.refresh:
                function()
        return lease
