"""compare.py memory: what a training step takes from the system, cycnn and PyTorch."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator

import report
from footprint import WARM_UP
from networks import NETWORKS
from report import geometric_mean, mebibytes, table, times
from session import Data, Measurement, Session, add_options, check_threads, entries, session
from timing import Worker, WorkerError
from train import add_networks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, repeats=3, what="fresh processes")
    add_networks(parser)
    parser.add_argument("--batch", type=int, metavar="N", help="instead of each network's own")
    parser.add_argument("--steps", type=int, default=50, help="after the first three")


check_arguments = check_threads


def run(options: argparse.Namespace) -> Data:
    method = (
        f"median of {options.repeats} fresh processes; peak of the first {WARM_UP} steps, faults "
        f"and growth of {options.steps} more"
    )
    with session("memory", options, method) as run_:
        for name in options.networks:
            for measurement in _measure(name, run_, options):
                run_.record(measurement, line)
    return run_.data


def _measure(name: str, run_: Session, options: argparse.Namespace) -> Iterator[Measurement]:
    """Every way of every library in processes that do nothing else, in turn."""
    batch = options.batch or NETWORKS[name].batch
    base = {"network": name, "batch": batch}
    environments = {entry.name: entry for entry in entries(options)}
    try:
        entered = [
            (environments[worker.name], way)
            for worker in run_.workers
            for way in worker.call("ways", name)
        ]
        for threads in options.threads:
            usage: dict[str, list[dict[str, float]]] = {}
            for _ in range(options.repeats):
                for entry, way in entered:
                    with Worker(entry.name, entry.library, entry.environment) as fresh:
                        used = fresh.call("memory", name, batch, way, threads, options.steps)
                    usage.setdefault(f"{entry.name}, {way}", []).append(used)
            yield {**base, "threads": threads, "usage": usage}
    except WorkerError as error:
        yield {**base, "failed": str(error)}


def key(measurement: Measurement) -> tuple[str, int]:
    return measurement["network"], measurement["batch"]


def medians(measurement: Measurement) -> dict[str, dict[str, float]]:
    """Bytes before the first step, of the peak above them and of the growth, and faults a step."""
    return {
        report.short(name): {
            what: statistics.median(process[what] for process in processes) for what in processes[0]
        }
        for name, processes in measurement["usage"].items()
    }


def best_of_peers(usage: dict[str, dict[str, float]]) -> str | None:
    """The way of PyTorch that has the lowest peak."""
    _, *peers = usage
    return min(peers, key=lambda name: usage[name]["peak"], default=None)


def line(measurement: Measurement) -> str:
    head = f"{measurement['network']:16} batch {measurement['batch']:<4}"
    if "failed" in measurement:
        return f"{head} FAILED: {measurement['failed']}"
    parts = [
        f"{name} {mebibytes(used['peak'])} MiB, {used['faults']:.0f} faults a step"
        for name, used in medians(measurement).items()
    ]
    return f"{head} {measurement['threads']} thr  {'; '.join(parts)}"


def tables(data: Data) -> str:
    parts = [report.settings(data), report.failed(data, line), summary(data)]
    good = report.good(data)
    for threads in report.threads_of(good):
        here = [m for m in good if m["threads"] == threads]
        parts.append(f"## Every way, {report.threads_text(threads)}\n\n{_every_way(here)}")
    return report.sections(*parts)


def summary(data: Data) -> str:
    cells, shares = [], []
    for m in report.good(data):
        usage = medians(m)
        ours, *_ = usage.values()
        winner = best_of_peers(usage)
        theirs = usage[winner] if winner else dict.fromkeys(ours, float("nan"))
        share = theirs["peak"] / ours["peak"]
        shares.append(share)
        cells.append([
            f"{m['network']}, {m['batch']}", str(m["threads"]),
            mebibytes(ours["peak"]), f"{mebibytes(theirs['peak'])} ({winner})", times(share),
            f"{ours['faults']:.0f}", f"{theirs['faults']:.0f}",
            mebibytes(ours["growth"]), mebibytes(theirs["growth"]),
        ])  # fmt: skip
    if not cells:
        return ""
    cells.append(["geometric mean", "", "", "", times(geometric_mean(shares)), "", "", "", ""])
    header = [
        "network, batch", "threads", "cycnn, peak MiB", "PyTorch, peak MiB", "PyTorch / cycnn",
        "cycnn, faults a step", "PyTorch, faults a step", "cycnn, growth MiB",
        "PyTorch, growth MiB",
    ]  # fmt: skip
    return "## Peak memory of a training step\n\n" + table(header, cells)


def _every_way(measurements: list[Measurement]) -> str:
    header = ["network, batch", "way", "before, MiB", "peak above, MiB", "faults a step", "growth"]
    cells = [
        [
            f"{m['network']}, {m['batch']}", name, mebibytes(used["before"]),
            mebibytes(used["peak"]), f"{used['faults']:.0f}", mebibytes(used["growth"]),
        ]
        for m in measurements
        for name, used in medians(m).items()
    ]  # fmt: skip
    return table(header, cells)
