"""RDAT, the files of the RNA Mapping Database, versions 0.2 to 0.4.

The format: rmdb.stanford.edu/deposit/specs. rdat_kit 1.8.1 reads it too, but stops at
a line AREA_PEAK_ERROR, which files before 0.32 have, and drops the first digit of a position that
has no base before it.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ernie_rna.structures.formats.lines import numbered_lines
from ernie_rna.structures.formats.structure import FilePath, StructureFormatError

# A keyword, in later versions with the number of the row behind a colon.
_KEYWORD = re.compile(r"([A-Z_]+)(?::(\d+))?(?:\s+(.*))?$")
_VALUES = ("REACTIVITY", "AREA_PEAK", "DATA")
_ROW_ANNOTATIONS = ("ANNOTATION_DATA", "DATA_ANNOTATION")
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_POSITION = re.compile(r"([A-Za-z]?)(-?[0-9]{1,9})$")


@dataclass
class _File:
    """What a file says of its one construct; rows by their number, each with its line."""

    sequence: str | None = None
    offset: int = 0
    positions: tuple[int, list[str]] | None = None
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
    if told.sequence is None or told.positions is None:
        name = "SEQUENCE" if told.sequence is None else "SEQPOS"
        raise StructureFormatError(path, 1, f"no line {name}")
    if not told.values:
        raise StructureFormatError(path, 1, f"no line {', '.join(_VALUES[:-1])} or {_VALUES[-1]}")
    stem, several = Path(path).stem, len(told.values) > 1
    return {
        f"{stem}.{number}" if several else stem: _row(
            path, told, number, told.sequence, told.positions
        )
        for number in sorted(told.values)
    }


def _parse(path: FilePath) -> _File:
    told, named = _File(), False
    for line, text in numbered_lines(path):
        match = _KEYWORD.match(text)
        if match is None:
            raise StructureFormatError(path, line, f"{text[:40]!r} begins with no keyword")
        keyword, number, rest = match[1], match[2], match[3] or ""
        if keyword == "NAME":
            if named:
                raise StructureFormatError(path, line, "a second construct; give each its own file")
            named = True
        elif keyword == "SEQUENCE" and number is None:
            told.sequence = _once(path, line, keyword, told.sequence, rest).replace(" ", "")
        elif keyword == "OFFSET":
            told.offset = _integer(path, line, rest)
        elif keyword == "SEQPOS":
            cells = _once(path, line, keyword, told.positions, rest)
            told.positions = line, _cells(cells)
        elif keyword in (*_VALUES, *_ROW_ANNOTATIONS):
            if number is None:
                number, _, rest = rest.partition(" ") if "\t" not in rest else rest.partition("\t")
            row = _integer(path, line, number)
            if keyword in _VALUES:
                if row in told.values:
                    raise StructureFormatError(path, line, f"row {row} is there already")
                told.values[row] = line, _cells(rest)
            else:
                for annotation in rest.split():
                    if annotation.startswith("sequence:"):
                        told.sequences[row] = annotation.partition(":")[2]
    return told


def _row(
    path: FilePath, told: _File, number: int, construct: str, seqpos: tuple[int, list[str]]
) -> np.ndarray:
    line, cells = told.values[number]
    at, places = seqpos
    if len(cells) != len(places):
        raise StructureFormatError(
            path, line, f"row {number} has {len(cells)} values for {len(places)} of SEQPOS"
        )
    sequence = told.sequences.get(number, construct)
    values = np.full(len(sequence), np.nan)
    taken: set[int] = set()
    for place, cell in zip(places, cells, strict=True):
        match = _POSITION.match(place)
        if match is None:
            raise StructureFormatError(path, at, f"{place!r} of SEQPOS is no position")
        index = int(match[2]) - told.offset - 1
        if not 0 <= index < len(sequence):
            raise StructureFormatError(
                path, at, f"{place} with OFFSET {told.offset} is none of {len(sequence)} bases"
            )
        if index in taken:
            raise StructureFormatError(path, at, f"{place} is in SEQPOS twice")
        base = construct[index : index + 1]
        if match[1] and _as_rna(match[1]) != _as_rna(base):
            raise StructureFormatError(
                path, at, f"{place} with OFFSET {told.offset} is base {index + 1}, which is {base}"
            )
        taken.add(index)
        values[index] = _value(path, line, cell)
    return values


def _as_rna(base: str) -> str:
    return base.upper().replace("T", "U")


def _cells(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _once(path: FilePath, line: int, keyword: str, before: object, text: str) -> str:
    if before is not None:
        raise StructureFormatError(path, line, f"a second line {keyword}")
    return text


def _integer(path: FilePath, line: int, text: str) -> int:
    digits = text.strip()
    if not _INTEGER.fullmatch(digits):
        raise StructureFormatError(path, line, f"{text[:40]!r} is no whole number")
    return int(digits)


def _value(path: FilePath, line: int, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise StructureFormatError(path, line, f"{text!r} is no number") from None
