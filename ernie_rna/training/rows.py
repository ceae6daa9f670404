"""Rows to train and evaluate on: sequences with the cells beside them, from files. No torch.

Every message names the file and the line; the header of a table is line 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ernie_rna.sequences.fasta import (
    FastaRecord,
    InputError,
    check_records,
    read_fasta,
    to_rna,
    uncompressed,
)
from ernie_rna.sequences.tables import find_form, read_rows
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.training.options import FinetuneOptions

_FASTA = (".fa", ".fasta", ".fna", ".ffn")
_STRUCTURES = (".ct", ".nopct", ".bpseq", ".dbn", ".db")
_LETTERS, _LEAST_SEQUENCE = frozenset("ACGTUN"), 10  # of what is no name of a column
_SHOWN = 8  # names in a message


@dataclass(frozen=True)
class Rows:
    """Rows of a file, all of them or those of a split.

    Attributes:
        name: the file, and the split if it is one, for messages.
        lines: the number of each row's line.
        cells: of each row, by column.
        sequence_column: in which the sequences are.
        decimal_comma: whether a comma in a number is a decimal point.
        labels: of each row, as a task reads them; empty until then.
    """

    name: str
    lines: tuple[int, ...]
    cells: tuple[dict[str, str], ...]
    sequence_column: str
    decimal_comma: bool = False
    labels: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def sequences(self) -> list[str]:
        return self.column(self.sequence_column, "--sequence-column")

    @property
    def folded(self) -> list[str]:
        """The sequences in one way of writing, to find those that are the same."""
        return [to_rna(sequence) for sequence in self.sequences]

    def take(self, places: Iterable[int], split: str) -> Rows:
        """Some of the rows."""
        kept = [*places]
        parts: dict[str, Any] = {
            name: tuple(values[place] for place in kept)
            for name, values in vars(self).items()
            if isinstance(values, tuple) and values
        }
        return replace(self, name=f"{self.name} ({split})", **parts)

    def column(self, column: str, option: str) -> list[str]:
        """The cells of a column.

        Args:
            option: that names it.

        Raises:
            InputError: there is no such column.
        """
        names = self.cells[0]
        if column in names:
            return [row[column] for row in self.cells]
        hint = f"{option} names the right one"
        if any(len(name) >= _LEAST_SEQUENCE and set(name.upper()) <= _LETTERS for name in names):
            hint = "its first line must be a header, with the names of the columns"
        elif [*names] == [self.sequence_column]:  # FASTA has no others.
            hint = "labels are read from a table (CSV or TSV); only --task masked-lm needs none"
        raise InputError(f"{self.name}: no column {column!r}; it has {', '.join(names)}: {hint}")

    def parse(self, column: str, parse: Callable[[str, bool], Any]) -> list[Any]:
        """The cells of a column of labels, each parsed; `parse` is told of a decimal comma.

        Raises:
            InputError: `parse` raised ValueError, whose message follows the line.
        """
        parsed = []
        for line, cell in zip(self.lines, self.column(column, "--label-column"), strict=True):
            try:
                parsed.append(parse(cell, self.decimal_comma))
            except ValueError as error:
                raise InputError.at(self.name, line, f"{column}: {error}") from error
        return parsed


def read_splits(train: str | Path, options: FinetuneOptions) -> dict[str, Rows]:
    """The rows of training, then those of each evaluation, by name.

    Raises:
        InputError: a file or split is not there or unfit, or two have one name.
        OSError: a file cannot be opened.
    """
    how = (options.sequence_column, options.unknown, options.degap)
    whole, column = read_file(train, *how), options.split_column
    splits = {"train": whole} if column is None else {}
    if column is not None:
        values = whole.column(column, "--split-column")
        named = (options.train_split, *options.eval_split)
        for value in named:
            places = [place for place, own in enumerate(values) if own == value]
            if not places:
                raise InputError(
                    f"{whole.name}: no row with {column}={value!r}; there are "
                    f"{some(sorted({*values}))}"
                )
            name = "train" if value == options.train_split else value
            add_split(splits, name, whole.take(places, value))
        others = [value for value in values if value not in named]
        if others:
            warnings.warn(
                f"{whole.name}: {len(others)} rows are in no split that is named: {column} is "
                f"{some(sorted({*others}))} there",
                stacklevel=2,
            )
    for path in map(Path, options.eval_file):
        add_split(splits, path.stem, read_file(path, *how))
    return splits


def add_split(splits: dict[str, Rows], name: str, rows: Rows) -> None:
    """Add rows by the name of their split; InputError if another one has it."""
    if name in splits:
        raise InputError(f"{rows.name}: another split is called {name!r}: rename this one")
    splits[name] = rows


def read_file(
    path: str | Path, sequence_column: str, unknown: str = "error", degap: bool = False
) -> Rows:
    """The rows of a table, a FASTA file or files of structures, the sequences checked.

    FASTA has the column `sequence_column` alone. A .ct, .bpseq, .dbn or .db file, or a folder of
    such files, has id, `sequence_column` and dot_bracket; a line is then the place of a structure.

    Raises:
        InputError: as `tables.read_rows` and `fasta.read_fasta`, or there is no row.
        StructureFormatError: a file of structures cannot be understood.
    """
    path = Path(path)
    suffix, comma = uncompressed(path).suffix.lower(), False
    found: Iterable[dict[str, str]]
    if path.is_dir() or suffix in _STRUCTURES:
        found = (
            {"id": one.id, sequence_column: one.sequence, "dot_bracket": one.dot_bracket}
            for one in read_structures(path)
        )
        table = [*enumerate(found, 1)]
    elif suffix in _FASTA:
        found = ({sequence_column: one.sequence} for one in read_fasta(path, unknown, degap))
        table = [*enumerate(found, 1)]
    else:
        form = find_form(path)
        comma, table = form.comma, [*read_rows(path, (), form)]
    if not table:
        raise InputError(f"{path}: no row after the header")
    lines, cells = zip(*table, strict=True)
    rows = Rows(str(path), lines, cells, sequence_column, comma)
    given = map(FastaRecord, map("line {}".format, lines), rows.sequences)
    for row, record in zip(cells, check_records(given, rows.name, unknown, degap), strict=True):
        row[sequence_column] = record.sequence
    return rows


def some(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name or "''" for name in names[:_SHOWN]) + more
