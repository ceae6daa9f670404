"""RDAT, the files of the RNA Mapping Database.

The format: rmdb.stanford.edu/deposit/specs. rdat_kit 1.8.1 reads it too, but stops at a line
AREA_PEAK_ERROR, which files before 0.32 have, and drops the first digit of a position that has no
base before it.
"""

import re
from dataclasses import dataclass, field

import numpy as np

from ernie_rna.sequences.fasta import FilePath, InputError
from ernie_rna.structures.formats.lines import numbered_lines, parse_reactivity, uncompressed
from ernie_rna.structures.formats.structure import differing_base

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
        InputError: there are several constructs, something is missing, no number or there twice, or
            a position is beyond the sequence or has another base there.
    """
    file = _parse(path)
    for name in ("SEQUENCE", "SEQPOS"):
        if not _cells(file.once.get(name, (0, ""))[1]):
            raise InputError.at(path, 1, f"no line {name}")
    if not file.values:
        raise InputError.at(path, 1, f"no line {', '.join(_VALUES[:-1])} or {_VALUES[-1]}")
    sequence = file.once["SEQUENCE"][1].replace(" ", "")
    line, places = file.once["SEQPOS"]
    offset = _integer(path, *file.once.get("OFFSET", (1, "0")))
    bases: dict[int, str] = {}
    for place in _cells(places):
        base = _base(path, line, place, offset, sequence)
        if base in bases:
            raise InputError.at(path, line, f"{place} is in SEQPOS twice")
        bases[base] = place
    stem = uncompressed(path).stem
    found = {}
    for number, (line, cells) in sorted(file.values.items()):
        id = f"{stem}.{number}" if len(file.values) > 1 else stem
        own = file.sequences.get(number, sequence)
        found[id] = _row(path, number, line, cells, list(bases), own)
    return found


def _parse(path: FilePath) -> _File:
    file = _File()
    for line, text in numbered_lines(path):
        match = _KEYWORD.match(text)
        if match is None:
            raise InputError.at(path, line, f"{text[:40]!r} begins with no keyword")
        keyword, number, rest = match[1], match[2] or "", match[3] or ""
        if keyword in (*_VALUES, *_ROW_ANNOTATIONS) and not number:
            number, rest = [*rest.split(None, 1), "", ""][:2]
        if keyword in _VALUES:
            row = _integer(path, line, number)
            if row in file.values:
                raise InputError.at(path, line, f"row {row} is there already")
            file.values[row] = line, _cells(rest)
        elif keyword in _ROW_ANNOTATIONS:
            for annotation in rest.split():
                if annotation.startswith("sequence:"):
                    own = annotation.partition(":")[2]
                    file.sequences[_integer(path, line, number)] = own
        elif keyword == "SEQUENCE" and number:
            file.sequences[int(number)] = rest
        elif keyword in ("NAME", "SEQUENCE", "OFFSET", "SEQPOS"):
            if keyword in file.once:
                more = "; give each construct its own file" if keyword == "NAME" else ""
                raise InputError.at(path, line, f"a second line {keyword}{more}")
            file.once[keyword] = line, rest.strip()
    return file


def _base(path: FilePath, line: int, place: str, offset: int, sequence: str) -> int:
    """Which base of the construct an entry of SEQPOS names, counted from 0."""
    match = _POSITION.match(place)
    if match is None:
        raise InputError.at(path, line, f"{place[:40]!r} of SEQPOS is no position")
    base = int(match[2]) - offset - 1
    where = f"{place} with OFFSET {offset} is"
    if not 0 <= base < len(sequence):
        raise InputError.at(path, line, f"{where} none of {len(sequence)} bases")
    if differing_base(match[1], sequence[base]) is not None:
        raise InputError.at(path, line, f"{where} base {base + 1}, which is {sequence[base]}")
    return base


def _row(
    path: FilePath, number: int, line: int, cells: list[str], bases: list[int], sequence: str
) -> np.ndarray:
    if len(cells) != len(bases):
        problem = f"row {number} has {len(cells)} values for {len(bases)} of SEQPOS"
        raise InputError.at(path, line, problem)
    if max(bases) >= len(sequence):
        problem = f"row {number} has {len(sequence)} bases, and SEQPOS names base {max(bases) + 1}"
        raise InputError.at(path, line, problem)
    values = np.full(len(sequence), np.nan)
    values[bases] = [parse_reactivity(path, line, cell) for cell in cells]
    return values


def _cells(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _integer(path: FilePath, line: int, text: str) -> int:
    digits = text.strip()
    if not _INTEGER.fullmatch(digits):
        raise InputError.at(path, line, f"{text[:40]!r} is no whole number")
    return int(digits)
