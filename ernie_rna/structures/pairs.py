"""Base pairs from contacts: each base in at most one, stems of some length."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

from ernie_rna.structures.formats.dot_bracket import BasePair


def predict_pairs(
    contacts: Tensor,
    lengths: Sequence[int] | None = None,
    *,
    threshold: float = 0.5,
    min_stem: int = 1,
) -> list[list[BasePair]]:
    """Read base pairs off contacts: the strongest first, each base in at most one pair.

    Of equally strong contacts the one with the larger i, then the larger j goes first, as in the
    authors' .ct writer.

    Args:
        contacts: (batch, length, length) from `contacts.solve_contacts`, or probabilities; the
            upper triangle is read.
        lengths: bases of each sequence. Needed only where the padding of ``contacts`` is not 0.
        threshold: a contact must be larger.
        min_stem: fewest pairs in a stem, (i, j), (i + 1, j - 1), ...; shorter ones are left out.

    Returns:
        For each sequence its sorted pairs ``(i, j)``, ``i < j``, counted from 0.
    """
    row, i, j = (contacts > threshold).triu(1).nonzero(as_tuple=True)
    strength = contacts[row, i, j].float() if contacts.dtype.itemsize < 4 else contacts[row, i, j]
    candidates = [part.cpu().numpy() for part in (row, i, j, strength)]
    if lengths is not None:
        inside = candidates[2] < np.asarray(lengths)[candidates[0]]
        candidates = [part[inside] for part in candidates]
    starts = np.searchsorted(candidates[0], np.arange(len(contacts) + 1))
    spans = [slice(start, stop) for start, stop in pairwise(starts)]
    matched = [_match_greedily(*(part[span] for part in candidates[1:])) for span in spans]
    return [_drop_short_stems(pairs, min_stem) for pairs in matched]


def _match_greedily(i: np.ndarray, j: np.ndarray, strength: np.ndarray) -> list[BasePair]:
    """Sorted pairs of one sequence from its candidates, (candidates,) each."""
    order = np.lexsort((-j, -i, -strength))
    taken: set[int] = set()
    pairs = []
    for left, right in zip(i[order].tolist(), j[order].tolist(), strict=True):
        if left not in taken and right not in taken:
            taken.update((left, right))
            pairs.append((left, right))
    return sorted(pairs)


def _drop_short_stems(pairs: list[BasePair], shortest: int) -> list[BasePair]:
    """The sorted pairs that stand in a run of at least `shortest` that stack on one another."""
    lengths: dict[BasePair, int] = {}
    for i, j in pairs:
        lengths[i, j] = lengths.get((i - 1, j + 1), 0) + 1
    for i, j in reversed(pairs):  # The whole run counts for each of its pairs.
        lengths[i, j] = max(lengths[i, j], lengths.get((i + 1, j - 1), 0))
    return [pair for pair in pairs if lengths[pair] >= shortest]
