"""Means of scores by length and by label."""

import doctest

import pytest

from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures import score_groups as module
from ernie_rna.structures.evaluation import PairScore, evaluate
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.structures.score_groups import by_label, by_length, read_labels

KNOWN = [
    Structure("a", "G" * 40, [(0, 39), (1, 38)]),
    Structure("b", "G" * 50, [(0, 49)]),
    Structure("c", "G" * 51, [(0, 50)]),
    Structure("d", "G" * 600, []),
]
PREDICTED = [
    Structure("a", "G" * 40, [(0, 39)]),
    Structure("b", "G" * 50, []),
    Structure("c", "G" * 51, [(0, 50), (1, 49)]),
    Structure("d", "G" * 600, []),
]


@pytest.fixture
def evaluations():
    return {
        "predicted": evaluate(PREDICTED, KNOWN),
        "mfe": evaluate(KNOWN, KNOWN),
    }


def test_doctests():
    assert doctest.testmod(module).failed == 0


def test_by_length(evaluations):
    groups = by_length(evaluations, KNOWN)
    assert [(g.name, g.count) for g in groups] == [("1-50", 2), ("51-100", 1), ("over 500", 1)]
    assert groups[0].scores["predicted"] == PairScore(0.5, 0.25, 1 / 3)
    assert groups[1].scores["predicted"] == PairScore(0.5, 1.0, 2 / 3)
    assert all(group.scores["mfe"].f1 == 1 for group in groups)


def test_by_label(evaluations):
    groups = by_label(evaluations, {"a": "x", "b": "y", "c": "y", "d": "y"}, "family")
    assert [(g.by, g.name, g.count) for g in groups] == [("family", "y", 3), ("family", "x", 1)]
    assert groups[1].scores["predicted"].recall == 0.5
    assert [list(group.scores) for group in groups] == [["predicted", "mfe"]] * 2


def test_labels_of_a_table(tmp_path):
    path = tmp_path / "known.tsv"
    path.write_text("id\tfamily\na first\tx y\nb\t\n")
    assert read_labels(path, "family") == {"a": "x y", "b": ""}
    assert read_labels(path, "type") is None
    assert read_labels("known.dbn", "family") is None
    path.write_text("id\tfamily\na\n")
    with pytest.raises(InputError, match=r"known\.tsv: line 2: 1 cells, and the header has 2"):
        read_labels(path, "family")
