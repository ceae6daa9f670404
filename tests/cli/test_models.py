"""The commands convert, push, verify, info and examples."""

import json
import os
from importlib import metadata
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from ernie_rna import data, verify
from ernie_rna.conversion import proof
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from scripts import convert_fairseq_checkpoint, push_to_hub
from tests.conftest import ROOT
from tests.golden_folder import CHECKPOINT, head_checkpoint, write_golden_folder


@pytest.fixture
def here(here, golden_folder) -> Path:
    """The working directory, with a converted model and checkpoints of the authors."""
    os.symlink(golden_folder, "model")
    os.symlink(CHECKPOINT, "pretrained.pt")
    os.symlink(head_checkpoint("secondary_structure"), "structure.pt")
    os.symlink(head_checkpoint("ribosome_loading"), "loading.pt")
    return here


# ---------------------------------------------------------------------------------------------
# convert, push


def test_convert_reports_what_it_did_with_each_weight(here, run, capsys):
    assert convert_fairseq_checkpoint.main(["pretrained.pt", "out"]) == 0
    output = capsys.readouterr().out
    for part in (
        "read      pretrained.pt (fairseq cfg, names of fairseq)",
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
    written = Path("out/config.json").stat().st_mtime_ns
    error = run("convert pretrained.pt out", code=1).err
    assert "out: exists already; --force replaces it" in error
    assert Path("out/config.json").stat().st_mtime_ns == written


def test_convert_reports_the_head_and_its_pairing_scores(here, run, monkeypatch):
    monkeypatch.setattr(proof, "prove", lambda *_: proof.Proof(0, 0.0))
    head = "head      secondary structure (ErnieRnaForSecondaryStructure), pairing scores: zero"
    assert head in run("convert structure.pt out --pairing-scores zero").out


def test_an_interrupted_convert_leaves_nothing(here, run, monkeypatch):
    monkeypatch.setattr(proof, "prove", Mock(side_effect=KeyboardInterrupt))
    errors = run("convert pretrained.pt new/out", code=130).err
    assert errors == "ernie-rna: interrupted; OUT_DIR is as it was\n"
    assert not Path("new").exists()


def test_the_push_script_calls_the_command(here, capsys):
    assert push_to_hub.main(["model", "me/rna", "--dry-run"]) == 0
    assert "me/rna (public if created, branch main)" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------
# verify


def test_verify_against_a_checkpoint(here, run):
    output = run("verify model --checkpoint pretrained.pt").out
    assert output == "the weights of model equal those of pretrained.pt\n"
    output = run("verify model --checkpoint structure.pt", code=1).out
    assert output == "the weights of model differ from those of structure.pt\n"


def test_verify_against_the_published_embeddings(here, run):
    model = verify.load_own("model", "modeling_ernie_rna.ErnieRnaModel").eval()
    np.save("cls.npy", verify.cls_embedding(model).numpy())
    output = run("verify model --cls-embedding cls.npy").out
    assert [line.split()[0] for line in output.splitlines()[2:6]] == ["1", "2", "3", "4"]
    assert "is within the allowed 1e-04" in output
    np.save("cls.npy", np.zeros((2, 4, 48)))
    output = run("verify model --cls-embedding cls.npy --checkpoint pretrained.pt", code=1).out
    assert "is more than the allowed 1e-04" in output
    Path("loading").mkdir()
    write_golden_folder(Path("loading"), Path("loading.pt"))
    errors = run("verify loading --cls-embedding cls.npy", code=1).err
    assert "are the pretrained model's; loading is fine-tuned" in errors


def test_verify_the_full_size_needs_no_folder(monkeypatch, run):
    config = ErnieRnaConfig(hidden_size=24, num_hidden_layers=1, intermediate_size=24)
    monkeypatch.setattr(verify, "ErnieRnaConfig", lambda: config)
    assert "\nPyTorch's " in run("verify --full-size").out


# ---------------------------------------------------------------------------------------------
# info, examples


def test_info_names_every_extra_and_what_it_lacks_in_40_lines(here, run, monkeypatch):
    extras = ["a", "b-c", *"defghij"]
    requirements = ["torch>=2.4", "nosuch[x]>=1; extra == 'a'", 'numpy; extra == "dev"']
    requirements += [f"numpy>=1.24; extra == '{extra}'" for extra in extras]
    monkeypatch.setattr(metadata, "requires", lambda name: requirements)
    output = run("info -m model --device cpu").out
    assert f"extra a                nosuch missing, numpy {np.__version__}\n" in output
    assert f"extra b-c              numpy {np.__version__}\n" in output
    assert 'to add what is missing pip install "ernie-rna[a]"' in output
    assert "extra dev" not in output
    assert output.count("\n") < 40
    not_installed = Mock(side_effect=metadata.PackageNotFoundError)
    monkeypatch.setattr(metadata, "requires", not_installed)
    assert "extra" not in run("info --device cpu").out


def test_info_with_and_without_a_model(here, run):
    output = run("info --device cpu").out
    assert f"torch {torch.__version__}" in output
    assert "free memory, cpu" in output
    assert "layers" not in output
    output = run("info -m model --lengths 100,2000000 --batch 2 --device cpu").out
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
    card = Path("model/README.md").read_text()  # It states the same number.
    assert "| parameters | 82,057 (encoder, pooler and LM head" in card
    Path("bert").mkdir()
    Path("bert/config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "not an ERNIE-RNA: its configuration says" in run("info -m bert", code=1).err


def test_examples_replaces_a_changed_file_only_with_force(here, run):
    output = run("examples").out
    assert output.split() == [str(Path("examples", name)) for name in data.EXAMPLE_FILES]
    assert Path("examples/rna.dbn").read_text() == (ROOT / "examples" / "rna.dbn").read_text()
    run("examples")  # Equal files are no error.
    Path("examples/rna.fasta").write_text(">mine\nACGU\n")
    assert "--force replaces it" in run("examples", code=1).err
    assert Path("examples/rna.fasta").read_text() == ">mine\nACGU\n"
    run("examples --force")
    assert Path("examples/rna.fasta").read_text() != ">mine\nACGU\n"
