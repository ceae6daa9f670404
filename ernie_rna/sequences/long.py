"""Sequences longer than the model's limit: refused, taken in windows, or computed whole.

A window sees only its own nucleotides. Windows overlap, all are as long as the limit, and they
lie evenly. How their results become one sequence's:

- token: each nucleotide is taken from the window in which it is farthest from an edge that is
  not an end of the sequence itself: windows are cut in the middle of what they share.
- mean: over the nucleotides as taken for token, so the mean of the token vectors.
- cls: the mean of the windows' `<cls>` vectors, each weighted by the nucleotides taken from it.

Positions are nucleotides counted from 0; special tokens do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

LONG = ("error", "window", "full")


def nucleotide_limit(config: Any) -> int:
    """Nucleotides that a model was trained to take at once: its tokens without <cls> and <eos>."""
    limit: int = config.max_position_embeddings - 2
    return limit


@dataclass(frozen=True, slots=True)
class Piece:
    """What the model sees of a sequence at once.

    Attributes:
        record: the sequence, by its place among those at hand.
        start, stop: what is computed.
        own_start, own_stop: what of that is kept; the pieces of a sequence keep each nucleotide
            once, in order.
    """

    record: int
    start: int
    stop: int
    own_start: int
    own_stop: int

    @property
    def tokens(self) -> int:
        """Length for the model, with `<cls>` and `<eos>`."""
        return self.stop - self.start + 2

    @property
    def owned(self) -> int:
        return self.own_stop - self.own_start


def split(record: int, length: int, limit: int, long: str, overlap: int) -> list[Piece]:
    """The pieces of a sequence: one, unless it is over the limit and `long` is "window".

    Args:
        record: its place among the sequences at hand.
        length: nucleotides in it.
        limit: nucleotides that the model takes.
        long: "error", "window" or "full".
        overlap: nucleotides that neighbouring windows share at least; below `limit`.

    Raises:
        ValueError: `long` is "error" and the sequence over the limit; an argument is off.

    >>> [(p.start, p.stop, p.own_start, p.own_stop) for p in split(0, 20, 10, "window", 4)]
    [(0, 10, 0, 8), (5, 15, 8, 13), (10, 20, 13, 20)]
    """
    check_long(long, limit, overlap)
    if length <= limit or long == "full":
        return [Piece(record, 0, length, 0, length)]
    if long == "error":
        raise ValueError(f"{length} nt, over the limit of {limit}")
    steps = -((limit - length) // (limit - overlap))  # rounded up
    starts = [round(step * (length - limit) / steps) for step in range(steps + 1)]
    cuts = [(left + limit + right + 1) // 2 for left, right in pairwise(starts)]
    bounds = [0, *cuts, length]
    return [
        Piece(record, start, start + limit, *own)
        for start, own in zip(starts, pairwise(bounds), strict=True)
    ]


def ways_out(choices: Sequence[str]) -> str:
    """What to do where a sequence is too long, by the choices that there are."""
    told = {"window": "takes overlapping windows of it", "full": "computes it whole"}
    return ", ".join(f"--long {long} {told[long]}" for long in choices if long in told)


def check_long(long: str, limit: int, overlap: int) -> None:
    """Raise ValueError unless the arguments of `split` fit together."""
    if long not in LONG:
        raise ValueError(f"long must be one of {', '.join(LONG)}; got {long!r}")
    if long == "window" and not 0 <= overlap < limit:
        raise ValueError(f"overlap must be at least 0 and below {limit}; got {overlap}")
