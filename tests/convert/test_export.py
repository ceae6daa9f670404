"""Writing the folder for the Hub: complete, proven in a fresh process, and all or nothing."""

import copy
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from ernie_rna.convert import export as export_module
from ernie_rna.convert import folder as hub
from ernie_rna.convert.conversion import Conversion, convert_weights
from ernie_rna.convert.export import convert, export, write_folder
from ernie_rna.convert.folder import (
    MODULES,
    REQUIRED,
    ExportError,
    check_target,
    files_to_push,
    why_no_export,
)
from ernie_rna.convert.foreign.reading import read_checkpoint
from ernie_rna.convert.model_card import model_card
from ernie_rna.convert.verification import Verification, verify_export
from scripts import convert_fairseq_checkpoint, push_to_hub
from tests.golden_folder import GOLDEN

pytestmark = pytest.mark.core

CFG = GOLDEN / "tiny_fairseq_cfg.pt"


@pytest.fixture(scope="module")
def conversion() -> Conversion:
    return convert_weights(read_checkpoint(CFG))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An export that was verified, for tests that only read it."""
    return convert(CFG, tmp_path_factory.mktemp("export") / "ernie-rna").path


@pytest.fixture
def unverified(monkeypatch):
    """Exports without the fresh process, which takes seconds."""
    monkeypatch.setattr(
        export_module, "verify_export", lambda folder, conversion: Verification(0, 0.0)
    )


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# What is written


def test_the_folder_is_complete(folder):
    names = {path.name for path in folder.iterdir()}
    assert names >= REQUIRED
    assert why_no_export(folder) is None
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


def test_the_modules_are_those_of_the_package(folder):
    root = Path(__file__).parents[2]
    assert {f"{name}.py" for name in MODULES} == {path.name for path in root.glob("*_ernie_rna.py")}
    for name in MODULES:
        assert (folder / f"{name}.py").read_bytes() == Path(sys.modules[name].__file__).read_bytes()


def of_trained(conversion: Conversion, **changes) -> Conversion:
    """The golden conversion as if its weights had been trained."""
    config = copy.deepcopy(conversion.config)
    config.weights_origin = "checkpoint"
    return dataclasses.replace(conversion, config=config, **changes)


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
    card = model_card(of_trained(conversion, naming="multimolecule", initialised={"x[y]": "Z"}))
    assert "license: agpl-3.0\n" in card
    assert "MultiMolecule, whose card states AGPL-3.0" in card
    assert "Z: `x[y]`" in card


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
        verify_export(changed, conversion)


def test_a_folder_that_does_not_load_is_refused_and_leaves_nothing(
    conversion, tmp_path, monkeypatch
):
    def without_code(conversion: Conversion, folder: Path) -> None:
        write_folder(conversion, folder)
        (folder / "modeling_ernie_rna.py").unlink()

    monkeypatch.setattr(export_module, "write_folder", without_code)
    with pytest.raises(ExportError, match=r"not load in a fresh process: .*modeling_ernie_rna"):
        export(conversion, tmp_path / "out")
    assert os.listdir(tmp_path) == []


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
@pytest.mark.parametrize("at", ["save_file", "model_card", "verify_export", "replace_folder"])
@pytest.mark.parametrize("deep", [False, True], ids=["beside others", "in new folders"])
def test_a_failure_leaves_nothing(conversion, tmp_path, monkeypatch, unverified, failure, at, deep):
    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr(export_module, at, fail)
    (tmp_path / "other").write_text("stays")
    with pytest.raises(type(failure)):
        export(conversion, tmp_path / ("a/b/out" if deep else "out"))
    assert listing(tmp_path) == {"other": b"stays"}
    assert os.listdir(tmp_path) == ["other"]


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", ["save_file", "verify_export", "os.replace"])
def test_a_failure_keeps_the_earlier_export(
    conversion, folder, tmp_path, monkeypatch, unverified, failure, at
):
    shutil.copytree(folder, tmp_path / "out")
    before = listing(tmp_path)
    replace = os.replace

    def fail(*args, **kwargs):
        # Of os.replace: the old folder is put aside, and the new one does not get its place.
        if at == "os.replace" and not str(args[0]).endswith("staging"):
            return replace(*args)
        raise failure

    if at == "os.replace":
        monkeypatch.setattr(os, "replace", fail)
    else:
        monkeypatch.setattr(export_module, at, fail)
    with pytest.raises(type(failure)):
        export(conversion, tmp_path / "out", force=True)
    assert listing(tmp_path) == before


def test_missing_folders_above_are_made(conversion, tmp_path, unverified):
    written = export(conversion, tmp_path / "a" / "b" / "out")
    assert written.path == tmp_path / "a" / "b" / "out"
    assert os.listdir(tmp_path / "a" / "b") == ["out"]


def test_an_empty_folder_is_filled(conversion, tmp_path, unverified):
    (tmp_path / "out").mkdir()
    export(conversion, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()


def test_an_earlier_export_is_replaced_only_with_force(conversion, folder, tmp_path, unverified):
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    (out / "README.md").write_text("old")
    with pytest.raises(ExportError, match="there already; --force replaces it"):
        export(conversion, out)
    assert (out / "README.md").read_text() == "old"
    export(conversion, out, force=True)
    assert listing(out).keys() == listing(folder).keys()
    assert (out / "README.md").read_text() != "old"
    assert os.listdir(tmp_path) == ["out"]


def no_config(out: Path) -> None:
    (out / "config.json").unlink()


def other_model(out: Path) -> None:
    (out / "config.json").write_text('{"model_type": "bert"}')


def broken_config(out: Path) -> None:
    (out / "config.json").write_text("[")


def more(out: Path) -> None:
    (out / "thesis.tex").write_text("precious")


def version_control(out: Path) -> None:
    (out / ".git").mkdir()


def only_notes(out: Path) -> None:
    shutil.rmtree(out)
    out.mkdir()
    (out / "notes.txt").write_text("precious")


NO_EXPORTS = {
    no_config: "lacks config.json",
    other_model: "model_type 'bert'",
    broken_config: "its config.json is none",
    more: "holds thesis.tex as well",
    version_control: "holds .git as well",
    only_notes: "lacks README.md",
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("change", "message"), NO_EXPORTS.items())
def test_what_is_no_export_is_never_replaced(folder, tmp_path, force, change, message):
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    change(out)
    before = listing(tmp_path)
    with pytest.raises(ExportError, match=f"no earlier export .*{message}"):
        convert(CFG, out, force)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("target", [Path.home(), Path("/"), Path(__file__).parent], ids=str)
def test_folders_of_the_user_are_refused(target):
    with pytest.raises(ExportError, match="no earlier export"):
        check_target(target, force=True)


def test_files_and_links_are_refused(folder, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ExportError, match="a file; name a folder"):
        check_target(tmp_path / "file", force=True)
    with pytest.raises(ExportError, match="a symbolic link"):
        check_target(tmp_path / "link", force=True)


# The scripts


def test_the_script_reports_and_succeeds(tmp_path, capsys, unverified):
    out = tmp_path / "out"
    assert convert_fairseq_checkpoint.main([str(CFG), str(out)]) == 0
    printed = capsys.readouterr().out
    for part in (
        "4 layers, 12 heads, width 48, feed-forward 96, 256 tokens",
        "dropped (3):",
        "encoder.sentence_projection_layer.weight ",
        "sentence-pair head",
        f"wrote     {out}",
        "verified in a fresh process",
    ):
        assert part in printed
    assert convert_fairseq_checkpoint.main([str(CFG), str(out)]) == 1
    assert convert_fairseq_checkpoint.main([str(CFG), str(out), "--force"]) == 0


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [("none.pt", "no such file"), (Path(__file__).name, "neither a file of torch.save")],
)
def test_the_script_fails_in_one_line(tmp_path, capsys, checkpoint, message):
    checkpoint = Path(__file__).parent / checkpoint
    assert convert_fairseq_checkpoint.main([str(checkpoint), str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"ernie-rna: error: {checkpoint}: {message}")
    assert printed.err.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_the_script_says_when_it_is_interrupted(tmp_path, capsys, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(export_module, "convert", interrupt)
    assert convert_fairseq_checkpoint.main([str(CFG), str(tmp_path / "out")]) == 130
    assert "nothing was written" in capsys.readouterr().err


# The Hub


class FakeHub:
    """Records what would be sent."""

    def __init__(self):
        self.calls = {}

    def create_repo(self, repo_id, **kwargs):
        self.calls["repo"] = repo_id, kwargs

    def create_branch(self, repo_id, **kwargs):
        self.calls["branch"] = kwargs

    def upload_folder(self, **kwargs):
        self.calls["upload"] = kwargs
        return type("Commit", (), {"commit_url": "https://huggingface.co/me/x/commit/1"})


@pytest.fixture
def fake_hub(monkeypatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    return fake


def test_a_dry_run_lists_the_files_and_sends_nothing(folder, capsys, fake_hub):
    assert push_to_hub.main([str(folder), "me/ernie-rna", "--dry-run", "--private"]) == 0
    printed = capsys.readouterr().out
    assert "me/ernie-rna (private if made, branch main)" in printed
    for path in folder.iterdir():
        assert f"{path.stat().st_size:,} bytes  {path.name}\n" in printed
    assert fake_hub.calls == {}


def test_push_sends_the_files_of_the_export(folder, capsys, fake_hub):
    assert push_to_hub.main([str(folder), "me/ernie-rna", "--revision", "v1"]) == 0
    assert "commit/1" in capsys.readouterr().out
    assert fake_hub.calls["repo"] == ("me/ernie-rna", {"private": False, "exist_ok": True})
    assert fake_hub.calls["branch"] == {"branch": "v1", "exist_ok": True}
    upload = fake_hub.calls["upload"]
    assert upload["folder_path"] == str(folder)
    assert upload["revision"] == "v1"
    assert set(upload["allow_patterns"]) == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    "change", [no_config, more, other_model], ids=lambda change: change.__name__
)
def test_what_is_no_export_is_not_pushed(folder, tmp_path, fake_hub, capsys, dry_run, change):
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    change(out)
    arguments = [str(out), "me/ernie-rna", *(["--dry-run"] if dry_run else [])]
    assert push_to_hub.main(arguments) == 1
    assert "no whole model" in capsys.readouterr().err
    assert fake_hub.calls == {}


def test_a_saved_model_is_pushed_with_what_it_lacks_said(folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
    for one in (model, tokenizer):
        one.save_pretrained(tmp_path / "saved")
    with pytest.warns(UserWarning, match="has no README.md") as warned:
        files = files_to_push(tmp_path / "saved")
    assert {"model.safetensors", "tokenizer.json", "modeling_ernie_rna.py"} <= files.keys()
    said = [str(warning.message) for warning in warned]
    assert any("has no README.md" in text for text in said)
    assert any("has random weights" in text for text in said)


@pytest.mark.parametrize("repo_id", ["ernie-rna", "a/b/c", "me/", "me/a b", "-me/x"])
def test_a_name_that_the_hub_would_refuse_is_refused(folder, fake_hub, capsys, repo_id):
    arguments = ["--", str(folder), repo_id]
    assert push_to_hub.main(arguments) == 1
    assert capsys.readouterr().err.startswith(f"ernie-rna: error: {repo_id!r}: ")
    assert fake_hub.calls == {}


def test_without_a_token_it_says_so(folder, fake_hub, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert push_to_hub.main([str(folder), "me/ernie-rna"]) == 1
    assert "no token for the Hub: run `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err
    assert fake_hub.calls == {}


def test_a_refusal_of_the_hub_is_one_line(folder, fake_hub, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise RuntimeError("403 Forbidden\nfor url")

    monkeypatch.setattr(fake_hub, "create_repo", refuse)
    assert push_to_hub.main([str(folder), "me/ernie-rna"]) == 1
    *_, said = capsys.readouterr().err.splitlines()  # behind a warning of random weights
    assert said == "ernie-rna: error: me/ernie-rna: RuntimeError: 403 Forbidden"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ExportError, match="no such folder"):
        hub.files_to_push(tmp_path / "none")


def test_code_that_this_process_loaded_before_does_not_hide_the_folders(tmp_path, monkeypatch):
    (tmp_path / "cache" / "transformers_modules").mkdir(parents=True)
    (tmp_path / "cache" / "transformers_modules" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "cache"))
    convert(GOLDEN / "tiny_fairseq_cfg.pt", tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()
