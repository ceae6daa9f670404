"""Secondary structures from pairing maps: contacts, base pairs and dot-brackets.

    (contacts,) = solve_each(maps, sequences)        # maps (1, length, length)
    pairs = predict_pairs(contacts)
    text = to_dot_bracket(pairs, length)

Contacts are computed as the authors of ERNIE-RNA do, by E2Efold's post-processing (Chen et al.,
"RNA secondary structure prediction by learning unrolled algorithms", ICLR 2020, sections 4 and 5)
with the constants of the authors' ``predict_ss_rna.py`` (github.com/Bruce-ywj/ERNIE-RNA, commit
37ab358). The map may hold attention scores or the logits of a trained head.

In memory a structure is a sorted list of pairs ``(i, j)`` with ``i < j``, counted from 0. In
dot-bracket text a pair is an opening bracket at ``i`` and a closing one at ``j``. Pairs that cross
use another kind of bracket: first ``()``, then ``[]``, ``{}``, ``<>``, ``Aa`` to ``Zz``, 30 in all.

Shapes: batch, length (bases of the longest sequence; shorter ones are padded at the end), and
entries, the pairs of bases that the optimisation still works on. Torch is imported inside the
functions that need it, so that structure files can be read and written without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BasePair = tuple[int, int]

OPENING_BRACKETS = "([{<" + ascii_uppercase
CLOSING_BRACKETS = ")]}>" + ascii_lowercase

# Defaults of `ernie-rna fold` and the pipeline: the shortest hairpin loop of a real RNA, and no
# pair without another stacked on it.
MIN_LOOP, MIN_STEM = 3, 2

# One bit for each base, and the bits of its canonical partners: A-U, C-G and the wobble pair G-U.
_BASE_BITS = {"A": 1, "C": 2, "G": 4, "U": 8, "T": 8}
_PARTNER_BITS = {"A": 8, "C": 4, "G": 2 | 8, "U": 1 | 4, "T": 1 | 4}

# The optimisation: number of steps, learning rates of the contacts (primal) and of the multipliers
# (dual), the factor applied to both rates after each step, and the weight of the l1 term.
_STEPS, _PRIMAL_LR, _DUAL_LR, _LR_DECAY, _SPARSITY = 100, 0.01, 0.1, 0.99, 1.6
# Entries that reach 0 stay 0; dropping them every few steps makes the later steps faster.
_STEPS_BETWEEN_COMPACTIONS = 8

_INFINITE = "the map has a score that is not finite"
_DIVERGED = "the optimisation diverged; are its scores in the hundreds?"


# ---------------------------------------------------------------------------------------------
# From a map to contacts and probabilities


def allowed_pairs(
    sequences: Sequence[Sequence[str]],
    length: int | None = None,
    *,
    min_loop: int = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Mask of the bases that may pair: A-U, C-G and G-U in either order, never N or IUPAC codes.

    Args:
        sequences: a string or a list of tokens for each sequence; T is read as U, in either case.
        length: number of bases to pad to; None pads to the longest sequence.
        min_loop: fewest bases between partners. The authors require none; 3 is the shortest hairpin
            loop that a real RNA has.
        device: device of the result.

    Returns:
        Boolean, (batch, length, length), symmetric, False on the diagonal and on padding.

    Raises:
        ValueError: a sequence is longer than ``length``.
    """
    import torch

    longest = max((len(sequence) for sequence in sequences), default=0)
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"a sequence has {longest} bases, but the map only {length}")
    bits = np.zeros((2, len(sequences), length), dtype=np.uint8)
    for row, sequence in enumerate(sequences):
        for kind, table in enumerate((_BASE_BITS, _PARTNER_BITS)):
            bits[kind, row, : len(sequence)] = [table.get(base.upper(), 0) for base in sequence]
    base, partners = torch.from_numpy(bits).to(device)
    allowed: Tensor = (base[:, :, None] & partners[:, None, :]) != 0  # (batch, length, length)
    if min_loop:
        index = torch.arange(length, device=device)
        allowed &= (index[:, None] - index).abs() > min_loop
    return allowed


