"""Tables of what compare.py measured, as Markdown."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shapes import DIRECTIONS, ConvShape
from timing import quartiles

Data = dict[str, Any]  # {"settings": {...}, "measurements": [{...}, ...]}
SLOW = 0.7  # ratios below are listed
COMPUTE_BOUND = 16.0  # operations per byte
NEAR_PEAK = 0.8
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
    ratio: tuple[float, float, float]  # quartiles over the rounds
    peak: float

    @property
    def share(self) -> float:
        return self.ours / self.peak

    @property
    def compute_bound(self) -> bool:
        s = self.shape
        matrix = s.groups == 1 and s.kernel in (1, 3) and min(s.C, s.K) >= 64
        return matrix and s.intensity >= COMPUTE_BOUND


def row(measurement: dict[str, Any], peak: float | None = None) -> Row:
    shape = ConvShape(**measurement["shape"])
    (_, ours), *peers = measurement["blocks"].items()
    winner, theirs = min(peers, key=lambda peer: statistics.median(peer[1]), default=("none", []))
    return Row(
        shape,
        measurement["direction"],
        measurement["threads"],
        shape.operations / statistics.median(ours) / 1e9,
        shape.operations / statistics.median(theirs) / 1e9 if theirs else math.nan,
        winner.removeprefix("torch, ").replace(" allocator", ""),
        quartiles([b / a for a, b in zip(ours, theirs, strict=True)] if theirs else [math.nan]),
        peak or measurement["peak"],
    )


def line(measurement: dict[str, Any]) -> str:
    """One measurement as it is shown while the others still run."""
    head = f"{NAMES[measurement['direction']]:15} {ConvShape(**measurement['shape'])!s:26}"
    if "failed" in measurement:
        return f"{head} FAILED: {measurement['failed']}"
    r = row(measurement)
    low, middle, high = r.ratio
    return (
        f"{head} {r.threads} thr  {r.ours:6.1f} against {r.theirs:6.1f} GFLOP/s  "
        f"{times(middle)} ({low:.2f}-{high:.2f})  {r.share:4.0%} of peak  [{r.winner}]"
    )


def merge(runs: Sequence[Data]) -> Data:
    """Runs of the same settings as one; the last measurement of a convolution stays."""
    first = runs[0]["settings"]
    for run in runs[1:]:
        if run["settings"]["libraries"] != first["libraries"]:
            raise SystemExit("report: the files come from different libraries or environments")
    kept: dict[tuple[ConvShape, str, int | None], dict[str, Any]] = {}
    for m in itertools.chain.from_iterable(run["measurements"] for run in runs):
        shape, direction = ConvShape(**m["shape"]), m["direction"]
        kept.pop((shape, direction, None), None)  # it failed, and was measured again
        kept[shape, direction, m.get("threads")] = m
    return {"settings": first, "measurements": list(kept.values())}


def markdown(data: Data) -> str:
    good = [m for m in data["measurements"] if "failed" not in m]
    peaks = {
        threads: quartiles([m["peak"] for m in good if m["threads"] == threads])
        for threads in sorted({m["threads"] for m in good})
    }
    rows = [row(m, peaks[m["threads"]][1]) for m in good]
    parts = [_settings(data["settings"]), _failed(data), _peak(data["settings"], peaks)]
    if rows:
        parts += [_means(rows), _slow(rows), _compute_bound(rows)]
    for threads, direction in itertools.product(peaks, DIRECTIONS):
        chosen = [r for r in rows if (r.threads, r.direction) == (threads, direction)]
        if chosen:
            parts.append(_details(f"{_threads(threads)}, {NAMES[direction]}", chosen))
    return "\n\n".join(filter(None, parts))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def times(ratio: float) -> str:
    return "-" if math.isnan(ratio) else f"{ratio:.2f}x"


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan


def _threads(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"


def _settings(settings: dict[str, Any]) -> str:
    lines = ["## Settings", "", *(f"- {k}: {v}" for k, v in settings["machine"].items())]
    lines.append(f"- method: {settings['method']}")
    for name, about in settings["libraries"].items():
        lines.append(f"- **{name}**: " + "; ".join(f"{k} {v}" for k, v in about.items()))
    lines += [f"- **missing peer**: {what}" for what in settings["missing"]]
    return "\n".join(lines)


def _failed(data: Data) -> str:
    failed = [line(m) for m in data["measurements"] if "failed" in m]
    return "\n".join(["## Failed", "", *(f"- {text}" for text in failed)]) if failed else ""


def _peak(settings: dict[str, Any], peaks: dict[int, tuple[float, float, float]]) -> str:
    isa, clock = settings["libraries"]["cycnn"]["isa"], settings["clock"]
    text = f"Clock, from a chain of dependent integer operations: {clock:.2f} GHz."
    if isa in PER_CYCLE:
        flops, why = PER_CYCLE[isa]
        text += f" Clock x {flops} ({why}): {clock * flops:.0f} GFLOP/s a core."
    header = ["FMA peak in registers", "GFLOP/s", "quartiles over the run"]
    cells = [
        [_threads(n), f"{median:.0f}", f"{low:.0f}-{high:.0f}"]
        for n, (low, median, high) in peaks.items()
    ]
    return f"## Peak ({isa})\n\n{text}\n\n{table(header, cells)}"


def _means(rows: Sequence[Row]) -> str:
    kinds: dict[str, Callable[[Row], bool]] = {
        "all": lambda r: True,
        "without depthwise": lambda r: not r.shape.depthwise,
        "depthwise": lambda r: r.shape.depthwise,
    }
    cells = []
    for threads, direction in itertools.product(sorted({r.threads for r in rows}), DIRECTIONS):
        here = [r for r in rows if (r.threads, r.direction) == (threads, direction)]
        if here:
            chosen = [[r.ratio[1] for r in here if belongs(r)] for belongs in kinds.values()]
            means = [f"{times(geometric_mean(c))} ({len(c)})" for c in chosen]
            cells.append([f"{_threads(threads)}, {NAMES[direction]}", *means])
    return "## Geometric means of the ratio (number of shapes)\n\n" + table(["", *kinds], cells)


def _slow(rows: Sequence[Row]) -> str:
    slow = sorted((r for r in rows if r.ratio[1] < SLOW), key=lambda r: r.ratio[1])
    lines = [
        f"- {r.ratio[1]:.2f}x {NAMES[r.direction]}, {_threads(r.threads)}: {r.shape}" for r in slow
    ]
    return "\n".join([f"## Below {SLOW}x: {len(slow)} of {len(rows)}", "", *lines]).rstrip()


def _compute_bound(rows: Sequence[Row]) -> str:
    bound = [r for r in rows if r.compute_bound]
    if not bound:
        return ""
    text = (
        "Kernels 3x3 and 1x1 with C, K >= 64 and at least "
        f"{COMPUTE_BOUND:.0f} operations per byte of x, weight and y."
    )
    cells = []
    for threads, direction in itertools.product(sorted({r.threads for r in bound}), DIRECTIONS):
        here = [r for r in bound if (r.threads, r.direction) == (threads, direction)]
        if here:
            shares = [r.share for r in here]
            below = sum(share < NEAR_PEAK for share in shares)
            lowest = min(here, key=lambda r: r.share)
            cells.append([
                f"{_threads(threads)}, {NAMES[direction]}", str(len(here)),
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
            f"{r.ratio[0]:.2f}-{r.ratio[2]:.2f}",
            f"{r.share:.0%}",
        ]
        for r in rows
    )
    note = "GFLOP/s; * compute-bound."
    return f"## {title}\n\n{note}\n\n{table([*header], cells)}"
