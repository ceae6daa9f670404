"""Reads sequences with labels from CSV and TSV, checked before any work begins.

Every message names the file and the line; the header is line 1.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ernie_rna.sequences.fasta import FastaRecord, InputError, check_records, read_fasta
from ernie_rna.structures.formats.by_extension import read_structures

_FASTA = (".fa", ".fasta", ".fna", ".ffn")
_STRUCTURES = (".ct", ".nopct", ".bpseq", ".dbn", ".db")
_COMPRESSED = (".gz", ".bz2", ".xz")
_SHOWN = 8  # names in a message

Label = TypeVar("Label")


@dataclass(frozen=True)
class Row:
    """One line of a table: its number and its cells by column."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """Rows of a file, all of them or those of a split.

    Attributes:
        name: the file, and the split if it is one, for messages.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def column(self, column: str) -> list[str]:
        """The cells of a column.

        Raises:
            InputError: there is no such column.
        """
        if column not in self.columns:
            raise InputError(f"{self.name}: no column {column!r}; it has {', '.join(self.columns)}")
        return [row.cells[column] for row in self.rows]

    def split(self, column: str, value: str) -> Table:
        """The rows with this value in a column.

        Raises:
            InputError: there is no such column, or no such row.
        """
        values = self.column(column)
        rows = tuple(row for row, own in zip(self.rows, values, strict=True) if own == value)
        if not rows:
            raise InputError(
                f"{self.name}: no row with {column}={value!r}; there are {_some(sorted({*values}))}"
            )
        return Table(f"{self.name} ({value})", self.columns, rows)

    def sequences(self, column: str, unknown: str = "error") -> list[str]:
        """The sequences, checked as `fasta.read_fasta` does."""
        lines = (str(row.line) for row in self.rows)
        records = map(FastaRecord, (f"line {line}" for line in lines), self.column(column))
        return [record.sequence for record in check_records(records, self.name, unknown)]

    def parse(self, column: str, parse: Callable[[str], Label]) -> list[Label]:
        """The cells of a column, each parsed.

        Raises:
            InputError: `parse` raised ValueError, whose message follows the line.
        """
        parsed = []
        for row, cell in zip(self.rows, self.column(column), strict=True):
            try:
                parsed.append(parse(cell))
            except ValueError as error:
                raise InputError(f"{self.name}: line {row.line}: {column}: {error}") from error
        return parsed


def read_table(path: str | Path) -> Table:
    """Read a file with a header; tabs divide a .tsv, commas a .csv, else what the header has.

    Raises:
        InputError: it is empty, not text, or a line has more or fewer cells than the header.
        OSError: it cannot be opened.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _read(path, file.readline(), file)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8 ({error})") from error
    except csv.Error as error:
        raise InputError(f"{path}: {error}") from error


def _read(path: Path, header: str, file) -> Table:
    found = "\t" if "\t" in header else ","
    delimiter = {".tsv": "\t", ".csv": ","}.get(path.suffix.lower(), found)
    columns = next(csv.reader([header], delimiter=delimiter), [])
    if not any(columns):
        raise InputError(f"{path}: empty, or without a header in its first line")
    repeated = sorted(column for column, count in Counter(columns).items() if count > 1)
    if repeated:
        raise InputError(f"{path}: two columns are called {repeated[0]!r}")
    rows = []
    reader = csv.reader(file, delimiter=delimiter)
    for cells in reader:
        line = reader.line_num + 1
        if not cells:
            continue
        if len(cells) != len(columns):
            raise InputError(
                f"{path}: line {line} has {len(cells)} cells, the header {len(columns)}"
            )
        rows.append(Row(line, dict(zip(columns, map(str.strip, cells), strict=True))))
    if not rows:
        raise InputError(f"{path}: no row behind the header")
    return Table(str(path), tuple(columns), tuple(rows))


def read_sequences(path: str | Path, sequence_column: str, unknown: str = "error") -> Table:
    """A table; a FASTA file as one with the column `sequence_column`; or files of structures.

    A .ct, .bpseq, .dbn or .db file, or a folder of such files, gives the columns id,
    `sequence_column` and dot_bracket; a row's line is then its place among the structures.

    Raises:
        InputError: as `read_table` and `fasta.read_fasta`.
        StructureFormatError: a file of structures cannot be understood.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() in _STRUCTURES:
        return _structure_table(path, sequence_column)
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _COMPRESSED]
    if not suffixes or suffixes[-1] not in _FASTA:
        return read_table(path)
    records = enumerate(read_fasta(path, unknown), 1)
    rows = tuple(Row(number, {sequence_column: record.sequence}) for number, record in records)
    return Table(str(path), (sequence_column,), rows)


