"""Losses, optimizers and schedules against PyTorch, on random configurations.

Thirty of each run wherever PyTorch is installed, three hundred with `-m peers`. PyTorch computes in
float64; so do we in half of them, and then nearly every digit agrees.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cycnn
from cycnn import schedules

from .. import reference_training

torch = pytest.importorskip("torch")
F = torch.nn.functional

ROWWISE = {"reduction": "none"}
SEEDS = [
    *range(30),
    *(pytest.param(seed, marks=pytest.mark.peers, id=f"peers-{seed}") for seed in range(300)),
]
each_seed = pytest.mark.parametrize("seed", SEEDS)


def tensor(a):
    """Return a float64 tensor that collects its gradient."""
    return torch.tensor(np.asarray(a, np.float64)).requires_grad_()


def compare(loss, y, target, weight, rows):
    """Compare with PyTorch's loss of each row, `rows(y) -> (N,)`, averaged with the weights."""
    value, backward = loss(y, target, weight)
    peer = tensor(y)
    weights = torch.ones(len(y)) if weight is None else torch.tensor(weight)
    expected = (rows(peer) * weights).sum() / weights.sum()
    expected.backward()
    dy, eps = backward(), np.finfo(y.dtype).eps
    assert dy.dtype == y.dtype
    assert_allclose(value, expected.item(), rtol=64 * eps, atol=64 * eps)
    assert_allclose(dy, peer.grad.numpy(), rtol=64 * eps, atol=16 * eps)


def draw(rng, *shape):
    """Return outputs of a random dtype and, sometimes, weights."""
    y = (rng.uniform(0.1, 5) * rng.standard_normal(shape)).astype(rng.choice(["f4", "f8"]))
    return y, rng.uniform(0.1, 3, shape[0]) if rng.random() < 0.5 else None


@each_seed
def test_cross_entropy(seed):
    rng = np.random.default_rng(seed)
    N, C = (int(n) for n in rng.integers(1, (40, 50)))
    y, weight = draw(rng, N, C)
    smoothing = float(rng.choice([0.0, 0.0, rng.random()]))
    if rng.random() < 0.3:
        share = rng.dirichlet(np.ones(C), N)
        target, peer_target = share, torch.tensor(share)
        options, counts = {}, np.ones(N)
    else:
        target = rng.integers(0, C, N)
        options, counts = {}, np.ones(N)
        if rng.random() < 0.5:
            options["class_weight"] = rng.uniform(0.1, 2, C)
            counts = options["class_weight"][target]
        peer_target = torch.tensor(target)
        if rng.random() < 0.5 and N > 1:
            target = target.copy()
            ignored = rng.permutation(N)[: rng.integers(1, N)]
            target[ignored] = options["ignore_label"] = -100
            counts = np.where(target == -100, 0.0, counts)
    loss = cycnn.CrossEntropy(label_smoothing=smoothing, **options)
    value, backward = loss(y, target, weight)
    peer, w = tensor(y), torch.tensor(counts * (1 if weight is None else weight))
    rows = F.cross_entropy(peer, peer_target, **ROWWISE, label_smoothing=smoothing)
    expected = (rows * w).sum() / w.sum()
    expected.backward()
    eps = np.finfo(y.dtype).eps
    assert_allclose(value, expected.item(), rtol=64 * eps)
    assert_allclose(backward(), peer.grad.numpy(), rtol=64 * eps, atol=16 * eps)
    if weight is None and not smoothing and isinstance(options.get("class_weight"), np.ndarray):
        whole = F.cross_entropy(
            tensor(y), torch.tensor(target), weight=torch.tensor(options["class_weight"]),
            ignore_index=-100,
        )  # fmt: skip
        assert_allclose(value, whole.item(), rtol=64 * eps)


