"""The results of a chunk, as arrays by name in a safetensors file with a checksum."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ernie_rna.run.outputs import replacing, system_code

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
            OSError: the disk is full; nothing is left of the part.
        """
        arrays = {name: _as_array(name, values) for name, values in results.items()}
        about = json.dumps({**metadata, CHECKSUM: _checksum(arrays)}, sort_keys=True)
        with replacing(self.path) as path:
            _save_arrays(arrays, path, {METADATA: about})

    def get(self, name: str) -> np.ndarray:
        """An array."""
        with safe_open(self.path, framework="np") as file:
            array: np.ndarray = file.get_tensor(name)
        return array

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an array."""
        with safe_open(self.path, framework="np") as file:
            return tuple(file.get_slice(name).get_shape())

    def texts(self, name: str) -> list[str]:
        """A list of texts, as it was put."""
        return self.get(name).tobytes().decode().split("\n")[:-1]

    def ragged(self, name: str) -> list[np.ndarray]:
        """Arrays of several shapes, as `pack_ragged` was given them."""
        shapes = self.get(f"{name}_shapes")
        pieces = np.split(self.get(name), np.cumsum(shapes.prod(axis=1))[:-1])
        return [one.reshape(shape) for one, shape in zip(pieces, shapes.tolist(), strict=True)]

    def is_whole(self) -> bool:
        """Whether the results are there, and not damaged."""
        try:
            with safe_open(self.path, framework="np") as file:
                checksum = json.loads(file.metadata()[METADATA])[CHECKSUM]
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception:  # A damaged header raises nearly anything.
            return False
        return checksum == _checksum(arrays)


def pack_ragged(name: str, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of one type and number of dimensions, but of several shapes, as results."""
    return {
        name: np.concatenate([array.ravel() for array in arrays]),
        f"{name}_shapes": np.array([array.shape for array in arrays], np.int64),
    }


def _save_arrays(arrays: dict[str, np.ndarray], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file; where the system refuses, the error is an OSError as elsewhere."""
    try:
        save_file(arrays, path, metadata)
    except SafetensorError as error:
        code = system_code(error)
        if code is None:
            raise
        raise OSError(code, os.strerror(code), str(path)) from error


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
