"""Embeddings of sequences, and the files that they are written to and read from one at a time.

An embedding consists of columns, each a pooling of the hidden states of one layer. A column is
called `<pooling>_layer<number>` in memory and in every file: `mean_layer12`, `token_layer0`. The
poolings are "token", a vector for each nucleotide, without special tokens; "cls", the vector of
`<cls>`; and "mean", the mean over the nucleotides. Layer 0 is the embedding output, layer n the
output of the n-th transformer layer. The formats, by extension:

.safetensors   one file; or, if it would be larger than `shard_bytes`, shards
               `OUT-00001-of-00003.safetensors` and an index `OUT.safetensors.index.json`
.h5, .hdf5     HDF5 (extra `hdf5`): a contiguous dataset for each name
.npz           NumPy: uncompressed, read by `numpy.load`
.parquet       Parquet (extra `parquet`): a row for each sequence; columns id, length and one for
               each vector, or for the list of the vectors of its nucleotides
.tsv, .csv     a table of numbers for spreadsheets: a row for each sequence; columns id, length and
               <column>_0, <column>_1, ...; no token columns, no metadata

safetensors, HDF5 and NumPy files have the following names, and Parquet files the metadata:

ids         first words of the headers, in input order; in safetensors one uint8 array, in UTF-8,
            with a newline after each id
lengths     number of nucleotides of each sequence
offsets     only with token columns: the nucleotides of sequence i are rows offsets[i] to
            offsets[i + 1]; one more entry than there are sequences
<column>    a row for each sequence or, in token columns, for each nucleotide
metadata    JSON: settings, model, versions and input, but no time or place

The same results are written as the same bytes. A part of an unfinished run is such a safetensors
file and becomes a shard as it is, so that large outputs are written only once.
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
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from ernie_rna.extras import import_extra
from ernie_rna.run.outputs import behind_link, replacing
from ernie_rna.run.parts import CHECKSUM, METADATA, Part
from ernie_rna.sequences.fasta import FilePath, InputError
from ernie_rna.sequences.tables import TABLES, Form, read_rows

SAFETENSORS, PARQUET, NPZ = ".safetensors", ".parquet", ".npz"
HDF5 = (".h5", ".hdf5")
EXTENSIONS = (SAFETENSORS, *HDF5, NPZ, PARQUET)

_INDEX = ".index.json"  # follows the name of an output that consists of shards
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Embedding:
    """The embedding of one sequence.

    Attributes:
        id: id of the sequence.
        length: number of its nucleotides.
        arrays: vectors by column name: (hidden,) for cls and mean, (length, hidden) for token.

    `embedding["mean_layer12"]` is one of the arrays; so is `embedding["mean"]` for a single layer.
    """

    id: str
    length: int
    arrays: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self.arrays:
            return self.arrays[name]
        matches = [array for key, array in self.arrays.items() if key.startswith(f"{name}_layer")]
        if len(matches) != 1:
            raise KeyError(f"{name!r} is not one of {', '.join(self.arrays)}")
        return matches[0]


def is_per_token(name: str) -> bool:
    """Whether a column of this name has a vector for each nucleotide."""
    return name.startswith("token_")


def check_format(output: str, pooling: Iterable[str] = ()) -> None:
    """Check, before any work, that the output can be written with these poolings.

    Raises:
        ValueError: the extension is that of no format, or of one that cannot hold a pooling.
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
    """The files of an output that exist: the file, or the index and its shards."""
    suffix, output = output.suffix.lower(), behind_link(output)
    index = Path(f"{output}{_INDEX}")
    files = [path for path in (output, index) if path.is_file()]
    if suffix == SAFETENSORS and index in files:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            files += [path for path in _shards(index) if path.exists()]
    return files


def _shards(index: Path) -> list[Path]:
    """The shards that an index names; they are in its folder."""
    return [index.with_name(shard["file"]) for shard in json.loads(index.read_bytes())["shards"]]


