"""A folder for the Hub: its files, its card, and where it may be written."""

import copy
import itertools
import json
import os
import shutil
from functools import cache
from pathlib import Path

import pytest
from transformers import AutoModel, AutoModelForMaskedLM

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
from ernie_rna.conversion.hub import files_to_push
from ernie_rna.conversion.names import MULTIMOLECULE
from ernie_rna.conversion.weights import Conversion, convert_weights
from tests.conftest import ROOT, listing
from tests.golden_folder import CHECKPOINT, head_checkpoint

pytestmark = pytest.mark.core


@cache
def converted(task: str = "", pairing_scores: str = "sequence") -> Conversion:
    checkpoint = head_checkpoint(task) if task else CHECKPOINT
    return convert_weights(read_checkpoint(checkpoint), pairing_scores)


# ---------------------------------------------------------------------------------------------
# Its files


def test_the_folder_is_complete(golden_folder):
    assert why_no_model(golden_folder, ["README.md", "vocab.json"]) is None
    assert len({path.stat().st_mode for path in golden_folder.iterdir()}) == 1
    code = {path.name: path.read_bytes() for path in ROOT.glob("*_ernie_rna.py")}
    assert {path.name: path.read_bytes() for path in code_files()} == code
    assert code.keys() >= {"modeling_ernie_rna.py", "fused_ernie_rna.py"}
    assert {name: (golden_folder / name).read_bytes() for name in code} == code


@pytest.mark.parametrize(
    ("task", "name", "pair_heads"),
    [
        ("", "ErnieRnaForMaskedLM", None),
        ("secondary_structure", "ErnieRnaForSecondaryStructure", [5]),
        ("closeness", "ErnieRnaForCloseness", None),
        ("ribosome_loading", "ErnieRnaForRibosomeLoading", None),
    ],
)
def test_the_configuration_names_the_classes(tmp_path, task, name, pair_heads):
    """The installed classes read it too, without `trust_remote_code`."""
    write_folder(converted(task), tmp_path)
    assert not converted(task).initialised
    config = json.loads((tmp_path / "config.json").read_text())
    expected = {"model_type": "ernie_rna", "architectures": [name], "weights_origin": "random"}
    assert config | {**expected, "pair_heads": pair_heads} == config
    auto_model = name if task else "ErnieRnaModel"
    heads = ("ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification")
    assert config["auto_map"] == {
        "AutoConfig": "configuration_ernie_rna.ErnieRnaConfig",
        "AutoModel": f"modeling_ernie_rna.{auto_model}",
        **{f"AutoModel{head}": f"modeling_ernie_rna.ErnieRna{head}" for head in heads},
    }
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text())
    code = ["tokenization_ernie_rna.ErnieRnaTokenizer", None]
    assert tokenizer["auto_map"] == {"AutoTokenizer": code}
    assert tokenizer["model_max_length"] == config["max_position_embeddings"]
    assert type(AutoModel.from_pretrained(tmp_path)).__name__ == auto_model
    with pytest.warns(UserWarning, match="random weights"):
        encoder = ernie_rna.load_model(tmp_path, device="cpu")  # without the head
    assert type(encoder) is ernie_rna.ErnieRnaModel


# ---------------------------------------------------------------------------------------------
# Its card


def trained(**changes) -> Conversion:
    """The golden conversion with the mark that its weights were trained."""
    conversion = copy.copy(converted())
    conversion.config = copy.deepcopy(conversion.config)
    conversion.config.weights_origin = "checkpoint"
    vars(conversion).update(changes)
    return conversion


