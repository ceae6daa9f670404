"""Metrics of a pretraining on sequences that it does not train on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ernie_rna.model.structures_ernie_rna import MIN_LOOP, MIN_STEM, predict_pairs, solve_each
from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.evaluation import score_pairs
from ernie_rna.training.metrics import NO_LABEL
from recipes.pretraining.batches import cut_batches, drawing, drawn, masked_batch, structure_batch
from recipes.pretraining.rnas import Rna, with_pairs
from recipes.pretraining.settings import Settings

_MASK_SEED = 1


def choose_sample(rnas: Sequence[Rna], settings: Settings) -> list[Rna]:
    """What a run is evaluated on: RNAs with pairs after a training with structures, else any.

    Raises:
        InputError: there are none of a length that is trained on.
    """
    what, longest = "the validation data", settings.masked_max_length
    if settings.has_structures:
        known = list(with_pairs(rnas, what, settings.pairs_max_length))
    else:
        known = [rna for rna in rnas if len(rna.sequence) <= longest]
        if not known:
            raise InputError(f"{what}: no sequence has at most {longest} nucleotides")
    return draw_sample(known, settings.family_power, settings.eval_sequences)


def draw_sample(rnas: Sequence[Rna], power: float, count: int) -> list[Rna]:
    """The same `count` of the RNAs each time, or all if they are fewer, families as in training."""
    count = min(count, len({rna.id for rna in rnas}))
    chosen: dict[str, Rna] = {}
    for (rna,) in cut_batches(drawn(rnas, power), seed=0):
        if len(chosen) == count:
            break
        chosen.setdefault(rna.id, rna)
    return list(chosen.values())


def evaluate(model: Any, sample: Sequence[Rna], settings: Settings) -> dict[str, float]:
    """Masked-LM loss, pair loss and F1 of a model in evaluation mode, as far as it is trained."""
    metrics = {}
    if settings.masked:
        metrics["masked_lm_loss"] = masked_lm_loss(model, sample, settings.masked_share)
    if settings.has_structures:
        offsets, thresholds = [settings.eval_offset], settings.eval_thresholds
        metrics["pair_loss"], f1 = score_structures(model, sample, offsets, thresholds)
        metrics["f1"] = max(f1.values())
        metrics |= {f"f1_at_{threshold:g}": value for (_, threshold), value in f1.items()}
    return metrics


@torch.no_grad()
def masked_lm_loss(model: Any, rnas: Sequence[Rna], share: float) -> float:
    """The mean over the masked nucleotides, the same ones each time."""
    total, count = 0.0, 0
    with drawing(_MASK_SEED):
        for part in _by_length(rnas):
            batch = masked_batch([rna.sequence for rna in part], model.config, share)
            masked = int((batch["labels"] != NO_LABEL).sum())
            total += float(model(**_on_device(batch, model)).loss) * masked
            count += masked
    return total / max(1, count)


@torch.no_grad()
def score_structures(
    model: Any, rnas: Sequence[Rna], offsets: Iterable[float], thresholds: Iterable[float]
) -> tuple[float, dict[tuple[float, float], float]]:
    """The mean pair loss, and the mean F1 by offset of the logits and threshold of the prediction.

    Where the optimisation has no solution there is no pair, as in `ernie-rna fold`.
    """
    losses: list[float] = []
    f1: dict[tuple[float, float], list[float]] = {
        pair: [] for pair in itertools.product(offsets, thresholds)
    }
    for part in _by_length(rnas):
        output = model(**_on_device(structure_batch(part), model))
        losses += [float(output.loss)] * len(part)
        logits, sequences = output.pair_logits.float().cpu(), [rna.sequence for rna in part]
        for (offset, threshold), values in f1.items():
            how: Any = {"threshold": threshold, "min_loop": MIN_LOOP}
            for rna, one in zip(part, solve_each(logits + offset, sequences, **how), strict=True):
                found = [] if isinstance(one, str) else predict_pairs(one, min_stem=MIN_STEM)
                values.append(score_pairs(found, rna.pairs).f1)
    means = {pair: float(np.mean(values)) for pair, values in f1.items()}
    return float(np.mean(losses)), means


def _by_length(rnas: Sequence[Rna], batch: int = 8) -> Iterator[list[Rna]]:
    rnas = sorted(rnas, key=lambda rna: len(rna.sequence))
    for start in range(0, len(rnas), batch):
        yield list(rnas[start : start + batch])


def _on_device(batch: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    return {name: value.to(model.device) for name, value in batch.items()}
