"""The ready-made networks of one and of three axes against the same networks of PyTorch.

PyTorch computes in float64, and so does cycnn: what differs is the order of sums.
"""

from __future__ import annotations

import numpy as np
import pytest

import cycnn

from ..helpers import normal
from .test_torch import channels_first, channels_last, one_thread

torch = pytest.importorskip("torch")
nn = torch.nn
assert one_thread  # a fixture of this module too


def audio_1d(classes, channels):
    def block(c, k, kernel, stride=1):
        conv = nn.Conv1d(c, k, kernel, stride, padding=kernel // 2, bias=False)
        return conv, nn.BatchNorm1d(k), nn.ReLU()

    return nn.Sequential(
        *block(channels, 64, 9, 4), *block(64, 64, 3), nn.MaxPool1d(4),
        *block(64, 128, 3), nn.MaxPool1d(4), *block(128, 256, 3),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(256, classes),
    )  # fmt: skip


class ChannelsLast(nn.Module):
    """Flatten in the order of cycnn, so that the weights of the next layer are the same matrix."""

    def forward(self, x):
        return x.movedim(1, -1).flatten(1)


def voxnet(classes, channels, features):
    return nn.Sequential(
        nn.Conv3d(channels, 32, 5, 2), nn.LeakyReLU(0.1),
        nn.Conv3d(32, 32, 3), nn.LeakyReLU(0.1), nn.MaxPool3d(2),
        ChannelsLast(), nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, classes),
    )  # fmt: skip


NETWORKS = {
    "cnn1d": ((400, 2), lambda: audio_1d(7, 2)),
    "cnn3d": ((16, 13, 18, 2), lambda: voxnet(7, 2, 2 * 1 * 2 * 32)),
}


def as_torch(array):
    """Return one parameter of cycnn as PyTorch holds it."""
    if array.ndim > 2:
        return np.moveaxis(array, (-1, -2), (0, 1))
    return array.T if array.ndim == 2 else array


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients(rng, name):
    shape, make = NETWORKS[name]
    ours = getattr(cycnn.models, name)(7, shape, rng=0, dtype="float64")
    theirs = make().double().train()
    pairs = list(zip(ours.parameters().values(), theirs.parameters(), strict=True))
    for mine, other in pairs:
        values = as_torch(mine.data).copy()
        assert tuple(other.shape) == values.shape
        other.data.copy_(torch.tensor(values))
    x, target = normal(rng, (5, *shape), "float64"), rng.integers(7, size=5)
    tensor = channels_first(x).requires_grad_()

    y, backward = ours(x, training=True)
    value, loss_backward = cycnn.CrossEntropy()(y, target)
    dx = backward(loss_backward())
    expected = theirs(tensor)
    loss = nn.functional.cross_entropy(expected, torch.from_numpy(target))
    loss.backward()

    # Sums of a few thousand terms, through ten layers that keep the size of things.
    near = {"rtol": 1e-9, "atol": 1e-11}
    np.testing.assert_allclose(y, expected.detach().numpy(), **near)
    np.testing.assert_allclose(value, loss.item(), **near)
    np.testing.assert_allclose(dx, channels_last(tensor.grad), **near)
    for mine, other in pairs:
        gradient = as_torch(mine.grad)
        np.testing.assert_allclose(gradient, other.grad.numpy(), **near)
