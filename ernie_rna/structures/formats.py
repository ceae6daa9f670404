"""Files of secondary structures: .ct, .bpseq, .dbn, tables, and matrices in .npz.

Every ``format_*`` gives the text of one structure, every ``write_*`` a file, and every ``read_*``
is its inverse that also takes what other programs write. What is wrong with a file is raised as a
:class:`StructureFormatError`, with the file and the line.
"""

import csv
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

import numpy as np

from ernie_rna.structures.ct import (
    format_bpseq,
    format_ct,
    read_bpseq,
    read_ct,
    write_bpseq,
    write_ct,
)
from ernie_rna.structures.dot_bracket import from_dot_bracket
from ernie_rna.structures.structure import (
    ENERGY_BEFORE_NAME,
    FilePath,
    Structure,
    StructureFormatError,
    name_in_comment,
    numbered_lines,
    write_texts,
)

__all__ = [
    "MatrixWriter",
    "Structure",
    "StructureFormatError",
    "format_bpseq",
    "format_ct",
    "format_dbn",
    "read_bpseq",
    "read_ct",
    "read_dbn",
    "read_structures",
    "read_tsv",
    "write_bpseq",
    "write_ct",
    "write_dbn",
    "write_tsv",
]


def format_dbn(structure: Structure) -> str:
    """The .dbn text of a structure: a FASTA record with a dot-bracket line below the sequence.

    >>> print(format_dbn(Structure("tiny", "GAAAC", [(0, 4)])), end="")
    >tiny
    GAAAC
    (...)
    """
    return f">{structure.id}\n{structure.sequence}\n{structure.dot_bracket}\n"


def write_dbn(path: FilePath, structures: Structure | Iterable[Structure]) -> None:
    """Write structures to a .dbn file."""
    write_texts(path, structures, format_dbn)


def read_dbn(path: FilePath) -> list[Structure]:
    """Read the structures of a .dbn file; the inverse of :func:`write_dbn`.

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


def write_tsv(path: FilePath, structures: Iterable[Structure]) -> None:
    """Write a tab-separated table with the columns id, sequence and dot_bracket, without quotes.

    Raises:
        ValueError: an id has a tab.
    """
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(TSV_HEADER)
        file.writelines(map(format_tsv, structures))


def read_tsv(path: FilePath, column: str = "dot_bracket") -> list[Structure]:
    """Read a tab-separated table whose first line names its columns; inverse of :func:`write_tsv`.

    Args:
        path: the table, with the columns id and ``column``. Without a column sequence, all bases
            are N.
        column: which column holds the structures.

    Raises:
        StructureFormatError: a column or a cell is missing, sequence and structure differ in
            length, or the structure is not dot-bracket.
    """
    structures = []
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        columns = reader.fieldnames or []
        for needed in ("id", column):
            if needed not in columns:
                raise StructureFormatError(path, 1, f"no column {needed!r} among {list(columns)}")
        for row in reader:
            line, name, text = reader.line_num, row["id"], row[column]
            sequence = row["sequence"] if "sequence" in columns else "N" * len(text or "")
            if name is None or text is None or sequence is None:
                raise StructureFormatError(path, line, "this line has fewer cells than the first")
            if len(sequence) != len(text):
                raise StructureFormatError(
                    path, line, f"sequence and {column} of {name!r} differ in length"
                )
            structures.append(_from_text(path, line, name, sequence, text))
    return structures


_READERS: dict[str, Callable[[FilePath], list[Structure]]] = {
    ".ct": read_ct,
    ".nopct": read_ct,
    ".bpseq": read_bpseq,
    ".dbn": read_dbn,
    ".db": read_dbn,
}


def read_structures(path: FilePath, column: str = "dot_bracket") -> list[Structure]:
    """Read structures from a file by its extension, or from all such files of a folder.

    Args:
        path: a .tsv, .ct, .nopct, .bpseq, .dbn or .db file; or a folder, whose files with another
            extension, and whose subfolders, are passed over.
        column: for tables, the column with the structures.

    Returns:
        The structures in the order of the file; in a folder, of the files sorted by name.

    Raises:
        ValueError: the extension is unknown, or the folder has no file with a known one.
        StructureFormatError: see the reader of the format.
    """
    path = Path(path)
    if path.is_dir():
        files = [
            file for file in sorted(path.iterdir()) if file.suffix.lower() in {".tsv", *_READERS}
        ]
        if not files:
            raise ValueError(
                f"{path}: no structure file in this folder ({', '.join(_READERS)}, .tsv)"
            )
        return [structure for file in files for structure in read_structures(file, column)]
    if path.suffix.lower() == ".tsv":
        return read_tsv(path, column)
    if path.suffix.lower() not in _READERS:
        raise ValueError(
            f"{path}: unknown extension; expected .tsv or one of {', '.join(_READERS)}"
        )
    return _READERS[path.suffix.lower()](path)


class MatrixWriter:
    """Write pairing maps or contacts to an .npz file, one array a sequence, under its id.

    Each matrix goes to the file at once, compressed, so memory does not grow with their number. The
    same matrices give the same bytes. ``numpy.load(path)[id]`` reads one back.

    Raises:
        ValueError: an id is written twice.

    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "contacts.npz")
    >>> with MatrixWriter(path) as writer:
    ...     writer.write("tiny", np.eye(2, dtype=np.float32))
    >>> np.load(path)["tiny"].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, path: FilePath) -> None:
        self._archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)

    def write(self, name: str, matrix: np.ndarray) -> None:
        """Add the matrix of the sequence called ``name``, (length, length)."""
        if f"{name}.npy" in self._archive.NameToInfo:
            raise ValueError(f"the file already has a matrix of {name!r}")
        # A ZipInfo has a fixed time, so that the bytes depend on the content alone.
        info = zipfile.ZipInfo(f"{name}.npy")
        info.compress_type = zipfile.ZIP_DEFLATED
        with self._archive.open(info, "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.asarray(matrix), allow_pickle=False)

    def close(self) -> None:
        self._archive.close()

    def __enter__(self) -> "MatrixWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
