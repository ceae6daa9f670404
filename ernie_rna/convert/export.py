"""Writes a converted model as a folder for the Hub, once it is proven to load.

The folder holds all that `from_pretrained(..., trust_remote_code=True)` needs: configuration,
weights, tokenizer, the modules of the model and a model card. It is written beside its
place, loaded in a fresh process, compared, and only then renamed: whoever sees it sees it whole.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file

from ernie_rna.convert.conversion import Conversion, convert_weights
from ernie_rna.convert.folder import MODULES, check_target
from ernie_rna.convert.foreign.reading import Checkpoint, read_checkpoint
from ernie_rna.convert.model_card import model_card
from ernie_rna.convert.verification import Verification, verify_export
from ernie_rna.model.configuration_ernie_rna import AUTO_MAP, HEAD_MODELS, ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.run.outputs import replace_folder

_TOKENIZER_MAP = ["tokenization_ernie_rna.ErnieRnaTokenizer", None]


@dataclass(frozen=True)
class Export:
    """A written folder, what is in it and what it was proven with."""

    path: Path
    conversion: Conversion
    verification: Verification


def convert(
    checkpoint: Checkpoint | str | Path,
    out_dir: str | Path,
    force: bool = False,
    pairing_scores: str = "sequence",
) -> Export:
    """Convert a checkpoint into a folder for the Hub, proven by loading it in a fresh process.

    Args:
        checkpoint: a checkpoint, or a path for `read_checkpoint`.
        out_dir: the folder to write; it appears complete and verified, or not at all.
        force: replace a folder that an earlier conversion wrote.
        pairing_scores: what the model takes for the potential to pair where it is given none:
            "sequence", or "zero" as in the authors' script for structures. No checkpoint says.

    Raises:
        CheckpointError: the checkpoint cannot be read or converted.
        ExportError: `out_dir` cannot be written or replaced, or does not load as it should.
    """
    check_target(out_dir, force)
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = read_checkpoint(checkpoint)
    return export(convert_weights(checkpoint, pairing_scores), out_dir, force)


def export(conversion: Conversion, out_dir: str | Path, force: bool = False) -> Export:
    """Write a converted model; `out_dir` appears complete and verified, or not at all.

    Args:
        conversion: the model.
        out_dir: the folder; the folders above it are made if need be.
        force: replace a folder that an earlier export wrote.

    Raises:
        ExportError: see `check_target` and `verify_export`.
        OSError: the disk refuses.
    """
    target = check_target(out_dir, force)
    with _staging(target) as folder:
        write_folder(conversion, folder)
        verification = verify_export(folder, conversion)
        replace_folder(folder, target)
    return Export(target, conversion, verification)


def write_folder(conversion: Conversion, folder: Path) -> None:
    """Write all files of an export into an empty folder."""
    config, kind = copy.deepcopy(conversion.config), conversion.kind
    config.architectures = [kind.model_class if kind else ErnieRnaForMaskedLM.__name__]
    write_code_and_tokenizer(config, folder)
    weights = folder / "model.safetensors"
    save_file(conversion.state_dict, weights, metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", weights)  # some versions of safetensors write 0600
    (folder / "README.md").write_text(model_card(conversion), encoding="utf-8")


def write_code_and_tokenizer(config: ErnieRnaConfig, folder: Path) -> None:
    """Write all files of a folder for the Hub but the weights and the model card."""
    config = copy.deepcopy(config)
    config.auto_map = {**AUTO_MAP, "AutoTokenizer": _TOKENIZER_MAP}
    for name in (config.architectures or [])[:1]:
        if name in HEAD_MODELS:  # AutoModel is to give all of the model, not its encoder.
            config.auto_map["AutoModel"] = f"modeling_ernie_rna.{name}"
    config.save_pretrained(folder)
    _write_tokenizer(folder, config.max_position_embeddings)
    for module in MODULES:
        source = importlib.import_module(
            f"ernie_rna.model.{module}"
        ).__file__  # of a checkout, or installed
        shutil.copyfile(str(source), folder / f"{module}.py")


def _write_tokenizer(folder: Path, max_length: int) -> None:
    tokenizer = ErnieRnaTokenizer(model_max_length=max_length)
    tokenizer.save_pretrained(folder)
    tokenizer.save_vocabulary(str(folder))  # transformers 5 does not, for a fast tokenizer
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["auto_map"] = {"AutoTokenizer": _TOKENIZER_MAP}
    settings["tokenizer_class"] = ErnieRnaTokenizer.__name__
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder in a hidden one beside the target, gone at the end with what was made for it."""
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    hidden = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        # Older transformers (4.41) import the code by the folder's name, which may hold no dot.
        folder = hidden / "staging"
        folder.mkdir(parents=True)
        yield folder
    finally:  # also at Ctrl-C
        shutil.rmtree(hidden, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # it is in use: the export was a success
                parent.rmdir()
