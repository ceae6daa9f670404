"""The files that write structures as dot-bracket text: .dbn and tables."""

from ernie_rna.sequences.fasta import FilePath, InputError, split_header
from ernie_rna.sequences.tables import find_separator, format_row, read_rows
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.lines import name_in_comment, numbered_lines, read_header
from ernie_rna.structures.formats.structure import Structure

TSV_HEADER = "id\tsequence\tdot_bracket\tdescription\n"


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
    is the id), then the sequence and the structure, each on one line or broken into as many lines
    as the other. An energy, behind the structure as RNAfold writes it or before the id as
    RNAstructure does, is passed over, and so are other comments.

    Raises:
        InputError: a sequence has no structure or one of another length, there is a blank in one of
            them, or the structure is not dot-bracket.
    """
    # Header, number of its line, and the lines that follow it.
    records: list[tuple[str, int, list[str]]] = []
    for line, text in numbered_lines(path, comments=True):
        header = text[1:] if text.startswith(">") else name_in_comment(text)
        if header is not None:
            records.append((header, line, []))
        elif not text.startswith("#"):
            if not records:
                records.append(("", line, []))
            records[-1][2].append(_first_word(path, line, text))
    if not records:
        raise InputError.at(path, 1, "no sequence and structure in this file")
    return [_from_body(path, *record) for record in records]


def _first_word(path: FilePath, line: int, text: str) -> str:
    """A sequence or a structure; what may follow it has a number: an energy, a frequency."""
    word, rest = split_header(text)
    if rest and not any(character.isdigit() for character in rest):
        problem = f"a blank behind position {len(word)}; sequence and structure have none"
        raise InputError.at(path, line, problem)
    return word


def _from_body(path: FilePath, header: str, line: int, body: list[str]) -> Structure:
    id, description = read_header(path, header)
    half = len(body) // 2
    sequence, text = "".join(body[:half]), "".join(body[half:])
    # Brackets would be there with several structures below one sequence.
    if not half or len(sequence) != len(text) or set(sequence) & set("()[]{}<>."):
        raise InputError.at(
            path, line, f"expected one sequence and one structure of its length for {id!r}"
        )
    return _from_text(path, line, id, sequence, text, description)


def _from_text(
    path: FilePath, line: int, id: str, sequence: str, text: str, description: str
) -> Structure:
    try:
        return Structure(id, sequence, from_dot_bracket(text), description)
    except ValueError as error:
        raise InputError.at(path, line, f"structure of {id!r}: {error}") from error


def format_tsv(structure: Structure) -> str:
    """A line below `TSV_HEADER`."""
    return format_row(
        structure.id, structure.sequence, structure.dot_bracket, structure.description
    )


def read_tsv(path: FilePath, column: str = "dot_bracket") -> list[Structure]:
    """Read a table whose first line names its columns; inverse of :func:`format_tsv`.

    Args:
        path: the table, see `tables`, with the columns id and ``column``. Without a column
            sequence, all bases are N; what follows the first word of an id is its description,
            unless a column description has one.
        column: which column holds the structures.

    Raises:
        InputError: the table is none, sequence and structure differ in length, or the structure is
            not dot-bracket.
    """
    structures = []
    for line, row in read_rows(path, ("id", column), find_separator(path)):
        id, description = split_header(row["id"])
        text = row[column]
        sequence = row.get("sequence", "N" * len(text))
        if len(sequence) != len(text):
            raise InputError.at(path, line, f"sequence and {column} of {id!r} differ in length")
        description = row.get("description") or description
        structures.append(_from_text(path, line, id, sequence, text, description))
    return structures
