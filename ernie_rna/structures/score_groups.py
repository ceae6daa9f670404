"""Scores by length and by a label, such as the family, beside the means over a whole set.

Each mean is over the sequences of a group, unweighted, as in `evaluation`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ernie_rna.sequences.fasta import FilePath, split_header, uncompressed
from ernie_rna.sequences.tables import read_rows
from ernie_rna.structures.evaluation import Evaluation, PairScore, mean_score
from ernie_rna.structures.formats.by_extension import TABLES
from ernie_rna.structures.formats.structure import Structure

# The last length of each group but the last one.
LENGTHS = (50, 100, 150, 200, 300, 400, 500)


@dataclass(frozen=True)
class Group:
    """Sequences that have something in common.

    Attributes:
        by: "length", or the name of a column.
        name: which length or label.
        count: how many sequences.
        scores: by the name of the evaluation, the means over exact pairs.
    """

    by: str
    name: str
    count: int
    scores: Mapping[str, PairScore]


def by_length(
    evaluations: Mapping[str, Evaluation], structures: Iterable[Structure]
) -> list[Group]:
    """Groups of sequences of like length, the shortest first; those without any are left out."""
    names = {one.id: length_name(len(one.sequence)) for one in structures}
    return _groups(
        "length", evaluations, names, [length_name(n) for n in (*LENGTHS, LENGTHS[-1] + 1)]
    )


def by_label(
    evaluations: Mapping[str, Evaluation], labels: Mapping[str, str], by: str
) -> list[Group]:
    """Groups of sequences with the same label, the largest first.

    Args:
        labels: by id.
        by: what they are, for the output.
    """
    counts = Counter(labels[id] for id in next(iter(evaluations.values())).ids)
    order = sorted(counts, key=lambda label: (-counts[label], label))
    return _groups(by, evaluations, labels, order)


def length_name(length: int) -> str:
    """
    >>> [length_name(length) for length in (1, 50, 51, 501)]
    ['1-50', '1-50', '51-100', 'over 500']
    """
    place = bisect_left(LENGTHS, length)
    if place == len(LENGTHS):
        return f"over {LENGTHS[-1]}"
    return f"{(0, *LENGTHS)[place] + 1}-{LENGTHS[place]}"


def _groups(
    by: str,
    evaluations: Mapping[str, Evaluation],
    names: Mapping[str, str],
    order: Sequence[str],
) -> list[Group]:
    found: dict[str, dict[str, list[PairScore]]] = {name: {} for name in order}
    for which, evaluation in evaluations.items():
        for id, score in zip(evaluation.ids, evaluation.exact, strict=True):
            found[names[id]].setdefault(which, []).append(score)
    counts = {name: len(next(iter(own.values()), ())) for name, own in found.items()}
    return [
        Group(by, name, counts[name], {which: mean_score(own) for which, own in scores.items()})
        for name, scores in found.items()
        if scores
    ]


def read_labels(path: FilePath, column: str) -> dict[str, str] | None:
    """A column of a table by id; None if it is another file or has no such column.

    Raises:
        InputError: the table is damaged, or has no column id.
    """
    if uncompressed(path).suffix.lower() not in TABLES:
        return None
    rows = [row for _, row in read_rows(path, ["id"])]
    if not all(column in row for row in rows):
        return None
    return {split_header(row["id"])[0]: row[column] for row in rows}


def group_rows(groups: Iterable[Group], decimals: int) -> Iterator[list[str]]:
    """A header, and a row for each group and evaluation."""
    yield ["by", "group", "evaluation", "sequences", *PairScore._fields]
    for group in groups:
        for which, score in group.scores.items():
            numbers = [f"{value:.{decimals}f}" for value in score]
            yield [group.by, group.name, which, str(group.count), *numbers]
