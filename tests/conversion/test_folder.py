"""What a folder for the Hub holds, what its card says, and where one may be written."""

import copy
import itertools
import json
import os
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModel

import ernie_rna
from ernie_rna.conversion.checkpoint import read_checkpoint
from ernie_rna.conversion.folder import (
    ExportError,
    check_target,
    code_files,
    model_card,
    why_no_model,
    write_folder,
)
from ernie_rna.conversion.names import MULTIMOLECULE
from ernie_rna.conversion.weights import Conversion, convert_weights
from tests.conftest import ROOT, listing
from tests.golden_folder import CHECKPOINT, head_checkpoint

pytestmark = pytest.mark.core


@cache
def read(task: str, pairing_scores: str = "sequence") -> Conversion:
    return convert_weights(read_checkpoint(head_checkpoint(task)), pairing_scores)


@pytest.fixture(scope="module")
def conversion() -> Conversion:
    return convert_weights(read_checkpoint(CHECKPOINT))


# ---------------------------------------------------------------------------------------------
# What is written


def test_the_folder_is_complete(golden_folder):
    assert why_no_model(golden_folder, ["README.md", "vocab.json"]) is None
    assert len({path.stat().st_mode for path in golden_folder.iterdir()}) == 1
    root = {path.name: path.read_bytes() for path in ROOT.glob("*_ernie_rna.py")}
    assert {path.name: path.read_bytes() for path in code_files()} == root
    assert root.keys() >= {"modeling_ernie_rna.py", "fused_ernie_rna.py"}
    assert {name: (golden_folder / name).read_bytes() for name in root} == root


def test_the_configuration_names_every_class(golden_folder):
    config = json.loads((golden_folder / "config.json").read_text())
    assert config["model_type"] == "ernie_rna"
    assert config["architectures"] == ["ErnieRnaForMaskedLM"]
    assert config["weights_origin"] == "random"
    heads = ("ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification")
    assert config["auto_map"] == {
        "AutoConfig": "configuration_ernie_rna.ErnieRnaConfig",
        "AutoModel": "modeling_ernie_rna.ErnieRnaModel",
        **{f"AutoModel{head}": f"modeling_ernie_rna.ErnieRna{head}" for head in heads},
        "AutoTokenizer": ["tokenization_ernie_rna.ErnieRnaTokenizer", None],
    }
    tokenizer = json.loads((golden_folder / "tokenizer_config.json").read_text())
    assert tokenizer["auto_map"]["AutoTokenizer"] == config["auto_map"]["AutoTokenizer"]
    assert tokenizer["model_max_length"] == config["max_position_embeddings"] == 256


