import copy
import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ernie_rna
from ernie_rna.conversion import proof
from ernie_rna.conversion.checkpoint import read_checkpoint
from ernie_rna.conversion.folder import (
    ExportError,
    code_files,
    model_card,
    why_no_model,
    write_folder,
)
from ernie_rna.conversion.names import MULTIMOLECULE
from ernie_rna.conversion.proof import Proof, prove
from ernie_rna.conversion.weights import Conversion, convert_weights
from ernie_rna.run.outputs import OutputError
from tests.conftest import ROOT
from tests.golden_folder import CHECKPOINT as CFG
from tests.golden_folder import head_checkpoint

export_module = importlib.import_module("ernie_rna.conversion.convert")
pytestmark = pytest.mark.core


def read(task: str, pairing_scores: str = "sequence") -> Conversion:
    return convert_weights(read_checkpoint(head_checkpoint(task)), pairing_scores)


@pytest.fixture(scope="module")
def conversion() -> Conversion:
    return convert_weights(read_checkpoint(CFG))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An export that was proven, for tests that only read it."""
    written = ernie_rna.convert(CFG, tmp_path_factory.mktemp("export") / "ernie-rna")
    assert written.proof.tensors == len(written.conversion.state_dict) == 78
    assert written.proof.max_difference < 1e-5
    return written.path


@pytest.fixture
def unproven(monkeypatch):
    """Exports without the fresh process, which takes seconds."""
    monkeypatch.setattr(proof, "prove", lambda folder, conversion: Proof(0, 0.0))


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# What is written


def test_the_folder_is_complete(folder):
    assert why_no_model(folder, ["README.md", "vocab.json"]) is None
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    assert os.listdir(folder.parent) == ["ernie-rna"]


def test_the_configuration_names_every_class(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "ernie_rna"
    assert config["architectures"] == ["ErnieRnaForMaskedLM"]
    heads = ("ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification")
    assert config["auto_map"] == {
        "AutoConfig": "configuration_ernie_rna.ErnieRnaConfig",
        "AutoModel": "modeling_ernie_rna.ErnieRnaModel",
        **{f"AutoModel{head}": f"modeling_ernie_rna.ErnieRna{head}" for head in heads},
        "AutoTokenizer": ["tokenization_ernie_rna.ErnieRnaTokenizer", None],
    }
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["auto_map"]["AutoTokenizer"] == config["auto_map"]["AutoTokenizer"]
    assert tokenizer["model_max_length"] == config["max_position_embeddings"] == 256


def test_the_weights_are_the_converted_ones(folder, conversion):
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    written = load_file(folder / "model.safetensors")
    assert written.keys() == conversion.state_dict.keys()
    assert all(torch.equal(written[name], conversion.state_dict[name]) for name in written)
    assert "lm_head.decoder.weight" not in written  # tied to the embedding
    assert {"ernie_rna.pooler.dense.weight", "lm_head.dense.weight"} <= written.keys()


def test_the_code_is_that_of_the_package(folder):
    root = {path.name: path.read_bytes() for path in ROOT.glob("*_ernie_rna.py")}
    assert {path.name: path.read_bytes() for path in code_files()} == root
    assert root.keys() >= {"modeling_ernie_rna.py", "fused_ernie_rna.py"}
    assert root.items() <= listing(folder).items()


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("secondary_structure", "ErnieRnaForSecondaryStructure"),
        ("closeness", "ErnieRnaForCloseness"),
        ("ribosome_loading", "ErnieRnaForRibosomeLoading"),
    ],
)
def test_a_folder_says_what_it_holds(tmp_path, task, name):
    """Also to the installed classes, without `trust_remote_code`."""
    from transformers import AutoModel

    write_folder(read(task), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [name]
    assert config["auto_map"]["AutoModel"] == f"modeling_ernie_rna.{name}"
    assert type(AutoModel.from_pretrained(tmp_path)).__name__ == name
    with pytest.warns(UserWarning, match="random weights"):
        encoder = ernie_rna.load_model(tmp_path, device="cpu")  # without the head, as for `embed`
    assert type(encoder) is ernie_rna.ErnieRnaModel


def of_trained(conversion: Conversion, **changes) -> Conversion:
    """The golden conversion as if its weights had been trained."""
    trained = copy.copy(conversion)
    trained.config = copy.deepcopy(conversion.config)
    trained.config.weights_origin = "checkpoint"
    vars(trained).update(changes)
    return trained


def test_random_weights_are_marked_and_not_called_the_authors(folder):
    assert json.loads((folder / "config.json").read_text())["weights_origin"] == "random"
    card = (folder / "README.md").read_text()
    assert "**These weights are random: they were never trained" in card
    assert "license: apache-2.0\n" in card
    assert "work of the authors" not in card
    assert "Weijie Yin\n" not in card


def test_the_card_states_the_facts(conversion, folder):
    assert (folder / "README.md").read_text() == model_card(conversion)
    card = model_card(of_trained(conversion))
    header = card.split("---")[1]
    assert "license: mit\n" in header
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
    assert "read off it (A-U 2, G-C 3, G-U 0.8)" in card
    assert "attention scores of head 5" in card
    assert "--pairing-scores zero" in card
    zero = model_card(read("secondary_structure", "zero"))
    assert "of zero everywhere, as the authors' script" in zero
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
        lines = card.splitlines()
        for before, line in itertools.pairwise(lines):
            assert not (line.startswith("|") and before and not before.startswith("|"))


# The fresh process


def test_another_weight_is_found_by_name(folder, conversion, tmp_path):
    """One bit of one weight: the fresh process must load what was converted."""
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    weights = load_file(folder / "model.safetensors")
    name = "ernie_rna.layers.3.fc2.bias"
    weights[name].view(torch.int32)[5] ^= 1
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=f"other weights than were converted: {name}$"):
        prove(changed, conversion)


def test_another_function_is_found(folder, conversion, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**config, "gu_pairing_score": 0.9}))
    with pytest.raises(ExportError, match=r"as it should: its logits differ by .*; its pooler out"):
        prove(changed, conversion)


def test_a_folder_that_does_not_load_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    def without_code(conversion: Conversion, folder: Path) -> None:
        write_folder(conversion, folder)
        (folder / "modeling_ernie_rna.py").unlink()

    monkeypatch.setattr(export_module, "write_folder", without_code)
    with pytest.raises(ExportError, match=r"not load in a fresh process.*: .*modeling_ernie_rna"):
        ernie_rna.convert(CFG, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_code_that_this_process_loaded_before_does_not_hide_the_folders(tmp_path, monkeypatch):
    (tmp_path / "cache" / "transformers_modules").mkdir(parents=True)
    (tmp_path / "cache" / "transformers_modules" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "cache"))
    written = ernie_rna.convert(
        head_checkpoint("ribosome_loading"), tmp_path / "with.dot", pairing_scores="zero"
    )
    assert written.proof.tensors == len(written.conversion.state_dict)
    config = json.loads((tmp_path / "with.dot" / "config.json").read_text())
    assert config["pairing_scores"] == "zero"


SAVE_EACH_CLASS = """
import sys, warnings
from transformers import (
    AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification,
    AutoModelForTokenClassification, AutoTokenizer,
)
source, scratch = sys.argv[1:]
for auto_class in (
    AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
):
    model = auto_class.from_pretrained(source, trust_remote_code=True)
    out = f"{scratch}/{auto_class.__name__}"
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(source, trust_remote_code=True).save_pretrained(out)
    again, info = auto_class.from_pretrained(
        out, trust_remote_code=True, output_loading_info=True
    )
    assert not any(info.values()), info
    tokenizer = AutoTokenizer.from_pretrained(out, trust_remote_code=True)
    batch = tokenizer(["GGGAAACCC"], return_tensors="pt")
    assert model.eval()(**batch)[0].equal(again.eval()(**batch)[0]), out
