"""Reads tables: CSV and TSV as programs and spreadsheets write them, a dictionary for each row.

The only reader of tables in this package. The first line names the columns; `find_form` says what
may separate them. Cells may be quoted as in CSV. Text is UTF-8 or UTF-16, compressed or not, see
`fasta.read_lines`. Blanks around cells are removed, and rows with only empty cells are ignored.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from os import fspath
from pathlib import Path
from typing import NamedTuple

from ernie_rna.sequences.fasta import FilePath, InputError, is_stream, read_lines

_TAB, _BLANK = "\t", " "
TABLES = {".tsv": _TAB, ".csv": ","}  # the separator that is written, by extension
csv.field_size_limit(2**31 - 1)  # letters of a cell, which may hold a genome
_SHOWN = 20  # most names in a message
_LOOK = 1 << 16  # letters of a line that are examined for its separator
# The line that tells Excel the separator of a table.
_DIRECTIVE = re.compile(r'"?sep=([^\w"])"?$', re.IGNORECASE)
_reader = partial(csv.reader, skipinitialspace=True)
_WITH_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+(e[-+]?[0-9]+)?", re.IGNORECASE)


class Form(NamedTuple):
    """How a table is written: the separator of its cells, and whether decimals have a comma."""

    separator: str
    comma: bool = False


def read_rows(
    path: FilePath, required: Sequence[str] = (), form: Form | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a table, in order.

    Args:
        required: columns that it must have.
        form: None takes what `find_form` returns.

    Yields:
        The number of the row's first line, the header being line 1, and its cells by column.
        Columns without a name are left out. If the first row has one cell more than the header, as
        R writes row names, the first cell of each row is left out, with a warning.

    Raises:
        InputError: there is no header; a column name occurs twice; a required column is missing;
            quotation marks do not match; a row has more or fewer cells than the header; or
            `fasta.read_lines` refuses the text.
        OSError: the file cannot be opened.
    """
    rows = _parse(path, (form or find_form(path)).separator)
    line, names = next(rows, (1, []))
    duplicates = [name for name, count in Counter(names).items() if name and count > 1]
    missing = [name for name in required if name not in names]
    if not names:
        raise InputError(f"{fspath(path)}: it is empty; its first line must name the columns")
    if duplicates:
        raise InputError.at(path, line, f"two columns are called {duplicates[0]!r}")
    if missing:
        columns = ", ".join(filter(None, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")
        raise InputError.at(path, line, f"no column {', '.join(missing)}; it has {columns}")
    for index, (line, cells) in enumerate(rows):
        # An extra separator at the end of a row leaves an empty last cell.
        if index == 0 and len(cells) == len(names) + 1 and cells[-1]:
            names = ["", *names]
            warnings.warn(
                f"{fspath(path)}: its rows have one cell more than its header, as if R wrote row "
                "names: the first cell of each row is ignored",
                stacklevel=1,
            )
        if len(cells) != len(names):
            raise InputError.at(path, line, f"{len(cells)} cells, but the header has {len(names)}")
        yield line, {name: cell for name, cell in zip(names, cells, strict=True) if name}


def find_form(path: FilePath) -> Form:
    """Detect how a table is written.

    The separator is what a first line such as ``sep=;`` says. Otherwise it is the tab, if the
    header has one outside quotation marks; else the comma, semicolon or bar that makes the most
    columns; else blanks, if the next row has as many columns or more. Semicolons cause a warning;
    if a cell between them is a number with a comma, commas are the decimal points of the table.

    Raises:
        InputError: the path is a pipe, which can be read only once; or as for `read_rows`.
    """
    if is_stream(path):
        raise InputError(f"{fspath(path)}: a table cannot be read from a pipe: write it to a file")
    lines = (line.strip(_BLANK) for _, line in read_lines(path))
    first, second = [*islice(filter(str.strip, lines), 2), "", ""][:2]

    def columns(separator: str, line: str = first) -> int:
        return len(next(_reader([line[:_LOOK]], delimiter=separator), []))

    directive = _DIRECTIVE.match(first)
    separator = max(",;|", key=columns)
    if directive:
        separator = directive[1]
    elif columns(_TAB) > 1:
        separator = _TAB
    elif columns(separator) == 1 and 1 < columns(_BLANK) <= columns(_BLANK, second):
        separator = _BLANK
    if separator != ";":
        return Form(separator)
    words = (word for _, row in _parse(path, ";") for cell in row for word in cell.split())
    comma = any(map(_WITH_COMMA.fullmatch, words))
    what = ", and a comma in a number is read as a decimal point" if comma else ""
    warnings.warn(f"{fspath(path)}: semicolons separate its columns{what}", stacklevel=1)
    return Form(separator, comma)


def parse_decimal(text: str, comma: bool = False) -> float:
    """Return the number that a cell of a table contains.

    Args:
        comma: whether a comma is the decimal point. If so, a point is an error: 1.000,5.

    Raises:
        ValueError: the text is not a number.

    >>> parse_decimal("4,29", comma=True), parse_decimal("4.29")
    (4.29, 4.29)
    """
    try:
        if "_" in text or (comma and "." in text):  # Python would read 1_000 as a number.
            raise ValueError
        return float(text.replace(",", ".") if comma else text)
    except ValueError:
        what = "a number with a decimal comma, as others here are" if comma else "a number"
        raise ValueError(f"{text[:40]!r} is not {what}") from None


def format_row(*cells: object) -> str:
    r"""Return a line of a table with tabs, quoting cells if necessary; the inverse of `read_rows`.

    >>> format_row("rna7", 5, '5" end')
    'rna7\t5\t"5"" end"\n'
    """
    text = io.StringIO()
    csv.writer(text, delimiter=_TAB, lineterminator="\n").writerow(cells)
    return text.getvalue()


def as_named(path: FilePath, lines: str) -> str:
    r"""Convert lines of `format_row` to the format of a file's extension: commas for .csv.

    >>> as_named("rnas.csv", "rna7\t5,1\n"), as_named("rnas.tsv", "rna7\t5,1\n")
    ('rna7,"5,1"\n', 'rna7\t5,1\n')
    """
    if Path(path).suffix.lower() != ".csv":
        return lines
    text = io.StringIO()
    rows = csv.reader(io.StringIO(lines, newline=""), delimiter=_TAB)
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _parse(path: FilePath, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each row's first line, and its cells; without rows of empty cells."""
    lines = (
        "\n" if number == 1 and _DIRECTIVE.match(line) else f"{line.strip(_BLANK)}\n"
        for number, line in read_lines(path)
    )
    reader = _reader(lines, delimiter=separator, strict=True)
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        problem = f"a quotation mark without its counterpart? ({error})"
        raise InputError.at(path, line, problem) from error
