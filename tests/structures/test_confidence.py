"""Reliabilities of bases, and probabilities that come true."""

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


def test_unpaired_bases_are_sure_where_nothing_else_is_likely():
    probabilities = np.zeros((5, 5))
    probabilities[0, 4] = probabilities[4, 0] = 0.75
    probabilities[1, 4] = probabilities[4, 1] = 0.5
    probabilities[1, 3] = probabilities[3, 1] = 0.2
    assert base_reliabilities(probabilities, HAIRPIN).tolist() == [0.75, 0.4, 1, 0.8, 0.75]
    with pytest.raises(ValueError, match="hairpin has 5 bases"):
        base_reliabilities(probabilities[:4, :4], HAIRPIN)


@pytest.fixture
def head(config):
    sizes = {"pair_heads": [5], "pair_blocks": 1, "pair_calibration": [0.5, 1.0]}
    torch.manual_seed(0)
    return ErnieRnaForSecondaryStructure(ErnieRnaConfig(**{**config.to_dict(), **sizes})).eval()


def test_a_head_gives_probabilities_by_its_calibration(head):
    ways = (fold(RNAS, head, matrix=way) for way in ("probabilities", "scores"))
    for made, logits in zip(*ways, strict=True):
        expected = sigmoid(0.5 * logits.matrix + 1)
        mine = made.matrix > 0
        assert mine.any()
        assert not mine.all()
        np.testing.assert_allclose(made.matrix[mine], expected[mine], atol=1e-6)


def test_without_a_head_the_contacts_rank(model):
    task = FoldTask(FoldOptions(matrix="probabilities"))
    given = torch.tensor([[0.0, 1.3], [0.4, 1.0]])
    strengths = task._read_off(FastaRecord("x", "GC"), given, None, given).matrix
    assert strengths.tolist() == [[0.0, 1.0], [pytest.approx(0.4), 1.0]]
    ways = (fold(RNAS, model.ernie_rna, matrix=way) for way in ("probabilities", "contacts"))
    for made, expected in zip(*ways, strict=True):
        np.testing.assert_allclose(made.matrix, expected.matrix.clip(max=1), atol=1e-6)


def test_the_line_is_the_likeliest_and_the_error_goes_with_it():
    """Of pairs that are known with the probability of 0.5 * logit - 2."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 6, (100_000, 1))
    known = random.random(len(logits)) < sigmoid(0.5 * logits[:, 0] - 2)
    slope, offset = fit_calibration(logits, known)
    assert slope == pytest.approx(0.5, abs=0.01)
    assert offset == pytest.approx(-2, abs=0.05)

    def loss(slope, offset):
        log_odds = slope * logits[:, 0] + offset
        return (np.logaddexp(0, log_odds) - known * log_odds).mean()

    for more, up in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        assert loss(slope + more, offset + up) > loss(slope, offset)

    before = expected_calibration_error(reliability(sigmoid(logits[:, 0]), known))
    bins = reliability(sigmoid(slope * logits[:, 0] + offset), known)
    assert before > 0.1
    assert expected_calibration_error(bins) < 0.01
    assert sum(one.count for one in bins) == len(logits)
    assert all(one.low <= one.predicted <= one.high for one in bins)


@pytest.mark.parametrize(
    ("logits", "known", "message"),
    [
        ([0, 0, 0], [1, 1, 1], "all 3 are of one kind"),
        ([-1, 1], [0, 1], "no best line"),
        ([-1, 1], [1, 0], "no best line"),
        ([-1, 0, 1, 2], [1, 1, 0, 1], "known pairs do not have higher logits"),
    ],
)
def test_logits_that_no_line_fits(logits, known, message):
    with pytest.raises(ValueError, match=message):
        fit_calibration(np.array(logits, float)[:, None], np.array(known))


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    for name in ("sklearn", "sklearn.linear_model"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "ernie-rna\[train\]"'):
        fit_calibration(np.zeros((2, 1)), np.array([0, 1]))


def test_a_probability_of_one_is_in_the_last_bin():
    (last,) = reliability(np.array([1.0]), np.array([True]))
    assert (last.low, last.high) == (0.9, 1.0)