# ---------------------------------------------------------------------------------------------
# Writing


def pack(embeddings: Sequence[Embedding]) -> dict[str, np.ndarray | list[str]]:
    """Embeddings as the arrays of a part, by name, with their ids."""
    lengths = np.array([embedding.length for embedding in embeddings], np.int64)
    arrays: dict[str, Any] = {"lengths": lengths, "ids": [e.id for e in embeddings]}
    for name in embeddings[0].arrays:
        join = np.concatenate if is_per_token(name) else np.stack
        arrays[name] = join([embedding.arrays[name] for embedding in embeddings])
    if any(map(is_per_token, arrays)):
        arrays["offsets"] = np.concatenate([[0], np.cumsum(lengths)])
    return arrays


def write_parts(
    parts: Sequence[Part], output: Path, metadata: Mapping[str, Any], shard_bytes: int
) -> list[Path]:
    """Write an output, replacing one that exists.

    Args:
        parts: results of `pack`, in order.
        metadata: metadata of the file, with the names of its columns.
        shard_bytes: size above which a safetensors output is written as shards, one for each part.

    Returns:
        The files of the output.
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
            about = json.dumps(metadata, sort_keys=True)
            _WRITERS[suffix](parts, path, metadata["columns"], about)
        written = [output]
    for path in set(before).difference(written):
        path.unlink(missing_ok=True)
    return written


def _write_shards(parts: Sequence[Part], output: Path, metadata: Mapping[str, Any]) -> list[Path]:
    """Turn the parts into shards; the index, written last, has the range of sequences of each."""
    start, shards, paths = 0, [], []
    for number, part in enumerate(parts, 1):
        name = f"{output.stem}-{number:05d}-of-{len(parts):05d}{SAFETENSORS}"
        stop = start + part.shape("lengths")[0]
        shards.append({"file": name, "start": start, "stop": stop})
        start = stop
        paths.append(output.with_name(name))
        paths[-1].unlink(missing_ok=True)
        try:
            os.link(part.path, paths[-1])  # The part stays for the run that resumes a killed one.
        except OSError:  # Some file systems have no links.
            os.replace(part.path, paths[-1])
    index = Path(f"{output}{_INDEX}")
    with replacing(index) as temporary:
        text = json.dumps({"metadata": metadata, "shards": shards}, indent=1)
        temporary.write_text(text, encoding="utf-8")
        for path in paths:  # Some versions of safetensors create files of mode 0600.
            shutil.copymode(temporary, path)
    return [*paths, index]


def _arrays(
    parts: Sequence[Part], columns: list[str], ids: np.ndarray
) -> Iterator[tuple[str, np.dtype[Any], tuple[int, ...], Iterable[np.ndarray]]]:
    """Name, dtype, shape and blocks of each array of a file. Vectors have a block for each part,
    which is read only when the iteration reaches it."""
    lengths = np.concatenate([part.get("lengths") for part in parts])
    small = {"ids": ids, "lengths": lengths}
    if any(map(is_per_token, columns)):
        small["offsets"] = np.concatenate([[0], np.cumsum(lengths)])
    for name, array in small.items():
        yield name, array.dtype, array.shape, [array]
    for name in columns:
        rows, widths = zip(*(part.shape(name) for part in parts), strict=True)
        blocks = map(Part.get, parts, repeat(name))
        yield name, parts[0].get(name).dtype, (sum(rows), widths[0]), blocks


def _ids(parts: Sequence[Part]) -> list[str]:
    return [id for part in parts for id in part.texts("ids")]


def _write_safetensors(parts: Sequence[Part], path: Path, columns: list[str], about: str) -> None:
    """Write a safetensors file; only the vectors of one part are in memory at a time."""
    ids = np.concatenate([part.get("ids") for part in parts])
    arrays = sorted(_arrays(parts, columns, ids), key=lambda array: -array[1].itemsize)  # aligned
    header: dict[str, Any] = {"__metadata__": {METADATA: about}}
    start = 0
    for name, dtype, shape, _ in arrays:
        stop = start + math.prod(shape) * dtype.itemsize
        kind = f"{dtype.kind.upper()}{8 * dtype.itemsize}"  # such as F32
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": (start, stop)}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for *_, blocks in arrays:
            for block in blocks:
                file.write(block.data)


def _write_npz(parts: Sequence[Part], path: Path, columns: list[str], about: str) -> None:
    """Write what `numpy.savez` would, without times, with the vectors of one part in memory."""
    text = np.array(about)
    arrays = _arrays(parts, columns, np.array(_ids(parts)))
    with zipfile.ZipFile(path, "w") as archive:
        for name, dtype, shape, blocks in [("metadata", text.dtype, (), [text]), *arrays]:
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for block in blocks:
                    member.write(block.data)


def _write_hdf5(parts: Sequence[Part], path: Path, columns: list[str], about: str) -> None:
    """Write an HDF5 file. The library can loop forever on a full disk, so free space is checked
    first, and in a damaged file, so the structures are those of HDF5 1.10, which have checksums,
    and texts have a fixed length: those of variable length are in a heap without checksums.
    """
    h5py = import_extra("h5py", "hdf5", "writing HDF5")
    size = sum(part.path.stat().st_size for part in parts)
    if shutil.disk_usage(path.parent).free < 1.1 * size + (1 << 20):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    ids = [id.encode() for id in _ids(parts)]
    array = np.array(ids, h5py.string_dtype(length=max(map(len, ids))))
    with h5py.File(path, "w", libver="v110") as file:
        text = about.encode()
        file.attrs.create("metadata", text, dtype=h5py.string_dtype(length=len(text)))
        for name, dtype, shape, blocks in _arrays(parts, columns, array):
            dataset = file.create_dataset(name, shape, dtype)
            start = 0
            for block in blocks:
                dataset[start : start + len(block)] = block
                start += len(block)


def _write_parquet(parts: Sequence[Part], path: Path, columns: list[str], about: str) -> None:
    """A row group for each part."""
    pa = import_extra("pyarrow", "parquet", "writing Parquet")
    pq = import_extra("pyarrow.parquet", "parquet", "writing Parquet")

    def table(part: Part) -> Any:
        arrays = {"id": pa.array(part.texts("ids")), "length": pa.array(part.get("lengths"))}
        for name in columns:
            rows = part.get(name)
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
            if is_per_token(name):
                offsets = pa.array(part.get("offsets"), pa.int32())
                vectors = pa.ListArray.from_arrays(offsets, vectors)
            arrays[name] = vectors
        return pa.table(arrays, metadata={METADATA: about})

    # Neither compression nor a dictionary makes such numbers smaller.
    settings = {"compression": "NONE", "use_dictionary": False}
    with pq.ParquetWriter(path, table(parts[0]).schema, **settings) as writer:
        for part in parts:
            writer.write_table(table(part))


def _write_table(
    separator: str, parts: Sequence[Part], path: Path, columns: list[str], about: str
) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        numbers = [f"{name}_{i}" for name in columns for i in range(parts[0].shape(name)[1])]
        writer.writerow(["id", "length", *numbers])
        for part in parts:
            rows = np.concatenate([part.get(name) for name in columns], axis=1).astype(np.float32)
            for id, length, row in zip(part.texts("ids"), part.get("lengths"), rows, strict=True):
                writer.writerow([id, length, *map(str, row)])


# ---------------------------------------------------------------------------------------------
# Reading


def read_embeddings(path: FilePath) -> Iterator[Embedding]:
    """Yield the embeddings in a file written by `ernie-rna embed`, in input order.

    Args:
        path: as given to `-o`, even if the output consists of shards; or the index of the shards.

    Raises:
        ValueError: the extension is that of no format.
        InputError: the file is damaged, or was written by another program.
        OSError: there is no such file.
        ImportError: the extra of the format is not installed.
    """
    for file in _files(Path(path)):
        with _damage_explained(file), contextlib.closing(_READERS[_suffix(file)](file)) as content:
            next(content)
            yield from content


def read_metadata(path: FilePath) -> dict[str, Any]:
    """Settings, model, versions and input of a file written by `ernie-rna embed`.

    The metadata of a table are only the names of its columns.

    Raises:
        As `read_embeddings`.
    """
    file = _files(Path(path))[0]
    with _damage_explained(file), contextlib.closing(_READERS[_suffix(file)](file)) as content:
        return dict(next(content))


def _files(path: Path) -> list[Path]:
    """The file, or the shards of its index; ValueError for an unknown extension."""
    index = path
    if not path.name.endswith(f"{SAFETENSORS}{_INDEX}"):
        _suffix(path)
        # Links in the Hub's cache lead to files without an extension, so they are not resolved.
        path = path if path.exists() else behind_link(path)
        index = Path(f"{path}{_INDEX}")
        if path.exists() or not index.exists():
            return [path]
    with _damage_explained(index):
        shards = _shards(index)
        if not shards:
            raise ValueError("it names no shard")
        return shards


@contextlib.contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    """Turn errors of the formats' libraries, which can be of nearly any class, into InputError."""
    try:
        yield
    except (InputError, FileNotFoundError, IsADirectoryError, PermissionError, ImportError):
        raise
    except Exception as error:
        raise InputError(
            f"{path}: damaged, or not a file of embeddings ({type(error).__name__}: {error})"
        ) from error


