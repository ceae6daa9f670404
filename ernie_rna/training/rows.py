"""Rows to train and evaluate on: sequences with the cells beside them, from files. No torch.

Every message names the file and the line; the header of a table is line 1.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

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
from ernie_rna.training.labels import some
from ernie_rna.training.options import FinetuneOptions

_FASTA = (".fa", ".fasta", ".fna", ".ffn")
_STRUCTURES = (".ct", ".nopct", ".bpseq", ".dbn", ".db")
_LETTERS, _LEAST_SEQUENCE = frozenset("ACGTUN"), 10  # of what is no name of a column

Label = TypeVar("Label")


@dataclass(frozen=True)
class Rows:
    """Rows of a file, all of them or those of a split.

    Attributes:
        name: the file, and the split if it is one, for messages.
        lines: the number of each row's line.
        cells: of each row, by column.
        sequence_column: in which the sequences are.
        decimal_comma: whether a comma in a number is a decimal point.
        labelled: whether the file can hold labels; FASTA cannot.
    """

    name: str
    lines: tuple[int, ...]
    cells: tuple[dict[str, str], ...]
    sequence_column: str
    decimal_comma: bool = False
    labelled: bool = True

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
        lines, cells = zip(*((self.lines[at], self.cells[at]) for at in places), strict=True)
        return replace(self, name=f"{self.name} ({split})", lines=lines, cells=cells)

    def column(self, column: str, option: str) -> list[str]:
        """The cells of a column.

        Args:
            option: that names it.

        Raises:
            InputError: there is no such column.
        """
        if column in self.cells[0]:
            return [row[column] for row in self.cells]
        if not self.labelled and option == "--label-column":
            raise InputError(
                f"{self.name}: FASTA has no labels: give a table (CSV or TSV) of sequences with "
                "their labels; only --task masked-lm needs none"
            )
        names = self.cells[0]
        hint = f"{option} names the right one"
        if any(len(name) >= _LEAST_SEQUENCE and set(name.upper()) <= _LETTERS for name in names):
            hint = "its first line must be a header, with the names of the columns"
        raise InputError(f"{self.name}: no column {column!r}; it has {', '.join(names)}: {hint}")

    def parse(self, column: str, parse: Callable[[str, bool], Label]) -> list[Label]:
        """The cells of a column of labels, each parsed; `parse` is told of a decimal comma.

        Raises:
            InputError: `parse` raised ValueError, whose message follows the line.
        """
        parsed = []
        for line, cell in zip(self.lines, self.column(column, "--label-column"), strict=True):
            try:
                parsed.append(parse(cell, self.decimal_comma))
            except ValueError as error:
                raise InputError(f"{self.name}: line {line}: {column}: {error}") from error
        return parsed

    def check_bases(self, labels: Sequence[Sized]) -> None:
        """Raise InputError unless every base has a label."""
        for line, sequence, own in zip(self.lines, self.sequences, labels, strict=True):
            if len(sequence) != len(own):
                raise InputError(
                    f"{self.name}: line {line}: {len(own)} labels for {len(sequence)} bases"
                )


def read_splits(train: str | Path, options: FinetuneOptions) -> dict[str, Rows]:
    """The rows of training, then those of each evaluation, by name.

    Raises:
        InputError: a file or split is not there or unfit, or two have one name.
        OSError: a file cannot be opened.
    """
    whole = read_file(train, options.sequence_column, options.unknown, options.degap)
    column = options.split_column
    splits = {"train": whole}
    if column is not None:
        values = whole.column(column, "--split-column")
        others = Counter(values)
        for value in (options.train_split, *options.eval_split):
            others.pop(value, None)
            places = [place for place, own in enumerate(values) if own == value]
            if not places:
                raise InputError(
                    f"{whole.name}: no row with {column}={value!r}; there are "
                    f"{some(sorted({*values}))}"
                )
            name = "train" if value == options.train_split else value
            if name in splits and value != options.train_split:
                raise InputError(f"{whole.name}: the rows to train on are called {name!r} as well")
            splits[name] = whole.take(places, value)
        if others:
            warnings.warn(
                f"{whole.name}: {others.total()} rows are in no split that is named: {column} is "
                f"{some(sorted(others))} there",
                stacklevel=2,
            )
    for path in map(Path, options.eval_file):
        if path.stem in splits:
            raise InputError(f"{path}: another split is called {path.stem!r}: rename the file")
        splits[path.stem] = read_file(path, options.sequence_column, options.unknown, options.degap)
    return splits


def read_file(
    path: str | Path,
    sequence_column: str,
    unknown: str = "error",
    degap: bool = False,
    keep_letters: bool = True,
) -> Rows:
    """The rows of a table, a FASTA file or files of structures, the sequences checked.

    FASTA has the column `sequence_column` alone. A .ct, .bpseq, .dbn or .db file, or a folder of
    such files, has id, `sequence_column` and dot_bracket; a line is then the place of a structure.

    Raises:
        InputError: as `tables.read_rows` and `fasta.read_fasta`, or there is no row.
        StructureFormatError: a file of structures cannot be understood.
    """
    path = Path(path)
    suffix = uncompressed(path).suffix.lower()
    fasta, comma = suffix in _FASTA, False
    if path.is_dir() or suffix in _STRUCTURES:
        known = read_structures(path)
        found = (
            {"id": one.id, sequence_column: one.sequence, "dot_bracket": one.dot_bracket}
            for one in known
        )
        table = [*enumerate(found, 1)]
    elif fasta:
        records = read_fasta(path, unknown, degap, keep_letters)
        table = [*enumerate(({sequence_column: record.sequence} for record in records), 1)]
    else:
        form = find_form(path)
        comma, table = form.comma, [*read_rows(path, (), form)]
        if not table:
            raise InputError(f"{path}: no row after the header")
    lines, cells = zip(*table, strict=True)
    rows = Rows(str(path), lines, cells, sequence_column, comma, labelled=not fasta)
    named = (f"line {line}" for line in rows.lines)
    given = map(FastaRecord, named, rows.sequences)
    checked = check_records(given, rows.name, unknown, degap, keep_letters)
    read = zip(cells, checked, strict=True)
    as_read = tuple({**one, sequence_column: record.sequence} for one, record in read)
    return replace(rows, cells=as_read)
