"""Pictures of single substitutions: what each other letter would do at each position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ernie_rna.plots.figures import BLACK, new_figure, saved
from ernie_rna.scoring.letter_scores import NUCLEOTIDES
from ernie_rna.scoring.mutate import LetterScores
from ernie_rna.structures.formats.structure import FilePath

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Positions in a row, and inches: of a position, and of a row with its labels.
_IN_A_ROW = 60
_CELL, _ROW = 0.15, 1.25


def plot_effects(
    scores: LetterScores, *, title: str | None = None, path: FilePath | None = None
) -> Figure:
    """Draw the effects of all substitutions as a heat map, in rows of 60 positions.

    Blue is what the model finds less likely than the letter that is there, red what it finds more
    likely; a dot marks the letter itself. Positions without scores are grey.

    Args:
        scores: of one sequence, see `scoring.mutate`.
        title: line above the picture.
        path: file to save to.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no position has scores, or the extension of ``path`` is unknown.
    """
    if not scores.scored.any():
        raise ValueError(f"{scores.id} has none of A, C, G and U, so that there are no effects")
    length = len(scores.sequence)
    columns, rows = min(length, _IN_A_ROW), -(-length // _IN_A_ROW)
    figure = new_figure(max(columns * _CELL, 3.0) + 1.6, rows * _ROW + 0.7)
    limit = float(np.nanmax(np.abs(scores.effects))) or 1.0
    for row in range(rows):
        axes = figure.add_subplot(rows, 1, row + 1)
        image = _draw_row(axes, scores, row * _IN_A_ROW, columns, limit)
    figure.axes[-1].set_xlabel("position")
    figure.colorbar(
        image, ax=figure.axes, label="log P(mutant) - log P(wild type)", aspect=12 * rows
    )
    figure.suptitle(title or "", fontsize=11, parse_math=False)
    return saved(figure, path)


def _draw_row(
    axes: Axes, scores: LetterScores, start: int, columns: int, limit: float
) -> AxesImage:
    """Draw the positions from ``start``, counted from 0, on as many columns as every row has."""
    from matplotlib import colormaps

    colours = colormaps["RdBu_r"].with_extremes(bad="#dddddd")
    sequence = scores.sequence[start : start + columns]
    stop = start + len(sequence)
    image = axes.imshow(
        scores.effects[start:stop].T,
        cmap=colours,
        vmin=-limit,
        vmax=limit,
        extent=(start + 0.5, stop + 0.5, 3.5, -0.5),
        aspect="auto",
        interpolation="nearest",
    )
    own = [NUCLEOTIDES.find(letter) for letter in sequence]
    there = [(at, row) for at, row in enumerate(own, start + 1) if row >= 0]
    axes.plot(
        [at for at, _ in there],
        [row for _, row in there],
        linestyle="none",
        marker=".",
        color=BLACK,
        markersize=3,
    )
    axes.set_xlim(start + 0.5, start + columns + 0.5)
    axes.set_yticks(range(4), labels=list(NUCLEOTIDES), fontsize=8, family="monospace")
    axes.set_xticks([at for at in range(start + 1, stop + 1) if at % 10 == 0 or at == 1])
    axes.tick_params("x", labelsize=8, pad=11, length=0)
    axes.tick_params("y", length=0)
    for at, letter in enumerate(sequence, start + 1):
        axes.text(
            at, 3.62, letter, fontsize=7, family="monospace", ha="center", va="top", clip_on=False
        )
    axes.spines[:].set_visible(False)
    return image
