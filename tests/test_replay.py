"""A replayed step: the same bits as the run that it replays, and when there is none."""

from __future__ import annotations

import copy
import gc
import pickle
import threading

import numpy as np
import pytest

import cycnn
from cycnn import engine
from cycnn.graph import TrainingRuns
from cycnn.graph.replay import HABIT

from .contract import cases
from .helpers import normal, run_python, same_bits

# Layers with a part that no plan shows: they run as ever.
NOT_REPLAYED = {
    "Conv3", "Conv5", "DepthwiseConv2",  # borders that are no zeros
    "Lambda0",
}  # fmt: skip


def model_of(layer, shape):
    """Return a model of one input and one output around a layer, whose input gradient is wanted."""
    first = cycnn.Conv(shape[-1], 1) if len(shape) > 1 else cycnn.Dense(shape[-1])
    last = [cycnn.Concat(axis=layer.axis)] if isinstance(layer, cycnn.Split) else []
    return cycnn.Sequential([first, layer, *last], input_shape=shape, rng=0)


def step(model, run, x, dy):
    """Return copies of y and all gradients of a step, and clear them."""
    y, backward = run(x)
    result = [y.copy()]
    backward(dy)
    result += [p.grad.copy() for p in model.parameters().values()]
    for parameter in model.parameters().values():
        parameter.clear_grad()
    return result


def eager(model):
    """Return what TrainingRuns stands for."""

    def run(x):
        y, backward = model(x, training=True)
        return y, lambda dy: backward(dy, input_gradient=False)

    return run


def replays(runs, monkeypatch):
    """Return a list to which every replay from now on adds its shape."""
    seen, replay = [], runs._replay

    def spy(run, lease):
        seen.append(run.inputs[0].shape)
        return replay(run, lease)

    monkeypatch.setattr(runs, "_replay", spy)
    return seen


def assert_same_steps(rng, model, monkeypatch, batches=(3, 3, 3), threads=1):
    """Require steps like those of a twin that is not replayed; return the shapes replayed."""
    twin, runs = copy.deepcopy(model), TrainingRuns(model)
    seen = replays(runs, monkeypatch)
    for rows in batches:
        x = normal(rng, (rows, *model.input_shape), model.dtype)
        dy = normal(rng, (rows, *model.output_shape), model.dtype)
        with cycnn.num_threads(threads):
            found = step(model, runs, x, dy)
        assert all(map(same_bits, found, step(twin, eager(twin), x, dy)))
        assert all(map(same_bits, model.buffers().values(), twin.buffers().values()))
        for each in (model, twin):  # so that nothing can be left from the step before
            for parameter in each.parameters().values():
                parameter.assign(parameter.data * 1.25)
            for node in each.program.nodes:
                for name, values in node.layer.buffers().items():
                    node.layer.set_buffer(name, values * 1.25)
    return seen


@pytest.mark.parametrize("row", cases(lambda row: not row.several))
def test_every_layer(rng, row, monkeypatch, request):
    case = request.node.callspec.id
    seen = assert_same_steps(rng, model_of(row.make(), row.shape), monkeypatch)
    assert len(seen) == (0 if case in NOT_REPLAYED else 2)


@pytest.mark.parametrize("merge", ["Add", "Average", "Multiply", "Maximum", "Concat"])
def test_every_fusion(rng, merge, monkeypatch):
    layers = [cycnn.Conv(3, 3, padding=1), cycnn.Tanh()]
    model = model_of(
        cycnn.Parallel([layers, [], [cycnn.ReLU()]], getattr(cycnn, merge)()), (4, 5, 3)
    )
    assert len(assert_same_steps(rng, model, monkeypatch)) == 2


def test_gradients_that_are_zeros(rng, monkeypatch):
    """Of the indices of a pool, which have none, and of an output that nobody reads."""
    graph = cycnn.Graph(
        {
            "first": (cycnn.Conv(3, 1), "x"),
            "pool": (cycnn.MaxPool(2, return_indices=True), "first"),
            "unpool": (cycnn.MaxUnpool(2), ("pool:0", "pool:1")),
            "parts": (cycnn.Split((1,)), "unpool"),
            "last": (cycnn.ReLU(), "parts:0"),
        },
        inputs={"x": (4, 6, 3)}, outputs="last", rng=0,
    )  # fmt: skip
    assert len(assert_same_steps(rng, graph, monkeypatch)) == 2


