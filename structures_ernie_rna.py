"""Secondary structures from maps of pairs: contacts, base pairs and dot-brackets.

    (contacts,) = solve_each(maps, sequences)        # maps (1, length, length)
    pairs = predict_pairs(contacts)
    text = to_dot_bracket(pairs, length)

The contacts are those of the authors of ERNIE-RNA: the post-processing of E2Efold (Chen et al.,
"RNA secondary structure prediction by learning unrolled algorithms", ICLR 2020, sections 4 and 5)
with the constants of the authors' ``predict_ss_rna.py`` (github.com/Bruce-ywj/ERNIE-RNA, commit
37ab358). It serves attention scores and the logits of a trained head alike.

In memory a structure is a sorted list of pairs ``(i, j)`` with ``i < j``, counted from 0. In
dot-bracket text a pair is a bracket at ``i`` and its counterpart at ``j``; pairs that cross take
another kind of bracket, first ``()``, then ``[]``, ``{}``, ``<>``, ``Aa`` to ``Zz``, 30 in all.

Shapes: batch, length (bases of the longest sequence; shorter ones are padded at the end), and
entries, the pairs of bases that the optimisation still works on. Torch is imported where it is
needed: files of structures are read and written without it.
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

# What `ernie-rna fold` and the pipeline ask of structures: the shortest hairpin loop of a real RNA,
# and pairs that stack on one another.
MIN_LOOP, MIN_STEM = 3, 2

# A bit for each base and the bits of its canonical partners: A-U, C-G and the wobble pair G-U.
_BASE_BITS = {"A": 1, "C": 2, "G": 4, "U": 8, "T": 8}
_PARTNER_BITS = {"A": 8, "C": 4, "G": 2 | 8, "U": 1 | 4, "T": 1 | 4}

# The optimisation: its steps, and rates on the contacts and on the multipliers with the factor on
# both after each step; weight of the l1 term.
_STEPS, _PRIMAL_LR, _DUAL_LR, _LR_DECAY, _SPARSITY = 100, 0.01, 0.1, 0.99, 1.6
# Entries that shrank to 0 stay 0; dropping them now and then keeps the later steps short.
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
    """Which bases may pair: A-U, C-G and G-U in either order, and no other letter (N, IUPAC).

    Args:
        sequences: a string for each sequence, or a list of tokens; T is U, case does not matter.
        length: bases to pad to; None: those of the longest sequence.
        min_loop: fewest bases between partners. The authors ask for none; 3 is the shortest hairpin
            loop that a real RNA has.
        device: where to put the result.

    Returns:
        Boolean, (batch, length, length), symmetric, False on the diagonal and on padding.

    Raises:
        ValueError: a sequence is longer than ``length``.
    """
    import torch

    longest = max((len(sequence) for sequence in sequences), default=0)
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"a sequence of {longest} bases does not fit a map of {length}")
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
    """The probability of each pair of bases, by the logits of a head.

    Args:
        logits: (batch, length, length), symmetric.
        sequences: the bases of each, see :func:`allowed_pairs`.
        min_loop: fewest bases between partners.
        calibration: slope and offset from logits to log-odds; None takes the logits for these.

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
    """Contacts that agree with a pairing map while each base keeps to about one partner.

    With u the map, soft-thresholded, and the contacts A = a**2 on the allowed pairs, this maximises
    sum(u * A) / 2 - sparsity * sum(|a|) under sum_j A_ij <= 1, by gradient steps on a, with the
    second term as a shrinkage, and on the multipliers m_i >= 0 of the rows. Each step is::

        f_i       = m_i * sigmoid(2 * excess_i)             with excess_i = sum_j A_ij - 1
        a_ij      = a_ij - primal_lr * a_ij * (f_i + f_j - u_ij)
        primal_lr = primal_lr * lr_decay
        a_ij      = max(0, |a_ij| - sparsity * primal_lr)
        m_i       = m_i + dual_lr * max(0, excess_i)        with the new a
        dual_lr   = dual_lr * lr_decay

    Only allowed pairs with a_ij > 0 are ever computed, which is exact because a zero stays zero. So
    padding takes no part, and a batch gives what each sequence gives alone (measured: to 4e-7 in
    float32). There is no gradient.

    Args:
        pairing_map: (batch, length, length), scores or logits; made symmetric here. What stands
            beyond the end of a sequence is not read.
        sequences: the bases of each, see :func:`allowed_pairs`.
        threshold: the scores are weighted by sigmoid(2 * (score - threshold)).
        min_loop: fewest bases between partners; the authors ask for none.

    Returns:
        Of each sequence the contacts (length, length), symmetric, at least 0, 0 where no pair is
        allowed; float64 for a float64 map and float32, the authors' precision, for any other. Or
        why it has none: the score of an allowed pair is not finite, or the optimisation diverges.

    Raises:
        ValueError: shapes disagree.
    """
    import torch

    pairing_map = pairing_map.detach()
    shape = tuple(pairing_map.shape)
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(f"pairing_map must be (batch, length, length), got {shape}")
    if shape[0] != len(sequences):
        raise ValueError(f"pairing_map holds {shape[0]} maps for {len(sequences)} sequences")
    dtype = torch.float64 if pairing_map.dtype == torch.float64 else torch.float32
    allowed = allowed_pairs(sequences, shape[1], min_loop=min_loop, device=pairing_map.device)
    row, i, j = allowed.triu_(1).nonzero(as_tuple=True)  # (entries,) each
    del allowed
    scores = (pairing_map[row, i, j].to(dtype) + pairing_map[row, j, i].to(dtype)) / 2
    infinite = set(row[~torch.isfinite(scores)].tolist())

    bases = torch.stack([row, row]) * shape[1] + torch.stack([i, j])  # (2, entries), in one row
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
        if step % _STEPS_BETWEEN_COMPACTIONS == 0:  # Most go in the first step.
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
    for place in diverged | infinite:
        solved[place] = _INFINITE if place in infinite else _DIVERGED
    return solved


