"""What an output file is made of, whatever its format: ids, lengths and columns of vectors.

Every format has, under the same names:

ids         the first words of the headers, in input order
lengths     nucleotides of each sequence
offsets     with token columns: the nucleotides of sequence i are rows offsets[i] to
            offsets[i + 1]; one more entry than there are sequences
<column>    see `embedding`; a row a sequence, or, for token columns, a row a nucleotide
metadata    JSON: settings, model, versions, input, and nothing of when or where
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ernie_rna.embeddings.columns import Column, Layout
from ernie_rna.embeddings.store import Part


@dataclass(frozen=True)
class Array:
    """An array too large for memory.

    Attributes:
        blocks: its rows in order, some at a time; to be gone through once.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    blocks: Iterable[np.ndarray]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Table:
    """Finished parts, seen as one table.

    Attributes:
        metadata: what the file says of itself.
    """

    metadata: Mapping[str, Any]
    layout: Layout
    parts: list[Part]

    @property
    def records(self) -> int:
        return sum(part.records for part in self.parts)

    @property
    def nucleotides(self) -> int:
        return sum(part.nucleotides for part in self.parts)

    @property
    def metadata_json(self) -> str:
        return json.dumps(self.metadata, sort_keys=True)

    def split(self, max_bytes: int) -> list[Table]:
        """Tables of consecutive parts, each of at least one part, else of at most `max_bytes`."""
        groups: list[list[Part]] = []
        size = 0
        for part in self.parts:
            if not groups or size + part.nbytes > max_bytes:
                groups.append([])
                size = 0
            groups[-1].append(part)
            size += part.nbytes
        return [Table(self.metadata, self.layout, group) for group in groups]

    def ids(self) -> Iterator[list[str]]:
        for part in self.parts:
            yield part.ids_and_lengths()[0]

    def arrays(self) -> Iterator[Array]:
        """Everything but the ids and the metadata."""
        int64 = np.dtype(np.int64)
        yield Array("lengths", int64, (self.records,), self._lengths())
        if any(column.per_token for column in self.layout.columns):
            yield Array("offsets", int64, (self.records + 1,), self._offsets())
        for column in self.layout.columns:
            yield self._column(column)

    def _lengths(self) -> Iterator[np.ndarray]:
        for part in self.parts:
            yield np.array(part.ids_and_lengths()[1], dtype=np.int64)

    def _offsets(self) -> Iterator[np.ndarray]:
        end = np.zeros(1, dtype=np.int64)
        yield end
        for lengths in self._lengths():
            ends = end[-1] + np.cumsum(lengths)
            yield ends
            end = ends

    def _column(self, column: Column) -> Array:
        rows = self.layout.rows(column, self.records, self.nucleotides)
        blocks = (block for part in self.parts for block in part.blocks(column))
        return Array(column.name, self.layout.dtype, (rows, self.layout.hidden), blocks)
