"""RNAs to pretrain on, from files, and which of them make up each batch."""

from __future__ import annotations

import csv
import gzip
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.sequences.fasta import InputError, read_fasta
from ernie_rna.structures.formats.dot_bracket import BasePair, from_dot_bracket

# Sequences that are sorted by length and cut into batches at a time.
_POOL = 2048
COLUMNS = ("id", "sequence", "dot_bracket", "family", "split")
_TABLES = (".tsv", ".parquet")


@dataclass(frozen=True)
class Rna:
    """A sequence, its base pairs counted from 0, if known, and its family.

    Pairs that were predicted from the sequence, rather than known from its relatives, are those
    of this sequence alone.
    """

    id: str
    sequence: str
    pairs: tuple[BasePair, ...] | None = None
    family: str = ""
    predicted: bool = False


# ---------------------------------------------------------------------------------------------
# Files


def is_table(path: Path) -> bool:
    """Whether a file is a table, TSV or Parquet, and not FASTA."""
    return any(path.name.endswith((kind, f"{kind}.gz")) for kind in _TABLES)


def read_ids(path: Path | None) -> frozenset[str]:
    """The ids in a text file, between blanks or line ends; none without a file."""
    return frozenset() if path is None else frozenset(path.read_text(encoding="utf-8").split())


