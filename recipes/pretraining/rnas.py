"""RNAs to pretrain on, from tables and FASTA files, checked as they are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.sequences.fasta import (
    FastaRecord,
    InputError,
    check_records,
    read_fasta,
    uncompressed,
)
from ernie_rna.sequences.tables import read_rows
from ernie_rna.structures.formats.dot_bracket import BasePair, from_dot_bracket

COLUMNS = ("id", "sequence", "dot_bracket", "family", "split")


@dataclass(frozen=True)
class Rna(FastaRecord):
    """A sequence, its structure and its family.

    Attributes:
        dot_bracket: empty where nothing is known.
        predicted: whether the structure was predicted from the sequence, rather than known from
            its relatives; then it is that of this sequence alone.
    """

    dot_bracket: str = ""
    family: str = ""
    predicted: bool = False

    @cached_property
    def pairs(self) -> list[BasePair]:
        """Counted from 0."""
        return from_dot_bracket(self.dot_bracket)


Read = Callable[[], Iterator[Rna]]  # begins to read


def is_table(path: Path) -> bool:
    """Whether a file is a table and not FASTA."""
    return uncompressed(path).suffix.lower() in (".tsv", ".csv", ".parquet")


def table_rows(path: Path, columns: Collection[str]) -> Iterator[Mapping[str, str]]:
    """The rows of a table, in Parquet or as `sequences.tables` reads it.

    Raises:
        InputError: a column is missing, or the table cannot be read.
        ImportError: pyarrow is not installed (Parquet).
    """
    if path.suffix.lower() != ".parquet":
        yield from (row for _, row in read_rows(path, tuple(columns)))
        return
    table = import_extra("pyarrow.parquet", "parquet", "Parquet").ParquetFile(path)
    found = table.schema_arrow.names
    missing = [column for column in columns if column not in found]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}; it has {', '.join(found)}")
    for batch in table.iter_batches(columns=list(columns)):
        for row in batch.to_pylist():
            yield {name: "" if cell is None else str(cell) for name, cell in row.items()}


def read_table(
    path: Path, split: str, leave_out: Collection[str] = (), predicted: bool = False
) -> Iterator[Rna]:
    """The rows of a split of a table with the columns id, sequence, dot_bracket, family and split.

    Args:
        leave_out: ids of rows to leave out.
        predicted: whether the structures were predicted from the sequences.

    Raises:
        InputError: a column is missing, there is no such row, or a row is unfit: its sequence as
            for FASTA, or its structure.
        ImportError: pyarrow is not installed (Parquet).
    """
    rnas = (
        Rna(row["id"], row["sequence"], "", row["dot_bracket"], row["family"], predicted)
        for row in table_rows(path, COLUMNS)
        if row["split"] == split and row["id"] not in leave_out
    )
    for rna in check_records(rnas, f"{path}, split {split!r}"):
        assert isinstance(rna, Rna)
        structure, length = rna.dot_bracket, len(rna.sequence)
        try:
            if structure and len(structure) != length:
                raise ValueError(f"{length} nucleotides and a structure of {len(structure)}")
            rna.pairs  # noqa: B018
        except ValueError as error:
            raise InputError(f"{path}: {rna.id}: {error}") from error
        yield rna


def read_rnas(path: Path, split: str, leave_out: Collection[str] = ()) -> Iterator[Rna]:
    """The rows of a split of a table, or all records of a FASTA file, whose structures are unknown.

    Args:
        leave_out: ids to leave out.

    Raises:
        InputError: as `read_table` and `read_fasta`.
    """
    if is_table(path):
        return read_table(path, split, leave_out)
    return (Rna(one.id, one.sequence) for one in read_fasta(path) if one.id not in leave_out)


def read_ids(path: Path | None) -> frozenset[str]:
    """The ids in a text file, between blanks or line ends; none without a file."""
    return frozenset() if path is None else frozenset(path.read_text(encoding="utf-8").split())


def with_pairs(rnas: Iterable[Rna], what: str, max_length: int | None = None) -> Iterator[Rna]:
    """Those that say something of pairs: that a family has no consensus structure does not.

    Args:
        what: the RNAs, in words, for the message.
        max_length: nucleotides; longer ones are left out as well.

    Raises:
        InputError: there are none.
    """
    found = False
    for rna in rnas:
        if rna.pairs and (max_length is None or len(rna.sequence) <= max_length):
            found = True
            yield rna
    if not found:
        limit = "" if max_length is None else f" and at most {max_length} nucleotides"
        raise InputError(f"{what}: no sequence has pairs{limit}")


def permute(rna: Rna, rate: float, generator: np.random.Generator) -> Rna:
    """The same structure with another sequence of the same composition.

    Of the pairs, and apart from them of the unpaired bases, the share `rate` is drawn, and those
    drawn change places; a pair also turns round half of the time.
    """
    bases = np.array(list(rna.sequence))
    pairs = np.array(rna.pairs, dtype=np.int64).reshape(-1, 2)
    drawn = pairs[generator.random(len(pairs)) < rate]
    turned = np.where(generator.random(len(drawn))[:, None] < 0.5, drawn[:, ::-1], drawn)
    new = bases.copy()
    new[drawn] = bases[generator.permutation(turned)]
    free = np.setdiff1d(np.arange(len(bases)), pairs)
    free = free[generator.random(len(free)) < rate]
    new[free] = bases[generator.permutation(free)]
    return replace(rna, sequence="".join(new))
