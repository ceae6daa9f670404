"""Lines of the structure files that other programs write."""

import csv
import re
from collections.abc import Iterator, Sequence

from ernie_rna.structures.formats.structure import FilePath, StructureFormatError

# What mfold, UNAfold and RNAstructure write before the name in the header of a .ct or .dbn file.
ENERGY_BEFORE_NAME = re.compile(r"^(ENERGY|dG)\s*=\s*\S+(\s+\[initially[^]]*\])?\s*", re.IGNORECASE)
_NAME = re.compile(r"^#?\s*(?:Name:\s*(\S.*)|Filename:\s*(\S.*?)(?:\.bpseq)?)$", re.IGNORECASE)


def numbered_lines(path: FilePath, comments: bool = False) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that are not blank, and not comments (#) unless asked for."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line, text in enumerate(file, 1):
            text = text.strip()
            if text and (comments or not text.startswith("#")):
                yield line, text


def table_rows(
    path: FilePath, needed: Sequence[str]
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Line number and cells by column of a table whose first line names its columns.

    Cells are separated by tabs and never quoted; those that a line lacks are None.

    Raises:
        StructureFormatError: a needed column is missing, or a cell is too long.
    """
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        table = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            columns = table.fieldnames or []
            absent = [name for name in needed if name not in columns]
            if absent:
                problem = f"no column {', '.join(absent)} among {list(columns)}"
                raise StructureFormatError(path, 1, problem)
            for row in table:
                yield table.line_num, row
        except csv.Error as error:  # a cell of more than 131,072 characters
            raise StructureFormatError(path, table.line_num + 1, str(error)) from error


def name_in_comment(text: str) -> str | None:
    """The name in a line ``#Name: name`` (bpRNA) or ``Filename: name.bpseq`` (CRW); None in others.

    >>> name_in_comment("Filename: d.5.b.E.coli.bpseq")
    'd.5.b.E.coli'
    """
    match = _NAME.match(text)
    return (match[1] or match[2]) if match else None


def parse_number(path: FilePath, line: int, text: str) -> float:
    """A number of a file of reactivities; nothing, and NA, are NaN."""
    try:
        return float("nan") if text.strip().upper() in ("NA", "") else float(text)
    except ValueError:
        raise StructureFormatError(
            path, line, f"{text[:40]!r} is no number; NaN or -999 stands for no data"
        ) from None
