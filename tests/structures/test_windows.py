"""Maps of long sequences from windows, against maps of the whole."""

import numpy as np
import pytest
import torch

from ernie_rna.structures.fold import fold
from ernie_rna.structures.windows import NOT_SEEN, windowed_map
from tests.structures.test_fold import random_rnas


def test_what_does_not_depend_on_the_window_is_as_of_the_whole():
    """Scores by the distance alone; none beyond the window."""

    def compute(text: str) -> torch.Tensor:
        index = torch.arange(len(text))
        return (index[:, None] - index).abs().float()

    text = "A" * 50
    merged, whole = windowed_map(compute, text, 20, 15), compute(text)
    seen = merged != NOT_SEEN
    assert torch.equal(merged[seen], whole[seen])
    assert seen[whole <= 15].all()
    assert not seen[whole >= 20].any()


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
def encoder(model):
    model.config.max_position_embeddings = 62
    return model.ernie_rna


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


def test_an_overlap_that_is_no_overlap(encoder):
    with pytest.raises(ValueError, match="overlap must be at least 0 and below 60"):
        next(iter(fold(["ACGU"], encoder, long="window", overlap=60)))


def test_the_memory_of_a_very_long_sequence_is_told(encoder):
    with pytest.warns(UserWarning, match=r"^giant has 30000 nt: .* take 18\.0 GB of memory$"):
        fold({"short": "ACGU", "giant": "A" * 30000}, encoder, long="window", overlap=30)
