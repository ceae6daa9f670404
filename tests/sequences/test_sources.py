"""Sequences too long for a model, from what can be read once and from what can be read twice."""

import os
import threading

import pytest
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig

from ernie_rna.sequences.fasta import FastaRecord, InputError
from ernie_rna.sequences.long import LONG
from ernie_rna.sequences.sources import WHOLE, Intake, readable_twice

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


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "record 2: expected a sequence, or an id and a sequence, as text; got None"),
        (("a",), r"record 2: expected .*; got \('a',\)"),
        (("a", float("nan")), "record 2: expected .*; got 'a', nan"),
        (("a", b"ACGU"), "record 2: expected .*; got 'a', b'ACGU'"),
        ((7, "ACGU"), "record 2: expected .*; got 7, 'ACGU'"),
        ((" a", "ACGU"), "the id ' a' has blanks in it"),
        (("a\0", "ACGU"), r"'a\\x00': '\\x00' is no character of a text"),
        (("a\ud800", "ACGU"), r"'\\ud800' is no character of a text"),
        (("a", "ACGU\ud800"), r"'\\ud800' is no character of a text"),
        (FastaRecord("a", "ACGU", "of\n>another"), r"'\\n' is no character of a text"),
    ],
)
def test_what_is_no_record_is_named(item, message):
    with pytest.raises(InputError, match=f"^sequences: .*{message}"):
        Intake(["ACGU", item], "error", "unk")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are those of Unix")
def test_a_pipe_is_read_once(tmp_path):
    pytest.importorskip("dnaio")
    pipe = tmp_path / "rna.fasta"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(">a\nACGU\n>b\nGG\n",))
    writer.start()
    with readable_twice(pipe, "error") as sequences:
        writer.join()
        assert Intake(sequences, "error", "error").found.records == 2
