"""Rows to train and evaluate on, read from files: sequences and the other cells. No torch.

Every message names the file and the line; the header of a table is line 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ernie_rna.sequences.fasta import (
    FastaRecord,
    InputError,
    check_records,
    read_fasta,
    some,
    to_rna,
    uncompressed,
)
from ernie_rna.sequences.tables import find_form, read_rows
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.training.options import FinetuneOptions

_FASTA = (".fa", ".fasta", ".fna", ".ffn")
_STRUCTURES = (".ct", ".nopct", ".bpseq", ".dbn", ".db")
# In a first line, a cell of at least so many of these letters is a sequence, not a column's name.
_LETTERS, _LEAST_SEQUENCE = frozenset("ACGTUN"), 10
# What to do with sequences alone, by the option that needs a further column.
_WITHOUT_COLUMN = {
    "--label-column": "only --task masked-lm needs no labels",
    "--split": "--split random or similar needs none",
}
# Metrics have the name of a split, with one of these for what it is compared with.
_TITLES = (": guess", ": ViennaRNA", ": k-mers", ": mean", ": sd")


@dataclass(frozen=True)
class Rows:
    """Rows of a file, all of them or those of a split.

    Attributes:
        name: the file, with the split if these are its rows, for messages.
        lines: line number of each row.
        cells: cells of each row, by column.
        sequence_column: column with the sequences.
        decimal_comma: whether numbers have a decimal comma.
        labels: label of each row, as the task reads it; empty until it has.
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
        """The sequences in upper case with U for T, so that equal ones are written alike."""
        return [to_rna(sequence) for sequence in self.sequences]

    def cut(self, limit: int, cut_label: Callable[[Any, int], Any]) -> Rows:
        """The rows with sequences cut after `limit` nucleotides, and their labels by a function."""
        column = self.sequence_column
        cells = tuple({**row, column: row[column][:limit]} for row in self.cells)
        labels = tuple(cut_label(label, limit) for label in self.labels)
        return replace(self, cells=cells, labels=labels)

    def take(self, places: Iterable[int], split: str) -> Rows:
        """The rows at some places, counted from 0, as the rows of a split."""
        indices = [*places]
        selected: dict[str, Any] = {
            name: tuple(values[index] for index in indices)
            for name, values in vars(self).items()
            if isinstance(values, tuple) and values
        }
        return replace(self, name=f"{self.name} ({split})", **selected)

    def column(self, column: str, option: str) -> list[str]:
        """The cells of a column.

        Args:
            option: the option that names the column, for the message.

        Raises:
            InputError: there is no such column.
        """
        names = self.cells[0]
        if column in names:
            return [row[column] for row in self.cells]
        hint = f"{option} names the right one"
        if any(len(name) >= _LEAST_SEQUENCE and set(name.upper()) <= _LETTERS for name in names):
            hint = "its first line must be a header, with the names of the columns"
        elif [*names] == [self.sequence_column]:  # FASTA has no other column.
            way_out = _WITHOUT_COLUMN.get(option, "leave it out")
            hint = f"{option} needs a table (CSV or TSV) with more columns; {way_out}"
        raise InputError(f"{self.name}: no column {column!r}; it has {', '.join(names)}: {hint}")

    def parse(self, column: str, parse: Callable[[str, bool], Any]) -> list[Any]:
        """The cells of a column of labels, parsed; `parse` also takes whether commas are decimal.

        Raises:
            InputError: `parse` raised ValueError; the message has the line and that of `parse`.
        """
        parsed = []
        for line, cell in zip(self.lines, self.column(column, "--label-column"), strict=True):
            try:
                parsed.append(parse(cell, self.decimal_comma))
            except ValueError as error:
                raise InputError.at(self.name, line, f"{column}: {error}") from error
        return parsed


def read_splits(train: str | PathLike[str], options: FinetuneOptions) -> dict[str, Rows]:
    """The training rows as "train", then the rows of each evaluation split, by its name.

    Raises:
        InputError: a file or split is missing or invalid, or two splits have the same name.
        OSError: a file cannot be opened.
    """
    settings = (options.sequence_column, options.unknown, options.degap)
    rows, column = read_file(train, *settings), options.split_column
    splits = {"train": rows} if column is None else {}
    if column is not None:
        cells = rows.column(column, "--split-column")
        used = (options.train_split, *options.eval_split)
        for value in used:
            places = [place for place, cell in enumerate(cells) if cell == value]
            if not places:
                problem = f"no row with {column}={value!r}; its values are {some(sorted({*cells}))}"
                raise InputError(f"{rows.name}: {problem}")
            name = "train" if value == options.train_split else value
            add_split(splits, name, rows.take(places, value))
        unused = [cell for cell in cells if cell not in used]
        if unused:
            warnings.warn(
                f"{rows.name}: {len(unused)} rows are not used: their {column} is "
                f"{some(sorted({*unused}))}, which is neither --train-split nor --eval-split",
                stacklevel=2,
            )
    for path in options.eval_file:
        add_split(splits, Path(path).stem, read_file(path, *settings))
    return splits


def add_split(splits: dict[str, Rows], name: str, rows: Rows) -> None:
    """Add rows under the name of their split; InputError if it is that of others, or of metrics."""
    if name in splits:
        raise InputError(f"{rows.name}: another split is called {name!r}: rename this one")
    title = next((title for title in _TITLES if title in name), None)
    if title is not None:
        problem = f"the name of a split cannot have {title!r}, which names metrics: rename it"
        raise InputError(f"{rows.name}: {problem}")
    splits[name] = rows


def read_file(
    path: str | PathLike[str], sequence_column: str, unknown: str = "error", degap: bool = False
) -> Rows:
    """The rows of a table, a FASTA file or files of structures, their sequences checked.

    FASTA has only the column `sequence_column`. A .ct, .bpseq, .dbn or .db file, or a folder of
    such files, has id, `sequence_column` and dot_bracket. Lines are then record numbers, from 1.

    Raises:
        InputError: as `tables.read_rows` and `fasta.read_fasta`, or there is no row or no path.
        StructureFormatError: a file of structures cannot be parsed.
    """
    if not fspath(path):
        raise InputError("the name of the file to read is empty")
    path = Path(path)
    suffix, decimal_comma = uncompressed(path).suffix.lower(), False
    contents: Iterable[dict[str, str]]
    if path.is_dir() or suffix in _STRUCTURES:
        contents = (
            {"id": known.id, sequence_column: known.sequence, "dot_bracket": known.dot_bracket}
            for known in read_structures(path)
        )
        numbered = [*enumerate(contents, 1)]
    elif suffix in _FASTA:
        contents = ({sequence_column: rna.sequence} for rna in read_fasta(path, unknown, degap))
        numbered = [*enumerate(contents, 1)]
    else:
        form = find_form(path)
        decimal_comma, numbered = form.comma, [*read_rows(path, (), form)]
    if not numbered:
        raise InputError(f"{path}: no row after the header")
    lines, cells = zip(*numbered, strict=True)
    rows = Rows(str(path), lines, cells, sequence_column, decimal_comma)
    records = map(FastaRecord, map("line {}".format, lines), rows.sequences)
    for row, record in zip(cells, check_records(records, rows.name, unknown, degap), strict=True):
        row[sequence_column] = record.sequence
    return rows
