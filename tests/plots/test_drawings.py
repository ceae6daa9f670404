"""Drawings: axes, colours and legends; picture files; and the extra that they need."""

import sys

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from ernie_rna.plots.drawings import (
    coordinates,
    plot_arcs,
    plot_components,
    plot_effects,
    plot_layout,
    plot_pairing_map,
    save,
)
from ernie_rna.scoring.mutate import LetterScores
from ernie_rna.structures.closeness import Closeness
from ernie_rna.structures.fold import Fold
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.structure import Structure
from tests.structures.conftest import needs_vienna

SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def rna(length):
    return ("GCAUUAGGC" * (length // 9 + 1))[:length]


def scores(*shape):
    return np.random.default_rng(0).normal(size=shape)


def letter_scores(sequence):
    values = scores(len(sequence), 4).astype(np.float32)
    result = LetterScores("one", sequence, values)
    values[~result.scored] = np.nan
    return result


def arcs(length):
    pairs = [(0, length - 1), (1, length - 2)]
    return plot_arcs(rna(length), pairs, pairs[:1])


def legend(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("extension", SIGNATURES)
def test_the_extension_gives_the_format_and_files_are_reproducible(
    tmp_path, monkeypatch, extension
):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # pyplot must not be used.
    paths = [tmp_path / f"{name}{extension}" for name in ("one", "two")]
    for path in paths:
        save(arcs(12), path)
    one, two = (path.read_bytes() for path in paths)
    assert one.startswith(SIGNATURES[extension])
    assert one == two


def test_a_title_is_plain_text_and_a_failed_picture_leaves_no_file(tmp_path, monkeypatch):
    path, figure = tmp_path / "picture.svg", plot_arcs("GAAC", [(0, 3)])
    save(figure, path, "a $\\frac{$ <b>")
    assert "a $\\frac{$ &lt;b&gt;" in path.read_text()
    path.unlink()
    with pytest.raises(ValueError, match="jpeg2k"):
        save(figure, tmp_path / "picture.jpeg2k")
    monkeypatch.setattr(figure, "savefig", lambda path, **_: path.write_text("half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(figure, path)
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_shows_results_as_pictures_if_the_extra_is_installed(monkeypatch):
    results = [
        Fold(Structure("one", "GAAAC", [(0, 4)])),
        Closeness("one", np.eye(5, dtype=np.float32)),
        letter_scores("GAAAC"),
    ]
    assert all("<svg" in result._repr_svg_() for result in results)
    assert letter_scores("NNN")._repr_svg_() is None
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert [result._repr_svg_() for result in results] == [None] * 3
    with pytest.raises(ImportError, match=r'pip install "ernie-rna\[plot\]"'):
        plot_arcs("GAAC", [(0, 3)])


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot_pairing_map(scores(4, 4), "GAA"), r"shape \(3, 3\) .* got \(4, 4\)"),
        (lambda: plot_pairing_map(scores(2, 4, 3), "GAAC"), r"\(4, 4\) .* got \(2, 4, 3\)"),
        (lambda: plot_pairing_map(scores(0, 0), ""), "shape"),
        (lambda: plot_pairing_map(scores(4, 4), "GAAC", pairs=[(0, 4)]), "outside"),
        (lambda: plot_arcs("", []), "without bases"),
        (lambda: plot_arcs("GAAC", [(0, 4)]), "outside a sequence of 4 bases"),
        (lambda: plot_layout("", []), "without bases"),
        (lambda: plot_layout("GAAAC", [], values=[0, 1]), "2 values for 5 bases"),
        (lambda: plot_effects(letter_scores("NNN")), "one has none of A, C, G and U"),
        (lambda: plot_components(np.zeros((1, 3)), ["a"]), "at least two vectors"),
        (lambda: plot_components(np.ones((2, 3)), ["a", "b"]), "all vectors are equal"),
        (lambda: plot_components(np.eye(2), ["a"]), "1 names for 2 vectors"),
    ],
)
def test_invalid_input_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


@pytest.mark.parametrize(("length", "has_letters"), [(10, True), (80, True), (300, False)])
def test_axes_show_letters_or_positions(length, has_letters):
    letters = rna(length) if has_letters else ""
    figure = plot_pairing_map(scores(length, length), rna(length))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    for axis in (axes.xaxis, axes.yaxis):
        assert "".join(label.get_text() for label in axis.get_minorticklabels()) == letters
        positions = [int(label.get_text()) for label in axis.get_majorticklabels()]
        assert positions[0] == 1
        assert positions[-1] > length * 0.8
    (axes,) = arcs(length).axes
    assert "".join(text for text in texts(axes) if len(text) == 1) == letters


@pytest.mark.parametrize("length", [1, 2, 1000])
def test_very_short_and_long_sequences_can_be_drawn(tmp_path, length):
    sequence, pairs = rna(length), [(0, length - 1)][: length - 1]
    save(plot_pairing_map(scores(length, length), sequence, pairs=[]), tmp_path / "map.png")
    save(plot_arcs(sequence, pairs), tmp_path / "arcs.png")


def test_positions_of_a_map_start_at_1():
    contacts = torch.zeros(4, 4)
    contacts[0, 3] = contacts[3, 0] = 0.8
    axes = plot_pairing_map(contacts, "GAAC", pairs=[(0, 3)]).axes[0]
    assert tuple(axes.images[0].get_extent()) == (0.5, 4.5, 4.5, 0.5)
    assert axes.lines[0].get_xydata().tolist() == [[1, 4]]
    assert axes.images[0].get_clim() == pytest.approx((0, 0.8), abs=1e-6)


def test_colours_are_white_at_0_or_between_limits():
    def limits(**options):
        return plot_pairing_map(scores(9, 9) - 3, rna(9), **options).axes[0].images[0].get_clim()

    low, high = limits()
    assert low == -high < 0
    assert limits(limits=(0.0, 1.0)) == (0.0, 1.0)


def test_all_heads_have_the_same_colours_and_one_is_framed():
    figure = plot_pairing_map(torch.randn(12, 20, 20), rna(20), highlight=5)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == [f"head {head}" for head in range(12)]
    assert len({axes.images[0].get_clim() for axes in panels}) == 1
    widths = [axes.spines["left"].get_linewidth() for axes in panels]
    assert [head for head, width in enumerate(widths) if width == max(widths)] == [5]


def test_the_legend_of_a_map_names_predicted_and_known_pairs():
    figure = plot_pairing_map(scores(9, 9), rna(9), pairs=[(0, 8), (1, 7)], known=[])
    assert legend(figure) == ["below: 2 pairs predicted", "above: no pairs known"]
    (circles,) = plot_pairing_map(scores(9, 9), rna(9), known=[(0, 8)]).axes[0].get_lines()
    assert circles.get_xydata().tolist() == [[9, 1]]


ONE, TWO, KNOWN = [(0, 9)], [(0, 9), (1, 8)], [(0, 9), (2, 7), (12, 18)]


@pytest.mark.parametrize(
    ("predicted", "known", "names", "notes"),
    [
        ([*TWO, (4, 14), (12, 18)], None, ["nested pairs (3)", "pseudoknot (1)"], []),
        (TWO, KNOWN, ["predicted only (1)", "known only (2)", "in both (1)"], []),
        ([], None, ["nested pairs (0)"], ["no pairs predicted"]),
        ([], ONE, ["predicted only (0)", "known only (1)", "in both (0)"], ["no pairs predicted"]),
        (ONE, [], ["predicted only (1)", "known only (0)", "in both (0)"], ["no pairs known"]),
    ],
)
def test_arcs_distinguish_pseudoknots_or_hits_and_misses(predicted, known, names, notes):
    figure = plot_arcs(rna(20), predicted, known)
    assert legend(figure) == names
    assert [text for text in texts(figure.axes[0]) if text.startswith("no ")] == notes


def test_an_arc_joins_its_bases_and_known_pairs_are_below():
    axes = plot_arcs("GAAAC", [(0, 4)], [(1, 3)]).axes[0]
    paths = [path for arcs in axes.collections for path in arcs.get_paths()]
    predicted, known = (path.get_extents() for path in paths)
    assert (predicted.x0, predicted.x1) == pytest.approx((1, 5))
    assert (known.x0, known.x1) == pytest.approx((2, 4))
    low, high = axes.get_ylim()
    assert low <= known.y0 < known.y1 <= 0 <= predicted.y0 < predicted.y1 <= high


def test_arcs_are_coloured_by_the_probabilities_of_their_pairs():
    probabilities = np.zeros((20, 20))
    probabilities[0, 9], probabilities[1, 8] = 0.9, 0.25
    pairs = [(0, 9), (1, 8)]
    figure = plot_arcs(rna(20), pairs, [(2, 7)], probabilities=probabilities, label="contact")
    axes, bar = figure.axes
    coloured = next(arcs for arcs in axes.collections if arcs.get_array() is not None)
    assert coloured.get_array().tolist() == [0.9, 0.25]
    assert coloured.get_clim() == (0, 1)
    assert bar.get_ylabel() == "contact"
    assert legend(figure) == ["known (1)"]
    assert not plot_arcs(rna(20), pairs, probabilities=probabilities).legends


SEQUENCE = "GGGAAAUCCAAAGGUUUCC"
PAIRS = from_dot_bracket("(((.[[.)))...]]....")
TRNA = from_dot_bracket("(((((((..((((........)))).(((((.......))))).....(((((.......)))))))))))).")


@needs_vienna
def test_a_layout_has_equal_steps_no_overlaps_and_straight_helices():
    places = coordinates(TRNA, 73)  # (73, 2)
    distances = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
    assert np.diag(distances, 1).max() < 2
    assert distances[~np.eye(73, dtype=bool)].min() > 0.7
    pairs = from_dot_bracket("((((....))))")
    places = coordinates(pairs, 12)
    assert np.ptp([np.hypot(*(places[i] - places[j])) for i, j in pairs]) < 0.01


@needs_vienna
def test_the_legend_of_a_layout_names_pseudoknots_and_values_colour_the_bases():
    values = [np.nan, *np.linspace(0, 1, len(SEQUENCE) - 1)]
    figure = plot_layout(SEQUENCE, PAIRS, values=values, label="SHAPE")
    assert legend(figure) == ["pseudoknot (2)"]
    axes, bar = figure.axes
    assert "".join(texts(axes)[: len(SEQUENCE)]) == SEQUENCE
    assert {"5'", "3'", "10"} <= set(texts(axes))
    assert bar.get_ylabel() == "SHAPE"
    np.testing.assert_array_equal(axes.collections[0].get_array().filled(np.nan), values)
    assert len(plot_layout("ACGU", []).axes) == 1


def test_effects_are_drawn_in_rows_of_60_positions():
    result = letter_scores("ACGUN" * 13)
    figure = plot_effects(result)
    first, second, bar = figure.axes
    np.testing.assert_array_equal(first.images[0].get_array().filled(np.nan), result.effects[:60].T)
    assert second.images[0].get_array().shape == (4, 5)
    assert (first.get_xlim(), second.get_xlim()) == ((0.5, 60.5), (60.5, 120.5))
    assert [text.get_text() for text in second.get_xticklabels()] == ["A", "C", "G", "U", "N"]
    assert first.get_xticklabels()[9].get_text() == "N\n10"
    (dots,) = second.lines
    assert list(zip(*dots.get_data(), strict=True)) == [(61, 0), (62, 1), (63, 2), (64, 3)]
    assert "log P" in bar.get_ylabel()
    # A row in which no position has scores is drawn as well.
    assert len(plot_effects(letter_scores("N" * 60 + "ACGU")).axes) == 3


def test_components_have_the_largest_variances():
    vectors = scores(20, 5) * [5, 1, 3, 0.5, 0.1]
    axes = plot_components(vectors, [""] * 20).axes[0]
    places = axes.lines[0].get_xydata()
    variances = np.linalg.eigvalsh(np.cov(vectors.T))[::-1]
    np.testing.assert_allclose(places.var(axis=0, ddof=1), variances[:2])
    percent = 100 * variances[:2] / variances.sum()
    assert axes.get_xlabel() == f"component 1: {percent[0]:.0f} % of the variance"
    assert axes.get_ylabel() == f"component 2: {percent[1]:.0f} % of the variance"
    axes = plot_components(np.array([[0.0], [2.0]]), ["a", "b" * 60]).axes[0]
    assert texts(axes) == ["a", "b" * 19 + "…"]
    np.testing.assert_allclose(np.abs(axes.lines[0].get_xydata()), [[1, 0], [1, 0]])
    assert axes.get_ylabel() == "component 2: 0 % of the variance"


def test_each_group_has_a_colour_and_a_place_in_the_legend():
    groups = [f"$g{number // 2}" for number in range(9)]
    figure = plot_components(scores(9, 5), list("abcdefghi"), groups=groups)
    (axes,) = figure.axes
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 2, 2, 2, 1]
    assert len({line.get_color() for line in axes.lines}) == 5
    assert texts(axes) == list("abcdefghi")
    assert legend(figure) == sorted(set(groups))
    assert not plot_components(scores(9, 5), list("abcdefghi")).legends