def pair_probabilities(
    logits: Tensor,
    sequences: Sequence[Sequence[str]],
    *,
    min_loop: int = 0,
    calibration: Sequence[float] | None = None,
) -> Tensor:
    """Convert the logits of a head to the probability of each pair of bases.

    Args:
        logits: (batch, length, length), symmetric.
        sequences: the bases of each map, see :func:`allowed_pairs`.
        min_loop: fewest bases between partners.
        calibration: slope and offset from logits to log-odds; None uses the logits as log-odds.

    Returns:
        (batch, length, length) in float32, 0 where bases may not pair.
    """
    slope, offset = calibration or (1.0, 0.0)
    allowed = allowed_pairs(sequences, logits.shape[-1], min_loop=min_loop, device=logits.device)
    return (slope * logits.float() + offset).sigmoid().masked_fill(~allowed, 0.0)


def solve_each(
    pairing_map: Tensor,
    sequences: Sequence[Sequence[str]],
    *,
    threshold: float = 1.5,
    min_loop: int = 0,
) -> list[Tensor | str]:
    """Compute contacts that follow a pairing map, with about one partner for each base.

    Let u be the soft-thresholded map and A = a**2 the contacts of the allowed pairs. This maximises
    sum(u * A) / 2 - sparsity * sum(|a|) subject to sum_j A_ij <= 1, by gradient steps on a, with
    the second term as a shrinkage, and on the multipliers m_i >= 0 of the rows. Each step is::

        f_i       = m_i * sigmoid(2 * excess_i)             with excess_i = sum_j A_ij - 1
        a_ij      = a_ij - primal_lr * a_ij * (f_i + f_j - u_ij)
        primal_lr = primal_lr * lr_decay
        a_ij      = max(0, |a_ij| - sparsity * primal_lr)
        m_i       = m_i + dual_lr * max(0, excess_i)        with the new a
        dual_lr   = dual_lr * lr_decay

    Only allowed pairs with a_ij > 0 are computed, which is exact because a zero stays zero. Padding
    therefore has no effect, and a sequence gets the same contacts alone and in any batch (measured:
    to within 4e-7 in float32). No gradient flows through the result.

    Args:
        pairing_map: (batch, length, length), scores or logits; it is made symmetric here. Values
            beyond the end of a sequence are not read.
        sequences: the bases of each map, see :func:`allowed_pairs`.
        threshold: scores are weighted by sigmoid(2 * (score - threshold)).
        min_loop: fewest bases between partners; the authors require none.

    Returns:
        For each sequence its contacts (length, length): symmetric, at least 0, and 0 where no pair
        is allowed; float64 for a float64 map, otherwise float32, the authors' precision. Or a text
        why there are none: an allowed pair's score is not finite, or the optimisation diverged.

    Raises:
        ValueError: the shapes disagree.
    """
    import torch

    pairing_map = pairing_map.detach()
    shape = tuple(pairing_map.shape)
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(f"pairing_map must be (batch, length, length), got {shape}")
    if shape[0] != len(sequences):
        raise ValueError(f"pairing_map has {shape[0]} maps for {len(sequences)} sequences")
    dtype = torch.float64 if pairing_map.dtype == torch.float64 else torch.float32
    allowed = allowed_pairs(sequences, shape[1], min_loop=min_loop, device=pairing_map.device)
    row, i, j = allowed.triu_(1).nonzero(as_tuple=True)  # (entries,) each
    del allowed
    scores = (pairing_map[row, i, j].to(dtype) + pairing_map[row, j, i].to(dtype)) / 2
    infinite = set(row[~torch.isfinite(scores)].tolist())

    bases = torch.stack([row, row]) * shape[1] + torch.stack([i, j])  # (2, entries), see `_excess`
    scores = torch.sigmoid(2 * (scores - threshold)) * scores  # u of the formula
    values = torch.sigmoid(scores) * torch.sigmoid(2 * (scores - threshold))  # a of the formula
    excess = _excess(values, bases, shape[0] * shape[1])
    multipliers = excess.relu()
    primal_lr, dual_lr = _PRIMAL_LR, _DUAL_LR
    for step in range(_STEPS):
        force = multipliers * torch.sigmoid(2 * excess)
        values = values - primal_lr * values * (force[bases[0]] + force[bases[1]] - scores)
        primal_lr *= _LR_DECAY
        values = (values.abs() - _SPARSITY * primal_lr).relu()
        if step % _STEPS_BETWEEN_COMPACTIONS == 0:  # The first step zeroes most entries.
            alive = values != 0
            values, scores, bases = values[alive], scores[alive], bases[:, alive]
        excess = _excess(values, bases, shape[0] * shape[1])
        multipliers = multipliers + dual_lr * excess.relu()
        dual_lr *= _LR_DECAY

    row = bases[0] // shape[1]
    diverged = set(row[~torch.isfinite(values)].tolist())
    contacts = pairing_map.new_zeros(shape, dtype=dtype)
    i, j = bases % shape[1]
    contacts[row, i, j] = contacts[row, j, i] = values * values
    solved: list[Tensor | str] = list(contacts)
    for index in diverged | infinite:
        solved[index] = _INFINITE if index in infinite else _DIVERGED
    return solved


