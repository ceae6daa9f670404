"""How sequences come to the model for `fold` and `mutate`: whole, and checked."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from ernie_rna.sequences.fasta import FastaRecord, InputError
from ernie_rna.sequences.sources import Sequences, as_source
from ernie_rna.sequences.survey import Survey, survey

# A structure, or what stands in place of one letter, depends on the whole RNA: no windows.
LONG = ("error", "full")


class Intake:
    """Records that are fit for the model, looked through before any of them is computed.

    Args:
        sequences: as `sequences.as_source` takes them.
        long: what to do with sequences over the model's limit: "error" or "full", computed whole.
        unknown: as for `fasta.read_fasta`.

    Attributes:
        found: what a first pass over all records has found; None if they can be read only once.

    Raises:
        InputError: a record is unfit. In what can be read only once, it is found when its turn
            comes.
        ValueError: `long` is neither of the two.
    """

    def __init__(self, sequences: Sequences, long: str, unknown: str):
        if long not in LONG:
            raise ValueError(f"long must be {' or '.join(LONG)}; got {long!r}")
        self._source = as_source(sequences, unknown)
        self._long = long
        self.found: Survey | None = None if self._source.once else survey(self._source.read())

    def records(self, limit: int) -> Iterator[FastaRecord]:
        """The records from the beginning.

        Args:
            limit: nucleotides that the model was trained to take at once.

        Raises:
            InputError: a sequence is too long; at once, unless the records can be read only once.
        """
        if self.found is not None:
            self._check_lengths(self.found, limit)
        records = self._source.read()
        return records if self._long == "full" else _not_too_long(records, limit)

    def _check_lengths(self, found: Survey, limit: int) -> None:
        count = sum(count for length, count in found.lengths.items() if length > limit)
        if not count:
            return
        named = ", ".join(f"{id} ({length} nt)" for length, id in found.longest if length > limit)
        what = (
            f"{count} of {found.records} sequences are longer than the {limit} nt that the model "
            f"was trained on, the longest: {named}"
        )
        if self._long == "error":
            raise InputError(f"{what}. --long full computes them nevertheless")
        warnings.warn(what, stacklevel=4)


def _not_too_long(records: Iterable[FastaRecord], limit: int) -> Iterator[FastaRecord]:
    for record in records:
        length = len(record.sequence)
        if length > limit:
            raise InputError(
                f"{record.id} has {length} nt, more than the {limit} nt that the model was "
                "trained on. --long full computes it nevertheless"
            )
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
