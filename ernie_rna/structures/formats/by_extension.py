"""Reads and writes files of secondary structures by extension: .ct, .bpseq, .dbn and tables.

Every ``format_*`` returns the text of one structure. Every ``read_*`` is its inverse and also reads
the files of other programs, compressed or not. The id is the first word of a header, or the file's
name, and the rest is a description. An invalid file raises an `InputError` that names the file and
the line. Files count bases from 1 and write 0 for "unpaired"; in memory positions count from 0.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, TypeVar

from ernie_rna.sequences.fasta import (
    ENERGY,
    FilePath,
    InputError,
    is_remark,
    read_lines,
    split_header,
    uncompressed,
)
from ernie_rna.sequences.tables import TABLES, as_named, format_row, read_rows
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.structure import Structure

TSV_HEADER = "id\tsequence\tdot_bracket\tdescription\n"

_COLUMN = "dot_bracket"
_DIGITS = 18  # of a number in a file; no sequence has 10^18 bases
_NAME = re.compile(r"^#?\s*(?:Name:\s*(\S.*)|Filename:\s*(\S.*?)(?:\.bpseq)?)$", re.IGNORECASE)
# The length, after "Length:" in files of Sfold, and the rest of the header.
_CT_HEADER = re.compile(rf"(?:Length:\s*)?([0-9]{{1,{_DIGITS}}})(?:\s+(.*))?$", re.IGNORECASE)
# Lines that RNAfold writes below the structure.
_ENSEMBLE = re.compile(r"(minimum )?free energy |frequency ", re.IGNORECASE)
SIGNS = frozenset("()[]{}<>|.")  # every structure has at least one, and no sequence has any
# A line with a sign, or one without any letter except x that is not just x.
_BELOW = re.compile(r".*[()\[\]{}<>|.]|(?![xX]+$)[^A-WYZa-wyz]+$")

Value = TypeVar("Value")


def read_structures(path: FilePath, column: str = _COLUMN) -> list[Structure]:
    """Read structures from a file by its extension, or from all such files of a folder.

    Args:
        path: a .tsv, .csv, .ct, .nopct, .bpseq, .dbn or .db file; or a folder, in which files with
            another extension and subfolders are ignored.
        column: for tables, the column with the structures; leave the default for other files.

    Returns:
        The structures in the order of the file; for a folder, with its files sorted by name.

    Raises:
        ValueError: the extension is unknown, or the folder has no file with a known one; or
            another column is named for a file that is not a table.
        InputError: see the reader of the format.
    """
    structures = []
    for file, suffix in files_at(path, (*TABLES, *_READERS), "expected a structure file"):
        if suffix in TABLES:
            structures += read_tsv(file, column)
        elif column != _COLUMN:
            raise ValueError(f"{file}: it is not a table and has no column {column!r}")
        else:
            structures += _READERS[suffix](file)
    return structures


def write_structures(path: FilePath, structures: Iterable[Structure]) -> None:
    """Write structures to a file by its extension; the inverse of :func:`read_structures`.

    Args:
        path: a .tsv, .csv, .ct, .bpseq (of one structure), .dbn or .db file.

    Raises:
        ValueError: the extension is unknown, or the format cannot hold these structures.
    """
    suffix, structures = Path(path).suffix.lower(), list(structures)
    if suffix not in FORMATTERS:
        raise ValueError(f"{path}: unknown extension; expected one of {', '.join(FORMATTERS)}")
    if suffix == ".bpseq" and len(structures) != 1:
        raise ValueError(f"{path}: .bpseq holds one structure, not {len(structures)}")
    text = (TSV_HEADER if suffix in TABLES else "") + "".join(map(FORMATTERS[suffix], structures))
    Path(path).write_text(as_named(path, text), encoding="utf-8", newline="\n")


def named_after(path: FilePath) -> str:
    """The id of the RNA that a file is named after: the name without extensions, blanks as _."""
    return "_".join(uncompressed(path).stem.split())


def files_at(path: FilePath, extensions: Collection[str], expected: str) -> list[tuple[Path, str]]:
    """List a file, or the files of a folder sorted by name, that have one of the extensions.

    Returns:
        Each file, compressed or not, with its extension.

    Raises:
        ValueError: there is none; the message begins with `expected`.
    """
    path = Path(path)
    files = [file for file in sorted(path.iterdir()) if file.is_file()] if path.is_dir() else [path]
    suffixes = [(file, uncompressed(file).suffix.lower()) for file in files]
    matching = [(file, suffix) for file, suffix in suffixes if suffix in extensions]
    if not matching:
        where = " in this folder" if path.is_dir() else ""
        raise ValueError(f"{path}: {expected} with the extension {', '.join(extensions)}{where}")
    return matching


def read_by_id(
    files: Iterable[tuple[Path, str]], what: str, read: Callable[[Path, str], dict[str, Value]]
) -> dict[str, Value]:
    """Merge the values by id of several files; InputError if two files have the same id."""
    by_id: dict[str, Value] = {}
    for file, suffix in files:
        from_file = read(file, suffix)
        for id in by_id.keys() & from_file.keys():
            raise InputError(f"{file.parent}: two files have {what} of the same id, {id}")
        by_id |= from_file
    return by_id


def numbered_lines(path: FilePath, comments: bool = False) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that are not blank nor, by default, comments (#)."""
    for line, text in read_lines(path):
        text = text.strip()
        if text and (comments or not text.startswith("#")):
            yield line, text


