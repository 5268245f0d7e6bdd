"""The code in README.md and docs/ runs, and the examples in docstrings print what they say."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
from pathlib import Path

import pytest

import cycnn
from cycnn.layers import REGISTRY

ROOT = Path(__file__).parents[1]
PAGES = [page for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))) if page.exists()]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(cycnn.__path__, "cycnn.")
    if not module.name.startswith(("cycnn.kernels", "cycnn.__main__"))
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__page__"}
    for match in re.finditer(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        line = page.read_text()[: match.start()].count("\n") + 1
        exec(compile("\n" * line + match[1], str(page), "exec"), names)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.skipif(not (ROOT / "docs").exists(), reason="needs a whole checkout")
@pytest.mark.parametrize("page", ["README.md", "docs/layers.md"])
def test_every_layer_is_listed(page):
    text = (ROOT / page).read_text()
    layers = set(REGISTRY) | {"Lambda"}
    if page != "README.md":
        layers -= {"Sequential", "Residual", "Parallel", "Graph"}
    assert not [name for name in sorted(layers) if not re.search(rf"`{name}\b", text)]


@pytest.mark.skipif(not (ROOT / "docs").exists(), reason="needs a whole checkout")
def test_links_to_files_of_the_repository_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert Path(os.path.normpath(page.parent / target)).exists(), f"{page.name}: {target}"
