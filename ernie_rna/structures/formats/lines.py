"""Lines of the files that other programs write, and the names in them."""

import re
from collections.abc import Iterable, Iterator
from os import fspath
from pathlib import Path

from ernie_rna.sequences.fasta import FilePath, InputError, read_lines, split_header
from ernie_rna.sequences.tables import parse_decimal

# What RNAfold, mfold, RNAstructure and Sfold write before the name in a header.
ENERGY = re.compile(
    r"^(ENERGY|dG)\s*[=:]\s*\S+(\s+kcal/mol)?(\s+\[initially[^]]*\])?(\s+\.\.$)?\s*", re.IGNORECASE
)
_NAME = re.compile(r"^#?\s*(?:Name:\s*(\S.*)|Filename:\s*(\S.*?)(?:\.bpseq)?)$", re.IGNORECASE)


def uncompressed(path: FilePath) -> Path:
    """The name that a file has without its compression."""
    path = Path(path)
    return path.with_suffix("") if path.suffix.lower() in (".gz", ".bz2", ".xz") else path


def files_in(folder: Path, extensions: Iterable[str], what: str) -> list[Path]:
    """The files of a folder with one of some extensions, compressed or not, by name.

    Raises:
        ValueError: there is none; `what` says what such files are.
    """
    known = list(extensions)
    files = [one for one in folder.iterdir() if uncompressed(one).suffix.lower() in known]
    if not files:
        raise ValueError(f"{folder}: no {what} in this folder ({', '.join(known)})")
    return sorted(files)


def numbered_lines(path: FilePath, comments: bool = False) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that are not blank, and not comments (#) unless asked for."""
    for line, text in read_lines(path, fspath(path)):
        text = text.strip()
        if text and (comments or not text.startswith("#")):
            yield line, text


def read_header(path: FilePath, text: str) -> tuple[str, str]:
    """Id and description in a header, with an energy before them or not.

    A header without an id gives the name of the file.

    >>> read_header("tiny.dbn", "ENERGY = -1.2  rna7 Bacillus subtilis")
    ('rna7', 'Bacillus subtilis')
    """
    id, description = split_header(ENERGY.sub("", text.strip()))
    return id or uncompressed(path).stem, description


def name_in_comment(text: str) -> str | None:
    """The name in a line ``#Name: name`` (bpRNA) or ``Filename: name.bpseq`` (CRW); None in others.

    >>> name_in_comment("Filename: d.5.b.E.coli.bpseq")
    'd.5.b.E.coli'
    """
    match = _NAME.match(text)
    return (match[1] or match[2]) if match else None


def parse_reactivity(path: FilePath, line: int, text: str, comma: bool = False) -> float:
    """A number of a file of reactivities; nothing, and NA, are NaN.

    Args:
        comma: as for `parse_decimal`.
    """
    try:
        return float("nan") if text.strip().upper() in ("NA", "") else parse_decimal(text, comma)
    except ValueError as error:
        problem = f"{error}; NaN or -999 stands for no data"
        raise InputError.at(path, line, problem) from None
