"""The commands convert, verify, info and plot, as they are typed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie_rna.cli import main as cli
from ernie_rna.cli.plot import find_record
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from ernie_rna.structures.formats.by_extension import write_structures
from ernie_rna.structures.formats.structure import Structure
from tests.conftest import ROOT
from tests.golden_folder import CHECKPOINT, GOLDEN

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
# convert and verify


def test_convert_reports_what_became_of_each_weight(converted, capsys, tmp_path):
    output, _ = run(capsys, "convert", str(CHECKPOINT), str(tmp_path / "again"))
    assert f"read      {CHECKPOINT}" in output
    assert "4 layers, 12 heads, width 48" in output
    assert "verified in a fresh process: 78 weights equal bit for bit" in output
    for name in ("config.json", "model.safetensors", "modeling_ernie_rna.py"):
        assert (tmp_path / "again" / name).read_bytes() == (converted / name).read_bytes()


def test_convert_leaves_a_folder_alone_without_force(converted, capsys):
    before = (converted / "config.json").stat().st_mtime_ns
    _, errors = run(capsys, "convert", str(CHECKPOINT), str(converted), code=1)
    assert str(converted) in errors
    assert "--force" in errors
    assert (converted / "config.json").stat().st_mtime_ns == before


def test_verify_against_the_checkpoint_and_the_authors_values(folder, capsys):
    golden = str(GOLDEN / "tiny_expected.safetensors")
    arguments = ["--checkpoint", str(CHECKPOINT), "--golden", golden]
    output, _ = run(capsys, "verify", "model", *arguments)
    assert f"the weights of model are those of {CHECKPOINT}" in output
    assert "logits, masked as in pretraining" in output


def test_verify_finds_other_weights(folder, capsys):
    shutil.copytree("model", "changed")
    weights = load_file("changed/model.safetensors")
    name = max(weights, key=lambda key: weights[key].numel())
    weights[name].view(-1)[0] += 1e-6
    save_file(weights, "changed/model.safetensors", metadata={"format": "pt"})
    output, _ = run(capsys, "verify", "changed", "--checkpoint", str(CHECKPOINT), code=1)
    assert f"the weights of changed differ from those of {CHECKPOINT}" in output


def test_verify_finds_other_embeddings(folder, capsys):
    np.save("cls.npy", np.zeros((2, 4, 48), dtype=np.float32))
    output, _ = run(capsys, "verify", "model", "--cls-embedding", "cls.npy", code=1)
    assert "missed: " in output


def test_verify_needs_something_to_compare_with(folder, capsys):
    _, errors = run(capsys, "verify", "model", code=1)
    assert "nothing to compare: give --checkpoint, --cls-embedding or --golden" in errors


# ---------------------------------------------------------------------------------------------
# info


def test_info_without_a_model(capsys):
    output, _ = run(capsys, "info", "--device", "cpu")
    assert f"torch                  {torch.__version__}" in output
    assert "free memory, cpu" in output
    assert "layers" not in output


def test_info_on_a_model(folder, capsys):
    arguments = ["-m", "model", "--lengths", "100,2000000", "--batch", "2", "--device", "cpu"]
    output, _ = run(capsys, "info", *arguments)
    assert "layers, heads          4, 12" in output
    assert "A-U 2.0, G-C 3.0, G-U 0.8" in output
    assert "100 nt                 carried; carried they take 0.000999 GB" in output
    assert "2000000 nt             recomputed" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "0"], "--batch must be at least 1; got 0"),
        (["--device", "abacus"], "abacus"),
        (["-m", "nowhere"], "nowhere"),
    ],
)
def test_what_info_refuses(folder, capsys, arguments, message):
    assert message in run(capsys, "info", *arguments, code=1).err


def test_info_and_the_card_count_the_same_parameters(folder, capsys):
    output, _ = run(capsys, "info", "-m", "model")
    (line,) = [line for line in output.splitlines() if line.startswith("  parameters")]
    assert line.split()[1] == "82,057"
    assert (
        "| parameters | 82,057 (encoder, pooler and LM head" in Path("model/README.md").read_text()
    )
    assert "random, never trained" in output


def test_info_on_another_model(folder, capsys):
    Path("bert").mkdir()
    Path("bert/config.json").write_text(json.dumps({"model_type": "bert"}))
    _, errors = run(capsys, "info", "-m", "bert", code=1)
    assert "bert is no ERNIE-RNA" in errors


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
