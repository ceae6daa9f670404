"""Arrays larger than memory, and safetensors files of them.

The format is that of huggingface/safetensors: the length of a JSON header, the header, the data.
Its own library reads such files in slices, but writes only what is in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ernie_rna.run.outputs import write_all

_KINDS = {"f": "F", "i": "I", "u": "U"}


@dataclass(frozen=True)
class Array:
    """An array of at least one dimension that need not be in memory.

    Attributes:
        blocks: its rows in order, some at a time; to be gone through once.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    blocks: Iterable[np.ndarray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def join(arrays: Sequence[Array]) -> Array:
    """Arrays of one name, type and width, one behind the other."""
    first = arrays[0]
    rows = sum(array.shape[0] for array in arrays)
    blocks = chain.from_iterable(array.blocks for array in arrays)
    return Array(first.name, first.dtype, (rows, *first.shape[1:]), blocks)


def write_safetensors(
    path: Path, arrays: Iterable[Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays of floats and integers, a block at a time.

    Raises:
        OSError: the disk is full.
    """
    arrays = list(arrays)
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for array in arrays:
        header[array.name] = {
            "dtype": f"{_KINDS[array.dtype.kind]}{8 * array.dtype.itemsize}",
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # The data shall begin at a multiple of 8.
    with open(path, "wb", buffering=0) as file:
        write_all(file, len(text).to_bytes(8, "little") + text)
        for block in chain.from_iterable(array.blocks for array in arrays):
            write_all(file, np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
