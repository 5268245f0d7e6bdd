"""`cycnn.profile`: what is counted, that it adds up, and that the model stays as it is."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import cycnn
from cycnn import roof
from cycnn.summary import summarize

from .helpers import normal, same_bits
from .test_trace import small_model


def quick(model, x, *arguments, **options):
    return cycnn.profile(model, x, *arguments, repeats=2, **options)


@pytest.fixture
def batch(rng):
    return normal(rng, (8, 6, 6, 2)), rng.integers(0, 4, 8)


def test_rows_are_the_layers_that_were_written(batch):
    model, (x, target) = small_model(), batch
    profile = quick(model, x, target, cycnn.CrossEntropy())
    assert [r.name for r in profile.rows] == [n.name for n in model.program.nodes]
    assert [r.kind for r in profile.rows] == [type(n.layer).__name__ for n in model.program.nodes]
    summary = summarize(model)
    assert [r.macs for r in profile.rows] == [r.macs for r in summary.rows]
    assert profile.macs == summary.macs


def test_rows_add_up(batch):
    profile = quick(small_model(), batch[0])
    for direction in ("forward", "backward"):
        passes = [getattr(row, direction) for row in profile.rows]
        whole, between = getattr(profile, direction), profile.between[direction == "backward"]
        assert whole.ms == pytest.approx(sum(p.ms for p in passes) + between)
        assert whole.operations == sum(p.operations for p in passes)
        assert whole.bytes == sum(p.bytes for p in passes)
        assert between > 0
        assert all(p.ms > 0 for p in passes)
        assert whole.gflops == pytest.approx(whole.operations / whole.ms / 1e6)
        for p in (*passes, whole):
            assert p.fma_share == pytest.approx(p.gflops / profile.fma_peak)
            assert p.copy_share == pytest.approx(p.gbytes / profile.copy_bandwidth)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_counted(rng, dtype):
    model = cycnn.Sequential(
        [
            cycnn.Conv(5, 3, name="a"), cycnn.ReLU(name="b"), cycnn.Conv(7, 1, name="c"),
            cycnn.Flatten(name="d"), cycnn.Dense(2, name="e"),
        ],
        input_shape=(6, 6, 3), rng=0, dtype=dtype,
    )  # fmt: skip
    size, x = np.dtype(dtype).itemsize, rng.standard_normal((4, 6, 6, 3))
    rows = {row.name: row for row in quick(model, x).rows}
    macs = {"a": 16 * 5 * 27, "b": 0, "c": 16 * 7 * 5, "d": 0, "e": 16 * 7 * 2}
    values = {"x": 108, "a": 80, "b": 80, "c": 112, "e": 2}  # of a sample
    weights = {"a": 27 * 5 + 5, "c": 5 * 7 + 7, "e": 112 * 2 + 2}
    for name, before in (("a", "x"), ("b", "a"), ("c", "b"), ("e", "c")):
        forward, backward = rows[name].forward, rows[name].backward
        moved, learnt = 4 * (values[before] + values[name]) * size, weights.get(name, 0) * size
        assert forward.operations == 2 * 4 * macs[name]
        assert forward.bytes == moved + learnt
        first = name == "a"  # makes no gradient of x
        assert backward.operations == forward.operations * (1 if first else 2)
        assert backward.bytes == moved + learnt - (4 * 108 * size if first else 0)
    assert rows["d"].forward.bytes == rows["d"].backward.bytes == 0  # a view
    assert rows["d"].forward.ms > 0 and rows["d"].forward.gbytes == 0
    whole = {row.name: row for row in quick(model, x, input_gradient=True).rows}
    assert whole["a"].backward.bytes == rows["a"].forward.bytes
    assert whole["a"].backward.operations == 2 * rows["a"].forward.operations


def test_frozen_layers_have_no_gradients(rng):
    model = cycnn.Sequential(
        [cycnn.Dense(5), cycnn.ReLU(), cycnn.Dense(4), cycnn.Dense(3)], input_shape=(6,), rng=0
    )
    model[0].freeze()
    first, relu, second, third = quick(model, normal(rng, (3, 6))).rows
    assert first.backward == relu.backward == (0, 0, 0, 0, 0)
    assert first.forward.operations == 2 * 3 * 30
    assert second.backward.operations == second.forward.operations
    model[2].freeze()
    model[3].freeze()
    second, third = quick(model, normal(rng, (3, 6)), input_gradient=True).rows[2:]
    assert third.backward.operations == third.forward.operations  # dx alone
    assert third.backward.bytes == 4 * 3 * (3 + 4)


def test_the_model_stays_as_it_is(batch):
    model, (x, target) = small_model(), batch
    for parameter in model.parameters().values():
        parameter.grad += 1
    before = copy.deepcopy(model)
    versions = [p.version for p in model.parameters().values()]
    quick(model, x, target, cycnn.CrossEntropy())
    assert [p.version for p in model.parameters().values()] == versions
    for name, parameter in model.parameters().items():
        assert same_bits(parameter.data, before.parameters()[name].data)
        assert (parameter.grad == 1).all()
    assert all(same_bits(array, before.buffers()[n]) for n, array in model.buffers().items())
    assert same_bits(model(x, training=True)[0], before(x, training=True)[0])  # the same masks


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "make, shape", [("cnn1d", (100, 1)), ("lenet", (12, 12, 1)), ("cnn3d", (11, 11, 11, 1))]
)
def test_any_number_of_axes_and_threads(rng, make, shape, threads):
    model = getattr(cycnn.models, make)(3, shape, rng=0)
    with cycnn.num_threads(threads):
        profile = quick(model, normal(rng, (2, *shape)))
    assert f"{threads} thread" in profile.title
    assert all(row.forward.ms > 0 for row in profile.rows)
    assert all(row.forward.fma_share > 0 for row in profile.rows if row.macs)


def test_several_inputs_and_outputs(rng):
    shared = cycnn.Dense(4)
    graph = cycnn.Graph(
        {
            "p": (shared, "a"), "q": (shared, "b"), "s": (cycnn.Add(), ("p", "q")),
            "u": (cycnn.Split(2), "s"),
        },
        inputs={"a": (3,), "b": (3,)}, outputs=("u:0", "q"), rng=0, dtype="float64",
    )  # fmt: skip
    x = normal(rng, (5, 3)), normal(rng, (5, 3))
    profile = quick(graph, x, training=False, input_gradient=True)
    rows = {row.name: row for row in profile.rows}
    assert rows["s"].forward.bytes == 3 * 5 * 4 * 8
    assert rows["s"].backward.bytes == 0  # hands dy on, to both
    assert rows["p"].backward.operations == 2 * rows["p"].forward.operations == 2 * 2 * 5 * 12
    assert "5 x 3, 3, float64" in profile.title and "inference" in profile.title
    with pytest.raises(ValueError, match="loss needs a model of one output, got 2"):
        quick(graph, x, np.zeros((5, 2)), cycnn.MeanSquaredError())


def test_printout(batch):
    model, (x, _) = small_model(), batch
    profile = quick(model, x)
    text = str(profile).splitlines()
    assert text[0] == profile.title
    assert text[0].startswith("Sequential on 8 x 6 x 6 x 2, float32, ")
    assert len(text) == 4 + len(profile.rows) + 1 + 3
    assert text[4].split()[:2] == ["first", "Conv"]
    assert text[-2].startswith("total") and text[-2].endswith("100.0%")
    assert f"FMA peak {profile.fma_peak:,.0f} GFLOP/s" in text[-1]
    flatten = next(line for line in text if " Flatten " in line)
    assert flatten.split().count("-") == 8


def test_what_profile_refuses(batch):
    model, (x, target) = small_model(), batch
    with pytest.raises(TypeError, match="model must be a Model, got 3"):
        cycnn.profile(3, x)
    with pytest.raises(ValueError, match="target must come with the loss, got None"):
        cycnn.profile(model, x, loss=cycnn.CrossEntropy())
    with pytest.raises(ValueError, match="loss must come with the target, got None"):
        cycnn.profile(model, x, target)
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        cycnn.profile(model, x, repeats=0)
    with pytest.raises(ValueError, match="at least one row, got 0"):
        cycnn.profile(model, x[:0])
    with pytest.raises(ValueError, match=r"\(N, 6, 6, 2\), got \(8, 6, 6, 1\)"):
        cycnn.profile(model, x[..., :1])
    with pytest.raises(cycnn.NotBuiltError):
        cycnn.profile(cycnn.Sequential([cycnn.ReLU()]), x)


def test_roofs():
    """Half the width is about half the peak's operations; a core has less than a TFLOP/s."""
    with cycnn.num_threads(1):
        single, double = (roof.fma_peak(dtype, seconds=0.05) for dtype in ("float32", "float64"))
        assert 1.2 < single / double < 3.4
        assert 0.1 < single < 1000
        assert 0.1 < roof.copy_bandwidth(seconds=0.05) < 1000
