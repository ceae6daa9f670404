"""Masked tokens: their pairing scores, and the nucleotides that the model expects there.

The authors' pretraining (github.com/Bruce-ywj/ERNIE-RNA, pretrain_code/tasks/twod_mlm.py, commit
0b7b458) draws 15 % of the positions; it masks 80 % of them, replaces 10 % and keeps 10 %. The
pairing scores are those of the unmasked sequence, except for -1 on the rows and columns of all
drawn positions, so that they do not reveal the letters. At inference, a `<mask>` has pairing scores
of 0, like any special token. The option `mask_pairing` chooses "pretraining" or "inference".

Shapes: batch sequences, seq tokens, vocab.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ernie_rna.model.configuration_ernie_rna import VOCABULARY, ErnieRnaConfig
from ernie_rna.model.layers_ernie_rna import pairing_table
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
from ernie_rna.options import MASK_PAIRINGS
from ernie_rna.scoring.mutate import NUCLEOTIDES

# Pairing score of a position to predict, as in the authors' code.
MASKED_PAIRING_SCORE = -1.0

_NUCLEOTIDE_IDS = [VOCABULARY.index(letter) for letter in NUCLEOTIDES]


def check_mask_pairing(mask_pairing: str) -> str:
    """Return the argument; ValueError unless it is one of MASK_PAIRINGS."""
    if mask_pairing not in MASK_PAIRINGS:
        raise ValueError(f"mask_pairing must be {' or '.join(MASK_PAIRINGS)}; got {mask_pairing!r}")
    return mask_pairing


def pairing_scores(input_ids: Tensor, config: ErnieRnaConfig) -> Tensor:
    """The pairing scores that the model computes: ids (..., seq) -> (..., seq, seq) in float32."""
    table = pairing_table(config, input_ids.device)
    return table[input_ids[..., :, None], input_ids[..., None, :]]


def masked_pairing_scores(input_ids: Tensor, masked: Tensor, config: ErnieRnaConfig) -> Tensor:
    """Pairing scores as in pretraining.

    Args:
        input_ids: (..., seq), ids of the sequence before masking.
        masked: (..., seq), True at positions to predict, also where the token was kept.

    Returns:
        (..., seq, seq) in float32.
    """
    either = masked[..., :, None] | masked[..., None, :]
    return pairing_scores(input_ids, config).masked_fill(either, MASKED_PAIRING_SCORE)


def mask_tokens(
    input_ids: Tensor, masked: Tensor, config: ErnieRnaConfig, mask_pairing: str = "inference"
) -> tuple[Tensor, Tensor | None]:
    """Replace tokens by `<mask>`.

    Args:
        input_ids: (batch, seq), not changed.
        masked: (batch, seq), True at the tokens to replace.

    Returns:
        The ids with the masks, (batch, seq), and `pairing_scores` for the model: (batch, seq, seq),
        or None if the model is to compute them from these ids.
    """
    with_masks = input_ids.masked_fill(masked, config.mask_token_id)
    if check_mask_pairing(mask_pairing) == "inference":
        return with_masks, None
    return with_masks, masked_pairing_scores(input_ids, masked, config)


@torch.inference_mode()
def nucleotide_log_probabilities(
    model: ErnieRnaForMaskedLM,
    input_ids: Tensor,
    attention_mask: Tensor,
    wanted: Tensor,
    pairing_scores: Tensor | None = None,
    vocabulary: str = "all",
) -> Tensor:
    """The model's log-probabilities of A, C, G and U at some positions, given the whole input.

    Args:
        input_ids, attention_mask: (batch, seq).
        wanted: (batch, seq), True at the positions; the head runs only on these.
        pairing_scores: (batch, seq, seq), for the model; None computes them from the ids.
        vocabulary: tokens of the softmax. With "all", as in pretraining, the four probabilities sum
            up to less than 1, since N, the IUPAC letters and the special tokens have the rest; with
            "nucleotides", they sum up to 1.

    Returns:
        Natural logarithms, (wanted positions, 4) in float32, with columns in the order of
        `NUCLEOTIDES` and the positions of the first sequence first.
    """
    output = model.ernie_rna(
        input_ids=input_ids, attention_mask=attention_mask, pairing_scores=pairing_scores
    )
    logits = model.lm_head(output.last_hidden_state[wanted]).float()  # (positions, vocab)
    if vocabulary == "nucleotides":
        return logits[:, _NUCLEOTIDE_IDS].log_softmax(dim=-1)
    return logits.log_softmax(dim=-1)[:, _NUCLEOTIDE_IDS]
