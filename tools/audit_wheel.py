"""Build, repair, audit and test this machine's wheel, and validate the settings offline.

    python tools/audit_wheel.py [--wheel FILE] [--allow-missing]

Everything happens in a temporary folder, with the tools of the dependency group "audit".  The first
failure ends the run with a status other than 0; the last lines sum up what passed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PYTHONS = ("3.11", "3.12", "3.13")
MAX_BYTES = 3_000_000


def run(*command: str | Path, cwd: Path = ROOT, path: Path | None = None) -> str:
    """Run a command, `path` first on PATH; return what it printed, or end the program."""
    words = [str(word) for word in command]
    print("$", " ".join(words), flush=True)
    env = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1")
    if path is not None:
        env["PATH"] = os.pathsep.join([str(path), env["PATH"]])
    done = subprocess.run(
        words, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nfailed with status {done.returncode}: {' '.join(words)}")
    return done.stdout


def environment(python: str | Path, folder: Path) -> Path:
    """Make a virtual environment; return its folder of programs."""
    run(python, "-m", "venv", folder)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    run(programs / "python", "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    return programs


def find_python(version: str) -> str | None:
    """Return an interpreter of this version that starts, from PATH or from pyenv."""
    candidates = [sys.executable, shutil.which(f"python{version}")]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout
        versions = Path(root.strip(), "versions")
        candidates += sorted(str(path) for path in versions.glob(f"{version}.*/bin/python"))
    for candidate in filter(None, candidates):
        question = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(question, capture_output=True, text=True)
        if answer.stdout.strip() == version:
            return candidate
    return None


def validate_settings(tools: Path) -> None:
    """Check pyproject.toml, the workflows and the shell scripts without the network."""
    run(tools / "validate-pyproject", "pyproject.toml")
    builds = run(tools / "cibuildwheel", "--print-build-identifiers", "--platform", "linux", ".")
    if "cp311-manylinux" not in builds:
        raise SystemExit(f"cibuildwheel would not build the abi3 wheel:\n{builds}")
    workflows = sorted(ROOT.glob(".github/workflows/*.yml"))
    check = tools / "check-jsonschema"
    run(check, "--builtin-schema", "vendor.github-workflows", *workflows)
    run(check, "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml")
    run(tools / "zizmor", "--offline", ".github", path=tools)
    run(tools / "shellcheck", ".ci/run", ".github/macos-libomp.sh")


def audit(wheel: Path, tools: Path, folder: Path) -> Path:
    """Repair the wheel and audit the result; return its path."""
    repaired = folder / "repaired"
    repair = SETTINGS["tool"]["cibuildwheel"]["linux"]["repair-wheel-command"]
    words = repair.format(dest_dir=repaired, wheel=wheel).split()
    run(tools / words[0], *words[1:], path=tools)
    (wheel,) = repaired.glob("*.whl")
    if (size := wheel.stat().st_size) > MAX_BYTES:
        raise SystemExit(f"{wheel.name} has {size} bytes, at most {MAX_BYTES} are allowed")
    run(tools / "abi3audit", "--strict", "--report", wheel)
    run(tools / "check-wheel-contents", wheel)
    run(tools / "twine", "check", "--strict", wheel)
    return wheel


def test(wheel: Path, python: str, folder: Path) -> str:
    """Install the wheel into a fresh environment and run the fast tier away from the sources."""
    programs = environment(python, folder / "venv")
    run(programs / "python", "-m", "pip", "install", "--quiet", f"{wheel}[test]")
    for name in SETTINGS["tool"]["cibuildwheel"]["test-sources"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    output = run(programs / "python", "-m", "pytest", "-q", "tests", cwd=folder, path=programs)
    return output.strip().splitlines()[-1]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="audit this wheel instead of building one")
    parser.add_argument(
        "--allow-missing", action="store_true", help="pass though one of the Pythons is not there"
    )
    arguments = parser.parse_args()
    pythons = {version: find_python(version) for version in PYTHONS}
    missing = [version for version, python in pythons.items() if python is None]
    if missing and not arguments.allow_missing:
        raise SystemExit(f"no Python {', '.join(missing)} on PATH or in pyenv (--allow-missing)")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tools = environment(sys.executable, folder / "tools")
        run(tools / "python", "-m", "pip", "install", "--quiet", "--group", "audit")
        validate_settings(tools)
        if arguments.wheel is None:
            run(tools / "python", "-m", "build", "--outdir", folder / "dist")
        wheel = arguments.wheel or next(folder.glob("dist/*.whl"))
        wheel = audit(wheel.resolve(), tools, folder)
        results = {}
        for version, python in pythons.items():
            if python is not None:
                (folder / version).mkdir()
                results[version] = test(wheel, python, folder / version)
        print(f"\n{wheel.name}: {wheel.stat().st_size} bytes; repaired, audited, settings valid")
    for version in PYTHONS:
        print(f"CPython {version}: {results.get(version, 'not tested, no such Python here')}")


if __name__ == "__main__":
    main()
