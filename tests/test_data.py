"""Data sets, splits, batches and augmentation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cycnn
from cycnn import data

from .helpers import same_bits


def test_digits_are_the_whole_set_split_once():
    (x, y), (x_test, y_test) = cycnn.datasets.digits()
    assert x.dtype == np.float32 and y.dtype == np.int64
    assert x.min() == 0 and x.max() == 1
    rows = {row.tobytes() for row in np.concatenate([x, x_test])}
    assert len(rows) == 1797  # so no image stands on both sides
    counts = np.bincount(y) + np.bincount(y_test)
    assert_array_equal(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    (again, _), _ = cycnn.datasets.digits()
    assert same_bits(x, again)


def test_splits_take_every_row_once():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    for kept, held in (
        data.random_split(100, 0.25, rng=0), data.stratified_split(labels, 0.25, rng=0),
        data.random_split(100, 25, rng=0),
    ):  # fmt: skip
        assert len(held) == 25
        assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(100))
    _, held = data.stratified_split(labels, 0.2, rng=0)
    assert_array_equal(np.bincount(labels[held]), [12, 6, 2])
    for wrong in (0.0, 1.0, 1.5, -0.1, 0, 100, float("nan")):
        with pytest.raises(ValueError, match="held_out"):
            data.random_split(100, wrong)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_batches_take_every_row_once(rng, shuffle, weighted):
    x = np.arange(44, dtype=np.uint8).reshape(22, 2)[::2]  # rows 0, 4, 8, ... strided
    weight = np.where(np.arange(11) == 3, 0.0, 2.0) if weighted else None
    batches = data.Batches(
        x, np.arange(11), weight, np.arange(10), dtype="float32", batch_size=2, accumulate=2,
        shuffle=shuffle, rng=rng,
    )  # fmt: skip
    expected = [row for row in range(10) if not weighted or row != 3]
    for _ in range(2):
        seen, updates = [], 0
        for parts, total in batches:
            updates += 1
            rows = [(batch.copy(), target, share) for batch, target, share, _ in parts]
            count = sum(len(target) for _, target, _ in rows)
            assert total == (2 * count if weighted else count)
            for batch, target, share in rows:
                assert batch.dtype == np.float32 and len(batch) <= 2
                assert_array_equal(batch, x[target])
                assert (share is None) if weight is None else np.all(share == 2)
                seen.extend(target)
        assert updates == len(batches) == 3
        assert sorted(seen) == expected
        assert shuffle or seen == expected


@pytest.mark.parametrize("shape", [(9, 2), (5, 7, 1), (4, 3, 5, 2)])
def test_a_shifted_image_moves_as_a_whole(rng, shape):
    x = rng.integers(1, 100, (50, *shape)).astype("float32")
    shifted, axes = data.random_shift(x, rng, pixels=1), range(len(shape) - 1)
    moves = set()
    for before, after in zip(x, shifted, strict=True):
        wide = np.pad(before, [(1, 1)] * len(axes) + [(0, 0)])
        found = [
            offset
            for offset in np.ndindex(*(3 for _ in axes))
            if np.array_equal(
                after, wide[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=False))]
            )
        ]
        assert found
        moves.add(found[0])
    assert len(moves) > 2


def test_a_flipped_image_is_mirrored(rng):
    x = rng.integers(0, 100, (60, 3, 4, 2)).astype("float32")
    flipped = data.random_flip(x, rng)
    mirrored = [not np.array_equal(a, b) for a, b in zip(x, flipped, strict=True)]
    assert 10 < sum(mirrored) < 50
    for before, after, moved in zip(x, flipped, mirrored, strict=True):
        assert_array_equal(after, before[:, ::-1] if moved else before)
