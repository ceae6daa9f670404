"""A folder for the Hub: what it holds, where one may be written, and its writing.

It holds all that `from_pretrained(..., trust_remote_code=True)` needs: configuration, weights,
tokenizer, the modules of the model and a model card. torch is imported where something is written.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ernie_rna.model

if TYPE_CHECKING:
    from ernie_rna.conversion.weights import Conversion
    from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig

MODEL_TYPE = "ernie_rna"
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
    if target.is_symlink():
        raise ExportError(f"{target}: a symbolic link; name the folder itself")
    if target.exists() and not target.is_dir():
        raise ExportError(f"{target}: a file; name a folder")
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
        return f"lacks {', '.join(missing[:5])}{', ...' * (len(missing) > 5)}"
    if odd:
        return f"holds {', '.join(odd[:5])} as well: move such files out of it"
    if config.get("model_type") != MODEL_TYPE:
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
    from safetensors.torch import save_file

    config = copy.deepcopy(conversion.config)
    config.architectures = [type(conversion.model).__name__]
    write_code_and_tokenizer(config, folder)
    weights = folder / "model.safetensors"
    save_file(conversion.state_dict, weights, metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", weights)  # some versions of safetensors write 0600
    (folder / "README.md").write_text(model_card(conversion), encoding="utf-8")


def write_code_and_tokenizer(config: ErnieRnaConfig, folder: Path) -> None:
    """Write all files of a folder for the Hub but the weights and the model card."""
    from ernie_rna.model.configuration_ernie_rna import AUTO_MAP, HEAD_MODELS
    from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer

    config = copy.deepcopy(config)
    own = {"AutoTokenizer": [f"tokenization_ernie_rna.{ErnieRnaTokenizer.__name__}", None]}
    config.auto_map = {**AUTO_MAP, **own}
    for name in (config.architectures or [])[:1]:
        if name in HEAD_MODELS:  # AutoModel is to give all of the model, not its encoder.
            config.auto_map["AutoModel"] = f"modeling_ernie_rna.{name}"
    config.save_pretrained(folder)
    tokenizer = ErnieRnaTokenizer(model_max_length=config.max_position_embeddings)
    tokenizer.save_pretrained(folder)
    tokenizer.save_vocabulary(str(folder))  # transformers 5 does not, for a fast tokenizer
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings |= {"auto_map": own, "tokenizer_class": ErnieRnaTokenizer.__name__}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    for file in code_files():
        shutil.copyfile(file, folder / file.name)


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
