"""Masked tokens: how they pair, and what the model expects in their place.

The authors' pretraining (github.com/Bruce-ywj/ERNIE-RNA, pretrain_code/tasks/twod_mlm.py, commit
0b7b458) draws 15 % of the positions, hides 80 % of them, replaces 10 % and leaves 10 %; the
pairing scores are those of the unmasked sequence, and -1 on the rows and columns of all drawn
positions, so that they give nothing away. At inference a `<mask>` pairs with nothing, as any
special token: 0. A model sees -1 in training alone. So `mask_pairing` is a choice, "pretraining"
or "inference".

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

# Of a position that is to be predicted; the authors' number.
MASKED_PAIRING_SCORE = -1.0

_NUCLEOTIDE_IDS = [VOCABULARY.index(letter) for letter in NUCLEOTIDES]


def check_mask_pairing(mask_pairing: str) -> str:
    if mask_pairing not in MASK_PAIRINGS:
        raise ValueError(f"mask_pairing must be {' or '.join(MASK_PAIRINGS)}; got {mask_pairing!r}")
    return mask_pairing


def pairing_scores(input_ids: Tensor, config: ErnieRnaConfig) -> Tensor:
    """What the model reads off the ids: (..., seq) -> (..., seq, seq) in float32."""
    table = pairing_table(config, input_ids.device)
    return table[input_ids[..., :, None], input_ids[..., None, :]]


def masked_pairing_scores(input_ids: Tensor, masked: Tensor, config: ErnieRnaConfig) -> Tensor:
    """Pairing scores as in pretraining.

    Args:
        input_ids: (..., seq), those of the sequence before masking.
        masked: (..., seq), True at positions to predict, also where the token was left.

    Returns:
        (..., seq, seq) in float32.
    """
    either = masked[..., :, None] | masked[..., None, :]
    return pairing_scores(input_ids, config).masked_fill(either, MASKED_PAIRING_SCORE)


def mask_tokens(
    input_ids: Tensor, masked: Tensor, config: ErnieRnaConfig, mask_pairing: str = "inference"
) -> tuple[Tensor, Tensor | None]:
    """Put `<mask>` at some positions.

    Args:
        input_ids: (batch, seq), left as they are.
        masked: (batch, seq), True where a mask goes.

    Returns:
        The ids with the masks, and what to give as `pairing_scores`: (batch, seq, seq), or None
        where the model's own are right.
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
    """The model's log-probability of A, C, G and U at some positions, given the whole input.

    Args:
        input_ids, attention_mask: (batch, seq).
        wanted: (batch, seq), True at the positions; the head runs on these alone.
        pairing_scores: (batch, seq, seq), as for the model; None are those of the ids.
        vocabulary: what the softmax is over. "all" is that of pretraining, so that the four sum up
            to less than 1, by what the model leaves to N, the IUPAC letters and the special
            tokens; "nucleotides" is the four alone, which sum up to 1.

    Returns:
        (positions wanted, 4) in float32, natural logarithms, in the order of `NUCLEOTIDES`;
        the positions of the first sequence first.
    """
    output = model.ernie_rna(
        input_ids=input_ids, attention_mask=attention_mask, pairing_scores=pairing_scores
    )
    logits = model.lm_head(output.last_hidden_state[wanted]).float()  # (positions, vocab)
    if vocabulary == "nucleotides":
        return logits[:, _NUCLEOTIDE_IDS].log_softmax(dim=-1)
    return logits.log_softmax(dim=-1)[:, _NUCLEOTIDE_IDS]