def _embeddings(
    ids: Sequence[str], lengths: Sequence[int], arrays: Mapping[str, np.ndarray]
) -> Iterator[Embedding]:
    """Embeddings from arrays by column, (sequences, hidden) or, for token, (nucleotides, hidden);
    ValueError if a length or shape is impossible."""
    if any(length < 1 for length in lengths):
        raise ValueError(f"a sequence of {min(lengths)} nucleotides")
    for name, array in arrays.items():
        rows = sum(lengths) if is_per_token(name) else len(lengths)
        if array.ndim != 2 or len(array) != rows:
            raise ValueError(f"{name} has shape {array.shape}, but must have {rows} rows")
    start = 0
    for index, (id, length) in enumerate(zip(ids, lengths, strict=True)):
        tokens = slice(start, start + length)
        # Copies, so that keeping one embedding does not keep all of them in memory.
        own = {n: array[tokens if is_per_token(n) else index].copy() for n, array in arrays.items()}
        yield Embedding(id, length, own)
        start += length


def _batch_size(names: Iterable[str]) -> int:
    """The number of sequences to read at once; vectors of nucleotides take much memory."""
    return 8 if any(map(is_per_token, names)) else 1024


def _read_batches(names: Sequence[str], arrays: Mapping[str, Any]) -> Iterator[Embedding]:
    """The embeddings in the arrays of a file, read by slices; `names` are those of the columns."""
    size, count, token = _batch_size(names), len(arrays["lengths"]), 0
    for start in range(0, count, size):
        rows = slice(start, min(start + size, count))
        lengths = arrays["lengths"][rows].tolist()
        tokens = slice(token, token + sum(lengths))
        token = tokens.stop
        batch = {n: np.asarray(arrays[n][tokens if is_per_token(n) else rows]) for n in names}
        yield from _embeddings([str(id) for id in arrays["ids"][rows]], lengths, batch)


