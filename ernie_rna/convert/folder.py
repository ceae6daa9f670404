"""What a folder for the Hub holds, where one may be written, and its way there. No torch."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import ernie_rna.model

MODEL_TYPE = "ernie_rna"
_REQUIRED = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
# What conversion writes and `save_pretrained` does not.
_OF_EXPORTS = {"README.md", "vocab.json"}
# What some versions of transformers write as well, what Python leaves beside modules, and what
# fine-tuning has measured.
_OPTIONAL = {"special_tokens_map.json", "added_tokens.json", "__pycache__", "metrics.json"}


class ExportError(ValueError):
    """A folder cannot be written, replaced or published; the message says why and the way out."""


def code_files() -> list[Path]:
    """The files of the model's code, which stand beside its weights on the Hub."""
    folders = map(Path, ernie_rna.model.__path__)
    return sorted(path for folder in folders for path in folder.glob("*_ernie_rna.py"))


def check_target(out_dir: str | Path, force: bool = False) -> Path:
    """The absolute path of `out_dir`, if an export may go there.

    Raises:
        ExportError: it is a file or a link, or a folder that holds something; with `force`, one
            that holds anything but an earlier export.
    """
    target = Path(os.path.abspath(out_dir))
    if target.is_symlink():
        raise ExportError(f"{target}: a symbolic link; name the folder itself")
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target}: a file; name a folder")
    if not target.exists() or not any(target.iterdir()):
        return target
    odd = why_no_model(target, _OF_EXPORTS)
    if odd is not None:
        raise ExportError(f"{target}: not empty and no earlier export ({odd}); name another folder")
    if not force:
        raise ExportError(f"{target}: there already; --force replaces it")
    return target


def why_no_model(folder: Path, more: Collection[str] = ()) -> str | None:
    """What keeps a folder from being a whole model with its tokenizer and nothing else, or None.

    Code is part of it if config.json says where it is, by `auto_map`. That of `mini` is empty: its
    code is ernie-rna.

    Args:
        more: what else it must hold.
    """
    if not folder.is_dir():
        return "no such folder"
    names, config = {child.name for child in folder.iterdir()}, _read_config(folder)
    code = {path.name for path in code_files()}
    required = {*_REQUIRED, *more, *(code if config.get("auto_map", True) else ())}
    missing = sorted(required - names)
    odd = sorted(names - required - code - _OPTIONAL - _OF_EXPORTS)
    if missing:
        return f"lacks {', '.join(missing)}"
    if odd:
        return f"holds {', '.join(odd[:5])} as well"
    if config.get("model_type") != MODEL_TYPE:
        return f"its config.json is of model_type {config.get('model_type')!r}"
    return None


def _read_config(folder: Path) -> dict[str, Any]:
    """The values of a folder's config.json; none if it is damaged or not there."""
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


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
            f"{folder}: no whole model ({odd}): name what `ernie-rna convert` or `ernie-rna "
            "finetune` wrote, or save_pretrained of model and tokenizer"
        )
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    wanting = {
        "no README.md, the card that the Hub shows": "README.md" not in files,
        "no code, so that it loads only where ernie-rna is installed; save_pretrained of the "
        "loaded model writes it": "modeling_ernie_rna.py" not in files,
        "random weights, which were never trained": (
            _read_config(folder).get("weights_origin") == "random"
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
