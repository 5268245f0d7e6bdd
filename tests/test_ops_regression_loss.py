"""Losses element by element, hinge losses and soft targets against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cycnn
from cycnn import ops

from . import reference, reference_training
from .helpers import DTYPES, at_offset, normal, same_bits

ELEMENTS = ("squared", "absolute", "huber", "logistic", "binary_hinge")
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_loss = pytest.mark.parametrize("name", ELEMENTS)


def draw(rng, name, shape, dtype):
    """Return outputs, and targets that the loss takes."""
    y = (3 * normal(rng, shape)).astype(dtype)
    if name == "logistic":
        return y, rng.random(shape).astype(dtype)
    if name == "binary_hinge":
        return y, rng.choice([-1.0, 1.0], shape).astype(dtype)
    return y, (3 * normal(rng, shape)).astype(dtype)


def run(name, y, target, weight=None, **options):
    """Return value and gradient by the op called `name`_loss."""
    return getattr(ops, f"{name}_loss")(y, target, weight, **options)


@each_dtype
@each_loss
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (13,), (7, 37), (5, 3, 4, 2), (300, 17), (2, 5000)])
def test_element_losses(rng, name, shape, weighted, dtype):
    y, target = draw(rng, name, shape, dtype)
    weight = rng.uniform(0, 2, len(y)) + 0.1 if weighted else None
    options = {"delta": 1.5} if name == "huber" else {}
    value, dy = run(name, y, target, weight, **options)
    expected, gradient = reference_training.elements(name, y, target, weight, **options)
    assert isinstance(value, float) and dy.dtype == dtype
    assert_allclose(value, expected, rtol=1e-12)
    share = np.ones(len(y)) / len(y) if weight is None else weight / weight.sum()
    terms = (1 + np.abs(y) + np.abs(target)).reshape(len(y), -1)  # whose difference is the slope
    bound = 4 * np.finfo(dtype).eps * share[:, None] * terms * len(y) / y.size
    assert np.all(np.abs(dy - gradient).reshape(len(y), -1) <= bound)


@each_dtype
@pytest.mark.parametrize("margin", [1.0, 0.5])
@pytest.mark.parametrize("N, K", [(1, 1), (3, 2), (13, 7), (65, 37), (5, 5000)])
def test_hinge(rng, N, K, margin, dtype):
    y, target, weight = normal(rng, (N, K), dtype), rng.integers(0, K, N), rng.random(N) + 0.1
    for weights in (None, weight):
        value, dy = ops.hinge_loss(y, target, weights, margin)
        expected, gradient = reference_training.hinge(y, target, weights, margin)
        assert_allclose(value, expected, rtol=1e-12, atol=1e-300)
        assert_allclose(dy, gradient, rtol=4 * np.finfo(dtype).eps, atol=1e-30)


@each_dtype
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("N, K", [(1, 1), (3, 2), (13, 7), (65, 37), (5, 5000)])
def test_soft_targets(rng, N, K, smoothing, dtype):
    logits, weight = (3 * normal(rng, (N, K))).astype(dtype), rng.random(N) + 0.1
    labels, share = rng.integers(0, K, N), rng.dirichlet(np.ones(K), N).astype(dtype)
    for target, dense in ((labels, np.eye(K)[labels]), (share, share)):
        value, dy = ops.soft_cross_entropy(logits, target, weight, smoothing)
        q = (1 - smoothing) * dense.astype("float64") + smoothing / K
        expected, gradient = reference_training.soft_cross_entropy(logits, q, weight)
        assert_allclose(value, expected, rtol=1e-6 if dtype == "float32" else 1e-12, atol=1e-12)
        bound = 4 * np.finfo(dtype).eps * (weight / weight.sum())[:, None]
        assert np.all(np.abs(dy - gradient) <= bound)


def test_soft_targets_that_are_hard_give_the_plain_loss(rng):
    logits, labels = normal(rng, (9, 5), "float64"), rng.integers(0, 5, 9)
    value, dy = ops.soft_cross_entropy(logits, np.eye(5)[labels])
    expected, gradient = reference.softmax_cross_entropy(logits, labels)
    assert_allclose(value, expected, rtol=1e-12)
    assert_allclose(dy, gradient, rtol=0, atol=1e-15)


@each_dtype
def test_large_outputs_do_not_overflow(dtype):
    y = np.array([[1e4, -1e4, 3e38, -3e38]], dtype)
    value, dy = ops.logistic_loss(y, np.array([[1, 0, 1, 0]], dtype))
    assert value == 0 and np.all(dy == 0)
    value, dy = ops.logistic_loss(y[:, :2], np.array([[0, 1]], dtype))
    assert value == 1e4
    assert_allclose(dy, [[0.5, -0.5]])


@each_dtype
@each_loss
def test_nan_is_not_hidden(rng, name, dtype):
    y, target = draw(rng, name, (4, 5), dtype)
    y[2, 3] = np.nan
    value, dy = run(name, y, target)
    assert np.isnan(value)
    assert np.isfinite(dy[[0, 1, 3]]).all()


def test_nan_is_not_hidden_by_hinge():
    y = np.array([[0.0, np.nan], [1.0, 2.0]])
    assert np.isnan(ops.hinge_loss(y, np.array([0, 0]))[0])


def test_the_slope_at_a_kink_is_zero():
    zeros = np.zeros((1, 2))
    assert not ops.absolute_loss(zeros, zeros)[1].any()
    assert not ops.binary_hinge_loss(np.ones((1, 2)), np.ones((1, 2)))[1].any()
    assert not ops.hinge_loss(np.array([[1.0, 0.0]]), np.array([0]))[1].any()


def test_offset_and_threads_change_no_bit(rng):
    y, target, weight = normal(rng, (3000, 101)), normal(rng, (3000, 101)), rng.random(3000)
    labels = rng.integers(0, 101, 3000)
    share = np.abs(target) / np.abs(target).sum(1, keepdims=True)

    def runs(y):
        yield from (run(name, y, target, weight) for name in ELEMENTS)
        yield ops.hinge_loss(y, labels, weight)
        yield ops.soft_cross_entropy(y, labels, weight, 0.1)
        yield ops.soft_cross_entropy(y, share, weight)

    with cycnn.num_threads(1):
        expected = list(runs(y))
    with cycnn.num_threads(2):
        for (value, dy), (again, dy_again) in zip(runs(y), expected, strict=True):
            assert value == again and same_bits(dy, dy_again)
    for offset in (4, 60):
        for (value, dy), (again, dy_again) in zip(
            runs(at_offset(y, offset)), expected, strict=True
        ):
            assert value == again and same_bits(dy, dy_again)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: ops.squared_loss(np.zeros((2, 3)), np.zeros((2, 2))),
            r"target.*\(2, 3\).*\(2, 2\)",
        ),
        (lambda: ops.squared_loss(np.zeros((2, 3)), np.zeros((2, 3), "f4")), "target.*float64"),
        (lambda: ops.absolute_loss(np.zeros((0, 3)), np.zeros((0, 3))), r"\(0, 3\)"),
        (lambda: ops.huber_loss(np.zeros(2), np.zeros(2), delta=0.0), "delta.*0"),
        (lambda: ops.squared_loss(np.zeros(2), np.zeros(2), np.zeros(2)), "weights"),
        (lambda: ops.squared_loss(np.zeros(2), np.zeros(2), np.ones(3)), r"\(2,\).*\(3,\)"),
        (lambda: ops.hinge_loss(np.zeros((2, 3)), np.array([0, 3])), "3"),
        (lambda: ops.hinge_loss(np.zeros((2, 3)), np.array([0, -1])), "-1"),
        (lambda: ops.hinge_loss(np.zeros(3), np.array([0])), r"\(3,\)"),
        (lambda: ops.hinge_loss(np.zeros((2, 3)), np.array([0, 1]), margin=-1.0), "margin.*-1"),
        (lambda: ops.soft_cross_entropy(np.zeros((2, 3)), np.zeros((2, 4))), r"\(2, 4\)"),
        (lambda: ops.soft_cross_entropy(np.zeros((2, 3)), np.array([0, 1]), None, 1.5), r"1\.5"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
