"""Drawings of structures, pairing maps, substitutions and vectors, by matplotlib (`plot`).

Each function returns a figure of its own, made without pyplot; `save` writes it, and `as_svg` shows
it in a notebook. Everywhere

sequence        its bases; axes count them from 1, as the structure files do, and show the letters
                where there is room for them
pairs, known    base pairs that are predicted and known, counted from 0
label           what the colours stand for

Where matplotlib is not installed ImportError is raised, and ValueError where pairs are not pairs of
the sequence, or something has not its length. Colour-blind readers can tell the colours apart
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

# What a picture is saved as.
EXTENSIONS = (".png", ".svg", ".pdf")

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_BLUE, _VERMILLION, _GREEN, *_, _BLACK = _COLOURS
_GREY = "#888888"
_SURENESS = "viridis_r"  # colours of 0 to 1
_MARKERS = "os^DvP*X"  # beyond the colours, shapes tell groups apart
_MOST_NAMES, _LONGEST_NAME = 60, 20  # beside points

# All sizes are in inches. In less room than the first, a letter would be smaller than 5 points.
_SMALLEST_LETTER, _LETTER = 0.085, 0.115
_DOTS_PER_INCH = 200
# Sides from and to, of arcs and of a map; the room for a row of letters above and below its middle.
_ARCS_WIDTH, _ARCS_HEIGHT, _LETTER_GAP = (5.0, 14.0), (1.0, 3.0), 0.1
_MAP_SIDE, _HEAD_SIDE = (4.0, 8.0), 2.3
# The part of the scores that the colours cover, so that a few large ones do not hide the others.
_COLOUR_QUANTILE = 0.998
# Of substitutions: positions in a row, and a position, and a row with its labels.
_IN_A_ROW, _CELL, _ROW = 60, 0.15, 1.25
# ViennaRNA puts neighbours 15 units apart; so far apart are they here, if the drawing fits.
_UNITS, _STEP, _LARGEST, _SMALLEST_STEP = 15.0, 0.23, 14.0, 0.1


def save(figure: Figure, path: FilePath, title: str = "") -> None:
    """Save a picture, under a title, by the extension; the same picture gives the same SVG file."""
    figure.suptitle(title, fontsize=11, parse_math=False)
    target = Path(path)
    with full_disk_explained(target), replacing(target) as temporary:
        _write(figure, temporary, target.suffix.lower()[1:])


def as_svg(draw: Callable[..., Figure], *given: Any, **more: Any) -> str | None:
    """What a function here draws, for a notebook; None without matplotlib, or without a drawing."""
    text = io.StringIO()
    try:
        _write(draw(*given, **more), text, "svg")
    except (ImportError, ValueError):  # The notebook shows the text of the object.
        return None
    return text.getvalue()


def _write(figure: Figure, target: Any, format: str) -> None:
    import matplotlib

    # A fixed salt for the ids of the elements, and no date, make the same file of the same picture.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
    with matplotlib.rc_context({"svg.hashsalt": "ernie-rna"}):
        figure.savefig(target, format=format, metadata=metadata)


def _new_figure(width: float, height: float) -> Figure:
    module = import_extra("matplotlib.figure", "plot", "a plot")
    size = (width, height)
    figure: Figure = module.Figure(figsize=size, dpi=_DOTS_PER_INCH, layout="constrained")
    return figure


def _letter_size(side: float, length: int) -> float | None:
    """Font size, in points, of letters beside one another along a side, if there is room."""
    room = side / length
    return float(np.clip(0.8 * 72 * room, 1, 9)) if room >= _SMALLEST_LETTER else None


def _positions(length: int, most: int) -> list[int]:
    """About ``most`` positions to be labelled, counted from 1: 1, then every 10th, 20th, 50th, …"""
    steps = (base * 10**power for power in range(9) for base in (1, 2, 5))
    step = next(step for step in steps if length / step < most)
    return sorted({1, *range(step if step > 2 else 1, length + 1, step)})


def _checked(pairs: Iterable[BasePair], sequence: str) -> list[BasePair]:
    if not sequence:
        raise ValueError("a sequence without bases cannot be drawn")
    return sorted_pairs(pairs, len(sequence))


def plot_arcs(
    sequence: str,
    pairs: Iterable[BasePair],
    known: Iterable[BasePair] | None = None,
    *,
    probabilities: np.ndarray | None = None,
    label: str = "probability",
) -> Figure:
    """Draw a structure as arcs over the sequence, one for each base pair.

    Without known pairs, the colours tell nested pairs from pseudoknots. With them, the predicted
    ones stand above the sequence and the known ones below it, and the colours say which are in
    both. Where there are no pairs the picture says so.

    Args:
        probabilities: (length, length), which then colour the predicted pairs.
    """
    above, length = _checked(pairs, sequence), len(sequence)
    below = None if known is None else _checked(known, sequence)
    width = float(np.clip(length * _LETTER, *_ARCS_WIDTH))
    longest = max((j - i for i, j in above + (below or [])), default=1)
    # Half circles, or lower where they would not fit.
    height = float(np.clip(longest * width / length / 2, *_ARCS_HEIGHT))
    size = _letter_size(width, length)
    gap = _LETTER_GAP if size else 0.0
    top, sides = 1.03 * height + gap, 1 if below is None else 2
    figure = _new_figure(width + 0.5, sides * (height + gap) + 1.2)
    axes = figure.add_subplot(xlabel="position", xticks=_positions(length, int(2 * width)))
    axes.set(xlim=(0.2, length + 0.8), ylim=(-gap if below is None else -top, top))
    named = {"predicted": top / 2, "known": -top / 2} if below is not None else {}
    axes.set_yticks([*named.values()], labels=[*named], rotation=90, va="center")
    axes.tick_params("y", length=0)
    axes.spines[["left", "right", "top"]].set_visible(False)
    line, rise = float(np.clip(20 * width / length, 0.5, 1.8)), height / longest
    groups = _groups(above, below)
    if probabilities is not None:
        groups = [("known", _BLACK, [], below)] if below else []
        values = [float(probabilities[pair]) for pair in above]
        arcs = _add_arcs(axes, above, gap, rise, line, cmap=_SURENESS, array=values, clim=(0, 1))
        figure.colorbar(arcs, ax=axes, label=label, shrink=0.8, aspect=15)
    for name, colour, upper, lower in groups:
        _add_arcs(axes, upper, gap, rise, line, edgecolors=colour)
        _add_arcs(axes, lower, -gap, -rise, line, edgecolors=colour)
        count = max(len(upper), len(lower))
        axes.plot([], [], color=colour, linewidth=1.6, label=f"{name} ({count})")
    if groups:
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    for some, where, y, va in ((above, "predicted", 0.97, "top"), (below, "known", 0.03, "bottom")):
        if some == []:
            axes.text(0.5, y, f"no pairs {where}", transform=axes.transAxes, ha="center", va=va)
    font: Any = {"fontsize": size, "family": "monospace", "ha": "center", "va": "center"}
    for position, base in enumerate(sequence, 1) if size else ():
        axes.text(position, 0, base, **font)
    if size is None:
        axes.axhline(0, color="black", linewidth=0.8)
    return figure


def _groups(
    above: list[BasePair], below: list[BasePair] | None
) -> list[tuple[str, str, list[BasePair], list[BasePair]]]:
    """Name, colour, and the pairs to draw above and below the sequence."""
    if below is None:
        none: list[BasePair] = []
        nested, crossing, *others = [*nested_pages(above), none, none]
        further = [pair for page in others for pair in page]
        pages = (("pseudoknot", _VERMILLION, crossing), ("further crossings", _GREEN, further))
        some = [(name, colour, page, none) for name, colour, page in pages if page]
        return [("nested pairs", _BLUE, nested, none), *some]
    both = sorted({*above} & {*below})
    return [
        ("predicted only", _VERMILLION, sorted({*above} - {*both}), []),
        ("known only", _BLACK, [], sorted({*below} - {*both})),
        ("in both", _BLUE, both, both),
    ]


def _add_arcs(
    axes: Axes, pairs: list[BasePair], gap: float, rise: float, line: float, **colours: Any
) -> Any:
    """Draw half ellipses from ``gap``, ``rise`` high for each base between partners."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path
    from matplotlib.transforms import Affine2D

    arcs = []
    for i, j in pairs:
        place = Affine2D().scale((j - i) / 2, (j - i) * rise).translate((i + j) / 2 + 1, gap)
        arcs.append(Path.arc(0, 180).transformed(place))
    collection = PathCollection(arcs, facecolors="none", linewidths=line, **colours)
    return axes.add_collection(collection, autolim=False)


