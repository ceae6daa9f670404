"""Batches that carry more than a label: which bases pair, and tokens that are masked.

>>> from ernie_rna import ErnieRnaTokenizer
>>> tokenizer = ErnieRnaTokenizer()
>>> example = {**tokenizer("GGGAAACCC"), "labels": "(((...)))"}
>>> {name: tuple(value.shape) for name, value in PairCollator(tokenizer)([example]).items()}
{'input_ids': (1, 11), 'attention_mask': (1, 11), 'labels': (1, 9, 9)}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorForLanguageModeling

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.structures_ernie_rna import allowed_pairs
from ernie_rna.scoring.masking import check_mask_pairing, masked_pairing_scores
from ernie_rna.structures.formats.dot_bracket import BasePair, from_dot_bracket
from ernie_rna.training.metrics import NO_LABEL


class PairCollator:
    """Pads sequences on the right and makes labels of their structures, for transformers' Trainer.

    Args:
        tokenizer: an ERNIE-RNA tokenizer.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer  # The Trainer saves it beside the model.
        self._padding = tokenizer.pad_token_id
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self._letters = [token if len(token) == 1 else "N" for token in tokens]

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Examples -> input_ids, attention_mask (batch, seq) and labels (batch, length, length).

        Args:
            examples: each with `input_ids` of a sequence, <cls> and <eos> included, and `labels`,
                its structure in dot-bracket notation.

        Returns:
            Labels are 1 where two bases pair, 0 where they could and do not, and -100 where they
            cannot (but A-U, G-C and G-U) and at padding.

        Raises:
            ValueError: labels are no structure of their sequence.
        """
        sequences = [torch.tensor(example["input_ids"]) for example in examples]
        input_ids = pad_sequence(sequences, batch_first=True, padding_value=self._padding)
        texts = ["".join(self._letters[id] for id in ids.tolist()[1:-1]) for ids in sequences]
        allowed = allowed_pairs(texts, input_ids.shape[1] - 2)
        labels = torch.full(allowed.shape, NO_LABEL, dtype=torch.int8).masked_fill_(allowed, 0)
        for row, text, example in zip(labels, texts, examples, strict=True):
            for i, j in _pairs(text, example.get("labels")):
                row[i, j] = row[j, i] = 1
        mask = (input_ids != self._padding).long()
        return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


def _pairs(sequence: str, structure: Any) -> list[BasePair]:
    if not isinstance(structure, str) or len(structure) != len(sequence):
        raise ValueError(
            f"labels must be a structure in dot-bracket notation, of {len(sequence)} characters "
            f"for {sequence}; got {structure!r}"
        )
    try:
        return from_dot_bracket(structure)
    except ValueError as error:
        raise ValueError(f"labels {structure!r} of {sequence}: {error}") from None


class MaskingCollator:
    """Pads and masks a batch for masked language modelling.

    `DataCollatorForLanguageModeling` draws the masks (80 % hidden, 10 % replaced by any token,
    10 % left); with `mask_pairing="pretraining"` the batch has `pairing_scores` as well.

    Args:
        tokenizer: an ERNIE-RNA tokenizer.
        config: the model's, for the scores.
        mask_pairing: "pretraining", or "inference" for the model's own scores of the masked ids;
            anything else raises ValueError.
        probability: share of the nucleotides that are to be predicted.
    """

    def __init__(
        self,
        tokenizer: Any,
        config: ErnieRnaConfig,
        mask_pairing: str = "inference",
        probability: float = 0.15,
    ):
        self.tokenizer = tokenizer  # The Trainer saves it beside the model.
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