assert "ernie_rna" not in sys.modules
"""


def test_every_model_saved_from_the_folder_loads_again(folder, tmp_path):
    """`save_pretrained` of any of the models writes a folder with its code."""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    subprocess.run(
        [sys.executable, "-c", SAVE_EACH_CLASS, folder, tmp_path],
        cwd=tmp_path,
        env=environment,
        check=True,
    )


# All or nothing


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt(), ExportError("no")])
@pytest.mark.parametrize(
    "at", ["safetensors.torch.save_file", "ernie_rna.conversion.folder", "os.replace"]
)
@pytest.mark.parametrize("deep", [False, True], ids=["beside others", "in new folders"])
def test_a_failure_leaves_nothing(tmp_path, monkeypatch, unproven, failure, at, deep):
    fail_at(monkeypatch, at, failure)
    (tmp_path / "other").write_text("stays")
    with pytest.raises(type(failure)):
        ernie_rna.convert(CFG, tmp_path / ("a/b/out" if deep else "out"))
    assert listing(tmp_path) == {"other": b"stays"}
    assert os.listdir(tmp_path) == ["other"]


def fail_at(monkeypatch, at: str, failure: BaseException) -> None:
    """Have a function fail; of os.replace the one that would put the new folder in its place."""
    replace = os.replace

    def fail(*args, **kwargs):
        if at == "os.replace" and Path(args[0]).name != "new":
            return replace(*args)
        raise failure

    if at == "ernie_rna.conversion.folder":
        monkeypatch.setattr(importlib.import_module(at), "model_card", fail)
    else:
        monkeypatch.setattr(at, fail)


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", ["safetensors.torch.save_file", "os.replace"])
def test_a_failure_keeps_the_earlier_export(folder, tmp_path, monkeypatch, unproven, failure, at):
    shutil.copytree(folder, tmp_path / "out")
    before = listing(tmp_path)
    fail_at(monkeypatch, at, failure)
    with pytest.raises(type(failure)):
        ernie_rna.convert(CFG, tmp_path / "out", force=True)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("force", [False, True])
def test_what_another_process_wrote_meanwhile_stays_without_force(tmp_path, monkeypatch, force):
    def slow(folder: Path, conversion: Conversion) -> Proof:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("whole")
        return Proof(0, 0.0)

    monkeypatch.setattr(proof, "prove", slow)
    if force:
        ernie_rna.convert(CFG, tmp_path / "out", force=True)
        assert why_no_model(tmp_path / "out") is None
    else:
        with pytest.raises(OutputError, match="out was written by another process meanwhile"):
            ernie_rna.convert(CFG, tmp_path / "out")
        assert listing(tmp_path) == {"out/theirs": b"whole"}
    assert os.listdir(tmp_path) == ["out"]


def test_missing_folders_above_are_made_and_an_empty_one_is_filled(tmp_path, unproven):
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "a" / "b" / "out", tmp_path / "empty"):
        assert ernie_rna.convert(CFG, out).path == out
        assert (out / "config.json").is_file()
    assert os.listdir(tmp_path / "a" / "b") == ["out"]
    assert sorted(os.listdir(tmp_path)) == ["a", "empty"]


def test_an_earlier_export_is_replaced_only_with_force(folder, tmp_path, unproven):
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    (out / "README.md").write_text("old")
    with pytest.raises(ExportError, match="there already; --force replaces it"):
        ernie_rna.convert(CFG, out)
    assert (out / "README.md").read_text() == "old"
    ernie_rna.convert(CFG, out, force=True)
    assert listing(out).keys() == listing(folder).keys()
    assert (out / "README.md").read_text() != "old"
    assert os.listdir(tmp_path) == ["out"]