def test_the_weights_are_the_converted_ones(golden_folder, conversion):
    with safe_open(golden_folder / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    written = load_file(golden_folder / "model.safetensors")
    assert written.keys() == conversion.state_dict.keys()
    assert all(torch.equal(written[name], conversion.state_dict[name]) for name in written)
    assert "lm_head.decoder.weight" not in written  # tied to the embedding
    assert {"ernie_rna.pooler.dense.weight", "lm_head.dense.weight"} <= written.keys()


@pytest.mark.parametrize(
    ("task", "head", "pair_heads"),
    [
        ("secondary_structure", "ErnieRnaForSecondaryStructure", [5]),
        ("closeness", "ErnieRnaForCloseness", None),
        ("ribosome_loading", "ErnieRnaForRibosomeLoading", None),
    ],
)
def test_a_folder_says_what_it_holds(tmp_path, task, head, pair_heads):
    """Also to the installed classes, without `trust_remote_code`."""
    write_folder(read(task), tmp_path)
    assert not read(task).initialised
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [head]
    assert config["auto_map"]["AutoModel"] == f"modeling_ernie_rna.{head}"
    assert config["pair_heads"] == pair_heads
    assert type(AutoModel.from_pretrained(tmp_path)).__name__ == head
    with pytest.warns(UserWarning, match="random weights"):
        encoder = ernie_rna.load_model(tmp_path, device="cpu")  # without the head, as for `embed`
    assert type(encoder) is ernie_rna.ErnieRnaModel


# ---------------------------------------------------------------------------------------------
# The card


def of_trained(conversion: Conversion, **changes) -> Conversion:
    """The golden conversion as if its weights had been trained."""
    trained = copy.copy(conversion)
    trained.config = copy.deepcopy(conversion.config)
    trained.config.weights_origin = "checkpoint"
    vars(trained).update(changes)
    return trained


def test_random_weights_are_marked_and_not_called_the_authors(golden_folder):
    card = (golden_folder / "README.md").read_text()
    assert "**These weights are random and untrained" in card
    assert "license: apache-2.0\n" in card
    assert "work of the authors" not in card
    assert "Weijie Yin\n" not in card


def test_the_card_states_the_facts(conversion, golden_folder):
    assert (golden_folder / "README.md").read_text() == model_card(conversion)
    card = model_card(of_trained(conversion))
    assert "license: mit\n" in card.split("---")[1]
    assert "random" not in card
    for fact in (
        "tiny_fairseq_cfg.pt",
        conversion.source.sha256,
        "| layers | 4 |",
        "| parameters | 82,057 ",
        "10.1038/s41467-025-64972-0",
        "Copyright (c) 2024 Weijie Yin",
        *conversion.dropped,
        *conversion.dropped.values(),
    ):
        assert fact in card


def test_the_card_of_multimolecule_states_its_licence(conversion):
    card = model_card(of_trained(conversion, naming=MULTIMOLECULE, initialised={"x[y]": "Z"}))
    assert "license: agpl-3.0\n" in card
    assert "MultiMolecule, whose card states AGPL-3.0" in card
    assert "Z: `x[y]`" in card


def test_a_card_names_task_input_and_output():
    card = model_card(read("secondary_structure"))
    assert "| task | secondary structure" in card
    assert "computed from it (A-U 2, G-C 3, G-U 0.8)" in card
    assert "attention scores of head 5" in card
    assert "--pairing-scores zero" in card
    zero = model_card(read("secondary_structure", "zero"))
    assert "of zero everywhere, as in the authors' script" in zero
    assert "--pairing-scores zero" not in zero
    assert "probability" in model_card(read("closeness"))
    loading = model_card(read("ribosome_loading"))
    assert "5.269799754058842 + 1.3539032306228027 * logit" in loading
    assert "encoder and ribosome loading head" in loading


def test_tables_of_a_card_are_whole(conversion):
    """No blank line within a table, none doubled, nothing of the template left."""
    for card in (model_card(conversion), model_card(read("closeness"))):
        assert not {"{{", "{%", "%}"} & set(card.replace("{{ERNIE-RNA}", "").split())
        assert "\n\n\n" not in card
        for before, line in itertools.pairwise(card.splitlines()):
            assert not (line.startswith("|") and before and not before.startswith("|"))


# ---------------------------------------------------------------------------------------------
# Where one may be written


def only_notes(out: Path) -> None:
    shutil.rmtree(out)
    out.mkdir()
    (out / "notes.txt").write_text("precious")


NO_EXPORTS = {
    "lacks config.json": lambda out: (out / "config.json").unlink(),
    "model_type 'bert'": lambda out: (out / "config.json").write_text('{"model_type": "bert"}'),
    "its config.json is of model_type None": lambda out: (out / "config.json").write_text("["),
    "holds thesis.tex as well": lambda out: (out / "thesis.tex").write_text("precious"),
    "holds .git as well": lambda out: (out / ".git").mkdir(),
    "lacks heads_ernie_rna.py": lambda out: (out / "heads_ernie_rna.py").unlink(),
    "lacks README.md": only_notes,
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("message", "change"), NO_EXPORTS.items())
def test_what_is_no_export_is_never_replaced(golden_folder, tmp_path, force, change, message):
    out = tmp_path / "out"
    shutil.copytree(golden_folder, out)
    change(out)
    before = listing(tmp_path)
    with pytest.raises(ExportError, match=f"no model that ernie-rna wrote .*{message}"):
        ernie_rna.convert(CHECKPOINT, out, force=force)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("target", [Path.home(), Path("/"), Path(__file__).parent], ids=str)
def test_folders_of_the_user_are_refused(target):
    with pytest.raises(ExportError, match="no model that ernie-rna wrote"):
        check_target(target, force=True)


def test_files_and_links_and_what_allows_no_writing_are_refused(golden_folder, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(golden_folder)
    refused = {"file": "a file; name a folder", "link": "a symbolic link"}
    for name, message in {**refused, "file/out": "since .*file allows no writing"}.items():
        with pytest.raises(ExportError, match=message):
            check_target(tmp_path / name, force=True)


def test_a_folder_that_allows_no_writing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ExportError, match=f"a/b: cannot be written, since {tmp_path} allows no"):
        check_target(tmp_path / "a" / "b")
