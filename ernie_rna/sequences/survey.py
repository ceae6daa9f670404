"""A look through a whole input before any work: how many sequences, how long, and their digest."""

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from typing import Any

from ernie_rna.sequences.fasta import FastaRecord, InputError
from ernie_rna.sequences.long import nucleotide_limit, ways_out


@dataclass(frozen=True)
class Survey:
    """What a first pass over the input finds.

    Attributes:
        records: number of sequences.
        nucleotides: their lengths' sum.
        lengths: how many sequences have each length.
        longest: up to five longest sequences, (length, id), the longest first.
        sha256: of all ids and sequences; the same for a file and its compressed copy.
    """

    records: int
    nucleotides: int
    lengths: dict[int, int] = field(repr=False)
    longest: tuple[tuple[int, str], ...]
    sha256: str


def survey(records: Iterable[FastaRecord]) -> Survey:
    """Go through all records; what is wrong with one is raised before any work is done."""
    digest = Digest()
    lengths: dict[int, int] = {}
    longest: list[tuple[int, str]] = []
    for record in digest.watch(records):
        length = len(record.sequence)
        lengths[length] = lengths.get(length, 0) + 1
        keep = heappush if len(longest) < 5 else heappushpop
        keep(longest, (length, record.id))
    return Survey(
        records=sum(lengths.values()),
        nucleotides=sum(length * count for length, count in lengths.items()),
        lengths=lengths,
        longest=tuple(sorted(longest, reverse=True)),
        sha256=digest.sha256,
    )


def check_lengths(found: Survey, config: Any, long: str, choices: Sequence[str]) -> None:
    """Refuse sequences over the limit of a model, or warn of them.

    Args:
        config: of the model.
        long: what to do with them, "error", "window" or "full".
        choices: which of these there are.

    Raises:
        InputError: there are such sequences, and `long` is "error".
    """
    limit = nucleotide_limit(config)
    count = sum(count for length, count in found.lengths.items() if length > limit)
    if not count or long == "window":
        return
    named = ", ".join(f"{id} ({length} nt)" for length, id in found.longest if length > limit)
    what = (
        f"{count} of {found.records} sequences are longer than the {limit} nt that the model is "
        f"made for, the longest: {named}"
    )
    if long == "error":
        raise InputError(f"{what}. {ways_out(choices)}")
    gigabytes = config.num_attention_heads * (found.longest[0][0] + 2) ** 2 * 4 / 1e9
    warnings.warn(
        f"{what}. They are computed whole; the attention scores of the first take {gigabytes:.1f} "
        "GB, or none but more time where memory is short",
        stacklevel=3,
    )


class Digest:
    """The sha256 of the ids and sequences that have passed."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def watch(self, records: Iterable[FastaRecord]) -> Iterator[FastaRecord]:
        for record in records:
            self._hash.update(f"{record.id}\n{record.sequence}\n".encode())
            yield record
