"""The kernels of `fused_ernie_rna` against float64: checks for any device, and tests on a CPU.

An error may be at most twice that of eager attention in the same dtypes, plus 1e-6. Errors are root
mean squares, divided by the root mean square of the exact values if that is above 1.

The tests run in Triton's interpreter. `test_fused` runs them in a new process, because
TRITON_INTERPRET=1 must be in the environment before anything imports Triton.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

from ernie_rna.model import fused_ernie_rna
from ernie_rna.model.attention_ernie_rna import Dropout, look_up_bias
from tests.model.small_models import (
    NO_DROPOUT,
    gradient_error,
    on_path,
    outcome,
    outcomes_by_checkpointing,
    padded_ids,
    penalty_gradients,
    small_model,
)
from tests.model.test_derivatives import loss

# Name -> the dtype of query, key and value, and the dtype of the bias.
DTYPES = {
    "float32": (torch.float32, torch.float32),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "float16": (torch.float16, torch.float16),
    "autocast": (torch.bfloat16, torch.float32),
}
BATCH, HEADS, VOCAB = 2, 2, 5


def check_carried(device, dtypes, seq, width, *, padding, carry, dropout=0.0, in_place=False):
    """Compare values, scores and gradients; if `carry`, with gradients from the next layer."""
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

    def computed(double):
        leaves = [leaf(tensor, double) for tensor in inputs]
        scores = leaves[3] + leaves[0] @ leaves[1].transpose(-1, -2)
        context = attend(scores, leaves[2], mask)
        return (context, scores) if carry else (context,), leaves

    exact, eager = (detached(*computed(double), grads) for double in (True, False))
    context, scores, lse = fused_ernie_rna.carried_forward(
        query, key, value, bias.clone(), drop, carry, in_place
    )
    assert context.transpose(1, 2).is_contiguous()
    saved = scores if carry else bias
    gradients = fused_ernie_rna.carried_backward(
        query, key, value, saved, context, lse, drop, carry, *grads
    )
    outputs = (context, scores) if carry else (context,)
    assert_at_most_twice_eager((*outputs, *gradients), eager, exact)


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

    def computed(double):
        inputs = value, rows, *joined
        values, bias_rows, queries, keys = (leaf(tensor, double).detach() for tensor in inputs)
        scores = look_up_bias(bias_rows, columns)
        for query, key in zip(queries.split(width, -1), keys.split(width, -1), strict=True):
            scores = scores + query @ key.transpose(-1, -2)
        return attend(scores, values, torch.ones(()).to(device))

    context = fused_ernie_rna.recomputed_forward(value, rows, columns, *joined)
    assert_at_most_twice_eager([context], [computed(False)], [computed(True)])


def head_views(seq, width, size, dtype, device):
    """A (batch, heads, seq, head_dim) view in the memory layout of the projections."""
    tokens = torch.randn(BATCH, seq, HEADS, width, device=device) * size
    return tokens.to(dtype).transpose(1, 2)


def padded(seq: int, padding: str) -> slice:
    third = max(1, seq // 3)
    return {"none": slice(0), "left": slice(third), "right": slice(seq - third, seq)}[padding]


def leaf(tensor, double):
    tensor = tensor.detach().clone()
    return (tensor.double() if double else tensor).requires_grad_()


def attend(scores, value, mask):
    """softmax(scores) value, with the weights multiplied by the dropout mask."""
    weights = torch.softmax(scores, dim=-1) * mask.to(scores.dtype)
    return weights.to(value.dtype) @ value


def detached(outputs, leaves, grads):
    """The outputs and the gradients of the leaves, detached."""
    used = [grad.to(output.dtype) for output, grad in zip(outputs, grads, strict=False)]
    torch.autograd.backward(outputs, used)
    return [output.detach() for output in outputs] + [tensor.grad for tensor in leaves]


def assert_at_most_twice_eager(outputs, eager_outputs, exact_outputs):
    each = zip(outputs, eager_outputs, exact_outputs, strict=True)
    for number, (output, eager, exact) in enumerate(each):
        error, allowed = relative_error(output, exact), 2 * relative_error(eager, exact) + 1e-6
        assert error <= allowed, f"output {number}: {error:.1e}, allowed {allowed:.1e}"


def relative_error(tensor, exact):
    assert not (tensor.isnan() & ~exact.isnan()).any()
    assert torch.equal(tensor == -math.inf, exact == -math.inf)
    finite = exact != -math.inf
    size = exact[finite].square().mean().sqrt().clamp_min(1.0)
    return (tensor.double() - exact)[finite].square().mean().sqrt() / size


def drawn(dropout, heads, seq, device):
    """The dropout mask by which the kernels multiply the weights, (heads, seq, seq)."""
    mask = torch.ones(heads, seq, seq, device=device)
    if dropout.rate:
        strips = -(-seq // 64)
        _draw[(heads, strips, strips)](mask, seq, dropout.rate, dropout.seed, SIZE=64)
        mask /= 1 - dropout.rate
    return mask


@fused_ernie_rna._jit
def _draw(mask, seq, rate, seed, SIZE: tl.constexpr):  # noqa: N803
    head = tl.program_id(0)
    rows = (tl.program_id(1) * SIZE + tl.arange(0, SIZE))[:, None]
    columns = (tl.program_id(2) * SIZE + tl.arange(0, SIZE))[None, :]
    keeps = fused_ernie_rna._keeps(head, rows, columns, rate, seed)
    at = mask + (head * seq + rows) * seq + columns
    tl.store(at, keeps.to(tl.float32), mask=(rows < seq) & (columns < seq))


# ---------------------------------------------------------------------------------------------
# In Triton's interpreter

# (seq, padding, width): one token, less than a tile, and exactly one tile.
AT_MOST_A_TILE = [(1, "none", 16), (7, "left", 24), (64, "none", 16)]
CASES = [
    *((dtypes, 70, "right", 64) for dtypes in DTYPES),  # more than one tile
    *(("autocast", *sizes) for sizes in AT_MOST_A_TILE),
]
LEFT, NONE, RIGHT = ({"padding": side, "carry": True} for side in ("left", "none", "right"))
CARRIED = [
    *((dtypes, seq, width, {"padding": side, "carry": True}) for dtypes, seq, side, width in CASES),
    *((dtypes, 70, 64, {**RIGHT, "carry": False}) for dtypes in ("float32", "autocast")),
    ("float32", 40, 16, {**LEFT, "in_place": True}),
    ("autocast", 40, 16, {**NONE, "in_place": True}),
    ("autocast", 40, 16, {**RIGHT, "in_place": True}),
    ("float32", 40, 16, {**RIGHT, "carry": False, "dropout": 0.3}),
    ("autocast", 40, 16, {**RIGHT, "dropout": 0.3}),
]


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of the values in bfloat16, rounded to the nearest as GPUs do."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch):
    """Run on the CPU; fix errors of Triton 3.6's interpreter with bfloat16 and with numpy 2.4."""
    monkeypatch.setattr(fused_ernie_rna, "DEVICE_TYPES", fused_ernie_rna.DEVICE_TYPES)
    fused_ernie_rna.DEVICE_TYPES.add("cpu")
    convert, dot = interpreter._convert_float, interpreter.InterpreterBuilder.create_dot
    patch_tensor = interpreter._patch_lang_tensor

    def rounding_convert(values, source, target, mode):  # The original truncates.
        if (source, target) == (tl.float32, tl.bfloat16):
            return round_to_bfloat16(values)
        return convert(values, source, target, mode)

    def widened(handle):
        if handle.dtype != tl.bfloat16:
            return handle
        data = (handle.data.astype(np.uint32) << 16).view(np.float32)
        return interpreter.TensorHandle(data, tl.float32)

    def float_dot(self, one, two, *args):  # The original multiplies the bits of bfloat16.
        return dot(self, widened(one), widened(two), *args)

    def bfloat16(self, value):  # The original has no bfloat16 constants.
        return interpreter.TensorHandle(round_to_bfloat16(np.array([value])), tl.bfloat16)

    def patch_index(tensor, scope):  # numpy 2.4 does not convert one-dimensional arrays to int.
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    monkeypatch.setattr(interpreter, "_convert_float", rounding_convert)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", float_dot)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "get_bf16", bfloat16, raising=False)
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch_index)
    yield
    fused_ernie_rna.DEVICE_TYPES.discard("cpu")


