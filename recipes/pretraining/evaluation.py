"""Metrics of a pretraining on sequences that it does not train on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ernie_rna.scoring.masking import MaskingCollator
from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.contacts import solve_each
from ernie_rna.structures.evaluation import PairScore, score_pairs
from ernie_rna.structures.formats.dot_bracket import BasePair
from ernie_rna.structures.pairs import predict_pairs
from recipes.pretraining.batches import structure_batch
from recipes.pretraining.data import Limit, Rna, Sampler, with_pairs
from recipes.pretraining.settings import Settings

_MASK_SEED = 1
# As `ernie-rna fold` has them.
_SHORTEST_HAIRPIN = 3  # bases
_SHORTEST_STEM = 2  # pairs


class Evaluator:
    """Masked-LM loss, pair loss and F1 on a fixed sample, families drawn as in training.

    A training with structures is evaluated on RNAs with pairs, one without on all.

    Args:
        rnas: of the validation split.
        settings: of the run.
        tokenizer: of the model.
    """

    def __init__(self, rnas: Sequence[Rna], settings: Settings, tokenizer: Any):
        self._settings, self._tokenizer = settings, tokenizer
        what = "the validation data"
        if settings.masked_lm.fraction < 1:
            known = list(with_pairs(rnas, what, settings.structure.max_length))
        else:
            longest = settings.masked_lm.max_length
            known = [rna for rna in rnas if len(rna.sequence) <= longest]
            if not known:
                raise InputError(f"{what}: no sequence has at most {longest} nucleotides")
        self.sample = draw_sample(known, settings.family_power, settings.eval_sequences)

    @torch.no_grad()
    def __call__(self, model: Any) -> dict[str, float]:
        training = model.training
        model.eval()
        try:
            metrics = self._masked_lm(model) if self._settings.masked_lm.fraction else {}
            if self._settings.masked_lm.fraction < 1:
                metrics |= self._structure(model)
        finally:
            model.train(training)
        return metrics

    def _masked_lm(self, model: Any) -> dict[str, float]:
        probability = self._settings.masked_lm.probability
        mask = MaskingCollator(self._tokenizer, model.config, "pretraining", probability)
        total, count = 0.0, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_MASK_SEED)
            for rnas in _by_length(self.sample):
                ids = self._tokenizer([rna.sequence for rna in rnas])["input_ids"]
                batch = mask([{"input_ids": each} for each in ids])
                batch = {name: value.to(model.device) for name, value in batch.items()}
                drawn = int((batch["labels"] != -100).sum())
                total += float(model(**batch).loss) * drawn
                count += drawn
        return {"masked_lm_loss": total / max(1, count)}

    def _structure(self, model: Any) -> dict[str, float]:
        losses: list[float] = []
        thresholds = self._settings.eval_thresholds
        scores: dict[float, list[float]] = {threshold: [] for threshold in thresholds}
        for rnas in _by_length(self.sample):
            batch = structure_batch(rnas, self._tokenizer)
            output = model(**{name: value.to(model.device) for name, value in batch.items()})
            losses += [float(output.loss)] * len(rnas)
            logits = output.pair_logits.float().cpu()
            for threshold in thresholds:
                scored = score_structures(rnas, logits + self._settings.eval_offset, threshold)
                scores[threshold] += [score.f1 for score in scored]
        means = {threshold: float(np.mean(values)) for threshold, values in scores.items()}
        metrics = {f"f1_at_{threshold:g}": value for threshold, value in means.items()}
        return {"pair_loss": float(np.mean(losses)), "f1": max(means.values()), **metrics}


def score_structures(
    rnas: Sequence[Rna], logits: torch.Tensor, threshold: float
) -> list[PairScore]:
    """Precision, recall and F1 of each sequence's structure; logits (batch, length, length).

    Where the optimisation has no solution there is no pair, as in `ernie-rna fold`.
    """
    sequences = [rna.sequence for rna in rnas]
    solved = solve_each(logits, sequences, threshold=threshold, min_loop=_SHORTEST_HAIRPIN)
    scores = []
    for rna, contacts in zip(rnas, solved, strict=True):
        pairs: list[BasePair] = []
        if not isinstance(contacts, str):
            (pairs,) = predict_pairs(contacts[None], min_stem=_SHORTEST_STEM)
        scores.append(score_pairs(pairs, rna.pairs or ()))
    return scores


def draw_sample(rnas: Sequence[Rna], power: float, count: int) -> list[Rna]:
    """The same `count` of the RNAs each time, or all if they are fewer, without repeats of ids."""
    count = min(count, len({rna.id for rna in rnas}))
    sampler = Sampler(rnas, power, Limit(1, 1, 1), seed=0)
    chosen: dict[str, Rna] = {}
    for batch in sampler.batches():
        if len(chosen) == count:
            break
        chosen.setdefault(batch[0].id, batch[0])
    return list(chosen.values())


def _by_length(rnas: Sequence[Rna], batch: int = 8) -> Iterator[list[Rna]]:
    rnas = sorted(rnas, key=lambda rna: len(rna.sequence))
    for start in range(0, len(rnas), batch):
        yield list(rnas[start : start + batch])
