"""Every public optimizer: learning, state, decay, clipping, threads, what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cycnn

from .helpers import normal, same_bits

ROWS = {
    "SGD": lambda **o: cycnn.SGD(0.1, momentum=0.9, **o),
    "Adam": lambda **o: cycnn.Adam(0.05, **o),
    "AdamW": lambda **o: cycnn.AdamW(0.05, **o),
    "RMSprop": lambda **o: cycnn.RMSprop(0.01, momentum=0.5, **o),
    "Adagrad": lambda **o: cycnn.Adagrad(0.2, **o),
    "Lion": lambda **o: cycnn.Lion(0.01, **o),
}
each_optimizer = pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)


def classifier(dtype="float64"):
    """Return a network of one layer."""
    return cycnn.Sequential([cycnn.Dense(3)], input_shape=(4,), rng=0, dtype=dtype)


def weights(model):
    """Return copies of all parameters."""
    return [p.data.copy() for p in model.parameters().values()]


@pytest.fixture
def data(rng):
    """Return rows that a linear classifier can tell apart."""
    x = normal(rng, (90, 4), "float64")
    return x, np.argmax(x[:, :3], 1)


def test_every_public_optimizer_has_a_row():
    public = {
        name
        for name in cycnn.__all__
        if isinstance(getattr(cycnn, name), type)
        and issubclass(getattr(cycnn, name), cycnn.Optimizer)
    }
    assert public - {"Optimizer"} == set(ROWS)


@each_optimizer
def test_fit_learns(data, make):
    trainer = cycnn.Trainer(classifier(), cycnn.CrossEntropy(), make())
    history = trainer.fit(*data, epochs=40, batch_size=16, rng=0, verbose=0)
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    assert trainer.evaluate(*data)["accuracy"] > 0.9


@each_optimizer
@pytest.mark.parametrize("copy", ["state", "pickle"])
def test_the_state_can_be_taken_up(data, make, copy):
    models, optimizer = (classifier(), classifier()), make()
    first = cycnn.Trainer(models[0], cycnn.CrossEntropy(), optimizer)
    for _ in range(3):
        first.step(*data)
    if copy == "pickle":
        other = pickle.loads(pickle.dumps(optimizer))
    else:
        other = make()
        other.load_state(optimizer.state())
    for name, p in models[1].parameters().items():
        p.assign(models[0].parameters()[name].data)
    second = cycnn.Trainer(models[1], cycnn.CrossEntropy(), other)
    for _ in range(2):
        first.step(*data)
        second.step(*data)
    assert all(map(same_bits, *map(weights, models)))


@each_optimizer
def test_weights_decay_on_every_one(data, make):
    models = classifier(), classifier()
    for model, decay in zip(models, (0.0, 0.5), strict=True):
        trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), make(weight_decay=decay))
        trainer.fit(*data, epochs=30, rng=0, verbose=0)
    free, decayed = (np.square(model[0].weight.data).sum() for model in models)
    assert decayed < 0.9 * free


@each_optimizer
def test_the_norm_is_clipped_on_every_one(make):
    """The gradients (30, 40) and (0, 120) have the joint norm 130: a norm of 13 is a tenth."""

    def updated(factor, **options):
        parameters = {name: cycnn.Parameter(np.ones(2)) for name in "ab"}
        optimizer = make(**options)
        for _ in range(3):
            parameters["a"].add_grad(factor * np.array([30.0, 40.0]))
            parameters["b"].add_grad(factor * np.array([0.0, 120.0]))
            optimizer.step(parameters)
        return np.concatenate([p.data for p in parameters.values()])

    assert_allclose(updated(1.0, clip_norm=13.0), updated(0.1), rtol=1e-12)
    assert_allclose(updated(1.0, clip_norm=131.0), updated(1.0), rtol=1e-12)


@each_optimizer
def test_threads_change_no_bit(rng, make):
    start, gradient = normal(rng, (700, 3001)), normal(rng, (700, 3001))
    results = []
    for threads in (1, 2):
        parameter, optimizer = cycnn.Parameter(start), make(weight_decay=0.01, clip_norm=1.0)
        with cycnn.num_threads(threads):
            for _ in range(2):
                parameter.add_grad(gradient.copy())
                optimizer.step({"p": parameter})
        results.append([parameter.data, *optimizer.state().values()])
    assert all(map(same_bits, *results))


@each_optimizer
def test_frozen_parameters_stay(make):
    moved, frozen = cycnn.Parameter(np.ones(3)), cycnn.Parameter(np.ones(3), trainable=False)
    for parameter in (moved, frozen):
        parameter.add_grad(np.ones(3))
    optimizer = make(weight_decay=0.1)
    optimizer.step({"moved": moved, "frozen": frozen})
    assert np.all(frozen.data == 1) and np.all(moved.data != 1)
    assert not any("frozen" in key for key in optimizer.state())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: cycnn.AdamW(weight_decay=-1), "AdamW: weight_decay.*-1"),
        (lambda: cycnn.AdamW(beta1=1), "AdamW: beta1.*1"),
        (lambda: cycnn.RMSprop(rho=1.0), r"RMSprop: rho.*1\.0"),
        (lambda: cycnn.RMSprop(momentum=-0.1), r"RMSprop: momentum.*-0\.1"),
        (lambda: cycnn.RMSprop(eps=0), "RMSprop: eps.*0"),
        (lambda: cycnn.Adagrad(eps=0), "Adagrad: eps.*0"),
        (lambda: cycnn.Adagrad(float("nan")), "learning_rate.*nan"),
        (lambda: cycnn.Lion(beta2=2), "Lion: beta2.*2"),
        (lambda: cycnn.Lion(clip_norm=0), "Lion: clip_norm.*0"),
    ],
)
def test_29_wrong_optimizers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_state_of_another_kind_is_refused(data):
    trainer = cycnn.Trainer(classifier(), cycnn.CrossEntropy(), cycnn.Adam())
    trainer.step(*data)
    with pytest.raises(ValueError, match="Lion.*'v/"):
        cycnn.Lion().load_state(trainer.optimizer.state())
