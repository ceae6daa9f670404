"""Which sequences the model computes together, and what that costs.

The input is cut into chunks of consecutive records. In a chunk, the pieces of its sequences are
sorted by length and grouped into batches. Chunks and batches depend only on input and settings, not
on where a run was interrupted or how many processes share it, so results are the same numbers.

A piece is what the model sees of a sequence at once: all of it, or a window of a sequence that is
longer than the model's limit. Windows overlap, all are as long as the limit, and they are evenly
spaced. Their results are combined into one for the sequence:

- token: each nucleotide is taken from the window in which it is farthest from an edge that is
  not an end of the sequence itself: windows are cut in the middle of their overlap.
- mean: over the nucleotides as taken for token, so the mean of the token vectors.
- cls: the mean of the windows' `<cls>` vectors, each weighted by the nucleotides taken from it.

Positions are nucleotides counted from 0, without special tokens. Lengths in tokens include `<cls>`
and `<eos>`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ernie_rna.options import OptionError
from ernie_rna.sequences.fasta import FastaRecord

if TYPE_CHECKING:
    import torch

# On a CPU a larger batch would not fit into the caches; a GPU needs one to be kept busy.
_CPU_BATCH_TOKENS = 2048
_GPU_BATCH_TOKENS = 16384

# A chunk ends at this many records, or at the tokens of this many batches. A killed process loses
# at most one chunk: 32,768 tokens take 40 s on two CPU cores. Smaller chunks would leave batches
# emptier: with real RNAs of up to 1022 nt a batch of 2048 tokens gets 1060 on average, which costs
# nothing on a CPU, and 3.0 % of padding (one of 16,384 tokens gets 7060 and 4.6 %).
CHUNK_RECORDS = 4096
CHUNK_BATCHES = 16

# A batch takes no further sequence if more than this fraction of it would be padding.
_MAX_PADDING = 0.05
# Length in tokens from which the attention scores, heads * length² values, dominate the memory.
SCORES_FROM = 1024
# Length in tokens from which a pair head's channels * length² values do.
MAPS_FROM = 256
# Tokens of a chunk whose results are maps, which stay in memory: 270 MB for RNAs of 1022 nt.
TOKENS_OF_MAPS = 1 << 16


@dataclass(frozen=True, slots=True)
class Piece:
    """What the model sees of a sequence at once.

    Attributes:
        record: index of the sequence in the chunk.
        start, stop: the nucleotides that the model sees.
        own_start, own_stop: those whose results are kept. The pieces of a sequence keep each
            nucleotide at most once, in order.
    """

    record: int
    start: int
    stop: int
    own_start: int
    own_stop: int

    @property
    def tokens(self) -> int:
        """Length in tokens, with `<cls>` and `<eos>`."""
        return self.stop - self.start + 2

    @property
    def owned(self) -> int:
        """Nucleotides whose results are kept."""
        return self.own_stop - self.own_start


@dataclass(frozen=True)
class Chunk:
    """Consecutive records, and the batches in which they are computed.

    Attributes:
        number: counted from 0.
        records: in input order.
        pieces: in input order.
        batches: indices into `pieces`, each exactly once. The longest pieces come first, so that
            memory runs out at the beginning or not at all.
    """

    number: int
    records: list[FastaRecord]
    pieces: list[Piece]
    batches: list[list[int]]

    def batch(self, number: int) -> list[Piece]:
        """The pieces of a batch."""
        return [self.pieces[index] for index in self.batches[number]]

    def share(self, pieces: Iterable[Piece]) -> float:
        """The number of sequences in these pieces, as fractions of the nucleotides they keep."""
        return sum(piece.owned / len(self.records[piece.record].sequence) for piece in pieces)


def whole(record: int, sequence: str) -> list[Piece]:
    """Return a sequence as one piece."""
    return [Piece(record, 0, len(sequence), 0, len(sequence))]


@dataclass(frozen=True)
class Plan:
    """The settings that determine chunks and batches.

    Attributes:
        batch_tokens: most tokens in a batch, with padding; a longer sequence has its own batch.
        cost: as for `work`.
        split: takes the index of a sequence and its letters, and returns its pieces.
        chunk_tokens: tokens after which a chunk ends, if `CHUNK_BATCHES` batches are not fewer.
        squared_from: as for `plan_batches`.
        divides: whether the pieces of a sequence may be in several chunks.
    """

    batch_tokens: int
    cost: float
    split: Callable[[int, str], list[Piece]] = whole
    chunk_tokens: int | None = None
    squared_from: int = SCORES_FROM
    divides: bool = False

    @property
    def limit(self) -> int:
        """Tokens after which a chunk ends."""
        tokens = self.batch_tokens * CHUNK_BATCHES
        return min(tokens, self.chunk_tokens or tokens)

    def chunks(self, records: Iterable[FastaRecord]) -> Iterator[Chunk]:
        """Cut records into chunks, in input order."""
        chunk_records: list[FastaRecord] = []
        pieces: list[Piece] = []
        number = tokens = 0
        for record in records:
            for group in self._groups(record.sequence):
                size = sum(piece.tokens for piece in group) or len(record.sequence)
                is_full = len(chunk_records) >= CHUNK_RECORDS or tokens + size > self.limit
                if chunk_records and is_full:
                    yield self._chunk(number, chunk_records, pieces)
                    number, tokens, chunk_records, pieces = number + 1, 0, [], []
                pieces += [replace(piece, record=len(chunk_records)) for piece in group]
                chunk_records.append(record)
                tokens += size
        if chunk_records:
            yield self._chunk(number, chunk_records, pieces)

    def _groups(self, sequence: str) -> list[list[Piece]]:
        """The pieces of a sequence, in groups that a chunk can hold if they may be divided."""
        pieces = self.split(0, sequence)
        if not self.divides or not pieces:
            return [pieces]
        most = max(1, self.limit // max(piece.tokens for piece in pieces))
        return [pieces[first : first + most] for first in range(0, len(pieces), most)]

    def _chunk(self, number: int, records: list[FastaRecord], pieces: list[Piece]) -> Chunk:
        tokens = [piece.tokens for piece in pieces]
        batches = plan_batches(tokens, self.batch_tokens, self.squared_from)
        return Chunk(number, records, pieces, batches)

    def work(self, pieces: Iterable[Piece]) -> float:
        """The cost of pieces together, see `work`."""
        return sum(work(piece.tokens, self.cost) for piece in pieces)


def resolve_batch_tokens(batch_tokens: int | None, device: torch.device) -> int:
    """Tokens in a batch, with padding; None takes what suits the device."""
    if batch_tokens is None:
        return _CPU_BATCH_TOKENS if device.type == "cpu" else _GPU_BATCH_TOKENS
    return batch_tokens


def plan_batches(
    lengths: Sequence[int], batch_tokens: int, squared_from: int = SCORES_FROM
) -> list[list[int]]:
    """Group sequences of similar length into batches, the longest first.

    Args:
        lengths: tokens of each sequence.
        batch_tokens: most tokens in a batch, with padding.
        squared_from: in a longer sequence each token counts length / squared_from times, because
            its memory grows with length².

    Returns:
        Indices into `lengths`, each once. At most 5 % of each batch is padding.

    >>> plan_batches([20, 100, 21, 98, 20], 64)
    [[1], [3], [2, 0, 4]]
    """
    batches: list[list[int]] = []
    longest = real = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[index]
        size = longest * (len(batches[-1]) + 1) if batches else 0
        too_much = size * max(1.0, longest / squared_from) > batch_tokens
        if not batches or too_much or size - real - length > _MAX_PADDING * size:
            batches.append([])
            longest, real = length, 0
        batches[-1].append(index)
        real += length
    return batches


def count_padding(lengths: Sequence[int], batches: Iterable[Sequence[int]]) -> tuple[int, int]:
    """Return how many tokens the batches have in all, and how many of them are padding."""
    total = real = 0
    for batch in batches:
        total += len(batch) * max(lengths[index] for index in batch)
        real += sum(lengths[index] for index in batch)
    return total, total - real


def work(tokens: int, cost: float) -> float:
    """The cost of a sequence, in units of one token of a short sequence.

    In a layer, projections and feed-forward take 24 hidden² operations for each token, and the two
    attention products 4 tokens * hidden: a ratio of tokens / (6 hidden). Writing and reading the
    scores adds about half as much again (measured on a CPU with hidden 768: a token among 1024
    costs 1.3 times as much as one among 24).

    Args:
        cost: the hidden width of an encoder; for one with a pair head, `pair_head_cost`.
    """
    return tokens * (1 + tokens / (4 * cost))


def pair_head_cost(config: Any) -> float:
    """The `cost` of an encoder with a pair head.

    It compares multiplications: the encoder's for each token, the head's for each entry of a map.
    """
    hidden, channels = config.hidden_size, config.pair_channels
    layer = 4 * hidden**2 + 2 * hidden * config.intermediate_size
    block = 2 * 9 * channels**2
    entry = config.pair_blocks * block + 49 * 8 * channels + 9 * channels
    scores = 1 / (4 * hidden)
    return 1 / (4 * (scores + entry / (config.num_hidden_layers * layer)))


# ---------------------------------------------------------------------------------------------
# Windows


def nucleotide_limit(config: Any) -> int:
    """Nucleotides of the longest training sequences: the tokens without <cls> and <eos>."""
    return int(config.max_position_embeddings) - 2


def windows(record: int, length: int, limit: int, overlap: int) -> list[Piece]:
    """Return the pieces of a sequence: one, unless it is longer than the limit.

    Args:
        record: index of the sequence, for its pieces.
        length: nucleotides in it.
        limit: most nucleotides in a window.
        overlap: fewest nucleotides that neighbouring windows share; below `limit`.

    >>> [(p.start, p.stop, p.own_start, p.own_stop) for p in windows(0, 20, 10, 4)]
    [(0, 10, 0, 8), (5, 15, 8, 13), (10, 20, 13, 20)]
    """
    if length <= limit:
        return [Piece(record, 0, length, 0, length)]
    steps = -((limit - length) // (limit - overlap))  # rounded up
    starts = [round(step * (length - limit) / steps) for step in range(steps + 1)]
    cuts = [(left + limit + right + 1) // 2 for left, right in pairwise(starts)]
    return [
        Piece(record, start, start + limit, *kept)
        for start, kept in zip(starts, pairwise([0, *cuts, length]), strict=True)
    ]


def check_overlap(overlap: int, limit: int) -> None:
    """Raise OptionError unless windows of `limit` nucleotides can overlap by so many."""
    if overlap >= limit:
        raise OptionError("overlap", f"must be below {limit}, the model's limit; got {overlap}")
