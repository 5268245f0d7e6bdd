"""The rows of the layer contract: what each public layer is called with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import cycnn
from cycnn.autodiff import absolute, sigmoid


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
        for i, shape in enumerate(self.shapes, start=1):
            size = rows * int(np.prod(shape))
            values = 4 * (rng.permutation(size) + i / (len(self.shapes) + 1)) / max(size, 1) - 2
            arrays.append(values.reshape(rows, *shape).astype(dtype))
        return tuple(arrays)

    def call(self, layer, inputs, training=False):
        """Return y, backward; several outputs as one."""
        y, backward = layer(tuple(inputs) if self.several else inputs[0], training=training)
        return joined(y, backward) if isinstance(y, tuple) else (y, backward)


@dataclass(frozen=True)
class IndexRow(Row):
    """A layer whose second input holds pixels of its output, each at most once."""

    def inputs(self, rng, rows, dtype="float32"):
        """Return values, and whole numbers as indices."""
        values, _ = super().inputs(rng, rows, dtype)
        *spatial, channels = self.build().output_shape
        number = np.arange(np.prod(spatial))[:, None]
        pixels = np.broadcast_to(number, (rows, len(number), channels))
        count = int(np.prod(values.shape[1:-1]))
        return values, rng.permuted(pixels, axis=1)[:, :count].reshape(values.shape)


def joined(parts, backward):
    """Return the values of all parts of a sample in one row, and the backward of that row."""
    sizes = [int(np.prod(part.shape[1:])) for part in parts]
    y = np.concatenate(
        [part.reshape(len(part), n) for part, n in zip(parts, sizes, strict=True)], 1
    )

    def backward_of_row(dy, input_gradient=True):
        rows = np.split(dy, np.cumsum(sizes)[:-1], axis=1)
        gradients = [dy.reshape(part.shape) for dy, part in zip(rows, parts, strict=True)]
        return backward(tuple(gradients), input_gradient)

    return y, backward_of_row


def squashed(x):
    """Return a function of each value, written with autodiff: a Lambda of it can be pickled."""
    return x / (1 + absolute(x))


def gate(x, gates, slope):
    """Return a function of two inputs and a weight."""
    return x * sigmoid(gates * slope)


ROWS = {
    "Conv": [
        Row(lambda: cycnn.Conv(5, 3, padding="same"), (6, 7, 3)),
        Row(lambda: cycnn.Conv(4, (2, 3), stride=(2, 1), padding=((0, 1), (2, 0))), (5, 6, 2)),
        Row(lambda: cycnn.Conv(6, 3, groups=2, dilation=2, padding=2, bias=False), (5, 6, 4)),
        Row(lambda: cycnn.Conv(4, 3, padding=1, padding_mode="reflect", stride=2), (5, 4, 3)),
        Row(lambda: cycnn.Conv(3, 5, padding="causal"), (9, 2)),
        Row(lambda: cycnn.Conv(3, 2, padding=1, padding_mode="circular"), (3, 4, 3, 2)),
        Row(lambda: cycnn.Conv(19, 1), (4, 3, 17)),
        Row(lambda: cycnn.Conv(4, 3, region=((1, 5), (0, 4)), padding=1), (6, 7, 3)),
    ],
    "ConvTranspose": [
        Row(lambda: cycnn.ConvTranspose(5, 3, stride=2, padding="same"), (3, 4, 3)),
        Row(lambda: cycnn.ConvTranspose(4, (2, 3), padding=((0, 1), (1, 0))), (4, 3, 2)),
        Row(
            lambda: cycnn.ConvTranspose(
                4, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2, bias=False
            ),
            (3, 2, 6),
        ),
        Row(lambda: cycnn.ConvTranspose(3, 4, stride=3), (5, 2)),
        Row(lambda: cycnn.ConvTranspose(2, 2, stride=(1, 2, 1)), (2, 2, 3, 2)),
    ],
    "LocallyConnected": [
        Row(lambda: cycnn.LocallyConnected(3, 3), (5, 4, 3)),
        Row(lambda: cycnn.LocallyConnected(2, 2, stride=2, padding=1, bias=False), (4, 5, 3)),
        Row(lambda: cycnn.LocallyConnected(17, 2, dilation=2, padding="same"), (4, 2)),
        Row(lambda: cycnn.LocallyConnected(2, 3, padding=1, padding_mode="circular"), (3, 4, 2)),
        Row(lambda: cycnn.LocallyConnected(2, 2), (2, 3, 2, 2)),
        Row(lambda: cycnn.LocallyConnected(6, 2, padding=1, groups=2), (3, 4, 4)),
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
    "GroupNorm": [
        Row(lambda: cycnn.GroupNorm(3), (4, 5, 6)),
        Row(lambda: cycnn.GroupNorm(1, affine=False), (3, 2, 2, 3)),
        Row(lambda: cycnn.GroupNorm(2), (70,)),
    ],
    "InstanceNorm": [
        Row(cycnn.InstanceNorm, (4, 5, 3)),
        Row(lambda: cycnn.InstanceNorm(1e-3, False), (9, 19)),
    ],
    "LayerNorm": [
        Row(cycnn.LayerNorm, (3, 2, 7)),
        Row(lambda: cycnn.LayerNorm(3, 1e-3), (4, 5, 3)),
        Row(lambda: cycnn.LayerNorm(affine=False), (37,)),
    ],
    "RMSNorm": [
        Row(cycnn.RMSNorm, (3, 2, 7)),
        Row(lambda: cycnn.RMSNorm(2, affine=False), (2, 4, 5)),
    ],
    "LocalResponseNorm": [
        Row(lambda: cycnn.LocalResponseNorm(5, 0.5, 0.75, 2), (3, 2, 19)),
        Row(lambda: cycnn.LocalResponseNorm(4, 0.3, 1.2), (7,)),
        Row(lambda: cycnn.LocalResponseNorm(3, 0.5, within=True), (4, 5, 3)),
        Row(lambda: cycnn.LocalResponseNorm(2, 0.5, within=True), (7, 3)),
    ],
    "Normalize": [
        Row(lambda: cycnn.Normalize(0.5, 2), (4, 5, 3)),
        Row(lambda: cycnn.Normalize([1, 2, -3], [0.5, 1, 4]), (3,)),
    ],
    "ReLU": [Row(cycnn.ReLU, (4, 5, 3)), Row(cycnn.ReLU, (7,))],
    "ReLU6": [Row(cycnn.ReLU6, (4, 5, 3))],
    "Clip": [Row(lambda: cycnn.Clip(-1.1, 0.7), (7, 3)), Row(lambda: cycnn.Clip(-1e9, 0.7), (5,))],
    "LeakyReLU": [Row(lambda: cycnn.LeakyReLU(0.2), (4, 5, 3))],
    "PReLU": [Row(cycnn.PReLU, (4, 5, 3)), Row(lambda: cycnn.PReLU(-0.5), (70,))],
    "ELU": [Row(lambda: cycnn.ELU(0.7), (4, 5, 3))],
    "SELU": [Row(cycnn.SELU, (4, 5, 3))],
    "CELU": [Row(lambda: cycnn.CELU(2), (4, 5, 3))],
    "GELU": [Row(cycnn.GELU, (4, 5, 3)), Row(lambda: cycnn.GELU("tanh"), (7,))],
    "SiLU": [Row(cycnn.SiLU, (4, 5, 3))],
    "Mish": [Row(cycnn.Mish, (4, 5, 3))],
    "Sigmoid": [Row(cycnn.Sigmoid, (4, 5, 3))],
    "Tanh": [Row(cycnn.Tanh, (4, 5, 3))],
    "HardSigmoid": [Row(cycnn.HardSigmoid, (4, 5, 3))],
    "HardSwish": [Row(cycnn.HardSwish, (4, 5, 3))],
    "Softplus": [Row(lambda: cycnn.Softplus(2), (4, 5, 3))],
    "Softsign": [Row(cycnn.Softsign, (4, 5, 3))],
    "Softmax": [Row(cycnn.Softmax, (4, 5, 3)), Row(cycnn.Softmax, (37,))],
    "LogSoftmax": [Row(cycnn.LogSoftmax, (4, 5, 3)), Row(cycnn.LogSoftmax, (37,))],
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
    "LpPool": [
        Row(lambda: cycnn.LpPool(2), (6, 7, 5)),
        Row(lambda: cycnn.LpPool(3, p=3, stride=2, padding=1, ceil_mode=True), (6, 5, 3)),
        Row(lambda: cycnn.LpPool(2, p=1.5, stride=1, dilation=2, padding_mode="reflect"), (8, 3)),
        Row(lambda: cycnn.LpPool(2, p=1), (4, 4, 5, 2)),
    ],
    "AdaptiveMaxPool": [
        Row(lambda: cycnn.AdaptiveMaxPool(3), (7, 5, 5)),
        Row(lambda: cycnn.AdaptiveMaxPool((2, 1, 3)), (3, 2, 4, 2)),
    ],
    "AdaptiveAvgPool": [
        Row(lambda: cycnn.AdaptiveAvgPool((3, 4)), (7, 3, 5)),
        Row(lambda: cycnn.AdaptiveAvgPool(4), (9, 19)),
    ],
    "MaxUnpool": [
        IndexRow(lambda: cycnn.MaxUnpool(2), ((2, 3, 5), (2, 3, 5))),
        IndexRow(lambda: cycnn.MaxUnpool(3, stride=2, padding=1), ((4, 3, 2), (4, 3, 2))),
        IndexRow(lambda: cycnn.MaxUnpool(2, output_size=9), ((4, 19), (4, 19))),
    ],
    "GlobalMaxPool": [
        Row(cycnn.GlobalMaxPool, (4, 5, 3)),
        Row(cycnn.GlobalMaxPool, (7, 19)),
        Row(cycnn.GlobalMaxPool, (2, 3, 2, 3)),
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
        Row(lambda: cycnn.Dropout(0.4, channelwise=True), (4, 5, 19), by_row=False, training=True),
    ],
    "Lambda": [
        Row(lambda: cycnn.Lambda(squashed), (4, 5, 3)),
        Row(lambda: cycnn.Lambda(gate, weights={"slope": np.ones(3)}), ((4, 3), (4, 3))),
    ],
    "Add": [
        Row(cycnn.Add, ((4, 5, 3), (4, 5, 3))),
        Row(lambda: cycnn.Add([0.5, -2.0, 1.0]), ((7,), (7,), (7,))),
    ],
    "Concat": [
        Row(cycnn.Concat, ((4, 5, 3), (4, 5, 2))),
        Row(lambda: cycnn.Concat(axis=1), ((2, 5, 3), (4, 5, 3), (1, 5, 3))),
    ],
    "Average": [Row(cycnn.Average, ((4, 5, 3), (4, 5, 3), (4, 5, 3)))],
    "Multiply": [
        Row(cycnn.Multiply, ((4, 5, 3), (4, 5, 3))),
        Row(cycnn.Multiply, ((19,), (19,), (19,), (19,))),
    ],
    "Maximum": [
        Row(cycnn.Maximum, ((4, 5, 3), (4, 5, 3))),
        Row(cycnn.Maximum, ((19,), (19,), (19,))),
    ],
    "Slice": [
        Row(lambda: cycnn.Slice(1, 4), (4, 5, 6)),
        Row(lambda: cycnn.Slice(-3, None, axis=1), (5, 4, 3)),
        Row(lambda: cycnn.Slice(None, 2, axis=-2), (3, 2, 4, 2)),
    ],
    "Split": [
        Row(lambda: cycnn.Split(3), (4, 5, 6)),
        Row(lambda: cycnn.Split((1, 3), axis=1), (5, 4, 3)),
    ],
    "Pad": [
        Row(lambda: cycnn.Pad(1, value=0.5), (4, 3, 5)),
        Row(lambda: cycnn.Pad(((2, 1), (0, 3)), "reflect"), (4, 5, 3)),
        Row(lambda: cycnn.Pad(((5, 2),), "replicate"), (4, 17)),
        Row(lambda: cycnn.Pad(((1, 0), (2, 2), (0, 1)), "circular"), (2, 3, 2, 2)),
    ],
    "Crop": [
        Row(lambda: cycnn.Crop(1), (4, 3, 5)),
        Row(lambda: cycnn.Crop(((2, 0),)), (6, 3)),
    ],
    "Upsample": [
        Row(lambda: cycnn.Upsample((2, 3)), (3, 4, 3)),
        Row(lambda: cycnn.Upsample(2, "linear"), (3, 4, 3)),
        Row(lambda: cycnn.Upsample(3, "linear", align_corners=True), (5, 17)),
        Row(lambda: cycnn.Upsample((2, 1, 3), "linear"), (2, 3, 2, 2)),
    ],
    "Reshape": [
        Row(lambda: cycnn.Reshape((2, -1, 3)), (4, 9)),
        Row(lambda: cycnn.Reshape([-1]), (3, 2, 5)),
    ],
    "Permute": [
        Row(lambda: cycnn.Permute((2, 1, 3)), (4, 5, 3)),
        Row(lambda: cycnn.Permute((4, 1, 3, 2)), (2, 3, 4, 5)),
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
