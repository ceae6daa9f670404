"""Lines of the structure files that other programs write."""

import re
from collections.abc import Iterator

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
