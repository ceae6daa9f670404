"""The commands convert, push, verify, info and examples, as they are typed."""

import os
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie_rna import data, verify
from ernie_rna.cli import main as cli
from ernie_rna.conversion import proof
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from scripts import convert_fairseq_checkpoint, push_to_hub
from tests.conftest import ROOT
from tests.golden_folder import CHECKPOINT, head_checkpoint, write_golden_folder


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    return write_golden_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def here(converted, tmp_path, monkeypatch) -> Path:
    """The working directory, with a model."""
    monkeypatch.chdir(tmp_path)
    os.symlink(converted, "model")
    return tmp_path


def run(capsys, *arguments, code=0):
    """The standard output and standard error of a command."""
    assert cli.main([*arguments]) == code
    return capsys.readouterr()


# ---------------------------------------------------------------------------------------------
# convert, push


def test_convert_reports_what_became_of_each_weight(here, capsys):
    assert convert_fairseq_checkpoint.main([str(CHECKPOINT), "out"]) == 0
    output = capsys.readouterr().out
    for part in (
        f"read      {CHECKPOINT} (fairseq cfg, names of fairseq)",
        "4 layers, 12 heads, width 48, feed-forward 96, 256 tokens",
        "note      the weights are random",
        "dropped (3):\n  encoder.",
        "  encoder.sentence_projection_layer.weight ",
        "  sentence-pair head, which the model does not use",
        f"wrote     {Path('out').absolute()}",
        "verified in a fresh process: 78 weights equal bit for bit, outputs within ",
    ):
        assert part in output
    for name in ("config.json", "model.safetensors", "modeling_ernie_rna.py"):
        assert Path("out", name).read_bytes() == Path("model", name).read_bytes()
    before = Path("out/config.json").stat().st_mtime_ns
    _, errors = run(capsys, "convert", str(CHECKPOINT), "out", code=1)
    assert "out: exists already; --force replaces it" in errors
    assert Path("out/config.json").stat().st_mtime_ns == before


def test_convert_notes_pairing_scores(here, capsys, monkeypatch):
    monkeypatch.setattr(proof, "prove", lambda *_: proof.Proof(0, 0.0))
    checkpoint = str(head_checkpoint("secondary_structure"))
    output, _ = run(capsys, "convert", checkpoint, "out", "--pairing-scores", "zero")
    head = "head      secondary structure (ErnieRnaForSecondaryStructure), pairing scores: zero"
    assert head in output


