"""Attention whose scores bias the next layer's: how it is computed, and its gradients.

A layer passes on its scores ("carried") or, without seq² memory, the terms whose sum they are
("recomputed"). Nothing here depends on a configuration or a module of the model.

Shapes: batch sequences, seq tokens, heads, head_dim, vocab. Words:
bias      (batch, heads, seq, seq), what a layer adds to query keyᵀ; -inf for keys to leave out
scores    (batch, heads, seq, seq), before softmax; the next layer's bias
weights   (batch, heads, seq, seq), after softmax
blocks    parts of the scores: some of the batch * heads, some of their rows
"""

import contextlib
import math

import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from transformers.utils import logging

from .fused_ernie_rna import (
    ALIGNMENT,
    DEVICE_TYPES,
    carried_backward,
    carried_forward,
    recomputed_forward,
    why_not,
)

logger = logging.get_logger(__name__)


def bias_by_id(table: torch.Tensor, input_ids: torch.Tensor, keep: torch.Tensor):
    """Bias 0 as a look-up: entry (i, j) is rows[..., i, columns[..., j]].

    It depends on the two ids only, so the projection need not run on seq² entries.

    Args:
        table: (heads, vocab, vocab), the bias of every two ids.
        input_ids: (batch, seq).
        keep: (batch, seq), False for keys to leave out, whose bias is -inf.

    Returns:
        rows (batch, heads, seq, vocab + 1) and columns (batch, heads, seq).
    """
    heads, vocab, _ = table.shape
    by_id = F.pad(table, (0, 1), value=-math.inf).transpose(0, 1).flatten(1)
    # F.embedding, unlike indexing, adds up its gradient in the same order each time.
    rows = F.embedding(input_ids, by_id).unflatten(-1, (heads, vocab + 1)).transpose(1, 2)
    columns = torch.where(keep, input_ids, vocab)[:, None, :].expand(-1, heads, -1)
    return rows, columns


