"""Pictures of structures: an arc over the sequence for each base pair."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ernie_rna.plots.figures import (
    BLACK,
    BLUE,
    GREEN,
    LETTER,
    SMALLEST_LETTER,
    SURENESS,
    VERMILLION,
    letter_size,
    new_figure,
    positions,
    saved,
)
from ernie_rna.structures.formats.dot_bracket import BasePair, nested_pages, sorted_pairs
from ernie_rna.structures.formats.structure import FilePath

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path as MatplotlibPath

_ARC_WIDTH = (5.0, 14.0)  # inches, as the next two
_ARC_HEIGHT = (1.0, 3.0)
# Room for a row of letters, above and below its middle.
_LETTER_GAP = 0.1


def plot_arcs(
    sequence: str,
    pairs: Iterable[BasePair],
    reference_pairs: Iterable[BasePair] | None = None,
    *,
    probabilities: np.ndarray | None = None,
    label: str = "probability",
    title: str | None = None,
    path: FilePath | None = None,
) -> Figure:
    """Draw a structure as arcs over the sequence, one for each base pair.

    Without a reference, the colours tell nested pairs from pseudoknots. With one, the predicted
    pairs stand above the sequence and the known ones below it, and the colours say which are in
    both. Where there are no pairs the picture says so.

    Args:
        sequence: its bases.
        pairs: base pairs, counted from 0.
        reference_pairs: known base pairs, counted from 0.
        probabilities: (length, length), which then colour the predicted pairs.
        label: what these are.
        title: line above the picture.
        path: file to save to.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: pairs are not pairs of this sequence, or the extension of ``path`` is unknown.
    """
    if not sequence:
        raise ValueError("there is nothing to draw for a sequence without bases")
    above = sorted_pairs(pairs, len(sequence))
    below = None if reference_pairs is None else sorted_pairs(reference_pairs, len(sequence))
    width = float(np.clip(len(sequence) * LETTER, *_ARC_WIDTH))
    longest = max((j - i for i, j in above + (below or [])), default=1)
    # Half circles, or lower where they would not fit.
    height = float(np.clip(longest * width / len(sequence) / 2, *_ARC_HEIGHT))
    gap = _LETTER_GAP if width / len(sequence) >= SMALLEST_LETTER else 0.0

    figure = new_figure(width + 0.5, (1 if below is None else 2) * (height + gap) + 1.2)
    axes = figure.add_subplot()
    axes.set_xlim(0.2, len(sequence) + 0.8)
    top = 1.03 * height + gap
    axes.set_ylim(-gap if below is None else -top, top)
    thickness = 20 * width / len(sequence)
    if probabilities is not None:
        groups: list[_ArcGroup] = [("known", BLACK, [], below)] if below else []
        values = [float(probabilities[pair]) for pair in above]
        arcs = [_arc(pair, gap, height / longest) for pair in above]
        _draw_coloured_arcs(axes, arcs, values, label, thickness)
    else:
        groups = _arcs_by_page(above) if below is None else _arcs_by_agreement(above, below)
    for name, colour, upper, lower in groups:
        arcs = [_arc(pair, gap, height / longest) for pair in upper]
        arcs += [_arc(pair, -gap, -height / longest) for pair in lower]
        _draw_arcs(axes, arcs, f"{name} ({max(len(upper), len(lower))})", colour, thickness)
    if not above:
        axes.text(0.5, 0.97, "no pairs predicted", transform=axes.transAxes, ha="center", va="top")
    if below is not None and not below:
        axes.text(0.5, 0.03, "no pairs known", transform=axes.transAxes, ha="center", va="bottom")
    _show_baseline(axes, sequence, width, sides=["predicted", "known"] if below is not None else [])
    if groups:
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    axes.set_title(title or "", fontsize=11, parse_math=False)
    return saved(figure, path)


# Name, colour, and the pairs to draw above and below the sequence.
_ArcGroup = tuple[str, str, list[BasePair], list[BasePair]]


def _arcs_by_page(pairs: list[BasePair]) -> list[_ArcGroup]:
    pages = nested_pages(pairs)
    groups: list[_ArcGroup] = [("nested pairs", BLUE, pages[0] if pages else [], [])]
    if len(pages) > 1:
        groups.append(("pseudoknot", VERMILLION, pages[1], []))
    if len(pages) > 2:
        crossing = [pair for page in pages[2:] for pair in page]
        groups.append(("further crossings", GREEN, crossing, []))
    return groups


def _arcs_by_agreement(predicted: list[BasePair], known: list[BasePair]) -> list[_ArcGroup]:
    both = sorted(set(predicted) & set(known))
    return [
        ("predicted only", VERMILLION, sorted(set(predicted) - set(both)), []),
        ("known only", BLACK, [], sorted(set(known) - set(both))),
        ("in both", BLUE, both, both),
    ]


def _arc(pair: BasePair, start: float, height_a_base: float) -> MatplotlibPath:
    """Half an ellipse over a pair, from and back to ``start``, as two Bézier curves."""
    from matplotlib.path import Path

    left, right = pair[0] + 1, pair[1] + 1
    top = start + (right - left) * height_a_base
    middle, radius = (left + right) / 2, (right - left) / 2
    # 0.5523 puts the control points so that each curve is a quarter of a circle to 0.03 %.
    pull, rise = 0.5523 * radius, start + 0.5523 * (top - start)
    points = [(left, start), (left, rise), (middle - pull, top), (middle, top)]
    points += [(middle + pull, top), (right, rise), (right, start)]
    return Path(points, [Path.MOVETO] + [Path.CURVE4] * 6)


def _draw_arcs(
    axes: Axes, arcs: list[MatplotlibPath], label: str, colour: str, thickness: float
) -> None:
    from matplotlib.collections import PathCollection

    width = float(np.clip(thickness, 0.5, 1.6))
    axes.add_collection(
        PathCollection(arcs, facecolors="none", edgecolors=colour, linewidths=width), autolim=False
    )
    axes.plot([], [], color=colour, linewidth=1.6, label=label)


def _draw_coloured_arcs(
    axes: Axes, arcs: list[MatplotlibPath], values: list[float], label: str, thickness: float
) -> None:
    """Arcs in the colours of values from 0 to 1, and the bar that tells them."""
    from matplotlib.collections import PathCollection

    collection = PathCollection(
        arcs,
        facecolors="none",
        linewidths=float(np.clip(thickness, 0.8, 2.0)),
        cmap=SURENESS,
    )
    collection.set(array=values, clim=(0, 1))
    axes.add_collection(collection, autolim=False)
    axes.figure.colorbar(collection, ax=axes, label=label, shrink=0.8, aspect=15)


def _show_baseline(axes: Axes, sequence: str, width: float, sides: list[str]) -> None:
    """Draw the sequence between the arcs, or a line if it is too long, and positions below them."""
    if width / len(sequence) >= SMALLEST_LETTER:
        size = letter_size(width, len(sequence))
        for position, base in enumerate(sequence, 1):
            axes.text(
                position, 0, base, ha="center", va="center", fontsize=size, family="monospace"
            )
    else:
        axes.axhline(0, color="black", linewidth=0.8)
    for side, y in zip(sides, (0.75, 0.25), strict=False):
        axes.text(0, y, side, transform=axes.transAxes, rotation=90, ha="right", va="center")
    axes.set_xticks(positions(len(sequence), int(2 * width)))
    axes.set_yticks([])
    axes.set_xlabel("position")
    axes.spines[["left", "right", "top"]].set_visible(False)
