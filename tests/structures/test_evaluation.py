"""Scores of predicted pairs: definitions, the data set's baselines, and ViennaRNA."""

import csv
import sys
from pathlib import Path

import pytest

from ernie_rna.structures.evaluation import (
    PairScore,
    evaluate,
    group_means,
    mfe_structure,
    read_labels,
    read_structures,
    score_pairs,
)
from ernie_rna.structures.fold import Fold
from ernie_rna.structures.formats.by_extension import write_structures
from ernie_rna.structures.formats.structure import Structure
from tests.structures.conftest import needs_vienna

KNOWN = [Structure("a", "GAAAC", [(0, 4)]), Structure("b", "GGAAACC", [(0, 6), (1, 5)])]
DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared structure data")
ALL_WRONG, ALL_RIGHT = (0, 0, 0), (1, 1, 1)


@pytest.mark.parametrize(
    ("predicted", "reference", "exact", "shifted"),
    [
        ([], [], ALL_RIGHT, ALL_RIGHT),
        ([(0, 9)], [], ALL_WRONG, ALL_WRONG),
        ([], [(0, 9)], ALL_WRONG, ALL_WRONG),
        ([(0, 9)], [(3, 6)], ALL_WRONG, ALL_WRONG),
        ([(0, 9), (3, 6)], [(0, 9)], (1 / 2, 1, 2 / 3), (1 / 2, 1, 2 / 3)),
        ([(0, 9), (0, 9)], [(0, 9)], ALL_RIGHT, ALL_RIGHT),
        *(
            ([pair], [(5, 20)], ALL_WRONG, ALL_RIGHT)
            for pair in [(4, 20), (5, 19), (6, 20), (5, 21)]
        ),
        *(([pair], [(5, 20)], ALL_WRONG, ALL_WRONG) for pair in [(4, 21), (7, 20)]),
    ],
)
def test_scores_of_exact_and_of_shifted_pairs(predicted, reference, exact, shifted):
    assert score_pairs(predicted, reference) == PairScore(*exact)
    assert score_pairs(predicted, reference, shift=1) == PairScore(*shifted)


def test_evaluation_uses_ids_and_order_of_the_reference():
    predicted = [
        Structure("b", "ggaaacc", [(0, 6)]),
        Structure("other", "A", []),
        Structure("a", "NNNNN", [(1, 4)]),
    ]
    result = evaluate(predicted, KNOWN)
    assert result.ids == ["a", "b"]
    assert result.exact == [PairScore(0, 0, 0), PairScore(1, 0.5, 2 / 3)]
    assert result.shifted == [PairScore(1, 1, 1), PairScore(1, 0.5, 2 / 3)]
    assert result.mean_exact == PairScore(0.5, 0.25, 1 / 3)
    assert result.mean_shifted.recall == 0.75
    assert result.columns() == {
        **{"precision": [0, 1], "recall": [0, 0.5], "f1": [0, 2 / 3]},
        **{"precision_shifted": [1, 1], "recall_shifted": [1, 0.5], "f1_shifted": [1, 2 / 3]},
    }


def unpaired(text):
    """Structures without pairs, from a text such as "a:GC b:GCA"."""
    return [Structure(*item.split(":"), []) for item in text.split()]


@pytest.mark.parametrize(
    ("predicted", "reference", "missing", "message"),
    [
        ("", "", "error", "no reference structure"),
        ("a:GC", "a:GC b:GC", "error", "1 of 2 sequences .* prediction: b"),
        ("a:GC", "b:GC", "skip", "no reference structure has a prediction; do the id"),
        ("a:GC", "a:GC", "no", "must be error, skip or unpaired; got 'no'"),
        ("a:GC a:GC", "a:GC", "error", "two predicted structures have the id 'a'"),
        ("a:GC", "a:GC a:GC", "error", "two reference structures have the id 'a'"),
        ("a:GC", "a:GCA", "error", "'a' has 2 bases in the prediction but 3 in the reference"),
        ("a:GC", "a:GA", "error", "base 2 of 'a' is C in the prediction but A in the reference"),
    ],
)
def test_sets_that_cannot_be_compared(predicted, reference, missing, message):
    with pytest.raises(ValueError, match=message):
        evaluate(unpaired(predicted), unpaired(reference), missing=missing)


