"""The networks of examples/, each trained for a moment."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def example(name):
    """Return an example as a module."""
    if not EXAMPLES.is_dir():
        pytest.skip("the examples are not here")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lenet5_has_the_parameters_that_its_paper_counts():
    lenet5 = example("lenet5")
    model = lenet5.network(0)
    counts = {}
    for name, parameter in model.parameters().items():
        layer = name.split(".")[0]
        counts[layer] = counts.get(layer, 0) + parameter.size
    assert counts == {"C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48120, "F6": 10164}
    codes = lenet5.codes()
    assert codes.shape == (10, 84) and set(codes.ravel()) == {-1, 1}
    assert all((a != b).sum() > 5 for i, a in enumerate(codes) for b in codes[:i])


@pytest.mark.parametrize("name", ["Squash", "Gain", "Distances"])
def test_the_layers_of_lenet5_have_the_right_gradients(rng, name):
    shape = (84,) if name == "Distances" else (3, 2)
    layer = getattr(example("lenet5"), name)().build(shape, dtype="float64")
    x = rng.standard_normal((2, *shape))
    y, backward = layer(x)
    dy, step = rng.standard_normal(y.shape), 1e-6
    dx = backward(dy)
    for array, gradient in ((x, dx), *((p._writable, p.grad) for p in layer.parameters().values())):
        for index in list(np.ndindex(array.shape))[:6]:
            kept = array[index]
            array[index] = kept + step
            up = (layer(x)[0] * dy).sum()
            array[index] = kept - step
            slope = (up - (layer(x)[0] * dy).sum()) / (2 * step)
            array[index] = kept
            # Truncation is about step^2 and rounding eps |y| / step.
            np.testing.assert_allclose(gradient[index], slope, rtol=1e-6, atol=1e-6)


def test_lenet5_learns(capsys):
    assert example("lenet5").main(["--digits", "--epochs", "2"]) > 0.85
    assert "60,000 trained" in capsys.readouterr().out


def test_face_parts_learns():
    assert example("face_parts").main(["--count", "600", "--epochs", "5"]) > 0.75


def test_volumes_learns():
    assert example("volumes").main(["--count", "400", "--epochs", "4"]) > 0.4


def test_mnist_1d_learns_signals(monkeypatch, rng):
    """Ten waves in the place of the data, which need the package mnist1d."""
    module = example("mnist_1d")

    def signals():
        y = rng.integers(10, size=600)
        time = np.arange(40) + rng.uniform(0, 40, (600, 1))
        x = np.sin(time * (0.1 + 0.08 * y[:, None])) + 0.1 * rng.standard_normal((600, 40))
        x = x[:, :, None].astype(np.float32)
        return (x[:500], y[:500]), (x[500:], y[500:])

    monkeypatch.setattr(module, "signals", signals)
    assert module.main(["--epochs", "4"]) > 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the package's own imports may warn
def test_mnist_1d_reaches_90_percent():
    pytest.importorskip("mnist1d")
    assert example("mnist_1d").main(["--epochs", "15"]) >= 0.9
