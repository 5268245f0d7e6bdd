"""What the tables of all subcommands are made of, as Markdown; and runs that become one."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence

from session import Data, Measurement

# Above 1 cycnn is faster (or needs less), everywhere.
Quartiles = tuple[float, float, float]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def bullets(title: str, lines: Sequence[str]) -> str:
    """A section of such lines; the title should say how many there are."""
    return "\n".join([f"## {title}", "", *(f"- {text}" for text in lines)]).rstrip()


def times(ratio: float) -> str:
    return "-" if math.isnan(ratio) else f"{ratio:.2f}x"


def spread(quartiles: Quartiles) -> str:
    low, _, high = quartiles
    return "-" if math.isnan(low) else f"{low:.2f}-{high:.2f}"


def milliseconds(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def mebibytes(size: float) -> str:
    return "-" if math.isnan(size) else f"{size / 2**20:.1f}"


def geometric_mean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logs)) if logs else math.nan


def threads_text(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"


def short(name: str) -> str:
    """A contestant's name without what is the same for all peers."""
    return name.removeprefix("torch, ").replace(" allocator", "")


def good(data: Data) -> list[Measurement]:
    return [m for m in data["measurements"] if "failed" not in m]


def threads_of(measurements: Iterable[Measurement]) -> list[int]:
    return sorted({m["threads"] for m in measurements})


def settings(data: Data) -> str:
    about = data["settings"]
    lines = [f"{k}: {v}" for k, v in about["machine"].items()]
    lines += [f"command: `{about['line']}`", f"method: {about['method']}"]
    for name, library in about["libraries"].items():
        lines.append(f"**{name}**: " + "; ".join(f"{k} {v}" for k, v in library.items()))
    lines += [f"**missing peer**: {what}" for what in about["missing"]]
    return bullets("Settings", lines)


def failed(data: Data, line: Callable[[Measurement], str]) -> str:
    lines = [line(m) for m in data["measurements"] if "failed" in m]
    return bullets(f"Failed: {len(lines)}", lines) if lines else ""


def sections(*parts: str) -> str:
    return "\n\n".join(filter(None, parts))


def merge(runs: Sequence[Data], key: Callable[[Measurement], Hashable]) -> Data:
    """Runs of one subcommand and the same settings as one; the last measurement of a thing stays.

    A thing is what `key` says, at a number of threads.
    """
    first = runs[0]
    for run in runs[1:]:
        if run["settings"]["libraries"] != first["settings"]["libraries"]:
            raise SystemExit("report: the files come from different libraries or environments")
    kept: dict[tuple[Hashable, int | None], Measurement] = {}
    for m in itertools.chain.from_iterable(run["measurements"] for run in runs):
        kept.pop((key(m), None), None)  # it failed, and was measured again
        kept[key(m), m.get("threads")] = m
    return {**first, "measurements": list(kept.values())}
