"""Files of secondary structures by their extension: .ct, .bpseq, .dbn and tables.

Every ``format_*`` gives the text of one structure, and every ``read_*`` is its inverse that also
takes what other programs write, compressed or not. The id is the first word of a header, or the
file's name, and the rest a description. What is wrong with a file is raised as an `InputError`,
with the file and the line. The files count bases from 1 and write 0 for "unpaired"; in memory
positions count from 0.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, TypeVar

from ernie_rna.sequences.fasta import FilePath, InputError, read_lines, split_header, uncompressed
from ernie_rna.sequences.tables import TABLES, as_named, format_row, read_rows
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.structure import Structure

TSV_HEADER = "id\tsequence\tdot_bracket\tdescription\n"

_COLUMN = "dot_bracket"
_DIGITS = 18  # of a number in a file; no sequence has 10^18 bases
# What RNAfold, mfold, RNAstructure and Sfold write before the name in a header.
_ENERGY = re.compile(
    r"^(ENERGY|dG)\s*[=:]\s+[-+]?[0-9.]\S*(\s+kcal/mol)?(\s+\[initially[^]]*\])?(\s+\.\.$)?\s*",
    re.IGNORECASE,
)
_NAME = re.compile(r"^#?\s*(?:Name:\s*(\S.*)|Filename:\s*(\S.*?)(?:\.bpseq)?)$", re.IGNORECASE)
# The length, behind a word where Sfold writes it, and what follows.
_CT_HEADER = re.compile(rf"(?:Length:\s*)?([0-9]{{1,{_DIGITS}}})(?:\s+(.*))?$", re.IGNORECASE)
# Of the ensemble, its centroid and so on, as RNAfold -p writes them below the structure.
_ENSEMBLE = re.compile(r"\S+\s+[\[{]|free energy of ensemble|frequency of mfe")
SIGNS = frozenset("()[]{}<>|.")  # at least one is in any structure, and none in a sequence
# A line with a sign, or with no letter but x and not only that.
_BELOW = re.compile(r".*[()\[\]{}<>|.]|(?![xX]+$)[^A-WYZa-wyz]+$")

Found = TypeVar("Found")


def read_structures(path: FilePath, column: str = _COLUMN) -> list[Structure]:
    """Read structures from a file by its extension, or from all such files of a folder.

    Args:
        path: a .tsv, .csv, .ct, .nopct, .bpseq, .dbn or .db file; or a folder, whose files with
            another extension, and whose subfolders, are passed over.
        column: for tables, the column with the structures; other files have none but the default.

    Returns:
        The structures in the order of the file; in a folder, of the files sorted by name.

    Raises:
        ValueError: the extension is unknown, or the folder has no file with a known one; or a
            column is named for what is no table.
        InputError: see the reader of the format.
    """
    structures = []
    for file, suffix in files_at(path, (*TABLES, *_READERS), "expected a structure file"):
        if suffix in TABLES:
            structures += read_tsv(file, column)
        elif column != _COLUMN:
            raise ValueError(f"{file}: it is no table and has no column {column!r}")
        else:
            structures += _READERS[suffix](file)
    return structures


def write_structures(path: FilePath, structures: Iterable[Structure]) -> None:
    """Write structures to a file by its extension; the inverse of :func:`read_structures`.

    Args:
        path: a .tsv, .csv, .ct, .bpseq (of one structure), .dbn or .db file.
        structures: what it is to hold.

    Raises:
        ValueError: the extension is unknown, or the format cannot hold these structures.
    """
    suffix, structures = Path(path).suffix.lower(), list(structures)
    if suffix not in FORMATTERS:
        raise ValueError(f"{path}: unknown extension; expected one of {', '.join(FORMATTERS)}")
    if suffix == ".bpseq" and len(structures) != 1:
        raise ValueError(f"{path}: .bpseq holds one structure, not {len(structures)}")
    text = TSV_HEADER * (suffix in TABLES) + "".join(map(FORMATTERS[suffix], structures))
    Path(path).write_text(as_named(path, text), encoding="utf-8", newline="\n")


def named_after(path: FilePath) -> str:
    """The id of an RNA that a file is called after: without extensions, and blanks as _."""
    return "_".join(uncompressed(path).stem.split())


def files_at(path: FilePath, extensions: Collection[str], expected: str) -> list[tuple[Path, str]]:
    """A file, or those of a folder, compressed or not, that have one of some extensions, by name.

    Returns:
        Each with its extension.

    Raises:
        ValueError: there is none; `expected` says what it is for.
    """
    path = Path(path)
    in_folder = path.is_dir()
    files = [one for one in sorted(path.iterdir()) if one.is_file()] if in_folder else [path]
    found = [(one, uncompressed(one).suffix.lower()) for one in files]
    found = [(one, suffix) for one, suffix in found if suffix in extensions]
    if not found:
        where = " in this folder" * in_folder
        raise ValueError(f"{path}: {expected} with the extension {', '.join(extensions)}{where}")
    return found


def read_by_id(
    files: Iterable[tuple[Path, str]], what: str, read: Callable[[Path, str], dict[str, Found]]
) -> dict[str, Found]:
    """What files say of RNAs, by id; InputError where two say it of the same."""
    found: dict[str, Found] = {}
    for file, suffix in files:
        more = read(file, suffix)
        for id in found.keys() & more.keys():
            raise InputError(f"{file.parent}: two files have {what} of the same id, {id}")
        found |= more
    return found


def numbered_lines(path: FilePath, comments: bool = False) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that are not blank, and not comments (#) unless asked for."""
    for line, text in read_lines(path):
        text = text.strip()
        if text and (comments or not text.startswith("#")):
            yield line, text


