"""The rows of the layer contract: what each public layer is called with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import cycnn


@dataclass(frozen=True)
class Row:
    """One way to make and use a layer."""

    make: Callable
    shape: tuple  # of the input without the batch; several inputs are a tuple of shapes
    by_row: bool = True  # in training, does a row's result depend on that row alone?
    training: bool = False  # does training change what the layer computes?

    @property
    def several(self):
        """Whether the layer takes a tuple of inputs."""
        return isinstance(self.shape[0], tuple)

    @property
    def shapes(self):
        """The shape of every input."""
        return self.shape if self.several else (self.shape,)

    def build(self, dtype="float32", rng=0):
        """Return the layer, built."""
        return self.make().build(self.shape, rng=rng, dtype=dtype)

    def inputs(self, rng, rows, dtype="float32"):
        """Return inputs whose values are all different and none near 0, where ReLU has its kink."""
        arrays = []
        for shape in self.shapes:
            size = rows * int(np.prod(shape))
            values = 4 * (rng.permutation(size) + 0.5) / max(size, 1) - 2
            arrays.append(values.reshape(rows, *shape).astype(dtype))
        return tuple(arrays)

    def call(self, layer, inputs, training=False):
        """Return y, backward."""
        return layer(tuple(inputs) if self.several else inputs[0], training=training)


ROWS = {
    "Conv": [
        Row(lambda: cycnn.Conv(5, 3, padding="same"), (6, 7, 3)),
        Row(lambda: cycnn.Conv(4, (2, 3), stride=(2, 1), padding=((0, 1), (2, 0))), (5, 6, 2)),
        Row(lambda: cycnn.Conv(6, 3, groups=2, dilation=2, padding=2, bias=False), (5, 6, 4)),
        Row(lambda: cycnn.Conv(4, 3, padding=1, padding_mode="reflect", stride=2), (5, 4, 3)),
        Row(lambda: cycnn.Conv(3, 5, padding="causal"), (9, 2)),
        Row(lambda: cycnn.Conv(3, 2, padding=1, padding_mode="circular"), (3, 4, 3, 2)),
        Row(lambda: cycnn.Conv(19, 1), (4, 3, 17)),
    ],
    "DepthwiseConv": [
        Row(lambda: cycnn.DepthwiseConv(3, padding=1), (5, 6, 5)),
        Row(lambda: cycnn.DepthwiseConv(3, multiplier=2, stride=2, padding="same"), (5, 6, 3)),
        Row(lambda: cycnn.DepthwiseConv(2, padding_mode="replicate", padding=1), (7, 3)),
    ],
    "Dense": [
        Row(lambda: cycnn.Dense(5), (19,)),
        Row(lambda: cycnn.Dense(17, bias=False), (3,)),
    ],
    "BatchNorm": [
        Row(cycnn.BatchNorm, (4, 3, 5), by_row=False, training=True),
        Row(cycnn.BatchNorm, (7,), by_row=False, training=True),
        Row(cycnn.BatchNorm, (3, 2, 2, 3), by_row=False, training=True),
    ],
    "ReLU": [Row(cycnn.ReLU, (4, 5, 3)), Row(cycnn.ReLU, (7,))],
    "MaxPool": [
        Row(lambda: cycnn.MaxPool(2), (6, 7, 5)),
        Row(lambda: cycnn.MaxPool(3, stride=2, padding=1, ceil_mode=True), (6, 5, 3)),
        Row(lambda: cycnn.MaxPool(2, stride=1, dilation=2), (8, 3)),
        Row(lambda: cycnn.MaxPool(2), (4, 4, 5, 2)),
    ],
    "AvgPool": [
        Row(lambda: cycnn.AvgPool(2), (6, 7, 5)),
        Row(lambda: cycnn.AvgPool(3, stride=2, padding=1, ceil_mode=True), (6, 5, 3)),
        Row(lambda: cycnn.AvgPool(3, stride=2, padding=1, count_include_pad=True), (9, 3)),
        Row(lambda: cycnn.AvgPool(2), (4, 4, 5, 2)),
    ],
    "GlobalAvgPool": [
        Row(cycnn.GlobalAvgPool, (4, 5, 3)),
        Row(cycnn.GlobalAvgPool, (7, 19)),
        Row(cycnn.GlobalAvgPool, (2, 3, 2, 3)),
    ],
    "Flatten": [Row(cycnn.Flatten, (3, 4, 5)), Row(cycnn.Flatten, (7,))],
    "Dropout": [
        Row(lambda: cycnn.Dropout(0.4), (4, 5, 3), by_row=False, training=True),
        Row(lambda: cycnn.Dropout(0.0), (9,), by_row=False),
    ],
    "Add": [
        Row(cycnn.Add, ((4, 5, 3), (4, 5, 3))),
        Row(lambda: cycnn.Add([0.5, -2.0, 1.0]), ((7,), (7,), (7,))),
    ],
    "Concat": [
        Row(cycnn.Concat, ((4, 5, 3), (4, 5, 2))),
        Row(lambda: cycnn.Concat(axis=1), ((2, 5, 3), (4, 5, 3), (1, 5, 3))),
    ],
    "Residual": [
        Row(lambda: cycnn.Residual([cycnn.Conv(3, 3, padding=1), cycnn.ReLU()]), (4, 5, 3)),
        Row(
            lambda: cycnn.Residual(
                [cycnn.Conv(4, 3, stride=2, padding=1), cycnn.BatchNorm()],
                shortcut=[cycnn.Conv(4, 1, stride=2, bias=False)],
            ),
            (5, 6, 3),
            by_row=False,
            training=True,
        ),
    ],
    "Parallel": [
        Row(lambda: cycnn.Parallel([[cycnn.Conv(2, 3, padding=1), cycnn.ReLU()], []]), (4, 5, 3)),
        Row(
            lambda: cycnn.Parallel([[cycnn.Dense(4)], [cycnn.Dense(4)]], merge=cycnn.Add()),
            ((3,), (5,)),
        ),
    ],
}


def cases(select=lambda row: True):
    """Return (name, row) pairs as pytest parameters."""
    import pytest

    return [
        pytest.param(row, id=f"{name}{number}")
        for name, rows in ROWS.items()
        for number, row in enumerate(rows)
        if select(row)
    ]