@each_seed
@pytest.mark.parametrize("name", ["squared", "absolute", "huber", "logistic", "hinge", "yes or no"])
def test_losses(seed, name):
    rng = np.random.default_rng(seed)
    N, M = (int(n) for n in rng.integers(1, (40, 50)))
    y, weight = draw(rng, N, M)
    target = rng.standard_normal((N, M))
    if name == "hinge":
        labels, margin = rng.integers(0, M, N), float(rng.uniform(0.1, 2))
        peer_labels = torch.tensor(labels)
        compare(
            cycnn.Hinge(margin), y, labels, weight,
            lambda t: F.multi_margin_loss(t, peer_labels, margin=margin, reduction="none"),
        )  # fmt: skip
        return
    if name == "logistic":
        target = rng.random((N, M))
    elif name == "yes or no":
        target = rng.choice([-1.0, 1.0], (N, M))
    rounded = target.astype(y.dtype)  # what our loss compares with
    peer_target, delta = torch.tensor(rounded.astype("f8")), float(rng.uniform(0.1, 3))
    loss, rows = {
        "squared": (
            cycnn.MeanSquaredError(),
            lambda t: F.mse_loss(t, peer_target, **ROWWISE),
        ),
        "absolute": (
            cycnn.MeanAbsoluteError(),
            lambda t: F.l1_loss(t, peer_target, **ROWWISE),
        ),
        "huber": (
            cycnn.Huber(delta),
            lambda t: F.huber_loss(t, peer_target, **ROWWISE, delta=delta),
        ),
        "logistic": (
            cycnn.BinaryCrossEntropy(),
            lambda t: F.binary_cross_entropy_with_logits(t, peer_target, **ROWWISE),
        ),
        "yes or no": (  # max(0, 1 - t y) by another name
            cycnn.BinaryHinge(),
            lambda t: F.hinge_embedding_loss(peer_target * t, -torch.ones(N, M), **ROWWISE),
        ),
    }[name]
    compare(loss, y, rounded, weight, lambda t: rows(t).mean(1))


@each_seed
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Lion"])
def test_optimizers_step_by_step(seed, name):
    rng = np.random.default_rng(seed)
    rate, decay = float(10 ** rng.uniform(-4, -0.5)), float(rng.choice([0.0, rng.random() * 0.1]))
    clip = float(rng.uniform(0.5, 20)) if rng.random() < 0.5 else None
    shapes = [tuple(rng.integers(1, 9, rng.integers(1, 4))) for _ in range(rng.integers(1, 4))]
    beta1, beta2 = float(rng.uniform(0, 0.95)), float(rng.uniform(0.5, 0.9999))
    eps, momentum = float(10 ** rng.uniform(-10, -2)), float(rng.choice([0, rng.random()]))
    nesterov = bool(momentum and rng.random() < 0.5)
    shared = {"weight_decay": decay}
    ours, peer = {
        "SGD": (
            lambda: cycnn.SGD(rate, momentum, nesterov, decay, clip),
            lambda p: torch.optim.SGD(p, rate, momentum=momentum, nesterov=nesterov, **shared),
        ),
        "Adam": (
            lambda: cycnn.Adam(rate, beta1, beta2, eps, decay, clip),
            lambda p: torch.optim.Adam(p, rate, betas=(beta1, beta2), eps=eps, **shared),
        ),
        "AdamW": (
            lambda: cycnn.AdamW(rate, beta1, beta2, eps, decay, clip),
            lambda p: torch.optim.AdamW(p, rate, betas=(beta1, beta2), eps=eps, **shared),
        ),
        "RMSprop": (
            lambda: cycnn.RMSprop(rate, beta2, momentum, eps, decay, clip),
            lambda p: torch.optim.RMSprop(
                p, rate, alpha=beta2, eps=eps, momentum=momentum, **shared
            ),
        ),
        "Adagrad": (
            lambda: cycnn.Adagrad(rate, eps, decay, clip),
            lambda p: torch.optim.Adagrad(p, rate, eps=eps, **shared),
        ),
        "Lion": (lambda: cycnn.Lion(rate, beta1, beta2, decay, clip), lambda p: None),
    }[name]
    starts = [rng.standard_normal(shape) for shape in shapes]
    parameters = {str(i): cycnn.Parameter(start) for i, start in enumerate(starts)}
    tensors = [tensor(start) for start in starts]
    optimizer, other = ours(), peer(tensors)
    plain = [(start, np.zeros(start.shape)) for start in starts]  # of Lion: PyTorch has none
    for _ in range(8):
        gradients = [rng.uniform(0.1, 3) * rng.standard_normal(shape) for shape in shapes]
        for p, t, gradient in zip(parameters.values(), tensors, gradients, strict=True):
            p.add_grad(gradient.copy())
            t.grad = torch.tensor(gradient)
        optimizer.step(parameters)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(tensors, clip)
        if other is None:
            options = {"learning_rate": rate, "beta1": beta1, "beta2": beta2, "weight_decay": decay}
            plain = [
                reference_training.lion(data, t.grad.numpy(), m, **options)
                for (data, m), t in zip(plain, tensors, strict=True)
            ]
            expected = [data for data, _ in plain]
        else:
            other.step()
            expected = [t.detach().numpy() for t in tensors]
        for p, wanted in zip(parameters.values(), expected, strict=True):
            # clip_grad_norm_ divides by norm + 1e-6, which we do not
            assert_allclose(p.data, wanted, rtol=0, atol=1e-10 if clip is None else 1e-4 * 8 * rate)