def _read_header(path: FilePath, text: str) -> tuple[str, str]:
    """Id (the file's if the header has none) and description."""
    id, description = split_header(text)
    return id or named_after(path), description


def _name_in_comment(text: str) -> str | None:
    """The name in a line ``#Name: name`` (bpRNA) or ``Filename: name.bpseq`` (CRW)."""
    match = _NAME.match(text)
    return (match[1] or match[2]) if match else None


# ---------------------------------------------------------------------------------------------
# A row for each base, with the partner's number


def format_ct(structure: Structure) -> str:
    r"""The .ct text of a structure, tab-separated as the authors' ``predict_ss_rna.py`` writes it.

    The header has length and id. Each row has a base's number, the base, the numbers before and
    after (0 at the ends), its partner's number (0 if unpaired), and its own number again.

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

    Fields may be separated by any white space, and rows may have more than six. A header is the
    length and the id, optionally with an energy between them. A structure without an id is named
    after the file, as is a single one with an energy and a number from RNAfold. Comments (``#``)
    and lines ``Filename:``, ``Organism:`` and so on of the Comparative RNA Web are ignored.

    Raises:
        InputError: there is no structure; one has no header, or fewer or more rows than its header
            says; a row's number is out of order; a partner does not exist or does not point back.
    """
    structures: list[Structure] = []
    rows: list[_BaseRow] = []
    length, rest, line, text = 0, "", 1, ""  # of the last header; 0 after a line that is none
    problem = "expected a header with the number of bases and a name"
    for line, text in numbered_lines(path):
        row = _base_row(line, text, columns=6, partner=4)
        if len(rows) < length:
            if row is None:
                expected = f"expected base {len(rows) + 1} of the {length} in the header"
                raise InputError.at(path, line, f"{expected}, not {text[:40]!r}")
            rows.append(row)
            if len(rows) == length:
                structures.append(_from_rows(path, *_read_header(path, rest), rows))
            continue
        # A header whose description begins with numbers looks like a row, but the third field of a
        # row is the number before its own: 0 or that of the last row.
        if row is not None and row.number - 1 == int(text.split()[2]) in (0, len(rows)):
            raise InputError.at(path, line, f"{problem}, not base {row.number}")
        header = _CT_HEADER.match(text)
        rows, length, rest = [], int(header[1]) if header else 0, (header and header[2]) or ""
    if len(rows) < length:
        problem = f"the header says {length} bases; the rows end here, after {len(rows)}"
        raise InputError.at(path, line, problem)
    if not length:
        raise InputError.at(path, line, f"{problem}, not {text[:40]!r}")
    if len(structures) == 1 and structures[0].id.isdecimal() and ENERGY.match(rest):
        structures = [replace(structures[0], id=named_after(path))]
    return structures


def format_bpseq(structure: Structure) -> str:
    """The .bpseq text of a structure: the number, base, and partner or 0 of each base.

    >>> print(format_bpseq(Structure("tiny", "GAAC", [(0, 3)])), end="")
    #Name: tiny
    1 G 4
    2 A 0
    3 A 0
    4 C 1
    """
    bases = enumerate(zip(structure.sequence, structure.partners, strict=True), 1)
    rows = (f"{number} {base} {partner}\n" for number, (base, partner) in bases)
    return "".join([f"#Name: {structure.header}\n", *rows])


