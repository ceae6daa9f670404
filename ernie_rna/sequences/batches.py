"""Which sequences go through the model together, and what that costs.

The input is cut into windows of consecutive records; inside a window the pieces (see `long`) are
sorted by length and grouped into batches. Windows and batches depend on the input and settings
alone, never on where a run was interrupted or how many processes share the work, so that the
same numbers come out.

Lengths are in tokens, `<cls>` and `<eos>` counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch

from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.sequences.long import Piece, split

# On a CPU a larger batch only falls out of the caches; a GPU wants to be kept busy.
_CPU_BATCH_TOKENS = 2048
_GPU_BATCH_TOKENS = 16384

# A window ends at this many records, or at this many batches' worth of tokens. What a kill costs
# is at most a window: 32,768 tokens are 40 s of two CPU cores. Smaller ones leave batches emptier:
# of real RNAs of up to 1022 nt a batch of 2048 gets 1060 tokens on average, which costs nothing
# on a CPU, and 3.0 % of padding (one of 16,384 gets 7060 and 4.6 %).
WINDOW_RECORDS = 4096
WINDOW_BATCHES = 16

# A batch takes no further sequence once more than this share of it would be padding.
_MAX_PADDING = 0.05
# Beyond this length the scores, heads * length² a sequence, outgrow everything else in memory.
SCORES_FROM = 1024
# Of a pair head, channels * length² values do so.
MAPS_FROM = 256


@dataclass(frozen=True)
class Window:
    """Consecutive records, and the batches they are computed in.

    Attributes:
        number: counted from 0.
        records: in input order.
        pieces: in input order; `Piece.record` counts from 0 in this window.
        batches: indices into `pieces`, each exactly once; the longest pieces come first, so that
            memory runs out at the beginning or never.
    """

    number: int
    records: list[FastaRecord]
    pieces: list[Piece]
    batches: list[list[int]]

    @property
    def ids(self) -> list[str]:
        return [record.id for record in self.records]

    @property
    def lengths(self) -> list[int]:
        """Nucleotides in each record."""
        return [len(record.sequence) for record in self.records]


@dataclass(frozen=True)
class Plan:
    """The settings that windows and batches follow from.

    Attributes:
        batch_tokens: tokens in a batch, padding included; a longer sequence is alone.
        limit: nucleotides that the model takes at once.
        long, overlap: as for `long.split`.
        window_tokens: tokens after which a window ends; None is `WINDOW_BATCHES` batches.
        squared_from: as for `plan_batches`.
    """

    batch_tokens: int
    limit: int
    long: str = "error"
    overlap: int = 256
    window_tokens: int | None = None
    squared_from: int = SCORES_FROM

    def windows(self, records: Iterable[FastaRecord]) -> Iterator[Window]:
        """Cut records into windows, in input order.

        Raises:
            ValueError: a record is too long and `long` is "error", see `sources.Intake`.
        """
        end = self.window_tokens or self.batch_tokens * WINDOW_BATCHES
        taken: list[FastaRecord] = []
        number = tokens = 0
        for record in records:
            more = len(record.sequence) + 2
            if taken and (len(taken) >= WINDOW_RECORDS or tokens + more > end):
                yield self._window(number, taken)
                number, tokens, taken = number + 1, 0, []
            taken.append(record)
            tokens += more
        if taken:
            yield self._window(number, taken)

    def _window(self, number: int, records: list[FastaRecord]) -> Window:
        pieces: list[Piece] = []
        for index, record in enumerate(records):
            pieces += self.split(index, len(record.sequence))
        tokens = [piece.tokens for piece in pieces]
        batches = plan_batches(tokens, self.batch_tokens, self.squared_from)
        return Window(number, records, pieces, batches)

    def split(self, record: int, length: int) -> list[Piece]:
        """The pieces of a record, by its place and its length in nucleotides."""
        return split(record, length, self.limit, self.long, self.overlap)

    def cost(self, length: int, hidden: float) -> float:
        """The `work` of a record of so many nucleotides."""
        return sum(work(piece.tokens, hidden) for piece in self.split(0, length))


def resolve_batch_tokens(batch_tokens: int | None, device: torch.device) -> int:
    """Tokens in a batch, padding included; None takes what suits the device.

    Raises:
        ValueError: the number is not whole, or below 1.
    """
    if batch_tokens is None:
        return _CPU_BATCH_TOKENS if device.type == "cpu" else _GPU_BATCH_TOKENS
    if not isinstance(batch_tokens, Integral) or int(batch_tokens) < 1:
        raise ValueError(f"batch_tokens must be a whole number of at least 1; got {batch_tokens!r}")
    return batch_tokens


def plan_batches(
    lengths: Sequence[int], batch_tokens: int, squared_from: int = SCORES_FROM
) -> list[list[int]]:
    """Group sequences of like length, the longest first.

    Args:
        lengths: tokens of each sequence.
        batch_tokens: most tokens in a batch, padding included.
        squared_from: in sequences over so many tokens each token counts length / squared_from
            times, for the sake of memory that goes with length².

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
    """How many tokens the batches have in all, and how many of them are padding."""
    total = real = 0
    for batch in batches:
        total += len(batch) * max(lengths[index] for index in batch)
        real += sum(lengths[index] for index in batch)
    return total, total - real


def work(tokens: int, hidden: float) -> float:
    """What a sequence costs, in units of one token among few.

    A layer's projections and feed-forward take 24 hidden² operations a token, its two products
    with the scores 4 tokens * hidden: a ratio of tokens / (6 hidden). Writing and reading the
    scores adds about half as much again (measured on a CPU: 1024 tokens cost 1.3 times as much
    each as 24 do, with hidden 768).
    """
    return tokens * (1 + tokens / (4 * hidden))
