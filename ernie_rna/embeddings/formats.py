"""Files of embeddings: written, and read one sequence at a time, by extension.

.safetensors   one file, or, if it would be larger than `shard_bytes`, shards
               `OUT-00001-of-00003.safetensors` and an index `OUT.safetensors.index.json`
.h5, .hdf5     HDF5 (extra `hdf5`): a contiguous dataset for each name
.npz           NumPy: uncompressed, read by `numpy.load`
.parquet       Parquet (extra `parquet`): a row a sequence, columns id, length and one for each
               vector, or for the list of the vectors of its nucleotides
.tsv, .csv     a table of numbers for spreadsheets: a row a sequence, columns id, length and
               <column>_0, <column>_1, ...; without token columns, and without metadata

Every other format has, under the same names:

ids         the first words of the headers, in input order; in safetensors one uint8 array, in
            UTF-8, each id followed by a newline
lengths     nucleotides of each sequence
offsets     with token columns: the nucleotides of sequence i are rows offsets[i] to
            offsets[i + 1]; one more entry than there are sequences
<column>    see `embedding`; a row a sequence, or, for token columns, a row a nucleotide
metadata    JSON: settings, model, versions, input, and nothing of when or where

The same results give the same bytes. A part of a run that is not finished is such a safetensors
file, and becomes a shard as it is: large outputs are written once.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import math
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import safe_open

from ernie_rna.embeddings.embedding import Embedding, is_per_token
from ernie_rna.extras import import_extra
from ernie_rna.run.outputs import behind_link, replacing
from ernie_rna.run.parts import CHECKSUM, METADATA, Part
from ernie_rna.sequences.fasta import FilePath, InputError
from ernie_rna.sequences.tables import TABLES, Form, read_rows

SAFETENSORS, PARQUET, NPZ = ".safetensors", ".parquet", ".npz"
HDF5 = (".h5", ".hdf5")
EXTENSIONS = (SAFETENSORS, *HDF5, NPZ, PARQUET)

_SAFETENSORS_TYPES = {"float32": "F32", "float16": "F16", "int64": "I64", "uint8": "U8"}
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# The earliest time that a zip file can state.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def check_format(output: str, pooling: Iterable[str] = ()) -> None:
    """Raise before any work what would keep the output from being written.

    Args:
        pooling: what it is to hold, of `POOLINGS`.

    Raises:
        ValueError: the extension names no format, or one that cannot hold it.
        ImportError: the extra of the format is not installed.
    """
    suffix = _suffix(Path(output))
    if suffix in TABLES and "token" in pooling:
        raise ValueError(f"{output}: a table cannot hold token vectors; use .npz or another format")
    if suffix == PARQUET:
        import_extra("pyarrow.parquet", "parquet", "writing Parquet")
    if suffix in HDF5:
        import_extra("h5py", "hdf5", "writing HDF5")


def _suffix(path: Path) -> str:
    suffix, known = path.suffix.lower(), (*EXTENSIONS, *TABLES)
    if suffix not in known:
        raise ValueError(f"{path}: the extension must be one of {', '.join(known)}")
    return suffix


def existing_files(output: Path) -> list[Path]:
    """The files that make up an output that is there: one, or index and shards."""
    suffix, output = output.suffix.lower(), behind_link(output)
    index = _index_path(output)
    found = [path for path in (output, index) if path.is_file()]
    if suffix == SAFETENSORS and index.exists():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            names = [shard["file"] for shard in json.loads(index.read_bytes())["shards"]]
            shards = [output.with_name(Path(name).name) for name in names]
            found += [path for path in shards if path.exists()]
    return found


def _index_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.index.json")


# ---------------------------------------------------------------------------------------------
# Writing


def pack(embeddings: Sequence[Embedding]) -> dict[str, np.ndarray | list[str]]:
    """Embeddings as arrays by name, with their ids."""
    lengths = np.array([one.length for one in embeddings], np.int64)
    arrays: dict[str, np.ndarray | list[str]] = {"lengths": lengths}
    arrays["ids"] = [one.id for one in embeddings]
    for name in embeddings[0].arrays:
        join = np.concatenate if is_per_token(name) else np.stack
        arrays[name] = join([one.arrays[name] for one in embeddings])
    if any(map(is_per_token, arrays)):
        arrays["offsets"] = np.concatenate([[0], np.cumsum(lengths)])
    return arrays


def write_parts(
    parts: Sequence[Part], output: Path, metadata: Mapping[str, Any], shard_bytes: int
) -> list[Path]:
    """Write an output, in place of one that may be there.

    Args:
        parts: results of `pack`, in order.
        metadata: what the file says of itself, with the names of the columns.
        shard_bytes: size from which a safetensors output is written in shards, one a part.

    Returns:
        The files that it consists of.
    """
    before = existing_files(output)
    suffix, output = output.suffix.lower(), behind_link(output)
    size = sum(part.path.stat().st_size for part in parts)
    if suffix == SAFETENSORS and len(parts) > 1 and size > shard_bytes:
        for path in reversed(before):  # The index goes last: it never names shards of two runs.
            if path != output:
                path.unlink(missing_ok=True)
        written = _write_shards(parts, output, metadata)
    else:
        with replacing(output) as path:
            _WRITERS[suffix](parts, path, metadata)
        written = [output]
    for path in set(before).difference(written):
        path.unlink(missing_ok=True)
    return written


def _write_shards(parts: Sequence[Part], output: Path, metadata: Mapping[str, Any]) -> list[Path]:
    """Put the parts in their places; the index, which is written last, says what each holds."""
    count, start, shards = len(parts), 0, []
    for number, part in enumerate(parts, 1):
        name = f"{output.stem}-{number:05d}-of-{count:05d}{SAFETENSORS}"
        stop = start + len(part.get("lengths"))
        shards.append({"file": name, "start": start, "stop": stop})
        start = stop
    for part, shard in zip(parts, shards, strict=True):
        place = output.with_name(str(shard["file"]))
        place.unlink(missing_ok=True)
        try:
            os.link(part.path, place)  # If this process is killed, the next one needs the part.
        except OSError:  # Some file systems have no links.
            os.replace(part.path, place)
    index = _index_path(output)
    with replacing(index) as path:
        text = json.dumps({"metadata": metadata, "shards": shards}, indent=1)
        path.write_text(text, encoding="utf-8")
        for shard in shards:  # Some versions of safetensors write 0600.
            shutil.copymode(path, output.with_name(str(shard["file"])))
    return [*(output.with_name(str(shard["file"])) for shard in shards), index]


def _names(metadata: Mapping[str, Any]) -> list[str]:
    """The arrays that a file has, ids included."""
    columns: list[str] = metadata["columns"]
    return ["ids", "lengths", *["offsets"] * any(map(is_per_token, columns)), *columns]


def _by_part(parts: Sequence[Part], name: str) -> Iterator[np.ndarray]:
    """An array of all parts, one part behind the other."""
    stop = 0
    for number, part in enumerate(parts):
        block = part.get(name)
        if name == "offsets":  # Those of a part begin with 0.
            block = block[number > 0 :] + stop
            stop = block[-1]
        yield block


def _layout(parts: Sequence[Part], name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Type and shape of an array of all parts, without reading it."""
    shapes = [part.shape(name) for part in parts]
    rows = sum(shape[0] for shape in shapes) - (len(parts) - 1) * (name == "offsets")
    return parts[0].get(name).dtype, (rows, *shapes[0][1:])


