"""The kernels of `fused_ernie_rna` against float64, on whatever device runs them.

An error may be twice that of eager attention in the same dtypes, and 1e-6. Errors are root mean
squares, over that of what is exact where it is more than 1.
"""

from __future__ import annotations

import math

import torch

from ernie_rna.model.attention_ernie_rna import Dropout, look_up_bias
from ernie_rna.model.fused_ernie_rna import (
    _jit,
    _keeps,
    carried_backward,
    carried_forward,
    recomputed_forward,
    tl,
)

# Of query, key and value, and of the bias.
DTYPES = {
    "float32": (torch.float32, torch.float32),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "float16": (torch.float16, torch.float16),
    "autocast": (torch.bfloat16, torch.float32),
}
BATCH, HEADS, VOCAB = 2, 2, 5


def check_carried(device, dtypes, seq, width, *, padding, carry, dropout=0.0, in_place=False):
    """Values, scores and gradients, with gradients from the next layer where it carries."""
    dtype, bias_dtype = dtypes
    query, key, value = (head_views(seq, width, width**-0.25, dtype, device) for _ in range(3))
    bias = torch.randn(BATCH, HEADS, seq, seq, device=device).to(bias_dtype)
    bias[1, ..., padded(seq, padding)] = -math.inf
    grads = torch.randn(BATCH, HEADS, seq, width, device=device).to(dtype), None
    if carry:
        grads = grads[0], torch.where(bias == -math.inf, 0, torch.randn_like(bias))
    drop = Dropout(dropout)
    inputs, mask = (query, key, value, bias), drawn(drop, BATCH * HEADS, seq, device)
    mask = mask.view(bias.shape)

    def in_dtype(double):
        leaves = [leaf(tensor, double) for tensor in inputs]
        scores = leaves[3] + leaves[0] @ leaves[1].transpose(-1, -2)
        context = attend(scores, leaves[2], mask)
        return (context, scores) if carry else (context,), leaves

    exact, eager = (outcome(*in_dtype(double), grads) for double in (True, False))
    context, scores, lse = carried_forward(query, key, value, bias.clone(), drop, carry, in_place)
    assert context.transpose(1, 2).is_contiguous()
    kept = scores if carry else bias
    found = carried_backward(query, key, value, kept, context, lse, drop, carry, *grads)
    outputs = (context, scores) if carry else (context,)
    assert_as_good((*outputs, *found), eager, exact)


def check_recomputed(device, dtypes, seq, width, *, layers, padding):
    dtype, bias_dtype = dtypes
    heads = BATCH * HEADS
    size = (layers * width) ** -0.25
    value, *pairs = (
        (size * torch.randn(heads, seq, width, device=device)).to(dtype)
        for _ in range(1 + 2 * layers)
    )
    rows = torch.randn(heads, seq, VOCAB + 1, device=device).to(bias_dtype)
    rows[..., VOCAB] = -math.inf
    columns = torch.randint(VOCAB, (heads, seq), device=device)
    columns[1, padded(seq, padding)] = VOCAB
    joined = [torch.cat(pairs[start::2], -1) for start in (0, 1)]

    def in_dtype(double):
        inputs = value, rows, *joined
        values, bias_rows, queries, keys = (leaf(tensor, double).detach() for tensor in inputs)
        scores = look_up_bias(bias_rows, columns)
        each = zip(queries.split(width, -1), keys.split(width, -1), strict=True)
        for query, key in each:
            scores = scores + query @ key.transpose(-1, -2)
        return attend(scores, values, torch.ones(()).to(device))

    exact, eager = in_dtype(True), in_dtype(False)
    assert_as_good([recomputed_forward(value, rows, columns, *joined)], [eager], [exact])


def head_views(seq, width, size, dtype, device):
    """(batch, heads, seq, head_dim) as the projections make it."""
    tokens = torch.randn(BATCH, seq, HEADS, width, device=device) * size
    return tokens.to(dtype).transpose(1, 2)


def padded(seq: int, padding: str) -> slice:
    third = max(1, seq // 3)
    return {"none": slice(0), "left": slice(third), "right": slice(seq - third, seq)}[padding]


def leaf(tensor, double):
    tensor = tensor.detach().clone()
    return (tensor.double() if double else tensor).requires_grad_()


def attend(scores, value, mask):
    """softmax(scores) value, with the weights that the mask drops."""
    weights = torch.softmax(scores, dim=-1) * mask.to(scores.dtype)
    return weights.to(value.dtype) @ value


def outcome(outputs, leaves, grads):
    """Outputs and gradients, detached."""
    used = [grad.to(output.dtype) for output, grad in zip(outputs, grads, strict=False)]
    torch.autograd.backward(outputs, used)
    return [output.detach() for output in outputs] + [tensor.grad for tensor in leaves]


def assert_as_good(found, eager, exact):
    for number, (ours, theirs, right) in enumerate(zip(found, eager, exact, strict=True)):
        error, allowed = relative_error(ours, right), 2 * relative_error(theirs, right) + 1e-6
        assert error <= allowed, f"output {number}: {error:.1e}, allowed {allowed:.1e}"


def relative_error(tensor, exact):
    assert not (tensor.isnan() & ~exact.isnan()).any()
    assert torch.equal(tensor == -math.inf, exact == -math.inf)
    finite = exact != -math.inf
    size = exact[finite].square().mean().sqrt().clamp_min(1.0)
    return (tensor.double() - exact)[finite].square().mean().sqrt() / size


def drawn(dropout, heads, seq, device):
    """What the kernels multiply the weights by, (heads, seq, seq)."""
    mask = torch.ones(heads, seq, seq, device=device)
    if dropout.rate:
        strips = -(-seq // 64)
        _draw[(heads, strips, strips)](mask, seq, dropout.rate, dropout.seed, SIZE=64)
        mask /= 1 - dropout.rate
    return mask


@_jit
def _draw(mask, seq, rate, seed, SIZE: tl.constexpr):  # noqa: N803
    head = tl.program_id(0)
    rows = (tl.program_id(1) * SIZE + tl.arange(0, SIZE))[:, None]
    columns = (tl.program_id(2) * SIZE + tl.arange(0, SIZE))[None, :]
    keeps = _keeps(head, rows, columns, rate, seed)
    at = mask + (head * seq + rows) * seq + columns
    tl.store(at, keeps.to(tl.float32), mask=(rows < seq) & (columns < seq))
