"""Reads what `writers` writes, one sequence at a time: the inverse for every format."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import safe_open

from ernie_rna.embeddings.embedding import Embedding, is_per_token
from ernie_rna.extras import import_extra
from ernie_rna.sequences.fasta import FilePath, InputError

_HDF5 = b"\x89HDF\r\n\x1a\n"
# Sequences whose ids and lengths are read at once.
_AT_ONCE = 1024

# Gives the rows from start to stop of the array with a name.
_Rows = Callable[[str, int, int], Any]


def read_embeddings(path: FilePath) -> Iterator[Embedding]:
    """The embeddings in a file of `ernie-rna embed`, in input order.

    Args:
        path: as given to `-o`, also where the output consists of shards.

    Raises:
        ValueError: the extension names no format.
        InputError: the file is damaged, or another program's.
        OSError: there is no such file.
        ImportError: the extra of the format is not installed.
    """
    for file in _shards(Path(path)):
        with _damage_explained(file), _open(file) as (metadata, rows, count):
            yield from _sequences(metadata, rows, count)


def read_metadata(path: FilePath) -> dict[str, Any]:
    """Settings, model, versions and input that a file of `ernie-rna embed` was made with.

    Raises:
        As `read_embeddings`.
    """
    file = _shards(Path(path))[0]
    with _damage_explained(file), _open(file) as (metadata, _, _):
        return metadata


@contextlib.contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    """Turn what the libraries of the formats raise, nearly anything, into an InputError."""
    try:
        yield
    except (InputError, FileNotFoundError, IsADirectoryError, PermissionError, ImportError):
        raise
    except Exception as error:
        raise InputError(
            f"{path}: damaged, or no file of embeddings ({type(error).__name__}: {error})"
        ) from error


def _sequences(metadata: dict[str, Any], rows: _Rows, count: int) -> Iterator[Embedding]:
    names = metadata["columns"]
    token = 0
    for start in range(0, count, _AT_ONCE):
        stop = min(start + _AT_ONCE, count)
        ids, lengths = rows("ids", start, stop), rows("lengths", start, stop).tolist()
        for index, (id, length) in enumerate(zip(ids, lengths, strict=True), start):
            arrays = {
                name: rows(name, token, token + length)
                if is_per_token(name)
                else rows(name, index, index + 1)[0]
                for name in names
            }
            _check_shapes(id, length, arrays)
            yield Embedding(id, length, arrays)
            token += length


def _check_shapes(id: str, length: int, arrays: dict[str, np.ndarray]) -> None:
    """Raise ValueError unless each array is a vector, or a vector for each nucleotide."""
    for name, array in arrays.items():
        expected = (length, 2) if name.startswith("token_") else (len(array), 1)
        if length < 1 or (len(array), array.ndim) != expected:
            raise ValueError(f"{name} of {id!r} has shape {array.shape} for {length} nucleotides")


def _shards(path: Path) -> list[Path]:
    """The file, or those that the index beside it names; ValueError for an unknown extension."""
    if path.suffix.lower() not in _READERS:
        raise ValueError(f"{path}: the extension must be one of {', '.join(_READERS)}")
    index = path.with_name(f"{path.name}.index.json")
    if path.exists() or not index.exists():
        return [path]
    with _damage_explained(index):
        shards = json.loads(index.read_bytes())["shards"]
        if not shards:
            raise ValueError("it names no shard")
        return [path.with_name(shard["file"]) for shard in shards]


def _open(path: Path) -> Any:
    return _READERS[path.suffix.lower()](path)


_Opened = Iterator[tuple[dict[str, Any], _Rows, int]]


@contextlib.contextmanager
def _open_safetensors(path: Path) -> _Opened:
    with safe_open(path, framework="np") as file:
        ids = bytes(file.get_tensor("ids")).decode().split("\n")[:-1]

        def rows(name: str, start: int, stop: int) -> Any:
            return ids[start:stop] if name == "ids" else file.get_slice(name)[start:stop]

        yield json.loads(file.metadata()["ernie_rna"]), rows, len(ids)


@contextlib.contextmanager
def _open_hdf5(path: Path) -> _Opened:
    h5py = import_extra("h5py", "hdf5", "reading HDF5")
    _check_superblock(path)
    with h5py.File(path, "r") as file:

        def rows(name: str, start: int, stop: int) -> Any:
            return (file[name].asstr() if name == "ids" else file[name])[start:stop]

        yield json.loads(file.attrs["metadata"]), rows, len(file["lengths"])


def _check_superblock(path: Path) -> None:
    """Refuse files in whose structures damage does not show: HDF5 can loop in such for ever.

    From version 2 of the superblock, the first thing in a file, all structures have checksums.
    """
    with open(path, "rb") as file:
        start = file.read(len(_HDF5) + 1)
    if start[:-1] == _HDF5 and start[-1] < 2:
        raise ValueError(f"HDF5 without checksums (superblock {start[-1]}): embed again")


@contextlib.contextmanager
def _open_npz(path: Path) -> _Opened:
    """Each member is read in step with the others: `numpy.load` would hold it whole."""
    with zipfile.ZipFile(path) as archive, contextlib.ExitStack() as stack:
        members = {
            name.removesuffix(".npy"): _Member(stack.enter_context(archive.open(name)))
            for name in archive.namelist()
        }
        metadata = json.loads(str(members["metadata"].read(1)[0]))

        def rows(name: str, start: int, stop: int) -> Any:
            values = members[name].read(stop - start)
            return values.tolist() if name == "ids" else values

        yield metadata, rows, members["lengths"].shape[0]


class _Member:
    """A .npy file that is read from front to back."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        np.lib.format.read_magic(file)
        shape, _, self._dtype = np.lib.format.read_array_header_1_0(file)
        self.shape = shape

    def read(self, count: int) -> np.ndarray:
        width = int(np.prod(self.shape[1:], dtype=np.int64))
        data = self._file.read(count * width * self._dtype.itemsize)
        return np.frombuffer(data, self._dtype).reshape(count, *self.shape[1:])


@contextlib.contextmanager
def _open_parquet(path: Path) -> _Opened:
    pq = import_extra("pyarrow.parquet", "parquet", "reading Parquet")
    with pq.ParquetFile(path) as file:
        metadata = json.loads(file.schema_arrow.metadata[b"ernie_rna"])
        batches = _ParquetRows(file)
        yield metadata, batches.read, file.metadata.num_rows


class _ParquetRows:
    """The rows of a Parquet file that is read from front to back."""

    def __init__(self, file: Any):
        self._batches = file.iter_batches(batch_size=_AT_ONCE)
        self._start = self._stop = 0
        self._batch: Any = None

    def read(self, name: str, start: int, stop: int) -> Any:
        while start >= self._stop:
            self._batch = next(self._batches)
            self._start, self._stop = self._stop, self._stop + self._batch.num_rows
        column = self._batch.column({"ids": "id", "lengths": "length"}.get(name, name))
        part = column.slice(start - self._start, stop - start)
        if name == "ids":
            return part.to_pylist()
        if name == "lengths":
            return part.to_numpy()
        return part.flatten().to_numpy().reshape(len(part), -1)


_READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": _open_safetensors,
    ".h5": _open_hdf5,
    ".hdf5": _open_hdf5,
    ".npz": _open_npz,
    ".parquet": _open_parquet,
}
