"""Pictures of embeddings: a point for each RNA, on the two axes along which they differ most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ernie_rna.plots.figures import new_figure, saved
from ernie_rna.structures.formats.structure import FilePath

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers tell apart; beyond it shapes differ.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "os^DvP*X"
_MOST_NAMES = 60


def principal_components(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components of some vectors.

    Args:
        vectors: (count, size), at least two that differ.

    Returns:
        Coordinates, (count, 2), and the parts of the variance that they hold, (2,).

    Raises:
        ValueError: there are fewer than two vectors, or all are the same.

    >>> principal_components(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]))[1].tolist()
    [1.0, 0.0]
    """
    if len(vectors) < 2:
        raise ValueError("components are of two vectors or more: give more sequences")
    centred = np.asarray(vectors, dtype=np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    variance = (sizes**2).sum()
    if not variance:
        raise ValueError("all vectors are the same, so that there is nothing to draw")
    coordinates = np.zeros((len(vectors), 2))
    held = np.zeros(2)
    count = min(2, len(sizes))
    coordinates[:, :count] = (left * sizes)[:, :count]
    held[:count] = (sizes**2)[:count] / variance
    return coordinates, held


def plot_components(
    vectors: np.ndarray,
    names: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    title: str | None = None,
    path: FilePath | None = None,
) -> Figure:
    """Draw vectors by their first two principal components.

    Args:
        vectors: (count, size).
        names: of the vectors; written beside the points if there are at most 60.
        groups: what each belongs to, told by colours and shapes.
        title: line above the picture.
        path: file to save to.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is nothing to draw, see `principal_components`; names or groups are not
            one a vector; or the extension of ``path`` is unknown.
    """
    for values, what in ((names, "names"), (groups or names, "groups")):
        if len(values) != len(vectors):
            raise ValueError(f"{len(values)} {what} for {len(vectors)} vectors")
    places, held = principal_components(vectors)
    figure = new_figure(7.0, 5.6)
    axes = figure.add_subplot()
    for number, group in enumerate(dict.fromkeys(groups or [""])):
        inside = [groups is None or name == group for name in groups or names]
        axes.plot(
            *places[inside].T,
            linestyle="none",
            marker=_MARKERS[number // len(_COLOURS) % len(_MARKERS)],
            color=_COLOURS[number % len(_COLOURS)],
            label=group,
        )
    for place, name in zip(places, names, strict=True):
        if len(names) <= _MOST_NAMES:
            axes.annotate(
                name, place, (4, 4), textcoords="offset points", fontsize=8, parse_math=False
            )
    axes.margins(0.12)
    for axis, number in ((axes.xaxis, 0), (axes.yaxis, 1)):
        axis.set_label_text(f"component {number + 1}: {100 * held[number]:.0f} % of the variance")
    if groups is not None:
        legend = figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        for text in legend.get_texts():
            text.set_parse_math(False)
    axes.set_title(title or "", fontsize=11, parse_math=False)
    return saved(figure, path)