# A reader yields the metadata of a file, then its embeddings. The arguments of a writer are the
# parts, a path, the names of the columns, and the metadata as JSON.


def _read_safetensors(path: Path) -> Iterator[Any]:
    with safe_open(path, framework="np") as file:
        metadata = json.loads(file.metadata()[METADATA])
        metadata.pop(CHECKSUM, None)  # A shard has it from when it was a part.
        yield metadata
        arrays = {name: file.get_slice(name) for name in metadata["columns"]}
        arrays["ids"] = file.get_tensor("ids").tobytes().decode().split("\n")[:-1]
        arrays["lengths"] = file.get_tensor("lengths")
        yield from _read_batches(metadata["columns"], arrays)


def _read_hdf5(path: Path) -> Iterator[Any]:
    """Read an HDF5 file whose superblock, at its start, has version 2 or later: all its structures
    have checksums. In older ones damage is not detected, and HDF5 can loop forever."""
    h5py = import_extra("h5py", "hdf5", "reading HDF5")
    with open(path, "rb") as raw:
        start = raw.read(len(_HDF5_MAGIC) + 1)
    if start[:-1] == _HDF5_MAGIC and start[-1] < 2:
        raise ValueError(f"HDF5 without checksums (superblock {start[-1]}): embed again")
    with h5py.File(path, "r") as file:
        metadata = json.loads(file.attrs["metadata"])
        yield metadata
        yield from _read_batches(metadata["columns"], {**file, "ids": file["ids"].asstr()})


