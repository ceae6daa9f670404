"""Reads a checkpoint of ERNIE-RNA: weights by their names in the file, and the settings beside.

Formats: what `torch.save` wrote, today's zip archive and the format before torch 1.6, for fairseq
(`args`, or `cfg` with Namespaces in it) or for a bare state dict; and safetensors, alone or in a
folder with its config.json. Whose names the weights have is for `weights` to find out.

A pickle is a program. `torch.load(weights_only=True)` restrains it, but not in every torch that
this package accepts: a crafted file ran code up to 2.5 (CVE-2025-32434) and corrupted memory up to
2.9 (CVE-2026-24747). So the pickle is read here, and nothing that it names is run: it may name only
what `_GLOBALS` lists, each entry makes inert data, and no opcode sets an attribute of anything.
Tensors are made of the records that are left, each bound checked.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file


class CheckpointError(ValueError):
    """A checkpoint cannot be read or converted; the message says what it is and the way out."""


DAMAGED = "it is truncated or damaged: fetch it again and compare its checksum"

_SAFETENSORS = "model.safetensors"
_SAFETENSORS_HEADER_MAX = 100_000_000  # bytes; the format's own limit
_WEB_PAGE = (
    "a web page, not weights: the download got an error or a login page. Fetch it again from the "
    "address that serves the file itself"
)
# First bytes, in lower case, of what people have in place of a checkpoint -> what it is.
_MISTAKEN = {
    **dict.fromkeys((b"<!doctype", b"<html", b"<?xml", b"<head"), _WEB_PAGE),
    b"version https://git-lfs": "a git-lfs pointer, not the file: run `git lfs pull`",
    b"\x93numpy": "a numpy array: give the checkpoint (.pt) or safetensors file",
    b"\x89hdf": "an HDF5 file: give the checkpoint (.pt) or safetensors file",
    b"\x1f\x8b": "gzip-compressed: unpack it and give the file inside",
    b"bzh": "bzip2-compressed: unpack it and give the file inside",
    b"\xfd7zxz": "xz-compressed: unpack it and give the file inside",
    b"{": "JSON, not weights: give the checkpoint (.pt) or safetensors file",
    b"traceback": "a Python error message, not weights: fetch the file again",
}
_TAR_MAGIC = slice(257, 262)
_PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # in a zip, or bare
_DEPTH = 8  # of settings within settings; a crafted file may hold a list that holds itself


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        path: the file with the weights.
        name: what it is called: that of the file, or where it was fetched from.
        kind: "fairseq args", "fairseq cfg", "state dict" or "safetensors".
        state_dict: the weights under the file's own names.
        args: fairseq's model settings, or the config.json beside a safetensors file, as plain
            data; None where the file says nothing of its model.
        vocabulary: the lines of the vocab.txt beside a safetensors file, else None.
        sha256: of the file with the weights.
    """

    path: Path
    name: str
    kind: str
    state_dict: dict[str, torch.Tensor]
    args: dict[str, Any] | None
    vocabulary: tuple[str, ...] | None
    sha256: str


def read_checkpoint(path: str | Path, name: str | None = None) -> Checkpoint:
    """Read a checkpoint without running anything in it.

    Args:
        path: a file of `torch.save`, a safetensors file, or a folder with model.safetensors.
        name: see `Checkpoint`; None is the file's.

    Raises:
        CheckpointError: the path holds something else (the message says what), is damaged, asks
            for a global that is not allowed, or has weights that are not finite.
    """
    file = Path(path)
    try:
        if file.is_dir():
            names = sorted(child.name for child in file.iterdir() if child.is_file())
            if _SAFETENSORS not in names:
                held = ", ".join(names[:5]) + (", …" if len(names) > 5 else "") or "no file"
                raise CheckpointError(
                    f"a folder without {_SAFETENSORS} (it holds {held}): give the checkpoint file"
                )
            file = file / _SAFETENSORS
        if not file.is_file():
            raise CheckpointError("not a regular file" if file.exists() else "no such file")
        return _read(file, name or file.name)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error.__cause__


def _read(file: Path, name: str) -> Checkpoint:
    args, vocabulary = None, None
    with open(file, "rb") as stream:
        head = stream.read(512)
        # A safetensors file begins with the length of a JSON header, and that header.
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _SAFETENSORS_HEADER_MAX:
            kind, state_dict = "safetensors", _read_safetensors(file)
            args = _read_beside(file, "config.json", _parse_config)
            vocabulary = _read_beside(file, "vocab.txt", lambda text: tuple(text.split()))
        else:
            _refuse_mistaken(head)
            kind, state_dict, args = _read_torch(stream)
        stream.seek(0)
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    # Names go into messages and the model card, where a line break would forge a line.
    odd = next((name for name in state_dict if not name.isprintable()), None)
    if odd is not None:
        raise CheckpointError(f"not the name of a weight: {odd[:100]!r}")
    bad = [name for name, tensor in state_dict.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(f"NaN or infinity in {', '.join(bad)}")
    return Checkpoint(file, name, kind, state_dict, args, vocabulary, digest.hexdigest())


def _refuse_mistaken(head: bytes) -> None:
    """Raise unless the file begins as a zip or a pickle does, saying what it is instead."""
    if not head:
        raise CheckpointError("an empty file: fetch it again")
    if head[_TAR_MAGIC] == b"ustar":
        raise CheckpointError(
            "a tar archive: unpack it and give the file inside (torch's own tar format, before "
            "0.2, is not read: save it anew with a newer torch)"
        )
    for start, meaning in _MISTAKEN.items():
        if head.lstrip().lower().startswith(start):
            raise CheckpointError(meaning)
    if not head.startswith(_PICKLES):
        raise CheckpointError(
            f"neither a file of torch.save nor safetensors (it begins {head[:16]!r})"
        )


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"a safetensors file, but {DAMAGED} ({error})") from error


