"""The .ct and .bpseq files of secondary structures: a row for each base, with the partner's number.

The files count bases from 1 and write 0 for "unpaired"; in memory positions count from 0.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ernie_rna.sequences.fasta import FilePath, InputError
from ernie_rna.structures.formats.lines import (
    ENERGY,
    name_in_comment,
    numbered_lines,
    read_header,
    uncompressed,
)
from ernie_rna.structures.formats.structure import Structure

_DIGITS = 18  # of a number in a file; no sequence has 10^18 bases
# The length, behind a word where Sfold writes it, and what follows.
_CT_HEADER = re.compile(rf"(?:Length:\s*)?([0-9]{{1,{_DIGITS}}})(?:\s+(.*))?$", re.IGNORECASE)


def format_ct(structure: Structure) -> str:
    r"""The .ct text of a structure, tab-separated as the authors' ``predict_ss_rna.py`` writes it.

    A header with length and id; then for each base its number, the base, the numbers before and
    after (0 at the ends), that of its partner (0: unpaired), and its number again.

    >>> print(format_ct(Structure("tiny", "GAAC", [(0, 3)])).replace("\t", " "), end="")
    4 tiny
    1 G 0 2 4 1
    2 A 1 3 0 2
    3 A 2 4 0 3
    4 C 3 0 1 4
    """
    length = len(structure.sequence)
    rows = [f"{length}\t{structure.header}\n"]
    bases = zip(structure.sequence, structure.partners, strict=True)
    for number, (base, partner) in enumerate(bases, 1):
        following = number + 1 if number < length else 0
        rows.append(f"{number}\t{base}\t{number - 1}\t{following}\t{partner}\t{number}\n")
    return "".join(rows)


def read_ct(path: FilePath) -> list[Structure]:
    """Read the structures of a .ct file; the inverse of :func:`format_ct`.

    Fields may be separated by any white space and rows may have more than six. A header is the
    length and the id, with an energy between them or not; a structure without an id is called after
    the file, and so is the only one of a file that RNAfold has given an energy and a number.
    Comments (``#``) and the lines ``Filename:``, ``Organism:`` and so on of the Comparative RNA Web
    are passed over.

    Raises:
        InputError: there is no structure, or one has no header, or fewer or more rows than it says;
            a row's number is out of turn; a partner does not exist or does not point back.
    """
    blocks = list(_ct_blocks(path))
    if not blocks:
        raise InputError.at(path, 1, "no structure in this file")
    structures = []
    for header, rows in blocks:
        line = rows[-1].line if rows else header[-1][0]
        first = rows[0].line if rows else header[0][0]
        found = next(filter(None, (_CT_HEADER.match(text) for _, text in reversed(header))), None)
        if found is None:
            problem = "expected a header with the number of bases and a name"
            raise InputError.at(path, first, problem)
        if len(rows) != int(found[1]):
            problem = f"the header says {int(found[1])} bases; the rows end here, after {len(rows)}"
            raise InputError.at(path, line, problem)
        rest = found[2] or ""
        id, description = read_header(path, rest)
        if id.isdecimal() and len(blocks) == 1 and ENERGY.match(rest):
            id = uncompressed(path).stem
        structures.append(_from_rows(path, id, rows, description))
    return structures


class _BaseRow(NamedTuple):
    """One base of a .ct or .bpseq file, with the numbers as in the file."""

    line: int
    number: int
    base: str
    partner: int


def _base_row(line: int, text: str, columns: int, partner: int) -> _BaseRow | None:
    """A line with at least so many columns, numbers all but the second; None for another."""
    fields = text.split()
    numbers = [*fields[:1], *fields[2:columns]]
    # Python turns down numbers of 4301 digits.
    if len(fields) < columns or not all(n.isdecimal() and len(n) <= _DIGITS for n in numbers):
        return None
    return _BaseRow(line, int(fields[0]), fields[1], int(fields[partner]))


def _ct_blocks(path: FilePath) -> Iterator[tuple[list[tuple[int, str]], list[_BaseRow]]]:
    """The lines of each structure in a .ct file: those before its rows, and its rows."""
    header: list[tuple[int, str]] = []
    rows: list[_BaseRow] = []
    for line, text in numbered_lines(path):
        row = _base_row(line, text, columns=6, partner=4)
        if rows and (row is None or row.number == 1):
            yield header, rows
            header, rows = [], []
        if row is None:
            header.append((line, text))
        else:
            rows.append(row)
    if header or rows:
        yield header, rows


def format_bpseq(structure: Structure) -> str:
    """The .bpseq text of a structure: each base's number, the base, and its partner or 0.

    >>> print(format_bpseq(Structure("tiny", "GAAC", [(0, 3)])), end="")
    #Name: tiny
    1 G 4
    2 A 0
    3 A 0
    4 C 1
    """
    rows = enumerate(zip(structure.sequence, structure.partners, strict=True), 1)
    return f"#Name: {structure.header}\n" + "".join(
        f"{n} {base} {partner}\n" for n, (base, partner) in rows
    )


def read_bpseq(path: FilePath) -> list[Structure]:
    """Read the structure of a .bpseq file; the inverse of :func:`format_bpseq`.

    Lines before the first row may be comments (``#``) or the ``Filename:``, ``Organism:`` … of the
    Comparative RNA Web. The id is that of ``#Name:`` or ``Filename:``, or else the file's name.

    Returns:
        A list of one structure, for symmetry with the other readers.

    Raises:
        InputError: a row is not "number base partner" or its number is out of turn; a partner does
            not exist or does not point back; or there are no rows.
    """
    name = ""
    rows: list[_BaseRow] = []
    line = 1
    for line, text in numbered_lines(path, comments=True):
        row = _base_row(line, text, columns=3, partner=2)
        if row is not None and len(text.split()) == 3:
            rows.append(row)
        elif rows and not text.startswith("#"):
            raise InputError.at(path, line, f"expected 'number base partner', got {text!r}")
        else:
            name = name_in_comment(text) or name
    if not rows:
        raise InputError.at(path, line, "no row 'number base partner' in this file")
    id, description = read_header(path, name)
    return [_from_rows(path, id, rows, description)]


def _from_rows(path: FilePath, id: str, rows: list[_BaseRow], description: str) -> Structure:
    for expected, row in enumerate(rows, 1):
        problem = _problem(rows, expected, row)
        if problem is not None:
            raise InputError.at(path, row.line, problem)
    pairs = [(row.number - 1, row.partner - 1) for row in rows if row.partner > row.number]
    return Structure(id, "".join(row.base for row in rows), pairs, description)


def _problem(rows: list[_BaseRow], expected: int, row: _BaseRow) -> str | None:
    if row.number != expected:
        return f"base {row.number} where {expected} was expected"
    if len(row.base) != 1:
        return f"a base is one letter, not {row.base!r}"
    if row.partner == row.number or row.partner > len(rows):
        return f"base {row.number} of {len(rows)} cannot pair with {row.partner}"
    back = rows[row.partner - 1].partner
    if row.partner and back != row.number:
        return f"base {row.number} pairs with {row.partner}, which pairs with {back}"
    return None
