"""Reads what `torch.save` wrote without running anything that the file holds.

Such a file is a pickle, and a pickle is a program. `torch.load(weights_only=True)` restrains it,
but not in every torch that this package accepts: a crafted file ran code up to 2.5 (CVE-2025-32434)
and corrupted memory up to 2.9 (CVE-2026-24747). So the pickle is read here: it may name only what
`_GLOBALS` lists, each entry makes an inert record, and tensors are made from the records
afterwards, each bound checked against the file.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a file before torch 1.6
_LEGACY_PROTOCOL = 1001
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # zip: signature, then lengths of name and extra field

DAMAGED = "it is truncated or damaged: fetch it again and compare its checksum"


class CheckpointError(ValueError):
    """A checkpoint cannot be read or converted; the message says what it is and the way out."""


class _Record:
    """What is checked once must stay: a pickle's BUILD, which sets attributes, is refused."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("an attempt to alter a record")


@dataclass(frozen=True)
class StorageRecord(_Record):
    """Where a tensor's numbers lie: `numel` numbers under the name `key`."""

    dtype: torch.dtype
    key: str
    numel: int


@dataclass(frozen=True)
class TensorRecord(_Record):
    """A tensor as the pickle describes it; nothing in it has been checked."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class NamespaceRecord:
    """Stands for an `argparse.Namespace`: its attributes, as data in `values`."""

    __slots__ = ("values",)
    values: dict[str, Any]

    def __new__(cls) -> NamespaceRecord:  # a pickle calls __new__ and never __init__
        self = super().__new__(cls)
        self.values = {}
        return self

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a Namespace whose state is no dict")
        self.values.update(state)


class _Mapping(dict):
    """Stands for an OrderedDict; without attributes, so that a file cannot shadow its methods."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Leave out the attributes (`_metadata` of a state dict); no weight is in them."""