def _structure_table(path: Path, sequence_column: str) -> Table:
    columns = ("id", sequence_column, "dot_bracket")
    rows = tuple(
        Row(number, dict(zip(columns, (one.id, one.sequence, one.dot_bracket), strict=True)))
        for number, one in enumerate(read_structures(path), 1)
    )
    return Table(str(path), columns, rows)


# ---------------------------------------------------------------------------------------------
# Labels


def class_names(cells: Sequence[str]) -> list[str]:
    """The different labels, in order: numbers by value, other names by letters."""
    names = {cell for cell in cells if cell}
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)


def parse_class(names: Sequence[str]) -> Callable[[str], int]:
    """Parser of one label: its place among the names."""
    ids = {name: index for index, name in enumerate(names)}

    def parse(cell: str) -> int:
        if cell not in ids:
            raise ValueError(f"{_label(cell)} is none of the labels of training: {_some(names)}")
        return ids[cell]

    return parse


def split_labels(cell: str, separator: str) -> list[str]:
    """The labels of a cell that may hold several, or none."""
    return [label.strip() for label in cell.split(separator) if label.strip()]


def parse_classes(names: Sequence[str], separator: str) -> Callable[[str], list[float]]:
    """Parser of several labels: 1 for each of the names that is there, else 0."""
    parse_one = parse_class(names)

    def parse(cell: str) -> list[float]:
        held = {parse_one(label) for label in split_labels(cell, separator)}
        return [float(index in held) for index in range(len(names))]

    return parse


def parse_number(cell: str) -> float:
    """Parser of a finite number."""
    try:
        number = float(cell)
    except ValueError:
        raise ValueError(f"{_label(cell)} is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{cell!r} is not finite")
    return number


def split_bases(cell: str) -> list[str]:
    """The labels of the bases: words divided by blanks or commas, else a letter each."""
    words = cell.replace(",", " ").split()
    return words if len(words) > 1 else list(cell)


def base_names(cells: Sequence[str], ignored: str | None) -> list[str]:
    """As `class_names`, of the labels of all bases but the ignored one."""
    labels = {label for cell in cells for label in split_bases(cell)}
    return class_names(sorted(labels - {ignored}))


def parse_bases(
    names: Sequence[str], ignored: str | None, ignored_id: int
) -> Callable[[str], list[int]]:
    """Parser of a label for each base; `ignored` gives `ignored_id`."""
    parse_one = parse_class(names)

    def parse(cell: str) -> list[int]:
        labels = split_bases(cell)
        return [ignored_id if label == ignored else parse_one(label) for label in labels]

    return parse


def check_bases(table: Table, sequences: Sequence[str], labels: Sequence[Sized]) -> None:
    """Raise InputError unless every base has a label."""
    for row, sequence, own in zip(table.rows, sequences, labels, strict=True):
        if len(sequence) != len(own):
            raise InputError(
                f"{table.name}: line {row.line}: {len(own)} labels for {len(sequence)} bases"
            )


def check_lengths(table: Table, sequences: Sequence[str], longest: int) -> None:
    """Raise InputError if a sequence has more than `longest` nucleotides, saying how many do."""
    lengths = [len(sequence) for sequence in sequences]
    long = sum(length > longest for length in lengths)
    if long:
        worst = max(range(len(lengths)), key=lengths.__getitem__)
        raise InputError(
            f"{table.name}: {long} of {len(lengths)} sequences are longer than {longest} "
            f"nucleotides, the longest has {lengths[worst]} (line {table.rows[worst].line}); "
            "--truncate cuts them, --max-length moves the limit"
        )


def _label(cell: str) -> str:
    return repr(cell) if cell else "an empty cell"


def _some(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name or "''" for name in names[:_SHOWN]) + more
