"""The attention scores of one layer, taken on their way through the model.

`output_attention_biases=True` keeps those of every layer: for one RNA of 1022 nucleotides and the
released model 13 times 50 MB. Here a copy is made of the heads asked for, of the layer asked for.

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
    """The scores before softmax that a layer hands on, equal to its `attention_biases`.

    Works whatever the model's `score_memory`; "recompute" holds the seq² scores of the heads
    asked for, and of no other.

    Args:
        model: the encoder.
        input_ids, attention_mask: (batch, seq).
        layer: 0, the projected pairing scores, to the number of layers; -1 is the last one.
        heads: which heads, counted from 0; None is all of them.
        pairing_scores: as for `use_pairing_scores`.

    Returns:
        (batch, heads asked for, seq, seq), in the dtype of `attention_biases`; -inf at keys that
        are padding.

    Raises:
        ValueError: there is no such layer or head.
    """
    number = resolve_layer(layer, model.config.num_hidden_layers)
    chosen = check_heads(heads, model.config.num_attention_heads)
    shape = (len(input_ids), model.config.num_attention_heads)
    kept: list[Tensor] = []

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if number == 0:
            kept.append(_scores(args[1], shape, chosen))
        # Nobody but us wants the last layer's scores.
        return args, {**kwargs, "carry": kwargs["carry"] or number > 0}

    def after(module: Any, args: Any, output: Any) -> None:
        if number > 0:
            kept.append(_scores(output[2], shape, chosen))

    layers: Any = model.layers
    attention = layers[max(number - 1, 0)].self_attn
    with (
        use_pairing_scores(model, pairing_scores),
        attention.register_forward_pre_hook(before, with_kwargs=True),
        attention.register_forward_hook(after),
    ):
        model(input_ids=input_ids, attention_mask=attention_mask)
    return kept[0]


def check_heads(heads: Sequence[int] | None, count: int) -> list[int]:
    """The heads asked for, None for all; ValueError for one that the model does not have."""
    chosen = list(range(count) if heads is None else heads)
    for head in chosen:
        if not 0 <= head < count:
            raise ValueError(f"the model has heads 0 to {count - 1}; there is no head {head}")
    return chosen


@torch.inference_mode()
def run_head(
    model: Any, input_ids: Tensor, attention_mask: Tensor, pairing_scores: str | None
) -> Any:
    """The outputs of a model with a head.

    Args:
        input_ids, attention_mask: (batch, seq).
        pairing_scores: as for `use_pairing_scores`.
    """
    with use_pairing_scores(model, pairing_scores):
        return model(input_ids=input_ids, attention_mask=attention_mask)


@contextmanager
def use_pairing_scores(
    model: ErnieRnaPreTrainedModel, pairing_scores: str | None
) -> Iterator[None]:
    """Have a model take the potential to pair from elsewhere, for as long as this lasts.

    Args:
        pairing_scores: "sequence"; "zero", with which the authors' script for structures runs,
            equal to a matrix of zeros without its seq² memory; or None for what the model's
            configuration says.
    """
    config: Any = model.config
    before = config.pairing_scores
    config.pairing_scores = pairing_scores or before
    try:
        yield
    finally:
        config.pairing_scores = before


def _scores(state: tuple[Tensor, ...], shape: tuple[int, int], heads: list[int]) -> Tensor:
    """A copy of the scores of some heads, (batch, heads, seq, seq).

    Args:
        state: the scores, (batch, heads, seq, seq), which later layers overwrite; or what
            `RecomputedAttention` sums up: bias rows, columns, and query and key of each layer.
        shape: (batch, heads).
    """
    if len(state) == 1:
        return state[0][:, heads]  # A list as index copies.
    rows, columns, *pairs = (tensor.unflatten(0, shape)[:, heads] for tensor in state)
    scores = look_up_bias(rows, columns)
    for query, key in zip(pairs[::2], pairs[1::2], strict=True):
        scores = add_query_key(scores, query, key, in_place=True)
    return scores
