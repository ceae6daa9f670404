"""Secondary structure from a pairing map, as the authors of ERNIE-RNA derive it.

    pairing_map = extract_pairing_map(scores, attention_mask)  # (batch, length, length)
    contacts = solve_contacts(pairing_map, sequences)          # (batch, length, length)

`pairs.predict_pairs` reads base pairs off the contacts. The optimisation is the post-processing of
E2Efold (Chen et al., "RNA secondary structure prediction by learning unrolled algorithms", ICLR
2020, sections 4 and 5) with the constants of the authors' ``predict_ss_rna.py``
(github.com/Bruce-ywj/ERNIE-RNA, commit 37ab358). It serves the zero-shot map and the logits of
their fine-tuned head alike.

Shapes: batch, heads, seq (tokens), length (bases of the longest sequence; shorter ones are padded
at the end), and entries, the pairs of bases that the optimisation still works on. Positions count
from 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ernie_rna.model.heads_ernie_rna import bases_of_scores, pairs_in_front

# A bit for each base and the bits of its canonical partners: A-U, C-G and the wobble pair G-U.
_BASE_BITS = {"A": 1, "C": 2, "G": 4, "U": 8, "T": 8}
_PARTNER_BITS = {"A": 8, "C": 4, "G": 2 | 8, "U": 1 | 4, "T": 1 | 4}

# Entries that shrank to 0 stay 0; dropping them now and then keeps the later steps short.
_STEPS_BETWEEN_COMPACTIONS = 8

_INFINITE = "the map has a score that is not finite"
_DIVERGED = "the optimisation diverged; are its scores in the hundreds?"


def symmetrize(scores: Tensor) -> Tensor:
    """The mean of a map and its transpose, over the last two dimensions: (..., length, length)."""
    mean: Tensor = (scores + scores.transpose(-1, -2)) / 2
    return mean


def extract_pairing_map(scores: Tensor, attention_mask: Tensor, head: int = 5) -> Tensor:
    """The symmetric map of a layer and head over the bases, without special tokens and padding.

    Args:
        scores: (batch, heads, seq, seq), of a layer before softmax; for structure prediction of the
            last one, which is the last of the model's biases.
        attention_mask: (batch, seq), non-zero for real tokens, which stand together, with ``<cls>``
            first and ``<eos>`` last; padded on either side.
        head: which head, counted from 0; 5 is the authors' choice for structure prediction.

    Returns:
        (batch, length, length), in the dtype of the scores; the first base is at 0 whatever the
        side of the padding, and rows and columns past the end of a sequence are 0.

    Raises:
        ValueError: a row of the mask has a gap, or fewer than the two tokens ``<cls>``, ``<eos>``.
    """
    mask = attention_mask.to(scores.device).bool()
    lengths = mask.sum(dim=-1) - 2
    # Real tokens stand together if they begin once.
    begins = mask.diff(dim=-1, prepend=torch.zeros_like(mask[:, :1])) & mask
    broken = (begins.sum(dim=-1) != 1) | (lengths < 0)
    if broken.any():
        raise ValueError(
            f"attention_mask of sequence {int(broken.nonzero()[0])}: expected <cls>, the bases and "
            "<eos> together, and padding before or after them"
        )
    bases, _ = bases_of_scores(scores, mask, [head])
    inside = slice(int(lengths.max()))
    return pairs_in_front(symmetrize(bases[:, 0]), mask)[:, inside, inside]


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


@torch.no_grad()
def solve_each(
    pairing_map: Tensor,
    sequences: Sequence[Sequence[str]],
    *,
    steps: int = 100,
    primal_lr: float = 0.01,
    dual_lr: float = 0.1,
    lr_decay: float = 0.99,
    threshold: float = 1.5,
    sparsity: float = 1.6,
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
        steps: steps of the optimisation.
        primal_lr: step on the contacts.
        dual_lr: step on the multipliers.
        lr_decay: factor on both after each step.
        threshold: the scores are weighted by sigmoid(2 * (score - threshold)).
        sparsity: weight of the l1 term.
        min_loop: fewest bases between partners; the authors ask for none.

    Returns:
        Of each sequence the contacts (length, length), symmetric, at least 0, 0 where no pair is
        allowed; float64 for a float64 map and float32, the authors' precision, for any other. Or
        why it has none: the score of an allowed pair is not finite, or the optimisation diverges.

    Raises:
        ValueError: shapes disagree.
    """
    shape = tuple(pairing_map.shape)
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(f"pairing_map must be (batch, length, length), got {shape}")
    if shape[0] != len(sequences):
        raise ValueError(f"pairing_map holds {shape[0]} maps for {len(sequences)} sequences")
    dtype = torch.float64 if pairing_map.dtype == torch.float64 else torch.float32
    allowed = allowed_pairs(sequences, shape[1], min_loop=min_loop, device=pairing_map.device)
    row, i, j = allowed.triu(1).nonzero(as_tuple=True)  # (entries,) each
    scores = (pairing_map[row, i, j].to(dtype) + pairing_map[row, j, i].to(dtype)) / 2
    infinite = set(row[~torch.isfinite(scores)].tolist())

    bases = torch.stack([row, row]) * shape[1] + torch.stack([i, j])  # (2, entries), in one row
    scores = torch.sigmoid(2 * (scores - threshold)) * scores  # u of the formula
    values = torch.sigmoid(scores) * torch.sigmoid(2 * (scores - threshold))  # a of the formula
    excess = _excess(values, bases, shape[0] * shape[1])
    multipliers = excess.relu()
    for step in range(steps):
        force = multipliers * torch.sigmoid(2 * excess)
        values = values - primal_lr * values * (force[bases[0]] + force[bases[1]] - scores)
        primal_lr *= lr_decay
        values = (values.abs() - sparsity * primal_lr).relu()
        if step % _STEPS_BETWEEN_COMPACTIONS == 1:
            alive = values != 0
            values, scores, bases = values[alive], scores[alive], bases[:, alive]
        excess = _excess(values, bases, shape[0] * shape[1])
        multipliers = multipliers + dual_lr * excess.relu()
        dual_lr *= lr_decay

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


def solve_contacts(
    pairing_map: Tensor, sequences: Sequence[Sequence[str]], **settings: Any
) -> Tensor:
    """As :func:`solve_each`, (batch, length, length).

    Raises:
        ValueError: shapes disagree, or a sequence has no contacts.
    """
    solved = solve_each(pairing_map, sequences, **settings)
    for row, contacts in enumerate(solved):
        if isinstance(contacts, str):
            raise ValueError(f"sequence {row}: {contacts}")
    found: Any = solved
    return torch.stack(found) if found else pairing_map