def plot_layout(
    sequence: str,
    pairs: Iterable[BasePair],
    *,
    values: Sequence[float] | None = None,
    label: str = "reliability",
) -> Figure:
    """Draw a structure the classical way: stems as ladders, loops as rings.

    The layout is of the largest set of pairs that do not cross; the others are lines across it.

    Args:
        values: a number from 0 to 1 for each base, which its colour shows; NaN is left white.

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

    cmap, area = colormaps[_SURENESS].with_extremes(bad="white"), (72 * 0.75 * step) ** 2  # points
    scale: Any = {"c": numbers, "cmap": cmap, "vmin": 0, "vmax": 1, "plotnonfinite": True}
    lines: Any = {"edgecolors": _GREY, "linewidths": 0.5, "zorder": 3}
    circles = axes.scatter(places[:, 0], places[:, 1], area, **scale, **lines)
    style: Any = {"fontsize": 72 * 0.5 * step, "ha": "center", "va": "center_baseline", "zorder": 4}
    for base, (x, y), number in zip(sequence, places, numbers, strict=True):
        if step >= _SMALLEST_STEP:  # There is room for a letter.
            colour = "white" if number > 0.6 else _BLACK  # NaN is not above
            axes.text(x, y, base, color=colour, **style)
    if values is not None:
        figure.colorbar(circles, ax=axes, label=label, shrink=0.5, aspect=20)
    _number(axes, places)
    return figure


def coordinates(nested: list[BasePair], length: int) -> np.ndarray:
    """Where the bases of a structure without crossings go: (length, 2), neighbours about 1 apart.

    ViennaRNA decides with RNApuzzler (Wiegreffe et al., Bioinformatics 35:1342-1349, 2019), in
    which no two parts of a structure overlap.
    """
    vienna = import_extra("RNA", "vienna", "a drawing of stems and loops")
    before, vienna.cvar.rna_plot_type = vienna.cvar.rna_plot_type, vienna.PLOT_TYPE_PUZZLER
    try:
        found = vienna.get_xy_coordinates(to_dot_bracket(nested, length))
    finally:
        vienna.cvar.rna_plot_type = before
    return np.array([(found.get(at).X, found.get(at).Y) for at in range(length)]) / _UNITS


def _draw_lines(
    axes: Axes, sequence: str, places: np.ndarray, nested: list[BasePair], crossing: list[BasePair]
) -> None:
    """The backbone, and a line for each pair; a dot in it is G-U."""
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
    """5' and 3', and every tenth position, beside the base and away from the others."""
    last = len(places) - 1
    labels = {0: "5'", last: "3'"} | {base: str(base + 1) for base in range(9, last, 10)}
    for base, text in labels.items():
        along = places[min(base + 1, last)] - places[max(base - 1, 0)]
        away = np.array([along[1], -along[0]]) / (np.hypot(*along) or 1.0)
        # Of both sides the one with fewer bases about, near ones counting more.
        x, y = min(
            (places[base] + 1.3 * way for way in (away, -away)),
            key=lambda side: np.exp(-np.hypot(*(places - side).T)).sum(),
        )
        axes.text(x, y, text, fontsize=6.5, color=_GREY, ha="center", va="center", zorder=4)


def plot_pairing_map(
    scores: np.ndarray,
    sequence: str,
    *,
    pairs: Iterable[BasePair] | None = None,
    known: Iterable[BasePair] | None = None,
    highlight: int | None = None,
    label: str = "score",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw a pairing map, or contacts, as a matrix with the sequence along both axes; or those of
    all heads of a layer, side by side in the same colours.

    Maps with negative values are drawn from blue over white (0) to red, others from white to black.
    Predicted pairs are circled below the diagonal, known ones above it.

    Args:
        scores: (length, length), or (heads, length, length).
        highlight: a head, counted from 0, to be framed.
        limits: of the colours; None leaves out the few largest scores.
    """
    values, length = np.asarray(scores, dtype=np.float64), len(sequence)
    if values.ndim not in (2, 3) or values.shape[-2:] != (length, length) or not values.size:
        raise ValueError(
            f"expected scores of shape ({length}, {length}) for this sequence, or that of each "
            f"head; got {values.shape}"
        )
    maps, are_heads = values.reshape(-1, length, length), values.ndim == 3
    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    side = _HEAD_SIDE if are_heads else float(np.clip(length * _LETTER, *_MAP_SIDE))
    figure = _new_figure(columns * (side + 0.2) + 1.3, rows * (side + 0.15) + 0.7)
    # The large scores are those of pairs: a head gives bases that are too near one another scores
    # far below 0, beside which all others would look alike.
    largest = (
        max(float(np.quantile(maps, _COLOUR_QUANTILE)), 0.0) or float(np.abs(maps).max()) or 1.0
    )
    low, high = limits or (-largest if maps.min() < 0 else 0.0, largest)
    # With fewer dots than bases "nearest" would leave bases out.
    how = "nearest" if side * _DOTS_PER_INCH >= length else "antialiased"
    extent = (0.5, length + 0.5, length + 0.5, 0.5)
    colours: Any = {"cmap": "RdBu_r" if low < 0 else "Greys", "vmin": low, "vmax": high}
    for head, one_map in enumerate(maps):
        axes = figure.add_subplot(rows, columns, head + 1)
        image = axes.imshow(one_map, extent=extent, interpolation=how, **colours)
        shown = "x" * (head + columns >= len(maps)) + "y" * (head % columns == 0)
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


