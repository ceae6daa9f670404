"""Pictures of pairing maps and structures, by matplotlib (extra ``plot``).

Every function returns a matplotlib Figure, made without pyplot, and with ``path`` also saves it, as
PNG, SVG or PDF by the extension. The same picture gives the same SVG file. Axes count bases from 1,
as the structure files do, and show the letters of the sequence where there is room for them. The
colours are told apart by colour-blind readers (Okabe and Ito's palette, and matplotlib's RdBu and
Greys).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.structures.dot_bracket import BasePair, nested_pages, sorted_pairs
from ernie_rna.structures.structure import FilePath

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.path import Path as MatplotlibPath
    from torch import Tensor

    Array = np.ndarray | Tensor

# What a picture is saved as.
EXTENSIONS = (".png", ".svg", ".pdf")

BLUE, VERMILLION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"

# All in inches. In less room than the first, a letter would be smaller than 5 points.
_SMALLEST_LETTER = 0.085
_LETTER = 0.115
_MAP_SIDE = (4.0, 8.0)
_HEAD_SIDE = 2.3
_ARC_WIDTH = (5.0, 14.0)
_ARC_HEIGHT = (1.0, 3.0)
# Room for a row of letters, above and below its middle.
_LETTER_GAP = 0.1

_DOTS_PER_INCH = 200
# The part of the scores that the colours cover, so that a few large ones do not hide the others.
_COLOUR_QUANTILE = 0.998


def plot_pairing_map(
    pairing_map: Array,
    sequence: str,
    *,
    pairs: Iterable[BasePair] | None = None,
    title: str | None = None,
    label: str = "score",
    path: FilePath | None = None,
) -> Figure:
    """Draw a pairing map, or contacts, as a matrix with the sequence along both axes.

    Maps with negative values are drawn from blue over white (0) to red, others from white to black.

    Args:
        pairing_map: (length, length).
        sequence: its bases.
        pairs: base pairs, counted from 0, to be marked by circles below the diagonal.
        title: line above the picture.
        label: what the colours stand for.
        path: file to save to.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: map and sequence differ in length, the pairs are not pairs of this sequence, or
            the extension of ``path`` is unknown.
    """
    scores = _as_array(pairing_map, (len(sequence), len(sequence)))
    side = float(np.clip(len(sequence) * _LETTER, *_MAP_SIDE))
    figure = _new_figure(side + 1.5, side + 0.6)
    axes = figure.add_subplot()
    image = _draw_matrix(axes, scores, _colour_limits(scores), side)
    _show_sequence(axes, sequence, side, "xy")
    axes.set(xlabel="position", ylabel="position", title=title or "")
    if pairs is not None:
        _mark_pairs(axes, sorted_pairs(pairs, len(sequence)), 72 * side / len(sequence))
    figure.colorbar(image, ax=axes, label=label, shrink=0.6, aspect=25)
    return _saved(figure, path)


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
    figure = _new_figure(columns * (_HEAD_SIDE + 0.2) + 1.3, rows * (_HEAD_SIDE + 0.15) + 0.9)
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
    figure.suptitle(title or "", fontsize=11)
    return _saved(figure, path)


def plot_arcs(
    sequence: str,
    pairs: Iterable[BasePair],
    reference_pairs: Iterable[BasePair] | None = None,
    *,
    title: str | None = None,
    path: FilePath | None = None,
) -> Figure:
    """Draw a structure as arcs over the sequence, one for each base pair.

    Without a reference, the colours tell nested pairs from pseudoknots. With one, the predicted
    pairs stand above the sequence and the known ones below it, and the colours say which are in
    both.

    Args:
        sequence: its bases.
        pairs: base pairs, counted from 0.
        reference_pairs: known base pairs, counted from 0.
        title: line above the picture.
        path: file to save to.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: pairs are not pairs of this sequence, or the extension of ``path`` is unknown.
    """
    _check_sequence(sequence)
    above = sorted_pairs(pairs, len(sequence))
    below = None if reference_pairs is None else sorted_pairs(reference_pairs, len(sequence))
    width = float(np.clip(len(sequence) * _LETTER, *_ARC_WIDTH))
    longest = max((j - i for i, j in above + (below or [])), default=1)
    # Half circles, or lower where they would not fit.
    height = float(np.clip(longest * width / len(sequence) / 2, *_ARC_HEIGHT))
    gap = _LETTER_GAP if width / len(sequence) >= _SMALLEST_LETTER else 0.0

    figure = _new_figure(width + 0.5, (1 if below is None else 2) * (height + gap) + 1.2)
    axes = figure.add_subplot()
    axes.set_xlim(0.2, len(sequence) + 0.8)
    top = 1.03 * height + gap
    axes.set_ylim(-gap if below is None else -top, top)
    groups = _arcs_by_page(above) if below is None else _arcs_by_agreement(above, below)
    for name, colour, upper, lower in groups:
        arcs = [_arc(pair, gap, height / longest) for pair in upper]
        arcs += [_arc(pair, -gap, -height / longest) for pair in lower]
        _draw_arcs(
            axes,
            arcs,
            f"{name} ({max(len(upper), len(lower))})",
            colour,
            20 * width / len(sequence),
        )
    _show_baseline(axes, sequence, width, sides=["predicted", "known"] if below is not None else [])
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    axes.set_title(title or "", fontsize=11)
    return _saved(figure, path)


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


def _show_baseline(axes: Axes, sequence: str, width: float, sides: list[str]) -> None:
    """Draw the sequence between the arcs, or a line if it is too long, and positions below them."""
    if width / len(sequence) >= _SMALLEST_LETTER:
        size = _letter_size(width, len(sequence))
        for position, base in enumerate(sequence, 1):
            axes.text(
                position, 0, base, ha="center", va="center", fontsize=size, family="monospace"
            )
    else:
        axes.axhline(0, color="black", linewidth=0.8)
    for side, y in zip(sides, (0.75, 0.25), strict=False):
        axes.text(0, y, side, transform=axes.transAxes, rotation=90, ha="right", va="center")
    axes.set_xticks(_positions(len(sequence), int(2 * width)))
    axes.set_yticks([])
    axes.set_xlabel("position")
    axes.spines[["left", "right", "top"]].set_visible(False)


# --- matrices ---


def _draw_matrix(
    axes: Axes, scores: np.ndarray, limits: tuple[float, float], side: float
) -> AxesImage:
    """Draw (length, length) on ``side`` inches so that base n, counted from 1, is centred on n."""
    # With fewer dots than bases "nearest" would leave bases out.
    interpolation = "nearest" if side * _DOTS_PER_INCH >= len(scores) else "antialiased"
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
    """Limits of the colours: symmetric about 0, or from 0 where no score is negative."""
    largest = (
        float(np.quantile(np.abs(scores), _COLOUR_QUANTILE)) or float(np.abs(scores).max()) or 1.0
    )
    return (-largest if scores.min() < 0 else 0.0), largest


def _show_sequence(
    axes: Axes, sequence: str, side: float, shown: str, most_ticks: int = 12
) -> None:
    """Label a matrix, at the axes in ``shown``, with positions and, where they fit, letters."""
    has_letters = side / len(sequence) >= _SMALLEST_LETTER
    size = _letter_size(side, len(sequence))
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        axis.set_ticks(_positions(len(sequence), most_ticks))
        pad = size + 2 if has_letters else 3
        axis.set_tick_params("major", labelsize=8, pad=pad, label1On=name in shown)
        if has_letters:
            # Letters stand at every position, also where there is a number.
            axis.remove_overlapping_locs = False
            axis.set_ticks(range(1, len(sequence) + 1), labels=list(sequence), minor=True)
            axis.set_tick_params("both", length=0)
            axis.set_tick_params("minor", labelsize=size, labelfontfamily="monospace")
            axis.set_tick_params("minor", pad=2, label1On=name in shown)


def _letter_size(side: float, length: int) -> float:
    """Font size, in points, of letters that stand beside one another along ``side`` inches."""
    return float(np.clip(0.8 * 72 * side / length, 1, 9))


def _positions(length: int, most: int) -> list[int]:
    """About ``most`` positions to be labelled, counted from 1: 1, then every 10th, 20th, 50th, …"""
    steps = (base * 10**power for power in range(9) for base in (1, 2, 5))
    step = next(step for step in steps if length / step < most)
    return (
        sorted({1, *range(step, length + 1, step)})
        if step > 2
        else list(range(1, length + 1, step))
    )


def _mark_pairs(axes: Axes, pairs: list[BasePair], cell: float) -> None:
    """Circle pairs below the diagonal, or dot them if a cell, of ``cell`` points, is small."""
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
        label=f"base pairs ({len(pairs)})",
        # A white rim keeps the circles visible on dark colours.
        path_effects=[] if is_small else [withStroke(linewidth=2, foreground="white")],
    )
    axes.figure.legend(handles=[marks], loc="outside lower right", frameon=False, fontsize=9)


def _frame(axes: Axes) -> None:
    axes.spines[:].set(color=VERMILLION, linewidth=2.5)
    axes.title.set(color=VERMILLION, fontweight="bold")


# --- input and output ---


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


def _check_sequence(sequence: str) -> None:
    if not sequence:
        raise ValueError("there is nothing to draw for a sequence without bases")


def _new_figure(width: float, height: float) -> Figure:
    module = import_extra("matplotlib.figure", "plot", "a plot")
    figure: Figure = module.Figure(
        figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained"
    )
    return figure


def _saved(figure: Figure, path: FilePath | None) -> Figure:
    if path is None:
        return figure
    import matplotlib

    extension = Path(path).suffix.lower()
    if extension not in EXTENSIONS:
        raise ValueError(f"{path}: a picture is saved as .png, .svg or .pdf, not {extension!r}")
    # A fixed salt for the ids of the elements, and no date, make the same file of the same picture.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(extension)
    with matplotlib.rc_context({"svg.hashsalt": "ernie-rna"}):
        figure.savefig(path, metadata=metadata)
    return figure
