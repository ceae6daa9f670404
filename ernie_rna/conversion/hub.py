"""Downloads checkpoints, from the Hub or another address, into huggingface_hub's cache, and uploads
folders to the Hub, all without torch."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from ernie_rna.conversion.folder import ExportError, read_config_file, why_no_model
from ernie_rna.run.find_model import why_no_hub
from ernie_rna.run.outputs import replacing

# Fetched with the weights if they exist: the settings, the order of tokens, and the licence.
_BESIDE = ("config.json", "vocab.txt", "README.md")
_FILES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")  # never ends a repository's name
_TIMEOUT = 30.0  # seconds to wait for a response


class Found(NamedTuple):
    """A checkpoint on this machine.

    Attributes:
        path: the path to pass to `read_checkpoint`.
        name: where it comes from, for display; None stands for the name of the file.
        terms: the licence that its repository states.
        unchecked: whether it was downloaded from a server that publishes no checksum.
    """

    path: Path
    name: str | None = None
    terms: str | None = None
    unchecked: bool = False


def find_checkpoint(
    checkpoint: str | Path, revision: str | None = None, progress: bool | None = None
) -> Found:
    """Find a checkpoint on this machine, downloading it if necessary.

    Args:
        checkpoint: a file or folder, USER/NAME on the Hub with a model.safetensors, or the
            https address of a file.
        revision: branch, tag or commit on the Hub; None is the main branch.
        progress: whether to show a progress bar; None shows it on a terminal.

    Raises:
        FileNotFoundError: there is no such file, neither locally nor on the Hub.
        ValueError: a revision is given for a checkpoint that is not on the Hub.
        ConnectionError: it cannot be downloaded, and is not in the cache.
    """
    text = os.fspath(checkpoint)
    path = Path(text)
    if path.exists():
        if revision is not None:
            raise ValueError(
                f"--revision is for a repository on the Hub, but {text} is a local path"
            )
        return Found(path)
    is_local = path.suffix in _FILES or path.parent.is_dir()
    with _bars(sys.stderr.isatty() if progress is None else progress):
        if re.match(r"https?://", text, re.IGNORECASE):
            return _fetch_address(text, revision)
        if re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not is_local:
            return _fetch_from_hub(text, revision)
    raise FileNotFoundError(f"{text}: no such file")


@contextlib.contextmanager
def _bars(show: bool) -> Iterator[None]:
    """Show or hide the progress bars of huggingface_hub, which our own downloads use too."""
    from huggingface_hub import utils

    with contextlib.ExitStack() as stack:
        if not show and not utils.are_progress_bars_disabled():
            utils.disable_progress_bars()
            stack.callback(utils.enable_progress_bars)
        yield


def _fetch_from_hub(repo_id: str, revision: str | None, file: str = "model.safetensors") -> Found:
    """Download a file of a repository, and the files of `_BESIDE` in the same folder."""
    from huggingface_hub import ModelCard, hf_hub_download
    from huggingface_hub.utils import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{repo_id} on the Hub"
    address = f"https://huggingface.co/{repo_id}/resolve/{revision or 'main'}"
    why_offline = why_no_hub()  # huggingface_hub would retry for half a minute
    fetch = partial(hf_hub_download, repo_id, local_files_only=why_offline is not None)
    try:
        path = Path(fetch(file, revision=revision))
        commit = path.parts[path.parts.index("snapshots") + 1]
        folder = file.rpartition("/")[0] or None
        for name in _BESIDE:  # from the same commit, even if the branch has moved since
            with contextlib.suppress(EntryNotFoundError):
                fetch(name, subfolder=folder, revision=commit)
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{where} cannot be fetched ({why_offline or _reason(error)}) and is not in the cache: "
            f"run this with a connection, or download {address}/{file} elsewhere and pass the path "
            "of the file"
        ) from error
    except (EntryNotFoundError, RevisionNotFoundError, RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f"no {file} in {where}, revision {revision or 'main'} ({type(error).__name__}), or it "
            f"is private: name a file that it has, as {address}/FILE, or log in with "
            "`hf auth login`"
        ) from error
    except Exception as error:  # which library raises depends on the version of huggingface_hub
        raise ConnectionError(f"{where} cannot be fetched: {_reason(error)}") from error
    terms, card = None, path.with_name("README.md")
    if card.is_file():
        with contextlib.suppress(ValueError):
            terms = ModelCard.load(card).data.to_dict().get("license")
    return Found(path, f"{where}, commit {commit[:12]}", terms and str(terms))


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause of an error."""
    while isinstance(error.__cause__ or error.__context__, Exception):
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _fetch_address(address: str, revision: str | None) -> Found:
    """Download the file at an address, on the Hub or on any other server."""
    from huggingface_hub import constants
    from huggingface_hub.utils import tqdm

    hubs = "|".join(map(re.escape, (constants.ENDPOINT, "https://huggingface.co")))
    file_of_revision = r"(?:/(?:tree|(?:resolve|blob)/([^/]+)/([^?]+)).*)?"
    on_hub = re.fullmatch(rf"(?:{hubs})/([^/]+/[^/?]+){file_of_revision}", address)
    if on_hub:
        repo_id, address_revision, file = on_hub.groups()
        return _fetch_from_hub(repo_id, revision or address_revision, *([file] if file else []))
    if revision is not None:
        raise ValueError(f"--revision is for a repository on the Hub, but {address} is not one")
    parts = urllib.parse.urlsplit(address)
    name = Path(urllib.parse.unquote(parts.path)).name.strip(".") or "checkpoint"
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    path = Path(constants.HF_HOME, "ernie-rna", digest, name)
    if path.is_file():
        return Found(path, address, unchecked=True)
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError(f"{address} is not in the cache, and HF_HUB_OFFLINE is set")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            urllib.request.urlopen(address, timeout=_TIMEOUT) as response,
            tqdm.wrapattr(response, "read", total=response.length, desc=name) as body,
            replacing(path) as temporary,
            open(temporary, "wb") as file,
        ):
            shutil.copyfileobj(body, file, 1 << 20)
            if response.length:
                raise OSError(f"the last {response.length:,} bytes are missing")
    except (OSError, ValueError, HTTPException) as error:  # from urllib, http and ssl
        raise ConnectionError(f"{address} cannot be fetched: {_reason(error)}") from error
    return Found(path, address, unchecked=True)