def test_given_statistics(rng, monkeypatch):
    """Those of a frozen BatchNorm and of a Normalize that comes first."""
    model = cycnn.Sequential(
        [
            cycnn.Normalize(), cycnn.Conv(4, 3), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.Conv(4, 3),
            cycnn.Flatten(), cycnn.Dense(3),
        ],
        input_shape=(7, 7, 3), rng=0,
    )  # fmt: skip
    model[0].adapt(normal(rng, (5, 7, 7, 3)))
    model(normal(rng, (8, 7, 7, 3)), training=True)  # moves running statistics
    model[2].freeze()
    assert len(assert_same_steps(rng, model, monkeypatch)) == 2


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "make, shape",
    [
        ("lenet", (14, 14, 1)), ("vgg11", (32, 32, 3)), ("resnet18", (16, 16, 3)),
        ("mobilenet_v2", (16, 16, 3)), ("cnn1d", (250, 1)), ("cnn3d", (16, 16, 16, 1)),
    ],
)  # fmt: skip
def test_the_networks(rng, make, shape, threads, monkeypatch):
    model = getattr(cycnn.models, make)(5, shape, rng=0)
    seen = assert_same_steps(rng, model, monkeypatch, (4, 4, 4, 2, 4, 2), threads)
    assert [s[0] for s in seen] == [4, 4, 4, 2]


def small(*layers, shape=(6, 6, 2)):
    return cycnn.Sequential(
        [
            *layers, cycnn.Conv(4, 3), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.Flatten(),
            cycnn.Dense(3),
        ],
        input_shape=shape, rng=0,
    )  # fmt: skip


def test_a_trainer_replays_its_steps(rng, monkeypatch):
    x, y = normal(rng, (22, 6, 6, 2)), rng.integers(0, 3, 22)
    twins = []
    for known in (True, False):
        model = small(cycnn.Dropout(0.3))
        trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam(0.01, weight_decay=0.1))
        trainer._runs._known = known
        seen = replays(trainer._runs, monkeypatch)
        history = trainer.fit(x, y, epochs=3, batch_size=8, validation=(x, y), rng=0, verbose=0)
        assert len(seen) == (7 if known else 0)  # of 9, two shapes being recorded once
        assert not trainer._runs._kept  # nor is memory kept for it
        twins.append((model, history["loss"], history["val_loss"]))
    (a, *figures), (b, *others) = twins
    assert figures == others
    assert all(map(same_bits, a.predict(x), b.predict(x)))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model[0].freeze(),
        lambda model: model[1].freeze(),
        lambda model: setattr(model[1], "momentum", 0.5),
        lambda model: setattr(model[0].weight, "trainable", False),
    ],
)
def test_what_changes_is_seen(rng, change, monkeypatch):
    model = small()
    twin, runs = copy.deepcopy(model), TrainingRuns(model)
    seen = replays(runs, monkeypatch)
    x, dy = normal(rng, (5, 6, 6, 2)), normal(rng, (5, 3))
    for i in range(6):
        if i == 3:
            assert len(seen) == 2
            change(model)
            change(twin)
        assert all(map(same_bits, step(model, runs, x, dy), step(twin, eager(twin), x, dy)))
        assert all(map(same_bits, model.buffers().values(), twin.buffers().values()))


def test_each_number_of_threads_has_its_recording(rng, monkeypatch):
    model = small()
    twin, runs = copy.deepcopy(model), TrainingRuns(model)
    seen = replays(runs, monkeypatch)
    x, dy = normal(rng, (5, 6, 6, 2)), normal(rng, (5, 3))
    for threads, replayed in ((1, 0), (2, 0), (1, 1), (2, 2)):
        with cycnn.num_threads(threads):
            found = step(model, runs, x, dy)
        assert all(map(same_bits, found, step(twin, eager(twin), x, dy)))
        assert len(seen) == replayed


