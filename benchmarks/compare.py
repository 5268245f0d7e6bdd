"""Compare cycnn with the libraries its users would take instead.

    python benchmarks/compare.py conv --threads 1 2 --json conv.json --markdown conv.md
    python benchmarks/compare.py report conv.json

README.md beside this file says how the figures come about.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
import report
from check import check
from shapes import BATCHES, DIRECTIONS, NETWORKS, ConvShape, layer_shapes
from timing import Contestant, Worker, WorkerError, promising, take_turns

Task = tuple[ConvShape, tuple[str, ...], str]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    conv = commands.add_parser("conv", help="direct convolution kernels against PyTorch's")
    add = conv.add_argument
    add("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    add("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME",
        help=f"of {', '.join(NETWORKS)}; default: all")  # fmt: skip
    add("--only", default=",".join(DIRECTIONS), help="directions, as in forward,input,weight")
    add("--batches", nargs="+", choices=BATCHES, default=["train"],
        help="batch sizes; gradients are measured for train only")  # fmt: skip
    add("--shapes", type=re.compile, default=re.compile(""), metavar="REGEX",
        help="only shapes whose name matches, such as 'dw3x3' or '56x56x64 3x3 64$'")  # fmt: skip
    add("--repeats", type=int, default=7, help="blocks of each contestant")
    add("--seconds", type=float, default=0.5, help="length of a block")
    add("--allocators", nargs="+", choices=("default", "tuned"), default=["default", "tuned"],
        help="of PyTorch: glibc's as it is, and keeping the blocks that were freed")  # fmt: skip
    add("--isa", choices=(*machine.PEER_ISA, "neon", "portable"), help="of both sides")
    add("--peer-isa", choices=machine.PEER_ISA, help="of PyTorch alone")
    add("--list", action="store_true", help="print the shapes and stop")
    show = commands.add_parser("report", help="tables of one or more runs, from their JSON files")
    show.add_argument("files", nargs="+", type=Path, metavar="FILE")
    for command in (conv, show):
        command.add_argument("--json", type=Path, metavar="FILE", help="write the measurements")
        command.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    options = parser.parse_args()
    if options.command == "conv":
        options.only = options.only.split(",")
        if unknown := set(options.only) - set(DIRECTIONS):
            parser.error(f"--only: {', '.join(unknown)} not among {', '.join(DIRECTIONS)}")
        if max(options.threads) > machine.processors():
            parser.error(f"--threads: this process may use {machine.processors()} processors")
    return options


def tasks(options: argparse.Namespace) -> Iterator[Task]:
    """Each shape and direction once, whatever the number of networks that have it."""
    for batch in options.batches:
        for shape, networks in layer_shapes(options.networks, batch).items():
            if options.shapes.search(str(shape)):
                for direction in options.only:
                    if batch == "train" or direction == "forward":
                        yield shape, networks, direction


def start_workers(
    options: argparse.Namespace, stack: contextlib.ExitStack, settings: dict[str, Any]
) -> list[Worker]:
    """Start cycnn and PyTorch, the latter once per allocator; note what is missing."""
    peer_isa = options.peer_isa or (options.isa if options.isa in machine.PEER_ISA else None)
    wanted = [("cycnn", "cycnn", machine.our_environment(options.isa))]
    for allocator in options.allocators:
        environment = machine.peer_environment(peer_isa)
        if allocator == "tuned":
            environment |= machine.TUNED_ALLOCATOR
        wanted.append((f"torch, {allocator} allocator", "torch", environment))
    workers = []
    for name, library, environment in wanted:
        worker = stack.enter_context(Worker(name, library, environment))
        try:
            about = worker.call("settings")
        except WorkerError as error:
            if library == "cycnn":
                raise SystemExit(str(error)) from error
            settings["missing"].append(f"{error} (pip install torch==2.13.0)")
            print("missing peer", settings["missing"][-1])
            continue
        about["environment"] = " ".join(f"{k}={v}" for k, v in environment.items()) or "inherited"
        settings["libraries"][name] = about
        workers.append(worker)
    return workers


def measure(
    task: Task, workers: list[Worker], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Time one task for each number of threads; a failure is a measurement too."""
    shape, networks, direction = task
    base = {"shape": dataclasses.asdict(shape), "networks": networks, "direction": direction}
    try:
        results, contestants = {}, []
        for worker in workers:
            for variant, result in worker.call(
                "prepare", shape, direction, max(options.threads)
            ).items():
                contestants.append(Contestant(worker, variant))
                results[contestants[-1].name] = result
        check(shape, direction, results)
        for threads in options.threads:
            ours = [c for c in contestants if c.worker is workers[0]]
            peers = [c for c in contestants if c.worker is not workers[0]]
            peak = workers[0].call("peak", threads)
            chosen = ours + promising(peers, threads, options.seconds)
            blocks = take_turns(chosen, threads, options.seconds, options.repeats)
            yield {**base, "threads": threads, "peak": peak, "blocks": blocks}
    except WorkerError as error:
        yield {**base, "failed": str(error)}


def conv(options: argparse.Namespace) -> report.Data:
    todo = list(tasks(options))
    if options.list:
        print(*dict.fromkeys(str(shape) for shape, *_ in todo), sep="\n")
        raise SystemExit
    settings: dict[str, Any] = {
        "machine": machine.describe(),
        "method": f"median of {options.repeats} blocks of {options.seconds} s",
        "libraries": {},
        "missing": [],
    }
    data: report.Data = {"settings": settings, "measurements": []}
    with contextlib.ExitStack() as stack:
        workers = start_workers(options, stack, settings)
        settings["clock"] = workers[0].call("clock")
        print(f"{len(todo)} convolutions, {settings['method']}", flush=True)
        for count, task in enumerate(todo, 1):
            for measurement in measure(task, workers, options):
                data["measurements"].append(measurement)
                print(f"{count:4}", report.line(measurement), flush=True)
            save(options.json, json.dumps(data, indent=1))
    return data


def save(path: Path | None, text: str) -> None:
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    options = arguments()
    if options.command == "conv":
        data = conv(options)
    else:
        data = report.merge([json.loads(path.read_text()) for path in options.files])
        save(options.json, json.dumps(data, indent=1))
    text = report.markdown(data)
    save(options.markdown, text)
    print(text)
    if any("failed" in measurement for measurement in data["measurements"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
