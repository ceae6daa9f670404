"""Reads tables: CSV and TSV as programs and spreadsheets write them, a dictionary for each row.

The only reader of tables in this package. The first line names the columns. They are separated by
tabs, commas or semicolons, whichever the first line has, and cells may be quoted as in CSV. Text
is UTF-8, with a byte order mark or without; gzip, bzip2 and xz are read as they are. Blanks around
cells, and rows of which all cells are empty, are left out.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from os import fspath

from ernie_rna.sequences.fasta import FilePath, InputError, read_lines

_TAB = "\t"
_SHOWN = 20  # names in a message


def read_rows(
    path: FilePath, required: Sequence[str] = (), separator: str | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table, in order.

    Args:
        path: a file, compressed or not.
        required: columns that it must have.
        separator: between cells; None takes what `find_separator` finds, and warns of semicolons,
            with which `parse_decimal` takes a comma for a decimal point.

    Yields:
        The number of the row's first line, the header being line 1, and its cells by column;
        those of columns without a name are left out.

    Raises:
        InputError: there is no header, or a name or a required column is missing or there twice;
            quotation marks do not match; a row has more or fewer cells than the header; or
            `fasta.read_lines` refuses the text.
        OSError: the file cannot be opened.
    """
    if separator is None:
        separator = find_separator(path)
        if separator == ";":
            warnings.warn(
                f"{fspath(path)}: semicolons separate its columns, so a comma in a number is read "
                "as a decimal point",
                stacklevel=2,
            )
    rows = _parse(path, separator)
    line, names = next(rows, (1, []))
    _check_header(path, line, names, required)
    for line, cells in rows:
        if len(cells) != len(names):
            raise InputError.at(path, line, f"{len(cells)} cells, and the header has {len(names)}")
        yield line, {name: cell for name, cell in zip(names, cells, strict=True) if name}


def find_separator(path: FilePath) -> str:
    r"""What separates the cells of a table: a tab, a comma or a semicolon, by its first line.

    That is a tab where there is one outside of quotation marks, else what makes more columns.
    """
    first = next((line for _, line in read_lines(path, fspath(path)) if line.strip()), "")

    def columns(separator: str) -> int:
        return len(next(csv.reader([first], delimiter=separator)))

    return _TAB if columns(_TAB) > 1 else max(",;", key=columns)


def parse_decimal(text: str, comma: bool = False) -> float:
    """A number as a table has it.

    Args:
        comma: whether a comma may be the decimal point, as where semicolons separate the cells.

    Raises:
        ValueError: it is no number.

    >>> parse_decimal("4,29", comma=True), parse_decimal("4.29", comma=True)
    (4.29, 4.29)
    """
    plain = text.replace(",", ".") if comma and "." not in text else text
    try:
        if "_" in plain:  # Python's own form of 1_000
            raise ValueError
        return float(plain)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a number") from None


def format_row(*cells: object) -> str:
    r"""A line of a table with tabs, its cells quoted where need be; the inverse of `read_rows`.

    >>> format_row("rna7", 5, '5" end')
    'rna7\t5\t"5"" end"\n'
    """
    text = io.StringIO()
    csv.writer(text, delimiter=_TAB, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _parse(path: FilePath, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that have a cell with something in it, each with the number of its first line."""
    lines = (f"{line}\n" for _, line in read_lines(path, fspath(path)))
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"a quotation mark without its counterpart? ({error})"
            raise InputError.at(path, line, problem) from error
        if any(cells):
            yield line, cells


def _check_header(path: FilePath, line: int, names: list[str], required: Sequence[str]) -> None:
    if not names:
        raise InputError(f"{fspath(path)}: it is empty; its first line must name the columns")
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise InputError.at(path, line, f"two columns are called {twice[0]!r}")
    missing = [name for name in required if name not in names]
    if missing:
        shown = [name for name in names[:_SHOWN] if name] + ["…"] * (len(names) > _SHOWN)
        raise InputError.at(
            path, line, f"no column {', '.join(missing)}; it has {', '.join(shown)}"
        )
