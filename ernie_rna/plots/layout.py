"""The classical drawing of a secondary structure: stems as ladders, loops as rings.

Where each base goes is decided by ViennaRNA (extra ``vienna``) with RNApuzzler (Wiegreffe et al.,
Bioinformatics 35:1342-1349, 2019), which has no two parts of a structure overlap. The layout is of
the largest set of pairs that do not cross; the others are lines across it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.plots.figures import BLACK, SURENESS, VERMILLION, new_figure, saved
from ernie_rna.structures.formats.dot_bracket import (
    BasePair,
    nested_pages,
    sorted_pairs,
    to_dot_bracket,
)
from ernie_rna.structures.formats.structure import FilePath

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# ViennaRNA puts neighbours 15 units apart; so many inches are they here, if the drawing fits.
_UNITS, _STEP = 15.0, 0.23
_LARGEST = 14.0
_SMALLEST_STEP = 0.1  # inches; letters would be smaller than 5 points
_GREY = "#888888"


def plot_layout(
    sequence: str,
    pairs: Iterable[BasePair],
    *,
    values: Sequence[float] | None = None,
    label: str = "reliability",
    title: str | None = None,
    path: FilePath | None = None,
) -> Figure:
    """Draw a structure with its stems and loops.

    Args:
        sequence: its bases.
        pairs: base pairs, counted from 0.
        values: a number from 0 to 1 for each base, which its colour shows; NaN is left white.
        label: what the numbers are.
        title: line above the picture.
        path: file to save to, .png, .svg or .pdf.

    Raises:
        ImportError: matplotlib or ViennaRNA is not installed.
        ValueError: pairs are not pairs of this sequence, there is not a value a base, or the
            extension of ``path`` is unknown.
    """
    if not sequence:
        raise ValueError("there is nothing to draw for a sequence without bases")
    if values is not None and len(values) != len(sequence):
        raise ValueError(f"{len(values)} values for {len(sequence)} bases")
    nested, *crossing = nested_pages(sorted_pairs(pairs, len(sequence))) or [[]]
    places = coordinates(nested, len(sequence))  # (length, 2), neighbours 1 apart
    extent = np.ptp(places, axis=0) + 5
    step = min(_STEP, _LARGEST / extent.max())
    width, height = np.maximum(step * extent, (4.0, 2.0))
    figure = new_figure(width + (0.9 if values is not None else 0.0), height + 0.5)
    axes = figure.add_subplot()
    axes.set_aspect("equal")
    axes.set_axis_off()
    low, high = places.min(axis=0) - 2.5, places.max(axis=0) + 2.5
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.set_title(title or "", parse_math=False)
    _draw_lines(axes, sequence, places, nested, [pair for page in crossing for pair in page])
    _draw_bases(axes, sequence, places, step, values, label)
    _number(axes, places)
    return saved(figure, path)


def coordinates(nested: list[BasePair], length: int) -> np.ndarray:
    """Where the bases of a structure without crossings go: (length, 2), neighbours about 1 apart.

    Raises:
        ImportError: ViennaRNA is not installed.
    """
    vienna = import_extra("RNA", "vienna", "a drawing of stems and loops")
    before, vienna.cvar.rna_plot_type = vienna.cvar.rna_plot_type, vienna.PLOT_TYPE_PUZZLER
    try:
        found = vienna.get_xy_coordinates(to_dot_bracket(nested, length))
    finally:
        vienna.cvar.rna_plot_type = before
    places = [(found.get(base).X, found.get(base).Y) for base in range(length)]
    return np.array(places, dtype=np.float64) / _UNITS


def _draw_lines(
    axes: Axes,
    sequence: str,
    places: np.ndarray,
    nested: list[BasePair],
    crossing: list[BasePair],
) -> None:
    """The backbone, and a line for each pair; a dot in it is G-U."""
    axes.plot(*places.T, color=_GREY, linewidth=0.8, zorder=1)
    for group, colour, style in ((nested, BLACK, "-"), (crossing, VERMILLION, "--")):
        for i, j in group:
            axes.plot(*places[[i, j]].T, color=colour, linestyle=style, linewidth=1.2, zorder=2)
    if crossing:
        axes.plot([], [], color=VERMILLION, linestyle="--", label=f"pseudoknot ({len(crossing)})")
        axes.figure.legend(loc="outside lower right", frameon=False, fontsize=8)
    wobbles = [places[[i, j]].mean(axis=0) for i, j in nested if _is_wobble(sequence, i, j)]
    if wobbles:
        axes.plot(*np.array(wobbles).T, "o", color=BLACK, markersize=2.5, zorder=2)


def _is_wobble(sequence: str, i: int, j: int) -> bool:
    return {sequence[i].upper(), sequence[j].upper()} in ({"G", "U"}, {"G", "T"})


def _draw_bases(
    axes: Axes,
    sequence: str,
    places: np.ndarray,
    step: float,
    values: Sequence[float] | None,
    label: str,
) -> None:
    """A circle for each base, and its letter if there is room for one."""
    numbers = np.full(len(sequence), np.nan) if values is None else np.array(values, dtype=float)
    size = (72 * 0.75 * step) ** 2  # points squared
    x, y = places.T
    circles = axes.scatter(
        x,
        y,
        s=size,
        c=numbers,
        cmap=SURENESS,
        vmin=0,
        vmax=1,
        edgecolors=_GREY,
        linewidths=0.5,
        zorder=3,
    )
    white = np.isnan(numbers)
    axes.scatter(x[white], y[white], size, "white", edgecolors=_GREY, linewidths=0.5, zorder=3)
    if step >= _SMALLEST_STEP:
        for base, (x, y), number in zip(sequence, places, numbers, strict=True):
            font: Any = {"fontsize": 72 * 0.5 * step, "ha": "center", "va": "center_baseline"}
            colour = "white" if number > 0.6 else BLACK  # NaN is not
            axes.text(x, y, base, color=colour, zorder=4, **font)
    if values is not None:
        axes.figure.colorbar(circles, ax=axes, label=label, shrink=0.5, aspect=20)


def _number(axes: Axes, places: np.ndarray) -> None:
    """5' and 3', and every tenth position, beside the base and away from the middle."""
    labels = {0: "5'", len(places) - 1: "3'"}
    labels |= {base: str(base + 1) for base in range(9, len(places) - 1, 10)}
    for base, text in labels.items():
        before, after = places[max(base - 1, 0)], places[min(base + 1, len(places) - 1)]
        along = after - before
        away = np.array([along[1], -along[0]]) / (np.hypot(*along) or 1.0)
        # Of both sides the one with fewer bases about.
        side = min((away, -away), key=lambda way: _crowd(places, places[base] + 1.3 * way))
        x, y = places[base] + 1.3 * side
        axes.text(x, y, text, fontsize=6.5, color=_GREY, ha="center", va="center", zorder=4)


def _crowd(places: np.ndarray, place: np.ndarray) -> float:
    """How many bases are about a place, near ones counting more."""
    crowd: float = np.exp(-np.hypot(*(places - place).T)).sum()
    return crowd