def files_to_push(folder: str | Path, repo_id: str) -> dict[str, int]:
    """The files of a model that are uploaded to the Hub, by name, with their sizes in bytes.

    Warns about weights that were never trained, and about a missing card or missing code.

    Raises:
        ExportError: the folder is not a complete model with its tokenizer, or holds other files; or
            `repo_id` is not valid on the Hub.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError("include the user or organisation, as USER/NAME")
    except HFValidationError as error:
        raise ExportError(f"{repo_id!r}: {error}") from error
    folder = Path(folder)
    reason = why_no_model(folder)
    if reason is not None:
        raise ExportError(
            f"{folder}: not a complete model ({reason}): name the output of `ernie-rna convert`, "
            "of `ernie-rna finetune`, or of save_pretrained of model and tokenizer"
        )
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    absences = {
        "README.md": "no README.md, the card that the Hub shows",
        "modeling_ernie_rna.py": "no code, so it loads only where ernie-rna is installed; "
        "save_pretrained of the loaded model writes it",
    }
    flaws = [absence for name, absence in absences.items() if name not in files]
    if read_config_file(folder).get("weights_origin") == "random":
        flaws.append("random weights, which were never trained")
    for flaw in flaws:
        warnings.warn(f"{folder} has {flaw}", stacklevel=2)
    return files


def push(
    folder: str | Path, repo_id: str, private: bool = False, revision: str | None = None
) -> str:
    """Upload a model to a repository, which is created if necessary.

    Args:
        folder: the output of `convert`, `ernie-rna finetune` or `save_pretrained` of model and
            tokenizer.
        repo_id: USER/NAME.
        private: whether a repository that is created here is private.
        revision: the branch, created if necessary; None is the main branch.

    Returns:
        The address of the commit.

    Raises:
        ExportError: see `files_to_push`; or there is no token, or the Hub refuses the upload.
    """
    import huggingface_hub

    files = files_to_push(folder, repo_id)
    if huggingface_hub.get_token() is None:
        raise ExportError("no token for the Hub: run `hf auth login`, or set HF_TOKEN")
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=str(folder),
            revision=revision,
            allow_patterns=sorted(files),
            commit_message="ERNIE-RNA for transformers",
        )
    except Exception as error:  # which library raises depends on the version of huggingface_hub
        raise ExportError(f"{repo_id}: {type(error).__name__}: {_reason(error)}") from error
    return str(commit.commit_url)
