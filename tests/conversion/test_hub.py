"""The Hub: checkpoints fetched from a local server that imitates it, and folders pushed to it."""

import hashlib
import http.server
import json
import re
import shutil
import threading
from pathlib import Path
from unittest.mock import Mock

import huggingface_hub
import pytest
import transformers
from huggingface_hub import constants
from safetensors.torch import save_file
from transformers import AutoModelForMaskedLM

import ernie_rna
from ernie_rna.cli import main as cli
from ernie_rna.conversion import proof
from ernie_rna.conversion.checkpoint import read_checkpoint
from ernie_rna.conversion.folder import ExportError, code_files, why_no_model
from ernie_rna.conversion.hub import files_to_push, find_checkpoint
from ernie_rna.conversion.weights import convert_weights
from tests.conversion.test_weights import theirs
from tests.golden_folder import CHECKPOINT

pytestmark = pytest.mark.core


# ---------------------------------------------------------------------------------------------
# Fetching

COMMITS = {"main": "a" * 40, "v1": "b" * 40}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves files of two repositories as the Hub does, and other files at plain addresses."""

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        repo, _, rest = self.path.strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        commit = COMMITS.get(revision, revision)
        # "short!" before a path cuts the file off; "chunked!" announces chunks and sends none.
        fault, _, repo = repo.rpartition("!")
        path = self.server.root / repo / name
        exists = {
            "RepoNotFound": not rest or (self.server.root / repo).is_dir(),
            "RevisionNotFound": not rest or commit in COMMITS.values(),
            "EntryNotFound": path.is_file(),
        }
        error = next((error for error, exist in exists.items() if not exist), None)
        content = b"" if error else path.read_bytes()
        headers = {"Content-Length": str(len(content)), "X-Error-Code": error}
        if rest:
            digest = hashlib.sha256(content).hexdigest()
            headers |= {"X-Repo-Commit": commit, "ETag": f'"{digest}"'}
        if fault == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        self.send_response(404 if error else 200)
        for header, value in headers.items():
            if value is not None:
                self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // (2 if fault == "short" else 1)])

    do_HEAD = do_GET  # noqa: N815  # the name that http.server calls

    def log_message(self, *args) -> None:
        pass


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    repo = root / "multimolecule" / "ernierna"
    repo.mkdir(parents=True)
    conversion = convert_weights(read_checkpoint(CHECKPOINT))
    save_file(theirs(conversion), repo / "model.safetensors")
    config = {"model_type": "ernierna", "hidden_size": 48, "max_position_embeddings": 258}
    (repo / "config.json").write_text(json.dumps(config))
    (repo / "README.md").write_text("---\nlicense: agpl-3.0\n---\n# ERNIE-RNA\n")
    (root / "some" / "one").mkdir(parents=True)
    shutil.copy(CHECKPOINT, root / "some" / "one" / "weights.pt")
    (root / "page.pt").write_text("<!DOCTYPE html><html>Sign in</html>")
    return root


def move_hub(monkeypatch, address: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    for place in (constants, huggingface_hub.file_download):
        monkeypatch.setattr(place, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


@pytest.fixture
def hub(repositories, tmp_path, monkeypatch):
    """The local server; the cache is empty, and conversions are not checked in a fresh process."""
    monkeypatch.setattr(proof, "prove", lambda *_: proof.Proof(0, 0.0))
    monkeypatch.chdir(tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.root, server.requests = repositories, []
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    move_hub(monkeypatch, server.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    # Transformers 4 reads HF_HUB_OFFLINE when it is imported.
    monkeypatch.setattr(transformers.utils.hub, "_is_offline_mode", False, raising=False)
    yield server
    server.shutdown()
    server.server_close()


def convert(capsys, *arguments, code=0):
    assert cli.main(["convert", *arguments, "--quiet"]) == code
    return capsys.readouterr()


def test_a_repository_is_fetched_converted_and_cached(hub, capsys, monkeypatch):
    printed = convert(capsys, "multimolecule/ernierna", "out").out
    assert "read      multimolecule/ernierna on the Hub, commit aaaaaaaaaaaa (safeten" in printed
    assert "terms     its repository states agpl-3.0; the authors publish the same we" in printed
    assert json.loads(Path("out/config.json").read_text())["max_position_embeddings"] == 256
    card = Path("out/README.md").read_text()
    assert "converted from `multimolecule/ernierna on the Hub, commit" in card
    assert why_no_model(Path("out")) is None
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    convert(capsys, "multimolecule/ernierna", "again")
    assert not hub.requests
    for name in ("config.json", "model.safetensors"):
        assert Path("out", name).read_bytes() == Path("again", name).read_bytes()


@pytest.mark.parametrize(
    ("checkpoint", "revision", "file"),
    [
        ("multimolecule/ernierna", "v1", "model.safetensors"),
        ("{}/multimolecule/ernierna/tree/v1", "v1", "model.safetensors"),
        ("{}/some/one/resolve/v1/weights.pt", None, "weights.pt"),
        ("{}/some/one/blob/main/weights.pt?x=1", "v1", "weights.pt"),
    ],
)
def test_all_files_of_a_revision_are_of_one_commit(hub, checkpoint, revision, file):
    found = find_checkpoint(checkpoint.format(hub.address), revision, progress=False)
    assert (found.path.parent.name, found.path.name) == (COMMITS["v1"], file)
    beside = {path.name for path in found.path.parent.iterdir()} - {file}
    assert beside == ({"config.json", "README.md"} if "multi" in checkpoint else set())
    assert not any("/main/" in request for request in hub.requests)


def test_a_file_at_another_address_is_cached_if_it_is_a_checkpoint(hub, capsys):
    address = f"{hub.address}/some/one/weights.pt"
    for out in ("out", "again"):
        assert f"read      {address} (fairseq cfg" in convert(capsys, address, out).out
        errors = convert(capsys, f"{hub.address}/page.pt", "page", code=1).err
        assert "page.pt: a web page, not weights" in errors
    assert hub.requests == ["GET /some/one/weights.pt", "GET /page.pt", "GET /page.pt"]
    assert not Path("page").exists()


@pytest.mark.parametrize(
    ("checkpoint", "revision", "message"),
    [
        ("some/one", None, "no model.safetensors in some/one on the Hub.*Entry.*: name a file "),
        ("no/such", None, "in no/such on the Hub, .*Repo.* or it is private: "),
        ("multimolecule/ernierna", "v9", "multimolecule/ernierna on the Hub, revision v9.*Revi"),
        ("{}/short!some/one/weights.pt", None, "weights.pt cannot be fetched: the last .* bytes"),
        ("{}/chunked!some/one/weights.pt", None, "weights.pt cannot be fetched: "),
        ("{}/a blank.pt", None, "blank.pt cannot be fetched: "),
        ("{}/none.pt", None, r"none.pt cannot be fetched: .*404"),
        ("http://127.0.0.1:9/x.pt", None, "x.pt cannot be fetched: .*refused"),
        ("some/weights.pt", None, "some/weights.pt: no such file"),
        ("ernierna", None, "ernierna: no such file"),
    ],
)
def test_a_failed_fetch_takes_one_line_and_leaves_no_partial_file(
    hub, checkpoint, revision, message
):
    with pytest.raises((ConnectionError, FileNotFoundError), match=message) as error:
        find_checkpoint(checkpoint.format(hub.address), revision, progress=False)
    assert "\n" not in str(error.value)
    assert not [path for path in Path("cache").rglob("*.tmp") if path.is_file()]


@pytest.mark.parametrize("offline", [False, True])
def test_without_a_network_the_message_names_the_file_to_download(hub, monkeypatch, offline):
    move_hub(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    way_out = "https://huggingface.co/multimolecule/ernierna/resolve/main/model.safetensors elsew"
    message = rf"cannot be fetched \(.*is not in the cache: .* with a connection, .*{way_out}"
    with pytest.raises(ConnectionError, match=message):
        find_checkpoint("multimolecule/ernierna", progress=False)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE" if offline else "refused"):
        find_checkpoint("http://127.0.0.1:9/x.pt", progress=False)


def test_a_local_folder_comes_before_the_hub(hub):
    shutil.copytree(hub.root / "multimolecule", "multimolecule")
    assert find_checkpoint("multimolecule/ernierna").path == Path("multimolecule/ernierna")
    with pytest.raises(ValueError, match="--revision is for a repository on the Hub, but multimol"):
        find_checkpoint("multimolecule/ernierna", "v1")
    with pytest.raises(ValueError, match=r"--revision is for .*, but http://127.0.0.1:9/x.pt is"):
        find_checkpoint("http://127.0.0.1:9/x.pt", "v1")
    with pytest.raises(FileNotFoundError, match="multimolecule/none: no such file"):
        find_checkpoint("multimolecule/none")
    assert not hub.requests


@pytest.mark.parametrize("model", ["multimolecule/ernierna", "here"])
@pytest.mark.parametrize("command", ["embed -o x.npz", "fold -o x.dbn", "mutate -o x.tsv"])
def test_a_foreign_repository_named_as_a_model_must_be_converted_first(hub, capsys, model, command):
    Path("rna.fasta").write_text(">a\nACGU\n")
    shutil.copytree(hub.root / "multimolecule" / "ernierna", "here")
    assert cli.main([*command.split(), "rna.fasta", "-m", model]) == 1
    message = f"convert it once, `ernie-rna convert {model} ERNIE-RNA`, and give that"
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------
# Pushing


@pytest.fixture
def fake_hub(monkeypatch) -> Mock:
    """Records the calls of the Hub's API."""
    fake = Mock()
    fake.upload_folder.return_value.commit_url = "https://huggingface.co/me/x/commit/1"
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    return fake


