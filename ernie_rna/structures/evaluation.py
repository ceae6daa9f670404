"""How well predicted base pairs agree with known ones.

Over a set, precision, recall and F1 are the unweighted means of the sequences' values; pairs count
as exact positions, pseudoknots included. Beside the exact score stands one that lets a pair be
shifted by one base at one end, as a comparison of dynamic structures should (Mathews et al., PNAS
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
from ernie_rna.sequences.fasta import FilePath, split_header, to_rna, uncompressed
from ernie_rna.sequences.tables import TABLES, read_rows
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.structure import Structure, differing_base

if TYPE_CHECKING:
    from ernie_rna.structures.fold import Fold

# The last length of each group but the last one.
LENGTHS = (50, 100, 150, 200, 300, 400, 500)


class PairScore(NamedTuple):
    """Agreement of two sets of pairs, or its mean over sequences; each from 0 to 1."""

    precision: float
    recall: float
    f1: float


def score_pairs(
    predicted: Iterable[tuple[int, int]], reference: Iterable[tuple[int, int]], *, shift: int = 0
) -> PairScore:
    """Precision, recall and F1 of predicted pairs (i < j).

    Precision is the part of the predicted pairs found in the reference, recall the part of the
    reference found in the prediction, F1 their harmonic mean: 2|R ∩ P| / (|R| + |P|) without shift.

    Args:
        predicted, reference: pairs with i < j, counted from the same base.
        shift: a pair (i, j) is also found where the other set has (i ± k, j) or (i, j ± k), k at
            most ``shift``.

    Returns:
        All three 1 where both sets are empty, all three 0 where just one is.

    >>> score_pairs([(0, 9), (1, 8), (2, 6)], [(0, 9), (1, 8), (2, 7), (3, 6)])
    PairScore(precision=0.6666666666666666, recall=0.5, f1=0.5714285714285715)
    >>> score_pairs([(0, 9), (1, 8), (2, 6)], [(0, 9), (1, 8), (2, 7), (3, 6)], shift=1)
    PairScore(precision=1.0, recall=1.0, f1=1.0)
    """
    predicted, reference = set(predicted), set(reference)
    if not predicted or not reference:
        same = float(predicted == reference)
        return PairScore(same, same, same)
    steps = range(-shift, shift + 1)
    moves = [(step, 0) for step in steps] + [(0, step) for step in steps if step]
    precision, recall = (
        sum(any((i + di, j + dj) in among for di, dj in moves) for i, j in pairs) / len(pairs)
        for pairs, among in ((predicted, reference), (reference, predicted))
    )
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return PairScore(precision, recall, f1)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of sequences.

    Args:
        structures: what is predicted and what is known of each, in the order of the reference.
        exact: a score for each, over exact pairs.
        shifted: a score for each, with pairs shifted by at most one base at one end.
    """

    structures: list[tuple[Structure, Structure]]
    exact: list[PairScore]
    shifted: list[PairScore]

    @property
    def ids(self) -> list[str]:
        return [known.id for _, known in self.structures]

    @property
    def both_empty(self) -> int:
        """How many have no pair in either structure, which scores 1."""
        return sum(not predicted.pairs and not known.pairs for predicted, known in self.structures)

    @property
    def mean_exact(self) -> PairScore:
        return mean_score(self.exact)

    @property
    def mean_shifted(self) -> PairScore:
        return mean_score(self.shifted)

    def columns(self) -> dict[str, list[float]]:
        """By name, a number for each sequence: the measures of exact and of shifted pairs."""
        names = [*PairScore._fields, *(f"{measure}_shifted" for measure in PairScore._fields)]
        rows = [exact + shifted for exact, shifted in zip(self.exact, self.shifted, strict=True)]
        return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def mean_score(scores: Sequence[PairScore]) -> PairScore:
    """The mean of each measure over some sequences."""
    return PairScore(*np.mean(scores, axis=0).tolist())


def group_means(
    evaluations: Mapping[str, Evaluation], names: Mapping[str, str]
) -> Iterator[tuple[str, str, int, PairScore]]:
    """Means over exact pairs of the sequences of a group.

    Args:
        evaluations: by a name for the output, of the same sequences.
        names: by id, the group of a sequence; groups come in the order of these.

    Yields:
        The names of group and evaluation, how many sequences, and their mean scores.
    """
    groups: dict[str, dict[str, list[PairScore]]] = {name: {} for name in names.values()}
    for which, evaluation in evaluations.items():
        for id, score in zip(evaluation.ids, evaluation.exact, strict=True):
            groups[names[id]].setdefault(which, []).append(score)
    for name, scores in groups.items():
        for which, own in scores.items():
            yield name, which, len(own), mean_score(own)


