"""How a fit goes, told while it runs: a bar where tqdm is installed, plain lines otherwise."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Reports one call of `fit`.

    Parameters
    ----------
    last : int
        The number of the last epoch.
    verbose : int
        0 is silent; 1 shows the batches of the running epoch (a bar on a terminal where tqdm is
        installed, else a line every ten seconds) and a line per epoch; 2 only the latter.
    """

    def __init__(self, last: int, verbose: int) -> None:
        self.last, self.verbose = last, verbose
        self.bar: Any = None

    def begin_epoch(self, epoch: int, batches: int, done: int = 0) -> None:
        """Say that epoch number `epoch` begins; it has so many batches, 0 where nobody knows."""
        self.label = f"epoch {epoch:{len(str(self.last))}d}/{self.last}"
        self.batch, self.batches = done, batches
        self.began = self.spoke = time.perf_counter()
        if self.verbose == 1:
            self.bar = _bar(self.label, batches, done)

    def end_batch(self, loss: float) -> None:
        """Count one batch, which had this loss."""
        self.batch += 1
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self.bar.update()
        elif self.verbose == 1 and time.perf_counter() - self.spoke > _SECONDS_BETWEEN_LINES:
            of_all = f"/{self.batches}" if self.batches else ""
            _say(f"{self.label}  batch {self.batch}{of_all}  loss {loss:.4f}")
            self.spoke = time.perf_counter()

    def end_epoch(self, logs: Mapping[str, float]) -> None:
        """Print the figures of the epoch that ends."""
        self.close()
        if self.verbose:
            figures = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
            seconds = time.perf_counter() - self.began
            _say(f"{self.label}  {figures}  ({seconds:.1f} s)")

    def close(self) -> None:
        """Take the bar away, also where an epoch is broken off."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (to be read by people, on standard output)


def _bar(label: str, total: int, done: int) -> Any:
    """Return a tqdm bar on standard error, or None without tqdm or without a terminal."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    bar = tqdm(
        total=total or None, initial=done, desc=label, unit="batch", leave=False, disable=None
    )
    return None if bar.disable else bar
