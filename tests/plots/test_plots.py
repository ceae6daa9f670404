"""Plots: what is on the axes, the files, and the extra."""

import sys

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")

from ernie_rna.plots.arcs import plot_arcs
from ernie_rna.plots.maps import plot_all_heads, plot_pairing_map

SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


def rna(length):
    return ("GCAUUAGGC" * (length // 9 + 1))[:length]


def scores(*shape):
    return np.random.default_rng(0).normal(size=shape)


def pictures(length):
    pairs = [(0, length - 1), (1, length - 2)]
    return {
        "map": lambda path: plot_pairing_map(
            scores(length, length), rna(length), pairs=pairs, path=path
        ),
        "heads": lambda path: plot_all_heads(
            scores(3, length, length), rna(length), highlight=1, path=path
        ),
        "arcs": lambda path: plot_arcs(rna(length), pairs, pairs[:1], path=path),
    }


@pytest.mark.parametrize("extension", SIGNATURES)
@pytest.mark.parametrize("kind", ["map", "heads", "arcs"])
def test_files_by_extension(tmp_path, kind, extension):
    path = tmp_path / f"picture{extension}"
    pictures(12)[kind](path)
    assert path.read_bytes().startswith(SIGNATURES[extension])


@pytest.mark.parametrize("kind", ["map", "heads", "arcs"])
def test_svg_is_the_same_every_time(tmp_path, kind):
    for name in ("one.svg", "two.svg"):
        pictures(12)[kind](tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_other_extensions_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"saved as \.png, \.svg or \.pdf, not '\.jpg'"):
        plot_arcs("GAAC", [(0, 3)], path=tmp_path / "picture.jpg")


@pytest.mark.parametrize(("length", "has_letters"), [(10, True), (80, True), (300, False)])
def test_map_axes_show_letters_or_positions(length, has_letters):
    figure = pictures(length)["map"](None)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    for axis in (axes.xaxis, axes.yaxis):
        letters = [label.get_text() for label in axis.get_minorticklabels()]
        assert letters == (list(rna(length)) if has_letters else [])
        positions = [int(label.get_text()) for label in axis.get_majorticklabels()]
        assert positions[0] == 1
        assert positions[-1] > length * 0.8


@pytest.mark.parametrize(("length", "has_letters"), [(10, True), (100, True), (400, False)])
def test_arcs_stand_over_letters_or_a_line(length, has_letters):
    axes = pictures(length)["arcs"](None).axes[0]
    drawn = "".join(text.get_text() for text in axes.texts if len(text.get_text()) == 1)
    assert drawn == (rna(length) if has_letters else "")


@pytest.mark.parametrize("length", [1, 2, 1000])
def test_extreme_lengths(tmp_path, length):
    sequence = rna(length)
    plot_pairing_map(scores(length, length), sequence, pairs=[], path=tmp_path / "map.png")
    plot_arcs(sequence, [(0, length - 1)] if length > 1 else [], path=tmp_path / "arcs.png")


def test_the_matrix_is_drawn_on_positions_from_1():
    contacts = torch.zeros(4, 4)
    contacts[0, 3] = contacts[3, 0] = 0.8
    figure = plot_pairing_map(contacts, "GAAC", pairs=[(0, 3)])
    axes = figure.axes[0]
    assert tuple(axes.images[0].get_extent()) == (0.5, 4.5, 4.5, 0.5)
    assert axes.lines[0].get_xydata().tolist() == [[1, 4]]
    assert axes.images[0].get_clim() == pytest.approx((0, 0.8), abs=1e-6)


def test_scores_with_a_sign_are_white_at_0():
    low, high = plot_pairing_map(scores(20, 20) - 3, rna(20)).axes[0].images[0].get_clim()
    assert low == -high


def test_heads_share_their_colours_and_one_is_framed():
    figure = plot_all_heads(torch.randn(12, 20, 20), rna(20), highlight=5, title="layer 12")
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == [f"head {head}" for head in range(12)]
    assert len({axes.images[0].get_clim() for axes in panels}) == 1
    widths = [axes.spines["left"].get_linewidth() for axes in panels]
    assert widths.index(max(widths)) == 5
    assert widths.count(max(widths)) == 1


def test_arcs_tell_nested_pairs_from_pseudoknots():
    figure = plot_arcs(rna(20), [(0, 9), (1, 8), (4, 14), (12, 18)])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["nested pairs (3)", "pseudoknot (1)"]


def test_arcs_tell_hits_from_misses():
    figure = plot_arcs(rna(20), [(0, 9), (1, 8)], [(0, 9), (2, 7), (12, 18)])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["predicted only (1)", "known only (2)", "in both (1)"]


def test_a_map_says_whose_pairs_it_shows():
    figure = plot_pairing_map(scores(20, 20), rna(20), pairs=[(0, 9), (1, 8)], known=[])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["below: 2 pairs predicted", "above: no pairs known"]
    figure = plot_pairing_map(scores(20, 20), rna(20), known=[(0, 9)])
    (circles,) = figure.axes[0].get_lines()
    assert circles.get_xydata().tolist() == [[10, 1]]


@pytest.mark.parametrize(
    ("predicted", "known", "said"),
    [
        ([], None, ["no pairs predicted"]),
        ([], [(0, 9)], ["no pairs predicted"]),
        ([(0, 9)], [], ["no pairs known"]),
        ([], [], ["no pairs predicted", "no pairs known"]),
        ([(0, 9)], None, []),
    ],
)
def test_arcs_say_that_there_are_no_pairs(predicted, known, said):
    texts = [text.get_text() for text in plot_arcs(rna(20), predicted, known).axes[0].texts]
    assert [text for text in texts if text.startswith("no ")] == said


def test_an_arc_reaches_from_base_to_base():
    axes = plot_arcs("GAAAC", [(0, 4)]).axes[0]
    box = axes.collections[0].get_paths()[0].get_extents()
    assert (box.x0, box.x1) == pytest.approx((1, 5))
    assert box.y1 <= axes.get_ylim()[1]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot_pairing_map(scores(4, 4), "GAA"), r"shape \(3, 3\) .* got \(4, 4\)"),
        (lambda: plot_all_heads(scores(4, 4), "GAAC"), r"shape \('any', 4, 4\) .* got \(4, 4\)"),
        (lambda: plot_pairing_map(scores(0, 0), ""), "shape"),
        (lambda: plot_arcs("", []), "without bases"),
        (lambda: plot_arcs("GAAC", [(0, 4)]), "outside a sequence of 4 bases"),
        (lambda: plot_pairing_map(scores(4, 4), "GAAC", pairs=[(0, 4)]), "outside"),
    ],
)
def test_what_cannot_be_drawn(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_pyplot_is_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for draw in pictures(12).values():
        draw(None)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "ernie-rna\[plot\]"'):
        plot_arcs("GAAC", [(0, 3)])


def test_arcs_are_coloured_by_how_likely_their_pairs_are():
    probabilities = np.zeros((20, 20))
    probabilities[0, 9], probabilities[1, 8] = 0.9, 0.25
    pairs = [(0, 9), (1, 8)]
    figure = plot_arcs(rna(20), pairs, [(2, 7)], probabilities=probabilities, label="contact")
    axes, bar = figure.axes
    coloured = next(one for one in axes.collections if one.get_array() is not None)
    assert coloured.get_array().tolist() == [0.9, 0.25]
    assert coloured.get_clim() == (0, 1)
    assert bar.get_ylabel() == "contact"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["known (1)"]
    assert not plot_arcs(rna(20), pairs, probabilities=probabilities).legends


def test_limits_of_the_colours():
    figure = plot_pairing_map(scores(9, 9), rna(9), limits=(0.0, 1.0))
    assert figure.axes[0].images[0].get_clim() == (0.0, 1.0)
