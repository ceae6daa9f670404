"""Sequences from wherever a caller has them: a file, standard input, a list, a generator.

And a look through all of them before any work: how many there are, how long, and their digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from heapq import nlargest
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ernie_rna.extras import import_extra
from ernie_rna.sequences.chunks import nucleotide_limit
from ernie_rna.sequences.fasta import (
    FastaRecord,
    FilePath,
    InputError,
    check_records,
    is_stream,
    parse_fasta,
    read_fasta,
    write_fasta,
)

Item = FastaRecord | str | tuple[str, str]

# What a sequence without a header is called.
UNNAMED = "RNA"
_TYPED = frozenset("ACGUTNacgutn")

# What no FASTA file can hold in a header: control characters, and halves of characters.
_NO_TEXT = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class Source:
    """Records that can be gone through.

    Attributes:
        read: gives them, checked as `fasta` says, from the beginning.
        once: whether that works a single time only.
    """

    read: Callable[[], Iterator[FastaRecord]]
    once: bool = False

    def kept_in(self, path: Path) -> Source:
        """The same records from a FASTA file at `path`, which is written."""
        with open(path, "w", encoding="utf-8") as file:
            write_fasta(file, self.read())
        return Source(lambda: parse_fasta(path))  # They are checked.

    @contextlib.contextmanager
    def readable_twice(self) -> Iterator[Source]:
        """The same records, from a temporary file if they can be read only once."""
        if not self.once:
            yield self
            return
        with tempfile.TemporaryDirectory() as folder:
            yield self.kept_in(Path(folder) / "input.fasta")


Sequences = FilePath | Mapping[str, str] | Iterable[Item] | Source


def as_source(
    sequences: Sequences, unknown: str = "error", degap: bool = False, keep_letters: bool = False
) -> Source:
    """Where to get records from.

    Args:
        sequences: path of a FASTA file or a pipe, or "-" for standard input; path of a .parquet
            file (extra `parquet`) with the columns id and sequence; a sequence of A, C, G, U, T
            and N, if there is no such file, which is called `UNNAMED`; a mapping of ids to
            sequences; or any iterable of records, (id, sequence) pairs or sequences, which are
            called after their places, "0", "1" and so on. A source is left as it is.
        unknown, degap, keep_letters: as for `fasta.read_fasta`.

    Raises:
        InputError: there is no file of a name that might be meant for a sequence.
    """
    if isinstance(sequences, Source):
        return sequences
    # What is to be said of the input is said in one pass over it, and not again in the next.
    how = (unknown, degap, keep_letters, cache(warnings.warn))
    name, once = "sequences", not isinstance(sequences, (str, Mapping, Sequence))
    items: Any = sequences.items() if isinstance(sequences, Mapping) else sequences
    if isinstance(sequences, (str, PathLike)):
        path = name = fspath(sequences)
        if not (isinstance(sequences, str) and is_word(path)):
            if path.lower().endswith(".parquet"):
                return Source(lambda: check_records(_read_parquet(path), path, *how))
            return Source(lambda: read_fasta(path, *how), once=is_stream(path))
        if not set(path) <= _TYPED:
            raise InputError(
                f"{path}: there is no such file; a typed sequence must have only "
                "the letters A, C, G, U, T and N"
            )
        items = [(UNNAMED, path)]
    return Source(lambda: check_records(_as_records(items, name), name, *how), once)


def is_word(text: str) -> bool:
    """Whether a text is a sequence that was typed, or meant for one, and no file."""
    return text.isalpha() and not os.path.exists(text)  # of a name of any length


def _read_parquet(path: str) -> Iterator[FastaRecord]:
    pa = import_extra("pyarrow", "parquet", "reading Parquet")
    pq = import_extra("pyarrow.parquet", "parquet", "reading Parquet")
    names = ["id", "sequence"]
    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            for name in names:
                if name not in there:
                    raise InputError(f"{path}: no column {name}; it has {', '.join(there)}")
            for batch in file.iter_batches(1024, columns=names):
                columns = (batch.column(name).to_pylist() for name in names)
                yield from _as_records(zip(*columns, strict=True), path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if getattr(error, "errno", None):  # not of the format: there is no such file
            raise
        raise InputError(f"{path}: damaged, or no Parquet: {error}") from error


def _as_records(items: Iterable[Item], name: str) -> Iterator[FastaRecord]:
    for index, item in enumerate(items):
        pair = (str(index), item) if isinstance(item, str) else item
        try:
            record = pair if isinstance(pair, FastaRecord) else FastaRecord(*pair)
            text = " ".join([record.id, record.description, record.sequence])
        except TypeError:
            what = "expected a sequence, or an id and a sequence, as text"
            raise InputError(f"{name}: record {index + 1}: {what}; got {item!r:.80}") from None
        if record.id and record.id.split() != [record.id]:
            raise InputError(f"{name}: the id {record.id!r} has blanks in it; give a single word")
        broken = _NO_TEXT.search(text)
        if broken:
            raise InputError(f"{name}: {record.id!r}: {broken[0]!r} is not a character of text")
        # As it comes back from a file.
        yield FastaRecord(record.id, record.sequence, record.description.strip())


# ---------------------------------------------------------------------------------------------
# A look through all records


@dataclass(frozen=True)
class Survey:
    """What a first pass over the input finds.

    Attributes:
        records: number of sequences.
        nucleotides: their lengths' sum.
        lengths: how many sequences have each length.
        longest: up to five longest sequences, (length, id), the longest first.
        sha256: of all records; the same for a file and its compressed copy.
    """

    records: int
    nucleotides: int
    lengths: dict[int, int] = field(repr=False)
    longest: tuple[tuple[int, str], ...]
    sha256: str


def survey(records: Iterable[FastaRecord]) -> Survey:
    """Go through all records; what is wrong with one is raised before any work is done."""
    digest, lengths = Digest(), Counter[int]()

    def sizes() -> Iterator[tuple[int, str]]:
        for record in digest.watch(records):
            lengths[len(record.sequence)] += 1
            yield len(record.sequence), record.id

    longest = tuple(nlargest(5, sizes()))
    nucleotides = sum(length * count for length, count in lengths.items())
    return Survey(lengths.total(), nucleotides, lengths, longest, digest.sha256)


class Digest:
    """The sha256 of the records that have passed."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def watch(self, records: Iterable[FastaRecord]) -> Iterator[FastaRecord]:
        for record in records:
            self._hash.update(f"{record.id} {record.description}\n{record.sequence}\n".encode())
            yield record


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
        told = {"window": "takes overlapping windows of it", "full": "computes it whole"}
        ways_out = ", ".join(f"--long {long} {told[long]}" for long in choices if long in told)
        raise InputError(f"{what}. {ways_out}")
    gigabytes = config.num_attention_heads * (found.longest[0][0] + 2) ** 2 * 4 / 1e9
    warnings.warn(
        f"{what}. They are computed as a whole; the attention scores of the first take "
        f"{gigabytes:.1f} GB, or are recomputed in more time if memory is short",
        stacklevel=3,
    )


def short_enough(
    records: Iterable[FastaRecord], config: Any, long: str, choices: Sequence[str]
) -> Iterator[FastaRecord]:
    """Pass records on; one that is too long raises InputError, if `long` is "error"."""
    for record in records:
        if long == "error":
            check_lengths(survey([record]), config, long, choices)
        yield record