def _excess(values: Tensor, bases: Tensor, num_bases: int) -> Tensor:
    """By how much the contacts of each base exceed one partner: (num_bases,).

    Args:
        values: (entries,), a of the formula.
        bases: (2, entries), the two bases of each entry, those of all sequences in one row.
    """
    contacts = values * values
    sums = contacts.new_zeros(num_bases)
    return sums.index_add_(0, bases[0], contacts).index_add_(0, bases[1], contacts) - 1


# ---------------------------------------------------------------------------------------------
# From contacts to base pairs


def predict_pairs(
    contacts: Tensor, *, threshold: float = 0.5, min_stem: int = 1, pseudoknots: bool = True
) -> list[BasePair]:
    """Read base pairs off contacts: the strongest first, each base in at most one pair.

    Of equally strong contacts the one with the larger i, then the larger j goes first, as in the
    authors' .ct writer.

    Args:
        contacts: (length, length) of :func:`solve_each`, or probabilities; the upper triangle is
            read.
        threshold: a contact must be larger.
        min_stem: fewest pairs in a stem, (i, j), (i + 1, j - 1), ...; shorter ones are left out.
        pseudoknots: False leaves out pairs that cross the largest set without crossings.

    Returns:
        Sorted pairs ``(i, j)``, ``i < j``, counted from 0.
    """
    i, j = (contacts > threshold).triu(1).nonzero(as_tuple=True)
    strength = contacts[i, j].float() if contacts.dtype.itemsize < 4 else contacts[i, j]
    begins, ends, how_strong = (part.cpu().numpy() for part in (i, j, strength))
    order = np.lexsort((-ends, -begins, -how_strong))
    taken: set[int] = set()
    pairs = []
    for left, right in zip(begins[order].tolist(), ends[order].tolist(), strict=True):
        if left not in taken and right not in taken:
            taken.update((left, right))
            pairs.append((left, right))
    pairs = _drop_short_stems(sorted(pairs), min_stem)
    if pairs and not pseudoknots:
        # What is left of a stem may be too short.
        pairs = _drop_short_stems(nested_pages(pairs)[0], min_stem)
    return pairs


def _drop_short_stems(pairs: list[BasePair], shortest: int) -> list[BasePair]:
    """The sorted pairs that stand in a run of at least `shortest` that stack on one another."""
    lengths: dict[BasePair, int] = {}
    for i, j in pairs:
        lengths[i, j] = lengths.get((i - 1, j + 1), 0) + 1
    for i, j in reversed(pairs):  # The whole run counts for each of its pairs.
        lengths[i, j] = max(lengths[i, j], lengths.get((i + 1, j - 1), 0))
    return [pair for pair in pairs if lengths[pair] >= shortest]


# ---------------------------------------------------------------------------------------------
# From base pairs to dot-bracket


def sorted_pairs(pairs: Iterable[Iterable[int]], length: int) -> list[BasePair]:
    """Bring pairs to the form used everywhere in this package, or say what is wrong with them.

    Args:
        pairs: pairs of positions counted from 0, in any order; also an array of shape (pairs, 2).
        length: number of bases of the sequence.

    Returns:
        The pairs as ``(i, j)`` with ``i < j``, sorted.

    Raises:
        ValueError: a position is outside the sequence, or a base pairs with itself or with two.

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

    The largest set of pairs that do not cross is written with ``()``, the largest of the rest with
    ``[]`` and so on. Of two sets of equal size, the one whose pairs close first goes first.

    Args:
        pairs: pairs of positions counted from 0.
        length: number of bases, and so of characters returned.

    Raises:
        ValueError: see :func:`sorted_pairs`; or more than 30 kinds of bracket would be needed.

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
    """Split pairs into sets without crossings: the largest, the largest of the rest, and so on.

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
    """Whether any two of the sorted pairs cross."""
    closings: list[int] = []
    for i, j in pairs:
        while closings and closings[-1] < i:
            closings.pop()
        if closings and closings[-1] < j:
            return True
        closings.append(j)
    return False


def _largest_nested(pairs: list[BasePair]) -> list[BasePair]:
    """The largest subset without crossings: the maximum independent set of a circle graph.

    The recursion over intervals is Supowit's (IEEE Transactions on Computer-Aided Design 6:93-94,
    1987); here all intervals with the same end are one NumPy operation, so 500 pairs take
    milliseconds.
    """
    ends = {base: rank for rank, base in enumerate(sorted(base for pair in pairs for base in pair))}
    partner = np.empty(len(ends), dtype=np.int64)
    for i, j in pairs:
        partner[ends[i]], partner[ends[j]] = ends[j], ends[i]

    # size[stop, start]: pairs in the largest nested set that lies within start <= end < stop.
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
    """The pairs behind ``size[-1, 0]`` of :func:`_largest_nested`, as sorted pairs of bases."""
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
