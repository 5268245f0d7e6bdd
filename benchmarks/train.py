"""compare.py train: one training step of whole networks, cycnn and PyTorch."""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import networks
import report
from check import check_losses
from networks import NETWORKS
from report import geometric_mean, milliseconds, spread, table, threads_text, times
from session import Data, Measurement, Session, add_options, check_threads, contestants, session
from timing import WorkerError, in_turn, ratios


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, repeats=7, seconds=0.5)
    add_networks(parser)
    parser.add_argument("--batch", type=int, metavar="N", help="instead of each network's own")


def add_networks(parser: argparse.ArgumentParser, default: Sequence[str] = tuple(NETWORKS)) -> None:
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(default),
        metavar="NAME", help=f"of {', '.join(NETWORKS)}")  # fmt: skip


check_arguments = check_threads


def run(options: argparse.Namespace) -> Data:
    method = f"median of {options.repeats} blocks of {options.seconds} s or one step"
    with session("train", options, method) as run_:
        for name in options.networks:
            for measurement in _measure(name, run_, options):
                run_.record(measurement, line)
    return run_.data


def _measure(name: str, run_: Session, options: argparse.Namespace) -> Iterator[Measurement]:
    """Check that all learn alike, then time; a failure is a measurement too."""
    batch = options.batch or NETWORKS[name].batch
    base = {"network": name, "batch": batch}
    try:
        most = max(options.threads)
        weights, macs = run_.ours.call("network", name)
        losses = {
            f"{worker.name}, {way}": found
            for worker in run_.workers
            for way, found in worker.call("losses", name, batch, most, weights).items()
        }
        check_losses(networks.terms(weights), losses)
        base["operations"] = networks.STEPS["train"] * macs * batch
        entered = contestants(run_.workers, "step", "train", name, batch, most)
        for threads in options.threads:
            blocks = in_turn(entered, threads, options.seconds, options.repeats)
            yield {**base, "threads": threads, "losses": losses, "blocks": blocks}
    except WorkerError as error:
        yield {**base, "failed": str(error)}


@dataclass(frozen=True)
class Row:
    """One measurement: seconds a step; ratio above 1 where cycnn is faster than the best peer."""

    network: str
    batch: int
    threads: int
    operations: int
    ours: float
    peers: dict[str, float]
    winner: str
    ratio: report.Quartiles  # over the rounds

    @property
    def theirs(self) -> float:
        return self.peers.get(self.winner, math.nan)

    @property
    def name(self) -> str:
        return f"{self.network}, {self.batch}"


def row(measurement: Measurement) -> Row:
    (_, ours), *others = measurement["blocks"].items()
    peers = {report.short(name): blocks for name, blocks in others}
    seconds = {name: statistics.median(blocks) for name, blocks in peers.items()}
    winner = min(seconds, key=seconds.__getitem__, default="none")
    return Row(
        measurement["network"],
        measurement["batch"],
        measurement["threads"],
        measurement["operations"],
        statistics.median(ours),
        seconds,
        winner,
        ratios(ours, peers.get(winner, [])),
    )


def key(measurement: Measurement) -> tuple[str, int]:
    return measurement["network"], measurement["batch"]


def line(measurement: Measurement) -> str:
    head = f"{measurement['network']:16} batch {measurement['batch']:<4}"
    if "failed" in measurement:
        return f"{head} FAILED: {measurement['failed']}"
    r = row(measurement)
    return (
        f"{head} {r.threads} thr  {milliseconds(r.ours)} against {milliseconds(r.theirs)} ms  "
        f"{times(r.ratio[1])} ({spread(r.ratio)})  {r.operations / r.ours / 1e9:.0f} GFLOP/s  "
        f"[{r.winner}]"
    )


def tables(data: Data) -> str:
    return report.sections(report.settings(data), report.failed(data, line), summary(data))


def summary(data: Data) -> str:
    rows = [row(m) for m in report.good(data)]
    if not rows:
        return ""
    parts = [headline(data)]
    for threads in sorted({r.threads for r in rows}):
        here = [r for r in rows if r.threads == threads]
        parts.append(_details(f"PyTorch's ways, {threads_text(threads)}", here))
    return report.sections(*parts)


def headline(data: Data) -> str:
    """The ratio to the best of PyTorch's ways, and its mean."""
    rows = [row(m) for m in report.good(data)]
    header = [
        "network, batch", "threads", "cycnn, ms", "PyTorch, ms", "ratio", "quartiles",
        "cycnn, GFLOP/s", "PyTorch, GFLOP/s",
    ]  # fmt: skip
    cells = [
        [
            r.name, str(r.threads), milliseconds(r.ours), f"{milliseconds(r.theirs)} ({r.winner})",
            times(r.ratio[1]), spread(r.ratio), *_rates(r),
        ]
        for r in rows
    ]  # fmt: skip
    for threads in sorted({r.threads for r in rows}):
        here = [r.ratio[1] for r in rows if r.threads == threads]
        mean = times(geometric_mean(here))
        cells.append(["geometric mean", str(threads), "", "", mean, "", "", ""])
    return "## Training step against the best of PyTorch\n\n" + table(header, cells)


def _rates(r: Row) -> list[str]:
    return [
        "-" if math.isnan(seconds) else f"{r.operations / seconds / 1e9:.0f}"
        for seconds in (r.ours, r.theirs)
    ]


def _details(title: str, rows: Sequence[Row]) -> str:
    """Milliseconds of every memory format and allocator, apart."""
    names = list(dict.fromkeys(name for r in rows for name in r.peers))
    cells = [
        [r.name, milliseconds(r.ours), *(milliseconds(r.peers.get(n, math.nan)) for n in names)]
        for r in rows
    ]
    return f"## {title}\n\nMilliseconds.\n\n" + table(["network, batch", "cycnn", *names], cells)
