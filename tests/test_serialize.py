"""Model files: what comes back, what is refused, and what a crash or a full disk leaves behind."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import random
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

import cycnn

from .helpers import normal, run_python, same_bits

LAYERS = """[
    cycnn.Conv(6, 3, padding="same", groups=2), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.MaxPool(2),
    cycnn.Residual([cycnn.Conv(6, 3, padding=1, bias=False), cycnn.BatchNorm(momentum=0.8)]),
    cycnn.Parallel([[cycnn.DepthwiseConv(3, padding=1, multiplier=2)], []]), cycnn.Dropout(0.3),
    cycnn.AvgPool((2, 3), stride=1, padding=((0, 1), (1, 1))), cycnn.GlobalAvgPool(),
    cycnn.Dense(5, name="head"),
]"""


def small(**options):
    """Return a built network with every kind of layer."""
    return cycnn.Sequential(eval(LAYERS), **({"input_shape": (8, 9, 4), "rng": 0} | options))


def state(model):
    """Return every array of a model by name."""
    return {name: p.data for name, p in model.parameters().items()} | model.buffers()


def same(a, b):
    """Say whether two models have the same layers and arrays, bit for bit."""
    return repr(a) == repr(b) and state(a).keys() == state(b).keys() and all(
        same_bits(array, state(b)[name]) for name, array in state(a).items()
    )  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    """Return the path of a saved model."""
    path = tmp_path / "model.cycnn"
    small().save(path)
    return path


def members(path):
    """Return {name: bytes} of a zip."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, contents, compression=zipfile.ZIP_STORED):
    """Write a zip of {name: bytes}, config.json with the checksums of the arrays it names."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


def npy(array):
    """Return an array as the bytes of an .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def altered(path, change):
    """Write the file again after change(config, contents); checksums are set right."""
    contents = members(path)
    config = json.loads(contents["config.json"])
    change(config, contents)
    for name, described in config.get("arrays", {}).items():
        data = contents.get(f"arrays/{name}.npy", b"")
        described["sha256"] = hashlib.sha256(data).hexdigest()
    contents["config.json"] = json.dumps(config).encode()
    write(path, contents)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_comes_back_bit_for_bit(rng, tmp_path, dtype):
    model, x = small(dtype=dtype), normal(rng, (4, 8, 9, 4), dtype)
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam(1e-2))
    trainer.fit(x, np.arange(4), epochs=2, rng=0, verbose=0)
    model[0].freeze()
    path = tmp_path / "model.cycnn"
    model.save(path)
    again = cycnn.load(path)
    assert type(again) is type(model) and again.dtype == model.dtype
    assert same(again, model)
    assert same_bits(again.predict(x), model.predict(x))
    for name, p in again.parameters().items():
        assert p.trainable == model.parameters()[name].trainable
        assert not p.data.flags.writeable
    assert not again.parameters()["0.weight"].trainable
    trainer = cycnn.Trainer(again, cycnn.CrossEntropy(), cycnn.SGD(0.1))
    assert np.isfinite(trainer.step(x, np.arange(4)))


def test_the_file_is_a_zip_that_numpy_reads(saved):
    model, contents = small(), members(saved)
    for name, array in state(model).items():
        stream = io.BytesIO(contents.pop(f"arrays/{name}.npy"))
        assert same_bits(np.load(stream, allow_pickle=False), array)
    assert list(contents) == ["config.json"]
    assert json.loads(contents["config.json"])["format"] == "cycnn"


def test_one_model_is_one_file(saved, tmp_path):
    small().save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()
    cycnn.load(saved).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_graphs_and_shared_layers(rng, tmp_path):
    shared = cycnn.Dense(4)
    graph = cycnn.Graph(
        {"a": (shared, "u"), "b": (shared, "v"), "s": (cycnn.Add([1.0, -2.0]), ("a", "b"))},
        inputs={"u": (3,), "v": (3,)}, outputs=("s", "a"), rng=0,
    )  # fmt: skip
    graph.save(tmp_path / "graph")
    again = cycnn.load(tmp_path / "graph")
    assert len(again.parameters()) == 2
    x = normal(rng, (5, 3)), normal(rng, (5, 3))
    assert all(map(same_bits, again.predict(x), graph.predict(x)))


