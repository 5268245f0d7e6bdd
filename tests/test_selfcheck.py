"""`cycnn check`: right layers pass, and a broken kernel is caught for every layer type."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn
from cycnn import ops
from cycnn._reference import FORMULAS
from cycnn.cli import main
from cycnn.layers import REGISTRY

from .contract import ROWS, cases

CONTAINERS = {"Sequential", "Graph", "Residual", "Parallel"}
KINDS = sorted(set(ROWS) - CONTAINERS)
UNUSED = {("RMSNorm", "row_norm_backward", 2)}  # dbeta: it has no shift


def model_of(row, rng=0):
    return cycnn.Sequential([row.make()], input_shape=row.shape, rng=rng)


@pytest.mark.parametrize("row", cases())
def test_right_layers_pass(row):
    report = cycnn.check(model_of(row))
    assert report.ok, str(report)
    assert all(max(row.slopes, row.float64, row.float32) <= 1 for row in report.rows)


def test_every_layer_has_a_formula():
    assert {name for name in REGISTRY if name not in FORMULAS} == CONTAINERS


def spoilt(function, number):
    """Return the function with one value of its `number`-th real array a little off."""

    def broken(*arguments, **options):
        result = function(*arguments, **options)
        items = list(result) if isinstance(result, tuple) else [result]
        real = [i for i, a in enumerate(items) if is_real(a)]
        if number < len(real):
            array = items[real[number]] = items[real[number]].copy()
            array.reshape(-1)[array.size // 2] += 0.05 * np.abs(array).max() + 0.01
        return tuple(items) if isinstance(result, tuple) else items[0]

    return broken


def is_real(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size > 0


def real_arrays(result):
    return sum(map(is_real, result if isinstance(result, tuple) else (result,)))


@pytest.mark.parametrize("kind", KINDS)
def test_each_broken_kernel_is_caught(kind, monkeypatch):
    used = {}

    def watched(name, function):
        def call(*arguments, **options):
            result = function(*arguments, **options)
            used[name] = max(used.get(name, 0), real_arrays(result))
            return result

        return call

    models = [model_of(row) for row in ROWS[kind]]
    with monkeypatch.context() as patch:
        for name in ops.__all__:
            patch.setattr(ops, name, watched(name, getattr(ops, name)))
        for model in models:
            assert cycnn.check(model).ok
    if not used:
        pytest.skip("no kernel of its own: see test_a_broken_layer_is_caught")
    for name, arrays in used.items():
        for number in range(arrays):
            if (kind, name, number) in UNUSED:
                continue
            with monkeypatch.context() as patch:
                patch.setattr(ops, name, spoilt(getattr(ops, name), number))
                reports = list(map(cycnn.check, models))
            assert not all(report.ok for report in reports), f"{name}, array {number}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_layer_is_caught(kind, monkeypatch):
    model = model_of(ROWS[kind][0])
    layer_class = type(model[0])
    call = layer_class.__call__

    def off_forward(self, x, training=False):
        y, backward = call(self, x, training)
        return spoilt(lambda: y, 0)(), backward

    def off_backward(self, x, training=False):
        y, backward = call(self, x, training)
        return y, spoilt(backward, 0)

    def off_float32(self, x, training=False):
        y, backward = call(self, x, training)
        return spoilt(lambda: y, 0 if self.dtype == np.float32 else 99)(), backward

    for broken in (off_forward, off_backward, off_float32):
        with monkeypatch.context() as patch:
            patch.setattr(layer_class, "__call__", broken)
            report = cycnn.check(model)
        assert not report.ok, broken.__name__
        assert "FAILED" in str(report)
        assert report.rows[0].kind == kind


class Twice(cycnn.Layer):
    """A layer of one's own, without a formula."""

    def __init__(self, factor=2.0, *, wrong=None, name=None):
        super().__init__(name=name, factor=factor, wrong=wrong)
        self.factor, self.wrong = factor, wrong

    def __call__(self, x, training=False):
        x = self.check_input(x)
        slope = 1.9 if self.wrong == "backward" else 2.0
        off = 1.001 if self.wrong == "float32" and x.dtype == np.float32 else 1.0

        def backward(dy, input_gradient=True):
            return dy * x.dtype.type(slope) if input_gradient else None

        return x * x.dtype.type(2.0 * off), backward


@pytest.mark.parametrize("wrong", [None, "backward", "float32"])
def test_a_layer_of_ones_own(wrong):
    report = cycnn.check(cycnn.Sequential([Twice(wrong=wrong)], input_shape=(4, 3)))
    row = report.rows[0]
    assert row.against == "float64"
    assert report.ok == (wrong is None)
    assert {"backward": "slopes", "float32": "float32", None: ""}[wrong] in row.problem


def test_a_layer_that_raises_is_named():
    class Lost(cycnn.Layer):
        def __init__(self, size):
            super().__init__()  # size is never handed on, so no twin can be made

        def __call__(self, x, training=False):
            return x, lambda dy, input_gradient=True: dy

    row = cycnn.check(cycnn.Sequential([Lost(3)], input_shape=(4,))).rows[0]
    assert "TypeError" in row.problem


def test_what_is_no_built_model_is_refused():
    with pytest.raises(TypeError, match="model must be a Model, got 3"):
        cycnn.check(3)
    with pytest.raises(cycnn.NotBuiltError):
        cycnn.check(cycnn.Sequential([cycnn.ReLU()]))


def test_nan_in_a_weight_is_found():
    model = cycnn.Sequential([cycnn.Dense(3)], input_shape=(4,), rng=0)
    model[0].bias.assign([0, np.nan, 0])
    assert not cycnn.check(model).ok


def test_the_model_stays_as_it_is():
    model = cycnn.Sequential(
        [cycnn.Dense(5), cycnn.BatchNorm(), cycnn.Dropout(0.5)], input_shape=(4,), rng=0
    )
    arrays = {name: p.data.copy() for name, p in model.parameters().items()} | model.buffers()
    model.freeze()
    assert cycnn.check(model).ok
    assert not any(p.trainable or p.grad.any() for p in model.parameters().values())
    for name, array in arrays.items():
        now = model.parameters() | model.buffers()
        assert_array_equal(getattr(now[name], "data", now[name]) if name else None, array)


def test_a_whole_model_layer_by_layer():
    model = cycnn.models.lenet(10, (8, 8, 1), rng=0)
    report = cycnn.check(model)
    assert [row.name for row in report.rows] == [node.name for node in model.program.nodes]
    assert "all layers are right" in str(report)


def test_command(tmp_path, capsys, monkeypatch):
    path = tmp_path / "small.cycnn"
    model = cycnn.Sequential([cycnn.Conv(3, 3), cycnn.ReLU()], input_shape=(5, 5, 2), rng=0)
    model.save(path)
    assert main(["check", str(path)]) == 0
    assert "all layers are right" in capsys.readouterr().out
    monkeypatch.setattr(ops, "relu_backward", spoilt(ops.relu_backward, 0))
    assert main(["check", str(path), "lenet"]) == 1
    assert "FAILED" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["check", "no-such-model"])
    assert "neither" in capsys.readouterr().err