def _read_beside(weights: Path, name: str, parse: Callable[[str], Any]) -> Any:
    """What a text file beside the weights says; None where there is none."""
    path = weights.with_name(name)
    try:
        return parse(path.read_text(encoding="utf-8")) if path.is_file() else None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"its {name}: not text in UTF-8 ({error})") from error


def _parse_config(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its config.json: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"its config.json: a {_type_name(config)}, not a configuration")
    return config


# ---------------------------------------------------------------------------------------------
# Files of torch.save


@dataclass(frozen=True)
class StorageRecord:
    """Where a tensor's numbers lie: `numel` numbers under the name `key`."""

    dtype: torch.dtype
    key: str
    numel: int


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as the pickle describes it; nothing in it has been checked."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class NamespaceRecord(dict):
    """Stands for an `argparse.Namespace`: its attributes, as data."""

    def __new__(cls) -> NamespaceRecord:  # a pickle calls __new__ and never __init__
        return super().__new__(cls)


_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_GLOBALS: dict[tuple[str, str], Any] = {
    ("argparse", "Namespace"): NamespaceRecord,
    ("collections", "OrderedDict"): dict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): lambda *given: TensorRecord(*given[:4]),
    ("torch._utils", "_rebuild_tensor_v2"): lambda *given: TensorRecord(*given[:4]),
    ("torch._utils", "_rebuild_parameter"): lambda data, *given: data,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
    # numpy scalars, which some fairseq versions leave in the progress counters
    ("_codecs", "encode"): lambda *given: None,
    ("numpy", "dtype"): lambda *given: None,
    ("numpy.core.multiarray", "scalar"): lambda *given: None,
    ("numpy._core.multiarray", "scalar"): lambda *given: None,
}


