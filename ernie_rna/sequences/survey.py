"""A look through a whole input before any work: how many sequences, how long, and their digest."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappush, heappushpop

from ernie_rna.sequences.fasta import FastaRecord


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
