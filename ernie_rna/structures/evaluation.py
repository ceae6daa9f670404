"""Measures how well predicted base pairs agree with known ones.

For a set of sequences, precision, recall and F1 are the unweighted means of the sequences' values.
The exact score compares pairs by position, pseudoknots included. A second score allows a pair to be
shifted by one base at one end, as is appropriate for dynamic structures (Mathews et al., PNAS
101:7287-7292, 2004).
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.options import EvaluateOptions, takes
from ernie_rna.sequences.fasta import FilePath, some, split_header, to_rna, uncompressed
from ernie_rna.sequences.tables import TABLES, read_rows
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.structure import Structure, differing_base

if TYPE_CHECKING:
    from ernie_rna.structures.fold import Fold

# The longest length of each group except the last, which has no upper limit.
LENGTHS = (50, 100, 150, 200, 300, 400, 500)


class PairScore(NamedTuple):
    """Agreement of two sets of pairs, or its mean over sequences; each measure is from 0 to 1."""

    precision: float
    recall: float
    f1: float


def score_pairs(
    predicted: Iterable[tuple[int, int]], reference: Iterable[tuple[int, int]], *, shift: int = 0
) -> PairScore:
    """Compute precision, recall and F1 of predicted pairs (i < j).

    Precision is the fraction of predicted pairs in the reference, recall that of reference pairs in
    the prediction, and F1 their harmonic mean: 2|R ∩ P| / (|R| + |P|) without shift.

    Args:
        predicted, reference: pairs with i < j, counted from the same base.
        shift: a pair (i, j) also matches (i ± k, j) or (i, j ± k), with k at most ``shift``.

    Returns:
        The three measures; all are 1 if both sets are empty, and 0 if only one is.

    >>> score_pairs([(0, 9), (1, 8), (2, 6)], [(0, 9), (1, 8), (2, 7), (3, 6)])
    PairScore(precision=0.6666666666666666, recall=0.5, f1=0.5714285714285715)
    >>> score_pairs([(0, 9), (1, 8), (2, 6)], [(0, 9), (1, 8), (2, 7), (3, 6)], shift=1)
    PairScore(precision=1.0, recall=1.0, f1=1.0)
    """
    predicted, reference = set(predicted), set(reference)
    if not predicted or not reference:
        value = float(predicted == reference)
        return PairScore(value, value, value)
    steps = range(-shift, shift + 1)
    moves = [(step, 0) for step in steps] + [(0, step) for step in steps if step]
    precision, recall = (
        sum(any((i + di, j + dj) in targets for di, dj in moves) for i, j in pairs) / len(pairs)
        for pairs, targets in ((predicted, reference), (reference, predicted))
    )
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return PairScore(precision, recall, f1)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of sequences.

    Args:
        structures: predicted and known structure of each sequence, in the order of the reference.
        exact: score of each sequence, over exact pairs.
        shifted: score of each, where a pair may be shifted by at most one base at one end.
    """

    structures: list[tuple[Structure, Structure]]
    exact: list[PairScore]
    shifted: list[PairScore]

    @property
    def ids(self) -> list[str]:
        return [known.id for _, known in self.structures]

    @property
    def both_empty(self) -> int:
        """Number of sequences without a pair in either structure, which score 1."""
        return sum(not predicted.pairs and not known.pairs for predicted, known in self.structures)

    @property
    def mean_exact(self) -> PairScore:
        return mean_score(self.exact)

    @property
    def mean_shifted(self) -> PairScore:
        return mean_score(self.shifted)

    def columns(self) -> dict[str, list[float]]:
        """The measures of exact and of shifted pairs by name, with one number per sequence."""
        names = [*PairScore._fields, *(f"{measure}_shifted" for measure in PairScore._fields)]
        rows = [exact + shifted for exact, shifted in zip(self.exact, self.shifted, strict=True)]
        return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def mean_score(scores: Sequence[PairScore]) -> PairScore:
    """Mean of each measure over sequences."""
    return PairScore(*np.mean(scores, axis=0).tolist())


def group_means(
    evaluations: Mapping[str, Evaluation], names: Mapping[str, str]
) -> Iterator[tuple[str, str, int, PairScore]]:
    """Mean exact scores of each group of sequences.

    Args:
        evaluations: maps a name for the output to an evaluation; all are of the same sequences.
        names: maps the id of a sequence to its group; groups are yielded in this order.

    Yields:
        The names of group and evaluation, the number of sequences, and their mean scores.
    """
    groups: dict[str, dict[str, list[PairScore]]] = {group: {} for group in names.values()}
    for name, evaluation in evaluations.items():
        for id, score in zip(evaluation.ids, evaluation.exact, strict=True):
            groups[names[id]].setdefault(name, []).append(score)
    for group, by_evaluation in groups.items():
        for name, scores in by_evaluation.items():
            yield group, name, len(scores), mean_score(scores)


