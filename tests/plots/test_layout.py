"""Drawings of stems and loops."""

import numpy as np
import pytest

from ernie_rna.plots.layout import coordinates, plot_layout
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket

pytest.importorskip("matplotlib")
pytest.importorskip("RNA")

SEQUENCE = "GGGAAAUCCAAAGGUUUCC"
PAIRS = from_dot_bracket("(((.[[.)))...]]....")
TRNA = "(((((((..((((........)))).(((((.......))))).....(((((.......))))))))))))."


def test_neighbours_are_about_one_apart_and_no_two_bases_in_one_place():
    places = coordinates(from_dot_bracket(TRNA), len(TRNA))
    assert places.shape == (len(TRNA), 2)
    steps = np.hypot(*np.diff(places, axis=0).T)
    assert 0.7 < steps.min() < steps.max() < 2
    distances = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
    assert distances[~np.eye(len(TRNA), dtype=bool)].min() > 0.7


def test_ladders_are_straight():
    pairs = from_dot_bracket("((((....))))")
    places = coordinates(pairs, 12)
    widths = [np.hypot(*(places[i] - places[j])) for i, j in pairs]
    assert np.ptp(widths) < 0.01


def test_pseudoknots_are_dashed_and_told():
    figure = plot_layout(SEQUENCE, PAIRS)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["pseudoknot (2)"]
    letters = [text.get_text() for text in figure.axes[0].texts]
    assert "".join(letters[: len(SEQUENCE)]) == SEQUENCE
    assert {"5'", "3'", "10"} <= set(letters)


def test_values_colour_the_bases(tmp_path):
    values = np.linspace(0, 1, len(SEQUENCE))
    values[3] = np.nan
    path = tmp_path / "drawing.svg"
    figure = plot_layout(SEQUENCE, PAIRS, values=values, label="SHAPE", path=path)
    assert len(figure.axes) == 2
    assert figure.axes[1].get_ylabel() == "SHAPE"
    assert path.read_text().startswith("<?xml")
    with pytest.raises(ValueError, match="2 values for 19 bases"):
        plot_layout(SEQUENCE, PAIRS, values=[0, 1])


def test_a_structure_without_pairs_is_drawn_too():
    assert plot_layout("ACGU", []).axes
    with pytest.raises(ValueError, match="without bases"):
        plot_layout("", [])
