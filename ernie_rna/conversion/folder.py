"""A folder for the Hub: what it holds, where one may be written, and its writing.

It holds all that `from_pretrained(..., trust_remote_code=True)` needs: configuration, weights,
tokenizer, the modules of the model and a model card. torch is imported where something is written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ernie_rna.model

if TYPE_CHECKING:
    from ernie_rna.conversion.weights import Conversion

_REQUIRED = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
# What conversion writes and `save_pretrained` does not.
_OF_EXPORTS = {"README.md", "vocab.json"}
# What some versions of transformers write as well, what Python leaves beside modules, and what
# fine-tuning has measured.
_OPTIONAL = {
    *("special_tokens_map.json", "added_tokens.json", "__pycache__"),
    *("metrics.json", "log.jsonl", "curve.svg"),
}


class ExportError(ValueError):
    """A folder cannot be written, replaced or published; the message says why and the way out."""


def code_files() -> list[Path]:
    """The files of the model's code, which stand beside its weights on the Hub."""
    folders = map(Path, ernie_rna.model.__path__)
    return sorted(path for folder in folders for path in folder.glob("*_ernie_rna.py"))


def check_target(out_dir: str | os.PathLike[str], force: bool = False) -> Path:
    """The absolute path of `out_dir`, if a model may go there.

    Raises:
        ExportError: it is a file or a link, or a folder that holds something; with `force`, one
            that holds anything but such a model.
    """
    if not os.fspath(out_dir):
        raise ExportError("the name of the folder to write is empty")
    target = Path(os.path.abspath(out_dir))
    if target.is_symlink() or target.is_file():
        raise ExportError(f"{target}: a file or a symbolic link; name the folder itself")
    if target.exists() and any(target.iterdir()):
        odd = why_no_model(target, _OF_EXPORTS)
        if odd is not None:
            raise ExportError(
                f"{target}: not empty, and no model that ernie-rna wrote ({odd}); name another "
                "folder"
            )
        if not force:
            raise ExportError(f"{target}: exists already; --force replaces it")
    above = next(folder for folder in target.parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ExportError(f"{target}: cannot be written, since {above} allows no writing")
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
    names, config = {child.name for child in folder.iterdir()}, read_config_file(folder)
    code = {path.name for path in code_files()}
    required = {*_REQUIRED, *more, *(code if config.get("auto_map", True) else ())}
    missing = sorted(required - names)
    odd = sorted(names - required - code - _OPTIONAL - _OF_EXPORTS)
    if missing:
        return f"lacks {', '.join(missing)}"
    if odd:
        return f"holds {', '.join(odd[:5])} as well: move such files out of it"
    if config.get("model_type") != "ernie_rna":
        return f"its config.json is of model_type {config.get('model_type')!r}"
    return None


def read_config_file(folder: Path) -> dict[str, Any]:
    """The values of a folder's config.json; none if it is damaged or not there."""
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def write_folder(conversion: Conversion, folder: Path) -> None:
    """Write all files of an export into an empty folder."""
    write_model(conversion.model, folder)
    (folder / "README.md").write_text(model_card(conversion), encoding="utf-8")


def write_model(model: Any, folder: Path, state_dict: dict[str, Any] | None = None) -> None:
    """Write all files of a folder for the Hub but the card.

    Args:
        state_dict: other weights than the model's.
    """
    from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
    from ernie_rna.run.loading import without_report

    with without_report():
        model.save_pretrained(folder, state_dict=state_dict)
    # Some versions of safetensors write 0600.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")
    tokenizer = ErnieRnaTokenizer(model_max_length=model.config.max_position_embeddings)
    tokenizer.save_pretrained(folder)
    tokenizer.save_vocabulary(str(folder))  # transformers 5 does not, for a fast tokenizer


def model_card(conversion: Conversion) -> str:
    """The text of the card, by `card.md`, a template of huggingface_hub."""
    from huggingface_hub import ModelCard, ModelCardData

    kind, random = conversion.kind, conversion.config.weights_origin == "random"
    foreign = conversion.naming.name == "multimolecule"
    data = ModelCardData(
        license="apache-2.0" if random else "agpl-3.0" if foreign else "mit",
        library_name="transformers",
        pipeline_tag=None if kind else "fill-mask",
        mask_token=None if kind else "<mask>",
        tags=["rna", "biology", "ernie-rna"],
    )
    facts = {
        **vars(conversion),
        "random": random,
        "foreign": foreign,
        "parameters": sum(weight.numel() for weight in conversion.state_dict.values()),
        # Behind brackets stands a token: a row of a weight.
        "taken": len(conversion.state_dict) - sum("[" not in n for n in conversion.initialised),
        "dropped_keys": sum("[" not in name for name in conversion.dropped),
    }
    template = Path(__file__).with_name("card.md")
    return str(ModelCard.from_template(data, template_path=str(template), **facts))
