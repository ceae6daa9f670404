"""To and from the Hub: a checkpoint that is published there or at an address, and a folder that
goes there. What is fetched stays in huggingface_hub's cache. No torch."""

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

# Beside the weights, where they are there: settings, the order of tokens, and the terms.
_BESIDE = ("config.json", "vocab.txt", "README.md")
_FILES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")  # no name of a repository ends so
_SECONDS = 30.0  # to wait for an answer


class Found(NamedTuple):
    """A checkpoint on this machine.

    Attributes:
        path: for `read_checkpoint`.
        name: where it comes from, for people; None is the path's.
        terms: the licence that its repository states.
        unchecked: whether it was fetched from where no checksum is told.
    """

    path: Path
    name: str | None = None
    terms: str | None = None
    unchecked: bool = False


def find_checkpoint(
    checkpoint: str | Path, revision: str | None = None, progress: bool | None = None
) -> Found:
    """Where a checkpoint is on this machine; it is fetched if need be.

    Args:
        checkpoint: a file or folder, USER/NAME on the Hub with a model.safetensors, or the
            address of a file, by https.
        revision: branch, tag or commit on the Hub; None is the main branch.
        progress: whether to show a bar; None shows it on a terminal.

    Raises:
        FileNotFoundError: there is no such file, here or there.
        ValueError: a revision is given for what is not on the Hub.
        ConnectionError: it cannot be fetched, and is not in the cache.
    """
    text = os.fspath(checkpoint)
    path = Path(text)
    if path.exists():
        if revision is not None:
            raise ValueError(
                f"--revision is for a repository on the Hub, but {text} is a local path"
            )
        return Found(path)
    local = path.suffix in _FILES or path.parent.is_dir()
    with _bars(sys.stderr.isatty() if progress is None else progress):
        if re.match(r"https?://", text, re.IGNORECASE):
            return _fetch_address(text, revision)
        if re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not local:
            return _fetch_from_hub(text, revision)
    raise FileNotFoundError(f"{text}: no such file")


@contextlib.contextmanager
def _bars(show: bool) -> Iterator[None]:
    """huggingface_hub's bars, which are also ours, shown or not."""
    from huggingface_hub import utils

    hide = not show and not utils.are_progress_bars_disabled()
    if hide:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            utils.enable_progress_bars()


def _fetch_from_hub(repo_id: str, revision: str | None, file: str = "model.safetensors") -> Found:
    """A file of a repository with what is beside it."""
    from huggingface_hub import ModelCard, hf_hub_download
    from huggingface_hub.utils import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f"{repo_id} on the Hub"
    address = f"https://huggingface.co/{repo_id}/resolve/{revision or 'main'}"
    cut_off = why_no_hub()  # huggingface_hub would try for half a minute
    fetch = partial(hf_hub_download, repo_id, local_files_only=cut_off is not None)
    try:
        path = Path(fetch(file, revision=revision))
        commit = path.parts[path.parts.index("snapshots") + 1]
        folder = file.rpartition("/")[0] or None
        for name in _BESIDE:  # of the same commit, whatever the branch has become meanwhile
            with contextlib.suppress(EntryNotFoundError):
                fetch(name, subfolder=folder, revision=commit)
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{at} cannot be fetched ({cut_off or _reason(error)}) and is not in the cache: run "
            f"this with a connection, or fetch {address}/{file} elsewhere and give the path of "
            "the file"
        ) from error
    except (EntryNotFoundError, RevisionNotFoundError, RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f"there is no {file} of {at}, revision {revision or 'main'} ({type(error).__name__}), "
            f"or it is private: name a file that it has, by {address}/FILE, or log in by "
            "`hf auth login`"
        ) from error
    except Exception as error:  # which library raises depends on the version of huggingface_hub
        raise ConnectionError(f"{at} cannot be fetched: {_reason(error)}") from error
    terms, card = None, path.with_name("README.md")
    if card.is_file():
        with contextlib.suppress(ValueError):
            terms = ModelCard.load(card).data.to_dict().get("license")
    return Found(path, f"{at}, commit {commit[:12]}", terms and str(terms))


def _reason(error: BaseException) -> str:
    """What is at the bottom of an error, in a line."""
    while isinstance(error.__cause__ or error.__context__, Exception):
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _fetch_address(address: str, revision: str | None) -> Found:
    """A file of the Hub by its address, or one anywhere else."""
    from huggingface_hub import constants
    from huggingface_hub.utils import tqdm

    hubs = "|".join(map(re.escape, (constants.ENDPOINT, "https://huggingface.co")))
    places = r"(?:/(?:tree|(?:resolve|blob)/([^/]+)/([^?]+)).*)?"
    at_hub = re.fullmatch(rf"(?:{hubs})/([^/]+/[^/?]+){places}", address)
    if at_hub:
        repo_id, named, file = at_hub.groups()
        return _fetch_from_hub(repo_id, revision or named, *([file] if file else []))
    if revision is not None:
        raise ValueError(f"--revision is for a repository on the Hub, but {address} is none")
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
            urllib.request.urlopen(address, timeout=_SECONDS) as answer,
            tqdm.wrapattr(answer, "read", total=answer.length, desc=name) as body,
            replacing(path) as temporary,
            open(temporary, "wb") as file,
        ):
            shutil.copyfileobj(body, file, 1 << 20)
            if answer.length:
                raise OSError(f"the last {answer.length:,} bytes did not come")
    except (OSError, ValueError, HTTPException) as error:  # of urllib, http and ssl
        raise ConnectionError(f"{address} cannot be fetched: {_reason(error)}") from error
    return Found(path, address, unchecked=True)


def files_to_push(folder: str | Path, repo_id: str) -> dict[str, int]:
    """The files of a model that belong on the Hub, by name, with their sizes in bytes.

    Warns of weights that were never trained, and of a missing card or code.

    Raises:
        ExportError: the folder is no whole model with its tokenizer, or holds more; or `repo_id` is
            none that the Hub accepts.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError("give the user or organisation as well, USER/NAME")
    except HFValidationError as error:
        raise ExportError(f"{repo_id!r}: {error}") from error
    folder = Path(folder)
    odd = why_no_model(folder)
    if odd is not None:
        raise ExportError(
            f"{folder}: not a complete model ({odd}): name the output of `ernie-rna convert` or "
            "`ernie-rna finetune`, or of save_pretrained of model and tokenizer"
        )
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    lacks = {
        "README.md": "no README.md, the card that the Hub shows",
        "modeling_ernie_rna.py": "no code, so that it loads only where ernie-rna is installed; "
        "save_pretrained of the loaded model writes it",
    }
    found = [what for name, what in lacks.items() if name not in files]
    if read_config_file(folder).get("weights_origin") == "random":
        found.append("random weights, which were never trained")
    for what in found:
        warnings.warn(f"{folder} has {what}", stacklevel=2)
    return files


def push(
    folder: str | Path, repo_id: str, private: bool = False, revision: str | None = None
) -> str:
    """Upload a model into a repository, which is made if need be.

    Args:
        folder: what `convert`, `ernie-rna finetune` or `save_pretrained` of model and tokenizer
            wrote.
        repo_id: USER/NAME.
        private: whether a repository that is made here is private.
        revision: the branch, made if need be; None is the main one.

    Returns:
        The address of the commit.

    Raises:
        ExportError: see `files_to_push`; there is no token, or the Hub refuses.
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
