"""RDAT files of the RNA Mapping Database, old and new."""

import numpy as np
import pytest

import ernie_rna
from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.formats.rdat import read_rdat
from ernie_rna.structures.reactivities import read_reactivities

# The forms are those of RMDB's TRNAPH_SHP_0001 (0.22) and of its page on the format (0.34).
OLD = """RDAT_VERSION 0.22
NAME tRNA phenylalanine (yeast)
SEQUENCE  GGAACAAACA
STRUCTURE ..........
OFFSET -3
SEQPOS  5 4 3 2 1 0 -1
MUTPOS  WT
ANNOTATION experimentType:StandardState chemical:Na-HEPES:50mM(pH8.0)

COMMENT   Averaged from 8 replicates.

ANNOTATION_DATA      1        modifier:SHAPE

AREA_PEAK            1        0.6145   -0.2418    0.2801    0.0192   -0.0341   -0.0298  -0.0126
AREA_PEAK_ERROR      1        0.3090    0.1506    0.1171    0.0779    0.0970    0.0796   0.0870
"""
NEW = """RDAT_VERSION\t0.34
NAME\ttiny RNA
SEQUENCE\tGGAAC
OFFSET\t100
SEQPOS\tG102\tA103\tA104
ANNOTATION\tmodifier:1M7
ANNOTATION_DATA:1\tname:wt
ANNOTATION_DATA:2\tmutation:C105U\tsequence:GGAAU
REACTIVITY:1\t0.1\t0.8\tNaN
REACTIVITY_ERROR:1\t0.01\t0.02\t0.03
REACTIVITY:2\t0.2\t0.9\t1.0
READS:2\t10\t20\t30
"""


def write(path, text):
    path.write_text(text)
    return path


def test_the_old_form(tmp_path):
    found = read_rdat(write(tmp_path / "TRNAPH.rdat", OLD))
    values = [np.nan, -0.0126, -0.0298, -0.0341, 0.0192, 0.2801, -0.2418, 0.6145, np.nan, np.nan]
    assert list(found) == ["TRNAPH"]
    np.testing.assert_array_equal(found["TRNAPH"], values)


def test_the_new_form_with_two_rows(tmp_path):
    write(tmp_path / "tiny.rdat", NEW)
    found = read_reactivities(tmp_path)
    assert list(found) == ["tiny.1", "tiny.2"]
    np.testing.assert_array_equal(found["tiny.1"].values, [np.nan, 0.1, 0.8, np.nan, np.nan])
    np.testing.assert_array_equal(found["tiny.2"].values, [np.nan, 0.2, 0.9, 1.0, np.nan])


@pytest.mark.parametrize("gap", ["1 0.1\t0.8", "1\t0.1\t0.8", " 1\t0.1 0.8", "1  0.1, 0.8"])
def test_a_row_and_its_number(tmp_path, gap):
    lines = ["NAME a", "COMMENT: of a kind", "SEQUENCE GA", "SEQPOS 1 2", f"AREA_PEAK {gap}"]
    found = read_rdat(write(tmp_path / "a.rdat", "\n".join(lines)))
    assert found["a"].tolist() == [0.1, 0.8]


def test_a_sequence_of_a_row(tmp_path):
    lines = ["SEQUENCE GA", "SEQUENCE:1 GAC", "OFFSET 0", "SEQPOS G1 A2", "REACTIVITY:1 0.1 NA"]
    found = read_rdat(write(tmp_path / "a.rdat", "\n".join(lines)))
    np.testing.assert_array_equal(found["a"], [0.1, np.nan, np.nan])


def test_the_example_in_both_formats(tmp_path):
    """What `--reactivity` does with a file depends on its numbers alone."""
    shape = ernie_rna.examples() / "RNase-P.shape"
    sequence = (ernie_rna.examples() / "RNase-P.fasta").read_text().splitlines()[1]
    ((values, _),) = read_reactivities(shape).values()
    known = [index for index, value in enumerate(values) if value > -500]
    lines = [
        "RDAT_VERSION 0.34",
        "NAME RNase P",
        f"SEQUENCE {sequence}",
        "OFFSET 0",
        "SEQPOS " + " ".join(f"{sequence[index]}{index + 1}" for index in known),
        "REACTIVITY:1 " + " ".join(str(values[index]) for index in known),
    ]
    found = read_reactivities(write(tmp_path / "RNase-P.rdat", "\n".join(lines)))
    expected = np.where(values > -500, values, np.nan)
    np.testing.assert_array_equal(found["RNase-P"].values, expected)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("SEQUENCE\tGGAAC\n", "", "1: no line SEQUENCE"),
        ("SEQPOS\tG102\tA103\tA104\n", "", "1: no line SEQPOS"),
        ("REACTIVITY:", "TRACE:", "1: no line REACTIVITY, AREA_PEAK or DATA"),
        ("OFFSET\t100", "OFFSET\tx", "4: 'x' is no whole number"),
        ("OFFSET\t100", "OFFSET\t99", "5: G102 with OFFSET 99 is base 3, which is A"),
        ("OFFSET\t100", "OFFSET\t103", "5: G102 with OFFSET 103 is none of 5 bases"),
        ("\tA104", "\tA103", "5: A103 is in SEQPOS twice"),
        ("\tA104", "\tA10.4", "5: 'A10.4' of SEQPOS is no position"),
        ("\tA104", "", "9: row 1 has 3 values for 2 of SEQPOS"),
        ("0.8", "high", "9: 'high' is no number"),
        ("REACTIVITY:2", "REACTIVITY:1", "11: row 1 is there already"),
        ("READS:2", "NAME\tb\nREADS:2", "12: a second line NAME; give each construct its own"),
        ("READS:2", "OFFSET\t9\nREADS:2", "12: a second line OFFSET"),
        ("GGAAC\n", "\n", "1: no line SEQUENCE"),
        ("\tG102\tA103\tA104", "", "1: no line SEQPOS"),
        ("\tG102\tA103\tA104", "\t,", "1: no line SEQPOS"),
        (":GGAAU", ":GGA", "11: row 2 has 3 bases, and SEQPOS names base 4"),
        ("READS:2", "SEQPOS\tG102\nREADS:2", "12: a second line SEQPOS"),
        ("READS:2", "reads", "12: 'reads.* begins with no keyword"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, before, after, message):
    assert before in NEW
    path = write(tmp_path / "tiny.rdat", NEW.replace(before, after))
    with pytest.raises(InputError, match=f"tiny.rdat: line {message}"):
        read_rdat(path)