def read_bpseq(path: FilePath) -> list[Structure]:
    """Read the structure of a .bpseq file, in a list; the inverse of :func:`format_bpseq`.

    Lines before the first row may be comments (``#``) or the ``Filename:``, ``Organism:`` … of the
    Comparative RNA Web. The id comes from ``#Name:`` or ``Filename:``, or else the file's name.

    Raises:
        InputError: a row is not "number base partner" or its number is out of order; a partner does
            not exist or does not point back; or there are no rows.
    """
    name, line = "", 1
    rows: list[_BaseRow] = []
    for line, text in numbered_lines(path, comments=True):
        row = _base_row(line, text, columns=3, partner=2)
        if row is not None and len(text.split()) == 3:
            rows.append(row)
        elif rows and not text.startswith("#"):
            raise InputError.at(path, line, f"expected 'number base partner', got {text!r}")
        else:
            name = _name_in_comment(text) or name
    if not rows:
        raise InputError.at(path, line, "no row 'number base partner' in this file")
    return [_from_rows(path, *_read_header(path, name), rows)]


class _BaseRow(NamedTuple):
    """One base of a .ct or .bpseq file, with the numbers of the file."""

    line: int
    number: int
    base: str
    partner: int


def _base_row(line: int, text: str, columns: int, partner: int) -> _BaseRow | None:
    """Parse a line with at least `columns` fields, all but the second numbers; else None."""
    fields = text.split()
    numbers = [*fields[:1], *fields[2:columns]]
    # The limit of digits matters because `int` raises an error for more than 4300.
    if len(fields) < columns or not all(n.isdecimal() and len(n) <= _DIGITS for n in numbers):
        return None
    return _BaseRow(line, int(fields[0]), fields[1], int(fields[partner]))


def _from_rows(path: FilePath, id: str, description: str, rows: list[_BaseRow]) -> Structure:
    for expected, row in enumerate(rows, 1):
        back = rows[row.partner - 1].partner if row.partner <= len(rows) else 0
        if row.number != expected:
            problem = f"base {row.number} where {expected} was expected"
        elif len(row.base) != 1:
            problem = f"a base is one letter, not {row.base!r}"
        elif row.partner == row.number or row.partner > len(rows):
            problem = f"base {row.number} of {len(rows)} cannot pair with {row.partner}"
        elif row.partner and back != row.number:
            problem = f"base {row.number} pairs with {row.partner}, which pairs with {back}"
        else:
            continue
        raise InputError.at(path, row.line, problem)
    pairs = [(row.number - 1, row.partner - 1) for row in rows if row.partner > row.number]
    return Structure(id, "".join(row.base for row in rows), pairs, description)


# ---------------------------------------------------------------------------------------------
# Dot-bracket text


def format_dbn(structure: Structure) -> str:
    """The .dbn text of a structure: a FASTA record with a dot-bracket line below the sequence.

    >>> print(format_dbn(Structure("tiny", "GAAAC", [(0, 4)], "RNA")), end="")
    >tiny RNA
    GAAAC
    (...)
    """
    return f">{structure.header}\n{structure.sequence}\n{structure.dot_bracket}\n"


