"""RNAs to pretrain on: read from tables and FASTA files, checked, and made into batches.

All that is drawn depends on the seed and the number of the batch, so that a run can be resumed at
any batch, and the batches are the same however many processes make them.
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
# Sequences that are sorted by length and cut into batches at a time.
_POOL = 2048


@dataclass(frozen=True)
class Rna(fasta.FastaRecord):
    """A sequence, its structure and its family.

    Attributes:
        dot_bracket: empty where nothing is known.
        predicted: whether the structure was predicted from the sequence, rather than known from
            its relatives; then it is that of this sequence alone.
    """

    dot_bracket: str = ""
    family: str = ""
    predicted: bool = False

    @cached_property
    def pairs(self) -> list[BasePair]:
        """Counted from 0."""
        return from_dot_bracket(self.dot_bracket)


Read = Callable[[], Iterator[Rna]]  # begins to read
# Gives the next pool of RNAs, which may be drawn by the generator.
NextPool = Callable[[np.random.Generator], Sequence[Rna]]
Batch = dict[str, torch.Tensor]


def is_table(path: Path) -> bool:
    """Whether a file is a table and not FASTA."""
    return fasta.uncompressed(path).suffix.lower() in (".tsv", ".csv", ".parquet")


def table_rows(path: Path, columns: Collection[str]) -> Iterator[Mapping[str, str]]:
    """The rows of a table, in Parquet or as `sequences.tables` reads it.

    Raises:
        InputError: a column is missing, or the table cannot be read.
        ImportError: pyarrow is not installed (Parquet).
    """
    if path.suffix.lower() != ".parquet":
        yield from (row for _, row in read_rows(path, tuple(columns)))
        return
    table = import_extra("pyarrow.parquet", "parquet", "Parquet").ParquetFile(path)
    found = table.schema_arrow.names
    missing = [column for column in columns if column not in found]
    if missing:
        raise fasta.InputError(f"{path}: no column {', '.join(missing)}; it has {', '.join(found)}")
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
        InputError: a column is missing, there is no such row, or a row is unfit: its sequence as
            for FASTA, or its structure.
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
                raise ValueError(f"{length} nucleotides and a structure of {len(structure)}")
            rna.pairs  # noqa: B018
        except ValueError as error:
            raise fasta.InputError(f"{path}: {rna.id}: {error}") from error
        yield rna


def read_rnas(path: Path, split: str, leave_out: Collection[str] = ()) -> Iterator[Rna]:
    """As `read_table`; of a FASTA file all records, see `read_fasta`, without structures."""
    if is_table(path):
        return read_table(path, split, leave_out)
    return (Rna(one.id, one.sequence) for one in fasta.read_fasta(path) if one.id not in leave_out)


def read_ids(path: Path | None) -> frozenset[str]:
    """The ids in a text file, between blanks or line ends; none without a file."""
    return frozenset() if path is None else frozenset(path.read_text(encoding="utf-8").split())


def with_pairs(rnas: Iterable[Rna], what: str, max_length: int | None = None) -> Iterator[Rna]:
    """Those that say something of pairs: that a family has no consensus structure does not.

    Args:
        what: the RNAs, in words, for the message.
        max_length: nucleotides; longer ones are left out as well.

    Raises:
        InputError: there are none.
    """
    found = False
    for rna in rnas:
        if rna.pairs and (max_length is None or len(rna.sequence) <= max_length):
            found = True
            yield rna
    if not found:
        limit = "" if max_length is None else f" and at most {max_length} nucleotides"
        raise fasta.InputError(f"{what}: no sequence has pairs{limit}")


def permute(rna: Rna, rate: float, generator: np.random.Generator) -> Rna:
    """The same structure with another sequence of the same composition.

    Of the pairs, and apart from them of the unpaired bases, the share `rate` is drawn, and those
    drawn change places; a pair also turns round half of the time.
    """
    bases = np.array(list(rna.sequence))
    pairs = np.array(rna.pairs, dtype=np.int64).reshape(-1, 2)
    drawn = pairs[generator.random(len(pairs)) < rate]
    turned = np.where(generator.random(len(drawn))[:, None] < 0.5, drawn[:, ::-1], drawn)
    new = bases.copy()
    new[drawn] = bases[generator.permutation(turned)]
    free = np.setdiff1d(np.arange(len(bases)), pairs)
    free = free[generator.random(len(free)) < rate]
    new[free] = bases[generator.permutation(free)]
    return replace(rna, sequence="".join(new))


def cut_batches(
    next_pool: NextPool, seed: int, size: int = 1, exponent: int = 1, longest: int = 1
) -> Iterator[list[Rna]]:
    """Endless batches of like length, the same ones each time.

    Args:
        next_pool: each pool is cut into batches.
        seed: of all draws.
        size: of a batch at most, which is longest ** exponent * sequences.
        exponent: 1 for tokens, 2 for pairs of tokens.
        longest: a sequence counts as at most this many nucleotides, and <cls> and <eos>.
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
    """Pools drawn with replacement from RNAs in memory, families by their size to a power.

    Args:
        power: 0 draws all families alike, 1 each as often as its sequences.
        predicted: share of the draws that are of RNAs with predicted pairs, all alike.
    """
    sizes = Counter(rna.family for rna in rnas)
    weights = np.array([sizes[rna.family] ** (power - 1.0) for rna in rnas])
    is_predicted = np.array([rna.predicted for rna in rnas])
    for kind, share in ((is_predicted, predicted), (~is_predicted, 1.0 - predicted)):
        weights[kind] *= share / max(weights[kind].sum(), 1e-300)
    weights /= weights.sum()
    return lambda generator: [rnas[i] for i in generator.choice(len(rnas), _POOL, p=weights)]


