"""Writes a table of embeddings in the format that the output's extension names.

.safetensors   one file, or shards `OUT-00001-of-00003.safetensors` and an index
               `OUT.safetensors.index.json` if the vectors take more than `shard_bytes`
.h5, .hdf5     HDF5 (extra `hdf5`): a contiguous dataset for each name of `table`
.npz           NumPy: uncompressed, read by `numpy.load`
.parquet       Parquet (extra `parquet`): a row a sequence, columns id, length and one for each
               vector; no token columns

All of it is streamed, holds nothing of time or place, and appears under its name only once it
is complete: the same table gives the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ernie_rna.embeddings.hdf5_file import ForgivingFile
from ernie_rna.embeddings.table import Array, Table
from ernie_rna.extras import import_extra
from ernie_rna.files.atomic import sync, sync_folder, write_atomically

SHARD_BYTES = 4 << 30

_SAFETENSORS_DTYPES = {"int64": "I64", "float32": "F32", "float16": "F16", "uint8": "U8"}
# The earliest time that a zip file can state.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


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


# ---------------------------------------------------------------------------------------------
# safetensors


def _write_safetensors(table: Table, path: Path) -> None:
    """The format of huggingface/safetensors: length of a JSON header, header, data.

    The ids are one uint8 tensor, in UTF-8, each id followed by a newline.
    """
    arrays = [*table.arrays(), _ids_as_bytes(table)]
    header: dict[str, Any] = {"__metadata__": {"ernie_rna": table.metadata_json}}
    end = 0
    for array in arrays:
        header[array.name] = {
            "dtype": _SAFETENSORS_DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # The data shall begin at a multiple of 8.
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        _write_blocks(file, *arrays)


def _ids_as_bytes(table: Table) -> Array:
    def lines() -> Iterator[bytes]:
        for ids in table.ids():
            yield "".join(f"{id}\n" for id in ids).encode()

    size = sum(map(len, lines()))
    blocks = (np.frombuffer(data, np.uint8) for data in lines())
    return Array("ids", np.dtype(np.uint8), (size,), blocks)


def _write_blocks(file: IO[bytes], *arrays: Array) -> None:
    for array in arrays:
        for block in array.blocks:
            file.write(np.ascontiguousarray(block).data.cast("B"))


# ---------------------------------------------------------------------------------------------
# NumPy


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


# ---------------------------------------------------------------------------------------------
# HDF5


def _write_hdf5(table: Table, path: Path) -> None:
    h5py = import_extra("h5py", "hdf5", "writing HDF5")
    with ForgivingFile(path) as target:
        with h5py.File(target, "w") as file:
            file.attrs["metadata"] = table.metadata_json
            ids = file.create_dataset("ids", (table.records,), h5py.string_dtype())
            _fill(ids, table.ids(), target)
            for array in table.arrays():
                dataset = file.create_dataset(array.name, array.shape, array.dtype)
                _fill(dataset, array.blocks, target)
        target.raise_error()


def _fill(dataset: Any, blocks: Any, target: ForgivingFile) -> None:
    start = 0
    for block in blocks:
        dataset[start : start + len(block)] = block
        start += len(block)
        target.raise_error()


# ---------------------------------------------------------------------------------------------
# Parquet


def _write_parquet(table: Table, path: Path) -> None:
    """A row group for each part."""
    pa = import_extra("pyarrow", "parquet", "writing Parquet")
    pq = import_extra("pyarrow.parquet", "parquet", "writing Parquet")
    layout = table.layout
    vector = pa.list_(pa.from_numpy_dtype(layout.dtype), layout.hidden)
    fields = [("id", pa.string()), ("length", pa.int64())]
    fields += [(column.name, vector) for column in layout.columns]
    schema = pa.schema(fields, metadata={"ernie_rna": table.metadata_json})
    # Neither compression nor a dictionary makes such numbers smaller.
    with pq.ParquetWriter(path, schema, compression="NONE", use_dictionary=False) as writer:
        for part in table.parts:
            ids, lengths = part.ids_and_lengths()
            values = [np.concatenate(list(part.blocks(column))) for column in layout.columns]
            vectors = [
                pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), layout.hidden)
                for value in values
            ]
            columns = [pa.array(ids), pa.array(lengths, pa.int64()), *vectors]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


_WRITERS: dict[str, Callable[[Table, Path], None]] = {
    ".safetensors": _write_safetensors,
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
