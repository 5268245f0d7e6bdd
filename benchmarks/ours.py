"""cycnn as a contestant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import networks
import numpy as np
from libraries import MOMENTUM, SWEPT, Array, Calls
from shapes import ConvShape

import cycnn
from cycnn import engine, ops


class Cycnn:
    def settings(self) -> dict[str, str]:
        return {"cycnn": cycnn.__version__, "numpy": np.__version__, "isa": engine.ISA}

    def set_threads(self, n: int) -> None:
        cycnn.set_num_threads(n)

    def other_data(self) -> Callable[[], Array]:
        return partial(ops.relu, _pooled(np.ones(SWEPT, np.float32)))

    def convolution(
        self, shape: ConvShape, direction: str, inputs: dict[str, Array], algorithms: Sequence[str]
    ) -> Calls:
        # In a model, x and dy come from the layers around, so from the pool.
        x, weight, dy = (_pooled(inputs[name]) for name in ("x", "weight", "dy"))
        how: dict[str, Any] = {
            "stride": shape.stride,
            "padding": shape.padding,
            "padding_mode": "zeros",
            "dilation": 1,
            "groups": shape.groups,
        }
        kernel_size = (shape.kernel, shape.kernel)
        steps: dict[str, Callable[..., Any]] = {
            "forward": partial(ops.conv, x, weight, **how),
            "input": partial(ops.conv_backward_input, dy, weight, x.shape, **how),
            "weight": partial(ops.conv_backward_weight, dy, x, kernel_size, bias=False, **how),
        }
        calls = {name: partial(steps[direction], algorithm=name) for name in algorithms}
        return {name: call for name, call in calls.items() if _applies(name, call)}

    def to_numpy(self, direction: str, result: Any) -> Array:
        return np.asarray(result[0] if direction == "weight" else result)

    def ways(self, network: str) -> tuple[str, ...]:
        return ("channels last",)

    def training(
        self,
        network: str,
        batch: int,
        way: str,
        rate: float,
        weights: Sequence[Array] | None = None,
        dropout: bool = True,
    ) -> Callable[[], float]:
        model = networks.build(network)
        if weights is not None:
            for parameter, values in zip(model.parameters().values(), weights, strict=True):
                parameter.assign(values)
        for node in model.program.nodes:
            if isinstance(node.layer, cycnn.Dropout) and not dropout:
                node.layer.rate = 0.0
        trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.SGD(rate, momentum=MOMENTUM))
        return partial(trainer.step, *networks.data(network, batch))

    def prediction(self, network: str, batch: int, way: str) -> Callable[[], Array]:
        x, _ = networks.data(network, batch)
        return partial(networks.build(network).predict, x, batch_size=batch)


def passes() -> dict[str, tuple[Callable[[], Any], int]]:
    """What a training step does beside products, on arrays of 25 MB, and the bytes that it moves.

    Each array that must be read or written counts once in each pass: a normalisation in training
    reads x for its statistics and again to apply them.
    """
    rng = np.random.default_rng(0)
    x, dy = (_pooled(rng.standard_normal((32, 56, 56, 64), dtype=np.float32)) for _ in range(2))
    size, C = x.nbytes, x.shape[-1]
    gamma, beta = np.ones(C, x.dtype), np.zeros(C, x.dtype)
    weight = _pooled(rng.standard_normal((3, 3, 1, C), dtype=np.float32))
    same: dict[str, Any] = {"padding": "same", "groups": C}
    pooled, offset = ops.max_pool(x, 2)
    y, how = ops.batch_norm(x, gamma, beta, 1e-5, activation="relu")
    state = [_pooled(np.zeros_like(x)) for _ in range(3)]
    mean, part = ops.global_avg_pool(x), pooled.nbytes
    norm = partial(ops.batch_norm, x, gamma, beta, 1e-5)
    return {
        "ReLU": (partial(ops.relu, x), 2 * size),
        "ReLU, backward": (partial(ops.relu_backward, dy, y), 3 * size),
        "Add, of two": (partial(ops.add, [x, dy]), 3 * size),
        "MaxPool 2x2": (partial(ops.max_pool, x, 2), size + part + offset.nbytes),
        "MaxPool 2x2, backward": (
            partial(ops.max_pool_backward, pooled, offset, x.shape, 2), size + part + offset.nbytes
        ),
        "AvgPool 2x2": (partial(ops.avg_pool, x, 2), size + part),
        "AvgPool 2x2, backward": (partial(ops.avg_pool_backward, pooled, x.shape, 2), size + part),
        "GlobalAvgPool": (partial(ops.global_avg_pool, x), size),
        "GlobalAvgPool, backward": (partial(ops.global_avg_pool_backward, mean, x.shape), size),
        "BatchNorm + ReLU": (partial(norm, activation="relu"), 3 * size),
        "BatchNorm + Add + ReLU": (partial(norm, activation="relu", residual=dy), 4 * size),
        "BatchNorm + ReLU, backward": (
            partial(ops.batch_norm_backward, dy, x, gamma, how), 5 * size
        ),
        "depthwise 3x3": (partial(ops.conv, x, weight, **same), 2 * size),
        "depthwise 3x3, input gradient": (
            partial(ops.conv_backward_input, dy, weight, x.shape, **same), 2 * size
        ),
        "depthwise 3x3, weight gradient": (
            partial(ops.conv_backward_weight, dy, x, 3, **same), 2 * size
        ),
        "SGD with momentum": (partial(ops.sgd_update, state[0], dy, state[1], 1e-9, 0.9), 5 * size),
        "Adam": (partial(ops.adam_update, state[0], dy, *state[1:], 1, 1e-9), 7 * size),
    }  # fmt: skip


def _pooled(array: Array) -> Array:
    copy = engine.empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def _applies(algorithm: str, call: Callable[[], Any]) -> bool:
    """Whether this convolution can be computed so: Winograd's need stride 1 and three taps."""
    if algorithm.startswith("winograd"):
        try:
            call()
        except ValueError:
            return False
    return True