def test_37_arrays_assigned_from_any_layout(tmp_path):
    model = cycnn.Sequential([cycnn.Dense(6)], input_shape=(4,), rng=0)
    values = np.arange(24.0).reshape(6, 4)
    model.parameters()["0.weight"].assign(values.T)
    model.save(tmp_path / "m")
    weight = cycnn.load(tmp_path / "m").parameters()["0.weight"].data
    assert np.array_equal(weight, values.T)


def test_subnormal_infinite_and_negative_zero_weights(tmp_path):
    model = cycnn.Sequential([cycnn.Dense(3)], input_shape=(1,), rng=0, dtype="float64")
    model.parameters()["0.weight"].assign([[5e-324, -0.0, np.inf]])
    model.save(tmp_path / "m")
    assert same(cycnn.load(tmp_path / "m"), model)


class Double(cycnn.Layer):
    """A layer that the library does not know."""

    def __init__(self, factor=2.0, *, name=None):
        super().__init__(name=name, factor=factor)
        self.factor = factor

    def __call__(self, x, training=False):
        y = self.factor * self.check_input(x)
        return y, lambda dy, input_gradient=True: self.factor * dy if input_gradient else None


def test_39_an_unknown_class_is_named_and_never_imported(tmp_path):
    model = cycnn.Sequential([Double(3.0)], input_shape=(2,))
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match="Double"):
        cycnn.load(tmp_path / "m")
    again = cycnn.load(tmp_path / "m", custom={"Double": Double})
    assert np.array_equal(again.predict([[1.0, 2.0]]), [[3.0, 6.0]])


