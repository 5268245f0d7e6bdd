"""The command `cycnn`, in this process and as a module."""

from __future__ import annotations

import re

import pytest

import cycnn
from cycnn.cli import main

from .helpers import run_python


def test_demo_trains_saves_and_loads(capsys, tmp_path):
    path = tmp_path / "digits.cycnn"
    assert main(["demo", "--epochs", "2", "--seed", "1", "--output", str(path)]) == 0
    text = capsys.readouterr().out
    last = text.strip().splitlines()[-1]
    accuracy = float(re.fullmatch(r"test accuracy (0\.\d{3})", last)[1])
    (_, _), (x, y) = cycnn.datasets.digits()
    assert accuracy == round(float((cycnn.load(path).predict(x).argmax(1) == y).mean()), 3)
    assert accuracy > 0.85
    assert "2/2" in text


def test_versions(capsys):
    assert main(["show-versions"]) == 0
    assert cycnn.__version__ in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"cycnn {cycnn.__version__}"


def test_the_models_for_signals_and_volumes_are_checked(capsys):
    assert main(["check", "cnn1d", "cnn3d"]) == 0
    assert capsys.readouterr().out.count("all layers are right") == 2


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["demo", "--epochs", "0"], ["demo", "--seed", "x"],
     ["demo", "--output", "no/such/folder/x"]],
)  # fmt: skip
def test_wrong_arguments_are_refused_before_training(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "error" in capsys.readouterr().err


def test_as_a_module():
    code = """
import runpy, sys
sys.argv[1:] = ["--version"]
runpy.run_module("cycnn", run_name="__main__")
"""
    assert cycnn.__version__ in run_python(code).stdout