def _read_header(path: FilePath, text: str) -> tuple[str, str]:
    """Id (that of the file where there is none) and description, without an energy before them."""
    id, description = split_header(_ENERGY.sub("", text.strip()))
    return id or named_after(path), description


def _name_in_comment(text: str) -> str | None:
    """The name in a line ``#Name: name`` (bpRNA) or ``Filename: name.bpseq`` (CRW)."""
    match = _NAME.match(text)
    return (match[1] or match[2]) if match else None


# ---------------------------------------------------------------------------------------------
# A row for each base, with the partner's number


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
    structures: list[Structure] = []
    rows: list[_BaseRow] = []
    length, rest, line, text = 0, "", 1, ""  # of the last header; 0 below another line
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
        # A header whose description begins with numbers looks like a row; but a row says which are
        # its number and the one before.
        if row is not None and row.number - 1 == int(text.split()[2]) in (0, len(rows)):
            raise InputError.at(path, line, f"{problem}, not base {row.number}")
        header = _CT_HEADER.match(text)
        rows, length, rest = [], int(header[1]) if header else 0, (header and header[2]) or ""
    if len(rows) < length:
        problem = f"the header says {length} bases; the rows end here, after {len(rows)}"
        raise InputError.at(path, line, problem)
    if not length:
        raise InputError.at(path, line, f"{problem}, not {text[:40]!r}")
    if len(structures) == 1 and structures[0].id.isdecimal() and _ENERGY.match(rest):
        structures = [replace(structures[0], id=named_after(path))]
    return structures


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
    is the id), then the sequence and the structure, each on one line or several; a record without a
    sequence is another structure of the sequence before. An energy, behind the structure as RNAfold
    writes it or before the id as RNAstructure does, is passed over, and so are other comments, the
    lines ``>structure`` of CONTRAfold, and what ``RNAfold -p`` writes of the ensemble below the
    structure.

    Raises:
        InputError: a sequence has no structure or one of another length, there is a blank in one of
            them, or the structure is not dot-bracket.
    """
    # Header, number of its line, and the words that the lines below it begin with.
    records: list[tuple[str, int, list[str]]] = []
    for line, text in numbered_lines(path, comments=True):
        header = text[1:] if text.startswith(">") else _name_in_comment(text)
        body = records[-1][2] if records else []
        # As CONTRAfold has it between sequence and structure.
        if header == "structure" and body and not SIGNS & set(body[-1]):
            continue
        if header is not None:
            records.append((header, line, []))
        elif not text.startswith("#"):
            if len(body) == 2 and SIGNS & set(body[1]) and _ENSEMBLE.match(text):
                continue
            word, rest = split_header(text)
            # What may follow a sequence or structure has a number: an energy, a frequency.
            if rest and not any(map(str.isdigit, rest)):
                problem = f"a blank behind position {len(word)}; sequence and structure have none"
                raise InputError.at(path, line, problem)
            records = records or [("", line, [])]
            records[-1][2].append(word)
    if not records:
        raise InputError.at(path, 1, "no sequence and structure in this file")
    sequence, structures = "", []
    for header, line, body in records:
        id, description = _read_header(path, header)
        # A structure without a sequence is of the one before.
        count = 0 if body and SIGNS & set(body[0]) else count_above(body)
        sequence, text = "".join(body[:count]) or sequence, "".join(body[count:])
        structures.append(_from_text(path, line, id, sequence, text, description))
    return structures


def count_above(words: list[str]) -> int:
    """How many of the lines of a record are its sequence: what is below, a structure or constraint,
    is as long, or else begins with the first sign; an x is a letter of sequences as well.

    >>> count_above(["GGGA", "AACCC", "(((.", "..)))"]), count_above(["GAAC", "(..", "."])
    (2, 1)
    """
    whole = "".join(words)
    for count, length in enumerate(accumulate(map(len, words)), 1):
        if 2 * length == len(whole):
            above, below = set(whole[:length]), set(whole[length:])
            if not SIGNS & above and (SIGNS & below or below == {"x"}):
                return count
    return next((at for at, word in enumerate(words) if at and _BELOW.match(word)), len(words))


def format_tsv(structure: Structure) -> str:
    """A line below `TSV_HEADER`."""
    return format_row(
        structure.id, structure.sequence, structure.dot_bracket, structure.description
    )


def read_tsv(path: FilePath, column: str = _COLUMN) -> list[Structure]:
    """Read a table whose first line names its columns; inverse of :func:`format_tsv`.

    Args:
        path: the table, see `tables`, with the columns id and ``column``. Without a column
            sequence, all bases are N; what follows the first word of an id is its description,
            unless a column description has one.
        column: which column holds the structures.

    Raises:
        InputError: the table is none, an id or a structure is empty, sequence and structure differ
            in length, or the structure is not dot-bracket.
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


# The text of a structure in each format; a table has `TSV_HEADER` above it.
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
