"""What pictures of RNA share: the figure, its file, colours, letters and positions.

Pictures are drawn by matplotlib (extra ``plot``), without pyplot, and saved as PNG, SVG or PDF by
the extension. The same picture gives the same SVG file. Axes count bases from 1, as the structure
files do, and show the letters of the sequence where there is room for them. The colours are told
apart by colour-blind readers (Okabe and Ito's palette, and matplotlib's RdBu, Greys and viridis).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.structures.formats.structure import FilePath

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What a picture is saved as.
EXTENSIONS = (".png", ".svg", ".pdf")

BLUE, VERMILLION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"
SURENESS = "viridis_r"  # colours of 0 to 1

# In inches. In less room than the first, a letter would be smaller than 5 points.
SMALLEST_LETTER = 0.085
LETTER = 0.115
DOTS_PER_INCH = 200


def new_figure(width: float, height: float) -> Figure:
    module = import_extra("matplotlib.figure", "plot", "a plot")
    figure: Figure = module.Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    return figure


def saved(figure: Figure, path: FilePath | None) -> Figure:
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


def letter_size(side: float, length: int) -> float:
    """Font size, in points, of letters that stand beside one another along ``side`` inches."""
    return float(np.clip(0.8 * 72 * side / length, 1, 9))


def positions(length: int, most: int) -> list[int]:
    """About ``most`` positions to be labelled, counted from 1: 1, then every 10th, 20th, 50th, …"""
    steps = (base * 10**power for power in range(9) for base in (1, 2, 5))
    step = next(step for step in steps if length / step < most)
    return (
        sorted({1, *range(step, length + 1, step)})
        if step > 2
        else list(range(1, length + 1, step))
    )