def _label_axes(axes: Axes, sequence: str, side: float, shown: str, most_ticks: int) -> None:
    """Label a matrix, at the axes in ``shown``, with positions and, where they fit, letters."""
    size = _letter_size(side, len(sequence))
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        axis.set_ticks(_positions(len(sequence), most_ticks))
        axis.set_tick_params("major", labelsize=8, label1On=name in shown)
        if size is not None:
            # Letters stand at every position, also where there is a number.
            axis.remove_overlapping_locs = False
            axis.set_ticks(range(1, len(sequence) + 1), labels=list(sequence), minor=True)
            axis.set_tick_params("both", length=0)
            axis.set_tick_params("major", pad=size + 2)
            font: Any = {"labelsize": size, "labelfontfamily": "monospace"}
            axis.set_tick_params("minor", pad=2, label1On=name in shown, **font)


def _mark_pairs(
    axes: Axes,
    sequence: str,
    cell: float,
    pairs: Iterable[BasePair] | None,
    known: Iterable[BasePair] | None,
) -> None:
    """Circle pairs whose cells are ``cell`` points wide."""
    from matplotlib.patheffects import withStroke

    size = float(np.clip(1.2 * cell, 1.0, 9.0))
    # A white rim keeps the circles visible on dark colours.
    rim: Any = {"path_effects": [withStroke(linewidth=min(2.0, size), foreground="white")]}
    for some, where, what in ((pairs, "below", "predicted"), (known, "above", "known")):
        if some is not None:
            places = np.array(_checked(some, sequence), dtype=int).reshape(-1, 2).T + 1
            x, y = places if where == "below" else places[::-1]
            name = f"{where}: {len(x) or 'no'} pairs {what}"
            axes.plot(x, y, "ko", mfc="none", mew=0.8, markersize=size, label=name, **rim)


