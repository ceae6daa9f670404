"""What every use of a model needs: here, what is said where memory is short."""

import pytest

from ernie_rna.run.loading import EncodingError, memory_explained
from ernie_rna.sequences.fasta import FastaRecord


def test_want_of_memory_names_the_longest_sequence():
    records = [FastaRecord("short", "ACGU"), FastaRecord("long", "ACGUACGU")]
    with (
        pytest.raises(EncodingError, match=r"2 sequences of up to 8 nt .*long.*--batch-tokens"),
        memory_explained(records),
    ):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(RuntimeError, match="another"), memory_explained(records):
        raise RuntimeError("another")
