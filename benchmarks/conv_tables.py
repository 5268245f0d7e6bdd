"""The tables of compare.py conv, and what of them the README shows."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import report
from report import geometric_mean, spread, table, threads_text, times
from session import Data, Measurement
from shapes import DIRECTIONS, ConvShape
from timing import quartiles, ratios

SLOW = 0.85  # ratios below are counted apart
COMPUTE_BOUND = 16.0  # operations per byte
NEAR_PEAK = 0.9
NAMES = {"forward": "forward", "input": "input gradient", "weight": "weight gradient"}
PER_CYCLE = {
    "avx2": (32, "2 units x 8 lanes x 2"),
    "avx512": (64, "2 units of 512 bits x 16 lanes x 2"),
}


@dataclass(frozen=True)
class Row:
    """One measurement: rates in GFLOP/s, ratio above 1 where cycnn is faster."""

    shape: ConvShape
    direction: str
    threads: int
    ours: float
    theirs: float
    winner: str  # which of the peer's ways was its best
    ratio: report.Quartiles  # over the rounds
    peak: float

    @property
    def share(self) -> float:
        return self.ours / self.peak

    @property
    def compute_bound(self) -> bool:
        s = self.shape
        matrix = s.groups == 1 and s.kernel in (1, 3) and min(s.C, s.K) >= 64
        return matrix and s.intensity >= COMPUTE_BOUND


def row(measurement: Measurement, peak: float | None = None) -> Row:
    shape = ConvShape(**measurement["shape"])
    (_, ours), *peers = measurement["blocks"].items()
    winner, theirs = min(peers, key=lambda peer: statistics.median(peer[1]), default=("none", []))
    return Row(
        shape,
        measurement["direction"],
        measurement["threads"],
        shape.operations / statistics.median(ours) / 1e9,
        shape.operations / statistics.median(theirs) / 1e9 if theirs else math.nan,
        report.short(winner),
        ratios(ours, theirs),
        peak or measurement["peak"],
    )


def rows_of(data: Data) -> list[Row]:
    """All that was measured; shares refer to the median peak over the run."""
    good = report.good(data)
    peaks = {n: peak[1] for n, peak in _peaks(good).items()}
    return [row(m, peaks[m["threads"]]) for m in good]


def key(measurement: Measurement) -> tuple[ConvShape, str]:
    return ConvShape(**measurement["shape"]), measurement["direction"]


def line(measurement: Measurement) -> str:
    """One measurement as it is shown while the others still run."""
    head = f"{NAMES[measurement['direction']]:15} {ConvShape(**measurement['shape'])!s:26}"
    if "failed" in measurement:
        return f"{head} FAILED: {measurement['failed']}"
    r = row(measurement)
    return (
        f"{head} {r.threads} thr  {r.ours:6.1f} against {r.theirs:6.1f} GFLOP/s  "
        f"{times(r.ratio[1])} ({spread(r.ratio)})  {r.share:4.0%} of peak  [{r.winner}]"
    )


def tables(data: Data) -> str:
    rows, peaks = rows_of(data), _peaks(report.good(data))
    parts = [report.settings(data), report.failed(data, line)]
    if rows:
        parts += [_peak(data, peaks), summary(data)]
    for threads, direction in itertools.product(peaks, DIRECTIONS):
        chosen = [r for r in rows if (r.threads, r.direction) == (threads, direction)]
        if chosen:
            parts.append(_details(f"{threads_text(threads)}, {NAMES[direction]}", chosen))
    return report.sections(*parts)


def summary(data: Data) -> str:
    rows = rows_of(data)
    return report.sections(_means(rows), _behind(rows), _compute_bound(rows)) if rows else ""


def headline(data: Data) -> str:
    """What the project's README shows."""
    return _means(rows_of(data))


def _peaks(good: Sequence[Measurement]) -> dict[int, report.Quartiles]:
    return {
        threads: quartiles([m["peak"] for m in good if m["threads"] == threads])
        for threads in report.threads_of(good)
    }


