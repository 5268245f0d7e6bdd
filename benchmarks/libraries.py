"""How each library runs one convolution, and what must be known about its build.

A library is used in a process of its own (worker.py). `calls` returns one function per way it can
hold the arrays; calling it does one whole eager step, allocation of the result included.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from shapes import ConvShape

Array = np.ndarray[Any, Any]
Calls = dict[str, Callable[[], Any]]


class Library(Protocol):
    def settings(self) -> dict[str, str]:
        """Versions and instruction sets, for the record."""

    def set_threads(self, n: int) -> None: ...

    def calls(self, shape: ConvShape, direction: str, inputs: dict[str, Array]) -> Calls:
        """One function per memory format, for the given direction."""

    def to_numpy(self, direction: str, result: Any) -> Array:
        """The result in cycnn's layout: (N, H, W, C), or (KH, KW, C/groups, K) for a weight."""


class Cycnn:
    def __init__(self) -> None:
        import cycnn
        from cycnn import engine, ops, threads

        self.version, self.isa = cycnn.__version__, engine.ISA
        self.ops, self.set_threads, self.empty = ops, threads.set_num_threads, engine.empty

    def pooled(self, array: Array) -> Array:
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy

    def settings(self) -> dict[str, str]:
        return {"cycnn": self.version, "numpy": np.__version__, "isa": self.isa}

    def calls(self, shape: ConvShape, direction: str, inputs: dict[str, Array]) -> Calls:
        # In a model, x and dy come from the layers around, so from the pool.
        x, weight, dy = (self.pooled(inputs[name]) for name in ("x", "weight", "dy"))
        ops = self.ops
        how = {
            "stride": shape.stride,
            "padding": shape.padding,
            "padding_mode": "zeros",
            "dilation": 1,
            "groups": shape.groups,
        }
        kernel_size = (shape.kernel, shape.kernel)
        steps: Calls = {
            "forward": lambda: ops.conv(x, weight, **how),
            "input": lambda: ops.conv_backward_input(dy, weight, x.shape, **how),
            "weight": lambda: ops.conv_backward_weight(dy, x, kernel_size, bias=False, **how)[0],
        }
        return {"channels last": steps[direction]}

    def to_numpy(self, direction: str, result: Any) -> Array:
        return np.asarray(result)


class Torch:
    def __init__(self) -> None:
        import torch

        self.torch = torch
        torch.set_grad_enabled(False)
        self.set_threads = torch.set_num_threads

    def settings(self) -> dict[str, str]:
        onednn = re.search(r"(?:MKL-DNN|oneDNN) v[\d.]+", self.torch.__config__.show())
        return {
            "torch": self.torch.__version__,
            "oneDNN": onednn.group().split()[1] if onednn else "none",
            "isa": self.torch.backends.cpu.get_cpu_capability(),
            "oneDNN isa": self._onednn_isa(),
        }

    def _onednn_isa(self) -> str:
        """What oneDNN itself says it uses: it prints that once, to standard output."""
        torch = self.torch
        image, weight = torch.ones(16, 16, 8, 8), torch.ones(16, 16, 3, 3)
        with tempfile.TemporaryDirectory() as folder:
            said = Path(folder, "said")
            stdout, captured = os.dup(1), os.open(said, os.O_CREAT | os.O_WRONLY)
            os.dup2(captured, 1)
            try:
                with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                    torch.nn.functional.conv2d(image, weight)
            finally:
                os.dup2(stdout, 1)
                os.close(stdout)
                os.close(captured)
            isa = re.search(r"info,cpu,isa:(.+)", said.read_text())
        return isa.group(1) if isa else "not said"

    def calls(self, shape: ConvShape, direction: str, inputs: dict[str, Array]) -> Calls:
        torch = self.torch
        formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
        axes = {"x": (0, 3, 1, 2), "weight": (3, 2, 0, 1), "dy": (0, 3, 1, 2)}
        found = {}
        for name, memory_format in formats.items():
            tensors = {
                key: torch.from_numpy(inputs[key])
                .permute(order)
                .contiguous(memory_format=memory_format)
                for key, order in axes.items()
            }
            found[name] = self._call(shape, direction, **tensors)
        return found

    def _call(
        self, shape: ConvShape, direction: str, x: Any, weight: Any, dy: Any
    ) -> Callable[[], Any]:
        stride, padding = [shape.stride] * 2, [shape.padding] * 2
        if direction == "forward":
            conv2d = self.torch.nn.functional.conv2d
            return lambda: conv2d(x, weight, None, stride, padding, 1, shape.groups)
        mask = [direction == "input", direction == "weight", False]
        index = mask.index(True)
        backward = self.torch.ops.aten.convolution_backward
        how = (None, stride, padding, [1, 1], False, [0, 0], shape.groups, mask)
        return lambda: backward(dy, x, weight, *how)[index]

    def to_numpy(self, direction: str, result: Any) -> Array:
        axes = (2, 3, 1, 0) if direction == "weight" else (0, 2, 3, 1)
        return np.ascontiguousarray(result.permute(axes).numpy())


LIBRARIES: dict[str, type[Library]] = {"cycnn": Cycnn, "torch": Torch}
