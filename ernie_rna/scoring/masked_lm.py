"""Masked tokens, and what the model expects in their place.

How a `<mask>` pairs is a choice, see `masking`: "inference", with nothing (pairing score 0, as
every token but the four nucleotides), which is what the authors' code does when it runs the
trained model; or "pretraining", -1 on its whole row and column and everywhere else the scores of
the unmasked sequence, which is what the model saw in training.

Shapes: batch sequences, seq tokens, vocab.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ernie_rna.model.configuration_ernie_rna import VOCABULARY, ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
from ernie_rna.scoring.letter_scores import NUCLEOTIDES
from ernie_rna.scoring.masking import check_mask_pairing, masked_pairing_scores

_NUCLEOTIDE_IDS = [VOCABULARY.index(letter) for letter in NUCLEOTIDES]


def mask_tokens(
    input_ids: Tensor, masked: Tensor, config: ErnieRnaConfig, mask_pairing: str = "inference"
) -> tuple[Tensor, Tensor | None]:
    """Put `<mask>` at some positions, paired as the module says.

    Args:
        input_ids: (batch, seq), left as they are.
        masked: (batch, seq), True where a mask goes.
        config: of the model.
        mask_pairing: "inference" or "pretraining".

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
    logits = model.lm_head(output.last_hidden_state[wanted])  # (positions, vocab)
    if vocabulary == "nucleotides":
        return logits[:, _NUCLEOTIDE_IDS].float().log_softmax(dim=-1)
    log_probabilities: Tensor = logits.float().log_softmax(dim=-1)
    return log_probabilities[:, _NUCLEOTIDE_IDS]
