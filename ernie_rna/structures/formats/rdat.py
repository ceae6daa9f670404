"""RDAT, the files of the RNA Mapping Database.

The format: rmdb.stanford.edu/deposit/specs. rdat_kit 1.8.1 reads it too, but stops at a line
AREA_PEAK_ERROR, which files before 0.32 have, and drops the first digit of a position that has no
base before it.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ernie_rna.structures.formats.lines import numbered_lines, parse_number
from ernie_rna.structures.formats.structure import FilePath, StructureFormatError

# A keyword, in later versions with the number of the row behind a colon.
_KEYWORD = re.compile(r"([A-Z_]+)(?::(\d{0,9}))?(?:\s+(.*))?$")
_VALUES = ("REACTIVITY", "AREA_PEAK", "DATA")
_ROW_ANNOTATIONS = ("ANNOTATION_DATA", "DATA_ANNOTATION")
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_POSITION = re.compile(r"([A-Za-z]?)(-?[0-9]{1,9})$")


@dataclass
class _File:
    """What a file says of its one construct: keywords and rows, each with its line."""

    once: dict[str, tuple[int, str]] = field(default_factory=dict)
    values: dict[int, tuple[int, list[str]]] = field(default_factory=dict)
    sequences: dict[int, str] = field(default_factory=dict)


def read_rdat(path: FilePath) -> dict[str, np.ndarray]:
    """Reactivities by id, a number for each base of the sequence, NaN where a file has none.

    The id is the name of the file without extension; of several rows of data (replicates, mutants,
    conditions) `name.1`, `name.2` and so on, by the numbers that they have in the file. Position p
    of SEQPOS is base p - OFFSET, counted from 1.

    Raises:
        StructureFormatError: there are several constructs, something is missing, no number or there
            twice, or a position is beyond the sequence or has another base there.
    """
    told = _parse(path)
    for name in ("SEQUENCE", "SEQPOS"):
        if not _cells(told.once.get(name, (0, ""))[1]):
            raise StructureFormatError(path, 1, f"no line {name}")
    if not told.values:
        raise StructureFormatError(path, 1, f"no line {', '.join(_VALUES[:-1])} or {_VALUES[-1]}")
    sequence = told.once["SEQUENCE"][1].replace(" ", "")
    line, places = told.once["SEQPOS"]
    offset = _integer(path, *told.once.get("OFFSET", (1, "0")))
    bases: dict[int, str] = {}
    for place in _cells(places):
        base = _base(path, line, place, offset, sequence)
        if base in bases:
            raise StructureFormatError(path, line, f"{place} is in SEQPOS twice")
        bases[base] = place
    stem, several = Path(path).stem, len(told.values) > 1
    return {
        f"{stem}.{number}" if several else stem: _row(
            path, number, *told.values[number], list(bases), told.sequences.get(number, sequence)
        )
        for number in sorted(told.values)
    }


def _parse(path: FilePath) -> _File:
    told = _File()
    for line, text in numbered_lines(path):
        match = _KEYWORD.match(text)
        if match is None:
            raise StructureFormatError(path, line, f"{text[:40]!r} begins with no keyword")
        keyword, number, rest = match[1], match[2] or "", match[3] or ""
        if keyword in (*_VALUES, *_ROW_ANNOTATIONS) and not number:
            number, rest = [*rest.split(None, 1), "", ""][:2]
        if keyword in _VALUES:
            row = _integer(path, line, number)
            if row in told.values:
                raise StructureFormatError(path, line, f"row {row} is there already")
            told.values[row] = line, _cells(rest)
        elif keyword in _ROW_ANNOTATIONS:
            for annotation in rest.split():
                if annotation.startswith("sequence:"):
                    own = annotation.partition(":")[2]
                    told.sequences[_integer(path, line, number)] = own
        elif keyword == "SEQUENCE" and number:
            told.sequences[int(number)] = rest
        elif keyword in ("NAME", "SEQUENCE", "OFFSET", "SEQPOS"):
            if keyword in told.once:
                more = "; give each construct its own file" if keyword == "NAME" else ""
                raise StructureFormatError(path, line, f"a second line {keyword}{more}")
            told.once[keyword] = line, rest.strip()
    return told


def _base(path: FilePath, line: int, place: str, offset: int, sequence: str) -> int:
    """Which base of the construct an entry of SEQPOS names, counted from 0."""
    match = _POSITION.match(place)
    if match is None:
        raise StructureFormatError(path, line, f"{place[:40]!r} of SEQPOS is no position")
    base = int(match[2]) - offset - 1
    where = f"{place} with OFFSET {offset} is"
    if not 0 <= base < len(sequence):
        raise StructureFormatError(path, line, f"{where} none of {len(sequence)} bases")
    if match[1] and _as_rna(match[1]) != _as_rna(sequence[base]):
        raise StructureFormatError(
            path, line, f"{where} base {base + 1}, which is {sequence[base]}"
        )
    return base


def _row(
    path: FilePath, number: int, line: int, cells: list[str], bases: list[int], sequence: str
) -> np.ndarray:
    if len(cells) != len(bases):
        problem = f"row {number} has {len(cells)} values for {len(bases)} of SEQPOS"
        raise StructureFormatError(path, line, problem)
    if max(bases) >= len(sequence):
        problem = f"row {number} has {len(sequence)} bases, and SEQPOS names base {max(bases) + 1}"
        raise StructureFormatError(path, line, problem)
    values = np.full(len(sequence), np.nan)
    values[bases] = [parse_number(path, line, cell) for cell in cells]
    return values


def _as_rna(base: str) -> str:
    return base.upper().replace("T", "U")


def _cells(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _integer(path: FilePath, line: int, text: str) -> int:
    digits = text.strip()
    if not _INTEGER.fullmatch(digits):
        raise StructureFormatError(path, line, f"{text[:40]!r} is no whole number")
    return int(digits)
