"""Calibration of logits that are drawn around the known pairs of a table."""

import json

import numpy as np
import pytest

from ernie_rna.structures.fold import Fold
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.structure import Structure
from recipes.pretraining.rnas import Rna
from scripts import calibrate_pairs

HAIRPIN = "GGGGGGAAAACCCCCC", "((((((....))))))"
ROWS = 40


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A configuration without a model, whose logits are 2 higher where pairs are known."""
    random = np.random.default_rng(0)
    pairs = from_dot_bracket(HAIRPIN[1])

    def fold(rnas, folder, matrix, min_loop):
        for id, text in ((rna.id, rna.sequence) for rna in rnas):
            logits = random.normal(0, 2, (len(text), len(text)))
            logits[tuple(np.array(pairs).T)] += 2
            yield Fold(Structure(id, text, []), np.triu(logits) + np.triu(logits, 1).T)

    class Prior:
        """Log-odds that are 3 higher where pairs are known, with as much noise."""

        def __init__(self, name):
            assert name == "vienna"

        def log_odds(self, rna):
            values = random.normal(0, 3, (len(rna.sequence),) * 2)
            values[tuple(np.array(pairs).T)] += 3
            return np.triu(values) + np.triu(values, 1).T

    monkeypatch.setattr(calibrate_pairs, "fold", fold)
    monkeypatch.setattr(calibrate_pairs, "Prior", Prior)
    monkeypatch.setattr(calibrate_pairs.importlib.util, "find_spec", lambda name: True)
    architecture = "ErnieRnaForPreTraining"
    config = {"model_type": "ernie_rna", "architectures": [architecture]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    rows = [f"{n}\t{HAIRPIN[0]}\t{HAIRPIN[1]}\tF{n % 8}\tvalidation\n" for n in range(ROWS)]
    (tmp_path / "known.tsv").write_text(
        "id\tsequence\tdot_bracket\tfamily\tsplit\n" + "".join(rows)
    )
    return tmp_path


def test_the_line_goes_into_the_configuration(folder, capsys):
    assert calibrate_pairs.main([str(folder), str(folder / "known.tsv")]) == 0
    printed = capsys.readouterr().out
    assert f"{ROWS // 2} and {ROWS // 2} sequences of validation" in printed
    config = json.loads((folder / "config.json").read_text())
    slope, offset = config["pair_calibration"]
    # Normal logits with means 2 apart and variance 4 have log-odds of slope 2 / 4.
    assert slope == pytest.approx(0.5, abs=0.15)
    assert f"{slope:.4f} x logit {offset:+.4f}" in printed
    assert config["pair_prior"][0] in calibrate_pairs.WEIGHTS
    assert config["pair_prior"][1] in calibrate_pairs.OFFSETS
    mine, prior, rest = config["pair_prior_calibration"]
    # Of the log-odds by the logits all counts, and of the prior's 3 / 9.
    assert mine == pytest.approx(1, abs=0.3)
    assert prior == pytest.approx(1 / 3, abs=0.15)
    line = f"{mine:.4f} x log-odds {prior:+.4f} x those of ViennaRNA {rest:+.4f}"
    assert line in printed
    assert printed.count("| probability | pairs |") == 2
    assert config["model_type"] == "ernie_rna"


def test_without_vienna_there_is_no_prior_and_a_dry_run_writes_nothing(folder, monkeypatch):
    monkeypatch.setattr(calibrate_pairs.importlib.util, "find_spec", lambda name: None)
    before, command = (folder / "config.json").read_text(), [str(folder), str(folder / "known.tsv")]
    assert calibrate_pairs.main([*command, "--dry-run"]) == 0
    assert (folder / "config.json").read_text() == before
    assert calibrate_pairs.main(command) == 0
    config = json.loads((folder / "config.json").read_text())
    assert len(config["pair_calibration"]) == 2
    assert "pair_prior" not in config


def test_a_model_without_a_head_is_refused(folder, capsys):
    (folder / "config.json").write_text('{"model_type": "ernie_rna", "architectures": []}')
    assert calibrate_pairs.main([str(folder), str(folder / "known.tsv")]) == 1
    assert "no head for structures" in capsys.readouterr().err


def test_without_a_predicted_pair_it_says_so(folder, monkeypatch, capsys):
    monkeypatch.setattr(calibrate_pairs, "predict", lambda maps, *rest: [[] for _ in maps])
    assert calibrate_pairs.main([str(folder), str(folder / "known.tsv")]) == 1
    assert "no pair is predicted for the other half" in capsys.readouterr().err


def test_families_are_in_one_half_alone():
    rnas = [Rna(str(n), "ACGU", "", "(..)", f"F{n % 4}") for n in range(20)]
    fitted, others = calibrate_pairs.halves(rnas, 3)
    assert len(fitted) == len(others) == 6
    assert not {rna.family for rna in fitted} & {rna.family for rna in others}
    with pytest.raises(ValueError, match="two families"):
        calibrate_pairs.halves(rnas[:1], 3)
