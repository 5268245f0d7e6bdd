"""Rows of data on their way into a model: splits, batches, augmentation.

Everything random is drawn from a `numpy.random.Generator`, so one seed fixes a whole run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cycnn._check import Array, as_input

Index = NDArray[np.int64]
Rng = int | np.random.Generator | None
Augment = Callable[[Array, np.random.Generator], Array]
Batch = tuple[Array, Array, Array | None]  # x, target, weights


def held_out_count(count: int, held_out: float) -> int:
    """Return how many of `count` rows `held_out`, a fraction (rounded up) or a number, names.

    Raises ValueError when either side of the split would be empty.
    """
    if isinstance(held_out, (int, np.integer)) and not isinstance(held_out, bool):
        number = int(held_out)
    elif 0 < held_out < 1:
        number = math.ceil(count * held_out)
    else:
        raise ValueError(f"held_out must be a fraction in (0, 1) or a row count, got {held_out!r}")
    if not 0 < number < count:
        raise ValueError(
            f"held_out must leave rows on both sides, got {held_out!r} of {count} rows"
        )
    return number


def random_split(count: int, held_out: float, *, rng: Rng = None) -> tuple[Index, Index]:
    """Split the row numbers 0 .. count - 1 at random into two sorted arrays.

    Parameters
    ----------
    count : int
        Number of rows.
    held_out : float or int
        What the second array takes: a fraction in (0, 1), rounded up, or a number of rows.
    rng : int or Generator, optional
        Source of randomness.

    Returns
    -------
    kept, held : ndarray of shape (count - n,) and (n,)
    """
    number = held_out_count(count, held_out)
    order = np.random.default_rng(rng).permutation(count)
    return np.sort(order[number:]), np.sort(order[:number])


def stratified_split(labels: ArrayLike, held_out: float, *, rng: Rng = None) -> tuple[Index, Index]:
    """Split row numbers at random so that every class keeps its share on both sides.

    Each class gives floor(its exact share) rows; the rows still missing come from the classes
    with the largest remainders.

    Parameters
    ----------
    labels : array_like of shape (N,)
        The class of each row.
    held_out : float or int
        What the second array takes: a fraction in (0, 1), rounded up, or a number of rows.
    rng : int or Generator, optional
        Source of randomness.

    Returns
    -------
    kept, held : ndarray of shape (N - n,) and (n,)
        Sorted row numbers.

    Examples
    --------
    >>> kept, held = stratified_split([0, 0, 0, 0, 1, 1], 1 / 3, rng=0)
    >>> len(kept), len(held)
    (4, 2)
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"labels must have shape (N,), got {labels.shape}")
    number = held_out_count(len(labels), held_out)
    generator = np.random.default_rng(rng)
    _, members, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares, remainders = np.divmod(counts * number, len(labels))
    shares[np.argsort(-remainders, kind="stable")[: number - shares.sum()]] += 1
    held = np.sort(
        np.concatenate(
            [
                generator.permutation(np.flatnonzero(members == label))[:share]
                for label, share in enumerate(shares)
            ]
        )
    )
    return np.setdiff1d(np.arange(len(labels)), held), held


