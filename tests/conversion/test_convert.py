"""Conversion: checked in a fresh process, and written completely or not at all."""

import importlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ernie_rna
from ernie_rna.conversion import proof
from ernie_rna.conversion.checkpoint import read_checkpoint
from ernie_rna.conversion.folder import ExportError, why_no_model, write_folder
from ernie_rna.conversion.proof import Proof, prove
from ernie_rna.conversion.weights import Conversion, convert_weights
from ernie_rna.run.outputs import OutputError
from tests.conftest import listing, run_elsewhere
from tests.conversion.test_weights import theirs
from tests.golden_folder import CHECKPOINT, head_checkpoint

# The attribute `convert` of the package may be the function; this is the module.
convert_module = importlib.import_module("ernie_rna.conversion.convert")
pytestmark = pytest.mark.core


@pytest.fixture
def unproven(monkeypatch):
    """Skip the check in a fresh process, which takes seconds."""
    monkeypatch.setattr(proof, "prove", lambda folder, conversion: Proof(0, 0.0))


# ---------------------------------------------------------------------------------------------
# The fresh process


def test_a_conversion_is_checked_in_a_fresh_process(tmp_path, monkeypatch):
    """Neither code that this process has loaded nor a dot in the folder's name may disturb it.

    tests/cli/test_models.py does the same for the pretrained model.
    """
    (tmp_path / "cache" / "transformers_modules").mkdir(parents=True)
    (tmp_path / "cache" / "transformers_modules" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "cache"))
    out = tmp_path / "with.dot"
    written = ernie_rna.convert(head_checkpoint("ribosome_loading"), out, pairing_scores="zero")
    assert written.path == out
    assert written.proof.tensors == len(written.conversion.state_dict)
    assert written.proof.max_difference < 1e-5
    assert json.loads((out / "config.json").read_text())["pairing_scores"] == "zero"
    assert sorted(os.listdir(tmp_path)) == ["cache", "with.dot"]


def test_the_check_finds_one_changed_bit_and_a_changed_setting(golden_folder, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(golden_folder, changed)
    weights = load_file(golden_folder / "model.safetensors")
    name = "ernie_rna.layers.3.fc2.bias"
    weights[name].view(torch.int32)[5] ^= 1
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**config, "gu_pairing_score": 0.9}))
    message = f"as it should: it loads other weights than were converted: {name}; its logits differ"
    with pytest.raises(ExportError, match=f"{message} by .*; its pooler out"):
        prove(changed, convert_weights(read_checkpoint(CHECKPOINT)))


def test_a_folder_that_does_not_load_is_an_error_and_is_removed(tmp_path, monkeypatch):
    def without_code(conversion: Conversion, folder: Path) -> None:
        write_folder(conversion, folder)
        (folder / "modeling_ernie_rna.py").unlink()

    monkeypatch.setattr(convert_module, "write_folder", without_code)
    with pytest.raises(ExportError, match=r"not load in a fresh process.*: .*modeling_ernie_rna"):
        ernie_rna.convert(CHECKPOINT, tmp_path / "out")
    assert os.listdir(tmp_path) == []


SAVE_EACH_CLASS = """
import sys, warnings
import transformers
source, scratch = sys.argv[1:]
warnings.simplefilter("error")
warnings.filterwarnings("ignore", category=ResourceWarning)  # of torch 2.4
tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=True)
batch = tokenizer(["GGGAAACCC", "AUG"], return_tensors="pt", padding=True)
for name in ("", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"):
    auto_class = getattr(transformers, f"AutoModel{name}")
    model = auto_class.from_pretrained(source, trust_remote_code=True)
    out = f"{scratch}/{auto_class.__name__}"
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    again, info = auto_class.from_pretrained(out, trust_remote_code=True, output_loading_info=True)
    assert not any(info.values()), info
    saved = transformers.AutoTokenizer.from_pretrained(out, trust_remote_code=True)
    assert saved(["GGGAAACCC", "AUG"])["input_ids"] == tokenizer(["GGGAAACCC", "AUG"])["input_ids"]
    assert model.eval()(**batch)[0].equal(again.eval()(**batch)[0]), out
print("ernie_rna" in sys.modules)
"""


