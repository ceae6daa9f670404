"""Puts an exported folder on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub.utils import HFValidationError, validate_repo_id

from ernie_rna.checkpoints.folder import ExportError, why_no_export


def files_to_push(folder: str | Path) -> dict[str, int]:
    """The files of an export that belong on the Hub, by name, with their sizes in bytes.

    Raises:
        ExportError: the folder is no complete export, or holds more than one.
    """
    folder = Path(folder)
    odd = why_no_export(folder) if folder.is_dir() else "no such folder"
    if odd is not None:
        raise ExportError(f"{folder}: no complete export ({odd}): convert a checkpoint into it")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: path.stat().st_size for path in files}


def check_repo_id(repo_id: str) -> None:
    """Raise ExportError unless this is a USER/NAME that the Hub accepts."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ExportError(f"{repo_id!r}: {error}") from error
    if repo_id.count("/") != 1:
        raise ExportError(f"{repo_id!r}: give the user or organisation as well, USER/NAME")


def push(
    folder: str | Path, repo_id: str, private: bool = False, revision: str | None = None
) -> str:
    """Upload an export into a model repository, which is made if need be.

    Args:
        folder: what `export` wrote.
        repo_id: USER/NAME.
        private: whether a repository that is made here is private.
        revision: the branch, made if need be; None is the main one.

    Returns:
        The address of the commit.

    Raises:
        ExportError: the folder is no export, there is no token, or the Hub refuses.
    """
    check_repo_id(repo_id)
    files = files_to_push(folder)
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
            commit_message="Converted ERNIE-RNA checkpoint",
        )
    except Exception as error:  # which library raises depends on the version of huggingface_hub
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise ExportError(f"{repo_id}: {type(error).__name__}: {reason}") from error
    return str(commit.commit_url)
