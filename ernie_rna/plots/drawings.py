"""Drawings of structures, pairing maps, substitutions and vectors, by matplotlib (extra `plot`).

Each function returns a new figure, made without pyplot; `save` writes it, and `as_svg` shows it in
a notebook. Arguments that several functions share:

sequence        its letters; axes count them from 1, as the structure files do, and show the letters
                if there is room for them
pairs, known    the predicted and the known base pairs, counted from 0
label           the quantity that the colours show

All functions raise ImportError if matplotlib is not installed, and ValueError if pairs do not fit
the sequence or an argument has a different length. Colour-blind readers can distinguish the colours
(Okabe and Ito's palette, and matplotlib's RdBu, Greys and viridis).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.run.outputs import full_disk_explained, replacing
from ernie_rna.scoring.mutate import NUCLEOTIDES, LetterScores
from ernie_rna.sequences.fasta import FilePath, to_rna
from ernie_rna.structures.formats.dot_bracket import (
    BasePair,
    nested_pages,
    sorted_pairs,
    to_dot_bracket,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pairs = Iterable[BasePair]
# The file formats of pictures.
EXTENSIONS = (".png", ".svg", ".pdf")

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_BLUE, _VERMILLION, _GREEN, *_, _BLACK = _COLOURS
_GREY = "#888888"
_UNIT_CMAP = "viridis_r"  # for values from 0 to 1
_MARKERS = "os^DvP*X"  # distinguish groups once all colours are used
_MOST_NAMES, _LONGEST_NAME = 60, 20  # names beside points: their number, and characters of each

# All sizes are in inches. Below the smallest width per letter, a letter would be under 5 points.
_SMALLEST_LETTER, _LETTER = 0.085, 0.115
_DOTS_PER_INCH = 200
# Least and greatest width and height of arcs, and half the height of the row of letters.
_ARCS_WIDTH, _ARCS_HEIGHT, _LETTER_GAP = (5.0, 14.0), (1.0, 3.0), 0.1
_MAP_SIDE, _HEAD_SIDE = (4.0, 8.0), 2.3  # least and greatest side of a map; the side of a head's
# The colours cover scores up to this quantile, so that a few large ones do not hide the others.
_COLOUR_QUANTILE = 0.998
# Substitutions: positions in a row, width of a position, and height of a row with its labels.
_IN_A_ROW, _CELL, _ROW = 60, 0.15, 1.25
# Layouts: ViennaRNA's units between neighbours, the inches between them, the largest side of a
# drawing (neighbours move closer to fit), and the least distance between neighbours with letters.
_UNITS, _STEP, _LARGEST, _SMALLEST_STEP = 15.0, 0.23, 14.0, 0.1


def save(figure: Figure, path: FilePath, title: str = "") -> None:
    """Save a figure with a title, by the extension; the same figure always gives the same file."""
    figure.suptitle(title, fontsize=11, parse_math=False)
    target = Path(path)
    with full_disk_explained(target), replacing(target) as temporary:
        _write(figure, temporary, target.suffix.lower()[1:])


def as_svg(draw: Callable[..., Figure], *arguments: Any, **options: Any) -> str | None:
    """The drawing of a function as SVG, for a notebook; None if it cannot be drawn."""
    text = io.StringIO()
    try:
        _write(draw(*arguments, **options), text, "svg")
    except (ImportError, ValueError):  # The notebook then shows the object as text.
        return None
    return text.getvalue()


def _write(figure: Figure, target: Any, format: str) -> None:
    import matplotlib

    # With fixed ids of the elements and no date, the same figure gives the same file.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
    with matplotlib.rc_context({"svg.hashsalt": "ernie-rna"}):
        figure.savefig(target, format=format, metadata=metadata)


def _new_figure(width: float, height: float) -> Figure:
    module = import_extra("matplotlib.figure", "plot", "a plot")
    figure: Figure = module.Figure((width, height), dpi=_DOTS_PER_INCH, layout="constrained")
    return figure


def _letter_size(side: float, length: int) -> float | None:
    """Font size, in points, of letters along a side; None if there is no room for them."""
    room = side / length
    return float(np.clip(0.8 * 72 * room, 1, 9)) if room >= _SMALLEST_LETTER else None


def _positions(length: int, most: int) -> list[int]:
    """About ``most`` positions to label, counted from 1: 1, then every 10th, 20th, 50th, …"""
    steps = (base * 10**power for power in range(9) for base in (1, 2, 5))
    step = next(step for step in steps if length / step < most)
    return sorted({1, *range(step if step > 2 else 1, length + 1, step)})


def _checked(pairs: Pairs, sequence: str) -> list[BasePair]:
    if not sequence:
        raise ValueError("a sequence without bases cannot be drawn")
    return sorted_pairs(pairs, len(sequence))


def plot_arcs(
    sequence: str,
    pairs: Pairs,
    known: Pairs | None = None,
    *,
    probabilities: np.ndarray | None = None,
    label: str = "probability",
) -> Figure:
    """Draw a structure as arcs over the sequence, one for each base pair.

    Without known pairs, the colours distinguish nested pairs from pseudoknots. With known pairs,
    the predicted pairs are above the sequence and the known ones below it, and the colours show
    which are in both. If there are no pairs the picture says so. With `probabilities`, (length,
    length), the predicted pairs have the colours of those instead.
    """
    above, length = _checked(pairs, sequence), len(sequence)
    below = None if known is None else _checked(known, sequence)
    width = float(np.clip(length * _LETTER, *_ARCS_WIDTH))
    longest = max((j - i for i, j in above + (below or [])), default=1)
    # Arcs are half circles, or flatter if these would not fit.
    height = float(np.clip(longest * width / length / 2, *_ARCS_HEIGHT))
    size = _letter_size(width, length)
    gap = _LETTER_GAP if size else 0.0
    top, sides = 1.03 * height + gap, 1 if below is None else 2
    figure = _new_figure(width + 0.5, sides * (height + gap) + 1.2)
    axes = figure.add_subplot(xlabel="position", xticks=_positions(length, int(2 * width)))
    axes.set(xlim=(0.2, length + 0.8), ylim=(-gap if below is None else -top, top))
    titles = {"predicted": top / 2, "known": -top / 2} if below is not None else {}
    axes.set_yticks([*titles.values()], labels=[*titles], rotation=90, va="center")
    axes.tick_params("y", length=0)
    axes.spines[["left", "right", "top"]].set_visible(False)
    line, rise = float(np.clip(20 * width / length, 0.5, 1.8)), height / longest
    groups = _groups(above, below)
    if probabilities is not None:
        groups = [("known", _BLACK, [], below)] if below else []
        values = [float(probabilities[pair]) for pair in above]
        arcs = _add_arcs(axes, above, gap, rise, line, cmap=_UNIT_CMAP, array=values, clim=(0, 1))
        figure.colorbar(arcs, ax=axes, label=label, shrink=0.8, aspect=15)
    for name, colour, upper, lower in groups:
        _add_arcs(axes, upper, gap, rise, line, edgecolors=colour)
        _add_arcs(axes, lower, -gap, -rise, line, edgecolors=colour)
        count = max(len(upper), len(lower))
        axes.plot([], [], color=colour, linewidth=1.6, label=f"{name} ({count})")
    if groups:
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    for side, kind, y, va in ((above, "predicted", 0.97, "top"), (below, "known", 0.03, "bottom")):
        if side == []:
            axes.text(0.5, y, f"no pairs {kind}", transform=axes.transAxes, ha="center", va=va)
    if size is None:
        axes.axhline(0, color="black", linewidth=0.8)
    else:
        font: Any = {"fontsize": size, "family": "monospace", "ha": "center", "va": "center"}
        for position, base in enumerate(sequence, 1):
            axes.text(position, 0, base, **font)
    return figure


def _groups(
    above: list[BasePair], below: list[BasePair] | None
) -> list[tuple[str, str, list[BasePair], list[BasePair]]]:
    """Groups of pairs: name, colour, and the pairs to draw above and below the sequence."""
    if below is None:
        empty: list[BasePair] = []
        nested, crossing, *pages = [*nested_pages(above), empty, empty]
        further = [pair for page in pages for pair in page]
        knots = (("pseudoknot", _VERMILLION, crossing), ("further crossings", _GREEN, further))
        shown_knots = [(name, colour, pairs, empty) for name, colour, pairs in knots if pairs]
        return [("nested pairs", _BLUE, nested, empty), *shown_knots]
    common = sorted({*above} & {*below})
    return [
        ("predicted only", _VERMILLION, sorted({*above} - {*common}), []),
        ("known only", _BLACK, [], sorted({*below} - {*common})),
        ("in both", _BLUE, common, common),
    ]


def _add_arcs(
    axes: Axes, pairs: list[BasePair], gap: float, rise: float, line: float, **colours: Any
) -> Any:
    """Draw half ellipses from ``gap`` up, ``rise`` high for each base between the partners."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path
    from matplotlib.transforms import Affine2D

    arcs = []
    for i, j in pairs:
        transform = Affine2D().scale((j - i) / 2, (j - i) * rise).translate((i + j) / 2 + 1, gap)
        arcs.append(Path.arc(0, 180).transformed(transform))
    collection = PathCollection(arcs, facecolors="none", linewidths=line, **colours)
    return axes.add_collection(collection, autolim=False)