def test_save_pretrained_of_every_model_class_writes_the_code_too(golden_folder, tmp_path):
    """What it writes loads again without this package."""
    output = run_elsewhere("-c", SAVE_EACH_CLASS, golden_folder, tmp_path, cwd=tmp_path)
    assert output.splitlines()[-1] == "False"


# ---------------------------------------------------------------------------------------------
# All or nothing


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", ["ernie_rna.conversion.folder.model_card", "os.replace"])
@pytest.mark.parametrize("out", ["a/b/out", "earlier"])
def test_a_failure_changes_no_folder(
    golden_folder, tmp_path, monkeypatch, unproven, failure, at, out
):
    """It happens when the card is written, or when the new folder is moved to its place."""
    shutil.copytree(golden_folder, tmp_path / "earlier")
    before, rename = listing(tmp_path), os.replace

    def fail(*args):
        if at == "os.replace" and Path(args[0]).name != "new":
            return rename(*args)
        raise failure

    monkeypatch.setattr(at, fail)
    with pytest.raises(type(failure)):
        ernie_rna.convert(CHECKPOINT, tmp_path / out, force=out == "earlier")
    assert listing(tmp_path) == before
    assert os.listdir(tmp_path) == ["earlier"]


@pytest.mark.parametrize("force", [False, True])
def test_only_force_replaces_what_another_process_wrote_meanwhile(tmp_path, monkeypatch, force):
    def prove_while_another_writes(folder: Path, conversion: Conversion) -> Proof:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").write_text("complete")
        return Proof(0, 0.0)

    monkeypatch.setattr(proof, "prove", prove_while_another_writes)
    if force:
        ernie_rna.convert(CHECKPOINT, tmp_path / "out", force=True)
        assert why_no_model(tmp_path / "out") is None
    else:
        with pytest.raises(OutputError, match="out was written by another process in the meantime"):
            ernie_rna.convert(CHECKPOINT, tmp_path / "out")
        assert listing(tmp_path) == {"out/theirs": b"complete"}
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("checkpoint", ["out", "out/model.safetensors", "link"])
def test_the_checkpoint_is_not_replaced(golden_folder, tmp_path, unproven, checkpoint):
    shutil.copytree(golden_folder, tmp_path / "out")
    foreign = theirs(convert_weights(read_checkpoint(CHECKPOINT)))
    save_file(foreign, tmp_path / "out" / "model.safetensors")
    (tmp_path / "link").symlink_to(tmp_path / "out" / "model.safetensors")
    before = listing(tmp_path)
    with pytest.raises(ExportError, match="out: holds the checkpoint that is read; name another"):
        ernie_rna.convert(tmp_path / checkpoint, tmp_path / "out", force=True)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("out", ["a/b/out", "empty", "old"])
def test_convert_writes_to_a_new_an_empty_or_with_force_an_old_folder(
    golden_folder, tmp_path, unproven, out
):
    (tmp_path / "empty").mkdir()
    shutil.copytree(golden_folder, tmp_path / "old")
    (tmp_path / "old" / "README.md").write_text("old")
    if out == "old":
        with pytest.raises(ExportError, match="exists already; --force replaces it"):
            ernie_rna.convert(CHECKPOINT, tmp_path / "old")
    assert (tmp_path / "old" / "README.md").read_text() == "old"
    written = ernie_rna.convert(CHECKPOINT, tmp_path / out, force=out == "old")
    assert written.path == tmp_path / out
    assert listing(tmp_path / out) == listing(golden_folder)
    assert {*os.listdir(tmp_path)} == {"empty", "old", out.split("/")[0]}
    assert os.listdir(written.path.parent) == ["out"] or out != "a/b/out"
