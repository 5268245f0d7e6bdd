"""What the benchmarks compare is the same network: the PyTorch twins against cycnn.models."""

from __future__ import annotations

import numpy as np
import pytest

from ..benchmark import benchmark

torch = pytest.importorskip("torch")
networks = benchmark("networks")
twins = benchmark("twins")
check = benchmark("check")
worker = benchmark("worker")
timing = benchmark("timing")

each_network = pytest.mark.parametrize("name", networks.NETWORKS)


@pytest.fixture(autouse=True)
def _same_torch():
    """Leave PyTorch's threads and its gradients as they were."""
    threads, graded = torch.get_num_threads(), torch.is_grad_enabled()
    yield
    torch.set_num_threads(threads)
    torch.set_grad_enabled(graded)


@each_network
def test_twins_have_the_parameters_of_our_models(name):
    ours = [p.data for p in networks.build(name).parameters().values()]
    twin = twins.build(name)
    assert sum(p.numel() for p in twin.parameters()) == sum(p.size for p in ours)
    twins.load(twin, ours)
    for parameter, values in zip(twin.parameters(), ours, strict=True):
        assert np.array_equal(np.sort(parameter.detach().numpy(), axis=None), np.sort(values, None))


@each_network
def test_the_first_losses_agree(name):
    servers = {library: worker.Server(library) for library in ("cycnn", "torch")}
    weights, macs = servers["cycnn"].network(name)
    assert macs > 0
    losses = {
        f"{library}, {way}": found
        for library, server in servers.items()
        for way, found in server.losses(name, 4, 1, weights).items()
    }
    assert len(losses) == (2 if networks.NETWORKS[name].axes == 1 else 3)
    check.check_losses(networks.terms(weights), losses)
    first = losses["cycnn, channels last"]
    assert abs(first[1] - first[0]) > 1e-3  # a step moves it, so gradients were compared


def test_another_loss_is_refused():
    with pytest.raises(timing.WorkerError, match="loss 2 of a is 2.0"):
        check.check_losses(100, {"a": [2.0, 2.0], "b": [2.0, 2.001]})
    check.check_losses(100, {"a": [2.0, 1.0], "b": [2.00001, 1.01]})  # of a move by 1


def test_twins_of_other_shapes_are_refused():
    twin = twins.build("LeNet-28")
    weights = [p.data for p in networks.build("LeNet-28").parameters().values()]
    with pytest.raises(ValueError, match="shorter"):
        twins.load(twin, weights[:-1])
    with pytest.raises(ValueError, match="a twin has"):
        twins.load(twin, [np.zeros((5, 5, 1, 32), "f4"), *weights[1:]])


@each_network
def test_prediction_returns_the_same_logits(name):
    x, _ = networks.data(name, 2)
    model, twin = networks.build(name), twins.build(name)
    twins.load(twin, [p.data for p in model.parameters().values()])
    with torch.inference_mode():
        expected = twin.eval()(torch.from_numpy(x).movedim(-1, 1)).numpy()
    terms = networks.terms([p.data for p in model.parameters().values()])
    bound = 10 * check.EPS * terms**0.5 * np.abs(expected).max()
    np.testing.assert_allclose(model.predict(x), expected, rtol=0, atol=bound)
