"""No kernel touches a byte beyond its arrays: each of these ends, or begins, at a page that faults.

The run is a process of its own, which such an access kills.
"""

from __future__ import annotations

import sys

import pytest

from .helpers import run_python

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses mprotect")

CODE = """
import ctypes, mmap, sys
import numpy as np
import cycnn
from cycnn import engine, ops

PAGE, AT_END = mmap.PAGESIZE, DIRECTION == "end"
protect = ctypes.CDLL(None, use_errno=True).mprotect
protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int

def guarded(shape, dtype):
    # An array with a forbidden page right behind it, or right before it.
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = -(-size // PAGE) * PAGE
    pages = mmap.mmap(-1, room + 2 * PAGE)
    view = np.frombuffer(pages, np.uint8)
    start = view.ctypes.data
    for forbidden in (start, start + PAGE + room):
        assert protect(forbidden, PAGE, 0) == 0
    first = PAGE + room - size if AT_END else PAGE
    return view[first : first + size].view(dtype).reshape(shape)

def zeros(shape, dtype):
    return guarded(shape, dtype)           # fresh pages hold zeros

def block(size):
    return guarded((size,), np.uint8)

every_op = [getattr(ops, name) for name in ops.__all__]       # which imports their modules
traps = (engine.empty, guarded), (engine.zeros, zeros), (engine.Block, block)
for name, module in list(sys.modules.items()):
    if name.startswith("cycnn.") and name != "cycnn.engine.plan":       # which has one inside
        for function, trap in traps:
            for attribute in [a for a, value in vars(module).items() if value is function]:
                setattr(module, attribute, trap)
assert ops.conv.__globals__["empty"] is guarded

def draw(*shape):
    array = guarded(shape, dtype)
    array[...] = rng.standard_normal(shape)
    return array

rng = np.random.default_rng(0)
for dtype in ("float32", "float64"):
    for x_shape, kernel, K, options in [
        ((2, 7, 6, 5), (3, 3), 13, {"padding": 1}), ((1, 5, 4, 70), (3, 3), 37, {}),
        ((2, 5, 6, 3), (5, 5), 33, {"stride": 2, "padding": 2}), ((3, 3, 3, 19), (1, 1), 21, {}),
        ((2, 9, 3), (4,), 7, {"dilation": 2}), ((1, 3, 4, 5, 2), (2, 2, 2), 3, {"stride": 2}),
        ((2, 6, 5, 12), (3, 3), 6, {"groups": 3, "padding": 1, "padding_mode": "circular"}),
        ((2, 6, 5, 21), (3, 3), 21, {"groups": 21, "padding": 1}),
        ((1, 6, 5, 5), (3, 2), 15, {"groups": 5, "stride": 2}),
        ((13, 2, 2, 40), (3, 3), 9, {"padding": 1}), ((3, 3, 3, 20), (1, 1), 24, {}),
        ((2, 3, 3, 40), (1, 1), 8, {}), ((4, 4, 4, 24), (1, 1), 96, {}),
        ((4, 4, 4, 96), (1, 1), 32, {}), ((2, 6, 5, 20), (1, 1), 48, {"stride": 2}),
        ((2, 4, 5, 7, 24), (1, 1, 1), 20, {"stride": 2}), ((2, 10, 6), (1,), 7, {"stride": 3}),
        ((2, 6, 9, 21), (3, 3), 21, {"groups": 21, "stride": 2, "padding": 1}),
        ((2, 7, 5, 9), (1, 1), 9, {"groups": 9, "stride": 2}),
        ((1, 5, 70, 9), (3, 3), 9, {"groups": 9, "padding": 1}),
        ((1, 4, 140, 9), (3, 3), 9, {"groups": 9, "stride": 2, "padding": 1}),
        ((2, 6, 7, 1), (3, 3), 40, {"padding": 1, "algorithm": "direct"}),
        ((2, 6, 7, 3), (3, 3), 40, {"stride": 2, "algorithm": "direct"}),
        ((1, 9, 8, 31), (3, 3), 40, {"padding": 1, "algorithm": "direct"}),
        ((2, 9, 8, 61), (3, 3), 150, {"padding": 1, "algorithm": "direct"}),
        ((2, 7, 6, 5), (3, 3), 13, {"padding": 1, "algorithm": "winograd4"}),
        ((1, 5, 4, 70), (3, 3), 37, {"algorithm": "winograd2"}),
        ((40, 9, 7, 3), (3, 3), 9, {"algorithm": "winograd2"}),
        ((3, 17, 33), (3,), 2, {"padding": 2, "algorithm": "winograd4"}),
        ((2, 3, 4, 5, 2), (2, 3, 3), 6, {"algorithm": "winograd4"}),
    ]:
        x, weight = draw(*x_shape), draw(*kernel, x_shape[-1] // options.get("groups", 1), K)
        y = ops.conv(x, weight, draw(K), activation="relu", **options)
        ops.conv_backward_input(draw(*y.shape), weight, x_shape, **options)
        ops.conv_backward_weight(draw(*y.shape), x, kernel, **options)
    for x_shape, kernel, K in [
        ((5, 4, 5, 5), (3, 2), 13), ((1, 5, 70), (3,), 37), ((2, 2, 3, 2, 1), (2, 1, 2), 1),
        ((3, 4, 5, 6), (2, 2), 15),
    ]:
        x = draw(*x_shape)
        weight = draw(*kernel, K, x_shape[-1])
        y = ops.conv_transpose(x, weight, draw(K), stride=2)
        ops.conv_transpose_backward_weight(draw(*y.shape), x, kernel, stride=2)
        outputs = [n - k + 1 for n, k in zip(x_shape[1:-1], kernel)]
        groups = int(np.gcd(x_shape[-1], K))
        weight = draw(*outputs, *kernel, x_shape[-1] // groups, K)
        y = ops.locally_connected(x, weight, draw(*outputs, K), groups=groups)
        ops.locally_connected_backward_input(draw(*y.shape), weight, x_shape, groups=groups)
        ops.locally_connected_backward_weight(draw(*y.shape), x, kernel, groups=groups)
    for N, C, K in [(1, 1, 1), (3, 5, 7), (13, 70, 37), (2, 129, 10), (128, 100, 8)]:
        x, weight = draw(N, C), draw(C, K)
        ops.dense(x, weight, draw(K))
        ops.dense_backward_input(draw(N, K), weight)
        ops.dense_backward_weight(draw(N, K), x)
    for x_shape in [(2, 7, 6, 5), (1, 5, 4, 37), (2, 9, 3), (1, 4, 5, 4, 2), (1, 3, 3, 1)]:
        x = draw(*x_shape)
        y, offset = ops.max_pool(x, 3, stride=2, padding=1)
        ops.max_pool_backward(draw(*y.shape), offset, x_shape, 3, stride=2, padding=1)
        y = ops.avg_pool(x, 2, stride=1)
        ops.avg_pool_backward(draw(*y.shape), x_shape, 2, stride=1)
        index = ops.max_pool_index(offset, x_shape, dtype, 3, stride=2, padding=1)
        ops.max_unpool_backward(x, index)
        y = ops.lp_pool(x, 2, p=3, stride=1)
        ops.lp_pool_backward(draw(*y.shape), x, y, 2, p=3, stride=1)
        y, offset = ops.adaptive_max_pool(x, 2)
        index = ops.adaptive_max_index(offset, x_shape, dtype, 2)
        ops.max_unpool(draw(*y.shape), index, x_shape[1:-1])
        y, index = ops.global_max_pool(x)
        ops.global_max_pool_backward(y, index, x_shape)
        C = x_shape[-1]
        ops.global_avg_pool(x)
        ops.global_avg_pool_backward(draw(x_shape[0], C), x_shape)
        gamma, beta = draw(C), draw(C)
        for after in ({}, {"activation": "relu"}, {"residual": draw(*x_shape)}):
            y, how = ops.batch_norm(x, gamma, beta, 1e-5, **after)
            ops.batch_norm_backward(draw(*x_shape), x, gamma, how)
            after["activation"] = "leaky_relu"
            y, how = ops.batch_norm_inference(x, gamma, beta, *how[:2], 1e-5, **after)
            ops.batch_norm_backward(draw(*x_shape), x, gamma, how, y=y)
        y, mean, variance = ops.group_norm(x, gamma, beta, 1, 1e-5)
        ops.group_norm_backward(draw(*x_shape), x, gamma, mean, variance, 1e-5)
        ops.standardize(x, *ops.channel_statistics(x))
        for axes in (1, len(x_shape) - 1):
            weight, shift = draw(*x_shape[-axes:]), draw(*x_shape[-axes:])
            y, *statistics = ops.row_norm(x, weight, shift, axes, 1e-5)
            ops.row_norm_backward(draw(*x_shape), x, weight, *statistics, axes)
        for within in (False, True):
            y, window = ops.local_response_norm(x, 3, 1, 0.75, 1, within=within)
            ops.local_response_norm_backward(y, x, window, 3, 1, 0.75, 1, within=within)
        for function in ("gelu", "clip", "log"):
            ops.activation_backward(ops.activation(x, function, 0, 1), x, function, 0, 1)
        ops.prelu_backward(ops.prelu(x, gamma), x, gamma)
        y, log = ops.softmax(x), ops.log_softmax(x)
        ops.log_softmax_backward(ops.softmax_backward(x, y), log)
        ops.relu_backward(draw(*x_shape), ops.relu(x))
        ops.add([x, draw(*x_shape), draw(*x_shape)], [1.0, 2.0, 3.0])
        ops.split(ops.concat([x, x], -1), (C, C), -1)
        ops.slice_axis_backward(ops.slice_axis(x, 0, 1, 1), x_shape, 0, 1, 1)
        ops.dropout(x, 0.5, 3)
        ops.scale(x, 0.5)
        data, grad, m, v = (draw(*x_shape) for _ in range(4))
        v[...] = 1
        ops.sgd_update(data, grad, m, 0.1, 0.9, True, 0.1)
        ops.adam_update(data, grad, m, v, 1, 0.1, 0.9, 0.99, 1e-8, 0.1)
    for N, K in [(1, 1), (3, 5), (13, 37)]:
        ops.softmax_cross_entropy(draw(N, K), rng.integers(0, K, N), np.ones(N))
"""


@pytest.mark.parametrize("direction", ["end", "begin"])
def test_kernels_keep_within_their_arrays(direction):
    run_python(CODE.replace("DIRECTION", repr(direction)))


def test_the_trap_works():
    code = CODE.partition("rng =")[0].replace("DIRECTION", "'end'") + """
ctypes.memset(guarded((5,), "float32").ctypes.data, 0, 21)
"""  # fmt: skip
    assert run_python(code, check=False).returncode != 0
