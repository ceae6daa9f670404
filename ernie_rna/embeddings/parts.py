"""The vectors of one window of records, as its batches are computed.

`MemoryPart` holds them for a caller who takes them on the spot. `FilePart` keeps them in files
that outlive the process; of a window with the name STEM those are

STEM.partial    the vectors as far as they are computed, in their final places
STEM.journal    a line for each batch in it: its number and the crc32 of its vectors
STEM.json       ids and lengths of the records
STEM.values     all vectors, synced and renamed; from then on it is never written again

A batch counts once its line is in the journal and its bytes agree with the line, so neither a
kill nor a power failure leaves a wrong number. The columns lie one behind the other, without
padding, in the machine's byte order.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ernie_rna.embeddings.columns import Column, Layout
from ernie_rna.files.atomic import (
    open_unbuffered,
    read_all,
    sync_folder,
    write_all,
    write_atomically,
)
from ernie_rna.sequences.batches import Window
from ernie_rna.sequences.long import Piece

# Finished columns are read in blocks of about this size.
_BLOCK_BYTES = 1 << 24


# ---------------------------------------------------------------------------------------------
# Where the vectors of a window lie


@dataclass(frozen=True)
class WindowRows:
    """Where each batch of a window writes: for pooled columns a row a piece, in input order."""

    window: Window
    layout: Layout

    @cached_property
    def _token_start(self) -> list[int]:
        starts, start = [], 0
        for record in self.window.records:
            starts.append(start)
            start += len(record.sequence)
        return starts

    def shape(self, column: Column) -> tuple[int, int]:
        pieces, nucleotides = len(self.window.pieces), self.window.nucleotides
        return self.layout.rows(column, pieces, nucleotides), self.layout.hidden

    def regions(self, batch: int) -> Iterator[tuple[Column, int, int]]:
        """(column, first row, rows) of each array that the batch yields, in its order."""
        for column in self.layout.columns:
            for index in self.window.batches[batch]:
                piece = self.window.pieces[index]
                if column.per_token:
                    yield column, self._token_start[piece.record] + piece.own_start, piece.owned
                else:
                    yield column, index, 1


def merge_pieces(vectors: np.ndarray, pieces: Sequence[Piece]) -> np.ndarray:
    """(pieces, hidden) -> (records, hidden): means weighted by the nucleotides of each piece."""
    records = np.array([piece.record for piece in pieces])
    owned = np.array([piece.owned for piece in pieces])
    starts = np.flatnonzero(np.diff(records, prepend=-1))
    lengths = np.add.reduceat(owned, starts)
    weights = owned / np.repeat(lengths, np.diff(starts, append=len(pieces)))
    merged = np.add.reduceat(vectors * weights[:, None], starts)
    whole = np.diff(starts, append=len(pieces)) == 1
    merged[whole] = vectors[starts[whole]]
    return merged.astype(vectors.dtype)


class MemoryPart:
    """The vectors of a window in memory."""

    def __init__(self, rows: WindowRows):
        self._rows = rows
        layout = rows.layout
        self._arrays = {
            column.name: np.empty(rows.shape(column), layout.dtype) for column in layout.columns
        }

    def write(self, batch: int, arrays: Iterable[np.ndarray]) -> None:
        """Take in what a batch yields: an array (rows, hidden) for each of its regions."""
        regions = self._rows.regions(batch)
        for (column, row, count), array in zip(regions, arrays, strict=True):
            self._arrays[column.name][row : row + count] = array

    def finish(self) -> dict[str, np.ndarray]:
        """The columns: (records, hidden), or (nucleotides, hidden) for token."""
        window = self._rows.window
        if len(window.pieces) > len(window.records):
            for column in self._rows.layout.columns:
                if not column.per_token:
                    pooled = self._arrays[column.name]
                    self._arrays[column.name] = merge_pieces(pooled, window.pieces)
        return self._arrays


class FilePart:
    """The vectors of a window in a file that outlives the process.

    Attributes:
        done: batches that are in the file.
    """

    def __init__(self, rows: WindowRows, stem: Path):
        """Open the files `stem`.partial and `stem`.journal, or create them."""
        self._rows, self._stem = rows, stem
        pieces, nucleotides = len(rows.window.pieces), rows.window.nucleotides
        self._offsets, size = column_offsets(rows.layout, pieces, nucleotides)
        self._values = open_unbuffered(stem.with_suffix(".partial"), size)
        self.done = self._check_journal()
        self._journal = open_unbuffered(stem.with_suffix(".journal"), 0)
        for batch, crc in self.done.items():
            write_all(self._journal, _journal_line(batch, crc))

    def close(self) -> None:
        self._values.close()
        self._journal.close()

    def write(self, batch: int, arrays: Iterable[np.ndarray]) -> None:
        """Take in what a batch yields: an array (rows, hidden) for each of its regions."""
        crc = 0
        for (column, row, count), array in zip(self._rows.regions(batch), arrays, strict=True):
            if array.shape != (count, self._rows.layout.hidden):
                raise ValueError(f"{array.shape} vectors for {count} rows of {column.name}")
            data = np.ascontiguousarray(array, self._rows.layout.dtype).data.cast("B")
            crc = zlib.crc32(data, crc)
            self._values.seek(self._offset(column, row))
            write_all(self._values, data)
        write_all(self._journal, _journal_line(batch, crc))
        self.done[batch] = crc

    def finish(self) -> None:
        """Turn the complete file into the window's part."""
        window = self._rows.window
        ids = {
            "ids": [record.id for record in window.records],
            "lengths": [len(record.sequence) for record in window.records],
        }
        write_atomically(self._stem.with_suffix(".json"), json.dumps(ids).encode())
        partial = complete = self._stem.with_suffix(".partial")
        if len(window.pieces) > len(window.records):
            complete = self._merge()
        else:
            os.fsync(self._values.fileno())
        self.close()
        os.replace(complete, self._stem.with_suffix(".values"))
        sync_folder(self._stem.parent)
        partial.unlink(missing_ok=True)
        self._stem.with_suffix(".journal").unlink()

    def _merge(self) -> Path:
        """Write a file with a pooled vector for each record in place of each piece."""
        window, layout = self._rows.window, self._rows.layout
        offsets, size = column_offsets(layout, len(window.records), window.nucleotides)
        path = self._stem.with_suffix(".merged")
        with open_unbuffered(path, size) as merged:
            for column in layout.columns:
                merged.seek(offsets[column])
                blocks = self._blocks(column)
                if not column.per_token:
                    blocks = iter([merge_pieces(np.concatenate(list(blocks)), window.pieces)])
                for block in blocks:
                    write_all(merged, np.ascontiguousarray(block).data.cast("B"))
            os.fsync(merged.fileno())
        return path

    def _blocks(self, column: Column) -> Iterator[np.ndarray]:
        rows, _ = self._rows.shape(column)
        start = self._offsets[column]
        return read_blocks(self._stem.with_suffix(".partial"), start, rows, self._rows.layout)

    def _offset(self, column: Column, row: int) -> int:
        return self._offsets[column] + row * self._rows.layout.row_bytes

    def _check_journal(self) -> dict[int, int]:
        """The crc32 of each batch that the journal names and the file holds."""
        journal = self._stem.with_suffix(".journal")
        done = {}
        for line in journal.read_bytes().splitlines() if journal.exists() else ():
            batch, _, crc = line.partition(b" ")
            with contextlib.suppress(ValueError):  # The last line may have been cut off.
                number, expected = int(batch), int(crc, 16)
                known = 0 <= number < len(self._rows.window.batches)
                if known and len(crc) == 8 and self._crc(number) == expected:
                    done[number] = expected
        return done

    def _crc(self, batch: int) -> int:
        crc = 0
        for column, row, count in self._rows.regions(batch):
            self._values.seek(self._offset(column, row))
            crc = zlib.crc32(read_all(self._values, count * self._rows.layout.row_bytes), crc)
        return crc


def _journal_line(batch: int, crc: int) -> bytes:
    return f"{batch} {crc:08x}\n".encode()


def column_offsets(
    layout: Layout, sequences: int, nucleotides: int
) -> tuple[dict[Column, int], int]:
    """Where each column begins in a part, and the size of it all, in bytes."""
    offsets, end = {}, 0
    for column in layout.columns:
        offsets[column] = end
        end += layout.rows(column, sequences, nucleotides) * layout.row_bytes
    return offsets, end


def read_blocks(path: Path, start: int, rows: int, layout: Layout) -> Iterator[np.ndarray]:
    """The rows of a column that begins at byte `start`, in blocks (some rows, hidden)."""
    at_once = max(1, _BLOCK_BYTES // layout.row_bytes)
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        for first in range(0, rows, at_once):
            count = min(at_once, rows - first)
            data = read_all(file, count * layout.row_bytes)
            yield np.frombuffer(data, layout.dtype).reshape(count, layout.hidden)