@pytest.mark.parametrize(("dtypes", "seq", "width", "options"), CARRIED)
def test_carried(dtypes, seq, width, options):
    check_carried("cpu", DTYPES[dtypes], seq, width, **options)


@pytest.mark.parametrize(("dtypes", "seq", "padding", "width"), CASES)
def test_recomputed(dtypes, seq, padding, width):
    layers = 1 if seq == 7 else 2
    check_recomputed("cpu", DTYPES[dtypes], seq, width, layers=layers, padding=padding)


def test_dropout_has_its_rate_and_is_independent_for_each_place_and_seed():
    dropout = Dropout(0.25)
    mask = drawn(dropout, BATCH * HEADS, 70, "cpu") == 0
    assert mask.double().mean().item() == pytest.approx(0.25, abs=0.01)
    for axis in (0, 1, 2):  # Neighbours agree as often as independent draws do.
        agreement = (mask == mask.roll(1, axis)).double().mean().item()
        assert agreement == pytest.approx(0.25**2 + 0.75**2, abs=0.02)
    assert torch.equal(mask, drawn(dropout, BATCH * HEADS, 70, "cpu") == 0)
    assert not torch.equal(mask, drawn(Dropout(0.25), 4, 70, "cpu") == 0)


@pytest.fixture
def model() -> torch.nn.Module:
    return small_model(32, 2, 2, **NO_DROPOUT)


