"""The results of a chunk: arrays by name in a safetensors file with a checksum.

`pack` makes such arrays of results that are dataclasses, and `unpack` the results again.
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

# The one entry of a part's metadata, JSON (safetensors writes several in any order), and in it
# the checksum.
METADATA = "ernie_rna"
CHECKSUM = "crc32"

# By name, arrays of at least one dimension, or lists of texts without line ends.
Results = Mapping[str, np.ndarray | Sequence[str]]


@dataclass(frozen=True)
class Part:
    """The results of a chunk on the disk, there or not."""

    path: Path

    def put(self, results: Results, metadata: Mapping[str, Any]) -> None:
        """Write the results.

        Args:
            metadata: what the file says of itself.

        Raises:
            OSError, SafetensorError: the disk is full; nothing is left of the part.
        """
        arrays = {name: _as_array(name, values) for name, values in results.items()}
        about = json.dumps({**metadata, CHECKSUM: _checksum(arrays)}, sort_keys=True)
        with replacing(self.path) as path:
            save_file(arrays, path, {METADATA: about})

    def get(self, name: str) -> np.ndarray:
        """An array."""
        with safe_open(self.path, framework="np") as file:
            array: np.ndarray = file.get_tensor(name)
        return array

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an array, which is not read."""
        with safe_open(self.path, framework="np") as file:
            return tuple(file.get_slice(name).get_shape())

    def texts(self, name: str) -> list[str]:
        """A list of texts, as it was put."""
        return self.get(name).tobytes().decode().split("\n")[:-1]

    def is_whole(self) -> bool:
        """Whether the results are there, and not damaged."""
        try:
            with safe_open(self.path, framework="np") as file:
                checksum = json.loads(file.metadata()[METADATA])[CHECKSUM]
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception:  # A damaged header raises nearly anything.
            return False
        return checksum == _checksum(arrays)


def pack(results: Sequence[Any]) -> Results:
    """Results of one dataclass as the store keeps them.

    Its fields are arrays, of one type and number of dimensions each; or what JSON holds, None and
    dataclasses of that as well.
    """
    packed: dict[str, Any] = {"results": []}
    rows = [{field.name: getattr(one, field.name) for field in fields(one)} for one in results]
    for row in rows:
        told = {name: value for name, value in row.items() if not isinstance(value, np.ndarray)}
        packed["results"].append(json.dumps(told, default=asdict))
    for name in rows[0]:
        arrays = [row[name] for row in rows if isinstance(row[name], np.ndarray)]
        if arrays:
            packed[name] = np.concatenate([array.ravel() for array in arrays])
            packed[f"{name}_shapes"] = np.array([array.shape for array in arrays], np.int64)
    return packed


def unpack(part: Part, kind: type[Any]) -> Iterator[Any]:
    """The results of a dataclass that were given to `pack`."""
    kinds = get_type_hints(kind)
    arrays = {name: _arrays(part, name) for name in kinds}
    for text in part.texts("results"):
        row = json.loads(text)
        for name, own in kinds.items():
            if name not in row:
                row[name] = next(arrays[name])
            elif isinstance(row[name], dict):
                row[name] = own(**row[name])
        yield kind(**row)


def _arrays(part: Part, name: str) -> Iterator[np.ndarray]:
    """The arrays of a field, one by one."""
    shapes = part.get(f"{name}_shapes")
    pieces = np.split(part.get(name), np.cumsum(shapes.prod(axis=1))[:-1])
    for piece, shape in zip(pieces, shapes.tolist(), strict=True):
        yield piece.reshape(shape)


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """The crc32 of arrays with their names, types and shapes."""
    crc = 0
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name} {array.dtype} {array.shape}\n".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(array).tobytes(), crc)
    return f"{crc:08x}"


def _as_array(name: str, values: np.ndarray | Sequence[str]) -> np.ndarray:
    """An array as it is; texts in UTF-8, each followed by a newline."""
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values)
    if any("\n" in text for text in values):
        raise ValueError(f"a text of {name} has a line end in it")
    return np.frombuffer("".join(f"{text}\n" for text in values).encode(), np.uint8)
