"""The tables of the benchmarks, from measurements that were made up; and one short run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import cycnn

from .benchmark import FOLDER, benchmark

check, compare = benchmark("check"), benchmark("compare")
conv, disk = benchmark("conv"), benchmark("disk")
networks, plot, readme = benchmark("networks"), benchmark("plot"), benchmark("readme")
report, session, shapes = benchmark("report"), benchmark("session"), benchmark("shapes")
worker = benchmark("worker")

SETTINGS = {
    "machine": {"cpu": "a processor"},
    "line": "python benchmarks/compare.py train",
    "method": "median of 3 blocks",
    "libraries": {
        "cycnn": {"cycnn": "1.0", "isa": "avx2", "environment": "inherited"},
        "torch, tuned allocator": {"torch": "2.13.0", "isa": "AVX2", "environment": "A=1"},
    },
    "missing": ["torch, default allocator: no such library"],
    "clock": 3.0,
    "disk": {
        "cycnn": {"package": 2**20, "with dependencies": 2**22},
        "torch, tuned allocator": {"package": 2**29, "with dependencies": 2**30},
    },
}
SHAPE = {"N": 8, "H": 14, "W": 14, "C": 64, "K": 64, "kernel": 3, "stride": 1, "groups": 1}
CONV = {"shape": SHAPE, "networks": ["LeNet-28"], "direction": "forward", "batch": "train"}
OURS, TUNED = "cycnn, channels last", "torch, tuned allocator"
STEP = {"network": "LeNet-28", "batch": 128, "threads": 1}
STAGES = {"numpy": 0.1, "import": 0.1, "model": 0.1, "first": 0.1, "process": 0.5}
# By subcommand: measurements, and what must be in their tables.
RUNS = {
    "conv": (
        [
            {**CONV, "threads": n, "peak": 100.0 * n, "blocks": {
                "cycnn, auto": [1e-3, 1e-3, 2e-3],
                f"{TUNED}, contiguous": [3e-3, 4e-3, 4e-3],
                f"{TUNED}, channels_last": [2e-3, 2e-3, 2e-3],
            }}
            for n in (1, 2)
        ],
        ["| 1 thread, forward | 2.00x (1) | 2.00x (1) | 2.00x (1) | - (0) |", "1.50-2.00",
         "(tuned, channels_last)", "Below 1.0x: 0 of 2; below 0.85x: 0"],
    ),
    "algorithms": (
        [
            {**CONV, "threads": 1, "peak": 100.0, "blocks": {
                "cycnn, auto": [2e-3, 2e-3, 2e-3], "cycnn, direct": [3e-3, 3e-3, 3e-3],
                "cycnn, winograd4": [1e-3, 1e-3, 1e-3],
            }},
            {**CONV, "direction": "weight", "threads": 1, "peak": 100.0, "blocks": {
                "cycnn, auto": [3.1e-3, 3e-3, 3e-3], "cycnn, direct": [3e-3, 3e-3, 3e-3],
            }},
        ],
        ["Not within 10 %: 1 of 2", "2.00x of winograd4, forward, 1 thread: 8x14x14x64 3x3 64",
         "| 1 thread, batch: train, weight gradient | 1 | 1 | 1.00x | 1.00x |"],
    ),
    "train": (
        [
            {**STEP, "operations": 8_000_000, "losses": {}, "blocks": {
                OURS: [1e-3, 1e-3, 1e-3],
                f"{TUNED}, contiguous": [3e-3, 3e-3, 3e-3],
                f"{TUNED}, channels_last": [1.5e-3, 1.5e-3, 3e-3],
            }},
            {"network": "VoxNet-3D", "batch": 16, "failed": "cycnn: it broke"},
        ],
        ["| LeNet-28, 128 | 1 | 1 | 1.5 (tuned, channels_last) | 1.50x | 1.50-2.25 | 8 | 5 |",
         "| geometric mean | 1 |  |  | 1.50x |  |  |  |", "Failed: 1", "it broke",
         "no such library"],
    ),
    "scaling": (
        [
            {"kind": "train", "network": "LeNet-28", "batch": 1, "blocks": {
                OURS: {"1": [1e-3, 1e-3, 1e-3], "2": [2e-3, 2e-3, 2e-3]},
                f"{TUNED}, contiguous": {"1": [2e-3, 2e-3, 2e-3], "2": [1e-3, 1e-3, 1e-3]},
            }},
            *(
                {"kind": "kernels", "shape": {**SHAPE, "K": K}, "peak": 100.0, "blocks": {
                    "cycnn, auto": [1e-3], "cycnn, direct": [2e-3],
                    f"{TUNED}, contiguous": [3e-3],
                }}
                for K in (64, 65)
            ),
        ],
        ["cycnn below 0.95x of one thread: 1", "0.50x 2 threads, training step: LeNet-28, batch 1",
         "| training step, 2 threads | 1 | 0.50x | 0.50x | 2.00x |",
         "| 64 | 58 | 58% | 116 | 39 |"],
    ),
    "memory": (
        [{**STEP, "usage": {
            OURS: [{"before": 2**20, "peak": 2**21, "faults": 0.0, "growth": 0}],
            f"{TUNED}, contiguous": [{"before": 2**20, "peak": 2**22, "faults": 9.0, "growth": 0}],
        }}],
        ["| LeNet-28, 128 | 1 | 2.0 | 4.0 (tuned, contiguous) | 2.00x | 0 | 9 | 0.0 | 0.0 |"],
    ),
    "coldstart": (
        [{"kind": kind, **STEP, "stages": {
            "cycnn": [STAGES], TUNED: [{**STAGES, "import": 0.5}],
        }} for kind in networks.STEPS],
        ["To the first prediction of LeNet-28, batch 128, 1 thread", "| 0.800 |", "2.00x",
         "| torch | 512.0 | 1024.0 |"],
    ),
    "passes": (
        [{"pass": "ReLU", "threads": n, "bytes": 2**21, "copy": 50.0, "blocks": [1e-4, 1e-4]}
         for n in (1, 2)],
        ["Passes over memory, 2 threads: a copy 50.0 GB/s", "| ReLU | 2.0 | 0.1 | 21.0 | 42% |"],
    ),
}  # fmt: skip
each_command = pytest.mark.parametrize("command", RUNS)


def data(command):
    return {"command": command, "settings": SETTINGS, "measurements": RUNS[command][0]}


@pytest.fixture
def stored(tmp_path):
    """Return a function that writes a subcommand's made-up run and returns its file."""

    def store(command, path=tmp_path):
        file = path / f"{command}.json"
        session.write_json(file, data(command))
        return file

    return store


