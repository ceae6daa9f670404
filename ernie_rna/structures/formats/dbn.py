"""The files that write structures as dot-bracket text: .dbn and tables.

A table's cells are separated by tabs and never quoted.
"""

from pathlib import Path

from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.lines import (
    ENERGY_BEFORE_NAME,
    name_in_comment,
    numbered_lines,
    table_rows,
)
from ernie_rna.structures.formats.structure import FilePath, Structure, StructureFormatError


def format_dbn(structure: Structure) -> str:
    """The .dbn text of a structure: a FASTA record with a dot-bracket line below the sequence.

    >>> print(format_dbn(Structure("tiny", "GAAAC", [(0, 4)])), end="")
    >tiny
    GAAAC
    (...)
    """
    return f">{structure.id}\n{structure.sequence}\n{structure.dot_bracket}\n"


def read_dbn(path: FilePath) -> list[Structure]:
    """Read the structures of a .dbn file; the inverse of :func:`format_dbn`.

    A record is a name (``>name``, or bpRNA's ``#Name: name``; without it the file's name), then the
    sequence and the structure, each on one line or broken into as many lines as the other. An
    energy, behind the structure as RNAfold writes it or before the name as RNAstructure does, is
    passed over, and so are other comments.

    Raises:
        StructureFormatError: a sequence has no structure or one of another length, or the structure
            is not dot-bracket.
    """
    # Name, number of its line, and the lines that follow it.
    records: list[tuple[str, int, list[str]]] = []
    for line, text in numbered_lines(path, comments=True):
        name = name_in_comment(text) if text.startswith("#") else None
        if text.startswith(">"):
            name = ENERGY_BEFORE_NAME.sub("", text[1:].strip())
        if name is not None:
            records.append((name, line, []))
        elif not text.startswith("#"):
            if not records:
                records.append((Path(path).stem, line, []))
            records[-1][2].append(text.split()[0])
    if not records:
        raise StructureFormatError(path, 1, "no sequence and structure in this file")
    return [_from_body(path, line, name, body) for name, line, body in records]


def _from_body(path: FilePath, line: int, name: str, body: list[str]) -> Structure:
    half = len(body) // 2
    sequence, text = "".join(body[:half]), "".join(body[half:])
    # Brackets would be there with several structures below one sequence.
    if not half or len(sequence) != len(text) or set(sequence) & set("()[]{}<>."):
        raise StructureFormatError(
            path, line, f"expected one sequence and one structure of its length for {name!r}"
        )
    return _from_text(path, line, name, sequence, text)


def _from_text(path: FilePath, line: int, name: str, sequence: str, text: str) -> Structure:
    try:
        return Structure(name, sequence, from_dot_bracket(text))
    except ValueError as error:
        raise StructureFormatError(path, line, f"structure of {name!r}: {error}") from error


TSV_HEADER = "id\tsequence\tdot_bracket\n"


def format_tsv(structure: Structure) -> str:
    """A line below `TSV_HEADER`.

    Raises:
        ValueError: the id has a tab.
    """
    if "\t" in structure.id:
        raise ValueError(f"id {structure.id!r} has a tab, which separates the columns")
    return f"{structure.id}\t{structure.sequence}\t{structure.dot_bracket}\n"


def read_tsv(path: FilePath, column: str = "dot_bracket") -> list[Structure]:
    """Read a tab-separated table whose first line names its columns; inverse of :func:`format_tsv`.

    Args:
        path: the table, with the columns id and ``column``. Without a column sequence, all bases
            are N.
        column: which column holds the structures.

    Raises:
        StructureFormatError: a column or a cell is missing, sequence and structure differ in
            length, or the structure is not dot-bracket.
    """
    structures = []
    for line, row in table_rows(path, ("id", column)):
        name, text = row["id"], row[column]
        sequence = row["sequence"] if "sequence" in row else "N" * len(text or "")
        if name is None or text is None or sequence is None:
            raise StructureFormatError(path, line, "this line has fewer cells than the first")
        if len(sequence) != len(text):
            raise StructureFormatError(
                path, line, f"sequence and {column} of {name!r} differ in length"
            )
        structures.append(_from_text(path, line, name, sequence, text))
    return structures
