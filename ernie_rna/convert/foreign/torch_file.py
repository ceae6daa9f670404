"""Reads what `torch.save` wrote, today's zip archive and the format before torch 1.6.

The pickle in it is read by `pickles`; the numbers stay in the file, which is mapped.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from ernie_rna.convert.foreign.pickles import (
    CheckpointError,
    StorageRecord,
    TensorRecord,
    Unpickler,
    fits,
)

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a file before torch 1.6
_LEGACY_PROTOCOL = 1001
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # zip: signature, then lengths of name and extra field

DAMAGED = "it is truncated or damaged: fetch it again and compare its checksum"


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
        if not fits(record):
            raise CheckpointError(f"its shape does not fit its storage; {DAMAGED}")
        numbers = self._numbers(record.storage)
        return numbers.as_strided(record.size, record.stride, record.offset)

    def _numbers(self, storage: StorageRecord) -> torch.Tensor:
        if storage.key not in self._spans:
            raise CheckpointError(f"its storage {storage.key!r:.40} is not in the file; {DAMAGED}")
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
        unpickler = Unpickler(io.BytesIO(archive.read(pickles[0])))
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
        if Unpickler(file).load() != _LEGACY_MAGIC:
            raise CheckpointError("a pickle that torch.save did not write: save it with torch.save")
        if Unpickler(file).load() != _LEGACY_PROTOCOL:
            raise CheckpointError("of an unknown torch.save protocol: save it anew with torch")
        if not Unpickler(file).load()["little_endian"]:
            raise CheckpointError("written big-endian: save it anew on a little-endian machine")
        unpickler = Unpickler(file)
        content = unpickler.load()
        keys = Unpickler(file).load()
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


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