class Unpickler(pickle._Unpickler):
    """Builds records; a global that `_GLOBALS` does not list ends the reading.

    It is Python's own in Python: its memo is a dict, so that no index in a file fills the memory,
    and what an opcode does can be replaced.
    """

    stack: list[Any]

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, StorageRecord] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            # repr: the names are the file's, and could hold a terminal's control characters.
            asked = repr(f"{module}.{name}"[:200])
            raise CheckpointError(
                f"refused: its pickle asks for {asked}, which weights and their settings do not "
                "need; none of it was run. If you trust its origin, save it again where it was "
                "made, with only the state dict in it"
            ) from None

    def persistent_load(self, pid: Any) -> StorageRecord:
        kind, dtype, key, _location, numel, *view = pid
        sound = kind == "storage" and isinstance(dtype, torch.dtype) and isinstance(key, str)
        if not sound or not isinstance(numel, int) or numel < 0 or any(view):
            raise pickle.UnpicklingError("a storage that is not described as torch does")
        return self.storages.setdefault(key, StorageRecord(dtype, key, numel))

    def load_build(self) -> None:
        """The attributes of a Namespace; those of a state dict, or of a number, hold no weight."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], NamespaceRecord):
            if not isinstance(state, dict):
                raise pickle.UnpicklingError("a Namespace whose state is no dict")
            self.stack[-1].update(state)

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}
    del dispatch[pickle.BYTEARRAY8[0]]  # It would get as much memory as a file asks for.


# The bytes of each storage, by its key; they are read when they are asked for.
_Numbers = Mapping[str, Callable[[], bytes]]


def _read_torch(stream: IO[bytes]) -> tuple[str, dict[str, torch.Tensor], dict[str, Any] | None]:
    stream.seek(0)
    zipped = stream.read(2) == b"PK"
    stream.seek(0)
    try:
        content, numbers = _read_zip(stream) if zipped else _read_legacy(stream)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = f"{type(error).__name__}: {error}"[:200]
        raise CheckpointError(f"{DAMAGED} ({reason})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"holds a {_type_name(content)}, not a checkpoint or state dict")
    args, cfg = _plain(content.get("args")), _plain(content.get("cfg"))
    kind, settings = "state dict", None
    if isinstance(args, dict):
        kind, settings = "fairseq args", args
    elif isinstance(cfg, dict) and isinstance(cfg.get("model"), dict):
        kind, settings = "fairseq cfg", cfg["model"]
    weights = content["model"] if isinstance(content.get("model"), dict) else content
    return kind, _make_tensors(weights, numbers), settings


def _read_zip(stream: IO[bytes]) -> tuple[Any, _Numbers]:
    try:
        archive = zipfile.ZipFile(stream)
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"begins as a zip but lacks its end: {DAMAGED}") from error
    names = archive.namelist()
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(
            f"a zip archive that torch.save did not write, of {names[:3]}: unpack it and give "
            "the checkpoint inside"
        )
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in names:
        raise CheckpointError("a TorchScript archive: give the checkpoint it was made from")
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise CheckpointError("a compressed zip archive, which torch.save does not write")
    if f"{root}byteorder" in names:
        _refuse_big_endian(archive.read(f"{root}byteorder") == b"little")
    unpickler = Unpickler(io.BytesIO(archive.read(pickles[0])))
    content = unpickler.load()
    return content, {
        key: partial(archive.read, archive.getinfo(f"{root}data/{key}"))
        for key in unpickler.storages
    }


def _read_legacy(stream: IO[bytes]) -> tuple[Any, _Numbers]:
    """The format before torch 1.6: five pickles, then each storage behind its length."""
    if Unpickler(stream).load() != 0x1950A86A20F9469CFC6C:
        raise CheckpointError("a pickle that torch.save did not write: save it with torch.save")
    if Unpickler(stream).load() != 1001:
        raise CheckpointError("of an unknown torch.save protocol: save it again with torch")
    _refuse_big_endian(Unpickler(stream).load()["little_endian"])
    unpickler = Unpickler(stream)
    content = unpickler.load()
    numbers = {}
    keys = Unpickler(stream).load()
    start, end = stream.tell(), stream.seek(0, io.SEEK_END)
    for key in keys:
        stream.seek(start)
        (numel,) = struct.unpack("<q", stream.read(8))
        length = numel * unpickler.storages[key].dtype.itemsize
        if numel < 0 or start + 8 + length > end:
            raise CheckpointError(f"ends within its weights: {DAMAGED}")
        numbers[key] = partial(_read_at, stream, start + 8, length)
        start += 8 + length
    return content, numbers


def _read_at(stream: IO[bytes], start: int, length: int) -> bytes:
    stream.seek(start)
    return stream.read(length)


def _refuse_big_endian(little: bool) -> None:
    if not little:
        raise CheckpointError("written big-endian: save it again on a little-endian machine")


def _make_tensors(weights: Mapping[Any, Any], numbers: _Numbers) -> dict[str, torch.Tensor]:
    """The tensors of records by name; those of one storage share their numbers."""
    storages: dict[str, torch.Tensor] = {}
    tensors = {}
    for name, record in weights.items():
        if not isinstance(name, str) or not isinstance(record, TensorRecord):
            entry = repr(name[:100]) if isinstance(name, str) else f"a {_type_name(name)}"
            raise CheckpointError(
                f"has neither `model` nor tensors by name: the entry of {entry} is a "
                f"{_type_name(record)}"
            )
        try:
            if not isinstance(record.storage, StorageRecord):
                raise CheckpointError(f"it has no storage; {DAMAGED}")
            key = record.storage.key
            if key not in storages:
                storages[key] = _read_numbers(record.storage, numbers)
            tensors[name] = _view(storages[key], record)
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error}") from error.__cause__
    return tensors


def _read_numbers(storage: StorageRecord, numbers: _Numbers) -> torch.Tensor:
    if storage.key not in numbers:
        raise CheckpointError(f"its storage {storage.key!r:.40} is not in the file; {DAMAGED}")
    try:
        content = bytearray(numbers[storage.key]())
    except Exception as error:  # what a damaged or crafted archive raises, checksums included
        raise CheckpointError(f"its numbers do not match their checksum; {DAMAGED}") from error
    if storage.numel * storage.dtype.itemsize > len(content):
        raise CheckpointError(f"its storage has only {len(content)} bytes; {DAMAGED}")
    if storage.numel == 0:
        return torch.empty(0, dtype=storage.dtype)
    return torch.frombuffer(content, dtype=storage.dtype, count=storage.numel)


def _view(storage: torch.Tensor, record: TensorRecord) -> torch.Tensor:
    """The tensor of a record; torch refuses one that leaves its storage."""
    try:
        # A stride of 0 makes many numbers of few: little on disk, terabytes in memory.
        if type(record.size) is not tuple or math.prod(record.size) > len(storage):
            raise ValueError(record.size)
        return storage.as_strided(record.size, record.stride, record.offset)
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"its shape does not fit its storage; {DAMAGED}") from error


def _plain(value: Any, depth: int = 0) -> Any:
    """Plain data, Namespaces as dicts among them; None for whatever is none or lies too deep."""
    if depth < _DEPTH and isinstance(value, dict):
        items = value.items()
        return {key: _plain(item, depth + 1) for key, item in items if isinstance(key, str)}
    if depth < _DEPTH and isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    return value if isinstance(value, (bool, int, float, str)) else None


def _type_name(value: Any) -> str:
    names = {"TensorRecord": "tensor", "NamespaceRecord": "Namespace", "NoneType": "None"}
    return names.get(type(value).__name__, type(value).__name__)
