"""Converts a checkpoint into a folder for the Hub that is proven to load.

The folder is written under a temporary name, loaded in a fresh process and compared, and only then
renamed, so that it is never visible incomplete.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ernie_rna.conversion import proof
from ernie_rna.conversion.folder import ExportError, check_target, write_folder
from ernie_rna.conversion.hub import Found, find_checkpoint
from ernie_rna.options import Options, option, takes
from ernie_rna.run.outputs import full_disk_explained, holds, replacing_folder
from ernie_rna.run.progress import show_loading

if TYPE_CHECKING:
    from ernie_rna.conversion.weights import Conversion


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(Options):
    """Options of `convert`."""

    force: bool = option(
        False,
        "replace a folder that an earlier conversion wrote",
        flag=("--force", True),
    )
    pairing_scores: str = option(
        "sequence",
        "the pairing scores that the model uses by default, stored in its config.json: sequence "
        "computes them from the sequence, zero sets all to 0 as in the authors' script for "
        "structures; no checkpoint says with which it was trained",
        choices=("sequence", "zero"),
    )
    revision: str | None = option(None, "branch, tag or commit of a checkpoint on the Hub")
    progress: bool | None = option(
        None,
        "whether to show downloads and steps; by default on a terminal",
        flag=("--quiet", False, "no progress bar"),
    )


@dataclass(frozen=True)
class Export:
    """A written folder, with the conversion in it and the proof that it loads.

    Attributes:
        terms: the licence that the checkpoint's repository on the Hub states, if any.
    """

    path: Path
    conversion: Conversion
    proof: proof.Proof
    terms: str | None


@takes(ConvertOptions)
def convert(checkpoint: str | Path, out_dir: str | Path, *, options: ConvertOptions) -> Export:
    """Convert a checkpoint into a folder for the Hub, proven by loading it in a fresh process.

    Args:
        checkpoint: a file of `torch.save` or safetensors, a folder with model.safetensors, a
            repository USER/NAME on the Hub with such a file, or the https address of a file.
        out_dir: the folder to write; it appears complete and proven, or not at all. Missing parent
            folders are created.

    Raises:
        CheckpointError: the checkpoint cannot be read or converted.
        ExportError: `out_dir` cannot be written or replaced, or does not load as it should.
        ConnectionError: the checkpoint cannot be downloaded and is not in the cache.
        OSError: there is no such checkpoint, or the disk cannot be written.
    """
    target = check_target(out_dir, options.force)
    found = find_checkpoint(checkpoint, options.revision, options.progress)
    if holds(target, found.path):
        raise ExportError(f"{target}: holds the checkpoint that is read; name another folder")
    with show_loading(options.progress, "converting the checkpoint"):
        conversion = _convert(found, options.pairing_scores)
    with full_disk_explained(target), replacing_folder(target, options.force) as folder:
        write_folder(conversion, folder)
        with show_loading(options.progress, "verifying the folder in a fresh process"):
            proven = proof.prove(folder, conversion)
    return Export(target, conversion, proven, found.terms)


def _convert(found: Found, pairing_scores: str) -> Conversion:
    from ernie_rna.conversion.checkpoint import CheckpointError, read_checkpoint
    from ernie_rna.conversion.weights import convert_weights

    try:
        return convert_weights(read_checkpoint(found.path, found.name), pairing_scores)
    except CheckpointError:
        if found.unchecked:  # The next run downloads it again.
            found.path.unlink()
        raise
