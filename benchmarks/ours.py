"""cycnn as a contestant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import networks
import numpy as np
from libraries import MOMENTUM, Array, Calls
from shapes import ConvShape

import cycnn
from cycnn import engine, ops


class Cycnn:
    def settings(self) -> dict[str, str]:
        return {"cycnn": cycnn.__version__, "numpy": np.__version__, "isa": engine.ISA}

    def set_threads(self, n: int) -> None:
        cycnn.set_num_threads(n)

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
