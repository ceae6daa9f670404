"""What the models of ERNIE-RNA return.

Shapes: batch sequences, seq tokens, length bases of the longest sequence, hidden, heads, vocab.
"""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class ErnieRnaModelOutput(ModelOutput):
    """What `ErnieRnaModel` returns.

    Attributes:
        last_hidden_state: (batch, seq, hidden), the last layer's output.
        pooler_output: (batch, hidden), tanh of a linear map of the `<cls>` embedding.
        hidden_states: embedding output and each layer's, (batch, seq, hidden) each.
        attentions: each layer's attention weights, (batch, heads, seq, seq).
        attention_biases: the projected pairing scores, then each layer's scores before softmax,
            (batch, heads, seq, seq) each; -inf at keys that are padding.
        attention_scores: the last layer's scores alone, (batch, heads, seq, seq).
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    attention_biases: tuple[torch.Tensor, ...] | None = None
    attention_scores: torch.Tensor | None = None


@dataclass
class ErnieRnaHeadOutput(ModelOutput):
    """What the models with a head return; see `ErnieRnaModelOutput` for the last three.

    Attributes:
        loss: scalar in float32, if labels were given.
        logits: (batch, seq, vocab), (batch, seq, num_labels) or (batch, num_labels); of pairs
            (batch, length, length) over bases, symmetric, zero at padding.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    attention_biases: tuple[torch.Tensor, ...] | None = None


@dataclass
class ErnieRnaRibosomeLoadingOutput(ModelOutput):
    """What `ErnieRnaForRibosomeLoading` returns; see `ErnieRnaModelOutput` for the last three.

    Attributes:
        loss: scalar in float32, of standardised values, if labels were given.
        logits: (batch,), standardised.
        predictions: (batch,), mean ribosome loading.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    predictions: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    attention_biases: tuple[torch.Tensor, ...] | None = None


@dataclass
class ErnieRnaPreTrainingOutput(ModelOutput):
    """What `ErnieRnaForPreTraining` returns; see `ErnieRnaModelOutput` for the last three.

    Attributes:
        loss: scalar in float32, if labels were given: the sum of those of the two heads.
        logits: (batch, seq, vocab), of the masked-LM head.
        pair_logits: (batch, length, length) over bases, symmetric, zero at padding.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    pair_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    attention_biases: tuple[torch.Tensor, ...] | None = None
