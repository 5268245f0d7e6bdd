"""Metrics: by hand, against scikit-learn, and in a trainer."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import cycnn
from cycnn import metrics

SEEDS = range(40)


def draw(seed):
    """Return labels and logits, some of them equal, some classes perhaps missing."""
    rng = np.random.default_rng(seed)
    N, C = (int(n) for n in rng.integers(2, (60, 7)))
    return rng.integers(0, C, N), np.round(rng.normal(size=(N, C)), int(rng.integers(0, 3)))


def test_by_hand():
    target = np.array([0, 1, 2, 1, 0])
    y = np.array([[3, 1, 0], [2, 1, 0], [0, 1, 2], [0, 2, 1], [1, 2, 0]], dtype=float)
    assert metrics.accuracy(target, y) == 0.6
    assert metrics.TopK(2)(target, y) == 1.0
    assert_array_equal(metrics.confusion_matrix(target, y), [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    scores = metrics.class_scores(target, y)
    assert_allclose(scores["precision"], [0.5, 0.5, 1])
    assert_allclose(scores["recall"], [0.5, 0.5, 1])
    assert_allclose(metrics.f1(target, y), 2 / 3)
    assert_array_equal(scores["rows"], [2, 2, 1])


def test_two_classes_of_one_output():
    target, y = np.array([0, 1, 1, 0]), np.array([[-1.0], [2.0], [-0.5], [0.5]])
    for scores in (y, y[:, 0], np.hstack([np.zeros_like(y), y])):
        assert_array_equal(metrics.predicted(scores), [0, 1, 0, 1])
        assert_array_equal(metrics.confusion_matrix(target, scores), [[1, 1], [1, 1]])
        assert metrics.auc(target, scores) == 0.75
    assert metrics.binary_accuracy(target, y) == 0.5


def test_ties_and_classes_without_rows():
    assert metrics.auc(np.array([0, 1, 0, 1]), np.zeros(4)) == 0.5
    assert np.isnan(metrics.auc(np.ones(3, int), np.arange(3.0)))
    assert metrics.TopK(1)(np.array([0, 1]), np.zeros((2, 2))) == 0.5  # as argmax: the first wins
    assert np.isnan(metrics.accuracy(np.array([5]), np.zeros((1, 2)), ignore_label=5))
    share = np.array([[0.4, 0.6], [0.9, 0.1]])
    assert metrics.accuracy(share, np.array([[0.0, 1.0], [0.0, 1.0]])) == 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_against_scikit_learn(seed):
    peer = pytest.importorskip("sklearn.metrics")
    target, y = draw(seed)
    found = y.argmax(1)
    assert_allclose(metrics.accuracy(target, y), peer.accuracy_score(target, found))
    labels = range(max(2, y.shape[1]))
    assert_array_equal(
        metrics.confusion_matrix(target, y), peer.confusion_matrix(target, found, labels=labels)
    )
    options = {"average": "macro", "zero_division": 0}
    assert_allclose(metrics.precision(target, y), peer.precision_score(target, found, **options))
    assert_allclose(metrics.recall(target, y), peer.recall_score(target, found, **options))
    assert_allclose(metrics.f1(target, y), peer.f1_score(target, found, **options))
    distinct = np.random.default_rng(seed).permuted(np.arange(y.size)).reshape(y.shape) / y.size
    for k in range(1, y.shape[1] if y.shape[1] > 2 else 0):  # of equals scikit-learn takes the last
        expected = peer.top_k_accuracy_score(target, distinct, k=k, labels=labels)
        assert_allclose(metrics.TopK(k)(target, distinct), expected)
    if len(set(target)) == y.shape[1]:
        share = np.exp(y - y.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        if y.shape[1] == 2:
            expected = peer.roc_auc_score(target, y[:, 1] - y[:, 0])
        else:
            expected = peer.roc_auc_score(target, share, multi_class="ovr", average="macro")
        assert_allclose(metrics.auc(target, y), expected)


def test_in_a_trainer(rng):
    x, y = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    model = cycnn.Sequential([cycnn.Dense(3)], input_shape=(4,), rng=0)
    trainer = cycnn.Trainer(
        model, cycnn.CrossEntropy(), cycnn.SGD(0.1),
        metrics=[metrics.accuracy, metrics.TopK(2), metrics.f1, metrics.auc],
    )  # fmt: skip
    history = trainer.fit(x, y, validation=(x, y), batch_size=7, verbose=0)
    assert set(history) == {
        "loss", "accuracy", "top2", "val_loss", "val_accuracy", "val_top2", "val_f1", "val_auc"
    }  # fmt: skip
    scores, predicted = trainer.evaluate(x, y), model.predict(x)
    assert scores["f1"] == history["val_f1"][0] == metrics.f1(y, predicted)
    assert scores["auc"] == metrics.auc(y, predicted)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: metrics.TopK(0), "k.*0"),
        (lambda: metrics.confusion_matrix(np.array([3]), np.zeros((1, 2))), "0 .. 1.*3"),
        (lambda: metrics.confusion_matrix(np.array([0, 1]), np.zeros((1, 2))), r"\(1,\).*\(2,\)"),
        (lambda: metrics.predicted(np.zeros((1, 2, 3))), r"\(1, 2, 3\)"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