def _peak(data: Data, peaks: dict[int, report.Quartiles]) -> str:
    isa, clock = data["settings"]["libraries"]["cycnn"]["isa"], data["settings"]["clock"]
    text = f"Clock, from a chain of dependent integer operations: {clock:.2f} GHz."
    if isa in PER_CYCLE:
        flops, why = PER_CYCLE[isa]
        text += f" Clock x {flops} ({why}): {clock * flops:.0f} GFLOP/s a core."
    header = ["FMA peak in registers", "GFLOP/s", "quartiles over the run"]
    cells = [
        [threads_text(n), f"{median:.0f}", f"{low:.0f}-{high:.0f}"]
        for n, (low, median, high) in peaks.items()
    ]
    return f"## Peak ({isa})\n\n{text}\n\n{table(header, cells)}"


def _means(rows: Sequence[Row]) -> str:
    kinds: dict[str, Callable[[Row], bool]] = {
        "all": lambda r: True,
        "3x3, stride 1, C >= 16": lambda r: (
            (r.shape.kernel, r.shape.stride, r.shape.groups) == (3, 1, 1) and r.shape.C >= 16
        ),
        "without depthwise": lambda r: not r.shape.depthwise,
        "depthwise": lambda r: r.shape.depthwise,
    }
    cells = []
    for threads, direction in itertools.product(sorted({r.threads for r in rows}), DIRECTIONS):
        here = [r for r in rows if (r.threads, r.direction) == (threads, direction)]
        if here:
            chosen = [[r.ratio[1] for r in here if belongs(r)] for belongs in kinds.values()]
            means = [f"{times(geometric_mean(c))} ({len(c)})" for c in chosen]
            cells.append([f"{threads_text(threads)}, {NAMES[direction]}", *means])
    return "## Geometric means of the ratio (number of shapes)\n\n" + table(["", *kinds], cells)


def _behind(rows: Sequence[Row]) -> str:
    behind = sorted((r for r in rows if r.ratio[1] < 1.0), key=lambda r: r.ratio[1])
    slow = sum(r.ratio[1] < SLOW for r in behind)
    title = f"## Below 1.0x: {len(behind)} of {len(rows)}; below {SLOW}x: {slow}"
    if not behind:
        return title
    cells = (
        [
            f"{r.shape}", NAMES[r.direction], threads_text(r.threads), times(r.ratio[1]),
            spread(r.ratio), f"{r.share:.0%}", f"{r.theirs / r.peak:.0%}",
            f"{r.shape.intensity:.0f}",
        ]
        for r in behind
    )  # fmt: skip
    header = ["", "direction", "", "ratio", "quartiles", "share of peak", "PyTorch's", "FLOPs/byte"]
    return f"{title}\n\n{table(header, cells)}"


def _compute_bound(rows: Sequence[Row]) -> str:
    bound = [r for r in rows if r.compute_bound]
    if not bound:
        return ""
    text = (
        "Kernels 3x3 and 1x1 with C, K >= 64 and at least "
        f"{COMPUTE_BOUND:.0f} operations per byte of x, weight and y. Winograd needs fewer "
        "operations than are counted, and may pass the peak."
    )
    cells = []
    for threads, direction in itertools.product(sorted({r.threads for r in bound}), DIRECTIONS):
        here = [r for r in bound if (r.threads, r.direction) == (threads, direction)]
        if here:
            shares = [r.share for r in here]
            below = sum(share < NEAR_PEAK for share in shares)
            lowest = min(here, key=lambda r: r.share)
            cells.append([
                f"{threads_text(threads)}, {NAMES[direction]}", str(len(here)),
                f"{geometric_mean(shares):.0%}", str(below), f"{lowest.share:.0%} ({lowest.shape})",
            ])  # fmt: skip
    header = ["", "shapes", "mean share of the peak", f"below {NEAR_PEAK:.0%}", "lowest"]
    return f"## Compute-bound shapes\n\n{text}\n\n{table(header, cells)}"


def _details(title: str, rows: Sequence[Row]) -> str:
    header = ["N x H x W x C, kernel, K", "cycnn", "PyTorch", "ratio", "quartiles", "share of peak"]
    cells = (
        [
            f"{r.shape}{' *' if r.compute_bound else ''}",
            f"{r.ours:.1f}",
            f"{r.theirs:.1f} ({r.winner})",
            times(r.ratio[1]),
            spread(r.ratio),
            f"{r.share:.0%}",
        ]
        for r in rows
    )
    note = "GFLOP/s; * compute-bound."
    return f"## {title}\n\n{note}\n\n{table(header, cells)}"
