"""To and from the Hub: a checkpoint that is published there or at an address, and a folder that
goes there. What is fetched stays in huggingface_hub's cache. No torch."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import urllib.error
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

_WEIGHTS = "model.safetensors"
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
    if os.path.exists(text):
        if revision is not None:
            raise ValueError(
                f"--revision is for a repository on the Hub, but {text} is a local path"
            )
        return Found(Path(text))
    with _bars(sys.stderr.isatty() if progress is None else progress):
        if re.match(r"https?://", text, re.IGNORECASE):
            from huggingface_hub import constants

            hubs = "|".join(map(re.escape, (constants.ENDPOINT, "https://huggingface.co")))
            at_hub = re.fullmatch(
                rf"(?:{hubs})/([^/]+/[^/?]+)(?:/(?:tree|(?:resolve|blob)/([^/]+)/([^?]+)).*)?", text
            )
            if at_hub:
                return _fetch_from_hub(at_hub[1], revision or at_hub[2], at_hub[3])
            return _fetch_address(text)
        if re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not _looks_local(Path(text)):
            return _fetch_from_hub(text, revision, None)
    raise FileNotFoundError(f"{text}: no such file")


def _looks_local(path: Path) -> bool:
    return path.suffix in _FILES or path.parent.is_dir()


@contextlib.contextmanager
def _bars(show: bool) -> Iterator[None]:
    """huggingface_hub's bars, which are also ours, shown or not."""
    from huggingface_hub import utils

    hidden = utils.are_progress_bars_disabled()
    if not show:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden and not show:
            utils.enable_progress_bars()


def _fetch_from_hub(repo_id: str, revision: str | None, file: str | None) -> Found:
    """A file of a repository with what is beside it; None is its model.safetensors."""
    from huggingface_hub import ModelCard, hf_hub_download
    from huggingface_hub.utils import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f"{repo_id} on the Hub"
    cut_off = why_no_hub()  # huggingface_hub would try for half a minute
    fetch = partial(hf_hub_download, repo_id, local_files_only=cut_off is not None)
    try:
        path = Path(fetch(file or _WEIGHTS, revision=revision))
        commit = path.parts[path.parts.index("snapshots") + 1]
        folder = (file or "").rpartition("/")[0]
        for name in _BESIDE:  # of the same commit, whatever the branch has become meanwhile
            with contextlib.suppress(EntryNotFoundError):
                fetch(name, subfolder=folder or None, revision=commit)
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{at} cannot be fetched ({cut_off or _reason(error)}) and is not in the cache: run "
            f"this with a connection, or fetch https://huggingface.co/{repo_id}/resolve/"
            f"{revision or 'main'}/{file or _WEIGHTS} elsewhere and give the path of the file"
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(
            f"{at} has no {file or _WEIGHTS}: name the file that it has, by "
            f"https://huggingface.co/{repo_id}/resolve/main/FILE"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{at} has no branch, tag or commit {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no {at}, or it is private: for that, log in by `hf auth login`"
        ) from error
    except Exception as error:  # which library raises depends on the version of huggingface_hub
        raise ConnectionError(f"{at} cannot be fetched: {_reason(error)}") from error
    card, terms = path.with_name("README.md"), None
    if card.is_file():
        with contextlib.suppress(ValueError):
            terms = ModelCard.load(card).data.to_dict().get("license")
    return Found(path, f"{at}, commit {commit[:12]}", terms and str(terms))


def _reason(error: BaseException) -> str:
    """What is at the bottom of an error, in a line."""
    while isinstance(error.__cause__ or error.__context__, Exception):
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _fetch_address(address: str) -> Found:
    """A file anywhere else."""
    from huggingface_hub import constants
    from huggingface_hub.utils import tqdm

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
            replacing(path) as temporary,
            open(temporary, "wb") as file,
        ):
            size = int(answer.headers.get("Content-Length") or 0)
            with tqdm.wrapattr(answer, "read", total=size or None, desc=name) as body:
                shutil.copyfileobj(body, file, 1 << 20)
            if size and file.tell() != size:
                raise OSError(f"{file.tell():,} of {size:,} bytes came")
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
    except HFValidationError as error:
        raise ExportError(f"{repo_id!r}: {error}") from error
    if repo_id.count("/") != 1:
        raise ExportError(f"{repo_id!r}: give the user or organisation as well, USER/NAME")
    folder = Path(folder)
    odd = why_no_model(folder)
    if odd is not None:
        raise ExportError(
            f"{folder}: not a complete model ({odd}): name the output of `ernie-rna convert` or "
            "`ernie-rna finetune`, or of save_pretrained of model and tokenizer"
        )
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    wanting = {
        "no README.md, the card that the Hub shows": "README.md" not in files,
        "no code, so that it loads only where ernie-rna is installed; save_pretrained of the "
        "loaded model writes it": "modeling_ernie_rna.py" not in files,
        "random weights, which were never trained": (
            read_config_file(folder).get("weights_origin") == "random"
        ),
    }
    for what in (what for what, holds in wanting.items() if holds):
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
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise ExportError(f"{repo_id}: {type(error).__name__}: {reason}") from error
    return str(commit.commit_url)