def plot_layout(
    sequence: str,
    pairs: Pairs,
    *,
    values: Sequence[float] | None = None,
    label: str = "reliability",
) -> Figure:
    """Draw a structure in the classical layout: stems as ladders, loops as rings.

    The largest set of pairs that do not cross determines the layout; others are lines across it.

    Args:
        values: a number from 0 to 1 for each base, shown by its colour; NaN is white.

    Raises:
        ImportError: ViennaRNA (extra ``vienna``) is not installed.
    """
    if values is not None and len(values) != len(sequence):
        raise ValueError(f"{len(values)} values for {len(sequence)} bases")
    nested, *crossing = nested_pages(_checked(pairs, sequence)) or [[]]
    places = coordinates(nested, len(sequence))  # (length, 2), neighbours 1 apart
    step = min(_STEP, _LARGEST / (np.ptp(places, axis=0) + 5).max())
    width, height = np.maximum(step * (np.ptp(places, axis=0) + 5), (4.0, 2.0))
    figure = _new_figure(width + (0.9 if values is not None else 0.0), height + 0.5)
    axes = figure.add_subplot(aspect="equal")
    axes.set_axis_off()
    (left, bottom), (right, top) = places.min(axis=0) - 2.5, places.max(axis=0) + 2.5
    axes.set(xlim=(left, right), ylim=(bottom, top))
    _draw_lines(axes, sequence, places, nested, [pair for page in crossing for pair in page])
    numbers = np.full(len(sequence), np.nan) if values is None else np.array(values, dtype=float)
    from matplotlib import colormaps

    cmap = colormaps[_UNIT_CMAP].with_extremes(bad="white")
    area = (72 * 0.75 * step) ** 2  # square points
    scale: Any = {"c": numbers, "cmap": cmap, "vmin": 0, "vmax": 1, "plotnonfinite": True}
    outline: Any = {"edgecolors": _GREY, "linewidths": 0.5, "zorder": 3}
    circles = axes.scatter(places[:, 0], places[:, 1], area, **scale, **outline)
    style: Any = {"fontsize": 72 * 0.5 * step, "ha": "center", "va": "center_baseline", "zorder": 4}
    if step >= _SMALLEST_STEP:
        for base, (x, y), number in zip(sequence, places, numbers, strict=True):
            colour = "white" if number > 0.6 else _BLACK  # black for NaN
            axes.text(x, y, base, color=colour, **style)
    if values is not None:
        figure.colorbar(circles, ax=axes, label=label, shrink=0.5, aspect=20)
    _number(axes, places)
    return figure


