"""Model files: a zip of config.json and one .npy member for each array, never a pickle.

Any tool that reads zip and NumPy files reads them. Members are stored, not compressed, so a file
declares no more bytes than it has; each array comes with its SHA-256.

    config.json            format, version, dtype, input shape, layers, arrays
    arrays/0.weight.npy    one for each parameter and buffer, by its name in the model

`layers` is a table in which a layer names the ones inside it by number, all of them earlier; the
last one is the model. So two places that share a layer name the same number.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from cycnn._check import Array, float_dtype
from cycnn.graph import Model
from cycnn.layers import REGISTRY, Layer, Source, Weight
from cycnn.layers.building import as_shapes

FORMAT_VERSION = 1

_MODEL = "cycnn"  # the kind of file that holds a model
_CONFIG = "config.json"
_LAYER = "$layer"
_MOST_CALLS = 100_000  # layers shared inside shared layers could ask for any number of nodes
_MOST_HEADER = 10_000
_DTYPES = {"<f4": np.float32, "<f8": np.float64}
_BUILT_BY = {"input_shape", "rng", "dtype"}  # arguments that would build a model too early


class ModelFileError(ValueError):
    """A model file is damaged, of another kind, or does not fit to itself."""


# Saving


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a model to a file: structure, parameters, buffers, what is frozen.

    The file appears whole or not at all: an older one at `path` is replaced at the very end.

    Parameters
    ----------
    model : Model
    path : path-like
        Such as "digits.cycnn".

    Raises
    ------
    NotBuiltError
        If the model is not built.
    TypeError
        If a layer's argument is not made of numbers, text, lists, dicts and layers.
    ValueError
        If an array holds NaN, as after a failed training: such a file could not be loaded.
    OSError
        If it cannot be written; nothing is left behind.
    """
    parameters = model.parameters()
    arrays = {name: parameter.data for name, parameter in parameters.items()} | model.buffers()
    described = {name: {"trainable": p.trainable} for name, p in parameters.items()}
    table: list[dict[str, Any]] = []
    _encode(model, "model", table, {})
    config = {"dtype": model.dtype.name, "input_shape": model.input_shape, "layers": table}
    if model.classes is not None:
        config["classes"] = model.classes
    write(path, _MODEL, config, arrays, described)


def write(
    path: str | os.PathLike[str],
    kind: str,
    config: Mapping[str, Any],
    arrays: Mapping[str, Array],
    described: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write a file of some kind: its config, its arrays, and what more there is to say of these.

    Raises
    ------
    ValueError
        If an array holds NaN.
    OSError
        If it cannot be written; nothing is left behind.
    """
    members: dict[str, bytes] = {}
    descriptions: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        if np.isnan(array).any():
            raise ValueError(f"save: {name!r} must not hold NaN; {path} is not written")
        members[name] = _npy(array)
        digest = hashlib.sha256(members[name]).hexdigest()
        descriptions[name] = {"sha256": digest, **(described or {}).get(name, {})}
    whole = {"format": kind, "format_version": FORMAT_VERSION, **config, "arrays": descriptions}
    text = json.dumps(whole, indent=1, allow_nan=kind != _MODEL)
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        _put(archive, _CONFIG, text.encode())
        for name, data in members.items():
            _put(archive, _member(name), data)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` once it is written whole and safe on the disk.

    It is written beside `path`, so that the last step is one rename; an error leaves no trace.
    """
    import secrets  # which brings hmac and random: reading a file can do without

    target = Path(path).resolve()
    temporary = target.with_name(f".cycnn-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o7777)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name has to reach the disk too; Windows has no way to ask
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add a member without the time of day: one model, one file, bit for bit."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o644 << 16
    archive.writestr(member, data)


def _member(name: str) -> str:
    return f"arrays/{name}.npy"


def _npy(array: Array) -> bytes:
    stream = io.BytesIO()
    little = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    np.lib.format.write_array(stream, little, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _encode(value: Any, place: str, table: list[dict[str, Any]], known: dict[int, int]) -> Any:
    """Return the argument at `place` as JSON can hold it; layers go to the table."""
    if isinstance(value, Layer):
        if id(value) not in known:
            name, config = type(value).__name__, value.config()
            if lost := _arguments(type(value)) - config.keys():
                raise TypeError(
                    f"save: {name} must hand its arguments to super().__init__, which never got "
                    f"{', '.join(sorted(lost))}"
                )
            config = {
                argument: _encode(item, f"{name}: {argument}", table, known)
                for argument, item in config.items()
            }
            entry = {"class": name, "config": config, "frozen": value.frozen}
            if REGISTRY.get(name) is not type(value):
                entry["custom"] = True
            table.append(entry)
            known[id(value)] = len(table) - 1
        return {_LAYER: known[id(value)]}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _encode(item, place, table, known) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_encode(item, place, table, known) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _encode(value.tolist(), place, table, known)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if callable(value):
        raise TypeError(
            f"save: {place} must not be code, which no model file holds, got "
            f"{getattr(value, '__qualname__', value)}; a Layer class of one's own can be saved"
        )
    raise TypeError(f"save: {place} must be made of numbers, text, lists and layers, got {value!r}")


def _arguments(layer_class: type[Layer]) -> set[str]:
    """Return the names of the constructor's arguments, less those that only build a model."""
    arguments = inspect.signature(layer_class).parameters.values()
    names = {a.name for a in arguments if a.kind not in (a.VAR_POSITIONAL, a.VAR_KEYWORD)}
    return names - _BUILT_BY if issubclass(layer_class, Model) else names


# Loading


def load(path: str | os.PathLike[str], custom: Mapping[str, type[Layer]] | None = None) -> Any:
    """Read a model from a file that `save` wrote.

    Nothing in a file is ever run: it can only name layers of this library and those in `custom`.

    Parameters
    ----------
    path : path-like
    custom : mapping of str to class, optional
        Layer classes of one's own, by the names they had.

    Returns
    -------
    Model
        Of the class that was saved, equal to it bit for bit.

    Raises
    ------
    ModelFileError
        If the file is damaged, of a newer format, or names an unknown class; if an array is
        missing, left over, of a wrong shape or holds NaN. The message says which.
    OSError
        If it cannot be read.
    """
    config, arrays = read(path, _MODEL)
    try:
        return _model(config, arrays, custom or {})
    except ModelFileError as error:
        raise ModelFileError(f"{os.fspath(path)}: {error}") from error.__cause__


def read(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the config and the arrays of a file of this kind; see `load` for what it raises."""
    with Path(path).open("rb") as file:
        try:
            return _read(file, kind)
        except ModelFileError as error:
            raise ModelFileError(f"{os.fspath(path)}: {error}") from error.__cause__


def _read(file: IO[bytes], kind: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the config and the arrays, whose checksums are right."""
    size = os.fstat(file.fileno()).st_size
    try:
        with zipfile.ZipFile(file) as archive:
            _check_members(archive.infolist(), size)
            config = json.loads(_content(archive, _CONFIG))
            _check_format(config, kind)
            described = config["arrays"]
            expected = {_CONFIG, *map(_member, described)}
            if wrong := expected ^ set(archive.namelist()):
                raise ModelFileError(f"members missing or left over: {', '.join(sorted(wrong))}")
            arrays = {
                name: _array(name, _content(archive, _member(name)), described[name]["sha256"])
                for name in described
            }
    except ModelFileError:
        raise
    # What a damaged file makes zipfile, json and numpy raise has no end of kinds.
    except Exception as error:
        raise ModelFileError(f"not a whole cycnn file: {error}") from error
    return config, arrays


def _content(archive: zipfile.ZipFile, member: str) -> bytes:
    try:
        return archive.read(member)
    except zipfile.BadZipFile as error:
        raise ModelFileError(f"{member!r} is damaged: its checksum is wrong") from error


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse what could ask for more memory than the file has bytes."""
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ModelFileError(f"member {member.filename!r} must be stored, not compressed")
    if sum(member.file_size for member in members) > size:
        raise ModelFileError(f"members declare more than the {size} bytes of the file")
    if len({member.filename for member in members}) < len(members):
        raise ModelFileError("two members have one name")


def _check_format(config: Any, kind: str) -> None:
    if not isinstance(config, dict) or config.get("format") != kind:
        found = config.get("format") if isinstance(config, dict) else None
        raise ModelFileError(f"format must be {kind!r}, got {found!r}: not a file of this kind")
    version = config.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise ModelFileError(f"format_version must be a number, got {version!r}")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"written by a newer cycnn, in format {version}; this one reads up to {FORMAT_VERSION}"
        )


def _array(name: str, data: bytes, checksum: str) -> Array:
    """Return the array of a .npy member; its memory is that of `data`."""
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ModelFileError(f"{name!r} is damaged: its checksum is wrong")
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ModelFileError(f"{name!r} must be a .npy member of version 1.0")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(
        stream, max_header_size=_MOST_HEADER
    )
    if dtype.str not in _DTYPES or fortran_order or min(shape, default=0) < 0:
        raise ModelFileError(f"{name!r} must be C-ordered float32 or float64, got {dtype} {shape}")
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ModelFileError(f"{name!r} declares shape {shape}, which is not the size it has")
    array = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
    if np.isnan(array).any():
        raise ModelFileError(f"{name!r} holds NaN")
    return array


class _Stored(Source):
    """Gives a model under construction the arrays of a file, and collects what does not fit."""

    def __init__(self, arrays: dict[str, Array], dtype: str) -> None:
        self.dtype = float_dtype(dtype)
        self.left = dict(arrays)
        self.problems: list[str] = []

    @cached_property
    def rng(self) -> np.random.Generator:
        """Seeds the layers that draw while they train; models without do not load numpy.random."""
        return np.random.default_rng(0)

    def array(self, name: str, weight: Weight) -> Array:
        """Return the array called `name`; an empty one, and a problem noted, if it does not fit."""
        array = self.left.pop(name, None)
        dtype = self.dtype if weight.learnt else np.dtype(np.float64)
        if array is None:
            self.problems.append(f"{name!r} is missing")
        elif array.shape != weight.shape or array.dtype != dtype:
            self.problems.append(
                f"{name!r} must be {dtype} {weight.shape}, got {array.dtype} {array.shape}"
            )
        else:
            return array
        return np.empty(0, dtype)


def _model(config: dict[str, Any], arrays: dict[str, Array], custom: Mapping[str, Any]) -> Model:
    """Return the model that `config` describes, with these arrays."""
    try:
        model = _layers(config["layers"], custom)[-1]
        source = _Stored(arrays, config["dtype"])
        if not isinstance(model, Model) or model.built:
            raise ModelFileError(f"the last layer must be an unbuilt model, got {model!r}")
        model.prepare(as_shapes(config["input_shape"]), source)
        source.problems += [f"{name!r} is left over" for name in source.left]
        if source.problems:
            raise ModelFileError(f"arrays do not fit the layers: {'; '.join(source.problems)}")
        for name, parameter in model.parameters().items():
            parameter.trainable = bool(config["arrays"][name]["trainable"])
        model.classes = config.get("classes")
    except ModelFileError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"layers that cannot be built: {error!r}") from error
    return model


def _layers(table: list[dict[str, Any]], custom: Mapping[str, Any]) -> list[Layer]:
    """Return the layers of the table, unbuilt."""
    layers: list[Layer] = []
    calls: list[int] = []  # how many layers run when this one does
    for entry in table:
        name = entry["class"]
        known = custom if entry.get("custom") else REGISTRY
        if name not in known:
            raise ModelFileError(
                f"unknown layer class {name!r}; load(path, custom={{{name!r}: the class}}) gives it"
            )
        used: list[int] = []
        config = _decode(entry["config"], layers, used)
        calls.append(1 + sum(calls[index] for index in used))
        if calls[-1] > _MOST_CALLS:
            raise ModelFileError(f"more than {_MOST_CALLS} layers")
        if issubclass(known[name], Model) and (
            _BUILT_BY & config.keys() or isinstance(config.get("inputs"), dict)
        ):
            raise ModelFileError(f"{name} must not be built by its arguments")
        layer = known[name](**config)
        layer.frozen = bool(entry["frozen"])
        layers.append(layer)
    return layers


def _decode(value: Any, layers: list[Layer], used: list[int]) -> Any:
    """Undo `_encode`, lists as tuples; `used` collects the numbers of the layers named."""
    if isinstance(value, list):
        return tuple(_decode(item, layers, used) for item in value)
    if not isinstance(value, dict):
        return value
    if _LAYER not in value:
        return {key: _decode(item, layers, used) for key, item in value.items()}
    index = value[_LAYER]
    if not isinstance(index, int) or not 0 <= index < len(layers):
        raise ModelFileError(
            f"a layer must name an earlier one, below {len(layers)}, got {index!r}"
        )
    used.append(index)
    return layers[index]