def length_name(length: int) -> str:
    """Name of the group that a length belongs to.

    >>> [length_name(length) for length in (1, 50, 51, 501)]
    ['1-50', '1-50', '51-100', 'over 500']
    """
    group = bisect_left(LENGTHS, length)
    if group == len(LENGTHS):
        return f"over {LENGTHS[-1]}"
    return f"{(0, *LENGTHS)[group] + 1}-{LENGTHS[group]}"


def read_labels(path: FilePath, column: str) -> dict[str, str] | None:
    """Read a table's column by id, most frequent labels first; None if the file has no such column.

    Raises:
        InputError: the table is damaged or has no column id.
    """
    if uncompressed(path).suffix.lower() not in TABLES:
        return None
    rows = [row for _, row in read_rows(path, ["id"])]
    if not all(column in row for row in rows):
        return None
    counts = Counter(row[column] for row in rows)
    rows.sort(key=lambda row: (-counts[row[column]], row[column]))
    return {split_header(row["id"])[0]: row[column] for row in rows}


@takes(EvaluateOptions)
def evaluate(
    predicted: FilePath | Iterable[Structure | Fold],
    reference: FilePath | Iterable[Structure | Fold],
    *,
    options: EvaluateOptions,
) -> Evaluation:
    """Score predicted structures against the known ones with the same id.

    Args:
        predicted: one structure for each id of the reference; other ids are not scored. A file or
            folder, as for `formats.by_extension.read_structures`, structures, or the results of
            `fold`, of which those with a problem count as missing.
        reference: the known structures, in the same forms.

    Raises:
        ValueError: nothing is left to compare; an id occurs twice; an id of the reference has no
            prediction, unless `missing` allows it; or two structures with the same id have
            different sequences (T is U, case does not matter, and N stands for any base).
    """
    predictions = structures_by_id(predicted, options.predicted_column, "predicted")
    references = structures_by_id(reference, options.reference_column, "reference")
    if not references:
        raise ValueError("there is no reference structure")
    missing = [id for id in references if id not in predictions]
    if missing:
        problem = f"{len(missing)} of {len(references)} sequences have no prediction"
        if options.missing == "error":
            way_out = "--missing skip ignores them, --missing unpaired scores them as unpaired"
            raise ValueError(f"{problem}: {some(missing)}; {way_out}")
        treatment = "left out" if options.missing == "skip" else "scored as unpaired"
        warnings.warn(f"{problem} and are {treatment}: {some(missing)}", stacklevel=3)
    if options.missing == "skip":
        references = {id: known for id, known in references.items() if id in predictions}
    if not references:
        raise ValueError("no reference structure has a prediction; do the ids agree?")
    predictions = {id: replace(known, pairs=[]) for id, known in references.items()} | predictions
    compared = [(predictions[id], known) for id, known in references.items()]
    for predicted_structure, known in compared:
        _check_same_sequence(predicted_structure, known)
    exact, shifted = ([score_pairs(a.pairs, b.pairs, shift=n) for a, b in compared] for n in (0, 1))
    return Evaluation(compared, exact, shifted)


def structures_by_id(
    structures: FilePath | Iterable[Structure | Fold], column: str, which: str
) -> dict[str, Structure]:
    """Map ids to the structures that `evaluate` takes; ValueError if an id occurs twice."""
    if isinstance(structures, (str, PathLike)):
        structures = read_structures(structures, column)
    by_id: dict[str, Structure] = {}
    for item in structures:
        if not isinstance(item, Structure) and item.problem is not None:
            continue
        structure = item if isinstance(item, Structure) else item.structure
        if by_id.setdefault(structure.id, structure) is not structure:
            raise ValueError(f"two {which} structures have the id {structure.id!r}")
    return by_id


def _check_same_sequence(predicted: Structure, known: Structure) -> None:
    if len(predicted.sequence) != len(known.sequence):
        raise ValueError(
            f"{known.id!r} has {len(predicted.sequence)} bases in the prediction but "
            f"{len(known.sequence)} in the reference"
        )
    index = differing_base(predicted.sequence, known.sequence)
    if index is not None:
        raise ValueError(
            f"base {index + 1} of {known.id!r} is {predicted.sequence[index]} in the prediction "
            f"but {known.sequence[index]} in the reference"
        )


def mfe_structure(sequence: str, name: str = "") -> Structure:
    """Predict the minimum free energy structure with ViennaRNA's default parameters.

    Args:
        sequence: bases; T is read as U.
        name: id of the returned structure.

    Raises:
        ImportError: ViennaRNA is not installed.
    """
    vienna = import_extra("RNA", "vienna", "the structure of minimum free energy")
    dot_bracket, _ = vienna.fold(to_rna(sequence))
    return Structure(name, sequence, from_dot_bracket(dot_bracket))