def _json(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, sort_keys=True)


def _write_safetensors(parts: Sequence[Part], path: Path, metadata: Mapping[str, Any]) -> None:
    """As safetensors writes it, but with the vectors of a part in memory."""
    layouts = {name: _layout(parts, name) for name in _names(metadata)}
    names = sorted(layouts, key=lambda name: -layouts[name][0].itemsize)  # so that all are aligned
    header: dict[str, Any] = {"__metadata__": {METADATA: _json(metadata)}}
    start = 0
    for name in names:
        dtype, shape = layouts[name]
        stop = start + math.prod(shape) * dtype.itemsize
        kind = _SAFETENSORS_TYPES[dtype.name]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": (start, stop)}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for block in _by_part(parts, name):
                file.write(block.data)


def _write_npz(parts: Sequence[Part], path: Path, metadata: Mapping[str, Any]) -> None:
    """As `numpy.savez` writes it, without times, and with the vectors of a part in memory."""
    ids = [id for part in parts for id in part.texts("ids")]
    small = {"metadata": np.array(_json(metadata)), "ids": np.array(ids)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in ["metadata", *_names(metadata)]:
            entry = zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME)
            with archive.open(entry, "w", force_zip64=True) as member:
                if name in small:
                    np.lib.format.write_array(member, small[name], allow_pickle=False)
                else:
                    _write_array(member, parts, name)


