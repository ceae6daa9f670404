"""What a folder for the Hub holds, where one may be written, and its way to the Hub."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from transformers import AutoModelForMaskedLM, AutoTokenizer

import ernie_rna
from ernie_rna.cli import main as cli
from ernie_rna.conversion.folder import ExportError, check_target, code_files, why_no_model
from ernie_rna.conversion.hub import files_to_push
from tests.golden_folder import CHECKPOINT, write_golden_folder

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What a conversion writes, for tests that only read it."""
    return write_golden_folder(tmp_path_factory.mktemp("folder"))


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Where one may be written


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
    broken_config: "its config.json is of model_type None",
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
        ernie_rna.convert(CHECKPOINT, out, force=force)
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


# To the Hub


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
    assert cli.main(["push", str(folder), "me/ernie-rna", "--dry-run", "--private"]) == 0
    printed = capsys.readouterr().out
    assert "me/ernie-rna (private if made, branch main)" in printed
    for path in folder.iterdir():
        assert f"{path.stat().st_size:,} bytes  {path.name}\n" in printed
    assert fake_hub.calls == {}


def test_push_sends_the_files_of_the_export(folder, capsys, fake_hub):
    assert cli.main(["push", str(folder), "me/ernie-rna", "--revision", "v1"]) == 0
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
    assert cli.main(["push", *arguments]) == 1
    assert "no whole model" in capsys.readouterr().err
    assert fake_hub.calls == {}


@pytest.mark.parametrize("source", ["converted", "mini"])
def test_a_saved_model_is_pushed_with_what_it_lacks_said(folder, tmp_path, source):
    """`mini` has no code of its own, and what is saved of it has."""
    source = folder if source == "converted" else ernie_rna.mini()
    for one in (AutoModelForMaskedLM, AutoTokenizer):
        one.from_pretrained(source).save_pretrained(tmp_path / "saved")
    with pytest.warns(UserWarning, match="has no README.md") as warned:
        files = files_to_push(tmp_path / "saved", "me/x")
    code = {path.name for path in code_files()}
    assert {"model.safetensors", "tokenizer.json", *code} <= files.keys()
    said = [str(warning.message) for warning in warned]
    assert any("has random weights" in text for text in said) == (source == folder)
    assert not any("has no code" in text for text in said)


def test_a_folder_without_code_is_pushed_with_a_warning():
    """Where its config.json names none, as that of `mini`."""
    with pytest.warns(UserWarning, match="has no code, so that it loads only where ernie-rna is"):
        files = files_to_push(ernie_rna.mini(), "me/x")
    assert files.keys() == {path.name for path in ernie_rna.mini().iterdir()}
    assert why_no_model(ernie_rna.mini()) is None


def test_code_that_config_names_must_be_there(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out" / "heads_ernie_rna.py").unlink()
    assert why_no_model(tmp_path / "out") == "lacks heads_ernie_rna.py"


@pytest.mark.parametrize("repo_id", ["ernie-rna", "a/b/c", "me/", "me/a b", "-me/x"])
def test_a_name_that_the_hub_would_refuse_is_refused(folder, fake_hub, capsys, repo_id):
    assert cli.main(["push", "--", str(folder), repo_id]) == 1
    assert capsys.readouterr().err.startswith(f"ernie-rna: error: {repo_id!r}: ")
    assert fake_hub.calls == {}


def test_without_a_token_it_says_so(folder, fake_hub, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert cli.main(["push", str(folder), "me/ernie-rna"]) == 1
    assert "no token for the Hub: run `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err
    assert fake_hub.calls == {}


def test_a_refusal_of_the_hub_is_one_line(folder, fake_hub, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise RuntimeError("403 Forbidden\nfor url")

    monkeypatch.setattr(fake_hub, "create_repo", refuse)
    assert cli.main(["push", str(folder), "me/ernie-rna"]) == 1
    *_, said = capsys.readouterr().err.splitlines()  # behind a warning of random weights
    assert said == "ernie-rna: error: me/ernie-rna: RuntimeError: 403 Forbidden"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ExportError, match="no such folder"):
        files_to_push(tmp_path / "none", "me/x")
