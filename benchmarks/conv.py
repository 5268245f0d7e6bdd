"""compare.py conv: the convolution kernels against PyTorch's, or against each other (--auto)."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Iterator

import algorithm_tables
import conv_tables
from check import check
from session import (
    Data,
    Measurement,
    Session,
    add_options,
    check_threads,
    entries,
    session,
)
from shapes import BATCHES, DIRECTIONS, NETWORKS, ConvShape, layer_shapes
from timing import Contestant, WorkerError, in_turn, promising

Task = tuple[ConvShape, tuple[str, ...], str, str]
ALGORITHMS = ("auto", "direct", "winograd4", "winograd2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_options(parser, repeats=7, seconds=0.5)
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME",
        help=f"of {', '.join(NETWORKS)}; default: all")  # fmt: skip
    add("--only", default=",".join(DIRECTIONS), help="directions, as in forward,input,weight")
    add("--batches", nargs="+", choices=BATCHES, default=["train"],
        help="batch sizes; gradients are measured for train only")  # fmt: skip
    add("--shapes", type=re.compile, default=re.compile(""), metavar="REGEX",
        help="only shapes whose name matches, such as 'dw3x3' or '56x56x64 3x3 64$'")  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--algorithm", choices=ALGORITHMS, default="auto",
        help="of cycnn; shapes that it cannot compute are left out")  # fmt: skip
    how.add_argument("--auto", action="store_true",
        help="cycnn's algorithms against each other: does auto choose well?")  # fmt: skip
    add("--cold", action="store_true",
        help="put other data into the caches before each step; else a step finds what the one "
        "before left there")  # fmt: skip
    add("--list", action="store_true", help="print the shapes and stop")


def check_arguments(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    check_threads(parser, options)
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(DIRECTIONS):
        parser.error(f"--only: {', '.join(unknown)} not among {', '.join(DIRECTIONS)}")


def run(options: argparse.Namespace) -> Data:
    todo = list(tasks(options))
    if options.list:
        print(*dict.fromkeys(str(shape) for shape, *_ in todo), sep="\n")
        raise SystemExit
    method = f"median of {options.repeats} blocks of {options.seconds} s"
    if options.auto:
        command, line, measure = "algorithms", algorithm_tables.line, _against_each_other
        entered = entries(options)[:1]
    else:
        command, line, measure = "conv", conv_tables.line, _against_peers
        entered = entries(options)
        method += f"; algorithm={options.algorithm}"
    if options.cold:
        method += "; other data in the caches before each step"
    with session(command, options, method, entered) as run_:
        print(f"{len(todo)} convolutions, {method}", flush=True)
        for task in todo:
            for measurement in _measure(task, run_, options, measure):
                run_.record(measurement, line)
    return run_.data


def tasks(options: argparse.Namespace) -> Iterator[Task]:
    """Each shape and direction once, whatever the number of networks that have it."""
    for batch in options.batches:
        for shape, networks in layer_shapes(options.networks, batch).items():
            if options.shapes.search(str(shape)):
                for direction in options.only:
                    if batch == "train" or direction == "forward":
                        yield shape, networks, direction, batch


Blocks = dict[str, list[float]]
Measure = Callable[[list[Contestant], int, Session, argparse.Namespace], Blocks]


def _measure(
    task: Task, run_: Session, options: argparse.Namespace, measure: Measure
) -> Iterator[Measurement]:
    """Time one task for each number of threads; a failure is a measurement too."""
    shape, networks, direction, batch = task
    base = {
        "shape": dataclasses.asdict(shape), "networks": networks, "direction": direction,
        "batch": batch,
    }  # fmt: skip
    try:
        results, contestants = {}, []
        names = ALGORITHMS if options.auto else (options.algorithm,)
        for worker in run_.workers:
            made = worker.call("convolution", shape, direction, max(options.threads), names)
            if not made:
                return  # the algorithm that was asked for cannot compute this shape
            for way, result in made.items():
                contestants.append(Contestant(worker, way))
                results[contestants[-1].name] = result
        check(shape, direction, results)
        for threads in options.threads:
            peak = run_.ours.call("peak", threads)
            blocks = measure(contestants, threads, run_, options)
            yield {**base, "threads": threads, "peak": peak, "blocks": blocks}
    except WorkerError as error:
        yield {**base, "failed": str(error)}


def _against_peers(
    contestants: list[Contestant], threads: int, run_: Session, options: argparse.Namespace
) -> Blocks:
    """cycnn beside those of PyTorch's ways that a short look finds worth it."""
    ours = [c for c in contestants if c.worker is run_.ours]
    peers = [c for c in contestants if c.worker is not run_.ours]
    chosen = ours + promising(peers, threads, options.seconds, options.cold)
    return in_turn(chosen, threads, options.seconds, options.repeats, options.cold)


def _against_each_other(
    contestants: list[Contestant], threads: int, run_: Session, options: argparse.Namespace
) -> Blocks:
    return in_turn(contestants, threads, options.seconds, options.repeats, options.cold)
