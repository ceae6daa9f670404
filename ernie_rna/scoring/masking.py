"""Pairing scores of masked sequences, as in the authors' pretraining or as at inference.

The authors' pretraining (github.com/Bruce-ywj/ERNIE-RNA, pretrain_code/tasks/twod_mlm.py, commit
0b7b458) draws 15 % of the positions, hides 80 % of them, replaces 10 % and leaves 10 %; the
pairing scores are those of the unmasked sequence, and -1 on the rows and columns of all drawn
positions, so that they give nothing away. At inference a `<mask>` pairs with nothing, as any
special token: 0. A model sees -1 in training alone.

Shapes: batch sequences, seq tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import DataCollatorForLanguageModeling

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.layers_ernie_rna import pairing_table
from ernie_rna.options import MASK_PAIRINGS

# Of a position that is to be predicted; the authors' number.
MASKED_PAIRING_SCORE = -1.0
# What the labels hold where nothing is to be predicted.
NO_LABEL = -100


def check_mask_pairing(mask_pairing: str) -> str:
    if mask_pairing not in MASK_PAIRINGS:
        raise ValueError(f"mask_pairing must be {' or '.join(MASK_PAIRINGS)}; got {mask_pairing!r}")
    return mask_pairing


def pairing_scores(input_ids: torch.Tensor, config: ErnieRnaConfig) -> torch.Tensor:
    """What the model reads off the ids: (..., seq) -> (..., seq, seq) in float32."""
    table = pairing_table(config, input_ids.device)
    return table[input_ids[..., :, None], input_ids[..., None, :]]


def masked_pairing_scores(
    input_ids: torch.Tensor, masked: torch.Tensor, config: ErnieRnaConfig
) -> torch.Tensor:
    """Pairing scores as in pretraining.

    Args:
        input_ids: (..., seq), those of the sequence before masking.
        masked: (..., seq), True at positions to predict, also where the token was left.

    Returns:
        (..., seq, seq) in float32.
    """
    either = masked[..., :, None] | masked[..., None, :]
    return pairing_scores(input_ids, config).masked_fill(either, MASKED_PAIRING_SCORE)


class MaskingCollator:
    """Pads and masks a batch for masked language modelling.

    `DataCollatorForLanguageModeling` draws the masks (80 % hidden, 10 % replaced by any token,
    10 % left); with `mask_pairing="pretraining"` the batch has `pairing_scores` as well.

    Args:
        tokenizer: an ERNIE-RNA tokenizer.
        config: the model's, for the scores.
        mask_pairing: "pretraining", or "inference" for the model's own scores of the masked ids.
        probability: share of the nucleotides that are to be predicted.

    Raises:
        ValueError: the pairing is neither.
    """

    def __init__(
        self,
        tokenizer: Any,
        config: ErnieRnaConfig,
        mask_pairing: str = "inference",
        probability: float = 0.15,
    ):
        self._config = config
        self._mask_pairing = check_mask_pairing(mask_pairing)
        self._mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=probability)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Tokenized sequences -> input_ids, attention_mask and labels (batch, seq), and more."""
        batch = dict(self._mask(list(examples)))
        if self._mask_pairing == "pretraining":
            masked = batch["labels"] != NO_LABEL
            unmasked = torch.where(masked, batch["labels"], batch["input_ids"])
            batch["pairing_scores"] = masked_pairing_scores(unmasked, masked, self._config)
        return batch
