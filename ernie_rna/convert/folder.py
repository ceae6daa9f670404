"""What a folder for the Hub holds, where one may be written, and its way there. No torch."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

MODEL_TYPE = "ernie_rna"
MODULES = (
    "attention_ernie_rna",
    "configuration_ernie_rna",
    "fused_ernie_rna",
    "heads_ernie_rna",
    "layers_ernie_rna",
    "modeling_ernie_rna",
    "tokenization_ernie_rna",
)
REQUIRED = frozenset(
    (
        *("config.json", "model.safetensors", "README.md"),
        *("tokenizer.json", "tokenizer_config.json", "vocab.json"),
        *(f"{module}.py" for module in MODULES),
    )
)
# What some versions of transformers write as well, and what Python leaves beside modules.
_OPTIONAL = frozenset(("special_tokens_map.json", "added_tokens.json", "__pycache__"))
# What `save_pretrained` does not write; beside a model stands what `ernie-rna finetune` measured.
_OF_EXPORTS_ALONE = frozenset(("README.md", "vocab.json"))
_MEASURED = frozenset(("metrics.json",))


class ExportError(ValueError):
    """A folder cannot be written, replaced or published; the message says why and the way out."""


def check_target(out_dir: str | Path, force: bool = False) -> Path:
    """The absolute path of `out_dir`, if an export may go there.

    Raises:
        ExportError: it is a file or a link, or a folder that holds something; with `force`, one
            that holds anything but an earlier export.
    """
    target = Path(os.path.abspath(out_dir))
    if target.is_symlink():
        raise ExportError(f"{target}: a symbolic link; name the folder itself")
    if not target.exists():
        return target
    if not target.is_dir():
        raise ExportError(f"{target}: a file; name a folder")
    if not any(target.iterdir()):
        return target
    odd = why_no_export(target)
    if odd is not None:
        raise ExportError(f"{target}: not empty and no earlier export ({odd}); name another folder")
    if not force:
        raise ExportError(f"{target}: there already; --force replaces it")
    return target


def why_no_export(folder: Path) -> str | None:
    """What keeps a folder from being a complete export and nothing else, or None."""
    return _why_not(folder, REQUIRED, _OPTIONAL)


def _why_not(folder: Path, required: frozenset[str], optional: frozenset[str]) -> str | None:
    if not folder.is_dir():
        return "no such folder"
    names = {child.name for child in folder.iterdir()}
    missing, more = sorted(required - names), sorted(names - required - optional)
    if missing:
        return f"lacks {', '.join(missing)}"
    if more:
        return f"holds {', '.join(more[:5])} as well"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type = config["model_type"]
    except (ValueError, KeyError, TypeError):
        return "its config.json is none"
    if model_type != MODEL_TYPE:
        return f"its config.json is of model_type {model_type!r}"
    return None


def files_to_push(folder: str | Path) -> dict[str, int]:
    """The files of a model that belong on the Hub, by name, with their sizes in bytes.

    Warns of weights that were never trained, and of a missing card.

    Raises:
        ExportError: the folder is no whole model with its code and tokenizer, or holds more.
    """
    folder = Path(folder)
    optional = _OPTIONAL | _OF_EXPORTS_ALONE | _MEASURED
    odd = _why_not(folder, REQUIRED - _OF_EXPORTS_ALONE, optional)
    if odd is not None:
        raise ExportError(
            f"{folder}: no whole model ({odd}): name what `ernie-rna convert` or `ernie-rna "
            "finetune` wrote, or save_pretrained of model and tokenizer"
        )
    if not (folder / "README.md").exists():
        warnings.warn(f"{folder} has no README.md, the card that the Hub shows", stacklevel=2)
    if json.loads((folder / "config.json").read_text()).get("weights_origin") == "random":
        warnings.warn(f"{folder} has random weights, which were never trained", stacklevel=2)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: path.stat().st_size for path in files}


def check_repo_id(repo_id: str) -> None:
    """Raise ExportError unless this is a USER/NAME that the Hub accepts."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

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
        folder: what `export`, `ernie-rna finetune` or `save_pretrained` of model and tokenizer
            wrote.
        repo_id: USER/NAME.
        private: whether a repository that is made here is private.
        revision: the branch, made if need be; None is the main one.

    Returns:
        The address of the commit.

    Raises:
        ExportError: the folder is no whole model, there is no token, or the Hub refuses.
    """
    import huggingface_hub

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
            commit_message="ERNIE-RNA for transformers",
        )
    except Exception as error:  # which library raises depends on the version of huggingface_hub
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise ExportError(f"{repo_id}: {type(error).__name__}: {reason}") from error
    return str(commit.commit_url)
