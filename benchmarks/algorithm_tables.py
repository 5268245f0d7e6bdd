"""The tables of compare.py conv --auto: does cycnn choose its fastest algorithm?"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import report
from conv_tables import NAMES, key
from report import geometric_mean, table, threads_text, times
from session import Data, Measurement
from shapes import DIRECTIONS, ConvShape
from timing import quartiles

NEAR = 1.1  # auto may take so many times what the best takes

__all__ = ["key", "line", "summary", "tables"]


@dataclass(frozen=True)
class Row:
    """One measurement: seconds a step of each algorithm, and auto's over the best one's."""

    shape: ConvShape
    direction: str
    threads: int
    batch: str
    seconds: dict[str, float]
    best: str
    excess: report.Quartiles  # over the rounds

    @property
    def near(self) -> bool:
        return self.excess[1] <= NEAR


def row(measurement: Measurement) -> Row:
    blocks = {name.removeprefix("cycnn, "): b for name, b in measurement["blocks"].items()}
    seconds = {name: statistics.median(b) for name, b in blocks.items()}
    best = min((name for name in seconds if name != "auto"), key=seconds.__getitem__)
    pairs = zip(blocks["auto"], blocks[best], strict=True)
    return Row(
        ConvShape(**measurement["shape"]),
        measurement["direction"],
        measurement["threads"],
        measurement["batch"],
        seconds,
        best,
        quartiles([auto / other for auto, other in pairs]),
    )


def line(measurement: Measurement) -> str:
    head = f"{NAMES[measurement['direction']]:15} {ConvShape(**measurement['shape'])!s:26}"
    if "failed" in measurement:
        return f"{head} FAILED: {measurement['failed']}"
    r = row(measurement)
    rates = "  ".join(f"{name} {_rate(r, name)}" for name in r.seconds)
    return f"{head} {r.threads} thr  GFLOP/s: {rates}  auto takes {times(r.excess[1])} of {r.best}"


def tables(data: Data) -> str:
    rows = [row(m) for m in report.good(data)]
    parts = [report.settings(data), report.failed(data, line), summary(data)]
    for threads, direction in itertools.product(sorted({r.threads for r in rows}), DIRECTIONS):
        chosen = [r for r in rows if (r.threads, r.direction) == (threads, direction)]
        if chosen:
            parts.append(_details(f"{threads_text(threads)}, {NAMES[direction]}", chosen))
    return report.sections(*parts)


def summary(data: Data) -> str:
    rows = [row(m) for m in report.good(data)]
    if not rows:
        return ""
    cells = []
    groups = itertools.product(
        sorted({r.threads for r in rows}), dict.fromkeys(r.batch for r in rows), DIRECTIONS
    )
    for threads, batch, direction in groups:
        here = [r for r in rows if (r.threads, r.batch, r.direction) == (threads, batch, direction)]
        if here:
            cells.append([
                f"{threads_text(threads)}, batch: {batch}, {NAMES[direction]}", str(len(here)),
                str(sum(r.near for r in here)),
                times(geometric_mean(r.excess[1] for r in here)),
                times(max(r.excess[1] for r in here)),
            ])  # fmt: skip
    header = ["", "shapes", "within 10 %", "mean of auto / best", "worst"]
    far = sorted((r for r in rows if not r.near), key=lambda r: -r.excess[1])
    lines = [
        f"{times(r.excess[1])} of {r.best}, {NAMES[r.direction]}, {threads_text(r.threads)}: "
        f"{r.shape}"
        for r in far
    ]
    return report.sections(
        "## The time of algorithm=auto over that of the best\n\n" + table(header, cells),
        report.bullets(f"Not within 10 %: {len(far)} of {len(rows)}", lines),
    )


def _details(title: str, rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(name for r in rows for name in r.seconds))
    header = ["N x H x W x C, kernel, K", *names, "best", "auto / best", "quartiles"]
    cells = (
        [
            str(r.shape),
            *(_rate(r, name) for name in names),
            r.best,
            times(r.excess[1]),
            report.spread(r.excess),
        ]
        for r in rows
    )
    note = "GFLOP/s, counting the operations of the direct algorithm."
    return f"## {title}\n\n{note}\n\n{table(header, cells)}"


def _rate(r: Row, name: str) -> str:
    return f"{r.shape.operations / r.seconds[name] / 1e9:.1f}" if name in r.seconds else "-"