def test_evaluates_files_and_columns_of_tables(tmp_path):
    table, known = tmp_path / "table.tsv", tmp_path / "known.dbn"
    write_structures(known, KNOWN)
    table.write_text("id\tmfe\na\t(...)\nb\t((...))\n")
    assert evaluate(table, known, predicted_column="mfe").mean_exact == PairScore(1, 1, 1)
    assert evaluate(known, table, reference_column="mfe").mean_exact == PairScore(1, 1, 1)


def test_means_of_groups():
    def stems(**pairs):
        return [Structure(id, "GGAAACC", KNOWN[1].pairs[:count]) for id, count in pairs.items()]

    known, predicted = stems(a=2, b=1, c=1), stems(a=1, b=0, c=2)
    evaluations = {"predicted": evaluate(predicted, known), "mfe": evaluate(known, known)}
    assert list(group_means(evaluations, {"c": "y", "a": "x", "b": "x", "other": "z"})) == [
        ("y", "predicted", 1, PairScore(0.5, 1.0, 2 / 3)),
        ("y", "mfe", 1, PairScore(1, 1, 1)),
        ("x", "predicted", 2, PairScore(0.5, 0.25, 1 / 3)),
        ("x", "mfe", 2, PairScore(1, 1, 1)),
    ]


def test_labels_of_a_table(tmp_path):
    path = tmp_path / "known.tsv"
    path.write_text("id\tfamily\na first\tx y\nb\tz\nc\tz\n")
    assert list(read_labels(path, "family").items()) == [("b", "z"), ("c", "z"), ("a", "x y")]
    assert read_labels(path, "type") is None
    assert read_labels("known.dbn", "family") is None


def check_f1(result, name):
    """Compare scores with those of a baseline, which have six decimals."""
    with open(DATA / "baselines" / f"{name}.tsv", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        expected = {row["id"]: float(row["f1_vienna"]) for row in rows}
    for id, score in zip(result.ids, result.exact, strict=True):
        assert score.f1 == pytest.approx(expected[id], abs=6e-7)


@needs_data
@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("bprna_ts0_verified", (0.478, 0.673, 0.544)),
        ("bprna_new", (0.552, 0.720, 0.617)),
        ("bprna_tr0vl0_short", (0.489, 0.668, 0.546)),
    ],
)
def test_baselines_of_the_data_set(name, mean):
    predicted = read_structures(DATA / "baselines" / f"pred_{name}.tsv", "vienna_mfe")
    result = evaluate(predicted, DATA / "structure" / f"{name}.tsv")
    check_f1(result, f"pred_{name}")
    score = result.mean_exact
    assert (score.precision, score.recall, score.f1) == pytest.approx(mean, abs=6e-4)


@needs_data
@needs_vienna
def test_vienna_equals_the_baseline_and_reads_lower_case_and_t():
    hairpin = Structure("hairpin", "ggggTTTTcccc", [(0, 11), (1, 10), (2, 9), (3, 8)])
    assert mfe_structure(hairpin.sequence, hairpin.id) == hairpin
    reference = read_structures(DATA / "structure" / "bprna_ts0_verified.tsv")
    # An eighth of the set, because all of it takes 11 s.
    reference = [structure for structure in reference if len(structure.sequence) < 150][::8]
    assert len(reference) > 80
    predicted = [mfe_structure(structure.sequence, structure.id) for structure in reference]
    check_f1(evaluate(predicted, reference), "pred_bprna_ts0_verified")


def test_the_error_without_vienna_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "RNA", None)
    with pytest.raises(ImportError, match=r'pip install "ernie-rna\[vienna\]"'):
        mfe_structure("GGGAAACCC")


def test_a_fold_with_a_problem_is_not_a_prediction():
    folds = [Fold(KNOWN[0]), Fold(Structure("b", "GGAAACC", []), problem="it diverged")]
    assert evaluate(folds, KNOWN, missing="skip").ids == ["a"]
    with pytest.raises(ValueError, match="1 of 2 sequences have no prediction: b"):
        evaluate(folds, KNOWN)