def plot_effects(scores: LetterScores) -> Figure:
    """Draw the effects of all substitutions of a sequence, in rows of 60 positions.

    Blue is what the model finds less likely than the letter that is there, red what it finds more
    likely; a dot marks the letter itself. Positions without scores are grey.

    Raises:
        ValueError: no position has scores.
    """
    from matplotlib import colormaps

    if not scores.scored.any():
        raise ValueError(f"{scores.id} has none of A, C, G and U, so there are no effects to draw")
    columns, rows = min(len(scores.sequence), _IN_A_ROW), -(-len(scores.sequence) // _IN_A_ROW)
    figure = _new_figure(max(columns * _CELL, 3.0) + 1.6, rows * _ROW + 0.7)
    limit = float(np.nanmax(np.abs(scores.effects))) or 1.0
    how: Any = {"vmin": -limit, "vmax": limit, "aspect": "auto", "interpolation": "nearest"}
    how["cmap"] = colormaps["RdBu_r"].with_extremes(bad="#dddddd")
    for row in range(rows):
        start = row * _IN_A_ROW  # counted from 0; every row has as many columns
        letters = list(enumerate(scores.sequence[start : start + columns], start + 1))
        stop = start + len(letters)
        axes = figure.add_subplot(rows, 1, row + 1)
        extent = (start + 0.5, stop + 0.5, 3.5, -0.5)
        image = axes.imshow(scores.effects[start:stop].T, extent=extent, **how)
        there = [(at, NUCLEOTIDES.index(one)) for at, one in letters if one in NUCLEOTIDES]
        axes.plot([at for at, _ in there], [place for _, place in there], "k.", markersize=3)
        axes.set_xlim(start + 0.5, start + columns + 0.5)
        names = [f"{one}\n{at}" if at % 10 == 0 or at == 1 else one for at, one in letters]
        axes.set_xticks([at for at, _ in letters], labels=names, fontsize=7, family="monospace")
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
        groups: what each belongs to, told by colours and shapes.

    Raises:
        ValueError: there are fewer than two vectors, or all are the same.
    """
    for values, what in ((names, "names"), (groups or names, "groups")):
        if len(values) != len(vectors):
            raise ValueError(f"{len(values)} {what} for {len(vectors)} vectors")
    if len(vectors) < 2:
        raise ValueError("principal components need at least two vectors: give more sequences")
    centred = vectors - np.mean(vectors, axis=0, dtype=np.float64)
    # With a column of zeros, so that vectors of one number have a second component as well.
    left, sizes, _ = np.linalg.svd(np.pad(centred, ((0, 0), (0, 1))), full_matrices=False)
    if not sizes.any():
        raise ValueError("all vectors are equal: there is nothing to draw")
    places, held = (left * sizes)[:, :2], sizes**2 / (sizes**2).sum()
    figure = _new_figure(7.0, 5.6)
    axes = figure.add_subplot()
    axes.margins(0.12)
    for number, group in enumerate(dict.fromkeys(groups or [""])):
        inside = [groups is None or name == group for name in groups or names]
        marker = _MARKERS[number // len(_COLOURS) % len(_MARKERS)]
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(*places[inside].T, marker, color=colour, label=group)
    style: Any = {"textcoords": "offset points", "fontsize": 8, "parse_math": False}
    for place, name in zip(places, names, strict=True) if len(names) <= _MOST_NAMES else ():
        shown = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
        axes.annotate(shown, place, (4, 4), **style)
    for axis, number in ((axes.xaxis, 0), (axes.yaxis, 1)):
        axis.set_label_text(f"component {number + 1}: {100 * held[number]:.0f} % of the variance")
    if groups is not None:
        legend = figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure
