"""The maps that structures are read off: those of the authors' trained head, whose .ct text comes
out to the byte in any batch, and those put together from windows."""

import numpy as np
import pytest
import torch

from ernie_rna.model.modeling_ernie_rna import ErnieRnaForSecondaryStructure, ErnieRnaModel
from ernie_rna.run.loading import load_model
from ernie_rna.structures.fold import fold
from ernie_rna.structures.pairing_maps import (
    NOT_SEEN,
    load_maps,
    windowed_map,
)
from tests.conftest import lively
from tests.golden_folder import head_checkpoint, write_golden_folder
from tests.structures.conftest import random_rnas

# The optimisation enlarges what logits are off: from float64, the authors' contacts are so by up to
# 1.23e-4. Twice that and 1e-6.
CONTACT_TOLERANCE = 2.5e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_golden_folder(
        tmp_path_factory.mktemp("structure"), head_checkpoint("secondary_structure")
    )


@pytest.fixture(scope="module")
def model(folder):
    return ErnieRnaForSecondaryStructure.from_pretrained(folder).eval()


@pytest.mark.parametrize(
    ("attention", "batch_tokens"), [("sdpa", 1), ("sdpa", 4096), ("eager", 300)]
)
def test_golden_structures_in_any_batch(model, check_golden, rnas, attention, batch_tokens):
    how = {"min_loop": 0, "min_stem": 1, "matrix": "contacts", "batch_tokens": batch_tokens}
    folds = fold(rnas, model, attention=attention, **how)
    check_golden(folds, "secondary_structure", CONTACT_TOLERANCE)


def test_the_folder_decides_unless_a_layer_or_head_is_asked_for(folder, model, rnas):
    def made(source, **asked):
        (one,) = fold([rnas["trna_arg"]], source, matrix="scores", **asked)
        return one.matrix

    maps, scores = load_maps(str(folder)), load_maps(str(folder), head=5)
    assert (maps.certainty, scores.certainty) == ("probability", "contact")
    # A map counts its squares.
    assert maps.squared_from < scores.squared_from
    assert 0 < maps.cost < maps.model.config.hidden_size == scores.cost
    np.testing.assert_array_equal(made(folder), made(model))
    encoder = load_model(folder, device="cpu")
    for asked in ({"layer": -1}, {"head": 5}):
        np.testing.assert_array_equal(made(folder, **asked), made(encoder))
    assert (made(folder) != made(encoder)).any()


def test_pairing_scores_are_those_of_the_configuration_unless_asked(model, rnas, monkeypatch):
    def matrix(**options):
        (one,) = fold([rnas["trna_arg"]], model, matrix="scores", **options)
        return one.matrix

    by_default, zero = matrix(), matrix(pairing_scores="zero")
    assert np.abs(zero - by_default).max() > 1
    monkeypatch.setattr(model.config, "pairing_scores", "zero")
    np.testing.assert_array_equal(matrix(), zero)
    np.testing.assert_array_equal(matrix(pairing_scores="sequence"), by_default)


def test_the_threshold_is_that_of_the_configuration(model, rnas, monkeypatch):
    monkeypatch.setattr(model.config, "pair_threshold", 1e6)  # above every logit
    (one,) = fold([rnas["trna_arg"]], model, min_stem=1)
    assert one.structure.pairs == []


# ---------------------------------------------------------------------------------------------
# Windows


def test_a_pair_comes_from_where_it_is_farthest_from_an_edge():
    """Windows of 10 at 0, 5 and 10 of 20 bases, each with its start for a score."""
    starts = iter((0, 5, 10))
    merged = windowed_map(lambda text: torch.full((10, 10), float(next(starts))), "A" * 20, 10, 5)
    assert merged[0, 3] == 0  # The end of the sequence is no edge.
    assert merged[5, 9] == 0  # At an edge of both; the first stays.
    assert merged[5, 7] == 0
    assert merged[7, 9] == 5
    assert merged[13, 14] == 10
    assert merged[0, 12] == merged[12, 0] == NOT_SEEN


@pytest.fixture
def encoder(config):
    config.max_position_embeddings = 62
    return lively(ErnieRnaModel(config, add_pooling_layer=False)).eval()


def test_windows_equal_the_whole_where_context_does_not_matter(encoder):
    """Layer 0, the projected pairing scores, knows no context."""
    rnas = random_rnas(40, 110)
    options = {"layer": 0, "matrix": "scores"}
    short, long = fold(rnas, encoder, long="window", overlap=30, **options)
    whole_short, whole_long = fold(rnas, encoder, long="full", **options)
    np.testing.assert_array_equal(short.matrix, whole_short.matrix)
    seen = long.matrix != NOT_SEEN
    np.testing.assert_allclose(long.matrix[seen], whole_long.matrix[seen], atol=1e-6)
    apart = np.abs(np.subtract.outer(np.arange(110), np.arange(110)))
    assert seen[apart <= 30].all()
    assert not seen[apart >= 60].any()
    assert all(j - i < 60 for i, j in long.structure.pairs)


def test_the_memory_of_a_very_long_sequence_is_told(encoder):
    with pytest.warns(UserWarning, match=r"^giant has 30000 nt: .* take 18\.0 GB of memory$"):
        fold({"short": "ACGU", "giant": "A" * 30000}, encoder, long="window", overlap=30)
