"""Chemical probing: its files, what it changes, and how well structures fit it."""

import doctest
import gzip
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import ernie_rna
from ernie_rna.cli import main as cli
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForSecondaryStructure, ErnieRnaModel
from ernie_rna.options import OptionError, ProbingOptions
from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures import reactivities as module
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.structures.reactivities import Probing, read_reactivities, unpaired_auc
from tests.conftest import ROOT

HAS_MINI = (ROOT / "ernie_rna" / "mini" / "model.safetensors").is_file()
RNAS = {"one": "GGGGAAAACCCC", "two": "GGCGCAAGCC"}
ENERGY = 2.6 * np.log(3.0) - 0.8  # kcal/mol, of a reactivity of 2
NO_DATA = {id: [float("nan")] * len(sequence) for id, sequence in RNAS.items()}


def write(path, text):
    Path(path).write_text(text)
    return path


def test_doctests():
    assert doctest.testmod(module).failed == 0


class TestFiles:
    def test_table_in_any_order(self, tmp_path):
        text = "position\tid\treactivity\tnote\n2\ta first\t-999\tx\n1\ta\t0.5\t\n1\tb\tNA\t\n"
        found = read_reactivities(write(tmp_path / "r.tsv", text))
        assert found["a"].values.tolist() == [0.5, -999]
        assert np.isnan(found["b"].values).all()

    def test_table_of_a_spreadsheet(self, tmp_path):
        text = "\ufeffid;position;reactivity\na;1;0,5\na;2;1,25\n"
        with pytest.warns(UserWarning, match="semicolons"):
            found = read_reactivities(write(tmp_path / "r.csv", text))
        assert found["a"].values.tolist() == [0.5, 1.25]

    def test_files_are_called_after_their_rna(self, tmp_path):
        write(tmp_path / "a.shape", "# a remark\n1 0.25\n2 nan\n")
        write(tmp_path / "b.map", "1\t0.25\t0.01\tG\n2\t1.5\t0.02\tA\n")
        (tmp_path / "c.shape.gz").write_bytes(gzip.compress(b"1 0.5\n"))
        found = read_reactivities(tmp_path)
        assert list(found) == ["a", "b", "c"]
        assert found["b"].values.tolist() == [0.25, 1.5]

    def test_positions_left_out_have_no_data(self, tmp_path):
        found = read_reactivities(write(tmp_path / "a.shape", "2 0.25\n5 1\n"))
        np.testing.assert_array_equal(found["a"].values, [np.nan, 0.25, np.nan, np.nan, 1])

    def test_bases_of_a_file_are_those_of_the_sequence(self, tmp_path):
        write(tmp_path / "one.shape", "1 G 0.25\n2 A\n4 t 1.5\n5 N 0\n")
        probing = Probing(tmp_path / "one.shape")
        values = probing.of(Structure("one", "gacuc", []))
        np.testing.assert_array_equal(values, [0.25, np.nan, np.nan, 1.5, 0])
        with pytest.raises(ValueError, match="base 4 of one is G, and t in its reactivities"):
            probing.of(Structure("one", "GACGC", []))

    def test_two_files_of_an_id(self, tmp_path):
        for name in ("a.map", "a.shape"):
            write(tmp_path / name, "1 0.25\n")
        with pytest.raises(ValueError, match=r"a\.shape: another file of .* has reactivities of a"):
            read_reactivities(tmp_path)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("r.tsv", "id\tposition\n", "r.tsv: line 1: no column reactivity"),
            ("r.tsv", "id\tposition\treactivity\n", "r.tsv: line 1: no reactivities"),
            ("r.shape", "1 0.5\n0 1\n", "r.shape: line 2: '0' is no position"),
            ("r.shape", "1 0.5\n2 low\n", "r.shape: line 2: 'low' is no number; NaN or -999"),
            ("r.shape", "1 0.5\n1 0.5\n", "r.shape: line 2: position 1 of r is there already"),
            ("r.shape", "1 0.5\n1000000 0.5\n", "'1000000' is no position, which .* to 999999"),
            ("r.shape", "G 0.5\n", "r.shape: line 1: 'G' is no position"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_line(self, tmp_path, name, text, message):
        with pytest.raises(InputError, match=message):
            read_reactivities(write(tmp_path / name, text))

    def test_other_files(self, tmp_path):
        with pytest.raises(ValueError, match=r"r.txt: the extension must be one of .tsv, .shape"):
            read_reactivities(write(tmp_path / "r.txt", ""))
        with pytest.raises(ValueError, match="no file of reactivities"):
            read_reactivities(tmp_path)


class TestEnergies:
    def test_missing_values_change_nothing_and_negative_ones_are_zero(self):
        record = Structure("one", "GGGGG", [])
        found = Probing({"one": [2.0, -0.3, float("nan"), -999, -500]}).log_odds(record)
        kt = 0.0019872 * 310.15
        assert found == pytest.approx([-ENERGY / kt, 0.8 / kt, 0, 0, 0])

    def test_dms_tells_of_a_and_c(self):
        probing = Probing({"one": [2.0] * 4}, ProbingOptions(probe="dms"))
        found = probing.log_odds(Structure("one", "acGT", []))
        assert (found != 0).tolist() == [True, True, False, False]

    def test_other_constants(self):
        options = ProbingOptions(reactivity_slope=1.8, reactivity_intercept=-0.6)
        probing = Probing({"one": [0.0]}, options)
        assert probing.log_odds(Structure("one", "A", [])) == pytest.approx([0.6 / 0.61634], 1e-4)

    def test_what_cannot_be(self):
        with pytest.raises(OptionError, match="probe must be shape or dms; got 'cmct'"):
            ProbingOptions(probe="cmct")
        with pytest.raises(OptionError, match="reactivity_slope must be a number; got inf"):
            ProbingOptions(reactivity_slope=float("inf"))
        with pytest.raises(ValueError, match="one: a reactivity is infinite"):
            Probing({"one": [float("inf")]})

    def test_the_digest_is_of_all_that_counts(self):
        digests = {
            Probing(values, options).digest
            for values in ({"one": [0.5]}, {"two": [0.5]}, {"one": [0.25]})
            for options in (ProbingOptions(), ProbingOptions(reactivity_slope=1.0))
        }
        assert len(digests) == 6


class TestFold:
    @pytest.fixture(params=["scores", "head"])
    def model(self, config, request):
        torch.manual_seed(0)
        if request.param == "scores":
            return ErnieRnaModel(config, add_pooling_layer=False).eval()
        config.pair_calibration = [0.5, -1.0]
        return ErnieRnaForSecondaryStructure(config).eval()

    def test_the_map_is_shifted_by_both_bases(self, model):
        probing = {**NO_DATA, "one": [2.0] + [float("nan")] * 11}
        plain = {one.structure.id: one.matrix for one in fold(RNAS, model, matrix="scores")}
        slope = 0.5 if isinstance(model, ErnieRnaForSecondaryStructure) else 1.0
        for one in fold(RNAS, model, matrix="scores", reactivities=probing):
            expected = plain[one.structure.id].copy()
            if one.structure.id == "one":
                shift = -ENERGY / 0.0019872 / 310.15 / slope
                expected[0] += shift
                expected[:, 0] += shift
            np.testing.assert_allclose(one.matrix, expected, atol=2e-5)

    def test_no_data_changes_nothing(self, model):
        plain = list(fold(RNAS, model, matrix="probabilities"))
        for one, other in zip(
            plain, fold(RNAS, model, matrix="probabilities", reactivities=NO_DATA), strict=True
        ):
            assert one.structure == other.structure
            np.testing.assert_array_equal(one.matrix, other.matrix)

    def test_what_does_not_fit_is_told_before_the_model_is_loaded(self):
        with pytest.raises(ValueError, match="no reactivities of 1 sequences: two"):
            fold(RNAS, "no-such-model", reactivities={"one": NO_DATA["one"]})
        with pytest.raises(ValueError, match="two has 10 nt and 3 reactivities"):
            fold(RNAS, "no-such-model", reactivities={**NO_DATA, "two": [0.1, 0.2, 0.3]})


class TestFit:
    def test_area(self):
        structure = Structure("one", "GAAAC", [(0, 4)])
        assert unpaired_auc(structure, np.array([0.0, 1, 2, 3, 0.5])) == 1.0
        assert unpaired_auc(structure, np.array([5.0, 1, 2, 3, 4])) == 0.0
        assert unpaired_auc(structure, np.array([1.0, 1, np.nan, 1, 1])) == 0.5
        assert np.isnan(unpaired_auc(structure, np.array([1, np.nan, np.nan, np.nan, 1.0])))


def test_unpaired_bases_of_the_crystal_structure_are_the_reactive_ones():
    examples = ernie_rna.examples()
    (known,) = read_structures(examples / "RNase-P.dbn")
    values = Probing(read_reactivities(examples / "RNase-P.shape")).of(known)
    assert np.isnan(values).sum() == 33
    assert unpaired_auc(known, values) > 0.75


@pytest.mark.skipif(not HAS_MINI, reason="this checkout has no mini")
def test_real_data_make_the_structure_fit_them_better(tmp_path, capsys):
    examples = ernie_rna.examples()
    command = ["fold", str(examples / "RNase-P.fasta"), "-m", "mini", "--quiet", "-o"]
    data = ["--reactivity", str(examples / "RNase-P.shape")]
    assert cli.main([*command, str(tmp_path / "plain.dbn")]) == 0
    assert cli.main([*command, str(tmp_path / "probed.dbn"), *data]) == 0
    fits = []
    for name in ("plain.dbn", "probed.dbn"):
        assert cli.main(["evaluate", str(tmp_path / name), *data]) == 0
        fits.append(float(re.search(r"predicted ([\d.]+)", capsys.readouterr().out)[1]))
    assert fits[0] < fits[1]
