"""F1 of a head, of random weights and of attention scores, on a small model."""

import importlib.util

import pytest

from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from recipes.pretraining.settings import Settings
from recipes.pretraining.weights import new_model
from scripts import evaluate_pair_head
from tests.recipes.conftest import MODEL, table  # noqa: F401

needs_vienna = pytest.mark.skipif(
    importlib.util.find_spec("RNA") is None, reason="needs ViennaRNA (extra vienna)"
)


@pytest.fixture
def command(tmp_path, table):  # noqa: F811
    model = new_model(Settings(model=MODEL))
    assert isinstance(model, ErnieRnaForPreTraining)
    model.save_pretrained(tmp_path / "model")
    return [str(tmp_path / "model"), str(table), "--split", "validation"]


def printed(capsys, *command):
    assert evaluate_pair_head.main(list(command)) == 0
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_means_and_scores(command, tmp_path, capsys):
    rows = printed(capsys, *command, "-o", str(tmp_path / "scores.tsv"))
    assert rows[0][:5] == ["set", "method", "which", "sequences", "precision"]
    assert rows[1][1:4] == ["head", "all", "8"]
    f1, low, high = map(float, rows[1][6:])
    assert low <= f1 <= high
    assert len((tmp_path / "scores.tsv").read_text().splitlines()) == 1 + 8


def test_scores_of_layers_and_heads(command, capsys):
    command = [*command, "--sequences", "4"]
    best = printed(capsys, *command, "--scores", "all")[1]
    assert printed(capsys, *command, "--scores", ",".join(best[:2]))[1][6] == best[2]
    assert printed(capsys, *command, "--random")[1][2:4] == ["all", "4"]
    with pytest.raises(SystemExit, match="2"):
        evaluate_pair_head.main([*command, "--scores", "x"])
    assert "argument --scores" in capsys.readouterr().err


@needs_vienna
def test_methods_of_several_tables(command, capsys):
    model, known, *_ = command
    tables = [f"{known}:validation", f"{known}:train"]
    rows = printed(capsys, model, *tables, "--sequences", "4", "--methods", "mfe,mea,centroid")
    everything = [row for row in rows if row[2] == "all"]
    assert [row[1] for row in everything] == ["mfe", "mea", "centroid"] * 2
    assert {row[3] for row in everything} == {"4"}
    for options, message in (
        ([known, "--methods", "best"], "--methods must be among head, prior, mfe"),
        ([known], "which rows? Write"),
    ):
        assert evaluate_pair_head.main([model, *options]) == 1
        assert message in capsys.readouterr().err