def coordinates(nested: list[BasePair], length: int) -> np.ndarray:
    """Places of the bases of a structure without crossings: (length, 2), neighbours about 1 apart.

    They are computed by RNApuzzler of ViennaRNA (Wiegreffe et al., Bioinformatics 35:1342-1349,
    2019), which avoids overlaps between the parts of a structure.
    """
    vienna = import_extra("RNA", "vienna", "a drawing of stems and loops")
    before, vienna.cvar.rna_plot_type = vienna.cvar.rna_plot_type, vienna.PLOT_TYPE_PUZZLER
    try:
        points = vienna.get_xy_coordinates(to_dot_bracket(nested, length))
    finally:
        vienna.cvar.rna_plot_type = before
    return np.array([(points.get(at).X, points.get(at).Y) for at in range(length)]) / _UNITS


def _draw_lines(
    axes: Axes, sequence: str, places: np.ndarray, nested: list[BasePair], crossing: list[BasePair]
) -> None:
    """Draw the backbone, and a line for each pair, with a dot on that of a G-U pair."""
    axes.plot(*places.T, color=_GREY, linewidth=0.8, zorder=1)
    for pairs, colour, style in ((nested, _BLACK, "-"), (crossing, _VERMILLION, "--")):
        for pair in pairs:
            axes.plot(*places[[*pair]].T, style, color=colour, linewidth=1.2, zorder=2)
            letters = {to_rna(sequence[base]) for base in pair}
            if letters == {"G", "U"} and pairs is nested:
                axes.plot(*places[[*pair]].mean(axis=0), "ko", markersize=2.5, zorder=2)
    if crossing:
        axes.lines[-1].set_label(f"pseudoknot ({len(crossing)})")
        axes.figure.legend(loc="outside lower right", frameon=False, fontsize=8)


