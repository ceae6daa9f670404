"""Prior knowledge of pairs: the ensemble of an energy model, added to the logits of a head.

If p is the probability of a pair by the energy model, clipped to .001 to .999, its logit changes by

    weight * ln(p / (1 - p)) + offset

where weight and offset, `pair_prior` in the model's config.json, are fitted to known structures by
`scripts/calibrate_pairs.py`. Reactivities shift the map in the same way, so the two shifts add up.
ViennaRNA also uses the reactivities and constraints. Pseudoknots remain possible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.options import function_name
from ernie_rna.sequences.fasta import FastaRecord, FilePath, InputError, some, to_rna
from ernie_rna.structures.constraints import Constraints
from ernie_rna.structures.formats.probabilities import PAIR, ROUNDING, read_probabilities
from ernie_rna.structures.formats.structure import differing_base
from ernie_rna.structures.reactivities import Probing, as_numbers

VIENNA = "vienna"
_LEAST = 0.001
_NO_DATA = -1.0  # ViennaRNA's value for a base without reactivity


class Prior:
    """The pair probabilities of an energy model for a set of RNAs.

    Args:
        source: "vienna"; a file or folder, as for `read_probabilities`; or a function that maps a
            sequence, in upper case and with U, to its probabilities (length, length).
        probing, constraints: used by ViennaRNA only.

    Attributes:
        name: the model, with everything that results depend on. Since lambdas share one name, that
            of a function gets the digest of its first matrix, once `check` has seen a record.

    Raises:
        ImportError: ViennaRNA is not installed.
        InputError, ValueError: see `read_probabilities`.
    """

    def __init__(
        self,
        source: FilePath | Callable[[str], Any],
        probing: Probing | None = None,
        constraints: Constraints | None = None,
    ):
        self._probing, self._constraints = probing, constraints
        self._from_files: dict[str, np.ndarray] | None = None
        self._checked_ids: set[str] = set()  # of the files
        self._needs_digest = False  # whether `name` lacks the digest of a function's matrix
        self._matrix_of: Callable[[FastaRecord], np.ndarray]
        if source == VIENNA:
            self._vienna: Any = import_extra("RNA", "vienna", "--prior vienna")
            self._matrix_of = self._by_vienna
            self.name = f"ViennaRNA {self._vienna.__version__}"
        elif isinstance(source, (str, PathLike)):
            self._from_files = by_id = read_probabilities(source)
            self._matrix_of = lambda record: _as_matrix(by_id[record.id], record)
            digest = hashlib.sha256()
            for id, cells in sorted(by_id.items()):
                digest.update(f"{id} {cells.shape}\n".encode() + cells.tobytes())
            self.name = f"{Path(source).name}, sha256 {digest.hexdigest()}"
        else:
            self._matrix_of = lambda record: as_numbers(
                source(to_rna(record.sequence)), f"{record.id}: the values of its prior"
            )
            self.name, self._needs_digest = function_name(source), True

    def check(self, records: Iterable[FastaRecord]) -> Iterator[FastaRecord]:
        """Yield the records unchanged; raise InputError if the files lack or contradict one.

        A run reads its input twice, but each matrix is checked only once.
        """
        for record in records:
            if self._from_files is not None and record.id not in self._checked_ids:
                if record.id not in self._from_files:
                    known = f"there are some for {some(self._from_files)}"
                    raise InputError(f"no probabilities for {record.id} in --prior; {known}")
                self.log_odds(record)
                self._checked_ids.add(record.id)
            elif self._needs_digest:
                self._needs_digest = False
                log_odds = self.log_odds(record).round(2)  # The last digits depend on the device.
                digest = hashlib.sha256(log_odds.tobytes()).hexdigest()
                self.name += f", sha256 {digest} for {record.id}"
            yield record

    def log_odds(self, record: FastaRecord) -> np.ndarray:
        """ln(p / (1 - p)) of every two bases, (length, length) in float32, symmetric.

        Raises:
            InputError: the matrix has another shape, or values that are not probabilities or differ
                between (i, j) and (j, i), unless one of these is 0.
        """
        length, p = len(record.sequence), self._matrix_of(record)
        if p.shape != (length, length):
            what = f"its prior has the shape {p.shape}; it must be ({length}, {length})"
            raise InputError(f"{record.id} has {length} nt, but {what}")
        is_valid = (p >= 0) & (p <= 1.0001) & ((p == 0) | (p.T == 0) | (abs(p - p.T) < ROUNDING))
        for i, j in np.argwhere(~is_valid)[:1].tolist():
            what = f"the prior of bases {i + 1} and {j + 1} of {record.id} is {p[i, j]:g}"
            rule = "probabilities must be from 0 to 1, and the same in both orders"
            raise InputError(f"{what}, in the other order {p[j, i]:g}; {rule}")
        p = np.maximum(p, p.T).clip(_LEAST, 1 - _LEAST)  # Some sources fill only one triangle.
        return np.log(p / (1 - p)).astype(np.float32)

    def _by_vienna(self, record: FastaRecord) -> np.ndarray:
        bases = "".join(base if base in "ACGU" else "N" for base in to_rna(record.sequence))
        ensemble = self._vienna.fold_compound(bases)
        if self._probing is not None:
            values = self._probing.of(record)
            values = np.where(np.isnan(values), _NO_DATA, np.maximum(values, 0.0))
            ensemble.sc_add_SHAPE_deigan([_NO_DATA, *values.tolist()], *self._probing.line)
        if self._constraints is not None and record.id in self._constraints.texts:
            ensemble.hc_add_from_db(self._constraints.texts[record.id])
        _, energy = ensemble.mfe()
        ensemble.exp_params_rescale(energy)
        ensemble.pf()
        return np.array(ensemble.bpp(), dtype=np.float64)[1:, 1:]


def _as_matrix(cells: np.ndarray, record: FastaRecord) -> np.ndarray:
    """Convert a list of `PAIR` to a matrix; return a matrix unchanged."""
    if cells.dtype != PAIR:
        return cells
    length, i, j = len(record.sequence), cells["i"], cells["j"]
    last = max(i.max(initial=0), j.max(initial=0))
    if last > length:
        raise InputError(f"{record.id} has {length} nt, but its prior names base {last}")
    for position, base in cells[["i", "base"]][cells["base"] != "N"].tolist():
        letter = record.sequence[position - 1]
        if differing_base(base, letter) is not None:
            raise InputError(f"base {position} of {record.id} is {letter}, but {base} in its prior")
    matrix = np.zeros((length, length))
    matrix[i - 1, j - 1] = cells["probability"]
    return matrix
