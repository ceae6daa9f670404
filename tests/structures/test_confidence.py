"""Probabilities of pairs and reliabilities of bases."""

import numpy as np
import pytest
import torch

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForSecondaryStructure
from ernie_rna.structures.calibration import CalibrationLine
from ernie_rna.structures.confidence import base_reliabilities, pair_probabilities
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.structures.pairing_maps import load_maps

RNAS = ["GGGAAAUCC", "GGGGAAAAAACCUCC"]
HAIRPIN = Structure("hairpin", "GAAAC", [(0, 4)])


def test_probabilities_are_of_pairs_that_may_be():
    logits = torch.zeros(2, 5, 5)
    logits[0, 0, 4] = logits[0, 4, 0] = 2.0
    probabilities = pair_probabilities(logits, ["GAAAC", "GU"], min_loop=3)
    assert probabilities[0, 0, 4] == pytest.approx(1 / (1 + np.exp(-2)))
    assert probabilities.sum() == probabilities[0, 0, 4] + probabilities[0, 4, 0]
    assert pair_probabilities(logits, ["GAAAC", "GU"])[1, 0, 1] == 0.5
    calibrated = pair_probabilities(logits, ["GAAAC", "GU"], calibration=CalibrationLine(0.5, -1.0))
    assert calibrated[0, 0, 4] == 0.5


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
    scores = [folded.matrix for folded in fold(RNAS, head, matrix="scores")]
    for made, logits in zip(fold(RNAS, head, matrix="probabilities"), scores, strict=True):
        expected = 1 / (1 + np.exp(-(0.5 * logits + 1)))
        mine = made.matrix > 0
        assert mine.any()
        assert not mine.all()
        np.testing.assert_allclose(made.matrix[mine], expected[mine], atol=1e-6)


def test_without_a_head_the_contacts_rank(model):
    maps = load_maps(model.ernie_rna)
    strengths = maps.probabilities(None, torch.tensor([[0.0, 1.3], [0.4, 1.0]]), "GC", 0)
    assert strengths.tolist() == [[0.0, 1.0], [pytest.approx(0.4), 1.0]]
    contacts = [folded.matrix for folded in fold(RNAS, model.ernie_rna, matrix="contacts")]
    for made, expected in zip(
        fold(RNAS, model.ernie_rna, matrix="probabilities"), contacts, strict=True
    ):
        np.testing.assert_allclose(made.matrix, expected.clip(max=1), atol=1e-6)
