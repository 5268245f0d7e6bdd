"""PyTorch as a contestant."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import networks
import numpy as np
import torch
import twins
from libraries import MOMENTUM, SWEPT, Array, Calls
from shapes import ConvShape
from torch.nn import functional

# By the number of spatial axes. What keeps the channels of volumes last is channels_last_3d.
FORMATS = {
    1: {"contiguous": torch.contiguous_format},
    2: {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last},
    3: {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last_3d},
}


class Torch:
    def settings(self) -> dict[str, str]:
        onednn = re.search(r"(?:MKL-DNN|oneDNN) v[\d.]+", torch.__config__.show())
        return {
            "torch": torch.__version__,
            "oneDNN": onednn.group().split()[1] if onednn else "none",
            "isa": torch.backends.cpu.get_cpu_capability(),
            "oneDNN isa": _onednn_isa(),
        }

    def set_threads(self, n: int) -> None:
        torch.set_num_threads(n)

    def other_data(self) -> Callable[[], torch.Tensor]:
        data = torch.ones(SWEPT)
        return partial(torch.add, data, 1.0, out=torch.empty_like(data))

    def convolution(
        self, shape: ConvShape, direction: str, inputs: dict[str, Array], algorithms: Sequence[str]
    ) -> Calls:
        torch.set_grad_enabled(False)
        axes = {"x": (0, 3, 1, 2), "weight": (3, 2, 0, 1), "dy": (0, 3, 1, 2)}
        found = {}
        for way, memory_format in FORMATS[2].items():
            tensors = {
                key: torch.from_numpy(inputs[key])
                .permute(order)
                .contiguous(memory_format=memory_format)
                for key, order in axes.items()
            }
            found[way] = _convolution(shape, direction, **tensors)
        return found

    def to_numpy(self, direction: str, result: Any) -> Array:
        axes = (2, 3, 1, 0) if direction == "weight" else (0, 2, 3, 1)
        return np.ascontiguousarray(result.permute(axes).numpy())

    def ways(self, network: str) -> tuple[str, ...]:
        return tuple(FORMATS[networks.NETWORKS[network].axes])

    def training(
        self,
        network: str,
        batch: int,
        way: str,
        rate: float,
        weights: Sequence[Array] | None = None,
        dropout: bool = True,
    ) -> Callable[[], float]:
        model, x, y = self._placed(network, batch, way, weights)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout) and not dropout:
                module.p = 0.0
        # Fused, PyTorch updates 1.5 times as fast as by default.
        optimizer = torch.optim.SGD(model.parameters(), rate, momentum=MOMENTUM, fused=True)
        torch.set_grad_enabled(True)

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            loss: Any = functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return float(loss.item())

        return step

    def prediction(self, network: str, batch: int, way: str) -> Callable[[], torch.Tensor]:
        model, x, _ = self._placed(network, batch, way, None)
        model.eval()
        return torch.inference_mode()(lambda: model(x))

    def _placed(
        self, network: str, batch: int, way: str, weights: Sequence[Array] | None
    ) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """The model and one batch in the memory format `way`."""
        model: Any = twins.build(network)
        if weights is not None:
            twins.load(model, weights)
        images, labels = networks.data(network, batch)
        memory_format = FORMATS[networks.NETWORKS[network].axes][way]
        x = torch.from_numpy(images).movedim(-1, 1).contiguous(memory_format=memory_format)
        return model.to(memory_format=memory_format), x, torch.from_numpy(labels)


def _onednn_isa() -> str:
    """What oneDNN itself says it uses: it prints that once, to standard output."""
    image, weight = torch.ones(16, 16, 8, 8), torch.ones(16, 16, 3, 3)
    mkldnn: Any = torch.backends.mkldnn
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "said")
        stdout, captured = os.dup(1), os.open(said, os.O_CREAT | os.O_WRONLY)
        os.dup2(captured, 1)
        try:
            with mkldnn.verbose(mkldnn.VERBOSE_ON):
                functional.conv2d(image, weight)
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
            os.close(captured)
        isa = re.search(r"info,cpu,isa:(.+)", said.read_text())
    return isa.group(1) if isa else "not said"


def _convolution(
    shape: ConvShape, direction: str, x: Any, weight: Any, dy: Any
) -> Callable[[], Any]:
    stride, padding = [shape.stride] * 2, [shape.padding] * 2
    if direction == "forward":
        return lambda: functional.conv2d(x, weight, None, stride, padding, 1, shape.groups)
    mask = [direction == "input", direction == "weight", False]
    index = mask.index(True)
    backward = torch.ops.aten.convolution_backward
    how = (None, stride, padding, [1, 1], False, [0, 0], shape.groups, mask)
    return lambda: backward(dy, x, weight, *how)[index]
