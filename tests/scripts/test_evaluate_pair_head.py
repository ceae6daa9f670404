"""F1 of a head, of random weights and of attention scores, on a small model."""

import pytest

from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from recipes.pretraining.settings import Settings
from recipes.pretraining.weights import new_model
from scripts import evaluate_pair_head
from tests.recipes.conftest import MODEL, table  # noqa: F401


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
    assert rows[0] == ["which", "sequences", "precision", "recall", "F1"]
    assert rows[1][:2] == ["all", "8"]
    assert len((tmp_path / "scores.tsv").read_text().splitlines()) == 1 + 8


def test_scores_of_layers_and_heads(command, capsys):
    command = [*command, "--sequences", "4"]
    best = printed(capsys, *command, "--scores", "all")[1]
    assert printed(capsys, *command, "--scores", ",".join(best[:2]))[1][-1] == best[2]
    assert printed(capsys, *command, "--random")[1][:2] == ["all", "4"]
    with pytest.raises(SystemExit, match="2"):
        evaluate_pair_head.main([*command, "--scores", "x"])
    assert "argument --scores" in capsys.readouterr().err
