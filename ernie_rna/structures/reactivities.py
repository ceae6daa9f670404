"""Reactivities of chemical probing: their files, what they say of pairs, and how well they fit.

A base that a reagent modifies is likely unpaired. By Deigan et al. (PNAS 106:97-102, 2009) a base
of reactivity r that is in a pair costs the pseudo-energy

    E(r) = slope * ln(r + 1) + intercept                      in kcal/mol

with 2.6 and -0.8 for SHAPE, so that bases without reactivity gain and others lose. Cordero et al.
(Biochemistry 51:7037-7039, 2012) carried this framework over to DMS. DMS tells of A and C alone,
so with it G and U count as without data; the constants are the same, fitted to SHAPE.

At 37 degrees an energy of E lowers the log-odds of a pair by E / RT, with RT = 0.616 kcal/mol, and
each pair has two bases: a pair's logit changes by -(E_i + E_j) / RT, divided by the slope from
logits to log-odds of the model (see `calibration`; 1 for attention scores, which are no logits,
so that there the size of the shift is a convention). Deigan et al. add the energies to each stack
of pairs, which counts the pairs inside of a stem twice; here each counts once.

RDAT is the format of the RNA Mapping Database, rmdb.stanford.edu/deposit/specs. rdat_kit 1.8.1
reads it too, but stops at a line AREA_PEAK_ERROR, which files before 0.32 have, and drops the first
digit of a position that has no base before it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from ernie_rna.options import ProbingOptions
from ernie_rna.sequences.fasta import FastaRecord, FilePath, InputError, split_header, to_rna
from ernie_rna.sequences.tables import TABLES, find_form, parse_decimal, read_rows
from ernie_rna.structures.formats.by_extension import (
    files_at,
    named_after,
    numbered_lines,
    read_by_id,
)
from ernie_rna.structures.formats.structure import Structure, differing_base

# The bases that a reagent tells of.
_PROBES = {"shape": "ACGU", "dms": "AC"}
_RT = 0.0019872 * 310.15  # kcal/mol
# RNAstructure's bound: lower values, -999 as a rule, stand for no data.
_NO_DATA = -500.0
_FILES = (*TABLES, ".shape", ".react", ".map", ".rdat")
_POSITIONS = 999_999  # at most; of what is no RNA, more would be filled up in memory

# A keyword of RDAT, in later versions with the number of the row behind a colon.
_KEYWORD = re.compile(r"([A-Z_]+)(?::(\d{0,9}))?(?:\s+(.*))?$")
_VALUES = ("REACTIVITY", "AREA_PEAK", "DATA")
_ROW_ANNOTATIONS = ("ANNOTATION_DATA", "DATA_ANNOTATION")
_OWN_SEQUENCE = re.compile(r"(?<!\S)sequence:(\S*)")
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_PLACE = re.compile(r"([A-Za-z]?)(-?[0-9]{1,9})")


class Profile(NamedTuple):
    """The reactivities of one RNA as a file has them.

    Attributes:
        values: (length,), a number for each base; NaN and numbers up to -500 are no data.
        bases: a letter for each base, N where the file names none; "" where it never does.
    """

    values: np.ndarray
    bases: str = ""


Reactivities = Mapping[str, Profile | Sequence[float] | np.ndarray]
Record = TypeVar("Record", FastaRecord, Structure)


class Probing:
    """The reactivities of some RNAs, and what they say of bases.

    Args:
        reactivities: by id, a profile or a number for each base; negative ones count as 0 where
            they are data. Or a file or folder, as `read_reactivities` takes it.
        options: reagent and constants.

    Raises:
        InputError: reactivities are no row of numbers, or one is infinite.
        ValueError: as `read_reactivities`.
    """

    def __init__(
        self,
        reactivities: Reactivities | FilePath,
        options: ProbingOptions = ProbingOptions(),  # noqa: B008  # It is frozen.
    ):
        if isinstance(reactivities, (str, PathLike)):
            reactivities = read_reactivities(reactivities)
        if not isinstance(reactivities, Mapping):
            what = type(reactivities).__name__
            raise InputError(f"reactivities must be a file or folder, or by id; got a {what}")
        self._options = options
        self._profiles: dict[str, Profile] = {}
        for id, given in reactivities.items():
            row, bases = given if isinstance(given, Profile) else (given, "")
            try:
                values = np.ma.array(row, dtype=np.float64).filled(np.nan)  # NaN where masked
            except (TypeError, ValueError) as error:
                raise InputError(f"{id}: its reactivities are no numbers: {error}") from None
            if values.ndim != 1:
                raise InputError(
                    f"{id}: its reactivities must be one for each base; got shape {values.shape}"
                )
            if np.isinf(values).any():
                raise InputError(f"{id}: a reactivity is infinite; write NaN or -999 for no data")
            self._profiles[id] = Profile(np.where(values <= _NO_DATA, np.nan, values), bases)

    @property
    def line(self) -> tuple[float, float]:
        """Slope and intercept of the pseudo-energy, in kcal/mol."""
        return self._options.reactivity_slope, self._options.reactivity_intercept

    @property
    def digest(self) -> str:
        """The sha256 of all that the results depend on."""
        options = self._options
        digest = hashlib.sha256(
            f"{options.probe} {options.reactivity_slope} {options.reactivity_intercept}".encode()
        )
        for id, (values, _) in sorted(self._profiles.items()):
            digest.update(f"{id} {len(values)}\n".encode() + values.tobytes())
        return digest.hexdigest()

    def check(self, records: Iterable[Record]) -> Iterator[Record]:
        """Pass records on; InputError unless each has a reactivity a base, and the file's bases."""
        absent = []
        for record in records:
            yield record
            if record.id not in self._profiles:
                absent.append(record.id)
                continue
            values, bases = self._profiles[record.id]
            if len(values) != len(record.sequence):
                raise InputError(
                    f"{record.id} has {len(record.sequence)} nt and {len(values)} reactivities; "
                    "write -999 where there is no data"
                )
            place = differing_base(bases, record.sequence)
            if place is not None:
                raise InputError(
                    f"base {place + 1} of {record.id} is {record.sequence[place]}, and "
                    f"{bases[place]} in its reactivities"
                )
        if absent:
            shown, there = (
                ", ".join(ids[:5]) + ", …" * (len(ids) > 5) for ids in (absent, [*self._profiles])
            )
            raise InputError(
                f"no reactivities of {len(absent)} sequences: {shown}; remove these from the "
                f"input, or give them lines of -999; there are reactivities of {there} (files are "
                "named after their RNA)"
            )

    def of(self, record: Record) -> np.ndarray:
        """The reactivities of a record, (length,), NaN where there is no data.

        Raises:
            InputError: there are none of it, or not as many as it has bases.
        """
        list(self.check([record]))
        bases = to_rna(record.sequence)
        told = [base in _PROBES[self._options.probe] for base in bases]
        return np.where(told, self._profiles[record.id].values, np.nan)

    def log_odds(self, record: Record) -> np.ndarray:
        """By how much each base raises the log-odds of its pairs: (length,), 0 without data.

        >>> probing = Probing({"tiny": [0.0, 1.0, -999]})
        >>> probing.log_odds(Structure("tiny", "GGG", [])).round(2).tolist()
        [1.3, -1.63, 0.0]
        """
        slope, intercept = self.line
        energies = slope * np.log1p(np.maximum(self.of(record), 0.0)) + intercept
        return np.nan_to_num(-energies / _RT)

    def fits(self, structures: Sequence[Structure]) -> list[float]:
        """How well each structure fits, see `unpaired_auc`; InputError as `check`."""
        return [unpaired_auc(one, self.of(one)) for one in list(self.check(structures))]


