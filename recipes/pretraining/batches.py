"""Which RNAs make up each batch of a pretraining, and the tensors of both kinds of batches.

Everything is drawn from the seed and the number of the batch, so that a run can be resumed at any
batch, and the batches are the same however many processes make them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.sequences.fasta import InputError
from ernie_rna.training.collators import MaskingCollator, PairCollator
from recipes.pretraining.rnas import Read, Rna, permute, with_pairs
from recipes.pretraining.settings import Settings

_TOKENIZER = ErnieRnaTokenizer()
_PAIRS = PairCollator(_TOKENIZER)
# Sequences that are sorted by length and cut into batches at a time.
_POOL = 2048

# Gives the next pool of RNAs, which may be drawn by the generator; and what starts this anew.
NextPool = Callable[[np.random.Generator], Sequence[Rna]]
Pools = Callable[[], NextPool]
Batch = dict[str, torch.Tensor]


def cut_batches(
    pools: Pools, seed: int, size: int = 1, exponent: int = 1, longest: int = 1, start: int = 0
) -> Iterator[list[Rna]]:
    """Endless batches of like length, the same ones each time.

    Args:
        pools: each pool is cut into batches.
        seed: of all draws.
        size: of a batch at most, which is longest ** exponent * sequences.
        exponent: 1 for tokens, 2 for pairs of tokens.
        longest: a sequence counts as at most this many nucleotides, and <cls> and <eos>.
        start: batches that are left out; they are drawn or read all the same.
    """

    def cut(pool: Sequence[Rna]) -> Iterator[list[int]]:
        tokens = [min(len(rna.sequence), longest) + 2 for rna in pool]
        batch: list[int] = []
        for place in sorted(range(len(pool)), key=tokens.__getitem__):
            if batch and (len(batch) + 1) * tokens[place] ** exponent > size:
                yield batch
                batch = []
            batch.append(place)
        yield batch

    next_pool, passed = pools(), 0
    for number in itertools.count():
        generator = np.random.default_rng((seed, number))
        pool = next_pool(generator)
        batches = list(cut(pool))
        for index in generator.permutation(len(batches)):
            passed += 1
            if passed > start:
                yield [pool[place] for place in batches[index]]


def drawn(rnas: Sequence[Rna], power: float, predicted: float = 0.0) -> Pools:
    """Pools drawn with replacement from RNAs in memory, families by their size to a power.

    Args:
        power: 0 draws all families alike, 1 each as often as its sequences.
        predicted: share of the draws that are of RNAs with predicted pairs, all alike.
    """
    if not rnas:
        raise InputError("there is no sequence to train on")
    sizes = Counter(rna.family for rna in rnas)
    weights = np.array([sizes[rna.family] ** (power - 1.0) for rna in rnas])
    is_predicted = np.array([rna.predicted for rna in rnas])
    for kind, share in ((is_predicted, predicted), (~is_predicted, 1.0 - predicted)):
        weights[kind] *= share / max(weights[kind].sum(), 1e-300)
    cumulative = np.cumsum(weights)

    def next_pool(generator: np.random.Generator) -> list[Rna]:
        places = np.searchsorted(cumulative, generator.random(_POOL))
        return [rnas[place] for place in np.minimum(places, len(rnas) - 1)]

    return lambda: next_pool


def streamed(read: Read) -> Pools:
    """Pools of RNAs that are read again and again, in the order of their file."""

    def endless() -> Iterator[Rna]:
        while True:
            rna = None
            for rna in read():
                yield rna
            if rna is None:
                raise InputError("there is no sequence to train on")

    def start() -> NextPool:
        rnas = endless()
        return lambda _: list(itertools.islice(rnas, _POOL))

    return start


def structure_batch(rnas: Sequence[Rna]) -> Batch:
    """Token ids, mask and pair labels of sequences with their structures, padded at the end."""
    batch = _PAIRS([{**_TOKENIZER(one.sequence), "labels": one.dot_bracket} for one in rnas])
    labels = batch.pop("labels")
    return {**batch, "pair_labels": labels}


def masked_batch(sequences: Iterable[str], config: Any, share: float) -> Batch:
    """Masked token ids, mask, labels and pairing scores of sequences, as in the paper.

    Args:
        config: of the model.
        share: of the nucleotides that are to be predicted.
    """
    mask = MaskingCollator(_TOKENIZER, config, "pretraining", share)
    return mask([{"input_ids": _TOKENIZER(one)["input_ids"]} for one in sequences])


@contextlib.contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Have torch draw from a seed, and then go on as if it had not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class PretrainingBatches(IterableDataset):
    """The batches of a run, of which each process makes its share.

    Workers of a DataLoader make every so many of them, so that it has them in order.

    Args:
        rnas: to train on, or what reads them again and again.
        settings: of the run.
        config: of the model.
        rank, world: this process and how many there are.
        start: batches of each process that have been trained on.

    Raises:
        InputError: there are no RNAs, or none with pairs, though a run has such batches.
    """

    def __init__(
        self,
        rnas: Sequence[Rna] | Read,
        settings: Settings,
        config: Any,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
    ):
        self._settings, self._config = settings, config
        self._rank, self._world, self.start = rank, world, start
        self._masked: Any = None
        self._pairs: Any = None
        known = partial(with_pairs, what="the training data", max_length=settings.pairs_max_length)
        if settings.masked > 0:
            if callable(rnas):
                pools = streamed(rnas)
            else:
                pools = drawn([one for one in rnas if not one.predicted], settings.family_power)
            limits = settings.masked_tokens, 1, settings.masked_max_length
            self._masked = partial(cut_batches, pools, 2 * settings.seed, *limits)
        if settings.has_structures:
            if callable(rnas):
                read = rnas
                pools = streamed(lambda: known(read()))
            else:
                pools = drawn(list(known(rnas)), settings.family_power, settings.predicted)
            limits = settings.pairs_squared_tokens, 2, settings.pairs_max_length
            self._pairs = partial(cut_batches, pools, 2 * settings.seed + 1, *limits)

    def __iter__(self) -> Iterator[Batch]:
        share = self._settings.masked
        done = int(self.start * share)
        masked = self._masked and self._masked(start=done * self._world)
        pairs = self._pairs and self._pairs(start=(self.start - done) * self._world)
        worker = get_worker_info()
        first, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in itertools.count(self.start):
            # Spread evenly, and of one kind on all processes, whose gradients are averaged.
            is_masked = int((number + 1) * share) > int(number * share)
            mine = [next(masked if is_masked else pairs) for _ in range(self._world)][self._rank]
            if (number - self.start) % workers == first:
                generator = np.random.default_rng((self._settings.seed, number, self._rank))
                yield (self._masked_batch if is_masked else self._pairs_batch)(mine, generator)

    def _masked_batch(self, rnas: Iterable[Rna], generator: np.random.Generator) -> Batch:
        longest = self._settings.masked_max_length
        windows = []
        for rna in rnas:
            start = generator.integers(max(1, len(rna.sequence) - longest + 1))
            windows.append(rna.sequence[start : start + longest])
        with drawing(int(generator.integers(2**62))):
            return masked_batch(windows, self._config, self._settings.masked_share)

    def _pairs_batch(self, rnas: list[Rna], generator: np.random.Generator) -> Batch:
        for index, rna in enumerate(rnas):
            if not rna.predicted and generator.random() < self._settings.permuted:
                rate = generator.random() * self._settings.permuted_rate
                rnas[index] = permute(rna, rate, generator)
        return structure_batch(rnas)
