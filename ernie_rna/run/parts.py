"""A part, the results of a chunk: named arrays in a safetensors file with a checksum.

`pack` turns results that are dataclasses into such arrays, and `unpack` turns them back.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from ernie_rna.run.outputs import replacing

# The only entry of a part's metadata, as JSON, since safetensors writes several entries in no
# fixed order; and the key of the checksum in it.
METADATA = "ernie_rna"
CHECKSUM = "crc32"

# By name: arrays of at least one dimension, or lists of texts without line ends.
Results = Mapping[str, np.ndarray | Sequence[str]]


@dataclass(frozen=True)
class Part:
    """The file with the results of a chunk, whether or not it exists."""

    path: Path

    def put(self, results: Results, metadata: Mapping[str, Any]) -> None:
        """Write the results, with `metadata`, which says what they depend on.

        Raises:
            OSError, SafetensorError: the disk is full; no file is left.
        """
        arrays = {name: _as_array(name, values) for name, values in results.items()}
        text = json.dumps({**metadata, CHECKSUM: _checksum(arrays)}, sort_keys=True)
        with replacing(self.path) as path:
            save_file(arrays, path, {METADATA: text})

    def get(self, name: str) -> np.ndarray:
        """Read an array."""
        with safe_open(self.path, framework="np") as file:
            return np.asarray(file.get_tensor(name))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array without reading it."""
        with safe_open(self.path, framework="np") as file:
            return tuple(file.get_slice(name).get_shape())

    def texts(self, name: str) -> list[str]:
        """Read a list of texts."""
        return self.get(name).tobytes().decode().split("\n")[:-1]

    def is_whole(self) -> bool:
        """Whether the file exists and is not damaged."""
        try:
            with safe_open(self.path, framework="np") as file:
                checksum = json.loads(file.metadata()[METADATA])[CHECKSUM]
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception:  # A damaged header can raise almost any error.
            return False
        return checksum == _checksum(arrays)


def pack(results: Sequence[Any]) -> Results:
    """Turn results of one dataclass into named arrays.

    A field holds arrays, all of one dtype and number of dimensions; or JSON values, None, and
    dataclasses of those.
    """
    packed: dict[str, Any] = {"results": []}
    rows = [{field.name: getattr(row, field.name) for field in fields(row)} for row in results]
    for row in rows:
        values = {name: value for name, value in row.items() if not isinstance(value, np.ndarray)}
        packed["results"].append(json.dumps(values, default=asdict))
    for name in rows[0]:
        arrays = [row[name] for row in rows if isinstance(row[name], np.ndarray)]
        if arrays:
            packed[name] = np.concatenate([array.ravel() for array in arrays])
            packed[f"{name}_shapes"] = np.array([array.shape for array in arrays], np.int64)
    return packed


def unpack(part: Part, kind: type[Any]) -> Iterator[Any]:
    """Yield the results that were given to `pack`, of the dataclass `kind`."""
    types = get_type_hints(kind)
    arrays = {name: _arrays(part, name) for name in types}
    for text in part.texts("results"):
        row = json.loads(text)
        for name, field_type in types.items():
            if name not in row:
                row[name] = next(arrays[name])
            elif isinstance(row[name], dict):
                row[name] = field_type(**row[name])
        yield kind(**row)


def _arrays(part: Part, name: str) -> Iterator[np.ndarray]:
    """Yield the arrays of a field, one for each result that has one."""
    shapes = part.get(f"{name}_shapes")
    pieces = np.split(part.get(name), np.cumsum(shapes.prod(axis=1))[:-1])
    for piece, shape in zip(pieces, shapes.tolist(), strict=True):
        yield piece.reshape(shape)


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """The crc32 of arrays with their names, dtypes and shapes."""
    crc = 0
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name} {array.dtype} {array.shape}\n".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(array).tobytes(), crc)
    return f"{crc:08x}"


def _as_array(name: str, values: np.ndarray | Sequence[str]) -> np.ndarray:
    """Return an array unchanged, and texts as bytes of UTF-8, each followed by a newline."""
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values)
    if any("\n" in text for text in values):
        raise ValueError(f"a text of {name} contains a line end")
    return np.frombuffer("".join(f"{text}\n" for text in values).encode(), np.uint8)
