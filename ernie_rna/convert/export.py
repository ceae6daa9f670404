"""A checkpoint in, a folder for the Hub out, once it is proven to load.

The folder holds all that `from_pretrained(..., trust_remote_code=True)` needs: configuration,
weights, tokenizer, the modules of the model and a model card. It is written beside its place,
loaded in a fresh process, compared, and only then renamed: whoever sees it sees it whole.
"""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ernie_rna.convert.folder import check_target, code_files
from ernie_rna.options import Options, option, takes
from ernie_rna.run.outputs import replacing_folder

if TYPE_CHECKING:
    from ernie_rna.convert.conversion import Conversion
    from ernie_rna.convert.proof import Proof
    from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(Options):
    """Of `convert`."""

    force: bool = option(
        False,
        "replace a folder that an earlier conversion wrote",
        flag=("--force", True, "replace a folder that an earlier conversion wrote"),
    )
    pairing_scores: str = option(
        "sequence",
        "what the model takes for the potential of two bases to pair where it is given none, noted "
        "in its config.json: sequence reads it off the sequence, zero is zero everywhere as in the "
        "authors' script for structures; no checkpoint says with which it was trained",
        choices=("sequence", "zero"),
    )


@dataclass(frozen=True)
class Export:
    """A written folder, what is in it and what it was proven with."""

    path: Path
    conversion: Conversion
    proof: Proof


@takes(ConvertOptions)
def convert(checkpoint: str | Path, out_dir: str | Path, *, options: ConvertOptions) -> Export:
    """Convert a checkpoint into a folder for the Hub, proven by loading it in a fresh process.

    Args:
        checkpoint: what `checkpoint.read_checkpoint` reads.
        out_dir: the folder to write; it appears complete and proven, or not at all. The folders
            above it are made if need be.

    Raises:
        CheckpointError: the checkpoint cannot be read or converted.
        ExportError: `out_dir` cannot be written or replaced, or does not load as it should.
        OSError: there is no such checkpoint, or the disk refuses.
    """
    target = check_target(out_dir, options.force)
    if not Path(checkpoint).exists():
        raise FileNotFoundError(f"{checkpoint}: no such file")
    # From here on seconds pass.
    from ernie_rna.convert.checkpoint import read_checkpoint
    from ernie_rna.convert.conversion import convert_weights
    from ernie_rna.convert.proof import prove

    conversion = convert_weights(read_checkpoint(checkpoint), options.pairing_scores)
    with replacing_folder(target, options.force) as folder:
        write_folder(conversion, folder)
        proof = prove(folder, conversion)
    return Export(target, conversion, proof)


def write_folder(conversion: Conversion, folder: Path) -> None:
    """Write all files of an export into an empty folder."""
    from safetensors.torch import save_file

    from ernie_rna.convert.card import model_card

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