def length_name(length: int) -> str:
    """The group of a length.

    >>> [length_name(length) for length in (1, 50, 51, 501)]
    ['1-50', '1-50', '51-100', 'over 500']
    """
    place = bisect_left(LENGTHS, length)
    if place == len(LENGTHS):
        return f"over {LENGTHS[-1]}"
    return f"{(0, *LENGTHS)[place] + 1}-{LENGTHS[place]}"


def read_labels(path: FilePath, column: str) -> dict[str, str] | None:
    """A column of a table by id, the most frequent labels first; None without such a column, or of
    a file that is no table.

    Raises:
        InputError: the table is damaged, or has no column id.
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
        predicted: one for each id of the reference; those of other ids are not scored. A file or
            folder, as `formats.by_extension.read_structures` takes it, or structures, or what
            `fold` yields; a sequence with a problem then has no prediction.
        reference: the known structures, likewise.

    Raises:
        ValueError: nothing is left to compare; an id is there twice, or, unless `missing` says
            otherwise, in the reference alone; or two structures of an id are of different sequences
            (T is U, case does not matter, and N stands for any base).
    """
    predictions = structures_by_id(predicted, options.predicted_column, "predicted")
    references = structures_by_id(reference, options.reference_column, "reference")
    if not references:
        raise ValueError("there is no reference structure")
    absent = [id for id in references if id not in predictions]
    shown = ", ".join(absent[:5]) + ", …" * (len(absent) > 5)
    problem = f"{len(absent)} of {len(references)} sequences have no prediction"
    if absent and options.missing == "error":
        raise ValueError(
            f"{problem}: {shown}; --missing skip ignores them, --missing unpaired scores them "
            "as without pairs"
        )
    if absent:
        done = "left out" if options.missing == "skip" else "scored as without pairs"
        warnings.warn(f"{problem} and are {done}: {shown}", stacklevel=3)
    if options.missing == "skip":
        references = {id: one for id, one in references.items() if id in predictions}
    if not references:
        raise ValueError("no reference structure has a prediction; do the ids agree?")
    unpaired = {id: replace(known, pairs=[]) for id, known in references.items()}
    predictions = unpaired | predictions
    both = [(predictions[id], known) for id, known in references.items()]
    for pair in both:
        _check_same_sequence(*pair)
    exact, shifted = ([score_pairs(a.pairs, b.pairs, shift=n) for a, b in both] for n in (0, 1))
    return Evaluation(both, exact, shifted)


def structures_by_id(
    structures: FilePath | Iterable[Structure | Fold], column: str, which: str
) -> dict[str, Structure]:
    """Structures as `evaluate` takes them by id; ValueError for an id that is there twice."""
    if isinstance(structures, (str, PathLike)):
        structures = read_structures(structures, column)
    by_id: dict[str, Structure] = {}
    for one in structures:
        if not isinstance(one, Structure):
            if one.problem is not None:
                continue
            one = one.structure
        if by_id.setdefault(one.id, one) is not one:
            raise ValueError(f"two {which} structures have the id {one.id!r}")
    return by_id


def _check_same_sequence(predicted: Structure, known: Structure) -> None:
    mine, theirs = predicted.sequence, known.sequence
    if len(mine) != len(theirs):
        raise ValueError(
            f"{known.id!r} has {len(mine)} bases in the prediction, {len(theirs)} as known"
        )
    place = differing_base(mine, theirs)
    if place is not None:
        raise ValueError(
            f"base {place + 1} of {known.id!r} is {mine[place]} in the prediction, {theirs[place]} "
            "as known"
        )


def mfe_structure(sequence: str, name: str = "") -> Structure:
    """The structure of minimum free energy, by ViennaRNA with its default parameters.

    Args:
        sequence: bases; T is read as U.
        name: the id of the structure returned.

    Raises:
        ImportError: ViennaRNA is not installed.
    """
    vienna = import_extra("RNA", "vienna", "the structure of minimum free energy")
    dot_bracket, _ = vienna.fold(to_rna(sequence))
    return Structure(name, sequence, from_dot_bracket(dot_bracket))