def _excess(values: Tensor, bases: Tensor, num_bases: int) -> Tensor:
    """Sum of the contacts of each base, minus 1 for its one partner: (num_bases,).

    Args:
        values: (entries,), a of the formula.
        bases: (2, entries), the two bases of each entry, numbered over all sequences of the batch.
    """
    contacts = values * values
    sums = contacts.new_zeros(num_bases)
    return sums.index_add_(0, bases[0], contacts).index_add_(0, bases[1], contacts) - 1


# ---------------------------------------------------------------------------------------------
# From contacts to base pairs


def predict_pairs(
    contacts: Tensor, *, threshold: float = 0.5, min_stem: int = 1, pseudoknots: bool = True
) -> list[BasePair]:
    """Select base pairs from contacts, the strongest first, with each base in at most one pair.

    Among equally strong contacts the larger i, then the larger j, comes first, as in the authors'
    .ct writer.

    Args:
        contacts: (length, length), as :func:`solve_each` returns them, or probabilities; only the
            upper triangle is read.
        threshold: a contact must exceed it.
        min_stem: fewest pairs in a stem, (i, j), (i + 1, j - 1), ...; shorter stems are left out.
        pseudoknots: False keeps only the largest set of pairs that do not cross.

    Returns:
        Sorted pairs ``(i, j)``, ``i < j``, counted from 0.
    """
    i, j = (contacts > threshold).triu(1).nonzero(as_tuple=True)
    strength = contacts[i, j].float() if contacts.dtype.itemsize < 4 else contacts[i, j]
    begins, ends, strengths = (part.cpu().numpy() for part in (i, j, strength))
    order = np.lexsort((-ends, -begins, -strengths))
    taken: set[int] = set()
    pairs = []
    for left, right in zip(begins[order].tolist(), ends[order].tolist(), strict=True):
        if left not in taken and right not in taken:
            taken.update((left, right))
            pairs.append((left, right))
    pairs = _drop_short_stems(sorted(pairs), min_stem)
    if pairs and not pseudoknots:
        # Removing the crossing pairs may have shortened a stem.
        pairs = _drop_short_stems(nested_pages(pairs)[0], min_stem)
    return pairs


def _drop_short_stems(pairs: list[BasePair], shortest: int) -> list[BasePair]:
    """Keep the pairs that are in a stem of at least `shortest` stacked pairs; all are sorted."""
    lengths: dict[BasePair, int] = {}
    for i, j in pairs:
        lengths[i, j] = lengths.get((i - 1, j + 1), 0) + 1
    for i, j in reversed(pairs):  # Each pair gets the length of its whole stem.
        lengths[i, j] = max(lengths[i, j], lengths.get((i + 1, j - 1), 0))
    return [pair for pair in pairs if lengths[pair] >= shortest]


# ---------------------------------------------------------------------------------------------
# From base pairs to dot-bracket


def sorted_pairs(pairs: Iterable[Iterable[int]], length: int) -> list[BasePair]:
    """Check pairs and convert them to the form used throughout this package.

    Args:
        pairs: pairs of positions counted from 0, in any order, or an array of shape (pairs, 2).
        length: number of bases of the sequence.

    Returns:
        The pairs as ``(i, j)`` with ``i < j``, sorted.

    Raises:
        ValueError: a position is outside the sequence, or a base has two partners or is its own.

    >>> sorted_pairs([(7, 1), (0, 8)], length=9)
    [(0, 8), (1, 7)]
    >>> sorted_pairs([(0, 8), (8, 2)], length=9)
    Traceback (most recent call last):
    ValueError: base 8 has two partners, 2 and 0 (counted from 0)
    """
    partner: dict[int, int] = {}
    result = []
    for i, j in pairs:
        i, j = sorted((int(i), int(j)))
        if i < 0 or j >= length:
            raise ValueError(
                f"pair ({i}, {j}) is outside a sequence of {length} bases (counted from 0)"
            )
        if i == j:
            raise ValueError(f"base {i} is paired with itself (counted from 0)")
        for base, other in ((i, j), (j, i)):
            if partner.setdefault(base, other) != other:
                raise ValueError(
                    f"base {base} has two partners, {other} and {partner[base]} (counted from 0)"
                )
        result.append((i, j))
    return sorted(set(result))


