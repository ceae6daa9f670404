"""What a folder for the Hub holds, and where one may be written. Imports no torch."""

from __future__ import annotations

import json
import os
from pathlib import Path

MODEL_TYPE = "ernie_rna"
MODULES = (
    "attention_ernie_rna",
    "configuration_ernie_rna",
    "heads_ernie_rna",
    "layers_ernie_rna",
    "modeling_ernie_rna",
    "outputs_ernie_rna",
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
    names = {child.name for child in folder.iterdir()} if folder.is_dir() else set()
    missing, more = sorted(REQUIRED - names), sorted(names - REQUIRED - _OPTIONAL)
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