def streamed(read: Read) -> NextPool:
    """Pools of RNAs that are read again and again, in the order of their file."""
    rnas = itertools.chain.from_iterable(iter(read, None))  # endless: reading is never None
    return lambda _: list(itertools.islice(rnas, _POOL))


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


def choose_sample(
    rnas: Iterable[Rna], settings: Settings, what: str = "the validation data"
) -> list[Rna]:
    """What a run is evaluated on: RNAs with pairs after a training with structures, else any.

    The same ones each time, families as in training.

    Raises:
        InputError: there are none of a length that is trained on.
    """
    if settings.has_structures:
        known = list(with_pairs(rnas, what, settings.pairs_max_length))
    else:
        longest = settings.masked_max_length
        known = [rna for rna in rnas if len(rna.sequence) <= longest]
        if not known:
            raise fasta.InputError(f"{what}: no sequence has at most {longest} nucleotides")
    chosen: dict[str, Rna] = {}
    count = min(settings.eval_sequences, len({rna.id for rna in known}))
    draws = cut_batches(drawn(known, settings.family_power), seed=0)  # batches of one sequence
    while len(chosen) < count:
        (rna,) = next(draws)
        chosen.setdefault(rna.id, rna)
    return list(chosen.values())


class PretrainingBatches(IterableDataset):
    """The batches of a run, of which each process makes its share.

    Workers of a DataLoader make every so many of them, so that it has them in order.

    Args:
        rnas: to train on, or what reads them again and again.
        config: of the model.
        rank, world: this process and how many there are.

    Attributes:
        start: batches of each process that have been trained on.

    Raises:
        InputError: there are none, or none with pairs, though a run has such batches.
    """

    def __init__(
        self, rnas: Sequence[Rna] | Read, settings: Settings, config: Any, rank: int, world: int
    ):
        self._rnas, self._settings, self._config = rnas, settings, config
        self._rank, self._world, self.start = rank, world, 0
        if settings.masked > 0 and next(self._fitting(True), None) is None:
            raise fasta.InputError("there is no sequence to train on")
        if settings.has_structures:
            next(self._fitting(False))

    def _fitting(self, is_masked: bool) -> Iterator[Rna]:
        """The RNAs that may be in batches of a kind."""
        rnas = self._rnas() if callable(self._rnas) else self._rnas
        if is_masked:
            return (rna for rna in rnas if not rna.predicted)
        return with_pairs(rnas, "the training data", self._settings.pairs_max_length)

    def __iter__(self) -> Iterator[Batch]:
        settings, share = self._settings, self._settings.masked
        done = int(self.start * share)
        limits = settings.masked_tokens, 1, settings.masked_max_length
        masked = self._mine(True, done, 2 * settings.seed, *limits)
        limits = settings.pairs_squared_tokens, 2, settings.pairs_max_length
        paired = self._mine(False, self.start - done, 2 * settings.seed + 1, *limits)
        worker = get_worker_info()
        first, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for number in itertools.count(self.start):
            # Spread evenly, and of one kind on all processes, whose gradients are averaged.
            is_masked = int((number + 1) * share) > int(number * share)
            rnas = next(masked if is_masked else paired)
            if (number - self.start) % workers == first:
                generator = np.random.default_rng((settings.seed, number, self._rank))
                yield (self._masked_batch if is_masked else self._pairs_batch)(rnas, generator)

    def _mine(self, is_masked: bool, done: int, *how: int) -> Iterator[list[Rna]]:
        """The batches of a kind that are this process's, without the first ones."""
        fitting, settings = partial(self._fitting, is_masked), self._settings
        if callable(self._rnas):
            next_pool = streamed(fitting)
        else:
            predicted = 0.0 if is_masked else settings.predicted
            next_pool = drawn(list(fitting()), settings.family_power, predicted)
        batches = cut_batches(next_pool, *how)
        yield from itertools.islice(batches, done * self._world + self._rank, None, self._world)

    def _masked_batch(self, rnas: Iterable[Rna], generator: np.random.Generator) -> Batch:
        longest = self._settings.masked_max_length
        windows = []
        for rna in rnas:
            start = generator.integers(max(1, len(rna.sequence) - longest + 1))
            windows.append(rna.sequence[start : start + longest])
        with torch.random.fork_rng(devices=[]):  # What the model draws is left alone.
            torch.manual_seed(int(generator.integers(2**62)))
            return masked_batch(windows, self._config, self._settings.masked_share)

    def _pairs_batch(self, rnas: list[Rna], generator: np.random.Generator) -> Batch:
        for index, rna in enumerate(rnas):
            if not rna.predicted and generator.random() < self._settings.permuted:
                rate = generator.random() * self._settings.permuted_rate
                rnas[index] = permute(rna, rate, generator)
        return structure_batch(rnas)
