"""A pretrained model as a folder for the Hub, its structure prediction calibrated."""

from __future__ import annotations

import copy
import itertools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from safetensors.torch import save_file

from ernie_rna.convert.export import write_code_and_tokenizer
from recipes.pretraining.batches import structure_batch
from recipes.pretraining.data import Rna
from recipes.pretraining.evaluation import score_structures

# Logits are raised by this much, and weighted around these thresholds, where the best is sought.
OFFSETS = (2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0)
THRESHOLDS = (1.0, 1.5, 2.0, 2.5, 3.0)


@dataclass(frozen=True)
class Calibration:
    """What structure prediction works best with, and the F1 that it gives.

    Attributes:
        offset: added to each logit. A loss over all pairs asks for the likelier of pair and no
            pair; F1 wants more pairs than that, and the post-processing sorts out too many.
        threshold: of `structures.contacts.solve_contacts`.
        f1: mean over the sequences.
    """

    offset: float
    threshold: float
    f1: float


@torch.no_grad()
def pair_logits(
    model: ErnieRnaForPreTraining, rnas: Iterable[Rna], tokens: int = 1024
) -> Iterator[tuple[list[Rna], torch.Tensor]]:
    """Batches of RNAs, sorted by length, and their logits (batch, length, length)."""
    tokenizer = ErnieRnaTokenizer()
    for part in _batches(sorted(rnas, key=lambda rna: len(rna.sequence)), tokens):
        batch = structure_batch(part, tokenizer)
        ids = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
        yield part, model(**ids).pair_logits.float().cpu()


def _batches(rnas: Sequence[Rna], tokens: int) -> Iterator[list[Rna]]:
    batch: list[Rna] = []
    for rna in rnas:
        if batch and (len(batch) + 1) * (len(rna.sequence) + 2) > tokens:
            yield batch
            batch = []
        batch.append(rna)
    if batch:
        yield batch


def calibrate(
    model: ErnieRnaForPreTraining,
    rnas: Iterable[Rna],
    offsets: Sequence[float] = OFFSETS,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Calibration:
    """The offset and threshold with the highest mean F1 on a validation split."""
    tried = list(itertools.product(offsets, thresholds))
    scores: dict[tuple[float, float], list[float]] = {pair: [] for pair in tried}
    for batch, logits in pair_logits(model, rnas):
        for offset, threshold in tried:
            scores[offset, threshold] += [
                score.f1 for score in score_structures(batch, logits + offset, threshold)
            ]
    means = {pair: float(np.mean(values)) for pair, values in scores.items()}
    best = max(means, key=lambda pair: means[pair])
    return Calibration(*best, means[best])


def export_pretrained(
    trained: ErnieRnaForPreTraining, calibration: Calibration, folder: Path, card: str
) -> None:
    """Write a complete folder for the Hub, the weights in float16, the calibration in them.

    Args:
        folder: where to; made if need be.
        card: the model card, README.md.
    """
    model: Any = copy.deepcopy(trained)
    with torch.no_grad():  # A logit is the sum of two outputs.
        model.pair_head.conv_out.bias += calibration.offset / 2
    model.config.pair_threshold = calibration.threshold
    model.config.weights_origin = "pretrained"
    model.config.has_pooler = False
    model.config.architectures = [type(model).__name__]
    folder.mkdir(parents=True, exist_ok=True)
    write_code_and_tokenizer(model.config, folder)
    save_file(_halved(model), folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", folder / "model.safetensors")
    (folder / "README.md").write_text(card, encoding="utf-8")


def _halved(model: Any) -> dict[str, torch.Tensor]:
    """The state in float16, tied weights once; loading in float32 widens it again."""
    state = {k: v for k, v in model.state_dict().items() if k != "lm_head.decoder.weight"}
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in state.items()
    }
