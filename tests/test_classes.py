"""Names of classes: set, saved, used on raw images."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn


def network(classes=3):
    """Return a small built network."""
    return cycnn.Sequential(
        [cycnn.Conv(4, 3), cycnn.ReLU(), cycnn.GlobalAvgPool(), cycnn.Dense(classes)],
        input_shape=(6, 7, 3), rng=0,
    )  # fmt: skip


def test_a_loaded_file_names_the_classes_of_raw_images(rng, tmp_path):
    model, images = network(), rng.integers(0, 256, (9, 6, 7, 3), dtype=np.uint8)
    model.classes = ["ant", "bee", "Käfer"]
    model.save(tmp_path / "model")
    again = cycnn.load(tmp_path / "model")
    assert again.classes == ("ant", "bee", "Käfer")
    names = again.classify(images)
    assert names.shape == (9,)
    assert_array_equal(names, np.array(model.classes)[model.predict(images).argmax(1)])
    assert again.classify(images[:0]).shape == (0,)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_array_equal(twin.classify(images), names)


def test_without_names(tmp_path, rng):
    model = network()
    with pytest.raises(ValueError, match="classes must be set"):
        model.classify(rng.random((1, 6, 7, 3)))
    model.save(tmp_path / "model")
    assert cycnn.load(tmp_path / "model").classes is None
    model.classes = "abc"
    assert model.classes == ("a", "b", "c")
    model.classes = None
    assert model.classes is None


def test_one_output_for_two_classes(rng):
    model, x = network(1), rng.normal(size=(20, 6, 7, 3))
    model.classes = ["no", "yes"]
    expected = np.where(model.predict(x)[:, 0] > 0, "yes", "no")
    assert_array_equal(model.classify(x), expected)


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "b"], ["a", "b", 3], ["a"] * 4])
def test_names_that_do_not_fit(names):
    with pytest.raises(ValueError, match="classes"):
        network().classes = names
    with pytest.raises(ValueError, match=r"classes.*\(4, 5, 4\)"):
        network()[:1].classes = ["a", "b", "c", "d"]


def test_names_come_before_nothing_that_is_not_built():
    with pytest.raises(cycnn.NotBuiltError):
        cycnn.Sequential([cycnn.Dense(2)]).classes = ["a", "b"]
