"""RNAs for pretraining: read from tables and FASTA files, checked, and grouped into batches.

All random draws depend only on the seed and the number of the batch. A run can therefore be resumed
at any batch, and the batches do not depend on the number of processes that make them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ernie_rna.extras import import_extra
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.sequences import fasta
from ernie_rna.sequences.tables import read_rows
from ernie_rna.structures.formats.dot_bracket import BasePair, from_dot_bracket
from ernie_rna.training.collators import MaskingCollator, PairCollator
from recipes.pretraining.settings import Settings

COLUMNS = ("id", "sequence", "dot_bracket", "family", "split")
_TOKENIZER = ErnieRnaTokenizer()
_PAIRS = PairCollator(_TOKENIZER)
# Number of sequences that are sorted by length and cut into batches together.
_POOL = 2048


@dataclass(frozen=True)
class Rna(fasta.FastaRecord):
    """A sequence, its structure and its family.

    Attributes:
        dot_bracket: empty if the structure is unknown.
        predicted: whether the structure was predicted from this sequence, and so is valid for it
            alone, instead of being the known structure of its family.
    """

    dot_bracket: str = ""
    family: str = ""
    predicted: bool = False

    @cached_property
    def pairs(self) -> list[BasePair]:
        """Counted from 0."""
        return from_dot_bracket(self.dot_bracket)


Read = Callable[[], Iterator[Rna]]  # starts reading from the beginning
# Returns the next pool of RNAs, which it may draw with the generator.
NextPool = Callable[[np.random.Generator], Sequence[Rna]]
Batch = dict[str, torch.Tensor]


def is_table(path: Path) -> bool:
    """Whether a file is a table; otherwise it is FASTA."""
    return fasta.uncompressed(path).suffix.lower() in (".tsv", ".csv", ".parquet")


def table_rows(path: Path, columns: Collection[str]) -> Iterator[Mapping[str, str]]:
    """The rows of a table, in Parquet or in a format that `sequences.tables` reads.

    Raises:
        InputError: a column is missing, or the table cannot be read.
        ImportError: pyarrow is not installed (Parquet).
    """
    if path.suffix.lower() != ".parquet":
        yield from (row for _, row in read_rows(path, tuple(columns)))
        return
    table = import_extra("pyarrow.parquet", "parquet", "Parquet").ParquetFile(path)
    names = table.schema_arrow.names
    missing = [column for column in columns if column not in names]
    if missing:
        raise fasta.InputError(f"{path}: no column {', '.join(missing)}; it has {', '.join(names)}")
    for batch in table.iter_batches(columns=list(columns)):
        for row in batch.to_pylist():
            yield {name: "" if cell is None else str(cell) for name, cell in row.items()}


def read_table(
    path: Path, split: str, leave_out: Collection[str] = (), predicted: bool = False
) -> Iterator[Rna]:
    """The rows of a split of a table with the columns id, sequence, dot_bracket, family and split.

    Args:
        leave_out: ids of rows to leave out.
        predicted: whether the structures were predicted from the sequences.

    Raises:
        InputError: a column is missing, there is no such row, or a row is invalid: its sequence, by
            the rules for FASTA, or its structure.
        ImportError: pyarrow is not installed (Parquet).
    """
    rnas = (
        Rna(row["id"], row["sequence"], "", row["dot_bracket"], row["family"], predicted)
        for row in table_rows(path, COLUMNS)
        if row["split"] == split and row["id"] not in leave_out
    )
    for rna in fasta.check_records(rnas, f"{path}, split {split!r}"):
        assert isinstance(rna, Rna)
        structure, length = rna.dot_bracket, len(rna.sequence)
        try:
            if structure and len(structure) != length:
                raise ValueError(f"{length} nucleotides, but a structure of {len(structure)}")
            rna.pairs  # noqa: B018
        except ValueError as error:
            raise fasta.InputError(f"{path}: {rna.id}: {error}") from error
        yield rna


def read_rnas(path: Path, split: str, leave_out: Collection[str] = ()) -> Iterator[Rna]:
    """The rows of a table, see `read_table`, or all records of a FASTA file, without structures."""
    if is_table(path):
        return read_table(path, split, leave_out)
    return (Rna(rna.id, rna.sequence) for rna in fasta.read_fasta(path) if rna.id not in leave_out)


def read_ids(path: Path | None) -> frozenset[str]:
    """The ids in a text file, separated by blanks or line ends; empty without a file."""
    return frozenset() if path is None else frozenset(path.read_text(encoding="utf-8").split())


def with_pairs(rnas: Iterable[Rna], what: str, max_length: int | None = None) -> Iterator[Rna]:
    """The RNAs with known pairs. An RNA without any may pair; its family only lacks a consensus.

    Args:
        what: a name of the RNAs for the message.
        max_length: nucleotides; longer RNAs are left out as well.

    Raises:
        InputError: there are none.
    """
    any_left = False
    for rna in rnas:
        if rna.pairs and (max_length is None or len(rna.sequence) <= max_length):
            any_left = True
            yield rna
    if not any_left:
        limit = "" if max_length is None else f" and at most {max_length} nucleotides"
        raise fasta.InputError(f"{what}: no sequence has pairs{limit}")


def permute(rna: Rna, rate: float, generator: np.random.Generator) -> Rna:
    """The same structure with a new sequence of the same composition.

    A share `rate` of the pairs is permuted among itself, and each of them is reversed with a
    probability of one half. Independently, a share `rate` of the unpaired bases is permuted.
    """
    bases = np.array(list(rna.sequence))
    pairs = np.array(rna.pairs, dtype=np.int64).reshape(-1, 2)
    chosen = pairs[generator.random(len(pairs)) < rate]
    turned = np.where(generator.random(len(chosen))[:, None] < 0.5, chosen[:, ::-1], chosen)
    new = bases.copy()
    new[chosen] = bases[generator.permutation(turned)]
    unpaired = np.setdiff1d(np.arange(len(bases)), pairs)
    unpaired = unpaired[generator.random(len(unpaired)) < rate]
    new[unpaired] = bases[generator.permutation(unpaired)]
    return replace(rna, sequence="".join(new))


def cut_batches(
    next_pool: NextPool, seed: int, size: int = 1, exponent: int = 1, longest: int = 1
) -> Iterator[list[Rna]]:
    """Endless batches of sequences of similar length; equal arguments yield equal batches.

    Args:
        next_pool: returns the pools that are cut into batches.
        seed: of all draws.
        size: the largest size of a batch: sequences * (tokens of the longest) ** exponent.
        exponent: 1 for tokens, 2 for pairs of tokens.
        longest: a sequence counts as at most this many nucleotides, plus <cls> and <eos>.
    """

    def tokens(rna: Rna) -> int:
        return min(len(rna.sequence), longest) + 2

    for number in itertools.count():
        generator = np.random.default_rng((seed, number))
        batches: list[list[Rna]] = [[]]
        for rna in sorted(next_pool(generator), key=tokens):
            if batches[-1] and (len(batches[-1]) + 1) * tokens(rna) ** exponent > size:
                batches.append([])
            batches[-1].append(rna)
        for index in generator.permutation(len(batches)):
            yield batches[index]


def drawn(rnas: Sequence[Rna], power: float, predicted: float = 0.0) -> NextPool:
    """Pools drawn with replacement from RNAs in memory; a family's weight is its size ** power.

    Args:
        power: 0 gives all families the same weight, 1 all sequences.
        predicted: the share of draws from RNAs with predicted pairs, which are drawn uniformly.
    """
    sizes = Counter(rna.family for rna in rnas)
    weights = np.array([sizes[rna.family] ** (power - 1.0) for rna in rnas])
    is_predicted = np.array([rna.predicted for rna in rnas])
    for kind, share in ((is_predicted, predicted), (~is_predicted, 1.0 - predicted)):
        weights[kind] *= share / max(weights[kind].sum(), 1e-300)
    weights /= weights.sum()
    return lambda generator: [rnas[i] for i in generator.choice(len(rnas), _POOL, p=weights)]


def streamed(read: Read) -> NextPool:
    """Pools of RNAs that are read repeatedly, in the order of their file."""
    rnas = itertools.chain.from_iterable(iter(read, None))  # endless: `read` never returns None
    return lambda _: list(itertools.islice(rnas, _POOL))


def structure_batch(rnas: Sequence[Rna]) -> Batch:
    """Token ids, mask and pair labels of sequences with their structures, padded at the end."""
    batch = _PAIRS([{**_TOKENIZER(rna.sequence), "labels": rna.dot_bracket} for rna in rnas])
    labels = batch.pop("labels")
    return {**batch, "pair_labels": labels}


def masked_batch(sequences: Iterable[str], config: Any, share: float) -> Batch:
    """Masked token ids, mask, labels and pairing scores of sequences, as in the paper.

    Args:
        config: of the model.
        share: the share of the nucleotides to predict.
    """
    mask = MaskingCollator(_TOKENIZER, config, "pretraining", share)
    return mask([{"input_ids": _TOKENIZER(sequence)["input_ids"]} for sequence in sequences])


def choose_sample(
    rnas: Iterable[Rna], settings: Settings, what: str = "the validation data"
) -> list[Rna]:
    """The RNAs that evaluate a run: with pairs if it trains on structures, otherwise any.

    The sample is always the same for the same RNAs; families are weighted as in training.

    Raises:
        InputError: there are none of a length that is trained on.
    """
    if settings.has_structures:
        candidates = list(with_pairs(rnas, what, settings.pairs_max_length))
    else:
        longest = settings.masked_max_length
        candidates = [rna for rna in rnas if len(rna.sequence) <= longest]
        if not candidates:
            raise fasta.InputError(f"{what}: no sequence has at most {longest} nucleotides")
    chosen: dict[str, Rna] = {}
    count = min(settings.eval_sequences, len({rna.id for rna in candidates}))
    draws = cut_batches(drawn(candidates, settings.family_power), seed=0)  # batches of one sequence
    while len(chosen) < count:
        (rna,) = next(draws)
        chosen.setdefault(rna.id, rna)
    return list(chosen.values())


class PretrainingBatches(IterableDataset):
    """The batches of a run; each process makes its own share.

    Of N workers of a DataLoader each makes every Nth batch, so that the batches stay in order.

    Args:
        rnas: the RNAs to train on, or a function that starts reading them.
        config: of the model.
        rank, world: index of this process, and number of processes.

    Attributes:
        start: number of batches that each process has already trained on.

    Raises:
        InputError: there are no RNAs for masked batches, or none with pairs for structures.
    """

    def __init__(
        self, rnas: Sequence[Rna] | Read, settings: Settings, config: Any, rank: int, world: int
    ):
        self._rnas, self._settings, self._config = rnas, settings, config
        self._rank, self._world, self.start = rank, world, 0
        if settings.masked > 0 and next(self._suitable(True), None) is None:
            raise fasta.InputError("there is no sequence to train on")
        if settings.has_structures:
            next(self._suitable(False))

    def _suitable(self, is_masked: bool) -> Iterator[Rna]:
        """The RNAs for masked batches, or for batches with structures."""
        rnas = self._rnas() if callable(self._rnas) else self._rnas
        if is_masked:
            return (rna for rna in rnas if not rna.predicted)
        return with_pairs(rnas, "the training data", self._settings.pairs_max_length)

    def __iter__(self) -> Iterator[Batch]:
        settings, share = self._settings, self._settings.masked
        masked_done = int(self.start * share)
        limits = settings.masked_tokens, 1, settings.masked_max_length
        masked = self._own_batches(True, masked_done, 2 * settings.seed, *limits)
        limits = settings.pairs_squared_tokens, 2, settings.pairs_max_length
        paired = self._own_batches(False, self.start - masked_done, 2 * settings.seed + 1, *limits)
        worker = get_worker_info()
        first, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in itertools.count(self.start):
            # Kinds alternate evenly, the same on all processes, whose gradients are averaged.
            is_masked = int((number + 1) * share) > int(number * share)
            rnas = next(masked if is_masked else paired)
            if (number - self.start) % workers == first:
                generator = np.random.default_rng((settings.seed, number, self._rank))
                yield (self._masked_batch if is_masked else self._pairs_batch)(rnas, generator)

    def _own_batches(self, is_masked: bool, done: int, *limits: int) -> Iterator[list[Rna]]:
        """This process's batches of a kind after the first `done`; limits as for `cut_batches`."""
        read, settings = partial(self._suitable, is_masked), self._settings
        if callable(self._rnas):
            next_pool = streamed(read)
        else:
            predicted = 0.0 if is_masked else settings.predicted
            next_pool = drawn(list(read()), settings.family_power, predicted)
        batches = cut_batches(next_pool, *limits)
        yield from itertools.islice(batches, done * self._world + self._rank, None, self._world)

    def _masked_batch(self, rnas: Iterable[Rna], generator: np.random.Generator) -> Batch:
        longest = self._settings.masked_max_length
        windows = []
        for rna in rnas:
            start = generator.integers(max(1, len(rna.sequence) - longest + 1))
            windows.append(rna.sequence[start : start + longest])
        with torch.random.fork_rng(devices=[]):  # The model's own random state must not change.
            torch.manual_seed(int(generator.integers(2**62)))
            return masked_batch(windows, self._config, self._settings.masked_share)

    def _pairs_batch(self, rnas: list[Rna], generator: np.random.Generator) -> Batch:
        for index, rna in enumerate(rnas):
            if not rna.predicted and generator.random() < self._settings.permuted:
                rate = generator.random() * self._settings.permuted_rate
                rnas[index] = permute(rna, rate, generator)
        return structure_batch(rnas)