def _number(axes: Axes, places: np.ndarray) -> None:
    """Label the ends with 5' and 3', and every tenth base, each on its emptier side."""
    last = len(places) - 1
    labels = {0: "5'", last: "3'"} | {base: str(base + 1) for base in range(9, last, 10)}
    for base, text in labels.items():
        along = places[min(base + 1, last)] - places[max(base - 1, 0)]
        away = np.array([along[1], -along[0]]) / (np.hypot(*along) or 1.0)
        # Choose the side with fewer bases around it, of which near ones count more.
        x, y = min(
            (places[base] + 1.3 * direction for direction in (away, -away)),
            key=lambda side: np.exp(-np.hypot(*(places - side).T)).sum(),
        )
        axes.text(x, y, text, fontsize=6.5, color=_GREY, ha="center", va="center", zorder=4)


def plot_pairing_map(
    scores: np.ndarray,
    sequence: str,
    *,
    pairs: Pairs | None = None,
    known: Pairs | None = None,
    highlight: int | None = None,
    label: str = "score",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw a pairing map, contacts, or the maps of all heads of a layer, as matrices.

    The sequence runs along both axes. The maps of heads are side by side and have the same colours.
    Maps with negative values are drawn from blue through white (0) to red, others from white to
    black. Predicted pairs are circled below the diagonal, known ones above it.

    Args:
        scores: (length, length), or (heads, length, length).
        highlight: the head to frame, counted from 0.
        limits: lowest and highest value of the colours; None ignores the few largest scores.
    """
    values, length = np.asarray(scores, dtype=np.float64), len(sequence)
    if values.ndim not in (2, 3) or values.shape[-2:] != (length, length) or not values.size:
        raise ValueError(
            f"expected scores of shape ({length}, {length}) or (heads, {length}, {length}) for "
            f"this sequence; got {values.shape}"
        )
    maps, are_heads = values.reshape(-1, length, length), values.ndim == 3
    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    side = _HEAD_SIDE if are_heads else float(np.clip(length * _LETTER, *_MAP_SIDE))
    figure = _new_figure(columns * (side + 0.2) + 1.3, rows * (side + 0.15) + 0.7)
    # Large scores mark pairs. Scores far below 0 do not set the range: heads give them to bases too
    # close to pair, and with them in the range all other scores would look the same.
    largest = (
        max(float(np.quantile(maps, _COLOUR_QUANTILE)), 0.0) or float(np.abs(maps).max()) or 1.0
    )
    low, high = limits or (-largest if maps.min() < 0 else 0.0, largest)
    # If there are fewer dots than bases, "nearest" would skip bases.
    interpolation = "nearest" if side * _DOTS_PER_INCH >= length else "antialiased"
    extent = (0.5, length + 0.5, length + 0.5, 0.5)
    colours: Any = {"cmap": "RdBu_r" if low < 0 else "Greys", "vmin": low, "vmax": high}
    for head, head_map in enumerate(maps):
        axes = figure.add_subplot(rows, columns, head + 1)
        image = axes.imshow(head_map, extent=extent, interpolation=interpolation, **colours)
        shown = {"x": head + columns >= len(maps), "y": head % columns == 0}
        _label_axes(axes, sequence, side, shown, 5 if are_heads else 12)
        _mark_pairs(axes, sequence, 72 * side / length, pairs, known)
        if are_heads:
            axes.set_title(f"head {head}", fontsize=9, pad=4)
        if head == highlight:
            axes.spines[:].set(color=_VERMILLION, linewidth=2.5)
            axes.title.set(color=_VERMILLION, fontweight="bold")
    marks = figure.axes[0].lines
    if marks:
        figure.legend(handles=marks, loc="outside lower right", frameon=False, fontsize=9, ncols=2)
    figure.colorbar(image, ax=figure.axes, label=label, shrink=0.6, aspect=25)
    figure.supxlabel("position", fontsize=10)
    figure.supylabel("position", fontsize=10)
    return figure


def _label_axes(axes: Axes, sequence: str, side: float, shown: dict[str, bool], most: int) -> None:
    """Label a matrix with positions, and letters if they fit; ``shown`` names the visible axes."""
    size = _letter_size(side, len(sequence))
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        axis.set_ticks(_positions(len(sequence), most))
        axis.set_tick_params("major", labelsize=8, label1On=shown[name])
        if size is not None:
            # Show letters at all positions, also at those with a number.
            axis.remove_overlapping_locs = False
            axis.set_ticks(range(1, len(sequence) + 1), labels=list(sequence), minor=True)
            axis.set_tick_params("both", length=0)
            axis.set_tick_params("major", pad=size + 2)
            font: Any = {"labelsize": size, "labelfontfamily": "monospace"}
            axis.set_tick_params("minor", pad=2, label1On=shown[name], **font)


def _mark_pairs(
    axes: Axes, sequence: str, cell: float, pairs: Pairs | None, known: Pairs | None
) -> None:
    """Circle pairs whose cells are ``cell`` points wide."""
    from matplotlib.patheffects import withStroke

    size = float(np.clip(1.2 * cell, 1.0, 9.0))
    # A white rim keeps the circles visible on dark colours.
    rim: Any = {"path_effects": [withStroke(linewidth=min(2.0, size), foreground="white")]}
    for marked, side, kind in ((pairs, "below", "predicted"), (known, "above", "known")):
        if marked is not None:
            places = np.array(_checked(marked, sequence), dtype=int).reshape(-1, 2).T + 1
            x, y = places if side == "below" else places[::-1]
            label = f"{side}: {len(x) or 'no'} pairs {kind}"
            axes.plot(x, y, "ko", mfc="none", mew=0.8, markersize=size, label=label, **rim)


def plot_effects(scores: LetterScores) -> Figure:
    """Draw the effects of all substitutions of a sequence, in rows of 60 positions.

    Letters that the model finds less likely than the one in the sequence are blue, and more likely
    ones red; a dot marks the letter of the sequence. Positions without scores are grey.

    Raises:
        ValueError: no position has scores.
    """
    from matplotlib import colormaps

    if not scores.scored.any():
        raise ValueError(f"{scores.id} has none of A, C, G and U, so there are no effects to draw")
    columns, rows = min(len(scores.sequence), _IN_A_ROW), -(-len(scores.sequence) // _IN_A_ROW)
    figure = _new_figure(max(columns * _CELL, 3.0) + 1.6, rows * _ROW + 0.7)
    limit = float(np.nanmax(np.abs(scores.effects))) or 1.0
    style: Any = {"vmin": -limit, "vmax": limit, "aspect": "auto", "interpolation": "nearest"}
    style["cmap"] = colormaps["RdBu_r"].with_extremes(bad="#dddddd")
    for row in range(rows):
        start = row * _IN_A_ROW  # counted from 0
        letters = list(enumerate(scores.sequence[start : start + columns], start + 1))
        stop = start + len(letters)
        axes = figure.add_subplot(rows, 1, row + 1)
        extent = (start + 0.5, stop + 0.5, 3.5, -0.5)
        image = axes.imshow(scores.effects[start:stop].T, extent=extent, **style)
        dots = [(at, NUCLEOTIDES.index(base)) for at, base in letters if base in NUCLEOTIDES]
        axes.plot([at for at, _ in dots], [place for _, place in dots], "k.", markersize=3)
        axes.set_xlim(start + 0.5, start + columns + 0.5)
        labels = [f"{base}\n{at}" if at % 10 == 0 or at == 1 else base for at, base in letters]
        axes.set_xticks([at for at, _ in letters], labels=labels, fontsize=7, family="monospace")
        axes.set_yticks(range(4), labels=list(NUCLEOTIDES), fontsize=8, family="monospace")
        axes.tick_params("both", length=0)
        axes.spines[:].set_visible(False)
    axes.set_xlabel("position")
    label = "log P(mutant) - log P(wild type)"
    figure.colorbar(image, ax=figure.axes, label=label, aspect=12 * rows)
    return figure


def plot_components(
    vectors: np.ndarray, names: Sequence[str], *, groups: Sequence[str] | None = None
) -> Figure:
    """Draw vectors by their first two principal components.

    Args:
        vectors: (count, size).
        names: of the vectors; written beside the points if there are at most 60.
        groups: the group of each vector, shown by colour and shape.

    Raises:
        ValueError: there are fewer than two vectors, or all are equal.
    """
    for values, what in ((names, "names"), (groups or names, "groups")):
        if len(values) != len(vectors):
            raise ValueError(f"{len(values)} {what} for {len(vectors)} vectors")
    if len(vectors) < 2:
        raise ValueError("principal components need at least two vectors: give more sequences")
    centred = vectors - np.mean(vectors, axis=0, dtype=np.float64)
    # With a column of zeros added, even vectors of size 1 have a second component.
    left, sizes, _ = np.linalg.svd(np.pad(centred, ((0, 0), (0, 1))), full_matrices=False)
    if not sizes.any():
        raise ValueError("all vectors are equal: there is nothing to draw")
    places, percent = (left * sizes)[:, :2], 100 * (sizes**2 / (sizes**2).sum())
    figure = _new_figure(7.0, 5.6)
    axes = figure.add_subplot()
    axes.margins(0.12)
    for number, group in enumerate(dict.fromkeys(groups or [""])):
        members = [groups is None or name == group for name in groups or names]
        marker = _MARKERS[number // len(_COLOURS) % len(_MARKERS)]
        axes.plot(*places[members].T, marker, color=_COLOURS[number % len(_COLOURS)], label=group)
    style: Any = {"textcoords": "offset points", "fontsize": 8, "parse_math": False}
    if len(names) <= _MOST_NAMES:
        for place, name in zip(places, names, strict=True):
            shown = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
            axes.annotate(shown, place, (4, 4), **style)
    for axis, number in ((axes.xaxis, 0), (axes.yaxis, 1)):
        axis.set_label_text(f"component {number + 1}: {percent[number]:.0f} % of the variance")
    if groups is not None:
        for text in figure.legend(loc="outside right upper", frameon=False, fontsize=9).get_texts():
            text.set_parse_math(False)
    return figure