def table_rows(path: Path, columns: Collection[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of a table, TSV (may be gzipped) or Parquet, with at least these columns.

    Raises:
        InputError: a column is missing.
        ImportError: pyarrow is not installed (Parquet).
    """
    if path.suffix == ".parquet":
        parquet = import_extra("pyarrow.parquet", "parquet", "Parquet")
        table = parquet.ParquetFile(path)
        _check_columns(path, columns, table.schema_arrow.names)
        for batch in table.iter_batches(columns=list(columns)):
            yield from batch.to_pylist()
        return
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        reader = csv.DictReader(file, delimiter="\t")
        _check_columns(path, columns, reader.fieldnames or ())
        yield from reader


def _check_columns(path: Path, columns: Collection[str], found: Collection[str]) -> None:
    missing = [column for column in columns if column not in found]
    if missing:
        raise InputError(f"{path}: has no column {', '.join(missing)}")


def iterate_table(
    path: Path, split: str, leave_out: Collection[str] = (), predicted: bool = False
) -> Iterator[Rna]:
    """The rows of a split of a table with the columns id, sequence, dot_bracket, family and split.

    Args:
        path: TSV, may be gzipped, or Parquet.
        leave_out: ids of rows to leave out.
        predicted: whether the structures were predicted from the sequences.

    Raises:
        InputError: a column is missing, a structure is none, or there is no row.
        ImportError: pyarrow is not installed (Parquet).
    """
    found = False
    for row in table_rows(path, COLUMNS):
        if row["split"] == split and row["id"] not in leave_out:
            found = True
            yield _rna(path, row, predicted)
    if not found:
        raise InputError(f"{path}: no row is of the split {split!r}")


def read_table(
    path: Path, split: str, leave_out: Collection[str] = (), predicted: bool = False
) -> list[Rna]:
    """All of `iterate_table` in memory."""
    return list(iterate_table(path, split, leave_out, predicted))


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
        raise InputError(f"{what}: no sequence has pairs{limit}")


def _rna(path: Path, row: Mapping[str, str | None], predicted: bool) -> Rna:
    name, sequence, structure, family = (row[column] or "" for column in COLUMNS[:4])
    if not sequence:
        raise InputError(f"{path}: {name}: has no sequence")
    if structure and len(structure) != len(sequence):
        raise InputError(
            f"{path}: {name}: {len(sequence)} nucleotides and a structure of {len(structure)}"
        )
    try:
        pairs = tuple(from_dot_bracket(structure))
    except ValueError as error:
        raise InputError(f"{path}: {name}: {error}") from error
    return Rna(name, sequence, pairs, family, predicted)


# ---------------------------------------------------------------------------------------------
# Batches


class Batches(Protocol):
    """An endless sequence of batches, the same each time it is begun."""

    def batches(self, start: int = 0) -> Iterator[list[Rna]]:
        """The batches from number `start` on."""


@dataclass(frozen=True)
class Limit:
    """How large a batch may be: longest ** exponent * sequences, at most `size`.

    Attributes:
        exponent: 1 for tokens, 2 for pairs of tokens.
        longest: a sequence counts as at most this many nucleotides, and <cls> and <eos>.
    """

    size: int
    exponent: int
    longest: int

    def tokens(self, rnas: Iterable[Rna]) -> np.ndarray:
        lengths = np.array([len(rna.sequence) for rna in rnas], dtype=np.int64)
        return np.minimum(lengths, self.longest) + 2

    def cut(self, tokens: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        """Batches of indices of like length, in random order, that hold all of a pool.

        Args:
            tokens: of each sequence of the pool.
        """
        order = np.argsort(tokens, kind="stable")
        batches, start = [], 0
        for stop in range(1, len(order) + 1):
            next_length = int(tokens[order[min(stop, len(order) - 1)]])
            full = (stop + 1 - start) * next_length**self.exponent > self.size
            if full or stop == len(order):
                batches.append(order[start:stop])
                start = stop
        return [batches[index] for index in generator.permutation(len(batches))]


class Sampler:
    """Batches drawn with replacement from RNAs in memory, families by their size to a power.

    Args:
        rnas: what to draw from.
        power: 0 draws all families alike, 1 each as often as its sequences.
        limit: of a batch.
        seed: of all draws.
        predicted: share of the draws that are of RNAs with predicted pairs, all alike.
    """

    def __init__(
        self, rnas: Sequence[Rna], power: float, limit: Limit, seed: int, predicted: float = 0.0
    ):
        if not rnas:
            raise InputError("there is no sequence to train on")
        self.rnas, self._limit, self._seed = rnas, limit, seed
        self._tokens = limit.tokens(rnas)
        sizes = Counter(rna.family for rna in rnas)
        weights = np.array([sizes[rna.family] ** (power - 1.0) for rna in rnas])
        is_predicted = np.array([rna.predicted for rna in rnas])
        for kind, share in ((is_predicted, predicted), (~is_predicted, 1.0 - predicted)):
            weights[kind] *= share / max(weights[kind].sum(), 1e-300)
        self._cumulative = np.cumsum(weights)

    def batches(self, start: int = 0) -> Iterator[list[Rna]]:
        """See `Batches`; to skip some costs no more than their draws."""
        for indices in itertools.islice(self._indices(), start, None):
            yield [self.rnas[index] for index in indices]

    def _indices(self) -> Iterator[np.ndarray]:
        for pool in itertools.count():
            generator = np.random.default_rng((self._seed, pool))
            drawn = np.searchsorted(self._cumulative, generator.random(_POOL))
            drawn = np.minimum(drawn, len(self.rnas) - 1)
            for batch in self._limit.cut(self._tokens[drawn], generator):
                yield drawn[batch]


Read = Callable[[], Iterator[Rna]]  # begins to read


class Stream:
    """Batches of RNAs that are read again and again in the order of their file, a pool at a time.

    Args:
        limit: of a batch.
        seed: of the order of the batches of a pool.
    """

    def __init__(self, read: Read, limit: Limit, seed: int):
        self._read, self._limit, self._seed = read, limit, seed

    def batches(self, start: int = 0) -> Iterator[list[Rna]]:
        """See `Batches`; what is skipped is read all the same."""
        return itertools.islice(self._batches(), start, None)

    def _batches(self) -> Iterator[list[Rna]]:
        endless = itertools.chain.from_iterable(self._read() for _ in itertools.count())
        for number in itertools.count():
            pool = list(itertools.islice(endless, _POOL))
            generator = np.random.default_rng((self._seed, number))
            for batch in self._limit.cut(self._limit.tokens(pool), generator):
                yield [pool[index] for index in batch]


def stream_fasta(path: Path) -> Read:
    """What `Stream` reads, from a FASTA file, compressed or not."""
    return lambda: (Rna(record.id, record.sequence) for record in read_fasta(path))


def permute(rna: Rna, rate: float, generator: np.random.Generator) -> Rna:
    """The same structure with another sequence of the same composition.

    Of the pairs, and apart from them of the unpaired bases, the share `rate` is drawn, and those
    drawn change places; a pair also turns round half of the time.

    Args:
        rna: with its pairs.
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
    return Rna(rna.id, "".join(new), rna.pairs, rna.family)