@each_command
def test_report_shows_a_stored_run(command, stored, tmp_path, capsys):
    file, merged, tables = stored(command), tmp_path / "merged.json", tmp_path / "tables.md"
    assert json.loads(file.read_text()) == data(command)
    given = ["report", str(file), str(file), "--json", str(merged), "--markdown", str(tables)]
    fine = compare.execute(compare.arguments(given))
    assert fine == (command != "train")  # of which one measurement failed
    text = tables.read_text()
    assert text in capsys.readouterr().out
    for expected in RUNS[command][1]:
        assert expected in text
    assert json.loads(merged.read_text()) == data(command)  # the same things, measured again


@each_command
def test_a_run_without_peers_is_shown_too(command):
    alone = json.loads(json.dumps(data(command)))
    for m in alone["measurements"]:
        for part in ("blocks", "usage", "stages"):
            if isinstance(m.get(part), dict):
                m[part] = {k: v for k, v in m[part].items() if "torch" not in k}
        assert compare.SHOWN[command].line(m)
    assert "cycnn" in compare.SHOWN[command].tables(alone)


def test_layers_behind_the_peer_are_listed_with_both_shares():
    run = data("conv")
    slow = {**run["measurements"][1], "blocks": {
        "cycnn, auto": [4e-3, 4e-3, 4e-3], f"{TUNED}, contiguous": [2e-3, 2e-3, 2e-3],
    }}  # fmt: skip
    text = compare.SHOWN["conv"].tables({**run, "measurements": [run["measurements"][0], slow]})
    assert "Below 1.0x: 1 of 2; below 0.85x: 1" in text
    share = SHAPE["N"] * 14 * 14 * 64 * 64 * 9 * 2 / 4e-3 / 1e9 / slow["peak"]
    row = f"| 8x14x14x64 3x3 64 | forward | 2 threads | 0.50x | 0.50-0.50 | {share:.0%} |"
    assert f"{row} {2 * share:.0%} | 122 |" in text


