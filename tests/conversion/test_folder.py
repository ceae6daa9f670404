"""What a folder for the Hub holds, what its card says, and where one may be written."""

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
# What is written


def test_the_folder_is_complete(golden_folder):
    assert why_no_model(golden_folder, ["README.md", "vocab.json"]) is None
    assert len({path.stat().st_mode for path in golden_folder.iterdir()}) == 1
    root = {path.name: path.read_bytes() for path in ROOT.glob("*_ernie_rna.py")}
    assert {path.name: path.read_bytes() for path in code_files()} == root
    assert root.keys() >= {"modeling_ernie_rna.py", "fused_ernie_rna.py"}
    assert {name: (golden_folder / name).read_bytes() for name in root} == root


@pytest.mark.parametrize(
    ("task", "name", "pair_heads"),
    [
        ("", "ErnieRnaForMaskedLM", None),
        ("secondary_structure", "ErnieRnaForSecondaryStructure", [5]),
        ("closeness", "ErnieRnaForCloseness", None),
        ("ribosome_loading", "ErnieRnaForRibosomeLoading", None),
    ],
)
def test_a_folder_says_what_it_holds(tmp_path, task, name, pair_heads):
    """Also to the installed classes, without `trust_remote_code`."""
    write_folder(converted(task), tmp_path)
    assert not converted(task).initialised
    config = json.loads((tmp_path / "config.json").read_text())
    expected = {"model_type": "ernie_rna", "architectures": [name], "weights_origin": "random"}
    assert config | {**expected, "pair_heads": pair_heads} == config
    of_all = name if task else "ErnieRnaModel"
    heads = ("ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification")
    assert config["auto_map"] == {
        "AutoConfig": "configuration_ernie_rna.ErnieRnaConfig",
        "AutoModel": f"modeling_ernie_rna.{of_all}",
        **{f"AutoModel{head}": f"modeling_ernie_rna.ErnieRna{head}" for head in heads},
    }
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text())
    code = ["tokenization_ernie_rna.ErnieRnaTokenizer", None]
    assert tokenizer["auto_map"] == {"AutoTokenizer": code}
    assert tokenizer["model_max_length"] == config["max_position_embeddings"]
    assert type(AutoModel.from_pretrained(tmp_path)).__name__ == of_all
    with pytest.warns(UserWarning, match="random weights"):
        encoder = ernie_rna.load_model(tmp_path, device="cpu")  # without the head, as for `embed`
    assert type(encoder) is ernie_rna.ErnieRnaModel


# ---------------------------------------------------------------------------------------------
# The card


def of_trained(**changes) -> Conversion:
    """The golden conversion as if its weights had been trained."""
    trained = copy.copy(converted())
    trained.config = copy.deepcopy(trained.config)
    trained.config.weights_origin = "checkpoint"
    vars(trained).update(changes)
    return trained


THEIRS = {"naming": MULTIMOLECULE, "initialised": {"x[y]": "Z"}}
STRUCTURE = ("secondary_structure",)


@pytest.mark.parametrize(
    ("conversion", "said", "not_said"),
    [
        (
            converted(),
            ["**These weights are random and untrained", "license: apache-2.0\n"],
            ["work of the authors", "Weijie Yin\n"],
        ),
        (
            of_trained(),
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
            of_trained(**THEIRS),
            ["license: agpl-3.0\n", "MultiMolecule, whose card states AGPL-3.0", "Z: `x[y]`"],
            [],
        ),
        (
            converted(*STRUCTURE),
            [
                *("| task | secondary structure", "attention scores of head 5"),
                *("computed from it (A-U 2, G-C 3, G-U 0.8)", "--pairing-scores zero"),
            ],
            ["of zero everywhere, as in the"],
        ),
        (
            converted(*STRUCTURE, "zero"),
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
def test_a_card_states_the_facts(conversion, said, not_said):
    card = model_card(conversion)
    assert [fact for fact in said if fact not in card] == []
    assert [fact for fact in not_said if fact in card] == []
    # Its tables are whole, without a blank line; nothing of the template is left.
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


NO_EXPORTS = {
    "lacks config.json": lambda out: (out / "config.json").unlink(),
    "model_type 'bert'": lambda out: (out / "config.json").write_text('{"model_type": "bert"}'),
    "its config.json has model_type None": lambda out: (out / "config.json").write_text("["),
    "also holds thesis.tex": lambda out: (out / "thesis.tex").write_text("precious"),
    "also holds .git": lambda out: (out / ".git").mkdir(),
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
    with pytest.raises(ExportError, match=f"nor a model that ernie-rna wrote .*{message}"):
        ernie_rna.convert(CHECKPOINT, out, force=force)
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("target", "message"),
    [
        *((one, "nor a model that ernie-rna wrote") for one in (Path.home(), "/", ROOT / "tests")),
        ("", "the name of the folder to write is empty"),
        ("file", "a file or a symbolic link; name the folder"),
        ("link", "a file or a symbolic link; name the folder"),
        ("file/a/out", "file/a/out: cannot be written, since .*/file is a file and not a folder"),
        ("closed/a/b", "closed/a/b: cannot be written, since .*closed is not a writable folder"),
    ],
    ids=str,
)
def test_where_no_folder_may_go(golden_folder, tmp_path, monkeypatch, target, message):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(golden_folder)
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: path.name != "closed")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=message):
        check_target(target, force=True)
