"""The attention scores of one layer, copied during the forward pass.

`output_attention_biases=True` keeps those of every layer: 13 times 50 MB for one RNA of 1022
nucleotides and the released model. This module copies only the requested heads of one layer.

Shapes: batch sequences, seq tokens, heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ernie_rna.model.attention_ernie_rna import add_query_key, look_up_bias
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel, ErnieRnaPreTrainedModel
from ernie_rna.run.loading import resolve_layer


@torch.inference_mode()
def attention_scores(
    model: ErnieRnaModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    layer: int = -1,
    heads: Sequence[int] | None = None,
    pairing_scores: str | None = None,
) -> Tensor:
    """Return the scores before softmax that a layer passes on, equal to its `attention_biases`.

    Works with every `score_memory` of the model; with "recompute" only the requested heads take
    seq² memory.

    Args:
        model: the encoder.
        input_ids, attention_mask: (batch, seq).
        layer: from 0, the projected pairing scores, to the number of layers; -1 is the last one.
        heads: which heads, counted from 0; None is all of them.
        pairing_scores: as for `use_pairing_scores`.

    Returns:
        (batch, requested heads, seq, seq), in the dtype of `attention_biases`; -inf at keys that
        are padding.

    Raises:
        ValueError: the model has no such layer or head.
    """
    number = resolve_layer(layer, model.config.num_hidden_layers)
    head_indices = check_heads(heads, model.config.num_attention_heads)
    shape = (len(input_ids), model.config.num_attention_heads)
    captured: list[Tensor] = []

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if number == 0:
            captured.append(_scores(args[1], shape, head_indices))
        # The model itself does not use the scores of its last layer, and would not return them.
        return args, {**kwargs, "carry": kwargs["carry"] or number > 0}

    def after(module: Any, args: Any, output: Any) -> None:
        if number > 0:
            captured.append(_scores(output[2], shape, head_indices))

    attention: Any = model.layers[max(number - 1, 0)].self_attn
    with (
        use_pairing_scores(model, pairing_scores),
        attention.register_forward_pre_hook(before, with_kwargs=True),
        attention.register_forward_hook(after),
    ):
        model(input_ids=input_ids, attention_mask=attention_mask)
    return captured[0]


def check_heads(heads: Sequence[int] | None, count: int) -> list[int]:
    """Return the requested heads, all if None. Raises ValueError if the model lacks one of them."""
    indices = list(range(count) if heads is None else heads)
    for head in indices:
        if not 0 <= head < count:
            raise ValueError(f"the model has heads 0 to {count - 1}; there is no head {head}")
    return indices


@torch.inference_mode()
def run_head(
    model: Any, input_ids: Tensor, attention_mask: Tensor, pairing_scores: str | None
) -> Any:
    """Return the outputs of a model with a head. `input_ids` and `attention_mask` are (batch, seq);
    `pairing_scores` is as for `use_pairing_scores`."""
    with use_pairing_scores(model, pairing_scores):
        return model(input_ids=input_ids, attention_mask=attention_mask)


@contextmanager
def use_pairing_scores(
    model: ErnieRnaPreTrainedModel, pairing_scores: str | None
) -> Iterator[None]:
    """Change where a model takes its pairing scores from, for the duration of the block:
    "sequence"; "zero", as in the authors' script for structures, which equals a matrix of zeros
    without its seq² memory; or None for what the model's configuration says."""
    config: Any = model.config
    before = config.pairing_scores
    config.pairing_scores = pairing_scores or before
    try:
        yield
    finally:
        config.pairing_scores = before


def _scores(state: tuple[Tensor, ...], shape: tuple[int, int], heads: list[int]) -> Tensor:
    """Return a copy of the scores of some heads, (batch, heads, seq, seq).

    Args:
        state: the scores, (batch, heads, seq, seq), which later layers overwrite; or what
            `RecomputedAttention` sums: bias rows and columns, and each layer's query and key.
        shape: (batch, heads).
    """
    if len(state) == 1:
        return state[0][:, heads]  # Indexing by a list copies.
    rows, columns, *queries_keys = (tensor.unflatten(0, shape)[:, heads] for tensor in state)
    scores = look_up_bias(rows, columns)
    for query, key in zip(queries_keys[::2], queries_keys[1::2], strict=True):
        scores = add_query_key(scores, query, key, in_place=True)
    return scores
