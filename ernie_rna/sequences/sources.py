"""Reads sequences from what a caller has: a file, standard input, a list, a generator.

A survey reads all of them before any work: how many there are, how long, and their digest.
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

UNNAMED = "RNA"  # the id of a typed sequence
_TYPED = frozenset("ACGUTNacgutn")

# What the header of a FASTA file cannot hold: control characters, byte order marks, surrogates.
_NO_TEXT = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class Source:
    """Records to read.

    Attributes:
        read: yields the records from the beginning, checked by the rules of `fasta`.
        once: whether they can be read only once.
    """

    read: Callable[[], Iterator[FastaRecord]]
    once: bool = False

    def kept_in(self, path: Path) -> Source:
        """Write the records to a FASTA file, and return a source that reads them from it."""
        with open(path, "w", encoding="utf-8") as file:
            write_fasta(file, self.read())
        return Source(lambda: parse_fasta(path))  # They were checked when they were written.

    @contextlib.contextmanager
    def readable_twice(self) -> Iterator[Source]:
        """Yield this source, or its records in a temporary file if it can be read only once."""
        if not self.once:
            yield self
            return
        with tempfile.TemporaryDirectory() as folder:
            yield self.kept_in(Path(folder) / "input.fasta")


Sequences = FilePath | Mapping[str, str] | Iterable[Item] | Source


def as_source(
    sequences: Sequences, unknown: str = "error", degap: bool = False, keep_letters: bool = False
) -> Source:
    """Return the source that reads what a caller gave.

    Args:
        sequences: path of a FASTA file or a pipe, or "-" for standard input; path of a .parquet
            file (extra `parquet`) with the columns id and sequence; a sequence of A, C, G, U, T
            and N, unless a file has that name, which gets the id `UNNAMED`; a mapping of ids to
            sequences; or any iterable of records, (id, sequence) pairs or sequences, whose ids are
            their indices, "0", "1" and so on. A source is returned unchanged.
        unknown, degap, keep_letters: as for `fasta.read_fasta`.

    Raises:
        InputError: a name of letters is neither a file nor a sequence of the letters above; or an
            object is none of these, such as a table of pandas.
    """
    if isinstance(sequences, Source):
        return sequences
    if hasattr(sequences, "columns") or not isinstance(sequences, (PathLike, Iterable)):
        raise InputError(
            "sequences must be a file, a mapping of ids to sequences, or an iterable of records "
            f"(zip(table['id'], table['sequence']) for a table); got {type(sequences).__name__}"
        )
    # `cache` makes each warning appear only once, however often the input is read.
    checks = (unknown, degap, keep_letters, cache(warnings.warn))
    name, once = "sequences", not isinstance(sequences, (str, Mapping, Sequence))
    items: Any = sequences.items() if isinstance(sequences, Mapping) else sequences
    if isinstance(sequences, (str, PathLike)):
        path = name = fspath(sequences)
        if not (isinstance(sequences, str) and is_word(path)):
            if path.lower().endswith(".parquet"):
                return Source(lambda: check_records(_read_parquet(path), path, *checks))
            return Source(lambda: read_fasta(path, *checks), once=is_stream(path))
        if not set(path) <= _TYPED:
            raise InputError(
                f"{path}: there is no such file; a typed sequence must have only "
                "the letters A, C, G, U, T and N"
            )
        items = [(UNNAMED, path)]
    return Source(lambda: check_records(_as_records(items, name), name, *checks), once)


def is_word(text: str) -> bool:
    """Whether a text consists of letters, as a typed sequence does, and is not a file's name."""
    return text.isalpha() and not os.path.exists(text)  # False if it is too long for a name


