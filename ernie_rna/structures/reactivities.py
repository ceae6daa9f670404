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
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from ernie_rna.structures.formats.lines import numbered_lines, parse_number, table_rows
from ernie_rna.structures.formats.rdat import read_rdat
from ernie_rna.structures.formats.structure import FilePath, Structure, StructureFormatError

# The bases that a reagent tells of.
PROBES = {"shape": "ACGU", "dms": "AC"}
SLOPE, INTERCEPT = 2.6, -0.8  # kcal/mol
_RT = 0.0019872 * 310.15  # kcal/mol
# RNAstructure's bound: lower values, -999 as a rule, stand for no data.
_NO_DATA = -500.0
_POSITION = re.compile(r"[0-9]{1,9}")
_COLUMNS = ("id", "position", "reactivity")
_BY_FILE = (".shape", ".map", ".rdat")


class _Sequence(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def sequence(self) -> str: ...


@dataclass(frozen=True)
class Probing:
    """The reactivities of some RNAs.

    Args:
        reactivities: by id, a number for each base; NaN and numbers up to -500 are no data, and
            other negative ones count as 0.
        probe: a key of `PROBES`.
        slope, intercept: of the pseudo-energy, in kcal/mol.

    Raises:
        ValueError: there is no such probe, or a reactivity is infinite.
    """

    reactivities: Mapping[str, Sequence[float] | np.ndarray]
    probe: str = "shape"
    slope: float = SLOPE
    intercept: float = INTERCEPT
    _values: dict[str, np.ndarray] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.probe not in PROBES:
            raise ValueError(f"probe must be one of {', '.join(PROBES)}; got {self.probe!r}")
        for id, given in self.reactivities.items():
            values = np.array(given, dtype=np.float64)
            if np.isinf(values).any():
                raise ValueError(f"{id}: a reactivity is infinite; NaN or -999 stands for no data")
            self._values[id] = np.where(values <= _NO_DATA, np.nan, values)

    def check(self, records: Iterable[_Sequence]) -> None:
        """Raise ValueError unless each record has a reactivity a base."""
        absent = []
        for record in records:
            if record.id not in self._values:
                absent.append(record.id)
            elif len(self._values[record.id]) != len(record.sequence):
                count = len(self._values[record.id])
                raise ValueError(
                    f"{record.id} has {len(record.sequence)} nt and {count} reactivities; write "
                    "-999 where there is no data"
                )
        if absent:
            shown = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
            raise ValueError(
                f"no reactivities of {len(absent)} sequences: {shown}; leave these out of the "
                "input, or give them lines of -999"
            )

    def of(self, record: _Sequence) -> np.ndarray:
        """The reactivities of a record, (length,), NaN where there is no data.

        Raises:
            ValueError: there are none of it, or not as many as it has bases.
        """
        self.check([record])
        told = [base in PROBES[self.probe] for base in record.sequence.upper().replace("T", "U")]
        return np.where(told, self._values[record.id], np.nan)

    def log_odds(self, record: _Sequence) -> np.ndarray:
        """By how much each base raises the log-odds of its pairs: (length,), 0 without data.

        >>> probing = Probing({"tiny": [0.0, 1.0, -999]})
        >>> probing.log_odds(Structure("tiny", "GGG", [])).round(2).tolist()
        [1.3, -1.63, 0.0]
        """
        energies = self.slope * np.log1p(np.maximum(self.of(record), 0.0)) + self.intercept
        return np.nan_to_num(-energies / _RT)


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
    unpaired, others = reactivities[known & ~paired], reactivities[known & paired]
    if not (len(unpaired) and len(others)):
        return float("nan")
    higher = (unpaired[:, None] > others).mean() + (unpaired[:, None] == others).mean() / 2
    return float(higher)


def read_reactivities(path: FilePath) -> dict[str, np.ndarray]:
    """Reactivities by id, from a file or a folder.

    Args:
        path: a .tsv with the columns id, position (from 1) and reactivity; or a .shape or .map file
            as RNAstructure and ShapeMapper write them, whose lines begin with position and
            reactivity, of the RNA that the file is called after; or a .rdat file of the RNA Mapping
            Database, see :func:`~ernie_rna.structures.formats.rdat.read_rdat`; or a folder of files
            of these three kinds.

    Returns:
        For each id a number for each base, as in the file.

    Raises:
        ValueError: the extension is none of these, or the folder has no such file, or two of the
            same id.
        StructureFormatError: a line has no position or no number, or a position is missing or
            there twice; or what `read_rdat` says.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() not in (".tsv", *_BY_FILE):
        raise ValueError(f"{path}: the extension must be one of .tsv, {', '.join(_BY_FILE)}")
    if path.suffix.lower() == ".rdat":
        return read_rdat(path)
    rows = _table_rows(path) if path.suffix.lower() == ".tsv" else _file_rows(path)
    found: dict[str, dict[int, float]] = {}
    for line, id, position, reactivity in rows:
        values = found.setdefault(id, {})
        place = _position(path, line, position)
        if place in values:
            raise StructureFormatError(path, line, f"position {place} of {id} is there already")
        values[place] = parse_number(path, line, reactivity)
    if not found:
        raise StructureFormatError(path, 1, "no reactivities in this file")
    return {id: _in_order(path, id, values) for id, values in found.items()}


def _read_folder(path: Path) -> dict[str, np.ndarray]:
    files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in _BY_FILE]
    if not files:
        raise ValueError(f"{path}: no file of reactivities in it ({', '.join(_BY_FILE)})")
    found: dict[str, np.ndarray] = {}
    for file in files:
        for id, values in read_reactivities(file).items():
            if id in found:
                raise ValueError(f"{file}: another file of {path} has reactivities of {id}")
            found[id] = values
    return found


_Row = tuple[int, str, str, str]


def _table_rows(path: Path) -> Iterator[_Row]:
    for line, row in table_rows(path, _COLUMNS):
        id, position, reactivity = (row[name] or "" for name in _COLUMNS)
        yield line, id, position, reactivity


def _file_rows(path: Path) -> Iterator[_Row]:
    for line, text in numbered_lines(path):
        position, reactivity, *_ = [*text.split(), "", ""]
        yield line, path.stem, position, reactivity


def _position(path: Path, line: int, text: str) -> int:
    digits = text.strip()
    if not _POSITION.fullmatch(digits) or int(digits) < 1:
        raise StructureFormatError(path, line, f"{text[:40]!r} is no position, which count from 1")
    return int(digits)


def _in_order(path: Path, id: str, values: dict[int, float]) -> np.ndarray:
    for place in range(1, len(values) + 1):
        if place not in values:
            raise StructureFormatError(
                path, 1, f"position {place} of {id} is missing; write -999 where there is no data"
            )
    return np.array([values[place] for place in range(1, len(values) + 1)])
