"""RNAs as they come from a text box: read and checked as on the command line, and how many."""

from __future__ import annotations

import io
from dataclasses import dataclass

from ernie_rna.sequences.fasta import (
    UNKNOWN_HINT,
    FastaRecord,
    InputError,
    check_records,
    read_fasta,
)

# What a sequence without a header is called.
UNNAMED = "RNA"


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        sequences: how many at most.
        nucleotides: of the longest sequence; the model's own limit holds as well.
        together: nucleotides of all sequences.
        masked: of a sequence that is masked at each position in turn.
        seconds: to compute for.
        gigabytes: of memory that a process which computes may take.
    """

    sequences: int = 50
    nucleotides: int = 1022
    together: int = 5000
    masked: int = 400
    seconds: float = 60.0
    gigabytes: float = 4.0


def read_text(text: str, limits: Limits) -> list[FastaRecord]:
    """The records of FASTA text, or a single sequence without a header.

    >>> [record.id for record in read_text(">one\\nACGU\\n>two\\nGGCC", Limits())]
    ['one', 'two']
    >>> read_text("ACGU\\nACGU", Limits())[0].sequence
    'ACGUACGU'

    Raises:
        InputError: there is nothing in it, a record is unfit, or it is more than the limits allow.
    """
    if not text.strip():
        raise InputError("there is no RNA yet: paste one, load a file, or take an example")
    # Headers have some room.
    most = limits.together + 1000 * limits.sequences
    if len(text) > most:
        raise InputError(f"the input has {len(text)} characters; this page takes {most}")
    try:
        if text.lstrip()[0] in ">#":
            records = list(read_fasta(io.BytesIO(text.lstrip().encode("utf-8", "replace"))))
        else:
            bare = FastaRecord(UNNAMED, "".join(text.split()))
            records = list(check_records([bare], "the input"))
    except InputError as error:
        raise InputError(str(error).removesuffix(UNKNOWN_HINT)) from None
    _check_size(records, limits)
    return records


def _check_size(records: list[FastaRecord], limits: Limits) -> None:
    way_out = "ernie-rna on a machine of your own takes more"
    if len(records) > limits.sequences:
        raise InputError(
            f"{len(records)} sequences; this page takes {limits.sequences} at a time; {way_out}"
        )
    longest = max(records, key=lambda record: len(record.sequence))
    if len(longest.sequence) > limits.nucleotides:
        raise InputError(
            f"{longest.id} has {len(longest.sequence)} nt; this page takes up to "
            f"{limits.nucleotides}; {way_out}"
        )
    together = sum(len(record.sequence) for record in records)
    if together > limits.together:
        raise InputError(
            f"the sequences have {together} nt together; this page takes {limits.together} at a "
            f"time; {way_out}"
        )


def check_masked(record: FastaRecord, limits: Limits) -> None:
    """Raise InputError if a sequence is too long to be masked at each position in turn."""
    if len(record.sequence) > limits.masked:
        raise InputError(
            f"{record.id} has {len(record.sequence)} nt; masking each position in turn is for up "
            f"to {limits.masked} nt here: choose the single pass"
        )


def find_record(records: list[FastaRecord], id: str | None) -> FastaRecord:
    """The record with an id, else the first: the text may have changed since the id was chosen."""
    return next((record for record in records if record.id == id), records[0])
