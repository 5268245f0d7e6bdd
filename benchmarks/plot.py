"""Drawings of what was measured (pip install matplotlib)."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import conv_tables
from conv_tables import NAMES, Row
from session import Data
from shapes import DIRECTIONS, ConvShape
from timing import quartiles

OURS, THEIRS = "#0b5fa5", "#c2571a"


def draw(data: Data, path: Path) -> None:
    """Write the drawing that belongs to this run's subcommand, in the format of the file's name."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as error:
        raise SystemExit(f"--plot needs matplotlib (pip install matplotlib): {error}") from error
    mpl.use("agg")
    mpl.rcParams["font.size"] = 8
    mpl.rcParams["svg.hashsalt"] = "cycnn"  # with no date, the same file from the same data
    figure = DRAWINGS[data["command"]](data)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, bbox_inches="tight", metadata=metadata)


def share_of_peak(data: Data) -> Any:
    """A row for each convolution, a column for each direction, on the fewest threads measured."""
    from matplotlib.figure import Figure

    rows = conv_tables.rows_of(data)
    threads = min(r.threads for r in rows)
    rows = [r for r in rows if r.threads == threads]
    names = list(dict.fromkeys(str(r.shape) for r in rows))
    directions = [d for d in DIRECTIONS if any(r.direction == d for r in rows)]
    size = (3 + 2.6 * len(directions), 1 + 0.15 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(directions), sharey=True, squeeze=False)[0]
    for panel, direction in zip(panels, directions, strict=True):
        here = [r for r in rows if r.direction == direction]
        places = [names.index(str(r.shape)) for r in here]
        _dots(panel, here, places)
        panel.set_title(NAMES[direction])
        panel.set_xlabel("share of the FMA peak")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    isa = data["settings"]["libraries"]["cycnn"]["isa"]
    title = f"{isa}, threads: {threads}"
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, title=title
    )
    return figure


def _dots(panel: Any, rows: list[Row], places: list[int]) -> None:
    shares = {"cycnn": [r.share for r in rows], "PyTorch": [r.theirs / r.peak for r in rows]}
    panel.axvline(1.0, color="0.6", linewidth=0.8)
    panel.hlines(places, shares["cycnn"], shares["PyTorch"], color="0.85", linewidth=1.5, zorder=1)
    panel.scatter(shares["PyTorch"], places, 14, THEIRS, marker="D", label="PyTorch", zorder=2)
    panel.scatter(shares["cycnn"], places, 16, OURS, label="cycnn", zorder=3)
    panel.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    panel.set_xlim(left=0)
    panel.grid(axis="y", color="0.95")


def kernels(data: Data) -> Any:
    """Throughput of one layer by its number of kernels."""
    from matplotlib.figure import Figure

    layers = [m for m in data["measurements"] if m["kind"] == "kernels" and "failed" not in m]
    shapes = [ConvShape(**m["shape"]) for m in layers]
    figure = Figure(figsize=(7, 3.5))
    panel = figure.subplots()
    colours = {"cycnn, direct": OURS, "cycnn, auto": "#58a6d6", "PyTorch": THEIRS}
    found: dict[str, list[tuple[int, float]]] = {}
    for m, shape in zip(layers, shapes, strict=True):
        for name, blocks in m["blocks"].items():
            who = name if name.startswith("cycnn") else "PyTorch"
            rate = shape.operations / statistics.median(blocks) / 1e9
            found.setdefault(who, []).append((shape.K, rate))
    for who, points in found.items():
        panel.plot(*zip(*points, strict=True), "o-", markersize=3, label=who, color=colours[who])
    peak = quartiles([m["peak"] for m in layers])[1]
    panel.axhline(peak, color="0.6", linewidth=0.8, label="FMA peak")
    panel.set_xticks(range(0, 257, 16))
    panel.set_xlabel("kernels (3x3, 64 channels, 28x28, one thread)")
    panel.set_ylabel("GFLOP/s")
    panel.set_ylim(bottom=0)
    panel.grid(color="0.92")
    panel.legend()
    return figure


DRAWINGS: dict[str, Callable[[Data], Any]] = {"conv": share_of_peak, "scaling": kernels}
