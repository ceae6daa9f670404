"""The map of a sequence that is longer than the model's limit, from overlapping windows.

Windows are those of :mod:`ernie_rna.sequences.long`. Two bases that share several windows get the
score of the one in which the nearer of the two to an edge is farthest from it; an end of the
sequence is no edge. Two bases that share no window cannot pair: those farther apart than the limit,
and some that are not much nearer.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ernie_rna.sequences.long import split

# Of bases that share no window: so far below any threshold that no contact starts from it.
NOT_SEEN = -100.0


def windowed_map(
    compute: Callable[[str], Tensor], sequence: str, limit: int, overlap: int
) -> Tensor:
    """The symmetric map of a whole sequence.

    Args:
        compute: the map (length, length) of a sequence of at most ``limit`` bases.
        sequence: its bases.
        limit: bases in a window.
        overlap: bases that neighbouring windows share at least.

    Returns:
        (length, length), `NOT_SEEN` where two bases share no window.

    Raises:
        ValueError: ``overlap`` does not fit the limit, see `long.split`.
    """
    length = len(sequence)
    merged = torch.full((length, length), NOT_SEEN)
    margins = torch.full((length, length), -1)
    for piece in split(0, length, limit, "window", overlap):
        block = slice(piece.start, piece.stop)
        scores = compute(sequence[block]).to(merged)  # (window, window)
        margin = _margins(piece.start, piece.stop, length)
        pair_margins = torch.minimum(margin[:, None], margin)
        better = pair_margins > margins[block, block]
        merged[block, block] = torch.where(better, scores, merged[block, block])
        margins[block, block] = torch.where(better, pair_margins, margins[block, block])
    return merged


def _margins(start: int, stop: int, length: int) -> Tensor:
    """Of each base of a window, how many bases lie between it and the nearest edge: (window,)."""
    index = torch.arange(stop - start)
    far = torch.full_like(index, length)
    left = index if start else far
    right = index.flip(0) if stop < length else far
    return torch.minimum(left, right)
