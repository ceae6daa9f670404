"""What holds for all commands that load a model, as they are typed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ernie_rna.cli import main as cli
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from tests.conftest import ROOT
from tests.golden_folder import CHECKPOINT


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The folder that `ernie-rna convert` writes."""
    folder = tmp_path_factory.mktemp("converted") / "model"
    assert cli.main(["convert", str(CHECKPOINT), str(folder)]) == 0
    return folder


@pytest.fixture
def folder(converted, tmp_path, monkeypatch, sequences):
    """The working directory, with the model and a FASTA file."""
    monkeypatch.chdir(tmp_path)
    os.symlink(converted, "model")
    records = [f">{name}\n{sequences[name]}\n" for name in ("trna_arg", "readme_1")]
    Path("in.fasta").write_text("".join(records))
    return tmp_path


def run(capsys, *arguments, code=0):
    """The standard output and standard error of a command."""
    assert cli.main([*arguments]) == code
    return capsys.readouterr()


@pytest.mark.parametrize(
    "command",
    [
        "embed in.fasta -m model -o out.npz --quiet",
        "mutate in.fasta -m model --summary out.tsv --quiet --unmasked",
        "plot in.fasta -m model --id readme_1 -o out.svg --quiet",
    ],
)
def test_random_weights_are_told_in_one_line(folder, capsys, command):
    _, errors = run(capsys, *command.split())
    line, *others = errors.splitlines()
    assert line == (
        "ernie-rna: warning: model has random weights, which were never trained: what follows "
        "means nothing"
    )
    assert others == []


def test_a_model_without_the_head_that_is_asked_for(folder, capsys):
    ErnieRnaModel.from_pretrained("model").save_pretrained("encoder")
    capsys.readouterr()
    _, errors = run(capsys, "mutate", "in.fasta", "-m", "encoder", "-o", "out.tsv", code=1)
    assert errors == (
        "ernie-rna: error: encoder has no language-model head, which this needs: it is "
        "ErnieRnaModel; take the pretrained model, as `ernie-rna convert` makes it of "
        "ERNIE-RNA_pretrain.pt, or save an ErnieRnaForMaskedLM\n"
    )
    assert not Path("out.tsv").exists()


REMOTE_CODE = """
import sys
from transformers import AutoModel

model = AutoModel.from_pretrained("model", trust_remote_code=True)
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
assert not isinstance(model, ErnieRnaModel)
from ernie_rna.embeddings.embed import embed
from ernie_rna.structures.fold import fold
print(next(embed(["GGGGAAAACCCC"], model))["mean"].shape)
print(next(fold(["GGGGAAAACCCC"], model)).structure.dot_bracket)
"""


def test_the_library_takes_models_of_remote_code(folder, tmp_path):
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", REMOTE_CODE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "(48,)"
    assert len(done.stdout.splitlines()[1]) == 12
