"""Sequences too long for a model, from what can be read once and from what can be read twice."""

import pytest

from configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.sequences.fasta import InputError
from ernie_rna.sequences.long import LONG
from ernie_rna.sequences.sources import WHOLE, Intake

RNAS = {"short": "ACGU", "big": "A" * 1023, "bigger": "A" * 2000}
CONFIG = ErnieRnaConfig()
WINDOW = "--long window takes overlapping windows of it, "
FULL = "--long full computes it whole"


@pytest.mark.parametrize(("choices", "ways"), [(LONG, WINDOW + FULL), (WHOLE, FULL)])
def test_long_sequences_are_named(choices, ways):
    found = r"2 of 3 sequences .* 1022 nt .*: bigger \(2000 nt\), big \(1023 nt\)\. "
    with pytest.raises(InputError, match=f"^{found}{ways}$"):
        Intake(RNAS, "error", "error", choices).records(CONFIG)
    once = Intake(iter(RNAS.items()), "error", "error", choices).records(CONFIG)
    assert next(once).id == "short"
    with pytest.raises(InputError, match=f"^big: 1023 nt, over the limit of 1022. {ways}$"):
        next(once)


def test_long_sequences_that_are_wanted():
    with pytest.warns(UserWarning, match=r"2 of 3 .* the first take 0.2 GB"):
        records = Intake(RNAS, "full", "error").records(CONFIG)
    assert [record.id for record in records] == list(RNAS)
    records = Intake(iter(RNAS.items()), "window", "error", LONG).records(CONFIG)
    assert [record.id for record in records] == list(RNAS)
