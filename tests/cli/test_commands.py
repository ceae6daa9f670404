"""The commands convert, verify, info and plot, as they are typed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ernie_rna.cli import main as cli
from ernie_rna.cli.plot import find_record
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from ernie_rna.structures.formats.by_extension import write_structures
from ernie_rna.structures.formats.structure import Structure
from tests.conftest import ROOT
from tests.golden_folder import CHECKPOINT

needs_vienna = pytest.mark.skipif(
    importlib.util.find_spec("RNA") is None, reason="needs ViennaRNA (extra vienna)"
)


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


# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "embed in.fasta -m model -o out.npz --quiet",
        "mutate in.fasta -m model --summary out.tsv --quiet --unmasked",
        "plot in.fasta -m model --id readme_1 -o out.svg",
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
    _, errors = run(capsys, "mutate", "in.fasta", "-m", "encoder", "-o", "out.tsv", code=1)
    assert errors == (
        "ernie-rna: error: encoder has no language-model head, which this needs: it is "
        "ErnieRnaModel; take the pretrained model, as `ernie-rna convert` makes it of "
        "ERNIE-RNA_pretrain.pt, or save an ErnieRnaForMaskedLM\n"
    )
    assert not Path("out.tsv").exists()


# ---------------------------------------------------------------------------------------------
# plot


@pytest.mark.parametrize(
    "what", ["map", "heads", "arcs", pytest.param("layout", marks=needs_vienna)]
)
def test_plot_draws(folder, capsys, what):
    pytest.importorskip("matplotlib")
    arguments = ["plot", "in.fasta", "-m", "model", "--id", "trna_arg", "--what", what]
    run(capsys, *arguments, "-o", "out.svg")
    assert "trna_arg" in Path("out.svg").read_text()
    _, errors = run(capsys, *arguments, "-o", "out.svg", code=1)
    assert "--force" in errors


def test_plot_marks_the_known_structure(folder, capsys, sequences):
    pytest.importorskip("matplotlib")
    sequence = sequences["trna_arg"]
    write_structures(Path("known.dbn"), [Structure("trna_arg", sequence, [(0, 70)])])
    arguments = ["plot", "in.fasta", "-m", "model", "--id", "trna_arg", "--what", "arcs"]
    run(capsys, *arguments, "-o", "alone.svg")
    run(capsys, *arguments, "-o", "both.svg", "--reference", "known.dbn")
    assert Path("alone.svg").read_text() != Path("both.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out.gif"], "the extension must be one of .png, .svg, .pdf"),
        (["-o", "out.png"], "there are several sequences: name one by --id, such as trna_arg"),
        (["-o", "out.png", "--id", "x"], "no sequence has the id 'x'"),
        (["-o", "out.png", "--id", "trna_arg", "--layer", "9"], "layer 9"),
        (["-o", "out.png", "--id", "trna_arg", "--head", "12"], "head 12"),
        (["-o", "out.png", "--id", "trna_arg", "--reference", "known.dbn"], "75 nt, 5 in known"),
        (["-o", "out.png", "--id", "readme_1", "--reference", "known.dbn"], "'readme_1'"),
        (["-o", "out.png", "--what", "heads", "--reference", "known.dbn"], "shows no known pairs"),
    ],
)
def test_what_plot_refuses(folder, capsys, arguments, message):
    pytest.importorskip("matplotlib")
    write_structures(Path("known.dbn"), [Structure("trna_arg", "GAAAC", [])])
    errors = run(capsys, "plot", "in.fasta", "-m", "model", *arguments, code=1).err
    assert message in errors
    assert not Path("out.png").exists()


def test_the_only_record_needs_no_name():
    assert find_record(iter(["it"]), None) == "it"


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
