"""Augmentation: what it does to images, that a seed fixes it, and threads do not change it."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cycnn
from cycnn import data

from .helpers import DTYPES, normal, same_bits

PLAIN = {
    "flip": data.random_flip,
    "shift": data.random_shift,
    "reflected": functools.partial(data.random_shift, mode="reflect"),
    "cutout": functools.partial(data.random_cutout, size=3),
    "noise": functools.partial(data.random_noise, std=0.5),
}


@pytest.mark.parametrize("augment", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(9, 2), (6, 7, 3), (4, 5, 3, 2)])
def test_shape_dtype_seed(augment, dtype, shape):
    x = normal(np.random.default_rng(0), (12, *shape), dtype)
    before = x.copy()
    one, two = (augment(x, np.random.default_rng(1)) for _ in range(2))
    assert one.shape == x.shape and one.dtype == dtype
    assert same_bits(one, two) and same_bits(x, before)
    assert not same_bits(one, augment(x, np.random.default_rng(2)))
    assert not same_bits(one, x)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_a_cutout_is_one_box(rng, size):
    x = rng.uniform(1, 2, (60, 6, 7, 2)).astype("float32")
    cut = data.random_cutout(x, rng, size=size)
    areas = set()
    for before, after in zip(x, cut, strict=True):
        gone = (after == 0).all(-1)
        assert_array_equal(after, np.where(gone[..., None], 0, before))
        rows, columns = gone.any(1), gone.any(0)
        assert_array_equal(gone, rows[:, None] & columns)  # a box
        assert 1 <= rows.sum() <= size and 1 <= columns.sum() <= size
        assert np.diff(np.flatnonzero(rows)).max(initial=1) == 1
        areas.add(int(gone.sum()))
    assert max(areas) <= size**2 and (size == 1 or len(areas) > 1)


def test_noise_has_its_spread(rng):
    noise = data.random_noise(np.zeros((50, 20, 20, 1), "float32"), rng, std=0.3)
    assert_allclose([noise.std(), noise.mean()], [0.3, 0], atol=0.01)


def test_reflection_brings_no_zeros(rng):
    x = rng.uniform(1, 2, (20, 5, 5, 1))
    assert data.random_shift(x, rng, pixels=2, mode="reflect").all()
    assert not data.random_shift(x, rng, pixels=2).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_mixup(rng, dtype):
    x, labels = normal(rng, (9, 4), dtype), rng.integers(0, 3, 9)
    mixed, share = data.Mixup(1.0, classes=3)(x, labels, np.random.default_rng(1))
    draws = np.random.default_rng(1)
    part, order = draws.beta(1.0, 1.0), draws.permutation(9)
    assert mixed.dtype == share.dtype == dtype
    assert_allclose(mixed, part * x + (1 - part) * x[order], rtol=1e-5, atol=1e-6)
    assert_allclose(share, part * np.eye(3)[labels] + (1 - part) * np.eye(3)[labels[order]], 1e-6)
    value, _ = cycnn.CrossEntropy()(mixed[:, :3], share)
    hard = [cycnn.CrossEntropy()(mixed[:, :3], target)[0] for target in (labels, labels[order])]
    assert_allclose(value, part * hard[0] + (1 - part) * hard[1], rtol=1e-5)
    x, target = data.Mixup()(x, x * 2, rng)  # of a regression
    assert_allclose(target, 2 * x, rtol=1e-6)


def test_a_chain_in_a_fit_for_any_number_of_threads(rng):
    x, y = rng.integers(0, 256, (90, 8, 8, 1), dtype=np.uint8), rng.integers(0, 3, 90)
    chain = [*PLAIN.values(), data.Mixup(0.4, classes=3)]
    weights = []
    for threads in (1, 2):
        model = cycnn.Sequential(
            [cycnn.Conv(8, 3), cycnn.ReLU(), cycnn.GlobalAvgPool(), cycnn.Dense(3)],
            input_shape=(8, 8, 1), rng=0,
        )  # fmt: skip
        trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.SGD(1e-3))
        with cycnn.num_threads(threads):
            history = trainer.fit(x, y, epochs=2, rng=3, augment=chain, verbose=0)
        assert np.isfinite(history["loss"]).all() and 0 <= history["accuracy"][0] <= 1
        weights.append([p.data for p in model.parameters().values()])
    assert all(map(same_bits, *weights))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, rng: data.random_cutout(x, rng, size=0), "size.*0"),
        (lambda x, rng: data.random_noise(x, rng, std=-1), "std.*-1"),
        (lambda x, rng: data.Mixup(0.0), "alpha.*0"),
        (lambda x, rng: data.Mixup(classes=0), "classes.*0"),
        (lambda x, rng: data.Mixup()(x, np.zeros(2, int), rng), "classes must be given"),
        (lambda x, rng: data.Mixup(classes=2)(x, np.array([0, 2]), rng), "0 .. 1"),
        (lambda x, rng: data.as_augments([data.random_flip, 3]), "callable.*3"),
        (lambda x, rng: data.augmented(x, x, (lambda x, rng: x[:1],), rng), r"keep the shape.*2"),
    ],
)
def test_wrong_arguments_are_named(rng, call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(np.zeros((2, 4, 4, 1)), rng)