def _read_npz(path: Path) -> Iterator[Any]:
    with np.load(path, allow_pickle=False) as file:
        metadata = json.loads(str(file["metadata"]))
        yield metadata
        arrays = {name: file[name] for name in ("ids", "lengths", *metadata["columns"])}
        yield from _read_batches(metadata["columns"], arrays)


def _read_parquet(path: Path) -> Iterator[Any]:
    with import_extra("pyarrow.parquet", "parquet", "reading Parquet").ParquetFile(path) as file:
        metadata = json.loads(file.schema_arrow.metadata[METADATA.encode()])
        yield metadata
        names = metadata["columns"]
        for batch in file.iter_batches(batch_size=_batch_size(names)):
            columns = {}
            for name in names:
                column = batch.column(name)
                vectors = column.flatten() if is_per_token(name) else column
                columns[name] = vectors.flatten().to_numpy().reshape(-1, vectors.type.list_size)
            ids, lengths = (batch.column(name).to_pylist() for name in ("id", "length"))
            yield from _embeddings(ids, lengths, columns)


def _read_table(path: Path) -> Iterator[Any]:
    rows = (row for _, row in read_rows(path, ("id", "length"), Form(TABLES[_suffix(path)])))
    first = next(rows, {})
    names = list(dict.fromkeys(re.sub("_[0-9]+$", "", name) for name in [*first][2:]))
    width = (len(first) - 2) // max(1, len(names))
    expected = ["id", "length", *(f"{name}_{i}" for name in names for i in range(width))]
    if not names or [*first] != expected:
        raise ValueError("its columns must be id, length and those of vectors, all in order")
    yield {"columns": names}
    remaining = chain([first], rows)
    while batch := list(islice(remaining, _batch_size(names))):
        ids, lengths, *values = zip(*(row.values() for row in batch), strict=True)
        vectors = np.split(np.array(values, np.float32).T, len(names), axis=1)
        columns = dict(zip(names, vectors, strict=True))
        yield from _embeddings(ids, [*map(int, lengths)], columns)


_WRITERS: dict[str, Callable[[Sequence[Part], Path, list[str], str], None]] = {
    SAFETENSORS: _write_safetensors,
    NPZ: _write_npz,
    PARQUET: _write_parquet,
    **dict.fromkeys(HDF5, _write_hdf5),
    **{suffix: partial(_write_table, separator) for suffix, separator in TABLES.items()},
}
_READERS: dict[str, Callable[[Path], Any]] = {
    SAFETENSORS: _read_safetensors,
    NPZ: _read_npz,
    PARQUET: _read_parquet,
    **dict.fromkeys(HDF5, _read_hdf5),
    **dict.fromkeys(TABLES, _read_table),
}
