"""Chemical probing: files of reactivities, their effect on maps, and the fit of structures."""

import gzip
from pathlib import Path

import numpy as np
import pytest

import ernie_rna
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForSecondaryStructure
from ernie_rna.options import OptionError, ProbingOptions
from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.structures.reactivities import Probing, read_reactivities, unpaired_auc
from tests.conftest import ROOT

HAS_MINI = (ROOT / "ernie_rna" / "mini" / "model.safetensors").is_file()
NAN = float("nan")
RNAS = {"one": "GGGGAAAACCCC", "two": "GGCGCAAGCC"}
ENERGY = 2.6 * np.log(3.0) - 0.8  # kcal/mol, of a reactivity of 2
KT = 0.0019872 * 310.15  # at 37 degrees
NO_DATA = {id: [NAN] * len(sequence) for id, sequence in RNAS.items()}


def write(path, text):
    Path(path).write_text(text)
    return path


# In the form of RMDB's entry TRNAPH_SHP_0001 (version 0.22) and of its page on the format (0.34).
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
ROW = "NAME a\nCOMMENT: of a kind\nSEQUENCE GA\nSEQPOS 1 2\nAREA_PEAK "
ROW_WITH_SEQUENCE = "SEQUENCE GA\nSEQUENCE:1 GAC\nOFFSET 0\nSEQPOS G1 A2\nREACTIVITY:1 0.1 NA\n"
TABLE = "position\tid\treactivity\tnote\n2\ta first\t-999\tx\n1\ta\t0.5\t\n1\tb\tNA\t\n"
OF_BASES = "id,position,base,reactivity\n"
OLD_VALUES = [NAN, -0.0126, -0.0298, -0.0341, 0.0192, 0.2801, -0.2418, 0.6145, NAN, NAN]
NEW_VALUES = {"tiny.1": [NAN, 0.1, 0.8, NAN, NAN], "tiny.2": [NAN, 0.2, 0.9, 1.0, NAN]}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param("r.tsv", TABLE, {"a": [0.5, -999], "b": [NAN]}, id="table in any order"),
        ("r.csv", "\ufeffid;position;reactivity\na;1;0,5\na;2;1,25\n", {"a": [0.5, 1.25]}),
        ("a.shape", "2 0.25\n5 1\n", {"a": [NAN, 0.25, NAN, NAN, 1]}),
        ("s.shape", "> a 1\nnan 0.25 -999 0,5\n>b\n1\n", {"a": [NAN, 0.25, -999, 0.5], "b": [1]}),
        pytest.param("tRNA.rdat", OLD, {"tRNA": OLD_VALUES}, id="old RDAT"),
        pytest.param("tiny.rdat", NEW, NEW_VALUES, id="new RDAT, two rows"),
        ("a.rdat", f"{ROW}1 0.1\t0.8", {"a": [0.1, 0.8]}),
        ("a.rdat", f"{ROW}1\t0.1\t0.8", {"a": [0.1, 0.8]}),
        ("a.rdat", f"{ROW} 1\t0.1 0.8", {"a": [0.1, 0.8]}),
        ("a.rdat", f"{ROW}1  0.1, 0.8", {"a": [0.1, 0.8]}),
        ("a.rdat", ROW_WITH_SEQUENCE, {"a": [0.1, NAN, NAN]}),
        ("a.rdat", f"ANNOTATION_DATA:1 x:y,sequence:G\n{ROW}1 0.1 0.8", {"a": [0.1, 0.8]}),
    ],
)
def test_formats_of_files(tmp_path, name, text, expected):
    profiles = read_reactivities(write(tmp_path / name, text))
    assert list(profiles) == list(expected)
    for id, values in expected.items():
        np.testing.assert_array_equal(profiles[id].values, values)


def test_files_of_a_folder_are_named_after_their_rna(tmp_path):
    with pytest.raises(ValueError, match=r"expected a file of reactivities .* in this folder"):
        read_reactivities(tmp_path)
    with pytest.raises(ValueError, match=r"r.txt: expected a file .* extension .tsv, .csv, .shape"):
        read_reactivities(write(tmp_path / "r.txt", ""))
    write(tmp_path / "a.shape", "# a remark\n1 0.25\n2 nan\n")
    write(tmp_path / "b.map", "1\t0.25\t0.01\tG\n2\t1.5\t0.02\tA\n")
    (tmp_path / "c.shape.gz").write_bytes(gzip.compress(b"1 0.5\n"))
    write(tmp_path / "d.csv", "id,position,reactivity\nof_a_table,1,0.5\n")
    (tmp_path / "e.shape").mkdir()
    profiles = read_reactivities(tmp_path)
    assert list(profiles) == ["a", "b", "c", "of_a_table"]
    assert profiles["b"].values.tolist() == [0.25, 1.5]
    assert profiles["b"].bases == "GA"
    write(tmp_path / "a.map", "1 0.25\n")
    with pytest.raises(ValueError, match="two files have reactivities of the same id, a"):
        read_reactivities(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("one.shape", "1 G 0.25\n2 A\n4 t 1.5\n5 N 0\n"),
        ("r.csv", f"{OF_BASES}one,1,G,0.25\none,2,,NA\none,4,t,1.5\none,5,,0"),
    ],
)
def test_bases_of_a_file_are_compared_with_the_sequence(tmp_path, name, text):
    probing = Probing(write(tmp_path / name, text))
    values = probing.of(Structure("one", "gacuc", []))
    np.testing.assert_array_equal(values, [0.25, NAN, NAN, 1.5, 0])
    with pytest.raises(ValueError, match="base 4 of one is G, but t in its reactivities"):
        probing.of(Structure("one", "GACGC", []))


