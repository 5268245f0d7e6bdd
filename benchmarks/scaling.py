"""compare.py scaling: steps of whole networks on 1 to N threads; a layer of 16 to 256 kernels."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from functools import partial

import machine
import report
from check import check
from networks import NETWORKS, STEPS
from report import geometric_mean, milliseconds, spread, table, times
from session import (
    Data,
    Measurement,
    Session,
    add_options,
    check_threads,
    contestants,
    entries,
    session,
)
from shapes import ConvShape
from timing import Contestant, WorkerError, in_turn, quartiles, ratios, take_turns
from train import add_networks

SLOWER = 0.95  # n threads should be at least so many times as fast as one
KERNELS = (*range(16, 65, 8), 65, 66, *range(72, 129, 8), *range(144, 257, 16))
NAMES = {"train": "training step", "predict": "prediction"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, repeats=9, seconds=0.2)
    add_networks(parser)
    add = parser.add_argument
    add("--batches", type=int, nargs="+", metavar="N",
        help="default: powers of two up to that of each network's training step")  # fmt: skip
    add("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    add("--kernels", type=int, nargs="*", default=list(KERNELS), metavar="K",
        help="numbers of kernels of the one layer; none: leave it out")  # fmt: skip
    add("--alone", action="store_true", help="without PyTorch")
    parser.set_defaults(threads=list(range(1, machine.processors() + 1)))


def check_arguments(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    check_threads(parser, options)
    if 1 not in options.threads:
        parser.error("--threads: 1 is what the others are compared with")


def run(options: argparse.Namespace) -> Data:
    method = f"median of {options.repeats} blocks of {options.seconds} s or one step"
    entered = entries(options)[: 1 if options.alone else None]
    with session("scaling", options, method, entered) as run_:
        for name in options.networks:
            for batch in options.batches or _powers_of_two(NETWORKS[name].batch):
                for kind in options.steps:
                    run_.record(_step(kind, name, batch, run_, options), line)
        for measurement in _layers(run_, options):
            run_.record(measurement, line)
    return run_.data


def _powers_of_two(most: int) -> list[int]:
    return [1 << exponent for exponent in range(most.bit_length())]


def _step(
    kind: str, name: str, batch: int, run_: Session, options: argparse.Namespace
) -> Measurement:
    """One step on all numbers of threads in turn: cycnn's, and that of PyTorch's fastest way."""
    base = {"kind": kind, "network": name, "batch": batch}
    try:
        entered = contestants(run_.workers, "step", kind, name, batch, max(options.threads))
        ours, *peers = entered
        chosen = [ours, *_fastest(peers, max(options.threads), options.seconds)]
        blocks = {
            (c.name, n): partial(c.block, n, options.seconds)
            for c in chosen
            for n in options.threads
        }
        given = take_turns(blocks, options.repeats)
    except WorkerError as error:
        return {**base, "failed": str(error)}
    by_threads = {c.name: {str(n): given[c.name, n] for n in options.threads} for c in chosen}
    return {**base, "blocks": by_threads}


def _fastest(peers: Sequence[Contestant], threads: int, seconds: float) -> list[Contestant]:
    look = {peer: peer.block(threads, seconds) for peer in peers}
    return [min(look, key=look.__getitem__)] if look else []


def _layers(run_: Session, options: argparse.Namespace) -> Iterator[Measurement]:
    """The forward pass of one layer on one thread; all numbers of kernels take turns."""
    for worker in run_.workers:
        worker.call("clear", 1)
    chosen, peaks = {}, {}
    for count in options.kernels:
        shape = ConvShape(8, 28, 28, 64, count)
        try:
            chosen[shape] = _ready(shape, run_, options)
        except WorkerError as error:
            yield {"kind": "kernels", "shape": dataclasses.asdict(shape), "failed": str(error)}
        peaks[shape] = run_.ours.call("peak", 1)
    every = [contestant for contestants_ in chosen.values() for contestant in contestants_]
    blocks = in_turn(every, 1, options.seconds, options.repeats)
    for shape, entered in chosen.items():
        given = {c.name.removesuffix(f", {shape.K}"): blocks[c.name] for c in entered}
        base = {"kind": "kernels", "shape": dataclasses.asdict(shape)}
        yield {**base, "peak": peaks[shape], "blocks": given}


def _ready(shape: ConvShape, run_: Session, options: argparse.Namespace) -> list[Contestant]:
    """cycnn's algorithms and the fastest of PyTorch's ways, which give the same."""
    ours, peers, results = [], [], {}
    for worker in run_.workers:
        for way, result in worker.call("layer", shape, ("auto", "direct")).items():
            contestant = Contestant(worker, f"{way}, {shape.K}")
            (ours if worker is run_.ours else peers).append(contestant)
            results[contestant.name] = result
    check(shape, "forward", results)
    return [*ours, *_fastest(peers, 1, options.seconds)]


def key(measurement: Measurement) -> tuple[str, str, int]:
    if measurement["kind"] == "kernels":
        return "kernels", "", measurement["shape"]["K"]
    return measurement["kind"], measurement["network"], measurement["batch"]


def speedups(blocks: dict[str, list[float]]) -> dict[int, report.Quartiles]:
    """Quartiles of the speed of n threads over that of one, of the same round."""
    return {int(n): ratios(b, blocks["1"]) for n, b in blocks.items() if n != "1"}


def line(measurement: Measurement) -> str:
    kind, name, size = key(measurement)
    head = f"{size} kernels" if kind == "kernels" else f"{NAMES[kind]} {name} batch {size}"
    if "failed" in measurement:
        return f"{head:38} FAILED: {measurement['failed']}"
    if kind == "kernels":
        operations = ConvShape(**measurement["shape"]).operations
        parts = [
            f"{name} {operations / statistics.median(b) / 1e9:.0f} GFLOP/s"
            for name, b in measurement["blocks"].items()
        ]
    else:
        parts = [_text(name, blocks) for name, blocks in measurement["blocks"].items()]
    return f"{head:38} {'; '.join(parts)}"


def _text(name: str, blocks: dict[str, list[float]]) -> str:
    faster = ", ".join(f"{n} thr {times(q[1])}" for n, q in speedups(blocks).items())
    return f"{name} {milliseconds(statistics.median(blocks['1']))} ms, {faster or '1 thr only'}"


def tables(data: Data) -> str:
    parts = [report.settings(data), report.failed(data, line), summary(data)]
    steps = [m for m in report.good(data) if m["kind"] != "kernels"]
    for kind in STEPS:
        if here := [m for m in steps if m["kind"] == kind]:
            parts.append(f"## {NAMES[kind].capitalize()}\n\n{_step_table(here)}")
    return report.sections(*parts)


def summary(data: Data) -> str:
    """Where more threads are slower than one, the mean speed-ups, and the layer's table."""
    steps = [m for m in report.good(data) if m["kind"] != "kernels"]
    layers = [m for m in report.good(data) if m["kind"] == "kernels"]
    parts = []
    if any(speedups(_ours(m)) for m in steps):
        parts += [_means(steps), _slower(steps)]
    if layers:
        parts.append(_kernel_table(layers))
    return report.sections(*parts)


