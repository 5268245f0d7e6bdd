"""compare.py coldstart: from a fresh process to the first result, and the size on disk."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import report
from networks import STEPS
from report import table, times
from session import Data, Entry, Measurement, add_options, check_threads, entries, session
from timing import quartiles
from train import add_networks

STAGES = ("numpy", "import", "model", "first")
SCRIPT = str(Path(__file__).with_name("first_use.py"))
TITLES = {"predict": "first prediction", "train": "first training step"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, repeats=9, what="fresh processes")
    add_networks(parser, default=["LeNet-28"])
    parser.add_argument("--batch", type=int, metavar="N", default=32)
    parser.set_defaults(threads=[1])


check_arguments = check_threads


def run(options: argparse.Namespace) -> Data:
    method = f"median of {options.repeats} fresh processes in turn, after one that is not counted"
    with session("coldstart", options, method) as run_:
        found = [e for e in entries(options) if e.name in run_.data["settings"]["libraries"]]
        run_.data["settings"]["disk"] = {
            worker.name: worker.call("disk") for worker in run_.workers
        }
        for name in options.networks:
            for kind in STEPS:
                for threads in options.threads:
                    run_.record(_measure(kind, name, threads, found, options), line)
    return run_.data


def _measure(
    kind: str, name: str, threads: int, found: list[Entry], options: argparse.Namespace
) -> Measurement:
    base = {"kind": kind, "network": name, "batch": options.batch}
    stages: dict[str, list[dict[str, float]]] = {entry.name: [] for entry in found}
    for turn in range(options.repeats + 1):
        for entry in found[:: 1 if turn % 2 == 0 else -1]:
            try:
                taken = _first_use(entry, kind, name, options.batch, threads)
            except subprocess.CalledProcessError as error:
                return {**base, "failed": f"{entry.name}: {error.stderr.strip()[-200:]}"}
            if turn:  # the first one reads the files from the disk
                stages[entry.name].append(taken)
    return {**base, "threads": threads, "stages": stages}


def _first_use(entry: Entry, kind: str, name: str, batch: int, threads: int) -> dict[str, float]:
    """Seconds of each stage, and of the whole process as its parent sees it."""
    command = [sys.executable, SCRIPT, entry.library, kind, name, str(batch), str(threads)]
    start = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, **entry.environment}, capture_output=True, text=True, check=True
    )
    taken: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**taken, "process": time.perf_counter() - start}


def key(measurement: Measurement) -> tuple[str, str, int]:
    return measurement["kind"], measurement["network"], measurement["batch"]


def total(taken: dict[str, float]) -> float:
    """From the first line of the program to the first result."""
    return sum(taken[stage] for stage in STAGES)


def line(measurement: Measurement) -> str:
    head = f"{TITLES[measurement['kind']]:20} {measurement['network']}, {measurement['batch']}"
    if "failed" in measurement:
        return f"{head} FAILED: {measurement['failed']}"
    parts = [
        f"{name} {statistics.median(map(total, processes)):.2f} s"
        for name, processes in measurement["stages"].items()
    ]
    return f"{head} {'; '.join(parts)}"


def tables(data: Data) -> str:
    return report.sections(report.settings(data), report.failed(data, line), summary(data))


def summary(data: Data) -> str:
    parts = [_stages(m) for m in report.good(data)]
    return report.sections(*parts, _disk(data)) if parts else ""


def _stages(measurement: Measurement) -> str:
    cells = []
    first = None
    for name, processes in measurement["stages"].items():
        whole = [total(process) for process in processes]
        low, middle, high = quartiles(whole)
        first = first or middle
        cells.append([
            name, *(f"{statistics.median(p[stage] for p in processes):.3f}" for stage in STAGES),
            f"{middle:.3f}", f"{low:.3f}-{high:.3f}",
            f"{statistics.median(p['process'] for p in processes):.3f}", times(middle / first),
        ])  # fmt: skip
    header = [
        "", "import numpy", "import the library", "make the model", TITLES[measurement["kind"]],
        "sum", "quartiles", "whole process", "sum / cycnn's",
    ]  # fmt: skip
    title = (
        f"To the {TITLES[measurement['kind']]} of {measurement['network']}, batch "
        f"{measurement['batch']}, {report.threads_text(measurement['threads'])}"
    )
    return f"## {title}\n\nSeconds.\n\n{table(header, cells)}"


def _disk(data: Data) -> str:
    disk = data["settings"]["disk"]
    seen: dict[str, dict[str, int]] = {}
    for name, sizes in disk.items():
        seen.setdefault(name.split(",")[0], sizes)
    cells = [
        [name, *(f"{sizes[what] / 2**20:.1f}" for what in ("package", "with dependencies"))]
        for name, sizes in seen.items()
    ]
    return "## Installed size\n\nMiB.\n\n" + table(["", "package", "with dependencies"], cells)
