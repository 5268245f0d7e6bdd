"""The shape of the source: imports point down the stack, files stay short, one loop is parallel."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

# The stack, from the top.  A module may import what stands in its own row or in a lower one.
STACK = (
    ("__main__", "cli"),
    ("", "versions"),  # "" is cycnn/__init__.py, the public names
    ("trainer", "callbacks"),
    ("rates", "resume"),
    ("guard", "history", "feed", "progress"),
    ("data", "datasets", "models"),
    ("graph", "summary", "serialize", "selfcheck", "profiler"),
    ("losses", "optim", "schedules"),
    ("metrics",),
    ("layers",),
    ("init", "autodiff", "_reference", "roof"),
    ("ops",),
    ("engine",),
    ("kernels",),
    ("threads", "_check"),
)
HEIGHT = {name: len(STACK) - row for row, names in enumerate(STACK) for name in names}
MAX_LINES = 500
OUTSIDE = {*sys.stdlib_module_names, "numpy", "cycnn", "cython"}

ROOT = Path(__file__).resolve().parents[1]


def package():
    """Return the folder of the package: the sources when they are here, else what is installed."""
    if (ROOT / "cycnn" / "__init__.py").exists():
        return ROOT / "cycnn"
    return Path(importlib.util.find_spec("cycnn").origin).parent


def sources(*suffixes):
    return sorted(path for path in package().rglob("*") if path.suffix in suffixes)


def label(path):
    return str(path.relative_to(package()))


def module_parts(path):
    """Return the module's place in the package: ("layers", "conv"), () for cycnn/__init__.py."""
    parts = path.relative_to(package()).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def room(parts):
    """Return the row entry that a module belongs to."""
    return parts[0] if parts else ""


def imports_of_python(path):
    """Yield (level, module, names, is at the top level) for each import of a Python file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, [], id(node) in top
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            yield node.level, node.module or "", names, id(node) in top


def imports_of_cython(path):
    """Yield the same for each import and cimport of a .pyx or .pxd file."""
    text = path.read_text(encoding="utf-8")
    for dots, module, names in re.findall(
        r"^[ \t]*from[ \t]+(\.*)([\w.]*)[ \t]+c?import[ \t]+\(?([^)\n#]+)", text, re.MULTILINE
    ):
        names = [name.split()[0] for name in names.split(",") if name.strip()]
        yield len(dots), module, names, True
    for module in re.findall(r"^[ \t]*c?import[ \t]+([\w.]+)", text, re.MULTILINE):
        yield 0, module, [], True


def imports(path):
    return imports_of_python(path) if path.suffix == ".py" else imports_of_cython(path)


def rooms_imported(path):
    """Yield the row entry of each module of cycnn that this file imports."""
    folder = path.relative_to(package()).parent.parts
    for level, module, names, _ in imports(path):
        words = module.split(".") if module else []
        if level:
            target = [*folder[: len(folder) - level + 1], *words]
        elif words and words[0] == "cycnn":
            target = words[1:]
        else:
            continue
        if target:
            yield room(target)
        else:  # from cycnn import a, b: modules, or public names of cycnn/__init__.py
            yield from (name if name in HEIGHT else "" for name in names or [""])


def test_every_module_has_a_place_in_the_stack():
    rooms = {room(module_parts(path)) for path in sources(".py", ".pyx", ".pxd")}
    assert rooms <= HEIGHT.keys(), "a new module needs a place in STACK"


@pytest.mark.parametrize("path", sources(".py", ".pyx", ".pxd"), ids=label)
def test_imports_point_down(path):
    own = room(module_parts(path))
    upward = {other for other in rooms_imported(path) if HEIGHT[other] > HEIGHT[own]}
    assert not upward, f"{label(path)} imports upward: {sorted(upward)}"


@pytest.mark.parametrize("path", sources(".py"), ids=label)
def test_only_numpy_is_imported_with_the_package(path):
    for level, module, _, at_top in imports_of_python(path):
        name = module.split(".")[0]
        assert level or not at_top or name in OUTSIDE, f"import {name} where it is used"


def test_the_engine_owns_the_only_parallel_loop():
    kernels = sources(".pyx", ".pxd")
    if not kernels:
        pytest.skip("a wheel carries no Cython sources")
    pattern = re.compile(r"\b(prange|parallel)\s*\(")
    loops = {room(module_parts(path)) for path in kernels if pattern.search(path.read_text())}
    assert loops <= {"engine"}


def test_no_file_is_long():
    folders = [package(), *(ROOT / name for name in ("tests", "tools", "benchmarks", "examples"))]
    suffixes = {".py", ".pyx", ".pxd", ".h"}
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in suffixes]
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    long = {name: count for name, count in lines.items() if count > MAX_LINES}
    assert not long, f"more than {MAX_LINES} lines, so a room to divide: {long}"