def push(capsys, *arguments, code=0):
    assert cli.main(["push", *map(str, arguments)]) == code
    return capsys.readouterr()


def test_push_sends_the_files_that_a_dry_run_lists(golden_folder, capsys, fake_hub):
    printed = push(capsys, golden_folder, "me/ernie-rna", "--dry-run", "--private")
    assert "me/ernie-rna (private if created, branch main)" in printed.out
    for path in golden_folder.iterdir():
        assert f"{path.stat().st_size:,} bytes  {path.name}\n" in printed.out
    assert "has random weights" in printed.err
    assert fake_hub.mock_calls == []
    assert "commit/1" in push(capsys, golden_folder, "me/ernie-rna", "--revision", "v1").out
    fake_hub.create_repo.assert_called_once_with("me/ernie-rna", private=False, exist_ok=True)
    fake_hub.create_branch.assert_called_once_with("me/ernie-rna", branch="v1", exist_ok=True)
    upload = fake_hub.upload_folder.call_args.kwargs
    assert (upload["repo_id"], upload["revision"]) == ("me/ernie-rna", "v1")
    assert upload["folder_path"] == str(golden_folder)
    assert set(upload["allow_patterns"]) == {path.name for path in golden_folder.iterdir()}


@pytest.mark.parametrize(
    ("source", "lacks"),
    [
        ("saved of converted", {"no README.md", "random weights"}),
        ("saved of mini", {"no README.md"}),
        ("mini", {"no code, so it loads only where ernie-rna is"}),
    ],
)
def test_push_warns_of_what_a_saved_model_lacks(golden_folder, tmp_path, source, lacks):
    """`mini` itself contains no code; a model saved from it does."""
    folder = golden_folder if source == "saved of converted" else ernie_rna.mini()
    if source != "mini":
        # AutoTokenizer of transformers 5.0.0 loads mini as the generic class, which saves no code.
        for auto_class in (AutoModelForMaskedLM, ernie_rna.ErnieRnaTokenizer):
            auto_class.from_pretrained(folder).save_pretrained(tmp_path / "saved")
        folder = tmp_path / "saved"
    with pytest.warns(UserWarning, match="has ") as warnings:
        files = files_to_push(folder, "me/x")
    assert files == {path.name: path.stat().st_size for path in folder.iterdir()}
    assert {path.name for path in code_files()} <= files.keys() or source == "mini"
    messages = [str(warning.message).partition(" has ")[2] for warning in warnings]
    assert len(messages) == len(lacks)
    assert all(any(message.startswith(part) for message in messages) for part in lacks)


