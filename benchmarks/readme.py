"""compare.py readme: results/*.json become the tables of the READMEs, between their markers.

A marked part is ``<!-- NAME -->``, anything, ``<!-- /NAME -->``. What has not been measured yet
stays as it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import plot
from session import Data, read, write

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def rewrite(shown: dict[str, ModuleType], drawn: bool) -> None:
    """Write the tables of every result file beside it, and their summaries into the READMEs.

    The files of one processor lie in results/; those of each other, in a folder of its own there,
    make the part "elsewhere".
    """
    found = {path: read(path) for path in sorted(RESULTS.rglob("*.json"))}
    parts: dict[str, list[str]] = {}
    for path, data in found.items():
        command = data["command"]
        write(path.with_suffix(".md"), shown[command].tables(data))
        if drawn and command in plot.DRAWINGS:
            plot.draw(data, path.with_suffix(".svg"))
        name = command if path.parent == RESULTS else "elsewhere"
        parts.setdefault(name, []).append(_part(path, data, shown[command].summary(data)))
    ours = (HERE / "README.md").read_text(encoding="utf-8")
    for name, texts in parts.items():
        ours = replace(ours, name, "\n\n".join(texts))
    write(HERE / "README.md", ours.rstrip("\n"))
    own = [data for path, data in found.items() if path.parent == RESULTS]
    whole = HERE.parent / "README.md"
    text = whole.read_text(encoding="utf-8")
    for command in ("train", "conv"):
        heads = [_headline(d, shown[command]) for d in own if d["command"] == command]
        if heads:
            text = replace(text, command, "\n\n".join(heads))
    write(whole, text.rstrip("\n"))


def replace(text: str, name: str, body: str) -> str:
    """Put `body` between the markers of `name`."""
    marked = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if len(marked.findall(text)) != 1:
        raise SystemExit(f"readme: <!-- {name} --> ... <!-- /{name} --> must stand there once")
    return marked.sub(lambda match: f"{match[1]}\n{body}\n\n{match[2]}", text)


def where(data: Data) -> str:
    """One sentence: the processor, the versions, what is missing."""
    settings = data["settings"]
    libraries = settings["libraries"].values()
    versions = {k: v for about in libraries for k, v in about.items() if k != "environment"}
    isa = settings["libraries"]["cycnn"]["isa"]
    known = {k: v for k, v in versions.items() if "isa" not in k}
    text = ", ".join(f"{name} {version}" for name, version in known.items())
    missing = "".join(f" Missing: {what}." for what in settings["missing"])
    return f"{settings['machine']['cpu']}; cycnn's kernels: {isa}; {text}.{missing}"


def _part(path: Path, data: Data, summary: str) -> str:
    """One result file: where it was measured, its summary two levels down, its other files."""
    drawing = path.with_suffix(".svg")
    rows = path.with_suffix(".md").relative_to(HERE).as_posix()
    links = f"All rows: [{rows}]({rows})."
    if drawing.exists():
        links += f"\n\n![{path.stem}]({drawing.relative_to(HERE).as_posix()})"
    demoted = re.sub("^## ", "#### ", summary, flags=re.MULTILINE)
    settings = data["settings"]
    method = f"`{settings['line']}`: {settings['method']}"
    return f"{where(data)}\n{method}. {links}\n\n{demoted}"


def _headline(data: Data, module: ModuleType) -> str:
    table = module.headline(data).split("\n\n", 1)[1]
    return f"`{data['settings']['line']}`: {where(data)}\n\n{table}"