def look_up_bias(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Bias 0, (batch, heads, seq, seq), from `bias_by_id`; or (batch * heads, seq, seq)."""
    if may_run_fused(rows.device):
        return AlignedLookUp.apply(rows, columns)
    index = columns[..., None, :].expand(*columns.shape, columns.shape[-1])
    return rows.gather(-1, index)


def without_autocast(device: torch.device):
    """Scores and their projection keep the dtype that they come in.

    No context where there is no autocast: torch.export of torch 2.4 knows none.
    """
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def under_transform() -> bool:
    """Whether torch.func transforms, forward-mode derivatives or torch.jit.trace are at work.

    They pass through plain operations, but neither through our autograd Functions nor through
    writes in place, which would meet tensors of fewer (hidden) axes than what is written, and
    which ONNX files do not hold. A trace would also keep the number of blocks of its example.
    """
    if torch.compiler.is_compiling():  # which looks through transforms by itself
        return False
    transforms = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return transforms or torch.jit.is_tracing()


def may_run_fused(device: torch.device) -> bool:
    """Whether `fused_ernie_rna` is to run; compilers, tracers, transforms see plain operations."""
    if torch.compiler.is_compiling() or under_transform():
        return False
    return device.type in DEVICE_TYPES


def runs_fused(query: torch.Tensor, bias: torch.Tensor) -> bool:
    """Whether `fused_ernie_rna` does the work; where it cannot, a warning says why, once."""
    if not may_run_fused(query.device):
        return False
    reason = why_not(query, bias)
    if reason is not None:
        logger.warning_once(
            "ERNIE-RNA's kernels, which attend in one pass over the scores, do not run here: "
            f"{reason}. Running PyTorch's operations instead."
        )
    return reason is None


def add_query_key(bias, query, key, in_place=False):
    """This layer's scores, bias + query keyᵀ, in the dtype of the bias.

    Args:
        bias: (..., rows, seq), overwritten if `in_place`.
        query, key: (..., rows, head_dim) and (..., seq, head_dim), the query scaled already.
    """
    if query.dtype != bias.dtype:
        product = query @ key.transpose(-1, -2)
        return bias.add_(product) if in_place else bias + product
    flat, query, key = (tensor.flatten(0, -3) for tensor in (bias, query, key))
    add_product = flat.baddbmm_ if in_place else flat.baddbmm
    return add_product(query, key.transpose(1, 2)).view(bias.shape)


# ---------------------------------------------------------------------------------------------
# Carried scores


def eager_attention(query, key, value, bias, *, dropout, carry, in_place):
    """The definition: softmax(query keyᵀ + bias) value.

    Args:
        query, key, value: (batch, heads, seq, head_dim), the query scaled already.
        bias: (batch, heads, seq, seq).
        dropout: rate for the attention weights.
        carry: whether the next layer, or the caller, wants this layer's scores.
        in_place: whether the scores may overwrite the bias.

    Returns:
        The attended values (batch, heads, seq, head_dim), the scores or None, and the attention
        weights (batch, heads, seq, seq).
    """
    scores = add_query_key(bias, query, key, in_place)
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    context = (F.dropout(weights, dropout) if dropout else weights) @ value
    return context, scores if carry else None, weights


def sdpa_attention(query, key, value, bias, *, dropout, carry, in_place):
    """As `eager_attention`, without the weights, in less time and memory.

    By `fused_ernie_rna` where it runs, by blocks on a CPU, and else, and where it is compiled, by
    F.scaled_dot_product_attention.
    """
    grad = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value, bias))
    transform = under_transform()
    if not (grad or dropout or transform):
        return *attend_without_dropout(query, key, value, bias, carry, in_place), None
    if transform or torch.compiler.is_compiling():  # The compiler chooses itself what to keep.
        options = {"dropout": dropout, "carry": carry, "in_place": in_place}
        return *eager_attention(query, key, value, bias, **options)[:2], None
    return *ScoresOnlyAttention.apply(query, key, value, bias, dropout, carry), None


def attend_without_dropout(query, key, value, bias, carry, in_place=False):
    """The attended values and, for `carry`, the scores; arguments as for `eager_attention`."""
    if runs_fused(query, bias):
        return carried_forward(query, key, value, bias, Dropout(0.0), carry, in_place)[:2]
    if query.device.type == "cpu" and not torch.compiler.is_compiling():
        return block_attention(query, key, value, bias, Dropout(0.0), carry, in_place)
    return fused_attention(query, key, value, bias, carry, in_place)


def fused_attention(query, key, value, bias, carry, in_place=False):
    """As `attend_without_dropout`, by F.scaled_dot_product_attention."""
    # Autocast alone gives a bias finer than the query. To round it would lose what the layers
    # before have added up.
    wide = (tensor.to(bias.dtype) for tensor in (query, key, value))
    attend = F.scaled_dot_product_attention
    context = attend(*wide, attn_mask=bias, scale=1.0).to(value.dtype)
    # The kernel keeps its scores to itself, but the next layer adds them.
    return context, add_query_key(bias, query, key, in_place) if carry else None


def block_attention(query, key, value, bias, dropout, carry, in_place=False):
    """As `attend_without_dropout`, a block of scores at a time.

    On a CPU this is faster than F.scaled_dot_product_attention, whose kernel would multiply
    queries and keys once more than the carried scores do, and equal to eager in every bit.
    """
    if carry and not in_place:
        bias, in_place = bias.clone(), True
    flat_query, flat_key, scores = map(_flat, (query, key, bias))
    blocks = _score_blocks(flat_query, flat_key, scores, in_place)
    context = _attend_by_block(blocks, _flat(value), dropout).view(value.shape)
    return context, scores.view(bias.shape) if carry else None


def _gradient(backward):
    """A backward method in the dtypes of its tensors, even if it is called under autocast.

    Its steps are differentiable ones: with `create_graph` autograd records them, on a path of
    seq² memory, and so gets second derivatives.
    """

    def run(ctx, grad_context, *grads):
        with without_autocast(ctx.device):
            return backward(ctx, grad_context, *grads)

    return run


class AlignedLookUp(torch.autograd.Function):
    """`look_up_bias`, laid out as `fused_ernie_rna` would otherwise copy it.

    Its gradient is a product that adds up in the same order each time; that of `gather` on a GPU
    has seq² additions contend for the few entries of the rows.
    """

    @staticmethod
    def forward(ctx, rows, columns):
        ctx.device, ctx.bins = rows.device, rows.shape[-1]
        ctx.save_for_backward(columns)
        seq = columns.shape[-1]
        index = F.pad(columns, (0, -seq % ALIGNMENT))[..., None, :]
        return rows.gather(-1, index.expand(*rows.shape[:-1], -1))[..., :seq]

    @staticmethod
    @_gradient
    def backward(ctx, grad):
        (columns,) = ctx.saved_tensors
        bins = torch.arange(ctx.bins, device=ctx.device)
        return grad @ (columns[..., None] == bins).to(grad.dtype), None


class ScoresOnlyAttention(torch.autograd.Function):
    """Attention whose only seq² memory for the backward pass is the scores.

    Autograd would keep scores, weights and dropped weights of every layer. Here the weights are
    made again from the scores, and the dropout from its seed, a block at a time. Arguments as
    for `eager_attention`; returns the attended values and, for `carry`, the scores.
    """

    @staticmethod
    def forward(ctx, query, key, value, bias, dropout, carry):
        ctx.set_materialize_grads(False)
        ctx.carry, ctx.dropout, ctx.device = carry, Dropout(dropout), value.device
        ctx.fused = runs_fused(query, bias)
        if ctx.fused:
            context, scores, lse = carried_forward(query, key, value, bias, ctx.dropout, carry)
            kept = scores if carry else bias
            ctx.save_for_backward(query, key, value, kept, context, lse)
            return context, scores
        if dropout:
            context, scores = block_attention(query, key, value, bias, ctx.dropout, carry)
        else:
            context, scores = attend_without_dropout(query, key, value, bias, carry)
        ctx.save_for_backward(query, key, value, scores if carry else bias)
        return context, scores

    @staticmethod
    @_gradient
    def backward(ctx, grad_context, grad_scores):
        kept = ctx.saved_tensors  # Checkpointing lets them be read only once.
        if ctx.fused and not torch.is_grad_enabled():
            grads = carried_backward(*kept, ctx.dropout, ctx.carry, grad_context, grad_scores)
            return *grads, None, None
        if ctx.fused:
            _check_drawable(ctx.dropout)
            kept = kept[:4]
        query, key, value, saved = map(_flat, kept)
        grads = [torch.zeros_like(tensor) for tensor in (query, key, value, saved)]
        grad_query, grad_key, grad_value, grad_bias = grads
        grad_context = torch.zeros_like(value) if grad_context is None else _flat(grad_context)
        blocks = _score_blocks(query, key, saved, in_place=False)
        if ctx.carry:
            blocks = ((at, saved[at]) for at in _blocks(*saved.shape[:2]))
        for (heads, rows), grad in _backward_by_block(
            blocks, value, grad_context, ctx.dropout, grad_value
        ):
            if grad_scores is not None:
                grad += _flat(grad_scores)[heads, rows]
            grad_query[heads, rows] = grad @ key[heads].to(grad.dtype)
            grad_key[heads] += grad.transpose(1, 2) @ query[heads, rows].to(grad.dtype)
            grad_bias[heads, rows] = grad
        return *(grad.view_as(tensor) for grad, tensor in zip(grads, kept, strict=True)), None, None


def _check_drawable(dropout):
    """RuntimeError for a dropout that plain operations cannot draw again."""
    if dropout.rate:
        raise RuntimeError(
            "create_graph=True with dropout of attention weights: the kernels drew what no "
            "differentiable operation can draw again. Set attention_probs_dropout_prob=0, or "
            "attn_implementation='eager'"
        )


def _score_blocks(query, key, bias, in_place):
    """Yield each block and its scores, which overwrite the bias if `in_place`."""
    for heads, rows in _blocks(*bias.shape[:2]):
        operands = bias[heads, rows], query[heads, rows], key[heads]
        yield (heads, rows), add_query_key(*operands, in_place)


ATTENTIONS = {"eager": eager_attention, "sdpa": sdpa_attention}


def resolve_attention(name: str | None) -> str | None:
    """The implementation that runs for a name; None, the default, is left to transformers.

    Raises:
        ValueError: the name is none of eager, sdpa and flash_attention_2.
    """
    if name is None or name in ATTENTIONS:
        return name
    if name == "flash_attention_2":
        logger.warning_once(
            "ERNIE-RNA carries the attention scores from layer to layer, and flash attention "
            "exposes none: running attn_implementation='eager' instead of 'flash_attention_2'."
        )
        return "eager"
    raise ValueError(
        f"attn_implementation={name!r} is not one of ERNIE-RNA's: 'sdpa' (the default), 'eager' "
        "and 'flash_attention_2' (accepted, runs eager)"
    )


# ---------------------------------------------------------------------------------------------
# Recomputed scores


def recomputed_attention(query, key, value, state, *, dropout):
    """Attention that never holds its scores: `RecomputedAttention` with the heads apart.

    Args:
        query, key, value, dropout: as for `eager_attention`.
        state: bias_rows, columns and the pairs of the layers before, (batch * heads, ...) each.

    Returns:
        The attended values (batch, heads, seq, head_dim), and the state with this layer's pair.
    """
    state = *state, _flat(query), _flat(key)
    attend = _summed_attention if under_transform() else RecomputedAttention.apply
    return attend(_flat(value), dropout, *state).view(value.shape), state


def _summed_attention(value, dropout, bias_rows, columns, *pairs):
    """`RecomputedAttention` in plain operations, which hold all scores."""
    scores = look_up_bias(bias_rows, columns)
    for query, key in zip(pairs[::2], pairs[1::2], strict=True):
        scores = add_query_key(scores, query, key)
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    return (F.dropout(weights, dropout) if dropout else weights) @ value


class RecomputedAttention(torch.autograd.Function):
    """Attention that holds no seq² tensor: the scores of all layers so far, a block at a time.

    The recurrence is a sum, scores_l = bias_0 + sum of query_i key_iᵀ over the layers i <= l,
    so the layers need to pass on nothing but their queries and keys.

    Args:
        value: (batch * heads, seq, head_dim).
        dropout: rate for the attention weights.
        bias_rows, columns: bias 0 as `bias_by_id` gives it, (batch * heads, seq, vocab + 1) and
            (batch * heads, seq).
        pairs: query and key of each layer so far, (batch * heads, seq, head_dim),
            alternating.

    Returns:
        The attended values (batch * heads, seq, head_dim).
    """

    @staticmethod
    def forward(ctx, value, dropout, bias_rows, columns, *pairs):
        ctx.dropout, ctx.device = Dropout(dropout), value.device
        ctx.save_for_backward(value, bias_rows, columns, *pairs)
        if not dropout and runs_fused(value, bias_rows):
            queries, keys = torch.cat(pairs[::2], -1), torch.cat(pairs[1::2], -1)
            return recomputed_forward(value, bias_rows, columns, queries, keys)
        return _attend_by_block(_summed_blocks(bias_rows, columns, pairs), value, ctx.dropout)

    @staticmethod
    @_gradient
    def backward(ctx, grad_context):
        value, bias_rows, columns, *pairs = ctx.saved_tensors
        grad_value, grad_rows, *grad_pairs = map(torch.zeros_like, (value, bias_rows, *pairs))
        blocks = _summed_blocks(bias_rows, columns, pairs)
        queries, keys = _Joined(pairs[::2]), _Joined(pairs[1::2])
        for (heads, rows), grad in _backward_by_block(
            blocks, value, grad_context, ctx.dropout, grad_value
        ):
            index = columns[heads, None].expand(grad.shape)
            grad_rows[heads, rows] = grad_rows[heads, rows].scatter_add(-1, index, grad)
            grad_queries = grad @ keys[heads].to(grad.dtype)
            grad_keys = grad.transpose(1, 2) @ queries[heads][:, rows].to(grad.dtype)
            width = value.shape[-1]
            for layer, part in zip(grad_pairs[::2], grad_queries.split(width, -1), strict=True):
                layer[heads, rows] = part
            for layer, part in zip(grad_pairs[1::2], grad_keys.split(width, -1), strict=True):
                layer[heads] += part
        return grad_value, None, grad_rows, None, *grad_pairs


def _summed_blocks(bias_rows, columns, pairs):
    """Yield each block and its scores, the sum of bias 0 and of each pair's product."""
    queries, keys = _Joined(pairs[::2]), _Joined(pairs[1::2])
    for heads, rows in _blocks(*columns.shape):
        part = bias_rows[heads, rows]  # (heads of the block, rows of the block, vocab + 1)
        scores = part.gather(-1, columns[heads, None].expand(-1, part.shape[1], -1))
        # The sum of the layers' products is the product of the layers side by side.
        add_query_key(scores, queries[heads][:, rows], keys[heads], in_place=True)
        yield (heads, rows), scores


class _Joined:
    """All layers' queries, or keys, side by side: made for some heads, for all of their rows."""

    def __init__(self, layers):
        self.layers, self.heads, self.joined = layers, None, None

    def __getitem__(self, heads: slice) -> torch.Tensor:
        """(heads of the slice, seq, layers * head_dim)."""
        if heads != self.heads:
            self.heads, self.joined = heads, torch.cat([layer[heads] for layer in self.layers], -1)
        return self.joined


# ---------------------------------------------------------------------------------------------
# Blocks and dropout

# Attention by blocks computes about this many scores at a time (4 MiB in float32): whole heads if
# they fit, and at least so many rows that reading the keys pays off.
_BLOCK_SCORES = 2**20
_LEAST_ROWS = 256


def _blocks(heads: int, seq: int):
    """Yield (slice of batch * heads, slice of rows) that together cover all scores."""
    heads_step = max(1, _BLOCK_SCORES // seq**2)
    rows_step = min(seq, max(_LEAST_ROWS, _BLOCK_SCORES // seq))
    for first_head in range(0, heads, heads_step):
        for first_row in range(0, seq, rows_step):
            yield (
                slice(first_head, first_head + heads_step),
                slice(first_row, first_row + rows_step),
            )


def _attend_by_block(blocks, value, dropout):
    """softmax(scores) value, (batch * heads, seq, head_dim), from the blocks of the scores."""
    context = torch.empty_like(value)
    drop = dropout.start(value.device)
    for (heads, rows), scores in blocks:
        weights, _ = drop(torch.softmax(scores, dim=-1))  # (heads, rows, seq)
        context[heads, rows] = weights.to(value.dtype) @ value[heads]
    return context


def _backward_by_block(blocks, value, grad_context, dropout, grad_value):
    """Yield each block and the gradient of its scores; add up that of the value on the way."""
    drop = dropout.start(value.device)
    for (heads, rows), scores in blocks:
        weights = torch.softmax(scores, dim=-1)
        dropped, mask = drop(weights)
        grad_out = grad_context[heads, rows].to(weights.dtype)
        grad_value[heads] += dropped.transpose(1, 2) @ grad_out
        grad = (grad_out @ value[heads].to(weights.dtype).transpose(1, 2)).mul_(mask)
        yield (heads, rows), torch._softmax_backward_data(grad, weights, -1, weights.dtype)


class Dropout:
    """Dropout of attention weights that can be drawn again from its seed."""

    def __init__(self, rate: float):
        self.rate = rate
        # torch.manual_seed governs the seed, and gradient checkpointing draws the same one again.
        self.seed = int(torch.randint(2**62, ())) if rate else 0

    def start(self, device: torch.device):
        """A function from weights to the dropped weights and their scaled mask, or 1."""
        if not self.rate:
            return lambda weights: (weights, 1.0)
        generator = torch.Generator(device).manual_seed(self.seed)
        kept = 1.0 - self.rate

        def drop(weights: torch.Tensor):
            mask = torch.empty_like(weights).bernoulli_(kept, generator=generator).div_(kept)
            return weights * mask, mask

        return drop


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """(batch, heads, ...) -> (batch * heads, ...)."""
    return tensor.flatten(0, 1)