@pytest.mark.parametrize("repo_id", ["ernie-rna", "a/b/c", "me/", "me/a b", "-me/x"])
def test_an_invalid_repository_id_is_refused(golden_folder, repo_id):
    with pytest.raises(ExportError, match=re.escape(repr(repo_id))):
        files_to_push(golden_folder, repo_id)


@pytest.mark.parametrize(
    ("repo_id", "message"),
    [
        ("me/refused", "me/refused: RuntimeError: 403 Forbidden"),
        ("me/x", "no token for the Hub: run `hf auth login`, or set HF_TOKEN"),
        ("me/thesis", "not a complete model .also holds thesis.tex: move such files out of it.*"),
    ],
)
def test_an_error_of_push_takes_one_line_and_nothing_is_uploaded(
    golden_folder, fake_hub, monkeypatch, capsys, tmp_path, repo_id, message
):
    shutil.copytree(golden_folder, tmp_path / "out")
    fake_hub.create_repo.side_effect = RuntimeError("403 Forbidden\nfor url")
    if repo_id == "me/x":
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    if repo_id == "me/thesis":
        (tmp_path / "out" / "thesis.tex").write_text("precious")
    *_, error = push(capsys, tmp_path / "out", repo_id, code=1).err.splitlines()
    assert re.fullmatch(f"ernie-rna: error: (.*/out: )?{message}", error)
    assert not fake_hub.upload_folder.called
