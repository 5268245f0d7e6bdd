"""`model.trace`: the trainer's own gradients, layer by layer; and Lambda inside a model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cycnn
from cycnn.autodiff import Variable, concatenate, exp, max, mean, sigmoid  # noqa: A004

from .helpers import normal, same_bits


def small_model(rng=0):
    shared = cycnn.Conv(3, 3, padding="same")
    return cycnn.Sequential(
        [
            cycnn.Conv(3, 3, padding="same", name="first"), cycnn.BatchNorm(), cycnn.ReLU(),
            shared, cycnn.Residual([cycnn.ReLU(), shared]), cycnn.Dropout(0.3),
            cycnn.Parallel([[cycnn.Conv(2, 1)], []]), cycnn.MaxPool(2), cycnn.Flatten(),
            cycnn.Dense(4),
        ],
        input_shape=(6, 6, 2),
        rng=rng,
    )  # fmt: skip


class Kept(cycnn.SGD):
    """An optimizer that keeps the gradients it is given, and changes nothing."""

    def step(self, parameters):
        self.seen = {name: p.grad.copy() for name, p in parameters.items()}
        for p in parameters.values():
            p.clear_grad()


@pytest.fixture
def batch(rng):
    return normal(rng, (8, 6, 6, 2)), rng.integers(0, 4, 8)


def test_the_trainers_step_has_the_same_bits(batch):
    model, (x, target) = small_model(), batch
    steps = model.trace(x, target, cycnn.CrossEntropy())
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), Kept(0.1))
    assert trainer.step(x, target) == steps.loss
    seen = {}
    for node in reversed(model.program.nodes):  # a shared layer's gradients add up
        for name, gradient in steps[node.name].gradients.items():
            key = next(k for k, p in model.parameters().items() if p is node.layer.parameter(name))
            seen[key] = seen[key] + gradient if key in seen else gradient
    assert seen.keys() == trainer.optimizer.seen.keys()
    assert all(same_bits(seen[name], grad) for name, grad in trainer.optimizer.seen.items())


def test_each_step_hands_on_what_the_next_receives(batch):
    model, (x, target) = small_model(), batch
    steps = model.trace(x, target, cycnn.CrossEntropy())
    assert [s.name for s in steps] == ["loss", *(n.name for n in reversed(model.program.nodes))]
    assert same_bits(steps[0].dx, steps[1].dy)
    assert same_bits(steps["9"].dx, steps["8"].dy)
    assert same_bits(steps["first"].x, x)
    assert steps["first"].dx.shape == x.shape
    assert steps["9"].y is steps["loss"].x
    first, second = steps["4.add"].dx
    total = second + steps["4.body.0"].dx
    assert_array_equal(steps["3"].dy, total)
    assert_array_equal(first, steps["4.body.1"].dy)


def test_the_model_stays_as_it_is(batch):
    model, (x, target) = small_model(), batch
    twin = copy.deepcopy(model)
    steps = model.trace(x, target, cycnn.CrossEntropy())
    for name, array in model.buffers().items():
        assert same_bits(array, twin.buffers()[name])
    assert not any(p.grad.any() for p in model.parameters().values())
    again = model.trace(x, target, cycnn.CrossEntropy())  # the same dropout mask too
    assert steps.loss == again.loss
    assert all(same_bits(a.dx, b.dx) for a, b in zip(steps, again, strict=True) if a.name != "4.add"
               and a.name != "6.merge")  # fmt: skip


def test_inference_and_frozen_layers(batch):
    model, (x, target) = small_model(), batch
    model["first"].freeze()
    steps = model.trace(x, target, cycnn.CrossEntropy(), training=False)
    assert steps["first"].gradients == {}
    assert same_bits(steps["9"].y, model(x)[0])
    assert same_bits(steps["5"].x, steps["5"].y)  # no dropout


def test_printout(batch):
    model, (x, target) = small_model(), batch
    steps = model.trace(x, target, cycnn.CrossEntropy())
    text = str(steps).splitlines()
    assert text[0].startswith(f"loss {steps.loss:.6g}")
    assert len(text) == 4 + len(steps)
    assert text[-1].split()[:2] == ["first", "Conv"]
    assert "|dweight|" in text[-1]
    assert "8 x 6 x 6 x 2" in text[-1]
    with pytest.raises(KeyError):
        steps["second"]
    assert steps[1:3] == steps.steps[1:3]


# Lambda


def test_lambda_trains_inside_a_model():
    (x, y), (x_test, y_test) = cycnn.datasets.digits()
    model = cycnn.Sequential(
        [
            cycnn.Conv(16, 3), cycnn.Lambda(lambda x, slope: x * sigmoid(slope * x),
                                            weights={"slope": np.ones(16)}),
            cycnn.MaxPool(2), cycnn.Conv(32, 3), cycnn.ReLU(),
            cycnn.Lambda(lambda x: mean(x, axis=(1, 2))), cycnn.Dense(10),
        ],
        input_shape=(8, 8, 1),
        rng=0,
    )  # fmt: skip
    assert "1.slope" in model.parameters()
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam(3e-3))
    trainer.fit(x, y, epochs=6, batch_size=64, rng=0, verbose=0)
    assert trainer.evaluate(x_test, y_test)["accuracy"] > 0.85
    assert (model.parameters()["1.slope"].data != 1).any()
    assert cycnn.check(model).ok


def test_lambda_equals_the_layer_it_spells_out(rng):
    x = normal(rng, (4, 5, 3))
    spelt = cycnn.Lambda(lambda x: max(x, 0.0)).build((5, 3))
    relu = cycnn.ReLU().build((5, 3))
    for dy in normal(rng, (2, 4, 5, 3)):
        (a, a_backward), (b, b_backward) = spelt(x), relu(x)
        assert_array_equal(a, b)
        assert_array_equal(a_backward(dy), b_backward(dy))


def test_lambda_of_several_inputs():
    def gated(a, b, scale=2.0):
        return concatenate([a * sigmoid(b) * scale, b], axis=-1)

    layer = cycnn.Lambda(gated)
    graph = cycnn.Graph(
        {"g": (layer, ("a", "b"))}, inputs={"a": (3,), "b": (3,)}, outputs=("g",), dtype="float64"
    )
    assert graph.output_shape == (6,)
    a, b = np.ones((2, 3)), np.zeros((2, 3))
    y, backward = graph((a, b))
    da, db = backward(np.ones_like(y))
    assert_allclose(y[:, :3], 1)
    assert_allclose(da, 1)  # 2 sigmoid(0)
    assert_allclose(db, 2 * 0.25 + 1)
    merged = cycnn.Lambda(lambda *parts: parts[0] - parts[-1])
    assert merged.build(((2,), (2,), (2,))).output_shape == (2,)
    assert cycnn.Lambda(lambda a, b: a).build(((2,), (3,)))(
        (np.ones((1, 2)), np.ones((1, 3)))
    )[1](np.ones((1, 2)))[1].tolist() == [[0, 0, 0]]  # fmt: skip


def test_a_model_with_a_lambda_is_not_saved(tmp_path):
    def doubled(x):
        return 2 * x

    model = cycnn.Sequential([cycnn.Dense(2), cycnn.Lambda(doubled)], input_shape=(3,), rng=0)
    with pytest.raises(TypeError, match=r"Lambda: function.*code.*doubled"):
        model.save(tmp_path / "m.cycnn")
    assert not any(tmp_path.iterdir())


def test_a_file_that_names_a_lambda_is_not_loaded(tmp_path):
    named = type("Lambda", (cycnn.ReLU,), {})  # a class of this name, so that a file says Lambda
    cycnn.Sequential([named()], input_shape=(3,)).save(tmp_path / "m.cycnn")
    with pytest.raises(cycnn.ModelFileError, match="unknown layer class 'Lambda'"):
        cycnn.load(tmp_path / "m.cycnn")
    with pytest.raises(cycnn.ModelFileError, match="cannot be built"):
        cycnn.load(tmp_path / "m.cycnn", custom={"Lambda": cycnn.Lambda})


def test_what_lambda_refuses():
    with pytest.raises(TypeError, match="function must be callable, got 3"):
        cycnn.Lambda(3)
    with pytest.raises(TypeError, match="must return a Variable, got ndarray"):
        cycnn.Lambda(lambda x: x.value).build((3,))
    with pytest.raises(ValueError, match=r"must keep the rows, \(2, ...\), got \(\)"):
        cycnn.Lambda(lambda x: x.sum()).build((3,))
    with pytest.raises(ValueError, match="one input"):
        cycnn.Lambda(lambda x: x).build(((3,), (3,)))


def test_lambda_shows_its_name():
    def squared(x, w):
        return x**2 * w

    assert repr(cycnn.Lambda(squared, weights={"w": 1})) == "Lambda(squared, w)"
    assert isinstance(exp(0.0), Variable)