def test_new_values_are_seen(rng, monkeypatch):
    model = small()
    twin, runs = copy.deepcopy(model), TrainingRuns(model)
    seen = replays(runs, monkeypatch)
    x, dy = normal(rng, (5, 6, 6, 2)), normal(rng, (5, 3))
    for _ in range(3):
        assert all(map(same_bits, step(model, runs, x, dy), step(twin, eager(twin), x, dy)))
        for m in (model, twin):
            m[0].weight.assign(2 * m[0].weight.data)
            m.set_buffer("1.running_mean", np.arange(4))
    assert len(seen) == 2


def test_an_output_that_is_kept_stays_as_it_is(rng, monkeypatch):
    model = small()
    runs = TrainingRuns(model)
    seen = replays(runs, monkeypatch)
    x, dy = normal(rng, (5, 6, 6, 2)), normal(rng, (5, 3))
    kept = []
    for _ in range(4):
        y, backward = runs(x)
        kept.append((y, y.copy()))
        backward(dy)
        for parameter in model.parameters().values():
            parameter.clear_grad()
    del y, backward
    assert not seen  # the first one lies where a replay would write
    assert all(same_bits(y, then) for y, then in kept)
    kept.clear()
    step(model, runs, x, dy)
    assert len(seen) == 1


def test_gradients_that_wait_are_added_to(rng, monkeypatch):
    x, y = normal(rng, (24, 6, 6, 2)), rng.integers(0, 3, 24)
    weights = []
    for known in (True, False):
        model = small()
        trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.SGD(0.1))
        trainer._runs._known = known
        seen = replays(trainer._runs, monkeypatch)
        trainer.fit(x, y, epochs=2, batch_size=4, accumulate=3, rng=0, verbose=0)
        assert bool(seen) == known
        weights.append([p.data.copy() for p in model.parameters().values()])
    assert all(map(same_bits, *weights))


def test_a_layer_of_somebody_else_is_run(rng, monkeypatch):
    class Own(cycnn.ReLU):
        def __call__(self, x, training=False):
            y, backward = super().__call__(x, training)
            return y * np.float32(2), lambda dy, input_gradient=True: 2 * backward(dy)

    model = small(Own())
    assert not assert_same_steps(rng, model, monkeypatch)


def test_weights_that_two_layers_share(rng, monkeypatch):
    shared = cycnn.Conv(2, 3, padding=1)
    model = small(shared, cycnn.Tanh(), shared)
    assert not assert_same_steps(rng, model, monkeypatch)  # their gradients are added by NumPy


def test_a_step_that_fails_is_forgotten(rng, monkeypatch):
    model = small()
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.SGD(0.1))
    seen = replays(trainer._runs, monkeypatch)
    x, y = normal(rng, (5, 6, 6, 2)), [0, 1, 2, 0, 1]
    with pytest.raises(cycnn.TrainingError):
        trainer.step(np.full_like(x, np.nan), y)  # there is no backward
    for _ in range(3):
        trainer.step(x, y)
    with pytest.raises(cycnn.TrainingError):
        trainer.step(np.full_like(x, np.nan), y)
    assert all(not p.has_grad for p in model.parameters().values())
    assert len(seen) == 3


def test_blocks_serve_others_between_steps(rng):
    x, dy = normal(rng, (16, 32, 32, 3)), normal(rng, (16, 10))
    model = cycnn.models.vgg11(10, (32, 32, 3), rng=0)
    runs = TrainingRuns(model)
    for _ in range(3):
        step(model, runs, x, dy)
    gc.collect()
    before = engine.memory_info()
    for _ in range(3):
        step(model, eager(model), x, dy)
    after = engine.memory_info()
    assert after["live"] == before["live"]
    assert after["cached"] <= 1.15 * before["cached"]  # nothing to speak of was mapped beside


def test_a_block_somebody_has_is_not_taken(rng, monkeypatch):
    model = small()
    runs = TrainingRuns(model)
    seen = replays(runs, monkeypatch)
    x, dy = normal(rng, (5, 6, 6, 2)), normal(rng, (5, 3))
    expected = step(model, runs, x, dy)
    taken = [engine.empty(p.shape, p.dtype) for p in model.parameters().values() for _ in range(9)]
    for array in taken:
        array.fill(7)
    assert all(map(same_bits, step(model, runs, x, dy), expected))
    assert not seen and all((array == 7).all() for array in taken)
    taken.clear()
    del array
    assert all(map(same_bits, step(model, runs, x, dy), expected)) and len(seen) == 1


