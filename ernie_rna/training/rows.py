"""Rows to train and evaluate on: sequences with the cells beside them, from files. No torch.

Every message names the file and the line; the header of a table is line 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ernie_rna.sequences.fasta import FastaRecord, InputError, check_records, read_fasta
from ernie_rna.sequences.tables import find_separator, read_rows
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.training.options import FinetuneOptions

_FASTA = (".fa", ".fasta", ".fna", ".ffn")
_STRUCTURES = (".ct", ".nopct", ".bpseq", ".dbn", ".db")
_COMPRESSED = (".gz", ".bz2", ".xz")
_SHOWN = 8  # names in a message

Label = TypeVar("Label")


@dataclass(frozen=True)
class Rows:
    """Rows of a file, all of them or those of a split.

    Attributes:
        name: the file, and the split if it is one, for messages.
        lines: the number of each row's line.
        cells: of each row, by column.
        decimal_comma: whether a comma in a number is a decimal point.
        labelled: whether the file can hold labels; FASTA cannot.
        sequence_column: in which the sequences are.
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

    def take(self, places: Iterable[int], split: str) -> Rows:
        """Some of the rows."""
        own = sorted(places)
        return replace(
            self,
            name=f"{self.name} ({split})",
            lines=tuple(self.lines[place] for place in own),
            cells=tuple(self.cells[place] for place in own),
        )

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
        raise InputError(
            f"{self.name}: no column {column!r}; it has {', '.join(self.cells[0])}: {option} names "
            "the right one"
        )

    def parse(self, column: str, parse: Callable[[str], Label]) -> list[Label]:
        """The cells of a column of labels, each parsed.

        Raises:
            InputError: `parse` raised ValueError, whose message follows the line.
        """
        parsed = []
        for line, cell in zip(self.lines, self.column(column, "--label-column"), strict=True):
            try:
                parsed.append(parse(cell))
            except ValueError as error:
                raise InputError(f"{self.name}: line {line}: {column}: {error}") from error
        return parsed


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
        names = {"train": options.train_split, **{value: value for value in options.eval_split}}
        values = whole.column(column, "--split-column")
        splits = {name: _split(whole, values, column, value) for name, value in names.items()}
    for path in map(Path, options.eval_file):
        if path.stem in splits:
            raise InputError(f"{path}: another split is called {path.stem!r}: rename the file")
        splits[path.stem] = read_file(path, options.sequence_column, options.unknown, options.degap)
    return splits


def _split(rows: Rows, values: Sequence[str], column: str, value: str) -> Rows:
    places = [place for place, own in enumerate(values) if own == value]
    if not places:
        raise InputError(
            f"{rows.name}: no row with {column}={value!r}; there are {some(sorted({*values}))}"
        )
    return rows.take(places, value)


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
    rows = _read(path, sequence_column, unknown, degap)
    lines = (f"line {line}" for line in rows.lines)
    records = map(FastaRecord, lines, rows.sequences)
    checked = check_records(records, rows.name, unknown, degap)
    cells = (
        {**cells, sequence_column: record.sequence}
        for cells, record in zip(rows.cells, checked, strict=True)
    )
    return replace(rows, cells=tuple(cells))


def _read(path: Path, sequence_column: str, unknown: str, degap: bool) -> Rows:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _COMPRESSED]
    suffix = suffixes[-1] if suffixes else ""
    comma = False
    if path.is_dir() or suffix in _STRUCTURES:
        known = read_structures(path)
        found = [
            {"id": one.id, sequence_column: one.sequence, "dot_bracket": one.dot_bracket}
            for one in known
        ]
    elif suffix in _FASTA:
        found = [{sequence_column: record.sequence} for record in read_fasta(path, unknown, degap)]
    else:
        comma = find_separator(path) == ";"
        table = list(read_rows(path))
        if not table:
            raise InputError(f"{path}: no row behind the header")
        lines, cells = zip(*table, strict=True)
        return Rows(str(path), lines, cells, sequence_column, decimal_comma=comma)
    numbers = tuple(range(1, len(found) + 1))
    labelled = suffix not in _FASTA
    return Rows(str(path), numbers, tuple(found), sequence_column, labelled=labelled)


def some(names: Sequence[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name or "''" for name in names[:_SHOWN]) + more