def test_runs_of_other_libraries_are_not_merged(stored):
    other = data("train")
    other["settings"] = {**SETTINGS, "libraries": {}}
    with pytest.raises(SystemExit, match="different libraries"):
        report.merge([data("train"), other], compare.SHOWN["train"].key)


def test_a_measurement_replaces_its_failure():
    failed = {"network": "LeNet-28", "batch": 128, "failed": "no"}
    runs = [{**data("train"), "measurements": [failed]}, data("train")]
    merged = report.merge(runs, compare.SHOWN["train"].key)
    assert merged["measurements"] == data("train")["measurements"]


@each_command
def test_readme_is_rewritten_between_its_markers(command, stored, tmp_path, monkeypatch):
    here = tmp_path / "benchmarks"
    (here / "results").mkdir(parents=True)
    monkeypatch.setattr(readme, "HERE", here)
    monkeypatch.setattr(readme, "RESULTS", here / "results")
    (here / "README.md").write_text((FOLDER / "README.md").read_text())
    blank = "before\n<!-- {0} -->\nold {0}\n<!-- /{0} -->\nafter\n"
    (tmp_path / "README.md").write_text(blank.format("train") + blank.format("conv"))
    file = stored(command, here / "results")
    readme.rewrite(compare.SHOWN, drawn=False)
    once = (here / "README.md").read_text()
    assert RUNS[command][1][0] in once
    assert RUNS[command][1][0] in file.with_suffix(".md").read_text()
    whole = (tmp_path / "README.md").read_text()
    assert whole.startswith("before\n<!-- train -->\n") and whole.endswith(
        "<!-- /conv -->\nafter\n"
    )
    for name in ("train", "conv"):
        assert (f"old {name}" in whole) == (command != name)
    readme.rewrite(compare.SHOWN, drawn=False)
    assert (here / "README.md").read_text() == once
    with pytest.raises(SystemExit, match="must stand there once"):
        readme.replace("no marker", command, "body")


def test_readme_has_other_processors_apart(stored, tmp_path, monkeypatch):
    here = tmp_path / "benchmarks"
    (here / "results" / "other").mkdir(parents=True)
    monkeypatch.setattr(readme, "HERE", here)
    monkeypatch.setattr(readme, "RESULTS", here / "results")
    blank = "<!-- {0} -->\nold {0}\n<!-- /{0} -->\n"
    (here / "README.md").write_text(blank.format("train") + blank.format("elsewhere"))
    (tmp_path / "README.md").write_text(blank.format("train"))
    stored("train", here / "results" / "other")
    readme.rewrite(compare.SHOWN, drawn=False)
    ours = (here / "README.md").read_text()
    assert "old train" in ours
    assert "old elsewhere" not in ours
    assert "(results/other/train.md)" in ours
    assert (here / "results" / "other" / "train.md").exists()
    assert "old train" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("command", ["conv", "scaling"])
