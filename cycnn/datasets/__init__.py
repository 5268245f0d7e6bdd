"""Data sets that ship with cycnn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cycnn._check import Array


def digits() -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return 1,797 handwritten digits of 8 x 8 pixels, split into 1,437 and 360.

    They are the test part of the "Optical Recognition of Handwritten Digits" data set of
    E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository,
    https://doi.org/10.24432/C50P49, licensed under CC BY 4.0: 43 people wrote them, and a pixel
    counts how many of the 16 points of a 4 x 4 square were inked.

    The split is stored with the images and never changes. Every digit has its share on both
    sides; `stratified_split(labels, 360, rng=0)` of NumPy 2.4 drew it.

    Returns
    -------
    (x, y), (x_test, y_test) : ndarrays
        x is float32 of shape (N, 8, 8, 1), the counts divided by 16, so in [0, 1]; y is int64 of
        shape (N,), the digit.

    Examples
    --------
    >>> (x, y), (x_test, y_test) = digits()
    >>> x.shape, x_test.shape, y[:4].tolist()
    ((1437, 8, 8, 1), (360, 8, 8, 1), [0, 1, 2, 3])
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        images, labels, test = file["images"], file["labels"], file["test"]
    x = (images[..., np.newaxis] / 16).astype(np.float32)
    y = labels.astype(np.int64)
    train = np.setdiff1d(np.arange(len(x)), test)
    return (x[train], y[train]), (x[test], y[test])
