"""Calibration of random logits that are higher at the known pairs of a table."""

import json

import numpy as np
import pytest

from ernie_rna.structures.fold import Fold
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.structure import Structure
from recipes.pretraining.rnas import Rna
from scripts import calibrate_pairs
from tests.recipes.conftest import HEADER

HAIRPIN = "GGGGGGAAAACCCCCC", "((((((....))))))"
ROWS = 40


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a configuration and a table, and random logits instead of a model's."""
    random = np.random.default_rng(0)
    pairs = tuple(np.array(from_dot_bracket(HAIRPIN[1])).T)

    def random_map(rna, scale):
        """Symmetric noise with this standard deviation, and as much higher at known pairs."""
        values = random.normal(0, scale, (len(rna.sequence),) * 2)
        values[pairs] += scale
        return np.triu(values) + np.triu(values, 1).T

    def fold(rnas, folder, matrix, min_loop):
        for rna in rnas:
            yield Fold(Structure(rna.id, rna.sequence, []), random_map(rna, 2))

    class Prior:
        def __init__(self, name):
            assert name == "vienna"

        def log_odds(self, rna):
            return random_map(rna, 3)

    monkeypatch.setattr(calibrate_pairs, "fold", fold)
    monkeypatch.setattr(calibrate_pairs, "Prior", Prior)
    monkeypatch.setattr(calibrate_pairs.importlib.util, "find_spec", lambda name: True)
    config = {"model_type": "ernie_rna", "architectures": ["ErnieRnaForPreTraining"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    sequence, structure = HAIRPIN
    rows = [f"{n}\t{sequence}\t{structure}\tF{n % 8}\tvalidation" for n in range(ROWS)]
    (tmp_path / "known.tsv").write_text("\n".join([HEADER, *rows, ""]))
    return tmp_path


@pytest.fixture
def command(folder):
    return [str(folder), str(folder / "known.tsv")]


def test_the_fitted_lines_are_written_into_the_configuration(folder, command, capsys):
    assert calibrate_pairs.main(command) == 0
    printed = capsys.readouterr().out
    assert f"{ROWS // 2} and {ROWS // 2} sequences of validation" in printed
    config = json.loads((folder / "config.json").read_text())
    slope, offset = config["pair_calibration"]
    # Normal logits with means 2 apart and variance 4 have log-odds of slope 2 / 4.
    assert slope == pytest.approx(0.5, abs=0.15)
    assert f"{slope:.4f} x logit {offset:+.4f}" in printed
    assert config["pair_prior"][0] in calibrate_pairs.WEIGHTS
    assert config["pair_prior"][1] in calibrate_pairs.OFFSETS
    model, prior, offset = config["pair_prior_calibration"]
    # The model's log-odds are calibrated already; those of the prior have the slope 3 / 9.
    assert model == pytest.approx(1, abs=0.3)
    assert prior == pytest.approx(1 / 3, abs=0.15)
    line = f"{model:.4f} x log-odds {prior:+.4f} x those of ViennaRNA {offset:+.4f}"
    assert line in printed
    assert printed.count("| probability | pairs |") == 2
    assert config["model_type"] == "ernie_rna"


def test_without_vienna_there_is_no_prior_and_a_dry_run_writes_nothing(
    folder, command, monkeypatch
):
    monkeypatch.setattr(calibrate_pairs.importlib.util, "find_spec", lambda name: None)
    before = (folder / "config.json").read_text()
    assert calibrate_pairs.main([*command, "--dry-run"]) == 0
    assert (folder / "config.json").read_text() == before
    assert calibrate_pairs.main(command) == 0
    config = json.loads((folder / "config.json").read_text())
    assert len(config["pair_calibration"]) == 2
    assert "pair_prior" not in config


def test_a_model_without_a_head_is_refused(folder, command, capsys):
    (folder / "config.json").write_text('{"model_type": "ernie_rna", "architectures": []}')
    assert calibrate_pairs.main(command) == 1
    assert "no head for structures" in capsys.readouterr().err


def test_no_predicted_pair_is_an_error(command, monkeypatch, capsys):
    monkeypatch.setattr(calibrate_pairs, "predict", lambda maps, *args: [[] for _ in maps])
    assert calibrate_pairs.main(command) == 1
    assert "no pair is predicted for the other half" in capsys.readouterr().err


def test_a_family_is_in_one_half_only():
    rnas = [Rna(str(n), "ACGU", "", "(..)", f"F{n % 4}") for n in range(20)]
    first, second = calibrate_pairs.halves(rnas, 3)
    assert len(first) == len(second) == 6
    assert not {rna.family for rna in first} & {rna.family for rna in second}
    with pytest.raises(ValueError, match="two families"):
        calibrate_pairs.halves(rnas[:1], 3)
