"""Fusion: fewer passes over memory, the same bits."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import cycnn
from cycnn import Add, BatchNorm, Conv, Dense, DepthwiseConv, LeakyReLU, MaxPool, ReLU, ops
from cycnn.graph import executor
from cycnn.graph.fuse import fuse

from .helpers import DTYPES, normal, run_python, same_bits


class OwnReLU(ReLU):
    """What a subclass does is its own business."""

    def __call__(self, x, training=False):
        y, backward = super().__call__(x, training)
        return 2 * y, lambda dy, input_gradient=True: backward(2 * dy, input_gradient)


def run(model, program, x, gradients, training):
    """Return all that a program gives on a copy of a model: y, dx, gradients, statistics."""
    model, program = copy.deepcopy((model, program))
    outputs, closures = executor.forward(program, (x,), training)
    dx = executor.backward(program, closures, gradients, len(x), model.dtype, True)
    learnt = [p.grad for p in model.parameters().values()]
    return *outputs, *dx, *learnt, *model.buffers().values()


def assert_fusion_changes_nothing(rng, model, rows=3):
    """Compare both programs on one batch, in training and out of it, on one thread and on two."""
    program, fused = model.program, fuse(model.program)
    x = normal(rng, (rows, *model.input_shape), model.dtype)
    gradients = tuple(
        normal(rng, (rows, *program.shapes[value]), model.dtype) for value in program.outputs
    )
    for training in (True, False):
        with cycnn.num_threads(1):
            expected = run(model, program, x, gradients, training)
            assert all(map(same_bits, run(model, fused, x, gradients, training), expected))
        with cycnn.num_threads(2):
            assert all(map(same_bits, run(model, fused, x, gradients, training), expected))
    return len(program.nodes) - len(fused.nodes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "make, shape, saved",
    [
        ("lenet", (14, 14, 1), 5), ("vgg11", (32, 32, 3), 8),
        ("resnet18", (16, 16, 3), 25), ("mobilenet_v2", (16, 16, 3), 45),
    ],
)  # fmt: skip
def test_the_networks(rng, make, shape, saved, dtype):
    model = getattr(cycnn.models, make)(5, shape, rng=0, dtype=dtype)
    for name, p in model.parameters().items():
        if name.endswith(("bias", "beta")):
            p.assign(normal(rng, p.shape))
    assert assert_fusion_changes_nothing(rng, model) == saved


def random_graph(rng):
    """Return a graph of layers that keep the shape, on values drawn from all that there are."""
    C = int(rng.choice([3, 8, 17]))
    kinds = [
        lambda: Conv(C, 3, padding="same"), lambda: Conv(C, 1, bias=False), BatchNorm, BatchNorm,
        lambda: DepthwiseConv(3, padding=1), ReLU, lambda: LeakyReLU(-0.3), OwnReLU, Add,
        lambda: Add((1, 1)), lambda: cycnn.Dropout(0.4), lambda: cycnn.GroupNorm(1),
    ]  # fmt: skip
    likely = {
        BatchNorm: [Add, Add, ReLU, lambda: LeakyReLU(0.3)], Add: [ReLU, LeakyReLU], Conv: [ReLU],
        DepthwiseConv: [ReLU], ReLU: [lambda: MaxPool(3, stride=1, padding=1), lambda: MaxPool(1)],
    }  # fmt: skip
    nodes, values, layers = {}, ["x"], []
    for i in range(int(rng.integers(4, 16))):
        following = likely.get(type(layers[-1])) if layers and rng.random() < 0.8 else None
        choice = following or kinds
        layer = choice[rng.integers(len(choice))]()
        if not following and layers and rng.random() < 0.2:
            layer = layers[rng.integers(len(layers))]  # shares its weights
        value = values[-1] if rng.random() < 0.85 else values[rng.integers(len(values))]
        other = values[rng.integers(len(values))]
        pair = (value, other) if rng.random() < 0.5 else (other, value)
        nodes[f"n{i}"] = layer, pair if isinstance(layer, Add) else value
        values.append(f"n{i}")
        layers.append(layer)
    read = {name for _, inputs in nodes.values() for name in np.atleast_1d(inputs)}
    outputs = [name for name in nodes if name not in read]  # and perhaps one that is read as well
    outputs += [name for name in sorted(read - {"x"}) if rng.random() < 0.05]
    model = cycnn.Graph(nodes, inputs={"x": (5, 6, C)}, outputs=outputs, rng=0)
    for layer in layers:
        if isinstance(layer, BatchNorm) and rng.random() < 0.2:
            layer.freeze()
    return model


def test_random_graphs():
    saved = [
        assert_fusion_changes_nothing(rng, random_graph(rng))
        for rng in map(np.random.default_rng, range(150))
    ]
    assert sum(saved) > 150  # or the graphs are not what they should be


def classes(model):
    """Return the classes of the nodes that are run."""
    return [type(node.layer).__name__ for node in model._runnable().nodes]


C, SHAPE = 4, (6, 6, 4)


def chain(*layers):
    return cycnn.Sequential(layers, input_shape=SHAPE, rng=0)


def residual(*layers, shortcut=None, end=ReLU):
    return chain(cycnn.Residual([Conv(C, 3, padding=1), *layers], shortcut), end())


@pytest.mark.parametrize(
    "model, expected",
    [
        (chain(BatchNorm(), ReLU()), ["Normalised"]),
        (chain(BatchNorm(), LeakyReLU(), MaxPool(2)), ["Normalised", "MaxPool"]),
        (residual(BatchNorm()), ["Conv", "Normalised"]),
        (residual(BatchNorm(), end=lambda: LeakyReLU(0.1)), ["Conv", "Normalised"]),
        (residual(BatchNorm(), end=cycnn.Tanh), ["Conv", "Normalised", "Tanh"]),
        (
            residual(BatchNorm(), shortcut=[Conv(C, 1), BatchNorm()]),
            ["Conv", "Conv", "BatchNorm", "Normalised"],
        ),
        (residual(shortcut=[BatchNorm()]), ["Conv", "Normalised"]),
        (chain(Conv(3, 3), ReLU(), MaxPool(2)), ["Activated"]),
        (chain(DepthwiseConv(3), ReLU(), Conv(2, 1, groups=2), ReLU()), ["Activated"] * 2),
        (chain(cycnn.Flatten(), Dense(5), ReLU(), Dense(2)), ["Flatten", "Activated", "Dense"]),
        # What must stay apart
        (chain(Conv(3, 3), BatchNorm()), ["Conv", "BatchNorm"]),
        (chain(Conv(3, 3), LeakyReLU()), ["Conv", "LeakyReLU"]),
        (chain(Conv(3, 3), MaxPool(2)), ["Conv", "MaxPool"]),
        (chain(Conv(3, 3), ReLU(), MaxPool(2, return_indices=True)), ["Activated", "MaxPool"]),
        (chain(BatchNorm(), OwnReLU()), ["BatchNorm", "OwnReLU"]),
        (chain(BatchNorm(), LeakyReLU(-0.1)), ["Normalised", "LeakyReLU"]),
        (chain(BatchNorm(), cycnn.ReLU6()), ["BatchNorm", "ReLU6"]),
    ],
)
def test_what_is_fused(rng, model, expected):
    assert classes(model) == expected
    if not isinstance(model.output_shape[0], tuple):
        assert_fusion_changes_nothing(rng, model)


@pytest.mark.parametrize(
    "model, expected",
    [
        # the gradient of its output is the input gradient of one layer, which makes a new array
        (chain(BatchNorm(), Conv(2, 1)), [True]),
        (chain(BatchNorm(), ReLU(), DepthwiseConv(3)), [True]),
        (chain(Conv(3, 3), ReLU(), BatchNorm(), LeakyReLU(), MaxPool(2)), [True, True]),
        # or a sum
        (residual(BatchNorm(), ReLU(), BatchNorm()), [True, False]),
        (chain(BatchNorm(), ReLU(), cycnn.Residual([Conv(C, 3, padding=1)]), ReLU()), [True]),
        # here others hold it: whoever asked for it, or the other side of a sum
        (chain(Conv(2, 1), ReLU()), [False]),
        (residual(BatchNorm(), end=cycnn.Tanh), [False]),
        (chain(BatchNorm(), ReLU(), cycnn.Flatten(), Dense(2)), [False]),
    ],
)
def test_what_is_written_over(rng, model, expected):
    nodes = [node.layer for node in fuse(model.program).nodes]
    assert [layer.overwrite for layer in nodes if hasattr(layer, "overwrite")] == expected
    assert_fusion_changes_nothing(rng, model)


@pytest.mark.parametrize(
    "nodes, outputs",
    [
        # a value that is an output, or that two nodes read, or one node twice
        ({"a": (BatchNorm(), "x"), "b": (ReLU(), "a")}, ("a", "b")),
        ({"a": (BatchNorm(), "x"), "b": (ReLU(), "a"), "c": (ReLU(), "a")}, ("b", "c")),
        ({"a": (BatchNorm(), "x"), "b": (Add(), ("a", "a"))}, ("b",)),
        # sums of another kind
        ({"a": (BatchNorm(), "x"), "b": (Add((1, 2)), ("a", "x"))}, ("b",)),
        ({"a": (BatchNorm(), "x"), "b": (Add(), ("a", "x", "x"))}, ("b",)),
        ({"a": (BatchNorm(), "x"), "b": (cycnn.Multiply(), ("a", "x"))}, ("b",)),
        # x's gradient would add up in another order
        (
            {"a": (BatchNorm(), "x"), "b": (cycnn.Tanh(), "x"), "c": (cycnn.Maximum(), ("b", "x")),
             "d": (Add(), ("a", "c"))},
            ("d",),
        ),
    ],
)  # fmt: skip
def test_what_others_need_is_made(rng, nodes, outputs):
    model = cycnn.Graph(nodes, inputs={"x": SHAPE}, outputs=outputs, rng=0)
    assert assert_fusion_changes_nothing(rng, model) == 0


def test_a_layer_is_not_moved_past_its_other_call(rng):
    shared = BatchNorm()
    nodes = {
        "a": (shared, "x"),
        "t": (cycnn.Tanh(), "y"),
        "b": (shared, "t"),
        "s": (Add(), ("a", "b")),
    }
    model = cycnn.Graph(nodes, inputs={"x": SHAPE, "y": SHAPE}, outputs=("s",), rng=0)
    assert classes(model) == ["BatchNorm", "Tanh", "Normalised"]
    x, y = normal(rng, (2, 3, *SHAPE))
    twin = copy.deepcopy(model)
    model((x, y), training=True)
    executor.forward(twin.program, (x, y), True)
    assert all(map(same_bits, model.buffers().values(), twin.buffers().values()))


def test_freezing_is_seen_after_the_first_run(rng):
    model = chain(Conv(C, 3), BatchNorm(), ReLU(), Conv(C, 3), ReLU(), cycnn.Flatten(), Dense(2))
    x, dy = normal(rng, (3, *SHAPE)), (normal(rng, (3, 2)),)
    model(x, training=True)
    fused = model._runnable()
    for change in (model[1].freeze, model[0].freeze, model[1].unfreeze, model[0].unfreeze):
        change()
        assert model._runnable() is fused
        expected = run(model, model.program, x, dy, True)
        assert all(map(same_bits, run(model, fused, x, dy, True), expected))


def test_models_run_fused(rng, monkeypatch):
    model = chain(Conv(C, 3), ReLU(), BatchNorm(), ReLU(), cycnn.Flatten(), Dense(2))
    x = normal(rng, (3, *SHAPE))
    (expected,), _ = executor.forward(model.program, (x,), False)

    def refuse(*args):
        raise AssertionError("an activation took a pass of its own")

    monkeypatch.setattr(ops, "relu", refuse)
    assert same_bits(model.predict(x), expected)
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.SGD(0.1))
    trainer.fit(x, [0, 1, 0], verbose=0)
    with pytest.raises(AssertionError, match="of its own"):
        executor.forward(model.program, (x,), False)


def test_what_users_see_is_not_fused(rng, capsys):
    model = chain(Conv(C, 3, padding=1), BatchNorm(), ReLU(), cycnn.Flatten(), Dense(2))
    names = list(model.parameters())
    x = normal(rng, (4, *SHAPE))
    model(x, training=True)
    assert [type(node.layer) for node in model.program.nodes] == [*map(type, model.layers)]
    assert list(model.parameters()) == names and len(model.buffers()) == 2
    model.summary()
    assert "BatchNorm" in capsys.readouterr().out
    steps = model.trace(x, [0, 1, 0, 1], cycnn.CrossEntropy())
    assert [step.kind for step in steps] == [
        "CrossEntropy",
        "Dense",
        "Flatten",
        "ReLU",
        "BatchNorm",
        "Conv",
    ]
    assert b"fuse" not in pickle.dumps(model)
    assert same_bits(pickle.loads(pickle.dumps(model)).predict(x), model.predict(x))


PEAK = """
import numpy as np
import cycnn
from cycnn import engine
from cycnn.graph import executor
from cycnn.graph.fuse import fuse
model = cycnn.models.MAKE(10, (32, 32, 3), rng=0)
program = model.program if WHOLE else fuse(model.program)
rng = np.random.default_rng(0)
x, dy = rng.standard_normal((16, 32, 32, 3), "float32"), rng.standard_normal((16, 10), "float32")
for _ in range(2):
    y, closures = executor.forward(program, (x,), True)
    executor.backward(program, closures, (dy,), 16, model.dtype, False)
print(engine.memory_info()["peak"])
"""


@pytest.mark.parametrize(
    "make, share", [("lenet", 0.9), ("vgg11", 1), ("resnet18", 1), ("mobilenet_v2", 1)]
)
def test_a_fused_step_needs_no_more_memory(make, share):
    peaks = [
        int(run_python(PEAK.replace("MAKE", make).replace("WHOLE", whole)).stdout)
        for whole in ("False", "True")
    ]
    assert peaks[0] <= share * peaks[1]