def read_dbn(path: FilePath) -> list[Structure]:
    """Read the structures of a .dbn file; the inverse of :func:`format_dbn`.

    A record is a header (``>id description``, or bpRNA's ``#Name: id``; without it the file's name
    is the id), then the sequence and the structure, each on one or several lines. A record without
    a sequence is another structure of the previous sequence. These are ignored: an energy or other
    numbers after the structure (RNAfold), an energy before the id (RNAstructure), other comments,
    lines ``>structure`` of CONTRAfold, and lines of ``RNAfold -p`` about the ensemble.

    Raises:
        InputError: a sequence has no structure or one of another length, something other than
            numbers follows one of them after a blank, or the structure is not dot-bracket.
    """
    # Header, its line number, and the first word of each line below it.
    records: list[tuple[str, int, list[str]]] = []
    for line, text in numbered_lines(path, comments=True):
        header = text[1:] if text.startswith(">") else _name_in_comment(text)
        body = records[-1][2] if records else []
        # CONTRAfold writes this line between sequence and structure.
        if header == "structure" and body and not SIGNS & set(body[-1]):
            continue
        if header is not None:
            records.append((header, line, []))
        elif not text.startswith("#"):
            word, rest = [*text.split(None, 1), ""][:2]
            is_below = len(body) == 2 and SIGNS & set(body[1])
            if is_below and _ENSEMBLE.match(text):
                continue
            if not is_remark(rest):
                problem = f"a blank after position {len(word)}, before {rest[:40]!r}"
                raise InputError.at(path, line, f"{problem}; remove it from sequence or structure")
            if is_below and rest.startswith(("[", "{")):  # another structure of RNAfold -p
                continue
            records = records or [("", line, [])]
            records[-1][2].append(word)
    if not records:
        raise InputError.at(path, 1, "no sequence and structure in this file")
    sequence, structures = "", []
    for header, line, body in records:
        id, description = _read_header(path, header)
        # A structure without a sequence belongs to the previous sequence.
        count = 0 if body and SIGNS & set(body[0]) else count_above(body)
        sequence, text = "".join(body[:count]) or sequence, "".join(body[count:])
        structures.append(_from_text(path, line, id, sequence, text, description))
    return structures


def count_above(words: list[str]) -> int:
    """Number of lines of a record that are its sequence.

    The structure or constraint below it is equally long, or else begins at the first line with a
    sign; an x may also be a letter of the sequence.

    >>> count_above(["GGGA", "AACCC", "(((.", "..)))"]), count_above(["GAAC", "(..", "."])
    (2, 1)
    """
    text = "".join(words)
    for count, length in enumerate(accumulate(map(len, words)), 1):
        if 2 * length == len(text):
            above, below = set(text[:length]), set(text[length:])
            if not SIGNS & above and (SIGNS & below or below == {"x"}):
                return count
    return next((n for n, word in enumerate(words) if n and _BELOW.match(word)), len(words))


def format_tsv(structure: Structure) -> str:
    """The table row of a structure, to be written below `TSV_HEADER`."""
    return format_row(
        structure.id, structure.sequence, structure.dot_bracket, structure.description
    )


def read_tsv(path: FilePath, column: str = _COLUMN) -> list[Structure]:
    """Read a table whose first line names its columns; the inverse of :func:`format_tsv`.

    Args:
        path: the table, see `tables`, with the columns id and ``column``. Without a column
            sequence, all bases are N. The text after the first word of an id is its description,
            unless the column description has one.
        column: the column with the structures.

    Raises:
        InputError: the file is not a table, an id or structure is empty, sequence and structure
            differ in length, or the structure is not dot-bracket.
    """
    structures = []
    for line, row in read_rows(path, ("id", column)):
        id, description = split_header(row["id"])
        sequence = row.get("sequence", "N" * len(row[column]))
        description = row.get("description") or description
        structures.append(_from_text(path, line, id, sequence, row[column], description))
    return structures


def _from_text(
    path: FilePath, line: int, id: str, sequence: str, text: str, description: str
) -> Structure:
    if not id:
        raise InputError.at(path, line, "an id is empty")
    if not sequence or len(sequence) != len(text):
        problem = f"expected a sequence and a structure of its length for {id!r}; they have"
        raise InputError.at(path, line, f"{problem} {len(sequence)} and {len(text)} letters")
    try:
        return Structure(id, sequence, from_dot_bracket(text), description)
    except ValueError as error:
        raise InputError.at(path, line, f"structure of {id!r}: {error}") from error


# Returns the text of a structure in each format; `TSV_HEADER` comes above the rows of a table.
FORMATTERS: dict[str, Callable[[Structure], str]] = {
    ".dbn": format_dbn,
    ".db": format_dbn,
    **dict.fromkeys(TABLES, format_tsv),
    ".ct": format_ct,
    ".bpseq": format_bpseq,
}
_READERS: dict[str, Callable[[FilePath], list[Structure]]] = {
    ".ct": read_ct,
    ".nopct": read_ct,
    ".bpseq": read_bpseq,
    ".dbn": read_dbn,
    ".db": read_dbn,
}
