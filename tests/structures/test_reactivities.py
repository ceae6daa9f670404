"""Chemical probing: its files, what it changes, and how well structures fit it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForSecondaryStructure, ErnieRnaModel

import ernie_rna
from ernie_rna.cli import main as cli
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.by_extension import read_structures
from ernie_rna.structures.formats.structure import Structure, StructureFormatError
from ernie_rna.structures.reactivities import Probing, read_reactivities, unpaired_auc
from tests.conftest import ROOT

HAS_MINI = (ROOT / "ernie_rna" / "mini" / "model.safetensors").is_file()
RNAS = {"one": "GGGGAAAACCCC", "two": "GGCGCAAGCC"}
ENERGY = 2.6 * np.log(3.0) - 0.8  # kcal/mol, of a reactivity of 2
NO_DATA = {id: [float("nan")] * len(sequence) for id, sequence in RNAS.items()}


def write(path, text):
    Path(path).write_text(text)
    return path


class TestFiles:
    def test_table_in_any_order(self, tmp_path):
        text = "position\tid\treactivity\tnote\n2\ta\t-999\tx\n1\ta\t0.5\t\n1\tb\tNA\t\n"
        found = read_reactivities(write(tmp_path / "r.tsv", text))
        assert found["a"].tolist() == [0.5, -999]
        assert np.isnan(found["b"]).all()

    def test_files_are_called_after_their_rna(self, tmp_path):
        write(tmp_path / "a.shape", "# a remark\n1 0.25\n2 nan\n")
        write(tmp_path / "b.map", "1\t0.25\t0.01\tG\n2\t1.5\t0.02\tA\n")
        found = read_reactivities(tmp_path)
        assert list(found) == ["a", "b"]
        assert found["b"].tolist() == [0.25, 1.5]

    def test_two_files_of_an_id(self, tmp_path):
        for name in ("a.map", "a.shape"):
            write(tmp_path / name, "1 0.25\n")
        with pytest.raises(ValueError, match=r"a\.shape: another file of .* has reactivities of a"):
            read_reactivities(tmp_path)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("r.tsv", "id\tposition\n", "r.tsv:1: no column reactivity"),
            ("r.tsv", "id\tposition\treactivity\n", "r.tsv:1: no reactivities"),
            ("r.shape", "1 0.5\n0 1\n", "r.shape:2: '0' is no position"),
            ("r.shape", "1 0.5\n2 low\n", "r.shape:2: 'low' is no number; NaN or -999"),
            ("r.shape", "1 0.5\n1 0.5\n", "r.shape:2: position 1 of r is there already"),
            ("r.shape", "1 0.5\n3 0.5\n", "position 2 of r is missing; write -999"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_line(self, tmp_path, name, text, message):
        with pytest.raises(StructureFormatError, match=message):
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
        found = Probing({"one": [2.0] * 4}, probe="dms").log_odds(Structure("one", "acGT", []))
        assert (found != 0).tolist() == [True, True, False, False]

    def test_other_constants(self):
        probing = Probing({"one": [0.0]}, slope=1.8, intercept=-0.6)
        assert probing.log_odds(Structure("one", "A", [])) == pytest.approx([0.6 / 0.61634], 1e-4)

    @pytest.mark.parametrize(
        ("reactivities", "options", "message"),
        [
            ({"one": [0.0]}, {"probe": "cmct"}, "probe must be one of shape, dms; got 'cmct'"),
            ({"one": [float("inf")]}, {}, "one: a reactivity is infinite"),
        ],
    )
    def test_what_cannot_be(self, reactivities, options, message):
        with pytest.raises(ValueError, match=message):
            Probing(reactivities, **options)


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

    def test_the_command(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        write("known.dbn", ">a\nGAAAC\n(...)\n>b\nGAAAC\n(...)\n")
        write("found.dbn", ">a\nGAAAC\n.....\n>b\nGAAAC\n(...)\n")
        rows = [f"{id}\t{place}\t{2 * place % 5}\n" for id in "ab" for place in range(1, 6)]
        write("r.tsv", "id\tposition\treactivity\n" + "".join(rows))
        command = ["evaluate", "found.dbn", "known.dbn", "--reactivity", "r.tsv", "-o", "out.tsv"]
        assert cli.main(command) == 0
        assert (
            "predicted 0.8333 (1 of 2 sequences), known 0.8333 (2 of 2" in capsys.readouterr().out
        )
        header, first, second = Path("out.tsv").read_text().splitlines()
        assert header.endswith("f1_shifted\tpredicted_reactivity_auc\tknown_reactivity_auc")
        assert first.endswith("\tnan\t0.833333")
        assert second.endswith("\t0.833333\t0.833333")
        assert cli.main(["evaluate", "found.dbn", "--reactivity", "r.tsv", "-o", "-"]) == 0
        assert capsys.readouterr().out == "id\tpredicted_reactivity_auc\na\tnan\nb\t0.833333\n"


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