def test_trainers_in_threads(rng):
    x, y = normal(rng, (4, 6, 6, 2)), [0, 1, 2, 0]
    results = []

    def train():
        trainer = cycnn.Trainer(small(cycnn.Dropout(0.2)), cycnn.CrossEntropy(), cycnn.SGD(0.1))
        results.append([trainer.step(x, y) for _ in range(100)])

    threads = [threading.Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    train()
    assert len(results) == 5 and all(result == results[-1] for result in results)


def test_a_trainer_is_copied_without_its_recordings(rng):
    x, y = normal(rng, (4, 6, 6, 2)), [0, 1, 2, 0]
    trainer = cycnn.Trainer(small(), cycnn.CrossEntropy(), cycnn.SGD(0.1))
    trainer.step(x, y)
    twin = pickle.loads(pickle.dumps(trainer))
    assert [trainer.step(x, y) for _ in range(3)] == [twin.step(x, y) for _ in range(3)]


def test_a_child_of_fork_goes_on():
    run_python("""
import os
import numpy as np, cycnn
model = cycnn.models.lenet(10, (28, 28, 1), rng=0)
trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.SGD(0.01))
x, y = np.random.default_rng(0).standard_normal((32, 28, 28, 1)), np.arange(32) % 10
for _ in range(3):
    trainer.step(x, y)
child = os.fork()
loss = trainer.step(x, y)
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    os._exit(0 if np.isfinite(loss) else 1)
""")


def predicted(model, x, batch_size):
    """Return predictions that were never recorded."""
    return copy.deepcopy(model).predict(x, batch_size)


def leases(model):
    """Return how many runs are kept that can be replayed."""
    return sum(bool(run.replays) for run in model._prediction_runs()._kept.values())


@pytest.mark.parametrize("threads", [1, 2])
def test_predictions(rng, threads):
    model = cycnn.models.lenet(10, (28, 28, 1), rng=0)
    with cycnn.num_threads(threads):
        for _ in range(3):
            x = normal(rng, (8 * HABIT + 3, 28, 28, 1))
            assert same_bits(model.predict(x, 8), predicted(model, x, 8))
            assert same_bits(model.predict(x[:3], 3), predicted(model, x[:3], 3))
            assert leases(model) == 1  # batches of 8; the others come once at a time
        kept = [model.predict(x[:8], 8) for _ in range(3)]
    assert same_bits(kept[0], kept[1]) and not np.shares_memory(kept[0], kept[1])


def test_predictions_see_what_changes(rng):
    model = cycnn.models.lenet(10, (28, 28, 1), rng=0)
    x = normal(rng, (4, 28, 28, 1))
    before = [model.predict(x) for _ in range(HABIT + 2)][-1]
    model[0].weight.assign(2 * model[0].weight.data)
    after = model.predict(x)
    assert leases(model) == 1
    assert same_bits(after, predicted(model, x, None)) and not same_bits(after, before)


def test_predictions_of_normalised_models(rng):
    model, x = small(), normal(rng, (4, 6, 6, 2))
    assert all(same_bits(model.predict(x), predicted(model, x, None)) for _ in range(HABIT + 2))
    assert leases(model) == 1
    before = model.predict(x)
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.SGD(0.1))
    trainer.fit(x, [0, 1, 2, 0], epochs=1, verbose=0)  # which moves running statistics
    assert same_bits(model.predict(x), predicted(model, x, None))
    assert not same_bits(model.predict(x), before) and leases(model) == 1


def test_threads_predict_with_one_model(rng):
    model = cycnn.models.lenet(10, (14, 14, 1), rng=0)
    x = normal(rng, (40, 5, 14, 14, 1))
    expected = [predicted(model, rows, 5) for rows in x]
    found = [None] * len(x)

    def work(first):
        for _ in range(10):
            for i in range(first, len(x), 4):
                found[i] = model.predict(x[i], 5)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(map(same_bits, found, expected))
