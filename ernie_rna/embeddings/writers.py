"""Writes embeddings in the format that the output's extension names.

.safetensors   one file, or shards `OUT-00001-of-00003.safetensors` and an index
               `OUT.safetensors.index.json` if it would be larger than `shard_bytes`
.h5, .hdf5     HDF5 (extra `hdf5`): a contiguous dataset for each name
.npz           NumPy: uncompressed, read by `numpy.load`
.parquet       Parquet (extra `parquet`): a row a sequence, columns id, length and one for each
               vector; no token columns

Every format has, under the same names:

ids         the first words of the headers, in input order
lengths     nucleotides of each sequence
offsets     with token columns: the nucleotides of sequence i are rows offsets[i] to
            offsets[i + 1]; one more entry than there are sequences
<column>    see `columns`; a row a sequence, or, for token columns, a row a nucleotide
metadata    JSON: settings, model, versions, input, and nothing of when or where

All of it is streamed, holds nothing of time or place, and appears under its name only once it
is complete: the same parts give the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ernie_rna.embeddings.embedding import is_per_token
from ernie_rna.extras import import_extra
from ernie_rna.run.arrays import Array, join, write_safetensors
from ernie_rna.run.outputs import reserve, sync, sync_folder, write_atomically
from ernie_rna.run.store import Part

SHARD_BYTES = 4 << 30

# The earliest time that a zip file can state.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
# More than HDF5 adds to the data.
_HDF5_BYTES = 1 << 16


@dataclass(frozen=True)
class Table:
    """Finished parts, with the arrays ids, lengths and one for each column, seen as one.

    Attributes:
        metadata: what the file says of itself, with the names of the columns.
    """

    metadata: Mapping[str, Any]
    parts: list[Part]

    @property
    def columns(self) -> list[str]:
        names: list[str] = self.metadata["columns"]
        return names

    @property
    def records(self) -> int:
        return self.array("lengths").shape[0]

    @property
    def metadata_json(self) -> str:
        return json.dumps(self.metadata, sort_keys=True)

    def split(self, max_bytes: int) -> list[Table]:
        """Tables of consecutive parts, each of at least one part, else of about `max_bytes`."""
        groups: list[list[Part]] = []
        size = 0
        for part in self.parts:
            if not groups or size + part.nbytes > max_bytes:
                groups.append([])
                size = 0
            groups[-1].append(part)
            size += part.nbytes
        return [Table(self.metadata, group) for group in groups]

    def array(self, name: str) -> Array:
        return join([part.array(name) for part in self.parts])

    def arrays(self) -> Iterator[Array]:
        """Everything but the ids and the metadata."""
        yield self.array("lengths")
        if any(map(is_per_token, self.columns)):
            yield Array("offsets", np.dtype(np.int64), (self.records + 1,), self._offsets())
        for name in self.columns:
            yield self.array(name)

    def ids(self) -> Iterator[list[str]]:
        for part in self.parts:
            yield part.texts("ids")

    def _offsets(self) -> Iterator[np.ndarray]:
        end = np.zeros(1, dtype=np.int64)
        yield end
        for lengths in self.array("lengths").blocks:
            ends = end[-1] + np.cumsum(lengths)
            yield ends
            end = ends


def check_output(output: Path, pooling: set[str]) -> None:
    """Raise before any work what would keep the output from being written.

    Raises:
        ValueError: the extension names no format, or the format has no place for the pooling.
        ImportError: the extra of the format is not installed.
    """
    suffix = output.suffix.lower()
    if suffix not in _WRITERS:
        raise ValueError(f"{output}: the extension must be one of {', '.join(_WRITERS)}")
    if suffix == ".parquet":
        import_extra("pyarrow.parquet", "parquet", "writing Parquet")
        if "token" in pooling:
            raise ValueError(
                f"{output}: Parquet holds a row a sequence, so no token vectors; write .h5, "
                ".safetensors or .npz"
            )
    if suffix in (".h5", ".hdf5"):
        import_extra("h5py", "hdf5", "writing HDF5")


def existing_files(output: Path) -> list[Path]:
    """The files that make up an output that is there: one, or index and shards."""
    index = _index_path(output)
    found = [path for path in (output, index) if path.exists()]
    if output.suffix.lower() == ".safetensors" and index.exists():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            names = [shard["file"] for shard in json.loads(index.read_bytes())["shards"]]
            shards = [output.with_name(Path(name).name) for name in names]
            found += [path for path in shards if path.exists()]
    return found


def write_table(
    table: Table, output: Path, folder: Path, shard_bytes: int = SHARD_BYTES
) -> list[Path]:
    """Write an output, in place of one that may be there.

    Args:
        folder: where it is put together, on the same file system.
        shard_bytes: about how large a safetensors file may be.

    Returns:
        The files that it consists of.
    """
    replaced = existing_files(output)
    suffix = output.suffix.lower()
    tables = table.split(shard_bytes) if suffix == ".safetensors" else [table]
    names = _shard_names(output, len(tables))
    for number, part in enumerate(tables):
        scratch = folder / f"output-{number:05d}{suffix}"
        scratch.unlink(missing_ok=True)
        try:
            _WRITERS[suffix](part, scratch)
            sync(scratch)
        except BaseException:  # On a full disk, room is worth more than half a file.
            scratch.unlink(missing_ok=True)
            raise
    written = [output.with_name(name) for name in names]
    for number, path in enumerate(written):
        os.replace(folder / f"output-{number:05d}{suffix}", path)
    if len(tables) > 1:
        written.append(_index_path(output))
        write_atomically(written[-1], _index(table, tables, names))
    for path in set(replaced).difference(written):
        path.unlink(missing_ok=True)
    sync_folder(output.parent)
    return written


def _shard_names(output: Path, count: int) -> list[str]:
    if count == 1:
        return [output.name]
    return [
        f"{output.stem}-{number:05d}-of-{count:05d}{output.suffix}"
        for number in range(1, count + 1)
    ]


def _index_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.index.json")


def _index(table: Table, tables: list[Table], names: list[str]) -> bytes:
    """Which shard holds which sequences, counted from 0, the last one excluded."""
    shards, start = [], 0
    for part, name in zip(tables, names, strict=True):
        shards.append({"file": name, "start": start, "stop": start + part.records})
        start += part.records
    return json.dumps({"metadata": table.metadata, "shards": shards}, indent=1).encode()


def _write_safetensors(table: Table, path: Path) -> None:
    """The ids are one uint8 tensor, in UTF-8, each id followed by a newline."""
    arrays = [*table.arrays(), table.array("ids")]
    write_safetensors(path, arrays, {"ernie_rna": table.metadata_json})


def _write_npz(table: Table, path: Path) -> None:
    """As `numpy.savez` writes it, without times and without an array in memory."""
    metadata = np.array(table.metadata_json)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for array in (
            Array("metadata", metadata.dtype, (), [metadata]),
            _ids_as_text(table),
            *table.arrays(),
        ):
            entry = zipfile.ZipInfo(f"{array.name}.npy", _ZIP_TIME)
            with archive.open(entry, "w", force_zip64=True) as member:
                header = {
                    "descr": np.lib.format.dtype_to_descr(array.dtype),
                    "fortran_order": False,
                    "shape": array.shape,
                }
                np.lib.format.write_array_header_1_0(member, header)
                for block in array.blocks:
                    member.write(np.ascontiguousarray(block).tobytes())


def _ids_as_text(table: Table) -> Array:
    longest = max(len(id) for ids in table.ids() for id in ids)
    dtype = np.dtype(f"U{longest}")
    blocks = (np.array(ids, dtype=dtype) for ids in table.ids())
    return Array("ids", dtype, (table.records,), blocks)


def _write_hdf5(table: Table, path: Path) -> None:
    """HDF5 loses its way on a full disk, so all of the room is claimed before it is filled.

    And it can loop for ever in a damaged file. So the structures are those of HDF5 1.10, which
    have checksums, and texts have a fixed length: those of any length lie in a heap without.
    """
    h5py = import_extra("h5py", "hdf5", "writing HDF5")
    metadata = table.metadata_json.encode()
    longest = max(len(id.encode()) for ids in table.ids() for id in ids)
    ids = table.records * longest
    size = sum(array.nbytes for array in table.arrays()) + ids + len(metadata)
    reserve(path, size + _HDF5_BYTES)
    # This gives the room back: claim it again.
    with h5py.File(path, "w", libver="v110") as file:
        reserve(path, size + _HDF5_BYTES)
        file.attrs.create("metadata", metadata, dtype=h5py.string_dtype(length=len(metadata)))
        text = h5py.string_dtype(length=longest)
        _fill(file.create_dataset("ids", (table.records,), text), table.ids())
        for array in table.arrays():
            _fill(file.create_dataset(array.name, array.shape, array.dtype), array.blocks)
        file.flush()
        size = file.id.get_filesize()
    os.truncate(path, size)


def _fill(dataset: Any, blocks: Any) -> None:
    start = 0
    for block in blocks:
        dataset[start : start + len(block)] = block
        start += len(block)


def _write_parquet(table: Table, path: Path) -> None:
    """A row group for each part."""
    pa = import_extra("pyarrow", "parquet", "writing Parquet")
    pq = import_extra("pyarrow.parquet", "parquet", "writing Parquet")
    arrays = [table.array(name) for name in table.columns]
    fields = [("id", pa.string()), ("length", pa.int64())]
    fields += [(a.name, pa.list_(pa.from_numpy_dtype(a.dtype), a.shape[1])) for a in arrays]
    schema = pa.schema(fields, metadata={"ernie_rna": table.metadata_json})
    # Neither compression nor a dictionary makes such numbers smaller.
    with pq.ParquetWriter(path, schema, compression="NONE", use_dictionary=False) as writer:
        for part in table.parts:
            vectors = [
                pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), value.shape[1])
                for value in map(part.get, table.columns)
            ]
            columns = [pa.array(part.texts("ids")), pa.array(part.get("lengths")), *vectors]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


_WRITERS: dict[str, Callable[[Table, Path], None]] = {
    ".safetensors": _write_safetensors,
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
