"""Batches of the two kinds that a pretraining alternates: masked sequences, and structures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ernie_rna.scoring.masking import NO_LABEL, MaskingCollator
from ernie_rna.structures.contacts import allowed_pairs
from recipes.pretraining.data import Batches, Rna, permute
from recipes.pretraining.settings import Settings

Batch = dict[str, torch.Tensor]


def pair_labels(rnas: Sequence[Rna], length: int) -> torch.Tensor:
    """(batch, length, length): 1 pairs, 0 none, -100 where the two bases cannot pair."""
    allowed = allowed_pairs([rna.sequence for rna in rnas], length)
    labels = torch.full(allowed.shape, NO_LABEL, dtype=torch.int8).masked_fill_(allowed, 0)
    for row, rna in zip(labels, rnas, strict=True):
        if rna.pairs:
            first, second = torch.tensor(rna.pairs).T
            row[first, second] = row[second, first] = 1
    return labels


def structure_batch(rnas: Sequence[Rna], tokenizer: Any) -> Batch:
    """Token ids, mask and pair labels of sequences with their pairs, padded at the end."""
    sequences = [rna.sequence for rna in rnas]
    batch = dict(tokenizer(sequences, padding=True, padding_side="right", return_tensors="pt"))
    labels = pair_labels(rnas, batch["input_ids"].shape[1] - 2)
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "pair_labels": labels,
    }


class PretrainingBatches(IterableDataset):
    """The batches of a run, each drawn from the seed and its number alone.

    A run can therefore go on anywhere, and each of several processes takes its share. Workers of
    a DataLoader make every so many of them, so that it has them in order.

    Args:
        masked_lm, structure: of each kind; None where the settings have no such batches.
        settings: of the run.
        tokenizer, config: of the model.
        start: batches of each process that have been trained on.
        rank, world: this process and how many there are.
    """

    def __init__(
        self,
        masked_lm: Batches | None,
        structure: Batches | None,
        settings: Settings,
        tokenizer: Any,
        config: Any,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        self._sources = {"masked_lm": masked_lm, "structure": structure}
        self._settings, self._tokenizer = settings, tokenizer
        probability = settings.masked_lm.probability
        self._mask = MaskingCollator(tokenizer, config, "pretraining", probability)
        self.start, self._rank, self._world = start, rank, world

    def __iter__(self) -> Iterator[Batch]:
        fraction = self._settings.masked_lm.fraction
        masked = int(self.start * fraction)
        done = {"masked_lm": masked, "structure": self.start - masked}
        streams = {
            kind: source.batches(done[kind] * self._world)
            for kind, source in self._sources.items()
            if source is not None
        }
        worker = get_worker_info()
        mine_to_make, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in itertools.count(self.start):
            # Spread evenly, and of one kind on all processes, whose gradients are averaged.
            masked = int((number + 1) * fraction) > int(number * fraction)
            kind = "masked_lm" if masked else "structure"
            mine = [next(streams[kind]) for _ in range(self._world)][self._rank]
            if (number - self.start) % workers != mine_to_make:
                continue
            generator = np.random.default_rng((self._settings.seed, number, self._rank))
            make = self._masked_lm_batch if masked else self._structure_batch
            yield make(mine, generator)

    def _masked_lm_batch(self, rnas: list[Rna], generator: np.random.Generator) -> Batch:
        longest = self._settings.masked_lm.max_length
        windows = []
        for rna in rnas:
            start = generator.integers(max(1, len(rna.sequence) - longest + 1))
            windows.append(rna.sequence[start : start + longest])
        examples = [{"input_ids": ids} for ids in self._tokenizer(windows)["input_ids"]]
        with torch.random.fork_rng(devices=[]):  # What the model draws is left alone.
            torch.manual_seed(int(generator.integers(2**62)))
            batch = self._mask(examples)
        names = ("input_ids", "attention_mask", "labels", "pairing_scores")
        return {name: batch[name] for name in names}

    def _structure_batch(self, rnas: list[Rna], generator: np.random.Generator) -> Batch:
        part = self._settings.structure
        for index, rna in enumerate(rnas):
            if not rna.predicted and generator.random() < part.permuted:
                rnas[index] = permute(rna, generator.random() * part.permuted_rate, generator)
        return structure_batch(rnas, self._tokenizer)
