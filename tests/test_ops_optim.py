"""One-pass parameter updates against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cycnn
from cycnn import ops
from cycnn.engine import Plan

from . import reference, reference_training
from .helpers import DTYPES, at_offset, normal, same_bits

SHAPES = [(1,), (37,), (3, 3, 5, 7), (2, 4099)]
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_shape = pytest.mark.parametrize("shape", SHAPES)


@each_dtype
@each_shape
@pytest.mark.parametrize(
    "momentum, nesterov, weight_decay",
    [(0.0, False, 0.0), (0.9, False, 0.0), (0.9, True, 0.0), (0.9, False, 1e-2), (0.0, False, 0.1)],
)
def test_sgd(rng, shape, momentum, nesterov, weight_decay, dtype):
    data, velocity = normal(rng, shape, dtype), np.zeros(shape, dtype) if momentum else None
    options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    expected, expected_velocity = data.astype("float64"), np.zeros(shape)
    for _ in range(3):
        grad = normal(rng, shape, dtype)
        ops.sgd_update(data, grad, velocity, 0.1, *options.values())
        expected, expected_velocity = reference.sgd(
            expected, grad, expected_velocity, learning_rate=0.1, **options
        )
    tolerance = 64 * np.finfo(dtype).eps
    assert_allclose(data, expected, rtol=0, atol=tolerance)
    if momentum:
        assert_allclose(velocity, expected_velocity, rtol=0, atol=4 * tolerance)


@each_dtype
@each_shape
def test_adam(rng, shape, dtype):
    data = normal(rng, shape, dtype)
    m, v = np.zeros(shape, dtype), np.zeros(shape, dtype)
    expected = data.astype("float64"), np.zeros(shape), np.zeros(shape)
    for step in range(1, 5):
        grad = normal(rng, shape, dtype)
        ops.adam_update(data, grad, m, v, step, 0.01, 0.9, 0.999, 1e-8, 0.0)
        expected = reference.adam(expected[0], grad, *expected[1:], step, learning_rate=0.01)
    tolerance = 64 * np.finfo(dtype).eps
    for actual, wanted in zip((data, m, v), expected, strict=True):
        assert_allclose(actual, wanted, rtol=0, atol=tolerance)


@each_dtype
@each_shape
def test_adamw_decays_apart_from_the_gradient(rng, shape, dtype):
    data = normal(rng, shape, dtype)
    m, v = np.zeros(shape, dtype), np.zeros(shape, dtype)
    expected = data.astype("float64"), np.zeros(shape), np.zeros(shape)
    for step in range(1, 5):
        grad = normal(rng, shape, dtype)
        ops.adam_update(data, grad, m, v, step, 0.01, 0.9, 0.999, 1e-8, 0.1, decoupled=True)
        kept = (1 - 0.01 * 0.1) * expected[0]
        expected = reference.adam(kept, grad, *expected[1:], step, learning_rate=0.01)
    tolerance = 64 * np.finfo(dtype).eps
    for actual, wanted in zip((data, m, v), expected, strict=True):
        assert_allclose(actual, wanted, rtol=0, atol=tolerance)


@each_dtype
@each_shape
@pytest.mark.parametrize("name", ["rmsprop", "momentum", "adagrad", "lion"])
def test_the_other_updates(rng, name, shape, dtype):
    data, options = normal(rng, shape, dtype), {"learning_rate": 0.01, "weight_decay": 0.05}
    momentum = 0.8 if name == "momentum" else 0.0
    if name in ("rmsprop", "momentum"):
        state = [np.zeros(shape, dtype), np.zeros(shape, dtype)]
        options |= {"rho": 0.9, "momentum": momentum, "eps": 1e-3}
        update, plain = ops.rmsprop_update, reference_training.rmsprop
    elif name == "adagrad":
        state, options = [np.zeros(shape, dtype)], options | {"eps": 1e-3}
        update, plain = ops.adagrad_update, reference_training.adagrad
    else:
        state, options = [np.zeros(shape, dtype)], options | {"beta1": 0.9, "beta2": 0.99}
        update, plain = ops.lion_update, reference_training.lion
    expected = [data.astype("float64"), *(a.astype("float64") for a in state)]
    for _ in range(4):
        grad = normal(rng, shape, dtype)
        arrays = [state[0], None] if name == "rmsprop" else state
        update(data, grad, *arrays, **options)
        expected = plain(expected[0], grad, *expected[1:], **options)
    used = 1 if name == "rmsprop" else len(state)
    for actual, wanted in zip((data, *state[:used]), expected[: used + 1], strict=True):
        assert_allclose(actual, wanted, rtol=0, atol=256 * np.finfo(dtype).eps)


@each_dtype
def test_lion_stands_still_where_the_sign_is_zero(dtype):
    data, zeros = np.ones(19, dtype), np.zeros(19, dtype)
    ops.lion_update(data, zeros.copy(), zeros, 0.1, 0.9, 0.99, 0.0)
    assert np.all(data == 1)


@each_dtype
@pytest.mark.parametrize("update", ["adam", "rmsprop", "adagrad", "lion"])
def test_a_nan_stays_where_it_is(update, dtype):
    data, grad, m, v = (np.ones(37, dtype) for _ in range(4))
    grad[17] = np.nan
    if update == "adam":
        ops.adam_update(data, grad, m, v, 1, 0.1)
    elif update == "rmsprop":
        ops.rmsprop_update(data, grad, m, v, 0.1, momentum=0.9)
    else:
        getattr(ops, f"{update}_update")(data, grad, m, 0.1)
    assert np.isnan(data[17]) and np.isnan(m[17])
    assert np.isfinite(np.delete(data, 17)).all()


@each_dtype
def test_updates_of_one_plan_are_those_one_by_one(rng, dtype):
    sizes = [1, 37, 8192, 8193, 100_003]
    start = [[normal(rng, (size,), dtype) for _ in range(3)] for size in sizes]
    alone = [[a.copy() for a in arrays] for arrays in start]
    for arrays in alone:
        ops.sgd_update(*arrays, 0.1, 0.9)
    for threads in (1, 2):
        together, plan = [[a.copy() for a in arrays] for arrays in start], Plan()
        for arrays in together:
            ops.sgd_update(*arrays, 0.1, 0.9, plan=plan)
        assert all(map(same_bits, together[1], start[1]))
        with cycnn.num_threads(threads):
            plan.run()
        for arrays, expected in zip(together, alone, strict=True):
            assert all(map(same_bits, arrays, expected))


@pytest.mark.parametrize("shape", [(1,), (37,), (1003, 1001)])
def test_offset_and_threads_change_no_bit(rng, shape):
    start = [np.abs(normal(rng, shape)) for _ in range(4)]

    def run(offset):
        data, grad, m, v = (at_offset(a, offset) for a in start)
        ops.adam_update(data, grad, m, v, 3, 0.01, 0.9, 0.999, 1e-8, 0.01)
        ops.sgd_update(data, grad, m, 0.1, 0.9, True, 0.01)
        ops.rmsprop_update(data, grad, v, m, 0.1, 0.9, 0.9, 1e-3, 0.01)
        ops.adagrad_update(data, grad, v, 0.1, 1e-3, 0.01)
        ops.lion_update(data, grad, m, 0.1, 0.9, 0.99, 0.01)
        return data, m, v

    with cycnn.num_threads(1):
        expected = run(0)
    with cycnn.num_threads(2):
        assert all(map(same_bits, run(0), expected))
    for offset in (4, 36, 60):
        assert all(map(same_bits, run(offset), expected))


def test_nan_gradient_is_not_hidden():
    data, grad = np.ones(19, "float32"), np.zeros(19, "float32")
    grad[17] = np.nan
    ops.sgd_update(data, grad, None, 0.1, 0.0, False, 0.0)
    assert np.isnan(data[17]) and np.all(data[:17] == 1)
