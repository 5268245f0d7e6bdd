"""Rows of data on their way into a model: splits, batches, augmentation.

Everything random is drawn from a `numpy.random.Generator`, so one seed fixes a whole run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cycnn._check import Array, as_input, positive_int, real_number

Index = NDArray[np.int64]
Rng = int | np.random.Generator | None
Edge = Literal["constant", "edge", "reflect", "wrap"]
Augment = Callable[..., Any]
"""augment(x, rng) -> x; with an attribute takes_target, augment(x, target, rng) -> x, target."""


class Batch(NamedTuple):
    """Rows that go through a model together."""

    x: Array
    target: Array
    weight: Array | None  # the sample weight of each row
    total: float  # the sum of what the rows count in the loss


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
        The sample weights.
    rows : ndarray of int
        The rows to use; those that count 0 are left out.
    counts : ndarray of shape (N,), optional
        What each row counts in the loss, not 0 for all of `rows`; `weight` by default.
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
    augment : callable or sequence of them, optional
        `augment(x, rng) -> x`, called with each batch after the cast.
    """

    def __init__(
        self,
        x: Array,
        target: Array,
        weight: Array | None,
        rows: Index,
        *,
        counts: Array | None = None,
        dtype: DTypeLike,
        batch_size: int,
        accumulate: int = 1,
        shuffle: bool = True,
        rng: np.random.Generator,
        augment: Augment | Sequence[Augment] | None = None,
    ) -> None:
        self.counts = weight if counts is None else counts
        self.rows = rows if self.counts is None else rows[self.counts[rows] > 0]
        self.x = np.ascontiguousarray(x)  # np.take would copy all of it at every call
        self.target, self.weight = target, weight
        self.batch_size, self.accumulate = min(batch_size, len(self.rows)), accumulate
        self.shuffle, self.rng, self.augment = shuffle, rng, as_augments(augment)
        self._batch = np.empty((self.batch_size, *x.shape[1:]), dtype)
        same = self.x.dtype == self._batch.dtype
        self._picked = self._batch if same else np.empty(self._batch.shape, self.x.dtype)

    def __len__(self) -> int:
        """Return the number of updates in an epoch."""
        return -(-len(self.rows) // (self.batch_size * self.accumulate))

    def settings(self) -> dict[str, Any]:
        """Return what has to be the same for an epoch to be gone on with."""
        return {
            "rows": len(self.rows), "batch_size": self.batch_size, "accumulate": self.accumulate,
            "shuffle": self.shuffle,
        }  # fmt: skip

    def __iter__(self) -> Iterator[tuple[Iterator[Batch], float]]:
        """Yield for each update of one epoch its batches and the sum of what they count."""
        return self.epoch()

    def epoch(self, done: int = 0, now: Any = None) -> Iterator[tuple[Iterator[Batch], float]]:
        """Yield the same for an epoch of which so many updates are `done`.

        The generator is as it was when the epoch began; after its order is drawn, it goes on from
        the state `now`, which it had after the last update.
        """
        order = self.rng.permutation(self.rows) if self.shuffle else self.rows
        if now is not None:
            self.rng.bit_generator.state = now
        size = self.batch_size * self.accumulate
        for start in range(done * size, len(order), size):
            rows = order[start : start + size]
            yield self._gathered(rows), self._count(rows)

    def _count(self, rows: Index) -> float:
        return float(len(rows) if self.counts is None else self.counts[rows].sum())

    def _gathered(self, rows: Index) -> Iterator[Batch]:
        for start in range(0, len(rows), self.batch_size):
            index = rows[start : start + self.batch_size]
            x, picked = self._batch[: len(index)], self._picked[: len(index)]
            # "clip" lets NumPy write straight into `picked`; every index here is in range.
            np.take(self.x, index, axis=0, out=picked, mode="clip")
            if picked.dtype != x.dtype:
                np.copyto(x, picked, casting="unsafe")
            x, target = augmented(x, self.target[index], self.augment, self.rng)
            weight = None if self.weight is None else self.weight[index]
            yield Batch(x, target, weight, self._count(index))


class Stream:
    """The batches of an iterable that is gone through once in each epoch.

    Parameters
    ----------
    source : iterable of (x, y) or (x, y, sample_weight)
        Batches of any number of rows.
    check : callable
        `check(x, y, sample_weight) -> Batch`, or raises where they do not fit the model.
    accumulate : int
        Batches per update; the last update of an epoch has those that remain.
    rng : Generator
        Source of what `augment` draws.
    augment : callable or sequence of them, optional
    """

    def __init__(
        self,
        source: Iterable[Any],
        check: Callable[[Any, Any, Any], Batch],
        *,
        accumulate: int,
        rng: np.random.Generator,
        augment: Augment | Sequence[Augment] | None,
    ) -> None:
        self.source, self.check, self.accumulate, self.rng = source, check, accumulate, rng
        self.augment = as_augments(augment)

    def __len__(self) -> int:
        """Return the number of updates in an epoch, 0 where the source does not know its own."""
        batches = len(self.source) if isinstance(self.source, Sized) else 0
        return -(-batches // self.accumulate)

    def settings(self) -> dict[str, Any]:
        """Return what has to be the same for an epoch to be gone on with."""
        return {"accumulate": self.accumulate}

    def epoch(self, done: int = 0, now: Any = None) -> Iterator[tuple[list[Batch], float]]:
        """Yield for each update of one epoch its batches and the sum of what they count.

        The first `done` updates are read from the source and passed over.
        """
        if now is not None:
            self.rng.bit_generator.state = now
        waiting: list[Batch] = []
        left = done * self.accumulate
        for item in self.source:
            if left:
                left -= 1
                continue
            waiting.append(self._batch(item))
            if len(waiting) == self.accumulate:
                yield waiting, sum(batch.total for batch in waiting)
                waiting = []
        if waiting:
            yield waiting, sum(batch.total for batch in waiting)

    def _batch(self, item: Any) -> Batch:
        if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
            raise TypeError(
                f"every batch must be (x, y) or (x, y, sample_weight), got {type(item).__name__}"
            )
        batch = self.check(item[0], item[1], item[2] if len(item) == 3 else None)
        x = batch.x if self.accumulate == 1 else batch.x.copy()  # the source may use it again
        x, target = augmented(x, batch.target, self.augment, self.rng)
        return batch._replace(x=x, target=target)


def as_augments(augment: Augment | Sequence[Augment] | None) -> tuple[Augment, ...]:
    """Return one or several augmentations as a tuple; what cannot be called is a TypeError."""
    if augment is None:
        return ()
    steps = tuple(augment) if isinstance(augment, (tuple, list)) else (augment,)
    for step in steps:
        if not callable(step):
            raise TypeError(f"augment must be a callable or a list of them, got {step!r}")
    return steps


def augmented(
    x: Array, target: Array, steps: tuple[Augment, ...], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return a batch after all augmentations, in their order."""
    for step in steps:
        shape = x.shape
        if getattr(step, "takes_target", False):
            result, target = step(x, target, rng)
        else:
            result = step(x, rng)
        x = as_input(result, x.dtype, "the result of augment")
        if x.shape != shape:
            raise ValueError(f"augment must keep the shape {shape}, got {x.shape}")
    return x, target


def random_shift(
    x: Array, rng: np.random.Generator, *, pixels: int = 2, mode: Edge = "constant"
) -> Array:
    """Move every image by its own whole number of pixels; zeros come in at the edge.

    This is the border of `pixels` and the random crop of He et al. (2016), section 4.2.

    Parameters
    ----------
    x : ndarray of shape (N, L, C), (N, H, W, C) or (N, D, H, W, C)
    rng : Generator
    pixels : int
        Each axis moves by -pixels .. pixels, all equally likely.
    mode : {"constant", "edge", "reflect", "wrap"}
        What comes in at the edge, as `numpy.pad` calls it; "constant" is zeros.

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
    windows = sliding_window_view(np.pad(x, border, mode), [x.shape[a] for a in axes], axis=axes)
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


def random_cutout(x: Array, rng: np.random.Generator, *, size: int = 8) -> Array:
    """Set a square of each image to zero; its middle may be any pixel, so it may stick out.

    DeVries and Taylor (2017), "Improved regularization of convolutional neural networks with
    cutout", section 3.2.

    Parameters
    ----------
    x : ndarray of shape (N, L, C), (N, H, W, C) or (N, D, H, W, C)
    rng : Generator
    size : int
        Pixels of the square along each axis.

    Returns
    -------
    ndarray like x
    """
    positive_int(size, "random_cutout: size")
    inside = np.ones((len(x), *[1] * (x.ndim - 1)), dtype=bool)
    for axis in range(1, x.ndim - 1):
        begin = rng.integers(0, x.shape[axis], (len(x), 1)) - size // 2
        pixel = np.arange(x.shape[axis])
        covered = (pixel >= begin) & (pixel < begin + size)
        shape = [len(x), *(x.shape[axis] if a == axis else 1 for a in range(1, x.ndim))]
        inside = inside & covered.reshape(shape)
    return np.where(inside, x.dtype.type(0), x)


def random_noise(x: Array, rng: np.random.Generator, *, std: float = 0.1) -> Array:
    """Add a normal number of standard deviation `std` to each value.

    Parameters
    ----------
    x : ndarray of shape (N, ...)
    rng : Generator
    std : float

    Returns
    -------
    ndarray like x
    """
    if not 0 <= real_number(std, "random_noise: std") < math.inf:
        raise ValueError(f"random_noise: std must be finite and not negative, got {std!r}")
    noise: Array = rng.standard_normal(x.shape, dtype=x.dtype.type)
    noise *= x.dtype.type(std)
    noise += x
    return noise


class Mixup:
    """Mix each row, and its target, with another one of its batch.

    x = share * x[n] + (1 - share) * x[m], and the targets alike; m is a random permutation, and the
    share one number for the batch, from Beta(alpha, alpha): Zhang et al. (2018), "mixup: beyond
    empirical risk minimization". Integer labels become shares of the classes, which `CrossEntropy`
    takes.

    Parameters
    ----------
    alpha : float
        Above 0; the smaller, the closer most shares are to 0 or 1.
    classes : int, optional
        How many, where targets are labels; other targets are mixed as the numbers they are.

    Examples
    --------
    >>> trainer.fit(x, y, augment=[random_flip, Mixup(0.2, classes=10)])     # doctest: +SKIP
    """

    takes_target = True

    def __init__(self, alpha: float = 0.2, *, classes: int | None = None) -> None:
        if not 0 < real_number(alpha, "Mixup: alpha") < math.inf:
            raise ValueError(f"Mixup: alpha must be positive and finite, got {alpha!r}")
        self.alpha = float(alpha)
        self.classes = None if classes is None else positive_int(classes, "Mixup: classes")

    def __call__(self, x: Array, target: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return the mixed rows and their targets."""
        share, order = rng.beta(self.alpha, self.alpha), rng.permutation(len(x))
        if target.dtype.kind in "iu":
            if self.classes is None:
                raise ValueError("Mixup: classes must be given where targets are labels, got None")
            if not 0 <= target.min() <= target.max() < self.classes:
                raise ValueError(f"Mixup: labels must be in 0 .. {self.classes - 1}")
            target = np.eye(self.classes, dtype=x.dtype)[target]
        return _mixed(x, order, share), _mixed(target, order, share)

    def __repr__(self) -> str:
        return f"Mixup({self.alpha:g}, classes={self.classes})"


def _mixed(a: Array, order: Index, share: float) -> Array:
    mixed: Array = a.dtype.type(share) * a + a.dtype.type(1 - share) * a[order]
    return mixed
