"""Scores by length and by a label, such as the family, beside the means over a whole set.

Each mean is over the sequences of a group, unweighted, as in `evaluation`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ernie_rna.structures.evaluation import Evaluation, PairScore, mean_score
from ernie_rna.structures.formats.structure import FilePath, Structure, StructureFormatError

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
    names = {structure.id: _length_name(len(structure.sequence)) for structure in structures}
    order = [_length_name(length) for length in (*LENGTHS, LENGTHS[-1] + 1)]
    return _groups("length", evaluations, names, order)


def by_label(
    evaluations: Mapping[str, Evaluation], labels: Mapping[str, str], by: str
) -> list[Group]:
    """Groups of sequences with the same label, the largest first.

    Args:
        labels: by id.
        by: what they are, for the output.
    """
    counts: dict[str, int] = {}
    for id in next(iter(evaluations.values())).ids:
        counts[labels[id]] = counts.get(labels[id], 0) + 1
    order = sorted(counts, key=lambda label: (-counts[label], label))
    return _groups(by, evaluations, labels, order)


def _length_name(length: int) -> str:
    """
    >>> [_length_name(length) for length in (1, 50, 51, 501)]
    ['1-50', '1-50', '51-100', 'over 500']
    """
    for first, last in zip((0, *LENGTHS), LENGTHS, strict=False):
        if length <= last:
            return f"{first + 1}-{last}"
    return f"over {LENGTHS[-1]}"


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
    return [
        Group(
            by,
            name,
            len(next(iter(scores.values()))),
            {which: mean_score(own) for which, own in scores.items()},
        )
        for name, scores in found.items()
        if scores
    ]


def read_labels(path: FilePath, column: str) -> dict[str, str] | None:
    """A column of a table by id, or None if the table has no such column.

    Raises:
        StructureFormatError: there is no column id, or a line lacks the cell.
    """
    labels = {}
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if column not in (reader.fieldnames or ()):
            return None
        for row in reader:
            if row.get("id") is None or row[column] is None:
                raise StructureFormatError(path, reader.line_num, f"no id or no {column} here")
            labels[row["id"]] = row[column]
    return labels


def group_rows(groups: Sequence[Group]) -> list[list[str]]:
    """A header, and a row for each group and evaluation."""
    rows = [["by", "group", "evaluation", "sequences", "precision", "recall", "f1"]]
    for group in groups:
        for which, score in group.scores.items():
            values = (score.precision, score.recall, score.f1)
            numbers = [f"{value:.6f}" for value in values]
            rows.append([group.by, group.name, which, str(group.count), *numbers])
    return rows
