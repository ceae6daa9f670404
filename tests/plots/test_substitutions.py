"""Heat maps of substitutions."""

import numpy as np
import pytest

from ernie_rna.plots.substitutions import plot_effects
from ernie_rna.scoring.mutate import LetterScores

pytest.importorskip("matplotlib")


def scores(sequence):
    values = np.random.default_rng(0).normal(size=(len(sequence), 4)).astype(np.float32)
    result = LetterScores("one", sequence, values)
    values[~result.scored] = np.nan
    return result


def test_rows_of_60_positions(tmp_path):
    given = scores("ACGUN" * 13)
    path = tmp_path / "effects.svg"
    figure = plot_effects(given, title="$x", path=path)
    first, second, bar = figure.axes
    np.testing.assert_array_equal(first.images[0].get_array().filled(np.nan), given.effects[:60].T)
    assert second.images[0].get_array().shape == (4, 5)
    assert first.get_xlim() == (0.5, 60.5)
    assert second.get_xlim() == (60.5, 120.5)
    letters = [text.get_text() for text in second.texts]
    assert "".join(letters) == "ACGUN"
    (dots,) = second.lines
    assert list(zip(*dots.get_data(), strict=True)) == [(61, 0), (62, 1), (63, 2), (64, 3)]
    assert "log P" in bar.get_ylabel()
    assert path.read_text().startswith("<?xml")


def test_rows_without_scores_are_drawn_too():
    assert len(plot_effects(scores("N" * 60 + "ACGU")).axes) == 3


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="one has none of A, C, G and U"):
        plot_effects(scores("NNN"))