def peer_rates(make, steps, rate):
    """Return the learning rates of a PyTorch schedule."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], rate)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@each_seed
def test_schedules(seed):
    rng, of = np.random.default_rng(seed), torch.optim.lr_scheduler
    rate, factor = float(10 ** rng.uniform(-4, 0)), float(rng.uniform(0.1, 1))
    every, steps = (int(n) for n in rng.integers(2, (20, 60)))
    end, rise = rate * float(rng.random()), float(rng.uniform(0.1, 0.9))
    pairs = [
        (schedules.Step(rate, every, factor), lambda o: of.StepLR(o, every, factor)),
        (schedules.Exponential(rate, 1, factor), lambda o: of.ExponentialLR(o, factor)),
        (
            schedules.Warmup(schedules.Step(rate, every, factor), every),
            lambda o: of.SequentialLR(
                o,
                [
                    of.LinearLR(o, 1 / (every + 1), every / (every + 1), every - 1),
                    of.StepLR(o, every, factor),
                ],
                [every],
            ),
        ),
    ]
    for ours, peer in pairs:
        assert_allclose([ours(n) for n in range(steps)], peer_rates(peer, steps, rate), rtol=1e-9)
    cosine = [schedules.Cosine(rate, steps, end)(n) for n in range(steps)]
    peer = peer_rates(lambda o: of.CosineAnnealingLR(o, steps, end), steps, rate)
    assert_allclose(cosine, peer, rtol=1e-6)
    if steps * rise > 2:
        ours = schedules.OneCycle(rate, steps, rise, 20.0, 500.0)
        peer = peer_rates(
            lambda o: of.OneCycleLR(
                o, rate, steps, pct_start=rise, div_factor=20.0, final_div_factor=500.0
            ),
            steps - 1, rate,
        )  # fmt: skip
        assert_allclose([ours(n) for n in range(steps - 1)], peer, rtol=1e-9)
        assert_allclose(ours(steps - 1), rate / 20 / 500, rtol=1e-9)


@each_seed
def test_reduce_on_plateau(seed):
    rng = np.random.default_rng(seed)
    patience, delta = int(rng.integers(1, 5)), float(rng.choice([0.0, 0.1]))
    mode, factor = str(rng.choice(["min", "max"])), float(rng.uniform(0.1, 0.9))
    ours = schedules.ReduceOnPlateau(
        0.1, "x", factor, patience, delta, minimum=1e-3, mode=mode
    )  # fmt: skip
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    peer = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, factor, patience - 1, delta, "abs", min_lr=1e-3, eps=0
    )
    for value in rng.random(40):
        ours.end_epoch({"x": value})
        peer.step(value)
        assert_allclose(ours(0), optimizer.param_groups[0]["lr"], rtol=1e-12)