class Batches:
    """The batches of one epoch after another; each is gathered when it is asked for.

    Rows keep their own dtype until then, so images stay uint8 in memory, and every batch is
    gathered into the same contiguous memory: it is overwritten by the next.

    Parameters
    ----------
    x : ndarray of shape (N, ...)
        Of any real dtype and layout.
    target : ndarray of shape (N, ...)
    weight : ndarray of shape (N,), optional
        What each row counts, not 0 for all of `rows`.
    rows : ndarray of int
        The rows to use; those of weight 0 are left out.
    dtype : dtype
        What batches of x are cast to.
    batch_size : int
        Rows per batch; the last batch has those that remain.
    accumulate : int
        Batches per update.
    shuffle : bool
        Draw a new order for each epoch.
    rng : Generator
        Source of the order and of what `augment` draws.
    augment : callable, optional
        `augment(x, rng) -> x`, called with each batch after the cast.
    """

    def __init__(
        self,
        x: Array,
        target: Array,
        weight: Array | None,
        rows: Index,
        *,
        dtype: DTypeLike,
        batch_size: int,
        accumulate: int = 1,
        shuffle: bool = True,
        rng: np.random.Generator,
        augment: Augment | None = None,
    ) -> None:
        self.rows = rows if weight is None else rows[weight[rows] > 0]
        self.x = np.ascontiguousarray(x)  # np.take would copy all of it at every call
        self.target, self.weight = target, weight
        self.batch_size, self.accumulate = min(batch_size, len(self.rows)), accumulate
        self.shuffle, self.rng, self.augment = shuffle, rng, augment
        self._batch = np.empty((self.batch_size, *x.shape[1:]), dtype)
        same = self.x.dtype == self._batch.dtype
        self._picked = self._batch if same else np.empty(self._batch.shape, self.x.dtype)

    def __len__(self) -> int:
        """Return the number of updates in an epoch."""
        return -(-len(self.rows) // (self.batch_size * self.accumulate))

    def __iter__(self) -> Iterator[tuple[Iterator[Batch], float]]:
        """Yield for each update of one epoch its batches and the sum of their weights."""
        order = self.rng.permutation(self.rows) if self.shuffle else self.rows
        size = self.batch_size * self.accumulate
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            total = len(rows) if self.weight is None else self.weight[rows].sum()
            yield self._gathered(rows), float(total)

    def _gathered(self, rows: Index) -> Iterator[Batch]:
        for start in range(0, len(rows), self.batch_size):
            index = rows[start : start + self.batch_size]
            x, picked = self._batch[: len(index)], self._picked[: len(index)]
            # "clip" lets NumPy write straight into `picked`; every index here is in range.
            np.take(self.x, index, axis=0, out=picked, mode="clip")
            if picked.dtype != x.dtype:
                np.copyto(x, picked, casting="unsafe")
            if self.augment is not None:
                shape = x.shape
                x = as_input(self.augment(x, self.rng), x.dtype, "the result of augment")
                if x.shape != shape:
                    raise ValueError(f"augment must keep the shape {shape}, got {x.shape}")
            yield x, self.target[index], None if self.weight is None else self.weight[index]


def random_shift(x: Array, rng: np.random.Generator, *, pixels: int = 2) -> Array:
    """Move every image by its own whole number of pixels; zeros come in at the edge.

    Parameters
    ----------
    x : ndarray of shape (N, L, C), (N, H, W, C) or (N, D, H, W, C)
    rng : Generator
    pixels : int
        Each axis moves by -pixels .. pixels, all equally likely.

    Returns
    -------
    ndarray like x

    Examples
    --------
    >>> trainer.fit(x, y, augment=random_shift)                              # doctest: +SKIP
    >>> trainer.fit(x, y, augment=functools.partial(random_shift, pixels=3)) # doctest: +SKIP
    """
    axes = tuple(range(1, x.ndim - 1))
    border = [(pixels, pixels) if axis in axes else (0, 0) for axis in range(x.ndim)]
    # windows: (N, one axis of 2 * pixels + 1 offsets per spatial axis, C, extents of the image)
    windows = sliding_window_view(np.pad(x, border), [x.shape[a] for a in axes], axis=axes)
    offsets = rng.integers(0, 2 * pixels + 1, (len(axes), len(x)))
    return np.ascontiguousarray(np.moveaxis(windows[(np.arange(len(x)), *offsets)], 1, -1))


def random_flip(x: Array, rng: np.random.Generator) -> Array:
    """Mirror every second image, by chance, left to right (along the last spatial axis).

    Parameters
    ----------
    x : ndarray of shape (N, ..., W, C)
    rng : Generator

    Returns
    -------
    ndarray like x
    """
    mirrored = rng.random(len(x)) < 0.5
    mask = mirrored.reshape(-1, *[1] * (x.ndim - 1))
    return np.ascontiguousarray(np.where(mask, x[..., ::-1, :], x))