def to_dot_bracket(pairs: Iterable[Iterable[int]], length: int) -> str:
    """Write pairs as dot-bracket text.

    The largest set of pairs that do not cross is written with ``()``, the largest set of the rest
    with ``[]`` and so on. If two sets are equally large, the one whose pairs close first is chosen.

    Args:
        pairs: pairs of positions counted from 0.
        length: number of bases, which is the number of characters returned.

    Raises:
        ValueError: as :func:`sorted_pairs`; or more than 30 kinds of bracket would be needed.

    >>> to_dot_bracket([(0, 9), (1, 8), (2, 7)], length=10)
    '(((....)))'
    >>> to_dot_bracket([(0, 5), (2, 9), (3, 8)], length=10)
    '[.((.]..))'
    """
    text = ["."] * length
    pages = nested_pages(sorted_pairs(pairs, length))
    if len(pages) > len(OPENING_BRACKETS):
        raise ValueError(
            f"these pairs need {len(pages)} kinds of bracket and dot-bracket has "
            f"{len(OPENING_BRACKETS)}; write .ct or .bpseq instead"
        )
    for page, opening, closing in zip(pages, OPENING_BRACKETS, CLOSING_BRACKETS, strict=False):
        for i, j in page:
            text[i], text[j] = opening, closing
    return "".join(text)


def nested_pages(pairs: list[BasePair]) -> list[list[BasePair]]:
    """Split pairs into sets without crossings: the largest, the largest of the rest and so on.

    Args:
        pairs: as :func:`sorted_pairs` returns them.

    >>> nested_pages([(0, 5), (2, 9), (3, 8)])
    [[(2, 9), (3, 8)], [(0, 5)]]
    """
    pages = []
    while pairs:
        page = _largest_nested(pairs) if _any_cross(pairs) else pairs
        pages.append(page)
        pairs = sorted(set(pairs) - set(page))
    return pages


def _any_cross(pairs: list[BasePair]) -> bool:
    """Whether any two pairs of the sorted list cross."""
    closings: list[int] = []
    for i, j in pairs:
        while closings and closings[-1] < i:
            closings.pop()
        if closings and closings[-1] < j:
            return True
        closings.append(j)
    return False


def _largest_nested(pairs: list[BasePair]) -> list[BasePair]:
    """Largest subset without crossings: the maximum independent set of a circle graph.

    The recursion over intervals is Supowit's (IEEE Transactions on Computer-Aided Design 6:93-94,
    1987). Here one NumPy operation handles all intervals with the same end, so 500 pairs take
    milliseconds.
    """
    ends = {base: rank for rank, base in enumerate(sorted(base for pair in pairs for base in pair))}
    partner = np.empty(len(ends), dtype=np.int64)
    for i, j in pairs:
        partner[ends[i]], partner[ends[j]] = ends[j], ends[i]

    # size[stop, start]: number of pairs in the largest nested set within start <= end < stop.
    size = np.zeros((len(ends) + 1, len(ends) + 1), dtype=np.int32)
    for stop in range(1, len(ends) + 1):
        size[stop] = size[stop - 1]
        opening = partner[stop - 1]
        if opening < stop - 1:
            around = slice(0, opening + 1)
            with_pair = size[opening, around] + 1 + size[stop - 1, opening + 1]
            size[stop, around] = np.maximum(size[stop, around], with_pair)
    return _trace_back(size, partner, sorted(ends))


def _trace_back(size: np.ndarray, partner: np.ndarray, bases: list[int]) -> list[BasePair]:
    """The pairs that ``size[-1, 0]`` of :func:`_largest_nested` counts, as sorted base pairs."""
    chosen = []
    intervals = [(0, len(bases))]
    while intervals:
        start, stop = intervals.pop()
        while stop > start and size[stop, start] == size[stop - 1, start]:
            stop -= 1
        if stop > start:
            opening = int(partner[stop - 1])
            chosen.append((bases[opening], bases[stop - 1]))
            intervals += [(start, opening), (opening + 1, stop - 1)]
    return sorted(chosen)