def _write_array(file: IO[bytes], parts: Sequence[Part], name: str) -> None:
    """An array of all parts in NumPy's format, one part behind the other."""
    dtype, shape = _layout(parts, name)
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for block in _by_part(parts, name):
        file.write(block.data)


def _write_hdf5(parts: Sequence[Part], path: Path, metadata: Mapping[str, Any]) -> None:
    """HDF5 can loop for ever on a full disk, so that there is room is seen first; and in a damaged
    file. So the structures are those of HDF5 1.10, which have checksums, and texts have a fixed
    length: those of any length lie in a heap without.
    """
    h5py = import_extra("h5py", "hdf5", "writing HDF5")
    size = sum(part.path.stat().st_size for part in parts)
    if shutil.disk_usage(path.parent).free < 1.1 * size + (1 << 20):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    about = _json(metadata).encode()
    ids = [id.encode() for part in parts for id in part.texts("ids")]
    text = h5py.string_dtype(length=max(map(len, ids)))
    with h5py.File(path, "w", libver="v110") as file:
        file.attrs.create("metadata", about, dtype=h5py.string_dtype(length=len(about)))
        file.create_dataset("ids", data=np.array(ids, text), dtype=text)
        for name in _names(metadata)[1:]:
            dtype, shape = _layout(parts, name)
            dataset = file.create_dataset(name, shape, dtype)
            start = 0
            for block in _by_part(parts, name):
                dataset[start : start + len(block)] = block
                start += len(block)


def _write_parquet(parts: Sequence[Part], path: Path, metadata: Mapping[str, Any]) -> None:
    """A row group for each part."""
    pa = import_extra("pyarrow", "parquet", "writing Parquet")
    pq = import_extra("pyarrow.parquet", "parquet", "writing Parquet")
    with contextlib.ExitStack() as stack:
        writer: Any = None
        for part in parts:
            columns = {"id": pa.array(part.texts("ids")), "length": pa.array(part.get("lengths"))}
            for name in metadata["columns"]:
                values = part.get(name)
                vectors = pa.FixedSizeListArray.from_arrays(
                    pa.array(values.ravel()), values.shape[1]
                )
                if is_per_token(name):
                    offsets = pa.array(part.get("offsets"), pa.int32())
                    vectors = pa.ListArray.from_arrays(offsets, vectors)
                columns[name] = vectors
            table = pa.table(columns, metadata={METADATA: _json(metadata)})
            if writer is None:
                # Neither compression nor a dictionary makes such numbers smaller.
                writer = stack.enter_context(
                    pq.ParquetWriter(path, table.schema, compression="NONE", use_dictionary=False)
                )
            writer.write_table(table)


def _write_table(
    separator: str, parts: Sequence[Part], path: Path, metadata: Mapping[str, Any]
) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        for number, part in enumerate(parts):
            columns = {name: part.get(name) for name in metadata["columns"]}
            if number == 0:
                own = [f"{name}_{at}" for name in columns for at in range(columns[name].shape[1])]
                writer.writerow(["id", "length", *own])
            vectors = np.concatenate(list(columns.values()), axis=1).astype(np.float32)
            rows = zip(part.texts("ids"), part.get("lengths"), vectors, strict=True)
            writer.writerows([id, length, *map(str, vector)] for id, length, vector in rows)