def test_34_truncated_files(saved):
    whole = saved.read_bytes()
    for length in {0, 1, 4, 30, *range(0, len(whole), len(whole) // 40), len(whole) - 1}:
        saved.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.cycnn"):
            cycnn.load(saved)


def test_34_garbage(saved):
    generator = random.Random(0)
    for data in (
        b"\0" * 5000,
        b"PK\3\4" + b"x" * 99,
        generator.randbytes(3000),
        b"PK\5\6" + bytes(18),
    ):
        saved.write_bytes(data)
        with pytest.raises(ValueError, match=r"model\.cycnn"):
            cycnn.load(saved)


def test_34_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        cycnn.load(tmp_path / "none")
    with pytest.raises(OSError, match="."):
        cycnn.load(tmp_path)


def test_35_a_flipped_bit_is_found_or_harmless(saved):
    model, whole = small(), saved.read_bytes()
    generator, refused = random.Random(0), 0
    places = [*range(0, len(whole), max(len(whole) // 300, 1)), *range(len(whole) - 60, len(whole))]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << generator.randrange(8)
        saved.write_bytes(damaged)
        try:
            again = cycnn.load(saved)
        except ValueError:
            refused += 1
        else:  # a bit of the zip that says nothing, such as a date
            assert same(again, model)
    assert refused > 0.5 * len(places)


def test_35_a_changed_value_is_found_by_its_checksum(saved):
    contents = members(saved)
    name = "arrays/head.weight.npy"
    contents[name] = contents[name][:-1] + bytes([contents[name][-1] ^ 1])
    write(saved, contents)
    with pytest.raises(ValueError, match="head.weight.*checksum"):
        cycnn.load(saved)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c, m: (c["arrays"].pop("head.bias"), m.pop("arrays/head.bias.npy")),
         "head.bias.*missing"),
        (lambda c, m: m.pop("arrays/head.bias.npy"), "head.bias"),
        (lambda c, m: m.update({"arrays/other.npy": npy(np.zeros(3))}), "other"),
        (lambda c, m: (m.update({"arrays/other.npy": npy(np.zeros(3))}),
                       c["arrays"].update(other={"trainable": True})), "other.*left over"),
        (lambda c, m: m.update({"arrays/head.bias.npy": npy(np.zeros(4, "f4"))}),
         r"head.bias.*\(5,\).*\(4,\)"),
        (lambda c, m: m.update({"arrays/head.bias.npy": npy(np.zeros(5, "f8"))}), "head.bias"),
        (lambda c, m: m.update({"arrays/head.bias.npy": npy(np.full(5, np.nan, "f4"))}),
         "head.bias.*NaN"),
        (lambda c, m: m.update({"arrays/head.bias.npy": npy(np.zeros(5, ">f4"))}), "head.bias"),
        (lambda c, m: m.update({"arrays/head.bias.npy": npy(np.zeros((1, 5), "i4"))}), "head.bias"),
        (lambda c, m: c.update(format_version=2), "newer"),
        (lambda c, m: c.update(format_version="1"), "format_version"),
        (lambda c, m: c.update(format="other"), "cycnn"),
        (lambda c, m: c.update(dtype="float16"), "float16"),
        (lambda c, m: c.update(input_shape=[8, 9]), "."),
        (lambda c, m: c.update(input_shape=[-8, 9, 4]), "."),
        (lambda c, m: c.update(input_shape=[8, 9, 10**30]), "."),
        (lambda c, m: c.update(layers=[]), "."),
        (lambda c, m: c["layers"][0].update({"class": "os.system"}), "os.system"),
        (lambda c, m: c["layers"][0].update({"class": "Layer"}), "."),
        (lambda c, m: c["layers"][0]["config"].update(filters=10**12), "."),
        (lambda c, m: c["layers"][0]["config"].update(filters=-1), "filters"),
        (lambda c, m: c["layers"][0]["config"].update(stride=0), "stride"),
        (lambda c, m: c["layers"][0]["config"].update(more=1), "more"),
        (lambda c, m: c["layers"][-1]["config"].update(layers=[{"$layer": 99}]), "99"),
        (lambda c, m: c["layers"][-1]["config"].update(layers=[{"$layer": -1}]), "-1"),
        (lambda c, m: c["layers"][-1]["config"].update(input_shape=[8, 9, 4]), "."),
        (lambda c, m: c.pop("layers"), "layers"),
        (lambda c, m: c.pop("arrays"), "arrays"),
    ],
)  # fmt: skip
def test_38_what_does_not_fit_is_named(saved, change, message):
    altered(saved, change)
    with pytest.raises(ValueError, match=message):
        cycnn.load(saved)


def test_38_nan_is_not_saved_over_a_good_file(saved):
    model, whole = small(), saved.read_bytes()
    model.parameters()["0.bias"].assign(np.full(6, np.nan))
    with pytest.raises(ValueError, match="0.bias.*NaN"):
        model.save(saved)
    assert saved.read_bytes() == whole


def test_39_pickles_are_never_read(saved, tmp_path):
    class Attack:
        """What a pickle can do."""

        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    saved.write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ValueError, match=r"model\.cycnn"):
        cycnn.load(saved)
    small().save(saved)
    stream = io.BytesIO()
    np.save(stream, np.array([Attack()], dtype=object), allow_pickle=True)
    altered(saved, lambda c, m: m.update({"arrays/head.bias.npy": stream.getvalue()}))
    with pytest.raises(ValueError, match="head.bias|object|pickle"):
        cycnn.load(saved)
    assert not (tmp_path / "owned").exists()


def test_40_a_file_declares_no_more_than_it_has(saved):
    contents = members(saved)
    zeros = npy(np.zeros(10**7, "f4"))
    write(saved, contents | {"arrays/head.bias.npy": zeros}, zipfile.ZIP_DEFLATED)
    assert saved.stat().st_size < 10**6
    with pytest.raises(ValueError, match="stored"):
        cycnn.load(saved)
    head = zeros[:128].replace(b"(10000000,)", b"(99999999999,)"[:14])
    small().save(saved)
    altered(saved, lambda c, m: m.update({"arrays/head.bias.npy": head}))
    with pytest.raises(ValueError, match="."):
        cycnn.load(saved)
    long = b"\x93NUMPY\1\0\xff\xff" + b" " * 65535
    altered(saved, lambda c, m: m.update({"arrays/head.bias.npy": long}))
    with pytest.raises(ValueError, match="."):
        cycnn.load(saved)


def test_random_configs_are_refused_or_make_a_model(saved):
    generator, whole = random.Random(0), saved.read_bytes()
    values = (0, -1, 2, 10**20, 0.5, float("inf"), "", "same", None, True, [], [1], {}, [[1, 2]])

    def mutate(config, _):
        entry = generator.choice(config["layers"])
        target = generator.choice([entry, entry["config"], config])
        keys = [key for key in target if key != "arrays"]
        if keys:
            target[generator.choice(keys)] = generator.choice(values)

    for _ in range(300):
        saved.write_bytes(whole)
        altered(saved, mutate)
        with contextlib.suppress(ValueError):
            cycnn.load(saved)


WRITER = """
import sys
import numpy as np
import cycnn
models = []
for value in (1.0, 2.0):
    model = cycnn.Sequential([cycnn.Dense(600)], input_shape=(700,), rng=0)
    for p in model.parameters().values():
        p.assign(np.full(p.shape, value))
    models.append(model)
models[0].save(sys.argv[1])
print("ready", flush=True)
while True:
    for model in models:
        model.save(sys.argv[1])
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_42_kill_while_saving_over_a_good_file(tmp_path, rounds):
    path, generator = tmp_path / "model.cycnn", random.Random(0)
    for _ in range(rounds):
        command = [sys.executable, "-c", WRITER, path]
        # From elsewhere: beside a checkout, its sources would be imported, not what is installed.
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) as writer:
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(generator.uniform(0.0, 0.1))
            writer.kill()
        weight = cycnn.load(path).parameters()["0.weight"].data
        assert weight.min() == weight.max() in (1.0, 2.0)


FULL = """
import errno, os, pathlib, sys
import numpy as np
import cycnn
folder = pathlib.Path(sys.argv[1])
path = folder / "model.cycnn"
cycnn.Sequential([cycnn.Dense(100)], input_shape=(100,), rng=0).save(path)
before = path.read_bytes()
PREPARE
large = cycnn.Sequential([cycnn.Dense(1000)], input_shape=(1000,), rng=0)
try:
    large.save(path)
except OSError as error:
    assert error.errno in (errno.ENOSPC, errno.EFBIG), error
else:
    raise AssertionError("4 MB were written")
assert path.read_bytes() == before
assert os.listdir(folder) == ["model.cycnn"], os.listdir(folder)
assert large.predict(np.ones((1, 1000))).shape == (1, 1000)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs resource")
def test_43_a_limit_on_the_size_of_files(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))"
    code = FULL.replace("PREPARE", limit).replace("sys.argv[1]", repr(str(tmp_path)))
    run_python(code)


@pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs")
def test_43_a_full_disk(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    try:
        run_python(FULL.replace("PREPARE", "").replace("sys.argv[1]", repr(str(tmp_path))))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_43_an_error_at_the_last_moment_leaves_the_old_file(saved, monkeypatch):
    whole = saved.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        small(rng=1).save(saved)
    assert saved.read_bytes() == whole
    assert list(saved.parent.iterdir()) == [saved]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        small().save(tmp_path / "none" / "model.cycnn")


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes and links")
def test_modes_and_links_are_kept(saved, tmp_path):
    old = os.umask(0o027)
    try:
        small().save(tmp_path / "new")
    finally:
        os.umask(old)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    saved.chmod(0o604)
    link = tmp_path / "link"
    link.symlink_to(saved)
    small(rng=1).save(link)
    assert link.is_symlink()
    assert saved.stat().st_mode & 0o777 == 0o604
    assert same(cycnn.load(saved), small(rng=1))