def _read_parquet(path: str) -> Iterator[FastaRecord]:
    pa = import_extra("pyarrow", "parquet", "reading Parquet")
    pq = import_extra("pyarrow.parquet", "parquet", "reading Parquet")
    names = ["id", "sequence"]
    try:
        with pq.ParquetFile(path) as file:
            available = file.schema_arrow.names
            for name in names:
                if name not in available:
                    raise InputError(f"{path}: no column {name}; it has {', '.join(available)}")
            batches = file.iter_batches(1024, columns=names)
            rows = (row for batch in batches for row in batch.select(names).to_pylist())
            yield from _as_records(((row["id"], row["sequence"]) for row in rows), path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if getattr(error, "errno", None):  # an error of the system, such as a missing file
            raise
        raise InputError(f"{path}: damaged, or not Parquet: {error}") from error


def _as_records(items: Iterable[Item], name: str) -> Iterator[FastaRecord]:
    """Yield a record for each item. Raises InputError for an item that no FASTA file can hold."""
    for index, item in enumerate(items):
        pair = (str(index), item) if isinstance(item, str) else item
        try:
            if isinstance(pair, Mapping):  # It would be read as its keys.
                raise TypeError
            record = pair if isinstance(pair, FastaRecord) else FastaRecord(*pair)
            text = " ".join([record.id, record.description, record.sequence])
        except TypeError:
            what = "expected a sequence, or an id and a sequence, as text"
            raise InputError(f"{name}: record {index + 1}: {what}; got {item!r:.80}") from None
        if record.id and record.id.split() != [record.id]:
            raise InputError(f"{name}: the id {record.id!r} has blanks in it; give a single word")
        invalid = _NO_TEXT.search(text)
        if invalid:
            raise InputError(f"{name}: {record.id!r}: {invalid[0]!r} is not a character of text")
        # `strip`, because a file would not keep blanks around the description.
        yield FastaRecord(record.id, record.sequence, record.description.strip())


# ---------------------------------------------------------------------------------------------
# A survey of all records


@dataclass(frozen=True)
class Survey:
    """The facts that a first pass over the input collects.

    Attributes:
        records: number of sequences.
        nucleotides: sum of their lengths.
        lengths: how many sequences have each length.
        longest: the five longest sequences, or fewer, as (length, id), the longest first.
        sha256: of all records; equal for a file and its compressed copy.
    """

    records: int
    nucleotides: int
    lengths: dict[int, int] = field(repr=False)
    longest: tuple[tuple[int, str], ...]
    sha256: str


def survey(records: Iterable[FastaRecord]) -> Survey:
    """Read all records, so that an invalid one raises its error before any work."""
    digest, lengths = hashlib.sha256(), Counter[int]()

    def sizes() -> Iterator[tuple[int, str]]:
        for record in digested(records, digest):
            lengths[len(record.sequence)] += 1
            yield len(record.sequence), record.id

    longest = tuple(nlargest(5, sizes()))
    nucleotides = sum(length * count for length, count in lengths.items())
    return Survey(lengths.total(), nucleotides, lengths, longest, digest.hexdigest())


def digested(records: Iterable[FastaRecord], digest: hashlib._Hash) -> Iterator[FastaRecord]:
    """Yield records unchanged, and update a digest of `hashlib` with each."""
    for record in records:
        digest.update(f"{record.id} {record.description}\n{record.sequence}\n".encode())
        yield record


def check_lengths(input_survey: Survey, config: Any, long: str, choices: Sequence[str]) -> None:
    """Refuse sequences that are longer than a model's limit, or warn about them.

    Args:
        long: what to do with such sequences, "error", "window" or "full".
        choices: the values of `long` that the command has.

    Raises:
        InputError: there are such sequences, and `long` is "error".
    """
    limit, longest = nucleotide_limit(config), input_survey.longest
    count = sum(count for length, count in input_survey.lengths.items() if length > limit)
    if not count or long == "window":
        return
    names = ", ".join(f"{id} ({length} nt)" for length, id in longest if length > limit)
    problem = (
        f"{count} of {input_survey.records} sequences are longer than the model's limit of {limit} "
        f"nt, the longest: {names}"
    )
    if long == "error":
        effects = {"window": "divides each into windows", "full": "computes each as a whole"}
        ways_out = (f"--long {choice} {effects[choice]}" for choice in choices if choice in effects)
        raise InputError(f"{problem}. {', '.join(ways_out)}")
    gigabytes = config.num_attention_heads * (longest[0][0] + 2) ** 2 * 4 / 1e9
    warnings.warn(
        f"{problem}. They are computed as a whole; the attention scores of the first take "
        f"{gigabytes:.1f} GB, or are recomputed in more time if memory is short",
        stacklevel=3,
    )


def short_enough(
    records: Iterable[FastaRecord], config: Any, long: str, choices: Sequence[str]
) -> Iterator[FastaRecord]:
    """Yield records unchanged. If `long` is "error", raises InputError for one that is too long."""
    for record in records:
        if long == "error":
            check_lengths(survey([record]), config, long, choices)
        yield record