_WRITERS: dict[str, Callable[[Sequence[Part], Path, Mapping[str, Any]], None]] = {
    SAFETENSORS: _write_safetensors,
    NPZ: _write_npz,
    PARQUET: _write_parquet,
    **{suffix: partial(_write_table, separator) for suffix, separator in TABLES.items()},
    **dict.fromkeys(HDF5, _write_hdf5),
}


# ---------------------------------------------------------------------------------------------
# Reading


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
        with _damage_explained(file), _open(file) as (metadata, arrays):
            blocks = arrays if callable(arrays) else lambda: _blocks(metadata, arrays)
            for ids, lengths, columns in blocks():
                yield from _sequences(ids, lengths, columns)


def read_metadata(path: FilePath) -> dict[str, Any]:
    """Settings, model, versions and input that a file of `ernie-rna embed` was made with.

    A table says only which columns it has.

    Raises:
        As `read_embeddings`.
    """
    file = _shards(Path(path))[0]
    with _damage_explained(file), _open(file) as (metadata, _):
        return metadata


# Ids, lengths and columns of some sequences.
_Block = tuple[list[str], list[int], dict[str, np.ndarray]]


def _at_once(names: Iterable[str]) -> int:
    """Sequences that are read at once; a vector a nucleotide takes much memory."""
    return 8 if any(map(is_per_token, names)) else 1024


def _blocks(metadata: Mapping[str, Any], arrays: Mapping[str, Any]) -> Iterator[_Block]:
    """The content of files of arrays, some sequences at a time."""
    names, count, token = metadata["columns"], len(arrays["lengths"]), 0
    most = _at_once(names)
    for start in range(0, count, most):
        rows = slice(start, min(start + most, count))
        lengths = arrays["lengths"][rows].tolist()
        tokens = slice(token, token + sum(lengths))
        ids = [str(id) for id in arrays["ids"][rows]]
        yield (
            ids,
            lengths,
            {
                name: np.asarray(arrays[name][tokens if is_per_token(name) else rows])
                for name in names
            },
        )
        token = tokens.stop


def _sequences(
    ids: Sequence[str], lengths: Sequence[int], arrays: Mapping[str, np.ndarray]
) -> Iterator[Embedding]:
    """The embedding of each sequence.

    Args:
        arrays: by column, (sequences, hidden), or (nucleotides, hidden) for token.
    """
    if any(length < 1 for length in lengths):
        raise ValueError(f"a sequence of {min(lengths)} nucleotides")
    for name, array in arrays.items():
        rows = sum(lengths) if is_per_token(name) else len(lengths)
        if array.ndim != 2 or len(array) != rows:
            raise ValueError(f"{name} has shape {array.shape} where {rows} rows are due")
    start = 0
    for index, (id, length) in enumerate(zip(ids, lengths, strict=True)):
        tokens = slice(start, start + length)
        # A copy, so that one sequence kept does not keep all of them in memory.
        rows_of = {
            name: array[tokens if is_per_token(name) else index].copy()
            for name, array in arrays.items()
        }
        yield Embedding(id, length, rows_of)
        start += length


def split_rows(arrays: Mapping[str, Any]) -> Iterator[Embedding]:
    """The embeddings of what `pack` has made."""
    columns = {name: arrays[name] for name in arrays if name not in ("ids", "lengths", "offsets")}
    return _sequences(arrays["ids"], arrays["lengths"].tolist(), columns)


@contextlib.contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    """Turn what the libraries of the formats raise, nearly anything, into an InputError."""
    try:
        yield
    except (InputError, FileNotFoundError, IsADirectoryError, PermissionError, ImportError):
        raise
    except Exception as error:
        raise InputError(
            f"{path}: damaged, or not a file of embeddings ({type(error).__name__}: {error})"
        ) from error


def _shards(path: Path) -> list[Path]:
    """The file, or those that the index beside it names; ValueError for an unknown extension."""
    _suffix(path)
    path = path if path.exists() else behind_link(path)  # The cache of the Hub links, elsewhere.
    index = _index_path(path)
    if path.exists() or not index.exists():
        return [path]
    with _damage_explained(index):
        shards = json.loads(index.read_bytes())["shards"]
        if not shards:
            raise ValueError("it names no shard")
        return [path.with_name(shard["file"]) for shard in shards]


