"""Sequences from wherever a caller has them: a file, standard input, a list, a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from ernie_rna.sequences.fasta import (
    STANDARD_INPUT,
    FastaRecord,
    FilePath,
    InputError,
    check_records,
    read_fasta,
    write_fasta,
)

Item = FastaRecord | str | tuple[str, str]


@dataclass(frozen=True)
class Source:
    """Records that can be gone through.

    Attributes:
        read: gives them, checked as `fasta` says, from the beginning.
        once: whether that works a single time only.
    """

    read: Callable[[], Iterator[FastaRecord]]
    once: bool = False

    def kept_in(self, path: Path, write: bool = True) -> Source:
        """The same records from a FASTA file at `path`, which is written first if `write`."""
        if write:
            with open(path, "w", encoding="utf-8") as file:
                write_fasta(file, self.read())
        # They are checked; what was let through as <unk> must pass again.
        return Source(lambda: read_fasta(path, unknown="unk"))


Sequences = FilePath | Mapping[str, str] | Iterable[Item] | Source


def as_source(sequences: Sequences, unknown: str = "error") -> Source:
    """Where to get records from.

    Args:
        sequences: path of a FASTA file or "-" for standard input; a mapping of ids to
            sequences; or any iterable of records, (id, sequence) pairs or sequences, which are
            called after their places, "0", "1" and so on. A source is left as it is.
        unknown: as for `fasta.read_fasta`.
    """
    if isinstance(sequences, Source):
        return sequences
    if isinstance(sequences, (str, PathLike)):
        path = fspath(sequences)
        return Source(lambda: read_fasta(path, unknown), once=path == STANDARD_INPUT)
    items = sequences.items() if isinstance(sequences, Mapping) else sequences

    def read() -> Iterator[FastaRecord]:
        records = (_as_record(index, item) for index, item in enumerate(items))
        return check_records(records, "sequences", unknown)

    return Source(read, once=not isinstance(sequences, (Mapping, Sequence)))


def _as_record(index: int, item: Item) -> FastaRecord:
    if isinstance(item, str):
        return FastaRecord(str(index), item)
    record = item if isinstance(item, FastaRecord) else FastaRecord(*item)
    if len(record.id.split()) > 1:
        raise InputError(f"sequences: the id {record.id!r} has blanks in it; give a single word")
    return record
