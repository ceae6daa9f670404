"""Text of a box: read as FASTA or as a bare sequence, and refused by what is wrong with it."""

import pytest

from ernie_rna.sequences.fasta import FastaRecord, InputError
from ernie_rna.web.inputs import UNNAMED, Limits, check_masked, find_record, read_text
from ernie_rna.web.requests import decode

pytest.importorskip("dnaio")
LIMITS = Limits(sequences=2, nucleotides=10, together=15, masked=5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (">a x y\nACGU\n>b\nGGCC\nTT", [("a", "ACGU"), ("b", "GGCCTT")]),
        ("\n\n >a\r\nacgu\r\n", [("a", "acgu")]),
        ("# a comment\n>a\nACGU", [("a", "ACGU")]),
        (" ACGU\nACG u\n", [(UNNAMED, "ACGUACGu")]),
    ],
)
def test_fasta_or_a_bare_sequence(text, expected):
    assert [(one.id, one.sequence) for one in read_text(text, LIMITS)] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no RNA yet"),
        (" \n", "there is no RNA yet"),
        ("MKVLAEFFGP", "looks like a protein"),
        ("ACGZGACGUA", r"'Z' at position 4 is no nucleotide code$"),
        (">a\nAC-GU", "gap of an alignment"),
        (">a\n>b\nACGU", r"record 1 \(a\): it is empty"),
        (">a\nACGU\n>a\nACGU", "two records have the id 'a'"),
        (">a\nAC\x01GU", "line 2: control character"),
        ("ACGU" * 3, "RNA has 12 nt; this page takes up to 10"),
        (">a\nA\n>b\nA\n>c\nA", "3 sequences; this page takes 2 at a time"),
        (">a\nAAAAAAAA\n>b\nAAAAAAAA", "16 nt together; this page takes 15"),
        (">" + 3000 * "a", "the input has 3001 characters; this page takes 2015"),
        (">a\nAC\ud800GU", "'.' at position 3 is no nucleotide code"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(InputError, match=message) as raised:
        read_text(text, LIMITS)
    assert "--" not in str(raised.value)


def test_masking_is_for_short_ones():
    check_masked(FastaRecord("a", "ACGUA"), LIMITS)
    with pytest.raises(InputError, match=r"a has 6 nt; .* up to 5 nt here: choose the single pass"):
        check_masked(FastaRecord("a", "ACGUAC"), LIMITS)


def test_an_id_that_is_gone_means_the_first():
    records = [FastaRecord("a", "A"), FastaRecord("b", "C")]
    assert [find_record(records, id).id for id in ("b", "gone", None)] == ["b", "a", "a"]


def test_loaded_files_are_text():
    assert decode(b"\xef\xbb\xbf>a\nACGU") == ">a\nACGU"
    with pytest.raises(InputError, match="no plain text"):
        decode(b"\x1f\x8b\x08")