# Metadata, and either arrays by name that can be sliced, or a function that gives blocks.
_Opened = Iterator[tuple[dict[str, Any], Any]]


def _open(path: Path) -> contextlib.AbstractContextManager[Any]:
    return _READERS[_suffix(path)](path)


@contextlib.contextmanager
def _open_safetensors(path: Path) -> _Opened:
    with safe_open(path, framework="np") as file:
        metadata = json.loads(file.metadata()[METADATA])
        metadata.pop(CHECKSUM, None)  # of a shard, which was a part
        arrays = {name: file.get_slice(name) for name in metadata["columns"]}
        arrays["ids"] = file.get_tensor("ids").tobytes().decode().split("\n")[:-1]
        arrays["lengths"] = file.get_tensor("lengths")
        yield metadata, arrays


@contextlib.contextmanager
def _open_hdf5(path: Path) -> _Opened:
    """From version 2 of the superblock, the first thing in a file, all structures have checksums;
    HDF5 can loop for ever in others, in which damage does not show."""
    h5py = import_extra("h5py", "hdf5", "reading HDF5")
    with open(path, "rb") as raw:
        start = raw.read(len(_HDF5_MAGIC) + 1)
    if start[:-1] == _HDF5_MAGIC and start[-1] < 2:
        raise ValueError(f"HDF5 without checksums (superblock {start[-1]}): embed again")
    with h5py.File(path, "r") as file:
        metadata = json.loads(file.attrs["metadata"])
        yield metadata, {**file, "ids": file["ids"].asstr()}


@contextlib.contextmanager
def _open_npz(path: Path) -> _Opened:
    with np.load(path, allow_pickle=False) as file:
        metadata = json.loads(str(file["metadata"]))
        yield metadata, {name: file[name] for name in _names(metadata)}


@contextlib.contextmanager
def _open_parquet(path: Path) -> _Opened:
    pq = import_extra("pyarrow.parquet", "parquet", "reading Parquet")
    with pq.ParquetFile(path) as file:
        metadata = json.loads(file.schema_arrow.metadata[METADATA.encode()])

        names = metadata["columns"]

        def blocks() -> Iterator[_Block]:
            for batch in file.iter_batches(batch_size=_at_once(names)):
                columns = {name: _vectors(batch.column(name), is_per_token(name)) for name in names}
                yield batch.column("id").to_pylist(), batch.column("length").to_pylist(), columns

        yield metadata, blocks


@contextlib.contextmanager
def _open_table(path: Path) -> _Opened:
    rows = (row for _, row in read_rows(path, ("id", "length"), Form(TABLES[_suffix(path)])))
    first = next(rows, {})
    names = list(dict.fromkeys(re.sub("_[0-9]+$", "", name) for name in [*first][2:]))
    width = (len(first) - 2) // max(1, len(names))
    due = ["id", "length", *(f"{name}_{at}" for name in names for at in range(width))]
    if not names or [*first] != due:
        raise ValueError("its columns are not id, length and those of vectors, all in order")

    def blocks() -> Iterator[_Block]:
        remaining = chain([first], rows)
        while some := list(islice(remaining, _at_once(names))):
            ids, lengths, *values = zip(*(row.values() for row in some), strict=True)
            vectors = np.split(np.array(values, np.float32).T, len(names), axis=1)
            yield list(ids), [*map(int, lengths)], dict(zip(names, vectors, strict=True))

    yield {"columns": names}, blocks


def _vectors(column: Any, per_token: bool) -> np.ndarray:
    """A column of vectors, or of lists of vectors, as one array of rows."""
    vectors = column.flatten() if per_token else column
    rows: np.ndarray = vectors.flatten().to_numpy().reshape(-1, vectors.type.list_size)
    return rows


_READERS: dict[str, Callable[[Path], Any]] = {
    SAFETENSORS: _open_safetensors,
    NPZ: _open_npz,
    PARQUET: _open_parquet,
    **dict.fromkeys(TABLES, _open_table),
    **dict.fromkeys(HDF5, _open_hdf5),
}
