"""Tables of the pair head, its prior, ViennaRNA and methods without a model, on small data."""

import numpy as np
import pytest

from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from recipes.pretraining.rnas import Rna
from recipes.pretraining.settings import Settings
from recipes.pretraining.weights import new_model
from scripts import evaluate_pair_head
from tests.recipes.conftest import MODEL, table  # noqa: F401
from tests.structures.conftest import needs_vienna


@pytest.fixture
def command(tmp_path, table):  # noqa: F811
    new_model(Settings(model=MODEL)).save_pretrained(tmp_path / "model")
    return [str(tmp_path / "model"), f"{table}:validation"]


def printed_rows(capsys, *command):
    assert evaluate_pair_head.main(list(command)) == 0
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_intervals_contain_the_mean_and_tables_can_be_combined(command, capsys):
    rows = printed_rows(capsys, *command)
    assert rows[0][:5] == ["set", "method", "which", "sequences", "precision"]
    assert rows[1][1:4] == ["head", "all", "8"]
    f1, low, high, family_low, family_high = map(float, rows[1][6:])
    assert low <= f1 <= high
    assert family_low <= f1 <= family_high
    tables = printed_rows(capsys, *command, "--print", "scores", "knots", "confidence")
    assert tables[: len(rows)] == rows
    assert [row[2] for row in tables if row[0] == "set"] == ["which", "pairs of a stem", "which"]


def test_scores_of_layers_and_heads(command, capsys):
    command = [*command, "--sequences", "4"]
    _, *rows = printed_rows(capsys, *command, "--scores", "all")
    places = [[str(layer), str(head)] for layer in range(3) for head in range(4)]
    assert sorted(row[:2] for row in rows) == places
    f1 = [float(row[2]) for row in rows]
    assert f1 == sorted(f1, reverse=True)
    assert printed_rows(capsys, *command, "--random")[1][2:4] == ["all", "4"]


@needs_vienna
def test_methods_of_several_tables(command, capsys):
    model, validation = command
    known = validation.removesuffix(":validation")
    tables = [validation, f"{known}:train"]
    methods = ["mfe", "mea", "centroid", "greedy"]
    rows = printed_rows(
        capsys, model, *tables, "--sequences", "4", "--methods", ",".join(methods), "--by", "split"
    )
    of_methods = [row for row in rows if row[2] == "all" and " - " not in row[1]]
    assert [row[1] for row in of_methods] == methods * 2
    assert {row[3] for row in of_methods} == {"4"}
    assert [row[0] for row in rows if row[2] == "train"] == ["rnas.tsv:train"] * 4
    f1 = {row[1]: float(row[6]) for row in of_methods[:4]}
    of_validation = [row for row in rows if row[0] == "rnas.tsv:validation"]
    differences = {row[1]: float(row[6]) for row in of_validation if " - " in row[1]}
    expected = {f"mfe - {other}": f1["mfe"] - f1[other] for other in methods[1:]}
    assert differences == pytest.approx(expected, abs=1e-4)
    for options, message in (
        ([validation, "--methods", "best"], "--methods must be among head, prior, mfe"),
        ([known], "names no split: write"),
        ([tables[0], "--by", "colour"], "colour"),
    ):
        assert evaluate_pair_head.main([model, *options]) == 1
        assert message in capsys.readouterr().err


@needs_vienna
def test_predictions_equal_those_of_fold(command):
    rnas, _ = evaluate_pair_head.read_set(command[1], None)
    predictions = evaluate_pair_head.predict(["head", "prior"], rnas, "mini")
    for method, prior in (("head", None), ("prior", "vienna")):
        folds = fold(rnas, "mini", matrix="probabilities", prior=prior)
        for folded, pairs in zip(folds, predictions[method], strict=True):
            assert sorted(pairs) == folded.structure.pairs != []
            assert pairs == {pair: float(folded.matrix[pair]) for pair in pairs}


@pytest.mark.parametrize(
    ("sequence", "structure"),
    [
        ("ggtaaaaacc", "(((....)))"),
        ("GGAAAACC", "........"),  # A stem has at least three pairs.
        ("AAAGGGGAAAACCCCUUU", "(((((((....)))))))"),
        ("GGGGAAAAAACCCCAAUUUUUU", "((((......))))........"),  # The weaker stem would cross.
        ("GGGGNAAACCCC", "((((....))))"),
        ("G", "."),
    ],
)
def test_greedy_structure(sequence, structure):
    assert evaluate_pair_head.greedy_pairs(sequence) == from_dot_bracket(structure)


def test_rules_for_crossing_pairs():
    known = "((((..[[[[..))))..]]]]"
    predicted = dict.fromkeys(from_dot_bracket(known), 0.7)
    rna = Rna("knot", "A" * 22, "", known, "family")
    # (shortest stem, probability, longest loop) -> (RNAs, their crossing pairs, known ones, F1)
    rows = {
        tuple(map(str, row[1:4])): tuple(map(str, row[4:8]))
        for row in evaluate_pair_head.table_of_knots([rna], {"head": [predicted]}, {})
    }
    assert rows["1", "0.0", "inf"] == ("1", "4", "4", "1.0000")
    assert rows["inf", "0.0", "inf"] == ("0", "0", "0", f"{2 * 4 / 12:.4f}")
    for rule, crossing_pairs in (
        (("4", "0.0", "inf"), "4"),
        (("5", "0.0", "inf"), "0"),
        (("1", "0.7", "inf"), "4"),
        (("1", "0.8", "inf"), "0"),
        (("1", "0.0", "8"), "4"),
    ):
        assert rows[rule][1] == crossing_pairs
    assert evaluate_pair_head.believed_pairs(predicted, 1, 0.0, 1)[1] == []


def test_confidence_by_label():
    rnas = [Rna(id, "A" * 9, "", "((.....))") for id in "ab"]
    pairs = {"head": [{(0, 8): 0.9, (1, 6): 0.5}, {(1, 7): 0.9}], "mfe": [{(0, 8): np.nan}, {}]}
    labels = {"a": "x", "b": "y"}
    rows = list(evaluate_pair_head.table_of_confidence(rnas, pairs, labels))
    assert rows == [
        ("head", "all", 3, "0.767", "0.667", "0.233"),
        ("head", "0.5 to 0.6", 1, "0.500", "0.000", ""),
        ("head", "0.9 to 1.0", 2, "0.900", "1.000", ""),
        ("head", "x", 2, "0.700", "0.500", "0.300"),
        ("head", "y", 1, "0.900", "1.000", "0.100"),
    ]


def test_intervals_over_families_draw_whole_families():
    values = np.array([0.0] * 50 + [1.0] * 50)
    low, high = map(float, evaluate_pair_head._interval(values))
    assert 0.3 < low < 0.5 < high < 0.7
    families = ["a"] * 50 + ["b"] * 50
    assert evaluate_pair_head._interval(values, families) == ["0.0000", "1.0000"]