def unpaired_auc(structure: Structure, reactivities: np.ndarray) -> float:
    """How well reactivities tell the unpaired bases of a structure from the paired ones.

    It is the area under the ROC curve: the probability that of an unpaired and a paired base the
    unpaired one is the more reactive, ties counting half. 0.5 is chance. Only the order of the
    reactivities counts, which have no common scale and a few very large values.

    Args:
        structure: of a sequence.
        reactivities: (length,), NaN where there is no data.

    Returns:
        NaN where the bases with data are all paired or all unpaired.

    >>> unpaired_auc(Structure("tiny", "GAAAC", [(0, 4)]), np.array([0.1, 2.0, np.nan, 0.1, 0.0]))
    0.875
    """
    paired = np.array(structure.partners) > 0
    known = ~np.isnan(reactivities)
    unpaired, others = reactivities[known & ~paired], np.sort(reactivities[known & paired])
    if not (len(unpaired) and len(others)):
        return float("nan")
    lower, not_higher = (np.searchsorted(others, unpaired, side) for side in ("left", "right"))
    return float(((lower + not_higher) / 2).mean() / len(others))


def read_reactivities(path: FilePath) -> dict[str, Profile]:
    """Reactivities by id, from a file or a folder; positions left out have no data.

    Args:
        path: a .tsv or .csv with the columns id, position (from 1), reactivity and, if there is
            one, base; or a .shape, .react or .map file as RNAstructure, ShapeMapper and ViennaRNA
            write them, whose lines begin with position and reactivity, or position, base and
            reactivity, of the RNA that the file is called after, or, as patteRNA writes them, a
            line >id and one with the reactivities of all bases, for each RNA; or a .rdat file of
            the RNA Mapping Database, see `read_rdat`; or a folder of such files.

    Raises:
        ValueError: the extension is none of these, or the folder has no such file.
        InputError: a line has no position or no number, or a position or id is there twice; or what
            `tables.read_rows` and `read_rdat` say.
    """
    files = files_at(path, _FILES, "expected a file of reactivities")
    return read_by_id(files, "reactivities", _read)


