"""compare.py passes: what moves memory rather than computes, held against a plain copy."""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import report
from report import milliseconds, table
from session import Data, Measurement, add_options, check_threads, entries, session
from timing import take_turns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, repeats=7, seconds=0.1)


check_arguments = check_threads


def run(options: argparse.Namespace) -> Data:
    method = f"median of {options.repeats} blocks of {options.seconds} s, all passes in turn"
    with session("passes", options, method, entries(options)[:1]) as run_:
        for threads in options.threads:
            sizes = run_.ours.call("passes", threads)
            copied = [run_.ours.call("copy", threads)]
            blocks = {
                name: partial(run_.ours.call, "block", name, threads, options.seconds, 0.02)
                for name in sizes
            }
            given = take_turns(blocks, options.repeats)
            copied.append(run_.ours.call("copy", threads))
            for name, size in sizes.items():
                measured = {"pass": name, "threads": threads, "bytes": size, "copy": max(copied)}
                run_.record({**measured, "blocks": given[name]}, line)
    return run_.data


def key(measurement: Measurement) -> str:
    name: str = measurement["pass"]
    return name


def bandwidth(measurement: Measurement) -> float:
    """GB/s."""
    return float(measurement["bytes"] / statistics.median(measurement["blocks"]) / 1e9)


def line(measurement: Measurement) -> str:
    rate = bandwidth(measurement)
    share = f"{rate:.1f} GB/s, {rate / measurement['copy']:.0%} of a copy"
    return f"{measurement['pass']:34} {report.threads_text(measurement['threads'])}: {share}"


def tables(data: Data) -> str:
    return report.sections(report.settings(data), summary(data))


def summary(data: Data) -> str:
    return report.sections(*(_table(data, n) for n in report.threads_of(report.good(data))))


def _table(data: Data, threads: int) -> str:
    measured = [m for m in report.good(data) if m["threads"] == threads]
    cells = [
        [
            m["pass"], f"{m['bytes'] / 2**20:.1f}", milliseconds(statistics.median(m["blocks"])),
            f"{bandwidth(m):.1f}", f"{bandwidth(m) / m['copy']:.0%}",
        ]
        for m in measured
    ]  # fmt: skip
    header = ["", "MiB moved", "ms", "GB/s", "share of a copy"]
    title = f"Passes over memory, {report.threads_text(threads)}: a copy {measured[0]['copy']:.1f}"
    return f"## {title} GB/s\n\n{table(header, cells)}"
