"""Every public loss: gradient, weights, targets it takes and refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cycnn
from cycnn import losses

from .helpers import normal, same_bits

DTYPES = ("float32", "float64")


def labels(rng, shape):
    return rng.integers(0, shape[-1], shape[:-1])


# How to make each loss, the shape of its outputs, and how to draw targets for it.
ROWS = [
    (lambda: cycnn.CrossEntropy(), (6, 5), labels),
    (lambda: cycnn.CrossEntropy(label_smoothing=0.2), (6, 5), labels),
    (lambda: cycnn.CrossEntropy(class_weight=[1, 2, 0.5]), (7, 3), labels),
    (lambda: cycnn.CrossEntropy(ignore_label=1), (9, 3), labels),
    (lambda: cycnn.CrossEntropy(ignore_label=0, label_smoothing=0.1), (3, 2, 3, 4), labels),
    (lambda: cycnn.CrossEntropy(), (6, 5), lambda rng, shape: rng.dirichlet(np.ones(5), 6)),
    (lambda: cycnn.Hinge(margin=0.7), (6, 5), labels),
    (lambda: cycnn.MeanSquaredError(), (5, 3, 2), lambda rng, shape: rng.normal(size=shape)),
    (lambda: cycnn.MeanAbsoluteError(), (5, 4), lambda rng, shape: rng.normal(size=shape)),
    (lambda: cycnn.Huber(delta=0.5), (5, 4), lambda rng, shape: rng.normal(size=shape)),
    (lambda: cycnn.BinaryCrossEntropy(), (5, 4), lambda rng, shape: rng.random(shape)),
    (lambda: cycnn.BinaryCrossEntropy(), (8, 1), lambda rng, shape: rng.integers(0, 2, 8)),
    (lambda: cycnn.BinaryHinge(), (5, 4), lambda rng, shape: rng.choice([-1, 1], shape)),
]
each_row = pytest.mark.parametrize(
    "make, shape, draw", ROWS, ids=[f"{make()}{i}" for i, (make, _, _) in enumerate(ROWS)]
)


def test_every_public_loss_has_a_row():
    public = {name for name in losses.__all__ if name[0].isupper()} - {"Loss"}
    assert {type(make()).__name__ for make, _, _ in ROWS} == public
    assert public <= set(cycnn.__all__)


@each_row
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_the_slope_of_the_value(rng, make, shape, draw, weighted):
    loss, y, target = make(), rng.normal(size=shape), draw(rng, shape)
    weight = rng.random(len(y)) + 0.2 if weighted else None
    dy = loss(y, target, weight)[1]()
    assert dy.shape == shape
    for index in np.ndindex(shape):
        step = np.zeros(shape)
        step[index] = 1e-6
        slope = (loss(y + step, target, weight)[0] - loss(y - step, target, weight)[0]) / 2e-6
        assert_allclose(dy[index], slope, rtol=0, atol=1e-8)


@each_row
@pytest.mark.parametrize("dtype", DTYPES)
def test_contract(rng, make, shape, draw, dtype):
    loss, y, target = make(), normal(rng, shape, dtype), draw(rng, shape)
    before, given = y.copy(), np.array(target)
    y.flags.writeable = False
    value, backward = loss(y, target)
    dy = backward()
    assert isinstance(value, float) and dy.dtype == dtype
    assert same_bits(y, before) and same_bits(np.array(target), given)
    again = pickle.loads(pickle.dumps(loss))
    assert repr(again) == repr(loss) and again(y, target)[0] == value
    assert np.isfinite(loss(np.asfortranarray(y), target)[0])
    keep = next(
        n for n in range(len(y)) if np.any(np.asarray(target)[n] != 1) or "ignore" not in repr(loss)
    )
    assert np.isfinite(loss(y[keep : keep + 1], target[keep : keep + 1])[0])


@each_row
def test_weights_count_rows(rng, make, shape, draw):
    """A row of weight 2 is a row that stands there twice; one of weight 0 is not there."""
    loss, y, target = make(), rng.normal(size=shape), np.asarray(draw(rng, shape))
    weight = np.ones(len(y))
    weight[1], weight[2] = 2, 0
    rows = [0, 1, 1, *range(3, len(y))]
    value, backward = loss(y, target, weight)
    expected, expected_backward = loss(y[rows], target[rows])
    assert_allclose(value, expected, rtol=1e-12)
    assert_allclose(backward()[3:], expected_backward()[3:], rtol=1e-12, atol=1e-15)
    assert not backward()[2].any()


@each_row
@pytest.mark.parametrize("weight", [[0.0], [-1.0], [np.nan], [np.inf], [1.0, 1.0]])
def test_24_impossible_weights(rng, make, shape, draw, weight):
    loss, y, target = make(), rng.normal(size=shape), draw(rng, shape)
    weight = np.resize(weight, len(y) if len(weight) == 1 else len(y) + 1)
    with pytest.raises(ValueError, match="weight"):
        loss(y, target, weight)


@each_row
def test_13_27_rows_that_do_not_fit(rng, make, shape, draw):
    loss, y, target = make(), rng.normal(size=shape), np.asarray(draw(rng, shape))
    with pytest.raises(ValueError, match="at least one row"):
        loss(y[:0], target[:0])
    with pytest.raises(ValueError, match="target"):
        loss(y, target[:-1])
    with pytest.raises(TypeError, match="target|label"):
        loss(y, np.full(target.shape, "a"))


@pytest.mark.parametrize("loss", [cycnn.CrossEntropy(), cycnn.Hinge()])
@pytest.mark.parametrize(
    "target, message",
    [([0, 3], "0 .. 2.*3"), ([0, -1], "-1"), ([0, 0.5], "0.5"), ([0, np.nan], "nan")],
)
def test_22_23_labels_that_are_none(loss, target, message):
    with pytest.raises(ValueError, match=message):
        loss(np.zeros((2, 3)), target)


def test_24_all_labels_ignored():
    loss = cycnn.CrossEntropy(ignore_label=255)
    with pytest.raises(ValueError, match="ignored"):
        loss(np.zeros((2, 3)), [255, 255])
    with pytest.raises(ValueError, match="weight"):
        cycnn.CrossEntropy(class_weight=[0, 1, 1])(np.zeros((2, 3)), [0, 0])
    with pytest.raises(ValueError, match="254"):
        loss(np.zeros((2, 3)), [255, 254])


def test_an_ignored_label_is_not_there(rng):
    y, target = rng.normal(size=(2, 3, 4, 5)), rng.integers(0, 5, (2, 3, 4))
    target[0, 1] = -1
    loss = cycnn.CrossEntropy(ignore_label=-1)
    value, backward = loss(y, target)
    kept = target >= 0
    expected, expected_backward = cycnn.CrossEntropy()(y[kept], target[kept])
    assert_allclose(value, expected, rtol=1e-12)
    assert_allclose(backward()[kept], expected_backward(), rtol=1e-12)
    assert not backward()[0, 1].any()
    metric = loss.metrics["accuracy"]
    assert_allclose(metric(target, y), np.mean(y.argmax(-1)[kept] == target[kept]))


@pytest.mark.parametrize(
    "share, message", [([[0.5, 0.6]], "add up to 1.*1.1"), ([[1.5, -0.5]], "negative.*-0.5")]
)
def test_shares_that_are_none(share, message):
    with pytest.raises(ValueError, match=message):
        cycnn.CrossEntropy()(np.zeros((1, 2)), share)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: cycnn.CrossEntropy(label_smoothing=1.5), r"label_smoothing.*1\.5"),
        (lambda: cycnn.CrossEntropy(class_weight=[1, -1]), "class_weight.*negative"),
        (lambda: cycnn.CrossEntropy(class_weight=[1, 1])(np.zeros((1, 3)), [0]), "3.*2"),
        (lambda: cycnn.CrossEntropy(ignore_label=0.5), "ignore_label"),
        (lambda: cycnn.CrossEntropy()(np.zeros(3), [0, 1, 2]), r"\(3,\)"),
        (lambda: cycnn.Hinge(margin=0), "margin.*0"),
        (lambda: cycnn.Hinge()(np.zeros((2, 2, 3)), [[0, 1], [0, 1]]), r"\(N, C\)"),
        (lambda: cycnn.Huber(delta=-1), "delta.*-1"),
        (lambda: cycnn.Huber(delta=np.nan), "delta.*nan"),
        (lambda: cycnn.BinaryCrossEntropy()(np.zeros((1, 1)), [1.5]), r"\[0, 1\].*1\.5"),
        (lambda: cycnn.BinaryHinge()(np.zeros((2, 1)), [-1, 0]), "-1 or 1.*0"),
        (lambda: cycnn.MeanSquaredError()(np.zeros((2, 1)), [0, np.nan]), "finite.*nan"),
        (lambda: cycnn.MeanSquaredError()(np.zeros((2, 3)), [0, 1]), r"\(2, 3\).*\(2,\)"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_yes_and_no_as_keras_has_them(rng):
    y, answer = rng.normal(size=(6, 1)), np.array([0, 1, 1, 0, 1, 0])
    one = cycnn.BinaryHinge()(y, answer)
    two = cycnn.BinaryHinge()(y, (2 * answer - 1)[:, None])
    assert one[0] == two[0]
    assert_array_equal(one[1](), two[1]())
    assert cycnn.BinaryHinge().metrics["accuracy"](answer, y) == np.mean((y[:, 0] > 0) == answer)


def test_a_loss_trains_a_regression(rng):
    x = rng.normal(size=(200, 3))
    target = x @ np.array([1.0, -2.0, 0.5])
    for loss in (cycnn.MeanSquaredError(), cycnn.Huber(), cycnn.MeanAbsoluteError()):
        model = cycnn.Sequential([cycnn.Dense(1)], input_shape=(3,), rng=0, dtype="float64")
        trainer = cycnn.Trainer(model, loss, cycnn.Adam(0.05))
        history = trainer.fit(x, target, epochs=30, rng=0, verbose=0)
        assert history["loss"][-1] < 0.05 * history["loss"][0]
        assert list(history) == ["loss"]


def test_ignored_and_weighted_labels_in_a_fit(rng):
    """Accumulated batches weigh as one batch does, whatever their labels count."""
    x, y = rng.normal(size=(60, 4)), rng.integers(0, 4, 60)
    weights = []
    for options in ({"batch_size": 60}, {"batch_size": 15, "accumulate": 4}):
        model = cycnn.Sequential([cycnn.Dense(4)], input_shape=(4,), rng=0, dtype="float64")
        loss = cycnn.CrossEntropy(class_weight=[1, 2, 3, 4], ignore_label=2)
        trainer = cycnn.Trainer(model, loss, cycnn.SGD(0.1))
        trainer.fit(x, y, epochs=2, shuffle=False, verbose=0, **options)
        weights.append(model[0].weight.data)
        with pytest.raises(ValueError, match="weight"):
            trainer.fit(x, np.full(60, 2), verbose=0)
    assert_allclose(*weights, rtol=1e-10)


def test_one_class_per_pixel_can_be_learnt(rng):
    x = rng.normal(size=(40, 6, 5, 2)).astype("float32")
    y = (x[..., 0] > x[..., 1]).astype(int)
    y[:, 0, 0] = 255
    model = cycnn.Sequential([cycnn.Conv(2, 1)], input_shape=(6, 5, 2), rng=0)
    loss = cycnn.CrossEntropy(ignore_label=255)
    trainer = cycnn.Trainer(model, loss, cycnn.Adam(0.1))
    trainer.fit(x, y, epochs=10, rng=0, verbose=0)
    assert trainer.evaluate(x, y)["accuracy"] > 0.95