@pytest.fixture
def launched(monkeypatch):
    """The names of the launched kernels."""
    names = set()
    launch = fused_ernie_rna._launch

    def record(kernel, *args):
        names.add(kernel.fn.__name__)
        launch(kernel, *args)

    monkeypatch.setattr(fused_ernie_rna, "_launch", record)
    return names


@pytest.mark.parametrize(("path", "kernels"), [("sdpa", 3), ("recompute", 1)])
def test_whole_model_and_second_derivatives(model, path, kernels, launched):
    ids, exact_model = padded_ids(20, "left"), on_path(model, "eager", torch.float64)
    hidden, gradients = outcome(on_path(model, path), ids)
    expected, exact = outcome(exact_model, ids)
    assert (hidden - expected).abs().max() < 1e-4
    assert gradients.keys() == exact.keys()
    assert gradient_error(gradients, exact) < 1e-4
    assert len(launched) == kernels
    with torch.no_grad():
        inference = on_path(model, path)(ids, output_hidden_states=True)
    inferred = torch.stack(inference.hidden_states)[:, ids != 1].double()
    torch.testing.assert_close(inferred, hidden, atol=1e-6, rtol=0)
    launched.clear()
    gradients = penalty_gradients(on_path(model, path), input_ids=ids)
    exact = penalty_gradients(exact_model, input_ids=ids)
    assert gradients.keys() == exact.keys()
    assert gradient_error(gradients, exact) < 1e-3
    assert launched


def test_gradient_checkpointing_repeats_the_dropout(model, launched):
    """Second derivatives with dropout are refused; the error names the way out."""
    model = on_path(model, "sdpa").train()
    model.config.attention_probs_dropout_prob = 0.3
    with pytest.raises(RuntimeError, match="attention_probs_dropout_prob=0, or"):
        penalty_gradients(model, input_ids=padded_ids(20, "left"))
    (hidden, gradients), (recomputed_hidden, recomputed_gradients) = outcomes_by_checkpointing(
        model, padded_ids(9, "left"), reentrant=False
    )
    assert torch.equal(hidden, recomputed_hidden)
    for name, gradient in gradients.items():
        torch.testing.assert_close(recomputed_gradients[name], gradient, atol=1e-6, rtol=1e-4)
    assert len(launched) == 3


def test_transforms_use_plain_operations(model, launched):
    encoder = on_path(model, "sdpa").ernie_rna
    parameters = {name: p.detach() for name, p in encoder.named_parameters()}
    torch.func.grad(partial(loss, encoder))(parameters, padded_ids(7, "none"))
    assert not launched
