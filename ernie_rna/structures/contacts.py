"""Secondary structure from a pairing map, as the authors of ERNIE-RNA derive it.

    pairing_map = extract_pairing_map(attention_biases, attention_mask)  # (batch, length, length)
    contacts = solve_contacts(pairing_map, sequences)                    # (batch, length, length)

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

# A bit for each base and the bits of its canonical partners: A-U, C-G and the wobble pair G-U.
_BASE_BITS = {"A": 1, "C": 2, "G": 4, "U": 8, "T": 8}
_PARTNER_BITS = {"A": 8, "C": 4, "G": 2 | 8, "U": 1 | 4, "T": 1 | 4}

# Entries that shrank to 0 stay 0; dropping them now and then keeps the later steps short.
_STEPS_BETWEEN_COMPACTIONS = 8


class NoSolutionError(ValueError):
    """A sequence has no contacts; the message says why."""


def symmetrize(scores: Tensor) -> Tensor:
    """The mean of a map and its transpose, over the last two dimensions: (..., length, length)."""
    mean: Tensor = (scores + scores.transpose(-1, -2)) / 2
    return mean


def extract_pairing_map(
    attention_biases: Sequence[Tensor] | Tensor,
    attention_mask: Tensor,
    *,
    layer: int = -1,
    head: int = 5,
) -> Tensor:
    """The symmetric map of a layer and head over the bases, without special tokens and padding.

    Args:
        attention_biases: the model's 13 biases, each (batch, heads, seq, seq): bias 0, then each
            layer's scores before softmax; or one tensor that stacks them.
        attention_mask: (batch, seq), non-zero for real tokens, which stand together, with ``<cls>``
            first and ``<eos>`` last; padded on either side.
        layer: which of the biases; the last one holds the last layer's scores.
        head: which head, counted from 0; 5 is the authors' choice for structure prediction.

    Returns:
        (batch, length, length), in the dtype of the biases; the first base is at 0 whatever the
        side of the padding, and rows and columns past the end of a sequence are 0.

    Raises:
        ValueError: a row of the mask has a gap, or fewer than the two tokens ``<cls>``, ``<eos>``.
    """
    scores: Tensor = attention_biases[layer][:, head]  # (batch, seq, seq)
    first, lengths = _base_spans(attention_mask.to(scores.device))
    offsets = torch.arange(int(lengths.max()), device=scores.device)
    inside = offsets < lengths[:, None]  # (batch, length)
    # Where a sequence has ended any index will do: the entry is overwritten below.
    columns = (first[:, None] + offsets).clamp(max=scores.shape[-1] - 1)
    rows = torch.arange(len(scores), device=scores.device)[:, None, None]
    bases = scores[rows, columns[:, :, None], columns[:, None, :]]  # (batch, length, length)
    return symmetrize(bases.masked_fill(~(inside[:, :, None] & inside[:, None, :]), 0.0))


def _base_spans(attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The token index of each sequence's first base and its number of bases, both (batch,)."""
    real = attention_mask.bool()
    start = real.int().argmax(dim=-1)
    count = real.sum(dim=-1)
    index = torch.arange(real.shape[-1], device=real.device)
    together = (index >= start[:, None]) & (index < (start + count)[:, None])  # (batch, seq)
    broken = (together != real).any(dim=-1) | (count < 2)
    if broken.any():
        raise ValueError(
            f"attention_mask of sequence {int(broken.nonzero()[0])}: expected <cls>, the bases and "
            "<eos> together, and padding before or after them"
        )
    return start + 1, count - 2


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
def solve_contacts(
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
) -> Tensor:
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
        Contacts (batch, length, length), symmetric, at least 0, 0 where no pair is allowed; float64
        for a float64 map and float32, the authors' precision, for any other.

    Raises:
        ValueError: shapes disagree.
        NoSolutionError: the score of an allowed pair is not finite, or the optimisation diverges.
    """
    shape = tuple(pairing_map.shape)
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(f"pairing_map must be (batch, length, length), got {shape}")
    if shape[0] != len(sequences):
        raise ValueError(f"pairing_map holds {shape[0]} maps for {len(sequences)} sequences")
    dtype = torch.float64 if pairing_map.dtype == torch.float64 else torch.float32
    length = pairing_map.shape[-1]
    allowed = allowed_pairs(sequences, length, min_loop=min_loop, device=pairing_map.device)
    row, i, j = allowed.triu(1).nonzero(as_tuple=True)  # (entries,) each
    scores = (pairing_map[row, i, j].to(dtype) + pairing_map[row, j, i].to(dtype)) / 2
    _check_finite(scores, row, "the map has a score that is not finite")

    values, kept = _optimise(
        torch.sigmoid(2 * (scores - threshold)) * scores,
        torch.stack([row * length + i, row * length + j]),
        len(sequences) * length,
        steps=steps,
        primal_lr=primal_lr,
        dual_lr=dual_lr,
        lr_decay=lr_decay,
        threshold=threshold,
        sparsity=sparsity,
    )
    row, i, j = row[kept], i[kept], j[kept]
    _check_finite(values, row, "the optimisation diverged; are its scores in the hundreds?")
    contacts = pairing_map.new_zeros(pairing_map.shape, dtype=dtype)
    contacts[row, i, j] = contacts[row, j, i] = values * values
    return contacts


def _optimise(
    scores: Tensor,
    bases: Tensor,
    num_bases: int,
    *,
    steps: int,
    primal_lr: float,
    dual_lr: float,
    lr_decay: float,
    threshold: float,
    sparsity: float,
) -> tuple[Tensor, Tensor]:
    """The optimisation of :func:`solve_contacts`, over the bases of all sequences in one row.

    Args:
        scores: (entries,), u of the formula.
        bases: (2, entries), the two bases of each entry.
        num_bases: batch * length.

    Returns:
        a of the entries that are left, and their indices among the entries given.
    """
    values = torch.sigmoid(scores) * torch.sigmoid(2 * (scores - threshold))
    kept = torch.arange(len(values), device=values.device)
    excess = _excess(values, bases, num_bases)
    multipliers = excess.relu()
    for step in range(steps):
        force = multipliers * torch.sigmoid(2 * excess)
        values = values - primal_lr * values * (force[bases[0]] + force[bases[1]] - scores)
        primal_lr *= lr_decay
        values = (values.abs() - sparsity * primal_lr).relu()
        if step % _STEPS_BETWEEN_COMPACTIONS == 1:
            alive = values != 0
            values, scores, bases, kept = values[alive], scores[alive], bases[:, alive], kept[alive]
        excess = _excess(values, bases, num_bases)
        multipliers = multipliers + dual_lr * excess.relu()
        dual_lr *= lr_decay
    return values, kept


def _excess(values: Tensor, bases: Tensor, num_bases: int) -> Tensor:
    """By how much the contacts of each base exceed one partner: (num_bases,)."""
    contacts = values * values
    sums = contacts.new_zeros(num_bases)
    return sums.index_add_(0, bases[0], contacts).index_add_(0, bases[1], contacts) - 1


def _check_finite(values: Tensor, row: Tensor, problem: str) -> None:
    """Raise for the first sequence with a value that is not finite; both are (entries,)."""
    broken = ~torch.isfinite(values)
    if broken.any():
        raise NoSolutionError(f"sequence {int(row[broken][0])}: {problem}")


def solve_each(
    pairing_map: Tensor, sequences: Sequence[Sequence[str]], **settings: Any
) -> list[Tensor | str]:
    """The contacts of each sequence, (length, length), or why it has none.

    Args:
        pairing_map, sequences, settings: as for :func:`solve_contacts`.

    Raises:
        ValueError: shapes disagree.
    """
    try:
        return list(solve_contacts(pairing_map, sequences, **settings))
    except NoSolutionError as error:
        if len(sequences) == 1:
            return [str(error).removeprefix("sequence 0: ")]
    # One of them has no solution, and the others shall not suffer.
    rows = zip(pairing_map, sequences, strict=True)
    return [each for one, row in rows for each in solve_each(one[None], [row], **settings)]
