"""Importing cycnn is quick and brings nothing along.

What the environment may say is tested in test_threads.py and test_isa.py.
"""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

import cycnn
from cycnn import ops

from .helpers import run_python

BUDGET = 0.030  # seconds beside numpy's own


def test_import_adds_little_to_numpy():
    code = (
        "import time, numpy; start = time.perf_counter(); import cycnn; "
        "print(time.perf_counter() - start)"
    )
    seconds = []
    for _ in range(10):  # the machine may be busy: one quick import shows that it can be
        seconds.append(float(run_python(code).stdout))
        if seconds[-1] <= BUDGET:
            return
    pytest.fail(f"the quickest of ten imports took {min(seconds) * 1e3:.0f} ms")


def test_import_loads_no_optional_package():
    optional = "joblib", "matplotlib", "sklearn", "threadpoolctl", "torch", "tqdm"
    code = f"import sys, cycnn; print([name for name in {optional} if name in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_import_waits_for_no_random_numbers():
    code = """
import sys, numpy
drawn = "numpy.random" in sys.modules        # as older NumPy has it from the beginning
import cycnn
assert drawn or "numpy.random" not in sys.modules
"""
    run_python(code)


def test_import_waits_for_no_op():
    code = (
        "import sys, cycnn; print([name for name in sys.modules if name.startswith('cycnn.ops.')])"
    )
    loaded = set(ast.literal_eval(run_python(code).stdout))
    assert loaded <= {"cycnn.ops.algorithm", "cycnn.ops.window"}  # what layers are checked by


def test_ops_are_found_in_the_modules_that_their_stub_imports_them_from():
    stub = Path(ops.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    homes, public = {}, []
    for node in ast.parse(stub).body:
        if isinstance(node, ast.ImportFrom):
            homes.update((alias.name, node.module) for alias in node.names)
        elif isinstance(node, ast.Assign):
            public = ast.literal_eval(node.value)
    assert sorted(public) == sorted(homes) == ops.__all__
    assert set(ops.__all__) <= set(dir(ops))
    for name, home in homes.items():
        assert f"cycnn.ops.{ops._HOMES[name]}" == home
        function = getattr(ops, name)
        assert getattr(function, "__module__", home) in {home, "cycnn.ops.problem"}, name


def test_an_op_is_not_hidden_by_the_module_of_its_name():
    code = """
import cycnn.ops.conv, cycnn.ops.activation
from cycnn import ops
import cycnn.ops.dense as dense
assert all(callable(op) for op in (ops.conv, ops.activation, ops.dense, dense))
"""
    run_python(code)
    assert pickle.loads(pickle.dumps(ops)) is ops
    with pytest.raises(AttributeError, match="'cycnn.ops' has no attribute 'convolve'"):
        ops.convolve  # noqa: B018


def test_a_saved_model_predicts_without_random_numbers(tmp_path):
    model = cycnn.Sequential([cycnn.Conv(2, 3), cycnn.ReLU()], input_shape=(5, 5, 1), rng=0)
    path = str(tmp_path / "model.cycnn")
    model.save(path)
    code = f"""
import sys, numpy as np
drawn = "numpy.random" in sys.modules        # as older NumPy has it from the beginning
import cycnn
cycnn.load({path!r}).predict(np.ones((1, 5, 5, 1)))
assert drawn or "numpy.random" not in sys.modules
"""
    run_python(code)


def test_public_modules_are_attributes_of_the_package():
    public = (
        "autodiff", "callbacks", "data", "datasets", "init", "losses", "metrics", "models", "optim",
        "schedules", "summary",
    )  # fmt: skip
    run_python(f"import cycnn; assert not set({public}) - set(dir(cycnn))")
    for name in public:
        assert getattr(cycnn, name).__name__ == f"cycnn.{name}"


def test_no_home_and_no_cache_are_needed():
    code = """
import numpy as np, cycnn
model = cycnn.Sequential([cycnn.Conv(2, 3), cycnn.Flatten(), cycnn.Dense(2)],
                         input_shape=(6, 6, 1), rng=0)
trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam())
trainer.fit(np.ones((4, 6, 6, 1)), [0, 1, 0, 1], verbose=0)
"""
    nowhere = "/dev/null/nowhere"
    folders = "HOME", "USERPROFILE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR", "TEMP", "TMP"
    run_python(code, **dict.fromkeys(folders, nowhere))
