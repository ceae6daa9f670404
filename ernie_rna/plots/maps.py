"""Pictures of pairing maps: one with its pairs, or those of all heads side by side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ernie_rna.plots.figures import (
    BLACK,
    DOTS_PER_INCH,
    LETTER,
    SMALLEST_LETTER,
    VERMILLION,
    letter_size,
    new_figure,
    positions,
    saved,
)
from ernie_rna.structures.formats.dot_bracket import BasePair, sorted_pairs
from ernie_rna.structures.formats.structure import FilePath

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from torch import Tensor

    Array = np.ndarray | Tensor

_MAP_SIDE = (4.0, 8.0)  # inches, as the next
_HEAD_SIDE = 2.3
# The part of the scores that the colours cover, so that a few large ones do not hide the others.
_COLOUR_QUANTILE = 0.998


def plot_pairing_map(
    pairing_map: Array,
    sequence: str,
    *,
    pairs: Iterable[BasePair] | None = None,
    known: Iterable[BasePair] | None = None,
    title: str | None = None,
    label: str = "score",
    limits: tuple[float, float] | None = None,
    path: FilePath | None = None,
) -> Figure:
    """Draw a pairing map, or contacts, as a matrix with the sequence along both axes.

    Maps with negative values are drawn from blue over white (0) to red, others from white to black.

    Args:
        pairing_map: (length, length).
        sequence: its bases.
        pairs: predicted base pairs, counted from 0, to be circled below the diagonal.
        known: known base pairs, to be circled above it.
        title: line above the picture.
        label: what the colours stand for.
        limits: of the colours; None leaves out the few largest scores.
        path: file to save to.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: map and sequence differ in length, the pairs are not pairs of this sequence, or
            the extension of ``path`` is unknown.
    """
    scores = _as_array(pairing_map, (len(sequence), len(sequence)))
    side = float(np.clip(len(sequence) * LETTER, *_MAP_SIDE))
    figure = new_figure(side + 1.5, side + 0.6)
    axes = figure.add_subplot()
    image = _draw_matrix(axes, scores, limits or _colour_limits(scores), side)
    _show_sequence(axes, sequence, side, "xy")
    axes.set(xlabel="position", ylabel="position")
    axes.set_title(title or "", parse_math=False)
    cell = 72 * side / len(sequence)
    marks = []
    if pairs is not None:
        predicted = sorted_pairs(pairs, len(sequence))
        marks.append(_mark_pairs(axes, predicted, cell, "predicted", "below"))
    if known is not None:
        flipped = [(j, i) for i, j in sorted_pairs(known, len(sequence))]
        marks.append(_mark_pairs(axes, flipped, cell, "known", "above"))
    if marks:
        figure.legend(
            handles=marks, loc="outside lower right", frameon=False, fontsize=9, ncols=len(marks)
        )
    figure.colorbar(image, ax=axes, label=label, shrink=0.6, aspect=25)
    return saved(figure, path)


def plot_all_heads(
    scores: Array,
    sequence: str,
    *,
    highlight: int | None = None,
    title: str | None = None,
    label: str = "score",
    path: FilePath | None = None,
) -> Figure:
    """Draw the maps of all heads of a layer as a grid with one colour scale.

    Args:
        scores: (heads, length, length).
        sequence: its bases.
        highlight: a head, counted from 0, to be framed.
        title: line above the picture.
        label: what the colours stand for.
        path: file to save to.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: scores and sequence differ in length, or the extension of ``path`` is unknown.
    """
    maps = _as_array(scores, (None, len(sequence), len(sequence)))
    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    figure = new_figure(columns * (_HEAD_SIDE + 0.2) + 1.3, rows * (_HEAD_SIDE + 0.15) + 0.9)
    limits = _colour_limits(maps)
    for head, one_map in enumerate(maps):
        axes = figure.add_subplot(rows, columns, head + 1)
        image = _draw_matrix(axes, one_map, limits, _HEAD_SIDE)
        is_lowest, is_leftmost = head + columns >= len(maps), head % columns == 0
        _show_sequence(
            axes, sequence, _HEAD_SIDE, "x" * is_lowest + "y" * is_leftmost, most_ticks=5
        )
        axes.set_title(f"head {head}", fontsize=9, pad=4)
        if head == highlight:
            _frame(axes)
    figure.colorbar(image, ax=figure.axes, label=label, shrink=0.5, aspect=35)
    figure.supxlabel("position", fontsize=9)
    figure.supylabel("position", fontsize=9)
    figure.suptitle(title or "", fontsize=11, parse_math=False)
    return saved(figure, path)


def _draw_matrix(
    axes: Axes, scores: np.ndarray, limits: tuple[float, float], side: float
) -> AxesImage:
    """Draw (length, length) on ``side`` inches so that base n, counted from 1, is centred on n."""
    # With fewer dots than bases "nearest" would leave bases out.
    interpolation = "nearest" if side * DOTS_PER_INCH >= len(scores) else "antialiased"
    edges = (0.5, scores.shape[1] + 0.5, scores.shape[0] + 0.5, 0.5)
    colours = "RdBu_r" if limits[0] < 0 else "Greys"
    return axes.imshow(
        scores,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        extent=edges,
        interpolation=interpolation,
    )


def _colour_limits(scores: np.ndarray) -> tuple[float, float]:
    """Limits of the colours: symmetric about 0, or from 0 where no score is negative.

    They go by the large scores, which are those of pairs: a head gives bases that are too near one
    another scores far below 0, beside which all others would look alike.
    """
    largest = max(float(np.quantile(scores, _COLOUR_QUANTILE)), 0.0)
    largest = largest or float(np.abs(scores).max()) or 1.0
    return (-largest if scores.min() < 0 else 0.0), largest


def _show_sequence(
    axes: Axes, sequence: str, side: float, shown: str, most_ticks: int = 12
) -> None:
    """Label a matrix, at the axes in ``shown``, with positions and, where they fit, letters."""
    has_letters = side / len(sequence) >= SMALLEST_LETTER
    size = letter_size(side, len(sequence))
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        axis.set_ticks(positions(len(sequence), most_ticks))
        pad = size + 2 if has_letters else 3
        axis.set_tick_params("major", labelsize=8, pad=pad, label1On=name in shown)
        if has_letters:
            # Letters stand at every position, also where there is a number.
            axis.remove_overlapping_locs = False
            axis.set_ticks(range(1, len(sequence) + 1), labels=list(sequence), minor=True)
            axis.set_tick_params("both", length=0)
            axis.set_tick_params("minor", labelsize=size, labelfontfamily="monospace")
            axis.set_tick_params("minor", pad=2, label1On=name in shown)


def _mark_pairs(axes: Axes, pairs: list[BasePair], cell: float, what: str, where: str) -> Line2D:
    """Circle pairs (column, row), or dot them if a cell, of ``cell`` points, is small."""
    from matplotlib.patheffects import withStroke

    is_small = cell < 3
    (marks,) = axes.plot(
        [i + 1 for i, _ in pairs],
        [j + 1 for _, j in pairs],
        linestyle="none",
        marker="o",
        markersize=2.0 if is_small else min(1.2 * cell, 9.0),
        markerfacecolor=BLACK if is_small else "none",
        markeredgecolor=BLACK,
        markeredgewidth=0.0 if is_small else 0.8,
        label=f"{where}: {len(pairs)} pairs {what}" if pairs else f"{where}: no pairs {what}",
        # A white rim keeps the circles visible on dark colours.
        path_effects=[] if is_small else [withStroke(linewidth=2, foreground="white")],
    )
    return marks


def _frame(axes: Axes) -> None:
    axes.spines[:].set(color=VERMILLION, linewidth=2.5)
    axes.title.set(color=VERMILLION, fontweight="bold")


def _as_array(values: Array, shape: tuple[int | None, ...]) -> np.ndarray:
    """Values as a float array of the given shape, where None stands for any size but 0."""
    if not isinstance(values, np.ndarray):
        values = values.detach().cpu().float().numpy()
    array = np.asarray(values, dtype=np.float64)
    fits = array.ndim == len(shape) and all(
        b in (None, a) for a, b in zip(array.shape, shape, strict=True)
    )
    if not fits or not array.size:
        wanted = tuple("any" if size is None else size for size in shape)
        raise ValueError(f"expected scores of shape {wanted} for this sequence, got {array.shape}")
    return array