def test_drawings(command, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "drawing.svg"
    plot.draw(data(command), file)
    assert file.read_text().startswith("<?xml")


@pytest.mark.parametrize("given, message", [
    (["conv", "--only", "sideways"], "sideways not among"),
    (["train", "--threads", "4096"], "processors"),
    (["scaling", "--threads", "2"], "1 is what the others are compared with"),
    (["report", "x.json", "--wrong"], "unrecognized"),
    (["all", "--wrong"], "unrecognized"),
])  # fmt: skip
def test_wrong_options_end_with_a_sentence(given, message, capsys):
    with pytest.raises(SystemExit):
        compare.arguments(given)
    assert message in " ".join(capsys.readouterr().err.split())


def test_all_hands_its_options_to_every_run():
    options = compare.arguments(["all", "--runs", "train", "algorithms", "--threads", "1"])
    assert {name: each.threads for name, each in options.each.items()} == {
        "train": [1], "algorithms": [1],
    }  # fmt: skip
    assert options.each["algorithms"].auto
    assert options.each["train"].json == readme.RESULTS / "train.json"
    assert options.each["train"].line == "python benchmarks/compare.py train --threads 1"


def test_a_run_is_spelled_without_its_files():
    given = ["conv", "--shapes", " 3x3 ", "--json", "a.json", "--plot=b.svg", "--isa", "avx2"]
    assert compare.spelled(given) == (
        "python benchmarks/compare.py conv --shapes ' 3x3 ' --isa avx2"
    )


def test_only_winograd_may_differ_by_more_than_plain_sums():
    plain = check.tolerance(576, "cycnn, direct", "torch, tuned allocator, contiguous")
    assert plain == 4 * check.EPS * 576
    assert plain < check.tolerance(576, "cycnn, direct", "cycnn, winograd4") < 1e-3


def test_a_cold_step_finds_other_data():
    server, done = object.__new__(worker.Server), []
    server.library = SimpleNamespace(
        set_threads=lambda n: None, other_data=lambda: lambda: done.append("sweep")
    )
    server.calls = {"way": lambda: done.append("step")}
    assert 0 < server.block("way", 2, 0.02, 0.01, True) < 0.02
    assert done[-2:] == ["sweep", "step"]
    server.block("way", 2, 0.02, 0.01, False)
    assert done[-2:] == ["step", "step"]
    benchmark("ours").Cycnn().other_data()()


def test_every_task_is_there_once():
    options = compare.arguments(["conv", "--batches", "train", "one", "--only", "forward,input"])
    tasks = list(conv.tasks(options))
    assert len({(shape, direction) for shape, _, direction, _ in tasks}) == len(tasks)
    assert {batch for *_, batch in tasks} == {"train", "one"}


def test_the_convolutions_are_those_of_the_models():
    for name in networks.NETWORKS.keys() & shapes.NETWORKS.keys():
        network = networks.NETWORKS[name]
        parameters = networks.build(name).parameters().values()
        ours = [p.shape for p in parameters if len(p.shape) == 4]
        listed = [shape.weight_shape for shape in shapes.NETWORKS[name].convolutions(1)]
        assert sorted(ours) == sorted(listed)
        assert shapes.NETWORKS[name].train == network.batch


def test_every_pass_runs():
    for call, moved in benchmark("ours").passes().values():
        call()
        assert moved >= 32 * 56 * 56 * 64 * 4


def test_sizes_on_disk():
    sizes = disk.sizes("cycnn")
    assert 0 < sizes["package"] <= sizes["with dependencies"]
    modules = Path(cycnn.__file__).parent.rglob("*.so")
    assert sizes["package"] > sum(module.stat().st_size for module in modules)


def short_run(file, command, *options):
    """Return the measurements of one thread by a command of compare.py, and what it printed."""
    given = ["--threads", "1", "--seconds", "0.01", "--repeats", "2", "--allocators", "default"]
    where = str(Path(cycnn.__file__).parents[1])  # so that it imports the same cycnn
    paths = os.pathsep.join(filter(None, [where, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, FOLDER / "compare.py", command, *options, *given, "--json", file],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return session.read(file)["measurements"], done.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the method needs Linux")
def test_a_short_run_against_peers(tmp_path):
    given = ["--networks", "LeNet-28", "--batch", "2"]
    (measured,), printed = short_run(tmp_path / "train.json", "train", *given)
    assert len(measured["blocks"]["cycnn, channels last"]) == 2
    assert len(measured["blocks"]) == 3 or "missing peer" in printed


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the method needs Linux")
def test_a_short_run_without_peers(tmp_path):
    measured, _ = short_run(tmp_path / "passes.json", "passes")
    assert len(measured) == len(benchmark("ours").passes())
    assert {len(m["blocks"]) for m in measured} == {2}
