"""Compare cycnn with the libraries its users would take instead.

    python benchmarks/compare.py train --json train.json --markdown train.md
    python benchmarks/compare.py report train.json
    python benchmarks/compare.py all --isa avx2

README.md beside this file says how the figures come about.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import algorithm_tables
import coldstart
import conv
import conv_tables
import memory
import passes
import plot
import readme
import report
import scaling
import train
from session import Data, add_files, read, write, write_json

MEASURING: dict[str, tuple[ModuleType, str]] = {
    "conv": (conv, "convolution kernels against PyTorch's, or against each other"),
    "train": (train, "one training step of whole networks"),
    "scaling": (scaling, "steps on 1 to N threads; a layer of 16 to 256 kernels"),
    "memory": (memory, "peak memory and page faults of a training step"),
    "coldstart": (coldstart, "from a fresh process to the first result; size on disk"),
    "passes": (passes, "passes over memory, as shares of a plain copy"),
}
# What shows a run, by the command in its file.
SHOWN = {
    "conv": conv_tables,
    "algorithms": algorithm_tables,
    "train": train,
    "scaling": scaling,
    "memory": memory,
    "coldstart": coldstart,
    "passes": passes,
}
# The files in results/, and the arguments that they come from.
SHORT = ["--seconds", "0.1", "--repeats", "5"]
ALL = {
    "conv-direct": ["conv", "--algorithm", "direct", "--allocators", "tuned", *SHORT],
    "conv-cold": ["conv", "--cold", "--allocators", "tuned", *SHORT],
    "conv-auto": ["conv", "--shapes", " 3x3 ", "--allocators", "tuned", *SHORT],
    # The layers that more than one of them computes.
    "algorithms": ["conv", "--auto", "--shapes", " 3x3 ", "--batches", "train", "predict", "one",
                   *SHORT],
    "train": ["train"],
    "scaling": ["scaling", "--allocators", "tuned", "--seconds", "0.1"],
    "memory": ["memory", "--threads", "1", "--repeats", "1"],
    "coldstart": ["coldstart"],
    "passes": ["passes"],
}  # fmt: skip
FILES = ("--json", "--markdown", "--plot")


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {}
    for name, (module, text) in MEASURING.items():
        parsers[name] = commands.add_parser(name, help=text)
        module.add_arguments(parsers[name])
        add_files(parsers[name])
    show = commands.add_parser("report", help="tables of one or more runs, from their JSON files")
    show.add_argument("files", nargs="+", type=Path, metavar="FILE")
    add_files(show)
    for command in (parsers["conv"], parsers["scaling"], show):
        command.add_argument("--plot", type=Path, metavar="FILE.svg",
            help="draw the share of the peak of each convolution, or what a layer of so many "
            "kernels achieves (scaling); needs matplotlib")  # fmt: skip
    renew = commands.add_parser("readme", help="results/*.json into the tables of the READMEs")
    every = commands.add_parser("all", help="measure everything into results/, then readme; "
        "further options go to every run")  # fmt: skip
    every.add_argument("--runs", nargs="+", choices=ALL, default=list(ALL))
    for command in (renew, every):
        command.add_argument("--plots", action="store_true", help="draw too; needs matplotlib")
    options, rest = parser.parse_known_args(given)
    if options.command == "all":
        options.each = {
            name: arguments([*ALL[name], *rest, "--json", str(readme.RESULTS / f"{name}.json")])
            for name in options.runs
        }
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command in MEASURING:
        MEASURING[options.command][0].check_arguments(parser, options)
        options.line = spelled(given)
    return options


def spelled(given: Sequence[str]) -> str:
    """A run as one would type it, without the files that it writes."""
    kept = [
        word
        for before, word in itertools.pairwise(["", *given])
        if word.split("=")[0] not in FILES and before not in FILES
    ]
    return f"python benchmarks/compare.py {shlex.join(kept)}"


def reported(files: Sequence[Path]) -> list[Data]:
    """Runs of the same subcommand as one."""
    runs: dict[str, list[Data]] = {}
    for path in files:
        data = read(path)
        runs.setdefault(data["command"], []).append(data)
    return [report.merge(group, SHOWN[command].key) for command, group in runs.items()]


def execute(options: argparse.Namespace) -> bool:
    """Measure or read, show and write; whether nothing failed."""
    if options.command == "report":
        shown = reported(options.files)
        if len(shown) > 1 and (options.json or options.plot):
            raise SystemExit("report: --json and --plot take files of one subcommand")
        write_json(options.json, shown[0])
    else:
        shown = [MEASURING[options.command][0].run(options)]
    text = "\n\n".join(SHOWN[data["command"]].tables(data) for data in shown)
    write(options.markdown, text)
    print(text)
    if getattr(options, "plot", None):
        plot.draw(shown[0], options.plot)
    return not any("failed" in m for data in shown for m in data["measurements"])


def main() -> None:
    options = arguments(sys.argv[1:])
    fine = True
    if options.command == "all":
        for each in options.each.values():
            fine &= execute(each)
    if options.command in ("all", "readme"):
        readme.rewrite(SHOWN, options.plots)
    else:
        fine = execute(options)
    sys.exit(not fine)


if __name__ == "__main__":
    main()
