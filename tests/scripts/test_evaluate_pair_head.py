"""Tables of a head, its prior, ViennaRNA and what needs no model, on a small model and by hand."""

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


def printed(capsys, *command):
    assert evaluate_pair_head.main(list(command)) == 0
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_means_and_intervals(command, capsys):
    rows = printed(capsys, *command)
    assert rows[0][:5] == ["set", "method", "which", "sequences", "precision"]
    assert rows[1][1:4] == ["head", "all", "8"]
    f1, *ends = map(float, rows[1][6:])
    assert len(ends) == 4
    assert ends[0] <= f1 <= ends[1]
    assert ends[2] <= f1 <= ends[3]
    several = printed(capsys, *command, "--print", "scores", "knots", "confidence")
    assert several[: len(rows)] == rows
    assert [row[2] for row in several if row[0] == "set"] == ["which", "pairs of a stem", "which"]


def test_scores_of_layers_and_heads(command, capsys):
    command = [*command, "--sequences", "4"]
    _, *places = printed(capsys, *command, "--scores", "all")
    f1 = [float(row[2]) for row in places]
    assert sorted(row[:2] for row in places) == [
        [str(a), str(b)] for a in range(3) for b in range(4)
    ]
    assert f1 == sorted(f1, reverse=True)
    assert printed(capsys, *command, "--random")[1][2:4] == ["all", "4"]


@needs_vienna
def test_methods_of_several_tables(command, capsys):
    model, validation = command
    known = validation.removesuffix(":validation")
    tables = [validation, f"{known}:train"]
    methods = ["mfe", "mea", "centroid", "greedy"]
    rows = printed(
        capsys, model, *tables, "--sequences", "4", "--methods", ",".join(methods), "--by", "split"
    )
    everything = [row for row in rows if row[2] == "all" and " - " not in row[1]]
    assert [row[1] for row in everything] == methods * 2
    assert {row[3] for row in everything} == {"4"}
    assert [row[0] for row in rows if row[2] == "train"] == ["rnas.tsv:train"] * 4
    f1 = {row[1]: float(row[6]) for row in everything[:4]}
    above = {row[1]: float(row[6]) for row in rows if row[0] == "rnas.tsv:validation"}
    above = {name: lead for name, lead in above.items() if " - " in name}
    assert above == pytest.approx(
        {f"mfe - {other}": f1["mfe"] - f1[other] for other in methods[1:]}, abs=1e-4
    )
    for options, message in (
        ([validation, "--methods", "best"], "--methods must be among head, prior, mfe"),
        ([known], "names no split: write"),
        ([tables[0], "--by", "colour"], "colour"),
    ):
        assert evaluate_pair_head.main([model, *options]) == 1
        assert message in capsys.readouterr().err


@needs_vienna
def test_predictions_are_those_of_fold(command):
    rnas, _ = evaluate_pair_head.read_set(command[1], None)
    found = evaluate_pair_head.predict(["head", "prior"], rnas, "mini")
    for method, prior in (("head", None), ("prior", "vienna")):
        folded = fold(rnas, "mini", matrix="probabilities", prior=prior)
        for one, pairs in zip(folded, found[method], strict=True):
            assert sorted(pairs) == one.structure.pairs != []
            assert pairs == {pair: float(one.matrix[pair]) for pair in pairs}


@pytest.mark.parametrize(
    ("sequence", "structure"),
    [
        ("ggtaaaaacc", "(((....)))"),
        ("GGAAAACC", "........"),  # A run has three pairs.
        ("AAAGGGGAAAACCCCUUU", "(((((((....)))))))"),
        ("GGGGAAAAAACCCCAAUUUUUU", "((((......))))........"),  # The weaker crosses.
        ("GGGGNAAACCCC", "((((....))))"),
        ("G", "."),
    ],
)
def test_the_greedy_structure(sequence, structure):
    assert evaluate_pair_head.greedy_pairs(sequence) == from_dot_bracket(structure)


def test_rules_for_crossing_pairs():
    known = "((((..[[[[..))))..]]]]"
    predicted = dict.fromkeys(from_dot_bracket(known), 0.7)
    rna = Rna("knot", "A" * 22, "", known, "family")
    rows = {
        tuple(map(str, row[1:4])): tuple(map(str, row[4:8]))
        for row in evaluate_pair_head.table_of_knots([rna], {"head": [predicted]}, {})
    }
    assert rows["1", "0.0", "inf"] == ("1", "4", "4", "1.0000")
    assert rows["inf", "0.0", "inf"] == ("0", "0", "0", f"{2 * 4 / 12:.4f}")
    for rule, kept in (
        (("4", "0.0", "inf"), "4"),
        (("5", "0.0", "inf"), "0"),
        (("1", "0.7", "inf"), "4"),
        (("1", "0.8", "inf"), "0"),
        (("1", "0.0", "8"), "4"),
    ):
        assert rows[rule][1] == kept
    assert evaluate_pair_head.believed_pairs(predicted, 1, 0.0, 1)[1] == []


def test_confidence_by_label():
    rnas = [Rna(id, "A" * 9, "", "((.....))") for id in "ab"]
    found = {"head": [{(0, 8): 0.9, (1, 6): 0.5}, {(1, 7): 0.9}], "mfe": [{(0, 8): np.nan}, {}]}
    labels = {"a": "x", "b": "y"}
    rows = list(evaluate_pair_head.table_of_confidence(rnas, found, labels))
    assert rows == [
        ("head", "all", 3, "0.767", "0.667", "0.233"),
        ("head", "0.5 to 0.6", 1, "0.500", "0.000", ""),
        ("head", "0.9 to 1.0", 2, "0.900", "1.000", ""),
        ("head", "x", 2, "0.700", "0.500", "0.300"),
        ("head", "y", 1, "0.900", "1.000", "0.100"),
    ]


def test_families_are_drawn_with_all_of_theirs():
    values = np.array([0.0] * 50 + [1.0] * 50)
    alone = [float(end) for end in evaluate_pair_head._interval(values)]
    assert 0.3 < alone[0] < 0.5 < alone[1] < 0.7
    families = ["a"] * 50 + ["b"] * 50
    assert evaluate_pair_head._interval(values, families) == ["0.0000", "1.0000"]
