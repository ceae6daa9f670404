"""Reliabilities of bases, and the calibration of probabilities."""

import sys

import numpy as np
import pytest
import torch

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForSecondaryStructure
from ernie_rna.options import FoldOptions
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.structures.confidence import (
    base_reliabilities,
    expected_calibration_error,
    fit_calibration,
    reliability,
)
from ernie_rna.structures.fold import FoldTask, fold
from ernie_rna.structures.formats.structure import Structure

RNAS = ["GGGAAAUCC", "GGGGAAAAAACCUCC"]
HAIRPIN = Structure("hairpin", "GAAAC", [(0, 4)])


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def test_an_unpaired_base_is_reliable_if_no_pair_is_likely():
    probabilities = np.zeros((5, 5))
    probabilities[0, 4] = probabilities[4, 0] = 0.75
    probabilities[1, 4] = probabilities[4, 1] = 0.5
    probabilities[1, 3] = probabilities[3, 1] = 0.2
    assert base_reliabilities(probabilities, HAIRPIN).tolist() == [0.75, 0.4, 1, 0.8, 0.75]
    with pytest.raises(ValueError, match="hairpin has 5 bases"):
        base_reliabilities(probabilities[:4, :4], HAIRPIN)


@pytest.fixture
def head(config):
    settings = {"pair_heads": [5], "pair_blocks": 1, "pair_calibration": [0.5, 1.0]}
    return ErnieRnaForSecondaryStructure(ErnieRnaConfig(**{**config.to_dict(), **settings})).eval()


def test_probabilities_of_a_head_are_calibrated_logits(head):
    folds = (fold(RNAS, head, matrix=kind) for kind in ("probabilities", "scores"))
    for probabilities, logits in zip(*folds, strict=True):
        expected = sigmoid(0.5 * logits.matrix + 1)
        possible = probabilities.matrix > 0  # Bases that cannot pair have a probability of 0.
        assert possible.any()
        assert not possible.all()
        np.testing.assert_allclose(probabilities.matrix[possible], expected[possible], atol=1e-6)


def test_probabilities_without_a_head_are_clipped_contacts(model):
    task = FoldTask(FoldOptions(matrix="probabilities"))
    contacts = torch.tensor([[0.0, 1.3], [0.4, 1.0]])
    clipped = task._read_off(FastaRecord("x", "GC"), contacts, None, contacts).matrix
    assert clipped.tolist() == [[0.0, 1.0], [pytest.approx(0.4), 1.0]]
    folds = (fold(RNAS, model.ernie_rna, matrix=kind) for kind in ("probabilities", "contacts"))
    for probabilities, expected in zip(*folds, strict=True):
        np.testing.assert_allclose(probabilities.matrix, expected.matrix.clip(max=1), atol=1e-6)


def test_the_fitted_line_is_the_likeliest_and_reduces_the_calibration_error():
    """For pairs whose true log-odds are 0.5 * logit - 2."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 6, (100_000, 1))
    known = generator.random(len(logits)) < sigmoid(0.5 * logits[:, 0] - 2)
    slope, offset = fit_calibration(logits, known)
    assert slope == pytest.approx(0.5, abs=0.01)
    assert offset == pytest.approx(-2, abs=0.05)

    def loss(slope, offset):
        log_odds = slope * logits[:, 0] + offset
        return (np.logaddexp(0, log_odds) - known * log_odds).mean()

    for step in (1e-3, -1e-3):
        assert loss(slope + step, offset) > loss(slope, offset)
        assert loss(slope, offset + step) > loss(slope, offset)

    before = expected_calibration_error(reliability(sigmoid(logits[:, 0]), known))
    bins = reliability(sigmoid(slope * logits[:, 0] + offset), known)
    assert before > 0.1
    assert expected_calibration_error(bins) < 0.01
    assert sum(bin.count for bin in bins) == len(logits)
    assert all(bin.low <= bin.predicted <= bin.high for bin in bins)


@pytest.mark.parametrize(
    ("logits", "known", "message"),
    [
        ([0, 0, 0], [1, 1, 1], "all 3 are of one kind"),
        ([-1, 1], [0, 1], "no best line"),
        ([-1, 1], [1, 0], "no best line"),
        ([-1, 0, 1, 2], [1, 1, 0, 1], "known pairs do not have higher logits"),
    ],
)
def test_logits_that_cannot_be_calibrated(logits, known, message):
    with pytest.raises(ValueError, match=message):
        fit_calibration(np.array(logits, float)[:, None], np.array(known))


def test_the_error_without_scikit_learn_names_the_extra(monkeypatch):
    for name in ("sklearn", "sklearn.linear_model"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "ernie-rna\[train\]"'):
        fit_calibration(np.zeros((2, 1)), np.array([0, 1]))


def test_a_probability_of_one_is_in_the_last_bin():
    (last,) = reliability(np.array([1.0]), np.array([True]))
    assert (last.low, last.high) == (0.9, 1.0)
