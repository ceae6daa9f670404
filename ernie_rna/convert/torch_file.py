"""Reads what `torch.save` wrote, today's zip archive and the format before torch 1.6, as data.

A pickle is a program. `torch.load(weights_only=True)` restrains it, but not in every torch that
this package accepts: a crafted file ran code up to 2.5 (CVE-2025-32434) and corrupted memory up to
2.9 (CVE-2026-24747). So the pickle is read here, and nothing that it names is run: it may name only
what `_GLOBALS` lists, each entry makes inert data, and no opcode sets an attribute of anything.
Tensors are made of the records that are left, each bound checked.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, ClassVar

import torch


class CheckpointError(ValueError):
    """A checkpoint cannot be read or converted; the message says what it is and the way out."""


DAMAGED = "it is truncated or damaged: fetch it again and compare its checksum"

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a file before torch 1.6
_LEGACY_PROTOCOL = 1001


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

    def fits(self) -> bool:
        """Whether the tensor lies within its storage and holds no more numbers than that."""
        storage, size, stride = self.storage, self.size, self.stride
        if not isinstance(storage, StorageRecord) or type(size) is not tuple:
            return False
        if type(stride) is not tuple or len(stride) != len(size):
            return False
        if not all(type(n) is int and n >= 0 for n in (self.offset, *size, *stride)):
            return False
        if 0 in size:
            return True
        last = self.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        return last < storage.numel and math.prod(size) <= storage.numel


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
                "need; nothing of it was run. If you trust its origin, save it anew where it was "
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


class TorchFile:
    """A file of `torch.save` that stays open while tensors are made.

    Attributes:
        content: what was saved: plain data, with a `TensorRecord` for each tensor and a
            `NamespaceRecord` for each `argparse.Namespace`. `tensor` turns a record into a tensor.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Read everything but the numbers.

        Raises:
            CheckpointError: the file is no such file, is damaged, or asks for a global that is
                not allowed.
        """
        self._bytes: dict[str, Callable[[], bytes]] = {}  # of each storage
        self._numbers: dict[str, torch.Tensor] = {}
        zipped = file.read(2) == b"PK"
        file.seek(0)
        try:
            self.content = self._read_zip(file) if zipped else self._read_legacy(file)
        except CheckpointError:
            raise
        except Exception as error:  # a damaged pickle raises nearly anything
            reason = f"{type(error).__name__}: {error}"[:200]
            raise CheckpointError(f"{DAMAGED} ({reason})") from error

    def tensor(self, record: TensorRecord) -> torch.Tensor:
        """The tensor of a record; it may share its numbers with others.

        Raises:
            CheckpointError: the record does not fit its storage, or the storage the file.
        """
        if not record.fits():
            raise CheckpointError(f"its shape does not fit its storage; {DAMAGED}")
        storage = record.storage
        if storage.key not in self._numbers:
            self._numbers[storage.key] = self._read_numbers(storage)
        return self._numbers[storage.key].as_strided(record.size, record.stride, record.offset)

    def _read_numbers(self, storage: StorageRecord) -> torch.Tensor:
        if storage.key not in self._bytes:
            raise CheckpointError(f"its storage {storage.key!r:.40} is not in the file; {DAMAGED}")
        try:
            content = bytearray(self._bytes[storage.key]())
        except Exception as error:  # what a damaged or crafted archive raises, checksums included
            raise CheckpointError(f"its numbers do not match their checksum; {DAMAGED}") from error
        if storage.numel * storage.dtype.itemsize > len(content):
            raise CheckpointError(f"its storage has only {len(content)} bytes; {DAMAGED}")
        if storage.numel == 0:
            return torch.empty(0, dtype=storage.dtype)
        return torch.frombuffer(content, dtype=storage.dtype, count=storage.numel)

    def _read_zip(self, file: IO[bytes]) -> Any:
        try:
            archive = zipfile.ZipFile(file)
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
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise CheckpointError("written big-endian: save it anew on a little-endian machine")
        unpickler = Unpickler(io.BytesIO(archive.read(pickles[0])))
        content = unpickler.load()
        for key in unpickler.storages:
            self._bytes[key] = partial(archive.read, archive.getinfo(f"{root}data/{key}"))
        return content

    def _read_legacy(self, file: IO[bytes]) -> Any:
        """The format before torch 1.6: five pickles, then each storage behind its length."""
        if Unpickler(file).load() != _LEGACY_MAGIC:
            raise CheckpointError("a pickle that torch.save did not write: save it with torch.save")
        if Unpickler(file).load() != _LEGACY_PROTOCOL:
            raise CheckpointError("of an unknown torch.save protocol: save it anew with torch")
        if not Unpickler(file).load()["little_endian"]:
            raise CheckpointError("written big-endian: save it anew on a little-endian machine")
        unpickler = Unpickler(file)
        content = unpickler.load()
        keys = Unpickler(file).load()
        start, end = file.tell(), file.seek(0, io.SEEK_END)
        for key in keys:
            file.seek(start)
            (numel,) = struct.unpack("<q", file.read(8))
            length = numel * unpickler.storages[key].dtype.itemsize
            if numel < 0 or start + 8 + length > end:
                raise CheckpointError(f"ends within its weights: {DAMAGED}")
            self._bytes[key] = partial(_read_at, file, start + 8, length)
            start += 8 + length
        return content


def _read_at(file: IO[bytes], start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)