def _ours(measurement: Measurement) -> dict[str, list[float]]:
    blocks: dict[str, list[float]] = measurement["blocks"]["cycnn, channels last"]
    return blocks


def _slower(steps: Sequence[Measurement]) -> str:
    found = [
        (quartiles_[1], f"{n} threads, {NAMES[m['kind']]}: {m['network']}, batch {m['batch']}")
        for m in steps
        for n, quartiles_ in speedups(_ours(m)).items()
        if quartiles_[1] < SLOWER
    ]
    lines = [f"{ratio:.2f}x {text}" for ratio, text in sorted(found)]
    return report.bullets(f"cycnn below {SLOWER}x of one thread: {len(lines)}", lines)


def _means(steps: Sequence[Measurement]) -> str:
    cells = []
    for kind in dict.fromkeys(m["kind"] for m in steps):
        here = [m for m in steps if m["kind"] == kind]
        for n in sorted({n for m in here for n in speedups(_ours(m))}):
            ours = [speedups(_ours(m))[n][1] for m in here]
            theirs = [
                speedups(blocks)[n][1]
                for m in here
                for name, blocks in m["blocks"].items()
                if name.startswith("torch")
            ]
            cells.append([
                f"{NAMES[kind]}, {n} threads", str(len(here)), times(geometric_mean(ours)),
                times(min(ours)), times(geometric_mean(theirs)),
            ])  # fmt: skip
    header = ["", "sizes", "cycnn, mean", "cycnn, lowest", "PyTorch, mean"]
    return "## Speed over that of one thread\n\n" + table(header, cells)


def _step_table(steps: Sequence[Measurement]) -> str:
    """A row for each network and batch: milliseconds on one thread, then the speed-ups."""
    threads = sorted({n for m in steps for n in speedups(_ours(m))})
    header = ["network, batch"]
    for name in ("cycnn", "PyTorch"):
        header += [f"{name}, ms"]
        for n in threads:
            header += [f"{n} threads", "quartiles"]
    header.append("PyTorch's way")
    cells = []
    for m in steps:
        cell = [f"{m['network']}, {m['batch']}"]
        ways = {"cycnn": "", "torch": "-"}
        for library in ways:
            name, blocks = next(
                ((k, b) for k, b in m["blocks"].items() if k.startswith(library)), ("", None)
            )
            ways[library] = report.short(name)
            if blocks is None:
                cell += ["-"] * (1 + 2 * len(threads))
                continue
            cell.append(milliseconds(statistics.median(blocks["1"])))
            for n in threads:
                faster = speedups(blocks)[n]
                cell += [times(faster[1]), spread(faster)]
        cells.append([*cell, ways["torch"]])
    return table(header, cells)


def _kernel_table(layers: Sequence[Measurement]) -> str:
    cells = []
    peak = quartiles([m["peak"] for m in layers])[1]
    for m in layers:
        shape = ConvShape(**m["shape"])
        rates = [shape.operations / statistics.median(b) / 1e9 for b in m["blocks"].values()]
        auto, direct = rates[:2]
        cells.append([
            str(shape.K), f"{direct:.0f}", f"{direct / peak:.0%}", f"{auto:.0f}",
            *(f"{rate:.0f}" for rate in rates[2:3] or ()),
        ])  # fmt: skip
    first = ConvShape(**layers[0]["shape"])
    text = (
        f"Forward, {first.N}x{first.H}x{first.W}x{first.C}, 3x3, one thread; GFLOP/s. A kernel is "
        "a lane of a vector: numbers that leave lanes of the last vectors empty pay for them."
    )
    header = ["kernels", "direct", "share of peak", "auto"]
    header += ["PyTorch"] * (len(cells[0]) - len(header))
    return f"## Throughput by the number of kernels\n\n{text}\n\n{table(header, cells)}"