REFUSED = [
    ("r.tsv", "id\tposition\n", "1: no column reactivity"),
    ("r.tsv", "id\tposition\treactivity\n", "1: no reactivities"),
    ("r.csv", f"{OF_BASES}a,1,UU,1\n", "2: a base is one letter, not 'UU"),
    ("r.shape", "1 0.5\n0 1\n", "2: '0' is not a position"),
    ("r.shape", "1 0.5\n2 low\n", "2: 'low' is not a number; write NaN or -999"),
    ("r.shape", "1 0.5\n1 0.5\n", "2: position 1 of r occurs twice"),
    ("r.shape", "1 0.5\n1000000 0.5\n", "2: '1000000' is not a position .* to 999999"),
    ("r.shape", "G 0.5\n", "1: 'G' is not a position"),
    ("r.shape", ">a\nlow\n", "2: 'low' is not a number"),
    ("r.shape", ">a\n3 0\n4 0.2\n", "3: a second line below >a; .* a file named after the RNA"),
    ("r.shape", ">a\n0.5\n>a\n0.5\n", "4: position 1 of a occurs twice"),
    ("r.shape", ">a\n>b\n0.5\n", "2: no line of reactivities below >a"),
    ("r.shape", ">b\n0.5\n>a\n", "3: no line of reactivities below >a"),
    ("r.shape", ">\n0.5\n", "2: an id is empty"),
    ("r.csv", f"{OF_BASES}a,1,U,1\n,2,U,1\n", "3: an id is empty"),
]
# (old, new, message): the text NEW with `old` replaced by `new` is refused.
REFUSED_RDAT = [
    ("SEQUENCE\tGGAAC\n", "", "1: no line SEQUENCE"),
    ("GGAAC\n", "\n", "1: no line SEQUENCE"),
    ("SEQPOS\tG102\tA103\tA104\n", "", "1: no line SEQPOS"),
    ("\tG102\tA103\tA104", "\t,", "1: no line SEQPOS"),
    ("REACTIVITY:", "TRACE:", "1: no line REACTIVITY or AREA_PEAK or DATA"),
    ("OFFSET\t100", "OFFSET\tx", "4: 'x' is not a whole number"),
    ("OFFSET\t100", "OFFSET\t99", "5: 'G102' with OFFSET 99 is base 3, which is A"),
    ("OFFSET\t100", "OFFSET\t103", "5: 'G102' with OFFSET 103 is not one of the 5 bases"),
    ("\tA104", "\tA103", "5: 'A103' .* is in SEQPOS twice"),
    ("\tA104", "\tA10.4", "5: 'A10.4' with OFFSET 100 is not one of the 5 bases"),
    ("\tA104", "", "9: row 1 has 3 values for 2 positions in SEQPOS"),
    ("0.8", "high", "9: 'high' is not a number"),
    (":GGAAU", ":GGA", "11: row 2 has 3 bases, but SEQPOS names base 4"),
    ("REACTIVITY:2", "REACTIVITY:1", "11: a second row 1"),
    ("READS:2", "NAME\tb\nREADS:2", "12: a second NAME; give each construct its own"),
    ("READS:2", "OFFSET\t9\nREADS:2", "12: a second OFFSET"),
    ("READS:2", "OFFSET:2\t9\nREADS:2", "12: a second OFFSET"),
    ("READS:2", "reads", "12: 'reads.* does not begin with a keyword"),
]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [*REFUSED, *(("r.rdat", NEW.replace(old, new), message) for old, new, message in REFUSED_RDAT)],
)
def test_errors_name_the_line(tmp_path, name, text, message):
    assert text != NEW
    with pytest.raises(InputError, match=f"{name}: line {message}"):
        read_reactivities(write(tmp_path / name, text))


