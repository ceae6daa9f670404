"""Second derivatives, torch.func and forward mode: every path gives the results of eager."""

from functools import partial

import pytest
import torch
from torch import func
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from ernie_rna.model import attention_ernie_rna
from ernie_rna.model.attention_ernie_rna import (
    RecomputedAttention,
    eager_attention,
    fused_attention,
    sdpa_attention,
)
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from tests.model.small_models import (
    NO_DROPOUT,
    on_path,
    penalty_gradients,
    small_model,
    use_small_blocks,
)

pytestmark = pytest.mark.core
PATHS = ["sdpa", "recompute"]
IDS = torch.tensor([[0, 4, 5, 6, 7, 2], [0, 7, 6, 5, 2, 1]])
WEIGHT = "layers.0.self_attn.q_proj.bias"


@pytest.fixture
def encoder() -> ErnieRnaModel:
    return small_model(16, 2, 2, ErnieRnaModel, **NO_DROPOUT).double()


@pytest.fixture(params=[6, 2**22], ids=["blocks", "one block"])
def blocks(request, monkeypatch):
    """A block holds part of a head, or all heads."""
    use_small_blocks(monkeypatch, request.param)


def random_doubles(*shapes):
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize("backend", ["eager", "sdpa", "fused"])
def test_carried_second_derivatives(monkeypatch, blocks, backend, carry, dropout):
    if backend == "fused":  # This function runs on a GPU.
        monkeypatch.setattr(attention_ernie_rna, "attend_without_dropout", fused_attention)
    attend = eager_attention if backend == "eager" else sdpa_attention

    def outputs(*inputs):
        torch.manual_seed(3)
        context, scores, *_ = attend(*inputs, dropout=dropout, carry=carry, in_place=False)
        return (context, scores) if carry else context

    inputs = random_doubles(*[(1, 2, 3, 2)] * 3, (1, 2, 3, 3))
    assert gradcheck(outputs, inputs)
    assert gradgradcheck(outputs, inputs, fast_mode=True)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_recomputed_second_derivatives(blocks, dropout):
    """The second layer's query and key depend on those of the first."""
    columns = torch.tensor([[0, 1, 2], [2, 2, 1]])

    def attend(value, rows, query, key):
        torch.manual_seed(3)
        pairs = query, key, query**2, key * query
        return RecomputedAttention.apply(value, dropout, rows, columns, *pairs)

    inputs = random_doubles((2, 3, 2), (2, 3, 4), (2, 3, 2), (2, 3, 2))
    assert gradcheck(attend, inputs)
    assert gradgradcheck(attend, inputs, fast_mode=True)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_penalty_equals_that_of_eager(encoder, path, checkpointing):
    exact = penalty_gradients(on_path(encoder, "eager"), input_ids=IDS)
    model = on_path(encoder, path)
    if checkpointing:
        model.train().gradient_checkpointing_enable({"use_reentrant": False})
    gradients = penalty_gradients(model, input_ids=IDS)
    assert gradients.keys() == exact.keys()
    for name, gradient in gradients.items():
        scale = exact[name].abs().max() + 1
        assert (gradient - exact[name]).abs().max() <= 1e-12 * scale, name


def test_second_derivatives_through_embeddings_and_pairing_scores(encoder):
    """An earlier version lost most of these gradients."""
    embeds, scores = random_doubles((1, 6, 16), (1, 6, 6))
    results = []
    for path in ("eager", "sdpa"):
        model = on_path(encoder, path)
        hidden = model(inputs_embeds=embeds, pairing_scores=scores).last_hidden_state
        first = torch.autograd.grad(hidden[0, 2, 3], (embeds, scores), create_graph=True)
        norm = sum(gradient.pow(2).sum() for gradient in first)
        results.append(torch.autograd.grad(norm, (embeds, scores)))
    for eager, sdpa in zip(*results, strict=True):
        torch.testing.assert_close(sdpa, eager, atol=1e-12, rtol=1e-12)


# ---------------------------------------------------------------------------------------------
# torch.func and forward mode


def loss(model, parameters, ids):
    output = func.functional_call(model, parameters, (), {"input_ids": ids})
    return output.last_hidden_state.pow(3).sum()


def gradient(loss, parameters):
    return func.grad(loss)(parameters, IDS)[WEIGHT]


def per_sample_gradients(loss, parameters):
    each = func.vmap(func.grad(loss), in_dims=(None, 0))
    return each(parameters, IDS[:, None])[WEIGHT]


def ensemble(loss, parameters):
    several = {name: torch.stack([p, 1.01 * p]) for name, p in parameters.items()}
    return func.vmap(loss, in_dims=(0, None))(several, IDS)


def jvp(loss, parameters):
    tangents = {name: torch.full_like(p, 0.01) for name, p in parameters.items()}
    return func.jvp(lambda changed: loss(changed, IDS), (parameters,), (tangents,))[1]


def hessian(loss, parameters):
    by_bias = func.hessian(lambda bias: loss({**parameters, WEIGHT: bias}, IDS))
    return by_bias(parameters[WEIGHT])


def dual_numbers(loss, parameters):
    with forward_ad.dual_level():
        dual = {n: forward_ad.make_dual(p, torch.full_like(p, 0.01)) for n, p in parameters.items()}
        return forward_ad.unpack_dual(loss(dual, IDS)).tangent


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("transform", "gradients"),
    [
        (gradient, True),
        (per_sample_gradients, True),
        (jvp, True),
        (hessian, True),
        *((transform, grad) for transform in (ensemble, dual_numbers) for grad in (True, False)),
    ],
)
def test_transforms(encoder, path, transform, gradients):
    parameters = {name: p.detach() for name, p in encoder.named_parameters()}
    with torch.set_grad_enabled(gradients):
        result = transform(partial(loss, on_path(encoder, path)), parameters)
        expected = transform(partial(loss, on_path(encoder, "eager")), parameters)
    torch.testing.assert_close(result, expected, atol=1e-10, rtol=1e-12)


def test_transforms_equal_autograd(encoder):
    parameters = {name: p.detach() for name, p in encoder.named_parameters()}
    model = on_path(encoder, "sdpa")
    grad = gradient(partial(loss, model), parameters)
    tangent = jvp(partial(loss, model), parameters)
    loss(model, dict(model.named_parameters()), IDS).backward()
    torch.testing.assert_close(grad, model.get_parameter(WEIGHT).grad, atol=1e-10, rtol=1e-12)
    total = sum(0.01 * p.grad.sum() for p in model.parameters() if p.grad is not None)
    torch.testing.assert_close(tangent, total, atol=1e-8, rtol=1e-10)
