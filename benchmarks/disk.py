"""How much of the disk an installed package takes, by the record that the installer left."""

from __future__ import annotations

import importlib.util
import json
import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path


def sizes(name: str) -> dict[str, int]:
    """Bytes of the package, and of all that it needs at run time too."""
    needed: dict[str, int] = {}
    _add(name, needed)
    return {"package": needed[name], "with dependencies": sum(needed.values())}


def _add(name: str, needed: dict[str, int]) -> None:
    """Add the size of `name` and of its dependencies, each once."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        if not needed:  # a checkout that was never installed
            needed[name] = _folder(name)
        return  # else a dependency of other systems
    needed[name] = _recorded(found) or _folder(name)
    for requirement in found.requires or ():
        other = re.match(r"[\w.-]+", requirement)
        if other and "extra ==" not in requirement:
            normal = re.sub(r"[-_.]+", "-", other.group()).lower()
            if normal not in needed:
                _add(normal, needed)


def _recorded(found: Distribution) -> int:
    """Size of the files of an installation; 0 where they are those of a checkout."""
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    if found.read_text("RECORD") is None or origin.get("dir_info", {}).get("editable"):
        return 0
    paths = [Path(str(path.locate())) for path in found.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _folder(name: str) -> int:
    """Size of the package's folder, where it was built in place."""
    spec = importlib.util.find_spec(name)
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