class _Opaque:
    """Stands for a value that nothing here reads, such as a counter kept as a numpy scalar."""

    __slots__ = ()

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Maker:
    """A callable for the pickle's REDUCE that no opcode can alter, unlike a function or class."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("an attempt to alter the reader")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> TensorRecord:
    return TensorRecord(storage, offset, size, stride)


def _parameter(data: Any, *rest: Any) -> Any:
    return data


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
    ("collections", "OrderedDict"): _Maker(_Mapping),
    ("torch", "Size"): _Maker(tuple),
    ("torch._utils", "_rebuild_tensor"): _Maker(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Maker(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Maker(_parameter),
    # numpy scalars, which some fairseq versions leave in the progress counters
    ("_codecs", "encode"): _Maker(_Opaque),
    ("numpy", "dtype"): _Maker(_Opaque),
    ("numpy.core.multiarray", "scalar"): _Maker(_Opaque),
    ("numpy._core.multiarray", "scalar"): _Maker(_Opaque),
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Builds records; a global that `_GLOBALS` does not list ends the reading."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        _check_memo(file)
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


def _check_memo(file: IO[bytes]) -> None:
    """Refuse the memo index that would make the unpickler fill the memory; keep the position."""
    start = file.tell()
    for opcode, index, _ in pickletools.genops(file):
        # A pickle numbers its memo from 0 up, and takes more than a byte for each entry.
        if "PUT" in opcode.name and int(index or 0) > file.tell() - start:
            raise pickle.UnpicklingError(f"a memo index of {index}")
    file.seek(start)


class _Span(NamedTuple):
    """Where the bytes of a storage lie in the file, and their checksum where one is kept."""

    start: int
    length: int
    crc: int | None = None


class TorchFile:
    """An opened file of `torch.save`.

    Attributes:
        content: what was saved: plain data, with a `TensorRecord` for each tensor and a
            `NamespaceRecord` for each `argparse.Namespace`. `tensor` turns a record into a tensor.
    """

    def __init__(self, path: Path) -> None:
        """Read everything but the numbers.

        Raises:
            CheckpointError: the file is no such file, is damaged, or asks for a global that is
                not allowed.
        """
        try:
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                zipped = self._map[:2] == b"PK"
                self._spans: dict[str, _Span] = {}  # by storage
                self.content = self._read_zip(file) if zipped else self._read_legacy(file)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error.__cause__
        except Exception as error:  # a damaged pickle raises nearly anything
            raise CheckpointError(f"{path}: {DAMAGED} ({_brief(error)})") from error

    def tensor(self, record: TensorRecord) -> torch.Tensor:
        """The tensor of a record, lying in the (privately) mapped file: clone it to keep it.

        Raises:
            CheckpointError: the record does not fit its storage, or the storage the file.
        """
        if not _fits(record):
            raise CheckpointError(f"its shape does not fit its storage; {DAMAGED}")
        numbers = self._numbers(record.storage)
        return numbers.as_strided(record.size, record.stride, record.offset)

    def _numbers(self, storage: StorageRecord) -> torch.Tensor:
        start, length, crc = self._spans[storage.key]
        if storage.numel * storage.dtype.itemsize > length:
            raise CheckpointError(f"its storage has only {length} bytes; {DAMAGED}")
        if storage.numel == 0:
            return torch.empty(0, dtype=storage.dtype)
        with memoryview(self._map) as whole, whole[start : start + length] as part:
            if crc is not None and zlib.crc32(part) != crc:
                raise CheckpointError(f"its numbers do not match their checksum; {DAMAGED}")
        return torch.frombuffer(self._map, dtype=storage.dtype, count=storage.numel, offset=start)

    def _read_zip(self, file: IO[bytes]) -> Any:
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise CheckpointError(f"begins as a zip but lacks its end: {DAMAGED}") from error
        pickles = [name for name in archive.namelist() if name.count("/") == 1]
        pickles = [name for name in pickles if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(
                f"a zip archive that torch.save did not write, of {archive.namelist()[:3]}: unpack "
                "it and give the checkpoint inside"
            )
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in archive.namelist():
            raise CheckpointError("a TorchScript archive: give the checkpoint it was made from")
        if _stored(archive, f"{root}byteorder", b"little") != b"little":
            raise CheckpointError("written big-endian: save it anew on a little-endian machine")
        if archive.getinfo(pickles[0]).compress_type != zipfile.ZIP_STORED:
            raise CheckpointError("a compressed zip archive, which torch.save does not write")
        unpickler = _Unpickler(io.BytesIO(archive.read(pickles[0])))
        content = unpickler.load()
        for key in unpickler.storages:
            self._spans[key] = self._find_in_zip(archive, f"{root}data/{key}")
        return content

    def _find_in_zip(self, archive: zipfile.ZipFile, name: str) -> _Span:
        info = archive.getinfo(name)
        signature, *lengths = _LOCAL_HEADER.unpack_from(self._map, info.header_offset)
        start = info.header_offset + _LOCAL_HEADER.size + sum(lengths)
        sound = signature == b"PK\x03\x04" and info.compress_type == zipfile.ZIP_STORED
        if not sound or start + info.file_size > len(self._map):
            raise CheckpointError(f"{name} in it is not stored as torch does: {DAMAGED}")
        return _Span(start, info.file_size, info.CRC)

    def _read_legacy(self, file: IO[bytes]) -> Any:
        """The format before torch 1.6: five pickles, then each storage behind its length."""
        if _Unpickler(file).load() != _LEGACY_MAGIC:
            raise CheckpointError("a pickle that torch.save did not write: save it with torch.save")
        if _Unpickler(file).load() != _LEGACY_PROTOCOL:
            raise CheckpointError("of an unknown torch.save protocol: save it anew with torch")
        if not _Unpickler(file).load()["little_endian"]:
            raise CheckpointError("written big-endian: save it anew on a little-endian machine")
        unpickler = _Unpickler(file)
        content = unpickler.load()
        keys = _Unpickler(file).load()
        position = file.tell()
        for key in keys:
            (numel,) = struct.unpack_from("<q", self._map, position)
            length = numel * unpickler.storages[key].dtype.itemsize
            if numel < 0 or position + 8 + length > len(self._map):
                raise CheckpointError(f"ends within its weights: {DAMAGED}")
            self._spans[key] = _Span(position + 8, length)
            position += 8 + length
        return content


def _stored(archive: zipfile.ZipFile, name: str, default: bytes) -> bytes:
    return archive.read(name) if name in archive.namelist() else default


def _fits(record: TensorRecord) -> bool:
    """Whether a view lies within its storage and holds no more numbers than that."""
    storage, size, stride = record.storage, record.size, record.stride
    if not isinstance(storage, StorageRecord) or type(size) is not tuple:
        return False
    if type(stride) is not tuple or len(stride) != len(size):
        return False
    if not all(type(n) is int and n >= 0 for n in (record.offset, *size, *stride)):
        return False
    if 0 in size:
        return True
    last = record.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    return last < storage.numel and math.prod(size) <= storage.numel


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