def test_convert_that_is_interrupted(here, capsys, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(proof, "prove", interrupt)
    errors = run(capsys, "convert", str(CHECKPOINT), "new/out", code=130).err
    assert errors == "ernie-rna: interrupted; OUT_DIR is as it was\n"
    assert os.listdir(here) == ["model"]


def test_the_script_pushes(here, capsys):
    assert push_to_hub.main(["model", "me/rna", "--dry-run"]) == 0
    assert "me/rna (public if made, branch main)" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------
# verify


def test_verify_against_the_checkpoint(here, capsys):
    output, _ = run(capsys, "verify", "model", "--checkpoint", str(CHECKPOINT))
    assert f"the weights of model equal those of {CHECKPOINT}" in output
    shutil.copytree("model", "changed")
    weights = load_file("changed/model.safetensors")
    name = max(weights, key=lambda key: weights[key].numel())
    weights[name].view(-1)[0] += 1e-6
    save_file(weights, "changed/model.safetensors", metadata={"format": "pt"})
    output, _ = run(capsys, "verify", "changed", "--checkpoint", str(CHECKPOINT), code=1)
    assert f"the weights of changed differ from those of {CHECKPOINT}" in output


def test_verify_against_the_published_embeddings(here, capsys):
    model = verify.load_own("model", "modeling_ernie_rna.ErnieRnaModel").eval()
    np.save("cls.npy", verify.cls_embedding(model).numpy())
    output, _ = run(capsys, "verify", "model", "--cls-embedding", "cls.npy")
    assert [line.split()[0] for line in output.splitlines()[2:6]] == ["1", "2", "3", "4"]
    assert "is within the allowed 1e-04" in output
    np.save("cls.npy", np.zeros((2, 4, 48)))
    output, _ = run(capsys, "verify", "model", "--cls-embedding", "cls.npy", code=1)
    assert "is more than the allowed 1e-04" in output


def test_verify_of_a_fine_tuned_folder(here, capsys):
    Path("loading").mkdir()
    checkpoint = head_checkpoint("ribosome_loading")
    write_golden_folder(Path("loading"), checkpoint)
    output, _ = run(capsys, "verify", "loading", "--checkpoint", str(checkpoint))
    assert "equal those of" in output
    other = str(head_checkpoint("secondary_structure"))
    run(capsys, "verify", "loading", "--checkpoint", other, code=1)
    Path("x.npy").touch()
    errors = run(capsys, "verify", "loading", "--cls-embedding", "x.npy", code=1).err
    assert "are the pretrained model's; loading is fine-tuned" in errors


def test_verify_the_full_size_needs_no_folder(monkeypatch, capsys):
    config = ErnieRnaConfig(hidden_size=24, num_hidden_layers=1, intermediate_size=24)
    monkeypatch.setattr(verify, "ErnieRnaConfig", lambda: config)
    assert "\nPyTorch's " in run(capsys, "verify", "--full-size").out


# ---------------------------------------------------------------------------------------------
# info


def test_info_without_a_model(capsys):
    output, _ = run(capsys, "info", "--device", "cpu")
    assert f"torch {torch.__version__}" in output
    assert "free memory, cpu" in output
    assert "layers" not in output


def test_info_names_every_extra_and_what_it_lacks_on_a_screen(here, capsys, monkeypatch):
    extras = ["a", "b-c", *"defghij"]
    needs = ["torch>=2.4", "nosuch[x]>=1; extra == 'a'", 'numpy; extra == "dev"']
    needs += [f"numpy>=1.24; extra == '{extra}'" for extra in extras]
    monkeypatch.setattr(metadata, "requires", lambda name: needs)
    output, _ = run(capsys, "info", "-m", "model", "--device", "cpu")
    assert f"extra a                numpy {np.__version__}, nosuch missing\n" in output
    assert f"extra b-c              numpy {np.__version__}\n" in output
    assert 'to add what is missing pip install "ernie-rna[a]"' in output
    assert "extra dev" not in output
    assert output.count("\n") < 40

    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", nothing)
    assert "extra" not in run(capsys, "info", "--device", "cpu")[0]


def test_info_on_a_model(here, capsys):
    arguments = ["-m", "model", "--lengths", "100,2000000", "--batch", "2", "--device", "cpu"]
    output, _ = run(capsys, "info", *arguments)
    for line in (
        "architectures          ErnieRnaForMaskedLM",
        "layers, heads          4, 12",
        "pairing scores         A-U 2.0, G-C 3.0, G-U 0.8",
        "weights                82,057 in F32",
        "origin of weights      random, never trained",
        "100 nt                 carried; they take 999 kB",
        "2000000 nt             recomputed",
    ):
        assert f"  {line}" in output
    card = Path("model/README.md").read_text()  # It counts the same.
    assert "| parameters | 82,057 (encoder, pooler and LM head" in card


# ---------------------------------------------------------------------------------------------
# examples


def test_the_examples_are_copied_once(here, capsys):
    output, _ = run(capsys, "examples")
    assert output.split() == [str(Path("examples", name)) for name in data.EXAMPLE_FILES]
    assert Path("examples/rna.dbn").read_text() == (ROOT / "examples" / "rna.dbn").read_text()
    run(capsys, "examples")  # They are there already, as they should be.
    Path("examples/rna.fasta").write_text(">mine\nACGU\n")
    assert "--force replaces it" in run(capsys, "examples", code=1).err
    assert Path("examples/rna.fasta").read_text() == ">mine\nACGU\n"
    run(capsys, "examples", "--force")
    assert Path("examples/rna.fasta").read_text() != ">mine\nACGU\n"
