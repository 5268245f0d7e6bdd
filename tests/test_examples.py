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


SMALL = ["--limit", "1000", "--epochs", "5", "--width", "8", "--batch-size", "32"]


def test_fast_small_images_learns(capsys):
    assert example("fast_small_images").main(SMALL) > 0.45
    assert "images/s in training" in capsys.readouterr().out


def test_fast_small_images_reads_both_kinds_of_file(rng, tmp_path):
    module = example("fast_small_images")
    x, y = rng.integers(256, size=(7, 32, 32, 3), dtype=np.uint8), rng.integers(10, size=7)
    records = np.concatenate(
        [y[:, None].astype(np.uint8), x.transpose(0, 3, 1, 2).reshape(7, -1)], 1
    )
    for name, rows in (
        ("data_batch_1", slice(2)),
        ("data_batch_2", slice(2, 5)),
        ("test_batch", slice(5, 7)),
    ):
        records[rows].tofile(tmp_path / f"{name}.bin")
    np.savez(
        tmp_path / "images.npz", x_train=x[:5], y_train=y[:5], x_test=x[5:], y_test=y[5:, None]
    )
    for path in (tmp_path, tmp_path / "images.npz"):
        for (images, labels), rows in zip(module.load(path), (slice(5), slice(5, 7)), strict=True):
            np.testing.assert_array_equal(images, x[rows])
            np.testing.assert_array_equal(labels, y[rows])
    (tmp_path / "test_batch.bin").write_bytes(b"too short")
    with pytest.raises(ValueError, match=r"records of 3073 bytes, got 9 bytes"):
        module.load(tmp_path)
    records[6, 0] = 10
    records.tofile(tmp_path / "test_batch.bin")
    with pytest.raises(ValueError, match=r"labels of 0 to 9, got 10"):
        module.load(tmp_path)
    with pytest.raises(ValueError, match=r"must hold data_batch_1\.bin"):
        module.load(tmp_path / "..")
    np.savez(tmp_path / "b.npz", x_train=x, y_train=y[:5], x_test=x[5:], y_test=y[5:])
    with pytest.raises(ValueError, match=r"one for each label, got \(7, 32, 32, 3\) and 5 labels"):
        module.load(tmp_path / "b.npz")


def test_fast_small_images_whitens_patches_and_begins_near_the_identity(rng):
    module = example("fast_small_images")
    x, _ = module.drawn(200, rng)
    model = module.network(x, 10, 16, 0)
    white = model[1](model[0](x)[0])[0].reshape(-1, 24).astype(np.float64)
    covariance = white.T @ white / len(white)
    np.testing.assert_array_equal(covariance[:12, 12:], -covariance[:12, :12])
    off = covariance[:12, :12] - np.diag(covariance.diagonal()[:12])
    assert abs(off).max() < 1e-3  # directions that hardly vary stay below 1: they are noise
    assert 0.9 < covariance.diagonal().max() < 1 + 1e-3
    assert model[1].frozen
    second = model[7]  # from 16 channels to 16
    y, _ = second(image := rng.standard_normal((1, 5, 5, 16), dtype=np.float32))
    np.testing.assert_array_equal(y, image)


def test_fast_small_images_mirrors_every_image_in_every_second_epoch(rng):
    module = example("fast_small_images")
    x = rng.integers(256, size=(10, 4, 4, 3), dtype=np.uint8)
    batches = module.Alternating(x, np.arange(10), 4, seed=0)
    epochs = []
    for _ in range(3):
        seen = {label: image for part, y in batches for image, label in zip(part, y, strict=True)}
        epochs.append([bool((seen[i] == x[i]).all()) for i in range(10)])
        for i, plain in enumerate(epochs[-1]):
            np.testing.assert_array_equal(seen[i], x[i] if plain else x[i, :, ::-1])
    assert len(batches) == 3 and len(set(epochs[0])) == 2
    assert epochs[0] == epochs[2] == [not plain for plain in epochs[1]]


def test_fast_small_images_averages_over_six_views(rng):
    module = example("fast_small_images")
    x, views = rng.standard_normal((3, 8, 8, 3)), []

    def predict(view):
        views.append(view.copy())
        return np.full((len(view), 2), 8.0 ** len(views))

    logits = module.averaged(predict, x)
    np.testing.assert_array_equal(logits, (2 * (8 + 64) + 8**3 + 8**4 + 8**5 + 8**6) / 8)
    for view, mirrored in zip(views[::2], views[1::2], strict=True):
        np.testing.assert_array_equal(mirrored, view[:, :, ::-1])
    np.testing.assert_array_equal(views[0], x)
    np.testing.assert_array_equal(views[2][:, 1:, 1:], x[:, :-1, :-1])
    np.testing.assert_array_equal(views[4][:, :-1, :-1], x[:, 1:, 1:])


@pytest.fixture
def torch():
    """PyTorch, whose number of threads, and so OpenMP's, is left as it was."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    yield torch
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("torch")
def test_fast_small_images_beside_pytorch(capsys):
    module = example("fast_small_images")
    x, _ = module.drawn(20, np.random.default_rng(0))
    model = module.network(x, 10, 8, 0)
    twin = module.Torch(model, None, 0)
    np.testing.assert_allclose(twin.predict(x), model.predict(x), rtol=1e-4, atol=1e-4)
    module.main([*SMALL[:-2], "--batch-size", "100", "--limit", "300", "--torch", "--threads", "1"])
    text = capsys.readouterr().out
    assert "times as fast as PyTorch" in text
    ours, theirs = (
        float(line.split()[3].rstrip(",")) for line in text.splitlines() if "test accuracy" in line
    )
    assert abs(ours - theirs) < 0.1  # the same steps from the same weights, but for rounding


def test_fast_small_images_names_pytorch_where_it_is_missing(capsys, monkeypatch):
    module = example("fast_small_images")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    module.main(["--limit", "100", "--epochs", "1", "--width", "8", "--torch"])
    assert "PyTorch is missing" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the package's own imports may warn
def test_mnist_1d_reaches_90_percent():
    pytest.importorskip("mnist1d")
    assert example("mnist_1d").main(["--epochs", "15"]) >= 0.9
