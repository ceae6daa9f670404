"""Sequences from wherever a caller has them: a file, standard input, a list, a generator."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ernie_rna.sequences.fasta import (
    STANDARD_INPUT,
    FastaRecord,
    FilePath,
    InputError,
    check_records,
    read_fasta,
    write_fasta,
)
from ernie_rna.sequences.long import nucleotide_limit, ways_out
from ernie_rna.sequences.survey import Survey, check_lengths, survey

# A structure, or what stands in place of one letter, depends on the whole RNA: no windows.
WHOLE = ("error", "full")

Item = FastaRecord | str | tuple[str, str]

# What no FASTA file can hold in a header: control characters, and halves of characters.
_NO_TEXT = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


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
        sequences: path of a FASTA file or a pipe, or "-" for standard input; a mapping of ids to
            sequences; or any iterable of records, (id, sequence) pairs or sequences, which are
            called after their places, "0", "1" and so on. A source is left as it is.
        unknown: as for `fasta.read_fasta`.
    """
    if isinstance(sequences, Source):
        return sequences
    if isinstance(sequences, (str, PathLike)):
        path = fspath(sequences)
        return Source(lambda: read_fasta(path, unknown), once=_is_stream(path))
    items = sequences.items() if isinstance(sequences, Mapping) else sequences

    def read() -> Iterator[FastaRecord]:
        records = (_as_record(index, item) for index, item in enumerate(items))
        return check_records(records, "sequences", unknown)

    return Source(read, once=not isinstance(sequences, (Mapping, Sequence)))


def _is_stream(path: str) -> bool:
    """Whether what is there can be read once only, as `<(zcat rna.fa.gz)` of a shell."""
    return path == STANDARD_INPUT or Path(path).is_fifo() or Path(path).is_char_device()


def _as_record(index: int, item: Item) -> FastaRecord:
    try:
        pair = (str(index), item) if isinstance(item, str) else item
        record = pair if isinstance(pair, FastaRecord) else FastaRecord(*pair)
    except TypeError:
        raise _no_record(index, repr(item)) from None
    if not isinstance(record.id, str) or not isinstance(record.sequence, str):
        raise _no_record(index, f"{record.id!r}, {record.sequence!r}")
    if record.id and record.id.split() != [record.id]:
        raise InputError(f"sequences: the id {record.id!r} has blanks in it; give a single word")
    text = f"{record.id} {record.description}"
    broken = _NO_TEXT.search(text if record.sequence.isascii() else text + record.sequence)
    if broken:
        raise InputError(f"sequences: {record.id!r}: {broken[0]!r} is no character of a text")
    return record


def _no_record(index: int, found: str) -> InputError:
    what = "expected a sequence, or an id and a sequence, as text"
    return InputError(f"sequences: record {index + 1}: {what}; got {found[:80]}")


class Intake:
    """Records that are fit for a model, looked through before any of them is computed.

    Args:
        sequences: as `as_source` takes them.
        long: what to do with sequences over the model's limit, one of `choices`.
        unknown: as for `fasta.read_fasta`.
        choices: some of `long.LONG`.

    Attributes:
        found: what a first pass over all records has found; None if they can be read only once.

    Raises:
        InputError: a record is unfit. In what can be read only once, it is found when its turn
            comes.
        ValueError: `long` is none of the choices.
    """

    def __init__(
        self, sequences: Sequences, long: str, unknown: str, choices: Sequence[str] = WHOLE
    ):
        if long not in choices:
            raise ValueError(f"long must be one of {', '.join(choices)}; got {long!r}")
        self._source = as_source(sequences, unknown)
        self._long, self._choices = long, choices
        self.found: Survey | None = None if self._source.once else survey(self._source.read())

    def records(self, config: Any) -> Iterator[FastaRecord]:
        """The records from the beginning.

        Args:
            config: of the model that they are for.

        Raises:
            InputError: a sequence is too long; at once, unless the records can be read only once.
        """
        if self.found is not None:
            check_lengths(self.found, config, self._long, self._choices)
        records = self._source.read()
        if self._long != "error":
            return records
        return _not_too_long(records, nucleotide_limit(config), ways_out(self._choices))


def _not_too_long(
    records: Iterable[FastaRecord], limit: int, way_out: str
) -> Iterator[FastaRecord]:
    for record in records:
        length = len(record.sequence)
        if length > limit:
            raise InputError(f"{record.id}: {length} nt, over the limit of {limit}. {way_out}")
        yield record


@contextlib.contextmanager
def readable_twice(sequences: Sequences, unknown: str) -> Iterator[Sequences]:
    """The same sequences, from a temporary file if they can be read only once.

    So a command finds what is wrong with its standard input before it computes anything.
    """
    source = as_source(sequences, unknown)
    if not source.once:
        yield sequences
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input.fasta"
        source.kept_in(path)
        yield path
