"""What else says how likely pairs are: the ensemble of an energy model, beside a head's logits.

With the probability p of a pair by the energy model, cut to .001 to .999, its logit changes by

    weight * ln(p / (1 - p)) + offset

where the two numbers, `pair_prior` in the model's config.json, are fitted to known structures by
`scripts/calibrate_pairs.py`. It is the way by which reactivities shift the map, so that both add
up; and ViennaRNA is given the reactivities and constraints as well. Pseudoknots stay possible.
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
from ernie_rna.sequences.fasta import FastaRecord, FilePath, InputError, to_rna
from ernie_rna.structures.constraints import Constraints
from ernie_rna.structures.formats.probabilities import PAIR, read_probabilities
from ernie_rna.structures.formats.structure import differing_base
from ernie_rna.structures.reactivities import Probing

VIENNA = "vienna"
_LEAST = 0.001
_NO_DATA = -1.0  # of ViennaRNA


class Prior:
    """An energy model, for some RNAs.

    Args:
        given: "vienna", a file or folder as `read_probabilities` takes it, or a function of a
            sequence, in upper case and with U, that gives its probabilities (length, length).
        probing, constraints: what ViennaRNA is told as well.

    Attributes:
        name: of the model, with all that results depend on; of a function, once `check` has seen a
            record, with the digest of the first one's matrix, as lambdas share their name.

    Raises:
        ImportError: ViennaRNA is not installed.
        InputError, ValueError: see `read_probabilities`.
    """

    def __init__(
        self,
        given: FilePath | Callable[[str], Any],
        probing: Probing | None = None,
        constraints: Constraints | None = None,
    ):
        self._probing, self._constraints = probing, constraints
        self._known: dict[str, np.ndarray] | None = None
        self._checked: set[str] = set()  # ids, of a file
        self._to_digest = False  # whether `name` lacks what a function gives
        self._matrix_of: Callable[[FastaRecord], np.ndarray]
        if given == VIENNA:
            self._vienna: Any = import_extra("RNA", "vienna", "--prior vienna")
            self._matrix_of = self._by_vienna
            self.name = f"ViennaRNA {self._vienna.__version__}"
        elif isinstance(given, (str, PathLike)):
            self._known = known = read_probabilities(given)
            self._matrix_of = lambda record: _as_matrix(known[record.id], record)
            digest = hashlib.sha256()
            for id, cells in sorted(known.items()):
                digest.update(f"{id} {cells.shape}\n".encode() + cells.tobytes())
            self.name = f"{Path(given).name}, sha256 {digest.hexdigest()}"
        else:
            self._matrix_of = lambda record: np.asarray(given(to_rna(record.sequence)), np.float64)
            self.name, self._to_digest = function_name(given), True

    def check(self, records: Iterable[FastaRecord]) -> Iterator[FastaRecord]:
        """Pass records on; InputError for one of which a file has nothing, or nothing that fits.

        A run reads its input twice; a matrix is checked but once.
        """
        for record in records:
            if self._known is not None and record.id not in self._checked:
                if record.id not in self._known:
                    raise InputError(f"no probabilities of {record.id} in the files of --prior")
                self.log_odds(record)
                self._checked.add(record.id)
            elif self._to_digest:
                self._to_digest = False
                odds = self.log_odds(record).round(2)  # Devices differ in the last digits.
                digest = hashlib.sha256(odds.tobytes()).hexdigest()
                self.name += f", sha256 {digest} for {record.id}"
            yield record

    def log_odds(self, record: FastaRecord) -> np.ndarray:
        """ln(p / (1 - p)) of every two bases, (length, length) in float32, symmetric.

        Raises:
            InputError: the probabilities are not of this sequence, or none.
        """
        length, found = len(record.sequence), self._matrix_of(record)
        fits = found.shape == (length, length) and (found >= 0).all() and (found <= 1.0001).all()
        if not fits:
            raise InputError(
                f"{record.id} has {length} nt, and its prior is a matrix of {found.shape}; it must "
                f"be of ({length}, {length}) probabilities from 0 to 1"
            )
        found = np.maximum(found, found.T).clip(_LEAST, 1 - _LEAST)  # Some give half of it.
        return np.log(found / (1 - found)).astype(np.float32)

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
    """The matrix of a list of `PAIR`; a matrix as it is."""
    if cells.dtype != PAIR:
        return cells
    length, i, j = len(record.sequence), cells["i"], cells["j"]
    last = max(i.max(initial=0), j.max(initial=0))
    if last > length:
        raise InputError(f"{record.id} has {length} nt, and its prior names base {last}")
    for place, base in cells[["i", "base"]][cells["base"] != "N"].tolist():
        own = record.sequence[place - 1]
        if differing_base(base, own) is not None:
            raise InputError(f"base {place} of {record.id} is {own}, and {base} in its prior")
    matrix = np.zeros((length, length))
    matrix[i - 1, j - 1] = cells["probability"]
    return matrix