@pytest.mark.parametrize(
    ("reactivities", "message"),
    [
        ([[0.1], None], "reactivities must be a file, a folder or a mapping; got a list"),
        ({"one": [[0.1], [0.2]]}, r"one: it must have one reactivity for each base; .* \(2, 1\)"),
        ({"one": None}, r"one: it must have one reactivity for each base; got shape \(\)"),
        ({"one": (value for value in [0.1])}, "one: its reactivities are not numbers: "),
        ({"one": [float("inf")]}, "one: a reactivity is infinite; write NaN or -999"),
        ({"one": np.array([1j])}, "one: its reactivities are not numbers: they are complex"),
        ({"one": ["x"]}, "one: its reactivities are not numbers: could not convert"),
    ],
)
def test_refuses_values_that_are_not_reactivities(reactivities, message):
    with pytest.raises(InputError, match=message):
        Probing(reactivities)


@pytest.mark.parametrize(
    ("values", "options", "sequence", "expected"),
    [
        # Negative values count as zero, and bases without data have no energy.
        ([2.0, -0.3, NAN, -999, -500], {}, "GGGGG", [-ENERGY / KT, 0.8 / KT, 0, 0, 0]),
        ([2.0] * 4, {"probe": "dms"}, "acGT", [-ENERGY / KT, -ENERGY / KT, 0, 0]),
        (np.ma.array([1, 0.0], mask=[True, False]), {}, "GC", [0, 0.8 / KT]),
        ([0.0], {"reactivity_slope": 1.8, "reactivity_intercept": -0.6}, "A", [0.6 / KT]),
    ],
)
def test_log_odds_follow_from_the_energies(values, options, sequence, expected):
    probing = Probing({"one": values}, ProbingOptions(**options))
    assert probing.log_odds(Structure("one", sequence, [])) == pytest.approx(expected)


def test_invalid_options_and_the_digest_of_data_and_options():
    with pytest.raises(OptionError, match="probe must be shape or dms; got 'cmct'"):
        ProbingOptions(probe="cmct")
    with pytest.raises(OptionError, match="reactivity_slope must be a number; got inf"):
        ProbingOptions(reactivity_slope=float("inf"))
    digests = {
        Probing(values, options).digest
        for values in ({"one": [0.5]}, {"two": [0.5]}, {"one": [0.25]})
        for options in (ProbingOptions(), ProbingOptions(reactivity_slope=1.0))
    }
    assert len(digests) == 6


def test_scores_are_shifted_by_the_log_odds_of_both_bases(folding_model):
    slope = 0.5 if isinstance(folding_model, ErnieRnaForSecondaryStructure) else 1.0
    plain = list(fold(RNAS, folding_model, matrix="scores"))
    reactivities = {**NO_DATA, "one": [2.0] + [NAN] * 11}
    one, two = fold(RNAS, folding_model, matrix="scores", reactivities=reactivities)
    expected = plain[0].matrix.copy()
    expected[0] -= ENERGY / KT / slope
    expected[:, 0] -= ENERGY / KT / slope
    np.testing.assert_allclose(one.matrix, expected, atol=2e-5)
    np.testing.assert_array_equal(two.matrix, plain[1].matrix)
    without_data = fold(RNAS, folding_model, matrix="scores", reactivities=NO_DATA)
    for one, other in zip(without_data, plain, strict=True):
        np.testing.assert_array_equal(one.matrix, other.matrix)
        assert one.structure == other.structure


def test_a_mismatch_is_an_error_before_the_model_is_loaded():
    with pytest.raises(
        ValueError, match=r"for 1 of the sequences: two; .* There are reactivities for one"
    ):
        fold(RNAS, "no-such-model", reactivities={"one": NO_DATA["one"]})
    with pytest.raises(ValueError, match="two has 10 nt but 3 reactivities"):
        fold(RNAS, "no-such-model", reactivities={**NO_DATA, "two": [0.1, 0.2, 0.3]})


@pytest.mark.parametrize(
    ("reactivities", "area"),
    [
        ([0.0, 1, 2, 3, 0.5], 1),
        ([5.0, 1, 2, 3, 4], 0),
        ([1.0, 1, NAN, 1, 1], 0.5),
        ([1, NAN, NAN, NAN, 1.0], NAN),
    ],
)
def test_the_auc_of_unpaired_bases(reactivities, area):
    structure = Structure("one", "GAAAC", [(0, 4)])
    assert unpaired_auc(structure, np.array(reactivities)) == pytest.approx(area, nan_ok=True)


@pytest.mark.skipif(not HAS_MINI, reason="this checkout has no mini")
def test_real_data_fit_the_crystal_structure_and_improve_the_prediction():
    examples = ernie_rna.examples()
    (known,) = read_structures(examples / "RNase-P.dbn")
    probing = Probing(examples / "RNase-P.shape")
    assert np.isnan(probing.of(known)).sum() == 33
    plain, probed = (
        next(fold(examples / "RNase-P.fasta", "mini", reactivities=data)).structure
        for data in (None, examples / "RNase-P.shape")
    )
    fits = probing.fits([plain, probed, known])
    assert fits[0] < fits[1]
    assert fits[2] > 0.75
