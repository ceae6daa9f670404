"""The .ct and .bpseq files of secondary structures: a row for each base, with the partner's number.

The files count bases from 1 and write 0 for "unpaired"; in memory positions count from 0.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ernie_rna.structures.formats.lines import ENERGY_BEFORE_NAME, name_in_comment, numbered_lines
from ernie_rna.structures.formats.structure import FilePath, Structure, StructureFormatError


def format_ct(structure: Structure) -> str:
    r"""The .ct text of a structure, tab-separated as the authors' ``predict_ss_rna.py`` writes it.

    A header with length and name; then for each base its number, the base, the numbers before and
    after (0 at the ends), that of its partner (0: unpaired), and its number again.

    >>> print(format_ct(Structure("tiny", "GAAC", [(0, 3)])).replace("\t", " "), end="")
    4 tiny
    1 G 0 2 4 1
    2 A 1 3 0 2
    3 A 2 4 0 3
    4 C 3 0 1 4
    """
    length = len(structure.sequence)
    rows = [f"{length}\t{structure.id}\n"]
    for number, (base, partner) in enumerate(
        zip(structure.sequence, structure.partners, strict=True), 1
    ):
        following = number + 1 if number < length else 0
        rows.append(f"{number}\t{base}\t{number - 1}\t{following}\t{partner}\t{number}\n")
    return "".join(rows)


def read_ct(path: FilePath) -> list[Structure]:
    """Read the structures of a .ct file; the inverse of :func:`format_ct`.

    Fields may be separated by any white space and rows may have more than six. A header is the
    length and the name, with mfold's ``dG = …`` or RNAstructure's ``ENERGY = …`` between them or
    not; a structure without a name is called after the file. Comments (``#``) and the lines
    ``Filename:``, ``Organism:`` and so on of the Comparative RNA Web are passed over.

    Raises:
        StructureFormatError: there is no structure, or one has no header, or fewer or more rows
            than it says; a row's number is out of turn; a partner does not exist or does not point
            back.
    """
    structures = []
    for header, rows in _ct_blocks(path):
        length, name = _ct_header(path, header, rows)
        if len(rows) != length:
            line = rows[-1].line if rows else header[-1][0]
            raise StructureFormatError(
                path, line, f"the header says {length} bases; the rows end here, after {len(rows)}"
            )
        structures.append(_from_rows(path, name, rows))
    if not structures:
        raise StructureFormatError(path, 1, "no structure in this file")
    return structures


class _Row(NamedTuple):
    """One base of a .ct or .bpseq file, with the numbers as in the file."""

    line: int
    number: int
    base: str
    partner: int


_Header = list[tuple[int, str]]
_DIGITS = 18  # of a number in a file; no sequence has 10^18 bases


def _ct_blocks(path: FilePath) -> Iterator[tuple[_Header, list[_Row]]]:
    """The lines of each structure in a .ct file: those before its rows, and its rows."""
    header: _Header = []
    rows: list[_Row] = []
    for line, text in numbered_lines(path):
        row = _ct_row(line, text)
        if rows and (row is None or row.number == 1):
            yield header, rows
            header, rows = [], []
        if row is None:
            header.append((line, text))
        else:
            rows.append(row)
    if header or rows:
        yield header, rows


def _ct_row(line: int, text: str) -> _Row | None:
    fields = text.split()
    numbers = fields[:1] + fields[2:6]
    if len(numbers) < 5 or not all(map(_counts, numbers)):
        return None
    return _Row(line, int(fields[0]), fields[1], int(fields[4]))


def _counts(text: str) -> bool:
    """Whether it is a number that bases are counted with; Python turns down 4301 digits."""
    return text.isdecimal() and len(text) <= _DIGITS


def _ct_header(path: FilePath, header: _Header, rows: list[_Row]) -> tuple[int, str]:
    """The length and the name of a structure, from the lines before its rows."""
    for _, text in reversed(header):
        length, _, rest = text.replace("\t", " ").partition(" ")
        if _counts(length):
            return int(length), ENERGY_BEFORE_NAME.sub("", rest.strip()) or Path(path).stem
    line = rows[0].line if rows else header[0][0]
    raise StructureFormatError(path, line, "expected a header with the number of bases and a name")


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
    return f"#Name: {structure.id}\n" + "".join(
        f"{n} {base} {partner}\n" for n, (base, partner) in rows
    )


def read_bpseq(path: FilePath) -> list[Structure]:
    """Read the structure of a .bpseq file; the inverse of :func:`format_bpseq`.

    Lines before the first row may be comments (``#``) or the ``Filename:``, ``Organism:`` … of the
    Comparative RNA Web. The id is that of ``#Name:`` or ``Filename:``, or else the file's name.

    Returns:
        A list of one structure, for symmetry with the other readers.

    Raises:
        StructureFormatError: a row is not "number base partner" or its number is out of turn; a
            partner does not exist or does not point back; or there are no rows.
    """
    name = Path(path).stem
    rows: list[_Row] = []
    line = 0
    for line, text in numbered_lines(path, comments=True):
        fields = text.split()
        if len(fields) == 3 and _counts(fields[0]) and _counts(fields[2]):
            rows.append(_Row(line, int(fields[0]), fields[1], int(fields[2])))
        elif rows and not text.startswith("#"):
            raise StructureFormatError(path, line, f"expected 'number base partner', got {text!r}")
        else:
            name = name_in_comment(text) or name
    if not rows:
        raise StructureFormatError(path, max(line, 1), "no row 'number base partner' in this file")
    return [_from_rows(path, name, rows)]


def _from_rows(path: FilePath, name: str, rows: list[_Row]) -> Structure:
    for expected, row in enumerate(rows, 1):
        if row.number != expected:
            raise StructureFormatError(
                path, row.line, f"base {row.number} where {expected} was expected"
            )
        if len(row.base) != 1:
            raise StructureFormatError(path, row.line, f"a base is one letter, not {row.base!r}")
        if row.partner == row.number or row.partner > len(rows):
            raise StructureFormatError(
                path, row.line, f"base {row.number} of {len(rows)} cannot pair with {row.partner}"
            )
        if row.partner and rows[row.partner - 1].partner != row.number:
            back = rows[row.partner - 1].partner
            raise StructureFormatError(
                path,
                row.line,
                f"base {row.number} pairs with {row.partner}, which pairs with {back}",
            )
    pairs = [(row.number - 1, row.partner - 1) for row in rows if row.partner > row.number]
    try:
        return Structure(name, "".join(row.base for row in rows), pairs)
    except ValueError as error:
        raise StructureFormatError(path, rows[0].line, str(error)) from error
