"""What all subcommands share: their options, the libraries' processes, the record of a run."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from timing import Contestant, Worker, WorkerError

Data = dict[str, Any]  # {"command": name, "settings": {...}, "measurements": [{...}, ...]}
Measurement = dict[str, Any]
ALLOCATORS = ("default", "tuned")


def add_options(
    parser: argparse.ArgumentParser,
    repeats: int,
    seconds: float | None = None,
    what: str = "blocks",
) -> None:
    """The options that every measuring subcommand has."""
    add = parser.add_argument
    add("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    add("--repeats", type=int, default=repeats, help=f"{what} of each contestant")
    if seconds is not None:
        add("--seconds", type=float, default=seconds, help="length of a block")
    add("--allocators", nargs="+", choices=ALLOCATORS, default=list(ALLOCATORS),
        help="of PyTorch: glibc's as it is, and keeping the blocks that were freed")  # fmt: skip
    add("--isa", choices=(*machine.PEER_ISA, "neon", "portable"), help="of both sides")
    add("--peer-isa", choices=machine.PEER_ISA, help="of PyTorch alone")


def add_files(parser: argparse.ArgumentParser) -> None:
    """Where the measurements and the tables go."""
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", help="write the measurements")
    add("--markdown", type=Path, metavar="FILE", help="write the tables")


def check_threads(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if max(options.threads) > machine.processors():
        parser.error(f"--threads: this process may use {machine.processors()} processors")


@dataclass(frozen=True)
class Entry:
    """A library as it enters: its name in the tables, and the environment of its process."""

    name: str
    library: str
    environment: dict[str, str]


def entries(options: argparse.Namespace) -> list[Entry]:
    """cycnn, then PyTorch once per allocator."""
    found = [Entry("cycnn", "cycnn", machine.our_environment(options.isa))]
    peer_isa = options.peer_isa or (options.isa if options.isa in machine.PEER_ISA else None)
    for allocator in options.allocators:
        environment = machine.peer_environment(peer_isa)
        if allocator == "tuned":
            environment |= machine.TUNED_ALLOCATOR
        found.append(Entry(f"torch, {allocator} allocator", "torch", environment))
    return found


@dataclass
class Session:
    """One run of a subcommand; the record is written after each measurement."""

    data: Data
    ours: Worker
    peers: list[Worker]
    file: Path | None

    @property
    def workers(self) -> list[Worker]:
        return [self.ours, *self.peers]

    def record(self, measurement: Measurement, line: Callable[[Measurement], str]) -> None:
        self.data["measurements"].append(measurement)
        print(f"{len(self.data['measurements']):4}", line(measurement), flush=True)
        write_json(self.file, self.data)


@contextlib.contextmanager
def session(
    command: str, options: argparse.Namespace, method: str, entered: list[Entry] | None = None
) -> Iterator[Session]:
    """Start the libraries and note what they are; a missing peer is named."""
    settings: dict[str, Any] = {
        "machine": machine.describe(), "line": options.line, "method": method, "libraries": {},
        "missing": [],
    }  # fmt: skip
    data: Data = {"command": command, "settings": settings, "measurements": []}
    workers = []
    with contextlib.ExitStack() as stack:
        for entry in entered or entries(options):
            worker = stack.enter_context(Worker(entry.name, entry.library, entry.environment))
            try:
                about = worker.call("settings")
            except WorkerError as error:
                if entry.library == "cycnn":
                    raise SystemExit(str(error)) from error
                settings["missing"].append(f"{error} (pip install torch==2.13.0)")
                print("missing peer", settings["missing"][-1])
                continue
            about["environment"] = spelled(entry.environment)
            settings["libraries"][entry.name] = about
            workers.append(worker)
        settings["clock"] = workers[0].call("clock")
        yield Session(data, workers[0], workers[1:], options.json)


def spelled(environment: dict[str, str]) -> str:
    return " ".join(f"{k}={v}" for k, v in environment.items()) or "inherited"


def contestants(workers: list[Worker], method: str, *arguments: Any) -> list[Contestant]:
    """Every way in which these libraries can do what they are asked to make ready."""
    return [Contestant(w, way) for w in workers for way in w.call(method, *arguments)]


def write_json(path: Path | None, data: Data) -> None:
    """The settings in lines, then one measurement a line."""
    if path is None:
        return
    head = json.dumps(
        {key: value for key, value in data.items() if key != "measurements"}, indent=1
    )
    lines = ",\n".join(json.dumps(measurement) for measurement in data["measurements"])
    write(path, f'{head.removesuffix("}").rstrip()},\n "measurements": [\n{lines}\n ]\n}}')


def write(path: Path | None, text: str) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> Data:
    data: Data = json.loads(path.read_text(encoding="utf-8"))
    return data
