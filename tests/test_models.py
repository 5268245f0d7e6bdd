"""The ready-made networks: sizes known from the literature, and a step that learns."""

from __future__ import annotations

import numpy as np
import pytest

import cycnn

from .helpers import normal, same_bits


def count(model):
    """Return the number of learnt values."""
    return sum(p.data.size for p in model.parameters().values())


@pytest.mark.parametrize(
    "make, classes, shape, parameters",
    [
        ("resnet18", 1000, (224, 224, 3), 11_689_512),  # He et al. 2016, as counted by torchvision
        ("resnet50", 1000, (224, 224, 3), 25_557_032),  # likewise
        ("mobilenet_v2", 1000, (224, 224, 3), 3_504_872),  # Sandler et al. 2018, likewise
        ("cnn3d", 40, (32, 32, 32, 1), 921_736),  # Maturana and Scherer 2015
    ],
)
def test_parameter_counts_are_those_of_the_literature(make, classes, shape, parameters):
    model = getattr(cycnn.models, make)(classes, shape, rng=0)
    assert count(model) == parameters
    assert tuple(model.output_shape) == (classes,)


@pytest.mark.parametrize(
    "make, shape",
    [
        ("lenet", (28, 28, 1)), ("lenet", (12, 12, 1)), ("vgg11", (32, 32, 3)),
        ("resnet18", (32, 32, 3)), ("resnet50", (32, 32, 3)), ("mobilenet_v2", (32, 32, 3)),
        ("cnn1d", (61, 1)), ("cnn1d", (500, 2)), ("cnn3d", (11, 12, 13, 1)),
    ],
)  # fmt: skip
def test_a_few_steps_lower_the_loss(rng, make, shape):
    model = getattr(cycnn.models, make)(3, shape, rng=0)
    x, y = normal(rng, (3, *shape)), np.arange(3)
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.SGD(1e-3))
    losses = [trainer.step(x, y) for _ in range(4)]
    assert min(losses[1:]) < losses[0]
    assert all(np.isfinite(losses))
    logits = model.predict(x)
    assert logits.shape == (3, 3)
    assert same_bits(model.predict(x[1:2]), logits[1:2])


def test_the_networks_of_the_benchmarks():
    lenet = cycnn.models.lenet(10, (28, 28, 1), rng=0)
    assert [p.shape for p in lenet.parameters().values()][:3:2] == [(3, 3, 1, 32), (3, 3, 32, 64)]
    vgg = cycnn.models.vgg11(10, (32, 32, 3), rng=0)
    convolutions = [p for p in vgg.parameters().values() if p.data.ndim == 4]
    assert [p.shape[-1] for p in convolutions] == [64, 128, 256, 256, 512, 512, 512, 512]
    for make in (cycnn.models.resnet18, cycnn.models.resnet50):
        small = make(10, (32, 32, 3), rng=0)
        assert next(iter(small.parameters().values())).shape == (3, 3, 3, 64)
    signals = cycnn.models.cnn1d(35, (8000, 1), rng=0)
    lengths = [n.output_shape[0] for n in signals.program.nodes if isinstance(n.layer, cycnn.Conv)]
    assert lengths == [2000, 2000, 500, 125]


def test_a_block_of_resnet50_halves_the_resolution_in_its_middle():
    model = cycnn.models.resnet50(1000, (224, 224, 3), rng=0)
    blocks = [layer for layer in model.layers if isinstance(layer, cycnn.Residual)]
    strides = [
        [conv.config()["stride"] for conv in block.body.layers if isinstance(conv, cycnn.Conv)]
        for block in blocks
    ]
    halving = [i for i, (_, middle, _) in enumerate(strides) if middle == 2]
    assert halving == [3, 7, 13] and len(blocks) == 16
    assert all(first == last == 1 for first, _, last in strides)
    assert model.macs((224, 224, 3)) == 4_089_184_256  # torchvision: 4.089 G


@pytest.mark.parametrize("make, shape", [("cnn1d", (60, 1)), ("cnn3d", (10, 32, 32, 1))])
def test_an_input_that_is_too_small_is_refused(make, shape):
    with pytest.raises(ValueError, match="kernel"):
        getattr(cycnn.models, make)(3, shape)
