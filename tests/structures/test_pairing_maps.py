"""The maps from which structures are predicted: those of the authors' trained head, whose .ct files
are reproduced exactly in any batch, and those merged from windows."""

import numpy as np
import pytest
import torch

from ernie_rna.model.modeling_ernie_rna import ErnieRnaForSecondaryStructure, ErnieRnaModel
from ernie_rna.run.loading import load_model
from ernie_rna.structures.fold import fold
from ernie_rna.structures.pairing_maps import NOT_SEEN, load_maps, windowed_map
from tests.conftest import lively
from tests.golden_folder import head_checkpoint, write_golden_folder
from tests.structures.conftest import random_rnas

# The optimisation enlarges the errors of logits: the authors' contacts differ from those in float64
# by up to 1.23e-4. This is twice that, plus 1e-6.
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
    options = {"min_loop": 0, "min_stem": 1, "matrix": "contacts", "batch_tokens": batch_tokens}
    folds = fold(rnas, model, attention=attention, **options)
    check_golden(folds, "secondary_structure", CONTACT_TOLERANCE)


@pytest.fixture
def fold_trna(rnas):
    """A function that folds one RNA, with its scores."""
    rna = [rnas["trna_arg"]]
    return lambda model, **options: next(fold(rna, model, matrix="scores", **options))


def test_the_head_is_used_unless_a_layer_or_head_is_requested(folder, model, fold_trna):
    maps, scores = load_maps(str(folder)), load_maps(str(folder), head=5)
    assert (maps.certainty, scores.certainty) == ("probability", "contact")
    # The maps of a structure head dominate the memory from a shorter length on.
    assert maps.squared_from < scores.squared_from
    assert 0 < maps.cost < maps.model.config.hidden_size == scores.cost
    by_head = fold_trna(folder).matrix
    np.testing.assert_array_equal(by_head, fold_trna(model).matrix)
    by_attention = fold_trna(load_model(folder, device="cpu")).matrix
    for option in ({"layer": -1}, {"head": 5}):
        np.testing.assert_array_equal(fold_trna(folder, **option).matrix, by_attention)
    assert (by_head != by_attention).any()


def test_pairing_scores_and_threshold_default_to_the_configuration(model, fold_trna, monkeypatch):
    by_default, zero = fold_trna(model), fold_trna(model, pairing_scores="zero")
    assert np.abs(zero.matrix - by_default.matrix).max() > 1
    monkeypatch.setattr(model.config, "pairing_scores", "zero")
    np.testing.assert_array_equal(fold_trna(model).matrix, zero.matrix)
    options = {"pairing_scores": "sequence", "min_stem": 1}
    by_option = fold_trna(model, **options)
    np.testing.assert_array_equal(by_option.matrix, by_default.matrix)
    assert by_option.structure.pairs
    monkeypatch.setattr(model.config, "pair_threshold", 1e6)  # above every logit
    assert fold_trna(model, **options).structure.pairs == []


def test_a_pair_has_the_score_of_the_window_where_it_is_farthest_from_an_edge():
    """Windows of 10 bases start at 0, 5 and 10 of 20 bases; all scores of one are its start."""
    starts = iter((0, 5, 10))
    merged = windowed_map(lambda text: torch.full((10, 10), float(next(starts))), "A" * 20, 10, 5)
    assert merged[0, 3] == 0  # The end of the sequence does not count as an edge.
    assert merged[5, 9] == 0  # It is at an edge of both windows, and the first one counts.
    assert merged[5, 7] == 0
    assert merged[7, 9] == 5
    assert merged[13, 14] == 10
    assert merged[0, 12] == merged[12, 0] == NOT_SEEN


@pytest.fixture
def encoder(config):
    config.max_position_embeddings = 62
    return lively(ErnieRnaModel(config, add_pooling_layer=False)).eval()


def test_windows_equal_the_full_map_where_context_does_not_matter(encoder):
    """Layer 0, the projected pairing scores, does not depend on context."""
    rnas = random_rnas(40, 110)
    options = {"layer": 0, "matrix": "scores"}
    short, long = fold(rnas, encoder, long="window", overlap=30, **options)
    full_short, full_long = fold(rnas, encoder, long="full", **options)
    np.testing.assert_array_equal(short.matrix, full_short.matrix)
    seen = long.matrix != NOT_SEEN
    np.testing.assert_allclose(long.matrix[seen], full_long.matrix[seen], atol=1e-6)
    distance = np.abs(np.subtract.outer(np.arange(110), np.arange(110)))
    assert seen[distance <= 30].all()
    assert not seen[distance >= 60].any()
    assert all(j - i < 60 for i, j in long.structure.pairs)


def test_warns_of_the_memory_for_a_very_long_sequence(encoder):
    with pytest.warns(UserWarning, match=r"^giant has 30000 nt: .* take 18\.0 GB of memory$"):
        fold({"short": "ACGU", "giant": "A" * 30000}, encoder, long="window", overlap=30)
