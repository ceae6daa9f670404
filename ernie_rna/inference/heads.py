"""A model with a head at work on a batch.

Shapes: batch sequences, seq tokens, length bases of the longest sequence.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ernie_rna.inference.attention_scores import use_pairing_scores
from ernie_rna.inference.loading import tokenize


def run_head(model: Any, texts: list[str], pairing_scores: str | None) -> Any:
    """The outputs of a model with a head on sequences, padded together."""
    return run_on_tokens(model, *tokenize(texts, model.device), pairing_scores)


@torch.inference_mode()
def run_on_tokens(
    model: Any, input_ids: Tensor, attention_mask: Tensor, pairing_scores: str | None
) -> Any:
    """The outputs of a model with a head.

    Args:
        input_ids, attention_mask: (batch, seq).
        pairing_scores: as for `attention_scores.use_pairing_scores`.
    """
    with use_pairing_scores(model, pairing_scores):
        return model(input_ids=input_ids, attention_mask=attention_mask)


def map_width(config: Any) -> float:
    """The width for `batches.work` that makes it count a pair head beside the encoder.

    Multiplications: of the encoder for each token, of the head for each entry of a map.
    """
    hidden, channels = config.hidden_size, config.pair_channels
    layer = 4 * hidden**2 + 2 * hidden * config.intermediate_size
    block = 2 * 9 * channels**2
    entry = config.pair_blocks * block + 49 * 8 * channels + 9 * channels
    of_scores = 1 / (4 * hidden)
    return 1 / (4 * (of_scores + entry / (config.num_hidden_layers * layer)))
