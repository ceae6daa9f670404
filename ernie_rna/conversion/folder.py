"""Checks and writes a folder for the Hub.

It holds everything that `from_pretrained(..., trust_remote_code=True)` needs: configuration,
weights, tokenizer, the modules of the model and a model card. Only writing imports torch.
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

_REQUIRED = {"config.json", "tokenizer.json", "tokenizer_config.json"}
_WEIGHTS = "model.safetensors"
# Files that conversion writes and `save_pretrained` does not.
_OF_EXPORTS = {"README.md", "vocab.json"}
# Files that some versions of transformers write as well, Python's cache of compiled modules, and
# the measurements of fine-tuning.
_OPTIONAL = {
    *("special_tokens_map.json", "added_tokens.json", "__pycache__"),
    *("metrics.json", "log.jsonl", "curve.svg"),
}


class ExportError(ValueError):
    """A folder cannot be written, replaced or published; the message says why and what to do."""


def code_files() -> list[Path]:
    """The files of the model's code, which are stored beside its weights on the Hub."""
    folders = map(Path, ernie_rna.model.__path__)
    return sorted(path for folder in folders for path in folder.glob("*_ernie_rna.py"))


def check_target(out_dir: str | os.PathLike[str], force: bool = False) -> Path:
    """Return the absolute path of `out_dir`, if a model may be written there.

    Raises:
        ExportError: it is a file or a symbolic link, or a folder that is not empty. With `force`,
            such a folder is allowed if it holds only a model that ernie-rna wrote.
    """
    if not os.fspath(out_dir):
        raise ExportError("the name of the folder to write is empty")
    target = Path(os.path.abspath(out_dir))
    if target.is_symlink() or target.is_file():
        raise ExportError(f"{target}: a file or a symbolic link; name the folder itself")
    if target.exists() and any(target.iterdir()):
        reason = why_no_model(target, _OF_EXPORTS)
        if reason is not None:
            raise ExportError(
                f"{target}: neither empty nor a model that ernie-rna wrote ({reason}); name "
                "another folder"
            )
        if not force:
            raise ExportError(f"{target}: exists already; --force replaces it")
    parent = next(folder for folder in target.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        flaw = "not a writable folder" if parent.is_dir() else "a file and not a folder"
        raise ExportError(f"{target}: cannot be written, since {parent} is {flaw}")
    return target


def why_no_model(folder: Path, more: Collection[str] = ()) -> str | None:
    """Why a folder is not exactly a complete model with its tokenizer; None if it is.

    The code must be in the folder unless the `auto_map` of config.json is empty, as in `mini`,
    whose code is the installed package.

    Args:
        more: names of further files that the folder must hold.
    """
    if not folder.is_dir():
        return "no such folder"
    names, config = {child.name for child in folder.iterdir()}, read_config_file(folder)
    code = {path.name for path in code_files()}
    of_code = code if config.get("auto_map", True) else ()
    required = {*_REQUIRED, *weight_files(folder), *more, *of_code}
    missing = sorted(required - names)
    extra = sorted(names - required - code - _OPTIONAL - _OF_EXPORTS)
    if missing:
        return f"lacks {', '.join(missing)}"
    if extra:
        return f"also holds {', '.join(extra[:5])}: move such files out of it"
    if config.get("model_type") != "ernie_rna":
        return f"its config.json has model_type {config.get('model_type')!r}"
    return None


def weight_files(folder: Path) -> list[str]:
    """The names of the files that a folder's weights are in, of which some may be missing.

    These are model.safetensors or, if there is none, the index of its shards and the shards in it.
    """
    index = f"{_WEIGHTS}.index.json"
    shards = read_config_file(folder, index).get("weight_map")
    if (folder / _WEIGHTS).exists() or not shards or not isinstance(shards, dict):
        return [_WEIGHTS]
    return [index, *sorted({*map(str, shards.values())})]


def read_config_file(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The values of a folder's config.json; empty if it is missing or damaged."""
    try:
        return dict(json.loads((folder / name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def write_folder(conversion: Conversion, folder: Path) -> None:
    """Write all files of a converted model into an empty folder."""
    write_model(conversion.model, folder)
    (folder / "README.md").write_text(model_card(conversion), encoding="utf-8")


def write_model(
    model: Any, folder: Path, state_dict: dict[str, Any] | None = None, tokenizer: Any = None
) -> None:
    """Write all files of a folder for the Hub except the card.

    Args:
        state_dict: weights to write instead of the model's own.
        tokenizer: the tokenizer to write; None writes a new one for the length of the model.
    """
    from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
    from ernie_rna.run.loading import without_report

    with without_report():
        model.save_pretrained(folder, state_dict=state_dict)
    for name in weight_files(folder):  # Some versions of safetensors write files with mode 0600.
        shutil.copymode(folder / "config.json", folder / name)
    if tokenizer is None:
        tokenizer = ErnieRnaTokenizer(model_max_length=model.config.max_position_embeddings)
    tokenizer.save_pretrained(folder)
    tokenizer.save_vocabulary(str(folder))  # transformers 5 does not, for a fast tokenizer


def model_card(conversion: Conversion) -> str:
    """The text of the model card, from `card.md`, a template for huggingface_hub."""
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
        # A name with brackets is a single row of a weight, that of a token.
        "taken": len(conversion.state_dict) - sum("[" not in n for n in conversion.initialised),
        "dropped_keys": sum("[" not in name for name in conversion.dropped),
    }
    template = Path(__file__).with_name("card.md")
    return str(ModelCard.from_template(data, template_path=str(template), **facts))
