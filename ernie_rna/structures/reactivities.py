"""Reactivities of chemical probing: reading them, their effect on pairs, and how well they fit.

A base that a reagent modifies is likely unpaired. According to Deigan et al. (PNAS 106:97-102,
2009), a paired base of reactivity r costs the pseudo-energy

    E(r) = slope * ln(r + 1) + intercept                      in kcal/mol

with 2.6 and -0.8 for SHAPE: pairing is favoured for unreactive bases and penalised for reactive
ones. Cordero et al. (Biochemistry 51:7037-7039, 2012) applied the same framework to DMS. DMS probes
only A and C, so G and U then count as without data; the constants stay those fitted to SHAPE.

At 37 degrees an energy E lowers the log-odds of a pair by E / RT, with RT = 0.616 kcal/mol, and
each pair has two bases: a pair's logit changes by -(E_i + E_j) / RT, divided by the model's slope
from logits to log-odds (see `confidence`). For attention scores, which are not logits, the slope is
1 and the size of the shift is a convention. Deigan et al. add the energies to each stack of pairs,
which counts the pairs inside a stem twice; here each pair counts once.

RDAT is the format of the RNA Mapping Database, rmdb.stanford.edu/deposit/specs. rdat_kit 1.8.1
reads it too, but fails at a line AREA_PEAK_ERROR, which files before 0.32 have, and drops the first
digit of a position that has no base before it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ernie_rna.options import ProbingOptions
from ernie_rna.sequences.fasta import FastaRecord, FilePath, InputError, some, split_header, to_rna
from ernie_rna.sequences.tables import TABLES, find_form, parse_decimal, read_rows
from ernie_rna.structures.formats.by_extension import (
    files_at,
    named_after,
    numbered_lines,
    read_by_id,
)
from ernie_rna.structures.formats.structure import Structure, differing_base

_PROBES = {"shape": "ACGU", "dms": "AC"}  # the bases that each reagent probes
_RT = 0.0019872 * 310.15  # kcal/mol
# RNAstructure's bound: values up to it, usually -999, mean no data.
_NO_DATA = -500.0
_FILES = (*TABLES, ".shape", ".react", ".map", ".rdat")
_MAX_POSITION = 999_999  # the largest position; an absurd one would fill the memory with gaps

# A keyword of RDAT, in later versions followed by a colon and the number of the row.
_KEYWORD = re.compile(r"([A-Z_]+)(?::(\d{0,9}))?(?:\s+(.*))?$")
_VALUES = ("REACTIVITY", "AREA_PEAK", "DATA")
_ROW_ANNOTATIONS = ("ANNOTATION_DATA", "DATA_ANNOTATION")
_ROW_SEQUENCE = re.compile(r"(?<!\S)sequence:(\S*)")
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_POSITION = re.compile(r"([A-Za-z]?)(-?[0-9]{1,9})")


class Profile(NamedTuple):
    """The reactivities of one RNA, as read from a file.

    Attributes:
        values: (length,), a number for each base; NaN and numbers up to -500 mean no data.
        bases: a letter for each base, N if the file names none for it; "" if it names none at all.
    """

    values: np.ndarray
    bases: str = ""


Reactivities = Mapping[str, Profile | Sequence[float] | np.ndarray]
Record = TypeVar("Record", FastaRecord, Structure)


class Probing:
    """The reactivities of a set of RNAs, and their effect on the bases.

    Args:
        reactivities: maps an id to a profile or to a number for each base, of which negative ones
            above -500 count as 0; or a file or folder, as for `read_reactivities`.
        options: reagent and constants.

    Raises:
        InputError: the reactivities of an id are not one row of numbers, or one is infinite.
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
            kind = type(reactivities).__name__
            raise InputError(f"reactivities must be a file, a folder or a mapping; got a {kind}")
        self._options = options
        self._profiles: dict[str, Profile] = {}
        for id, profile in reactivities.items():
            row, bases = profile if isinstance(profile, Profile) else (profile, "")
            values = as_numbers(row, f"{id}: its reactivities")
            if values.ndim != 1:
                raise InputError(
                    f"{id}: it must have one reactivity for each base; got shape {values.shape}"
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
        """sha256 of everything that the results depend on."""
        slope, intercept = self.line
        digest = hashlib.sha256(f"{self._options.probe} {slope} {intercept}".encode())
        for id, (values, _) in sorted(self._profiles.items()):
            digest.update(f"{id} {len(values)}\n".encode() + values.tobytes())
        return digest.hexdigest()

    def check(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records; raise InputError unless each has a reactivity for every base, and the
        bases that the reactivities name."""
        missing = []
        for record in records:
            yield record
            if record.id not in self._profiles:
                missing.append(record.id)
                continue
            values, bases = self._profiles[record.id]
            if len(values) != len(record.sequence):
                raise InputError(
                    f"{record.id} has {len(record.sequence)} nt but {len(values)} reactivities; "
                    "write -999 for bases without data"
                )
            index = differing_base(bases, record.sequence)
            if index is not None:
                raise InputError(
                    f"base {index + 1} of {record.id} is {record.sequence[index]}, but "
                    f"{bases[index]} in its reactivities"
                )
        if missing:
            raise InputError(
                f"no reactivities for {len(missing)} of the sequences: {some(missing)}; remove "
                "these from the input, or write -999 for each of their bases. There are "
                f"reactivities for {some(self._profiles)} (files are named after their RNA)"
            )

    def of(self, record: Record) -> np.ndarray:
        """The reactivities of a record, (length,), NaN where there is no data.

        Raises:
            InputError: as `check`.
        """
        list(self.check([record]))
        probed = _PROBES[self._options.probe]
        is_probed = [base in probed for base in to_rna(record.sequence)]
        return np.where(is_probed, self._profiles[record.id].values, np.nan)

    def log_odds(self, record: Record) -> np.ndarray:
        """Change of the log-odds of pairs by each of their bases: (length,), 0 without data.

        >>> probing = Probing({"tiny": [0.0, 1.0, -999]})
        >>> probing.log_odds(Structure("tiny", "GGG", [])).round(2).tolist()
        [1.3, -1.63, 0.0]
        """
        slope, intercept = self.line
        energies = slope * np.log1p(np.maximum(self.of(record), 0.0)) + intercept
        return np.nan_to_num(-energies / _RT)

    def fits(self, structures: Sequence[Structure]) -> list[float]:
        """How well each structure fits, see `unpaired_auc`; raises InputError as `check`."""
        return [unpaired_auc(known, self.of(known)) for known in list(self.check(structures))]


def as_numbers(values: Any, what: str) -> np.ndarray:
    """Convert what a caller gave to float64, NaN where it is masked.

    Raises:
        InputError: the values are not real numbers; the message begins with `what`.
    """
    try:
        if np.iscomplexobj(values):
            raise TypeError("they are complex")
        return np.ma.array(values, dtype=np.float64).filled(np.nan)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} are not numbers: {error}") from None


def unpaired_auc(structure: Structure, reactivities: np.ndarray) -> float:
    """How well reactivities separate the unpaired bases of a structure from the paired ones.

    This is the area under the ROC curve: the probability that an unpaired base is more reactive
    than a paired one, with ties counting half. 0.5 is chance. Only the order of the reactivities
    matters, because they have no common scale and a few very large values.

    Args:
        reactivities: (length,), NaN where there is no data.

    Returns:
        From 0 to 1; NaN if the bases with data are all paired or all unpaired.

    >>> unpaired_auc(Structure("tiny", "GAAAC", [(0, 4)]), np.array([0.1, 2.0, np.nan, 0.1, 0.0]))
    0.875
    """
    is_paired = np.array(structure.partners) > 0
    has_data = ~np.isnan(reactivities)
    unpaired = reactivities[has_data & ~is_paired]
    paired = np.sort(reactivities[has_data & is_paired])
    if not (len(unpaired) and len(paired)):
        return float("nan")
    lower, not_higher = (np.searchsorted(paired, unpaired, side) for side in ("left", "right"))
    return float(((lower + not_higher) / 2).mean() / len(paired))


def read_reactivities(path: FilePath) -> dict[str, Profile]:
    """Read reactivities by id from a file or a folder; positions left out have no data.

    Args:
        path: a table, .tsv or .csv, with the columns id, position (from 1), reactivity and
            optionally base. Or a .shape, .react or .map file, of one of two kinds: as RNAstructure,
            ShapeMapper and ViennaRNA write them, named after the RNA, with lines that begin with
            position and reactivity or with position, base and reactivity; or as patteRNA writes
            them, with a line >id and one line with the reactivities of all bases for each RNA. Or a
            .rdat file of the RNA Mapping Database, see `read_rdat`. Or a folder of such files.

    Raises:
        ValueError: the extension is unknown, or the folder has no file with a known one.
        InputError: a line has no position or no number, a position or id occurs twice, an id is
            empty, or not one line is below >id; or as `tables.read_rows` and `read_rdat`.
    """
    files = files_at(path, _FILES, "expected a file of reactivities")
    return read_by_id(files, "reactivities", _read)


def _read(path: Path, suffix: str) -> dict[str, Profile]:
    if suffix == ".rdat":
        return read_rdat(path)
    by_id: dict[str, dict[int, tuple[str, float]]] = {}
    for line, id, position, base, reactivity in _rows(path, suffix in TABLES):
        if not id:
            raise InputError.at(path, line, "an id is empty")
        by_position = by_id.setdefault(id, {})
        if not (position.isdecimal() and len(position) <= 6 and int(position) >= 1):
            problem = f"{position[:40]!r} is not a position from 1 to {_MAX_POSITION}"
            raise InputError.at(path, line, problem)
        if int(position) in by_position:
            raise InputError.at(path, line, f"position {int(position)} of {id} occurs twice")
        by_position[int(position)] = base, reactivity
    if not by_id:
        raise InputError.at(path, 1, "no reactivities in this file")
    return {id: _profile(by_position) for id, by_position in by_id.items()}


def _profile(by_position: Mapping[int, tuple[str, float]]) -> Profile:
    no_data = ("N", np.nan)
    rows = [by_position.get(position, no_data) for position in range(1, max(by_position) + 1)]
    bases, values = zip(*rows, strict=True)
    return Profile(np.array(values), "".join(bases))


def _rows(path: Path, is_table: bool) -> Iterator[tuple[int, str, str, str, float]]:
    """Yield line, id, position, base ("N" if none is named) and reactivity."""
    if is_table:
        form = find_form(path)
        for line, row in read_rows(path, ("id", "position", "reactivity"), form):
            value = _reactivity(path, line, row["reactivity"], form.comma)
            base = row.get("base") or "N"
            if len(base) != 1:
                raise InputError.at(path, line, f"a base is one letter, not {base[:40]!r}")
            yield line, split_header(row["id"])[0], row["position"], base, value
        return
    id, is_named = named_after(path), False
    lines = numbered_lines(path)
    for line, text in lines:
        if text.startswith(">"):
            (id, _), is_named = split_header(text[1:]), True
            line, text = next(lines, (line, ">"))
            if text.startswith(">"):
                raise InputError.at(path, line, f"no line of reactivities below >{id}")
            for number, cell in enumerate(text.split(), 1):
                yield line, id, str(number), "N", _reactivity(path, line, cell, "," in cell)
            continue
        if is_named:
            problem = f"a second line below >{id}; write all its reactivities on one line, or lines"
            way_out = "with position and reactivity into a file named after the RNA"
            raise InputError.at(path, line, f"{problem} {way_out}")
        position, *cells = text.split()
        base = next((cell for cell in cells if len(cell) == 1 and cell.isalpha()), "")
        field = next((cell for cell in cells if cell != base), "")
        yield line, id, position, base or "N", _reactivity(path, line, field, "," in field)


def _reactivity(path: FilePath, line: int, text: str, comma: bool = False) -> float:
    """Parse a number; NaN for empty text and NA."""
    try:
        return float("nan") if text.strip().upper() in ("NA", "") else parse_decimal(text, comma)
    except ValueError as error:
        raise InputError.at(path, line, f"{error}; write NaN or -999 for no data") from None


def read_rdat(path: FilePath) -> dict[str, Profile]:
    """Read reactivities by id, a number for each base of the sequence, NaN where a file has none.

    The id is the file's name without its extension. If the file has several rows of data
    (replicates, mutants, conditions), ids are `name.1`, `name.2` and so on, with the rows' numbers
    in the file. Position p of SEQPOS is base p - OFFSET, counted from 1.

    Raises:
        InputError: the file has several constructs; something is missing, occurs twice or is not a
            number; or a position is beyond the sequence or has another base there.
    """
    entries: dict[tuple[str, str], tuple[int, str]] = {}  # by keyword and number of row, or ""
    for line, text in numbered_lines(path):
        match = _KEYWORD.match(text)
        if match is None:
            raise InputError.at(path, line, f"{text[:40]!r} does not begin with a keyword")
        keyword, number, rest = match[1], match[2] or "", (match[3] or "").replace(",", " ").strip()
        if keyword in (*_VALUES, *_ROW_ANNOTATIONS):
            number, rest = (number, rest) if number else split_header(rest)
            number = str(_integer(path, line, number))
        if keyword in _ROW_ANNOTATIONS:
            row_sequence = _ROW_SEQUENCE.search(match[3] or "")
            if row_sequence:
                entries["SEQUENCE", number] = line, row_sequence[1]
        elif keyword in ("NAME", "SEQUENCE", "OFFSET", "SEQPOS", *_VALUES):
            if keyword in ("NAME", "OFFSET", "SEQPOS"):  # These are of the construct, not of a row.
                number = ""
            key = ("row" if keyword in _VALUES else keyword, number)
            if key in entries:
                problem = f"a second {' '.join(key).strip()}; give each construct its own file"
                raise InputError.at(path, line, problem)
            entries[key] = line, rest
    numbers = sorted(int(number) for kind, number in entries if kind == "row")
    line, positions = entries.get(("SEQPOS", ""), (1, ""))
    _, sequence = entries.get(("SEQUENCE", ""), (1, ""))
    required = {"SEQUENCE": sequence, "SEQPOS": positions, " or ".join(_VALUES): numbers}
    for name, content in required.items():
        if not content:
            raise InputError.at(path, 1, f"no line {name}")
    offset = _integer(path, *entries.get(("OFFSET", ""), (1, "0")))
    bases = _bases(path, line, positions, offset, sequence.replace(" ", ""))
    stem, profiles = named_after(path), {}
    for number in numbers:
        line, text = entries["row", str(number)]
        _, own_sequence = entries.get(("SEQUENCE", str(number)), (1, sequence))
        cells, length = text.split(), len(own_sequence.replace(" ", ""))
        if len(cells) != len(bases):
            problem = f"row {number} has {len(cells)} values for {len(bases)} positions in SEQPOS"
            raise InputError.at(path, line, problem)
        if max(bases) >= length:
            problem = f"row {number} has {length} bases, but SEQPOS names base {max(bases) + 1}; "
            problem += "if its sequence is that of a primer, remove that annotation"
            raise InputError.at(path, line, problem)
        values = np.full(length, np.nan)
        values[bases] = [_reactivity(path, line, cell) for cell in cells]
        profiles[f"{stem}.{number}" if len(numbers) > 1 else stem] = Profile(values)
    return profiles


def _bases(path: FilePath, line: int, positions: str, offset: int, sequence: str) -> list[int]:
    """The bases of the construct, counted from 0, that the positions of SEQPOS name."""
    bases: dict[int, None] = {}
    for position in positions.split():
        match = _POSITION.fullmatch(position)
        base = int(match[2]) - offset - 1 if match else -1
        if match is None or not 0 <= base < len(sequence):
            problem = f"is not one of the {len(sequence)} bases"
        elif differing_base(match[1], sequence[base]) is not None:
            problem = f"is base {base + 1}, which is {sequence[base]}"
        elif base in bases:
            problem = "is in SEQPOS twice"
        else:
            bases[base] = None
            continue
        raise InputError.at(path, line, f"{position[:40]!r} with OFFSET {offset} {problem}")
    return [*bases]


def _integer(path: FilePath, line: int, text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise InputError.at(path, line, f"{text[:40]!r} is not a whole number")
    return int(text)
