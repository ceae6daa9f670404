"""Files of secondary structures by their extension: .ct, .bpseq, .dbn and tables.

Every ``format_*`` gives the text of one structure, and every ``read_*`` is its inverse that also
takes what other programs write, compressed or not. The id is the first word of a header, or the
file's name, and the rest a description. What is wrong with a file is raised as an `InputError`,
with the file and the line.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from ernie_rna.sequences.fasta import FilePath
from ernie_rna.structures.formats.ct import format_bpseq, format_ct, read_bpseq, read_ct
from ernie_rna.structures.formats.dbn import TSV_HEADER, format_dbn, format_tsv, read_dbn, read_tsv
from ernie_rna.structures.formats.lines import files_in, uncompressed
from ernie_rna.structures.formats.structure import Structure

# The text of a structure in each format; a table has `TSV_HEADER` above it.
FORMATTERS: dict[str, Callable[[Structure], str]] = {
    ".dbn": format_dbn,
    ".db": format_dbn,
    ".tsv": format_tsv,
    ".ct": format_ct,
    ".bpseq": format_bpseq,
}
TABLES = (".tsv", ".csv")
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
        path: a .tsv, .csv, .ct, .nopct, .bpseq, .dbn or .db file; or a folder, whose files with
            another extension or .csv, and whose subfolders, are passed over.
        column: for tables, the column with the structures.

    Returns:
        The structures in the order of the file; in a folder, of the files sorted by name.

    Raises:
        ValueError: the extension is unknown, or the folder has no file with a known one.
        InputError: see the reader of the format.
    """
    path = Path(path)
    suffix = uncompressed(path).suffix.lower()
    if path.is_dir():
        files = files_in(path, [*_READERS, ".tsv"], "structure file")
        return [structure for file in files for structure in read_structures(file, column)]
    if suffix in TABLES:
        return read_tsv(path, column)
    if suffix not in _READERS:
        raise ValueError(
            f"{path}: unknown extension; expected .tsv or one of {', '.join(_READERS)}"
        )
    return _READERS[suffix](path)


def write_structures(path: FilePath, structures: Iterable[Structure]) -> None:
    """Write structures to a file by its extension; the inverse of :func:`read_structures`.

    Args:
        path: a .tsv, .ct, .bpseq (of one structure), .dbn or .db file.
        structures: what it is to hold.

    Raises:
        ValueError: the extension is unknown, or the format cannot hold these structures.
    """
    suffix, structures = Path(path).suffix.lower(), list(structures)
    if suffix not in FORMATTERS:
        raise ValueError(f"{path}: unknown extension; expected one of {', '.join(FORMATTERS)}")
    if suffix == ".bpseq" and len(structures) != 1:
        raise ValueError(f"{path}: .bpseq holds one structure, not {len(structures)}")
    text = TSV_HEADER * (suffix == ".tsv") + "".join(map(FORMATTERS[suffix], structures))
    Path(path).write_text(text, encoding="utf-8", newline="\n")