def _read(path: Path, suffix: str) -> dict[str, Profile]:
    if suffix == ".rdat":
        return read_rdat(path)
    found: dict[str, dict[int, tuple[str, float]]] = {}
    for line, id, position, base, reactivity in _rows(path, suffix in TABLES):
        own = found.setdefault(id, {})
        if not (position.isdecimal() and len(position) <= 6 and int(position) >= 1):
            problem = f"{position[:40]!r} is no position, which count from 1 to {_POSITIONS}"
            raise InputError.at(path, line, problem)
        if int(position) in own:
            raise InputError.at(path, line, f"position {int(position)} of {id} is there already")
        own[int(position)] = base, reactivity
    if not found:
        raise InputError.at(path, 1, "no reactivities in this file")
    return {id: _profile(own) for id, own in found.items()}


def _profile(own: Mapping[int, tuple[str, float]]) -> Profile:
    places = range(1, max(own) + 1)
    bases, values = zip(*(own.get(place, ("N", np.nan)) for place in places), strict=True)
    return Profile(np.array(values), "".join(bases))


def _rows(path: Path, is_table: bool) -> Iterator[tuple[int, str, str, str, float]]:
    """Line, id, position, base ("N" where none is named) and reactivity."""
    if is_table:
        form = find_form(path)
        for line, row in read_rows(path, ("id", "position", "reactivity"), form):
            value = _reactivity(path, line, row["reactivity"], form.comma)
            base = row.get("base") or "N"
            if len(base) != 1:
                raise InputError.at(path, line, f"a base is one letter, not {base[:40]!r}")
            yield line, split_header(row["id"])[0], row["position"], base, value
        return
    id = named_after(path)
    lines = numbered_lines(path)
    for line, text in lines:
        if text.startswith(">"):
            id, _ = split_header(text[1:])
            line, text = next(lines, (line, ""))
            for place, cell in enumerate(text.split(), 1):
                yield line, id, str(place), "N", _reactivity(path, line, cell, "," in cell)
            continue
        position, *cells = text.split()
        base = next((cell for cell in cells if len(cell) == 1 and cell.isalpha()), "")
        number = next((cell for cell in cells if cell != base), "")
        yield line, id, position, base or "N", _reactivity(path, line, number, "," in number)


def _reactivity(path: FilePath, line: int, text: str, comma: bool = False) -> float:
    """A number; nothing, and NA, are NaN."""
    try:
        return float("nan") if text.strip().upper() in ("NA", "") else parse_decimal(text, comma)
    except ValueError as error:
        problem = f"{error}; write NaN or -999 for no data"
        raise InputError.at(path, line, problem) from None


