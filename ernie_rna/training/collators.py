"""Collators: batches with the base pairs of each sequence as labels, or with masked tokens.

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
    """Collator for transformers' Trainer: pads on the right, turns structures into labels.

    Args:
        tokenizer: an ERNIE-RNA tokenizer.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer  # The Trainer saves it beside the model.
        self._pad_id = tokenizer.pad_token_id
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self._letters = [token if len(token) == 1 else "N" for token in tokens]

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Examples -> input_ids, attention_mask (batch, seq) and labels (batch, length, length).

        Args:
            examples: each with the `input_ids` of a sequence, <cls> and <eos> included, and
                `labels`, its structure in dot-bracket notation.

        Returns:
            Labels are 1 where two bases pair, 0 where they could pair (A-U, G-C or G-U) and do not,
            and -100 where they cannot pair and at padding.

        Raises:
            ValueError: labels are not a structure of their sequence.
        """
        token_ids = [torch.tensor(example["input_ids"]) for example in examples]
        input_ids = pad_sequence(token_ids, batch_first=True, padding_value=self._pad_id)
        sequences = ["".join(self._letters[id] for id in ids.tolist()[1:-1]) for ids in token_ids]
        allowed = allowed_pairs(sequences, input_ids.shape[1] - 2)
        labels = torch.full(allowed.shape, NO_LABEL, dtype=torch.int8).masked_fill_(allowed, 0)
        for pair_labels, sequence, example in zip(labels, sequences, examples, strict=True):
            for i, j in _read_pairs(sequence, example.get("labels")):
                pair_labels[i, j] = pair_labels[j, i] = 1
        attention_mask = (input_ids != self._pad_id).long()
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def _read_pairs(sequence: str, structure: Any) -> list[BasePair]:
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
    """Collator for masked language modelling: pads and masks a batch.

    `DataCollatorForLanguageModeling` draws the masks (80 % hidden, 10 % replaced by any token,
    10 % unchanged); with `mask_pairing="pretraining"` the batch also has `pairing_scores`.

    Args:
        tokenizer: an ERNIE-RNA tokenizer.
        config: configuration of the model, which defines the pairing scores.
        mask_pairing: "pretraining", or "inference" for the scores that the model computes from the
            masked ids; any other value raises ValueError.
        probability: share of the nucleotides to predict.
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
        """The input_ids, attention_mask, labels (batch, seq), pairing_scores (batch, seq, seq)."""
        batch = dict(self._mask(list(examples)))
        if self._mask_pairing == "pretraining":
            masked = batch["labels"] != NO_LABEL
            unmasked = torch.where(masked, batch["labels"], batch["input_ids"])
            batch["pairing_scores"] = masked_pairing_scores(unmasked, masked, self._config)
        return batch