@pytest.mark.parametrize(
    ("conversion", "stated", "not_stated"),
    [
        (
            converted(),
            ["**These weights are random and untrained", "license: apache-2.0\n"],
            ["work of the authors", "Weijie Yin\n"],
        ),
        (
            trained(),
            [
                *("license: mit\n", "tiny_fairseq_cfg.pt", converted().source.sha256),
                *("| layers | 4 |", "| parameters | 82,057 ", "10.1038/s41467-025-64972-0"),
                "Copyright (c) 2024 Weijie Yin",
                *converted().dropped,
                *converted().dropped.values(),
            ],
            ["random", "license: apache-2.0\n"],
        ),
        (
            trained(naming=MULTIMOLECULE, initialised={"x[y]": "Z"}),
            ["license: agpl-3.0\n", "MultiMolecule, whose card states AGPL-3.0", "Z: `x[y]`"],
            [],
        ),
        (
            converted("secondary_structure"),
            [
                *("| task | secondary structure", "attention scores of head 5"),
                *("computed from it (A-U 2, G-C 3, G-U 0.8)", "--pairing-scores zero"),
            ],
            ["of zero everywhere, as in the"],
        ),
        (
            converted("secondary_structure", "zero"),
            ["of zero everywhere, as in the authors' script"],
            ["--pairing-scores zero"],
        ),
        (converted("closeness"), ["probability"], []),
        (
            converted("ribosome_loading"),
            ["5.269799754058842 + 1.3539032306228027 * logit", "encoder and ribosome loading head"],
            [],
        ),
    ],
    ids=["random", "trained", "foreign", "structure", "zero", "closeness", "loading"],
)
def test_the_card_states_the_facts(conversion, stated, not_stated):
    card = model_card(conversion)
    assert [fact for fact in stated if fact not in card] == []
    assert [fact for fact in not_stated if fact in card] == []
    # No markup of the template is left, and a blank line precedes every table.
    assert not {"{{", "{%", "%}"} & set(card.replace("{{ERNIE-RNA}", "").split())
    assert "\n\n\n" not in card
    for before, line in itertools.pairwise(card.splitlines()):
        assert not (line.startswith("|") and before and not before.startswith("|"))


# ---------------------------------------------------------------------------------------------
# Where it may be written


def keep_only_notes(out: Path) -> None:
    shutil.rmtree(out)
    out.mkdir()
    (out / "notes.txt").write_text("precious")


def in_shards(folder: Path) -> None:
    """Save the model again, in shards."""
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="200KB")
    (folder / "model.safetensors").unlink()


def test_a_model_in_shards_is_complete_with_all_of_them(golden_folder, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(golden_folder, out)
    in_shards(out)
    first, *_ = shards = sorted(path.name for path in out.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert {*shards, "model.safetensors.index.json"} <= files_to_push(out, "me/x").keys()
    assert check_target(out, force=True) == out
    (out / "x.safetensors").touch()
    assert why_no_model(out) == "also holds x.safetensors: move such files out of it"
    (out / first).unlink()
    assert why_no_model(out) == f"lacks {first}"
    (out / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
    assert why_no_model(out) == "lacks model.safetensors"


# What is done to an exported folder, by the message that then refuses to replace it.
CHANGES = {
    "lacks config.json": lambda out: (out / "config.json").unlink(),
    "model_type 'bert'": lambda out: (out / "config.json").write_text('{"model_type": "bert"}'),
    "its config.json has model_type None": lambda out: (out / "config.json").write_text("["),
    "also holds thesis.tex": lambda out: (out / "thesis.tex").write_text("precious"),
    "also holds .git": lambda out: (out / ".git").mkdir(),
    "lacks heads_ernie_rna.py": lambda out: (out / "heads_ernie_rna.py").unlink(),
    "lacks README.md": keep_only_notes,
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("message", "change"), CHANGES.items())
def test_a_folder_that_is_not_an_export_is_never_replaced(
    golden_folder, tmp_path, force, change, message
):
    out = tmp_path / "out"
    shutil.copytree(golden_folder, out)
    change(out)
    before = listing(tmp_path)
    with pytest.raises(ExportError, match=f"nor a model that ernie-rna wrote .*{message}"):
        ernie_rna.convert(CHECKPOINT, out, force=force)
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Path.home(), "nor a model that ernie-rna wrote"),
        ("/", "nor a model that ernie-rna wrote"),
        (ROOT / "tests", "nor a model that ernie-rna wrote"),
        ("", "the name of the folder to write is empty"),
        ("file", "a file or a symbolic link; name the folder"),
        ("link", "a file or a symbolic link; name the folder"),
        ("file/a/out", "file/a/out: cannot be written, since .*/file is a file and not a folder"),
        ("closed/a/b", "closed/a/b: cannot be written, since .*closed is not a writable folder"),
    ],
    ids=str,
)
def test_a_target_that_cannot_be_written_is_refused(
    golden_folder, tmp_path, monkeypatch, target, message
):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(golden_folder)
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: path.name != "closed")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=message):
        check_target(target, force=True)