def read_rdat(path: FilePath) -> dict[str, Profile]:
    """Reactivities by id, a number for each base of the sequence, NaN where a file has none.

    The id is the name of the file without extension; of several rows of data (replicates, mutants,
    conditions) `name.1`, `name.2` and so on, by the numbers that they have in the file. Position p
    of SEQPOS is base p - OFFSET, counted from 1.

    Raises:
        InputError: there are several constructs, something is missing, no number or there twice, or
            a position is beyond the sequence or has another base there.
    """
    found: dict[tuple[str, str], tuple[int, str]] = {}  # by keyword and number of the row, or ""
    for line, text in numbered_lines(path):
        match = _KEYWORD.match(text)
        if match is None:
            raise InputError.at(path, line, f"{text[:40]!r} begins with no keyword")
        keyword, number, rest = match[1], match[2] or "", (match[3] or "").replace(",", " ").strip()
        if keyword in (*_VALUES, *_ROW_ANNOTATIONS):
            number, rest = (number, rest) if number else split_header(rest)
            number = str(_integer(path, line, number))
        if keyword in _ROW_ANNOTATIONS:
            own = _OWN_SEQUENCE.search(match[3] or "")
            found |= {("SEQUENCE", number): (line, own[1])} if own else {}
        elif keyword in ("NAME", "SEQUENCE", "OFFSET", "SEQPOS", *_VALUES):
            number *= keyword in ("SEQUENCE", *_VALUES)
            key = ("row" if keyword in _VALUES else keyword, number)
            if key in found:
                problem = f"a second {' '.join(key).strip()}; give each construct its own file"
                raise InputError.at(path, line, problem)
            found[key] = line, rest
    numbers = sorted(int(number) for kind, number in found if kind == "row")
    line, places = found.get(("SEQPOS", ""), (1, ""))
    _, sequence = found.get(("SEQUENCE", ""), (1, ""))
    needed = {"SEQUENCE": sequence, "SEQPOS": places, " or ".join(_VALUES): numbers}
    for name, there in needed.items():
        if not there:
            raise InputError.at(path, 1, f"no line {name}")
    offset = _integer(path, *found.get(("OFFSET", ""), (1, "0")))
    bases = _bases(path, line, places, offset, sequence.replace(" ", ""))
    stem, profiles = named_after(path), {}
    for number in numbers:
        line, text = found["row", str(number)]
        _, own_sequence = found.get(("SEQUENCE", str(number)), (1, sequence))
        cells, length = text.split(), len(own_sequence.replace(" ", ""))
        if len(cells) != len(bases):
            problem = f"row {number} has {len(cells)} values for {len(bases)} of SEQPOS"
            raise InputError.at(path, line, problem)
        if max(bases) >= length:
            problem = f"row {number} has {length} bases, and SEQPOS names base {max(bases) + 1}; "
            problem += "if its sequence is of a primer, take that annotation out"
            raise InputError.at(path, line, problem)
        values = np.full(length, np.nan)
        values[bases] = [_reactivity(path, line, cell) for cell in cells]
        profiles[f"{stem}.{number}" if len(numbers) > 1 else stem] = Profile(values)
    return profiles


def _bases(path: FilePath, line: int, places: str, offset: int, sequence: str) -> list[int]:
    """Which bases of the construct the entries of SEQPOS name, counted from 0."""
    bases: dict[int, None] = {}
    for place in places.split():
        match = _PLACE.fullmatch(place)
        base = int(match[2]) - offset - 1 if match else -1
        if match is None or not 0 <= base < len(sequence):
            problem = f"is none of {len(sequence)} bases"
        elif differing_base(match[1], sequence[base]) is not None:
            problem = f"is base {base + 1}, which is {sequence[base]}"
        elif base in bases:
            problem = "is in SEQPOS twice"
        else:
            bases[base] = None
            continue
        raise InputError.at(path, line, f"{place[:40]!r} with OFFSET {offset} {problem}")
    return [*bases]


def _integer(path: FilePath, line: int, text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise InputError.at(path, line, f"{text[:40]!r} is no whole number")
    return int(text)
