"""Small random models for every attention path, with helpers for their outputs and gradients."""

import copy

import torch

from ernie_rna.model import attention_ernie_rna
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
from tests.conftest import lively

# Name of an attention path -> attention implementation and `score_memory`.
PATHS = {
    "eager": ("eager", "carry"),
    "sdpa": ("sdpa", "carry"),
    "recompute": ("sdpa", "recompute"),
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def small_model(hidden, heads, layers, kind=ErnieRnaForMaskedLM, **settings) -> torch.nn.Module:
    sizes = {"hidden_size": hidden, "num_attention_heads": heads, "num_hidden_layers": layers}
    sizes["intermediate_size"] = 2 * hidden
    return lively(kind(ErnieRnaConfig(**sizes, **settings))).eval()


def on_path(model, path, dtype=None):
    """A copy of a model on one of `PATHS`, in the given dtype or the dtype of the model."""
    model = copy.deepcopy(model).to(dtype or model.dtype)
    attention, model.config.score_memory = PATHS[path]
    model.set_attn_implementation(attention)
    return model


def use_small_blocks(monkeypatch, scores: int) -> None:
    """Make attention compute the scores in blocks of about this many."""
    monkeypatch.setattr(attention_ernie_rna, "_BLOCK_SCORES", scores)
    monkeypatch.setattr(attention_ernie_rna, "_LEAST_ROWS", 1)


def padded_ids(seq: int, padding: str) -> torch.Tensor:
    """Random ids of two sequences; a third of the second is padding, if any."""
    ids = torch.randint(4, 8, (2, seq))
    ids[:, 0], ids[:, -1] = 0, 2
    third = seq // 3
    if padding == "right":
        ids[1, -third:] = 1
    if padding == "left":
        ids[1, :third] = 1
    return ids


def outcome(model, ids):
    """Hidden states at real tokens, and the gradients of a loss on the logits, in float64."""
    model.zero_grad()
    real = ids != 1
    output = model(ids, labels=torch.where(real, ids, -100), output_hidden_states=True)
    output.loss.backward()
    hidden = torch.stack(output.hidden_states)[:, real].double().detach()
    return hidden, gradients_of(model)


def gradients_of(model):
    parameters = model.named_parameters()
    return {name: p.grad.double() for name, p in parameters if p.grad is not None}


def outcomes_by_checkpointing(model, ids, reentrant):
    """The `outcome` without and with gradient checkpointing, from the same seed."""
    results = []
    for checkpoint in (False, True):
        if checkpoint:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        torch.manual_seed(1)
        results.append(outcome(model, ids))
    return results


def gradient_error(gradients, exact):
    """The root mean square, over parameters, of the relative errors of their gradients."""
    errors = [
        (gradients[name] - exact[name]).norm() / exact[name].norm() for name in informative(exact)
    ]
    return torch.stack(errors).square().mean().sqrt()


def informative(gradients):
    """Names of all parameters except biases that shift all scores of a row by the same amount.

    Such a bias does not change the softmax, so its gradient is only rounding error.
    """
    without_effect = ("k_proj.bias", "linear1.bias", "linear2.bias")
    return [name for name in gradients if not name.endswith(without_effect)]


def assert_deterministic(model, ids):
    (hidden, gradients), (again, gradients_again) = outcome(model, ids), outcome(model, ids)
    assert torch.equal(hidden, again)
    assert all(torch.equal(gradients[name], gradients_again[name]) for name in gradients)


def penalty_gradients(model, **inputs):
    """The gradients of a gradient penalty: the squared norm of the embeddings' gradient."""
    embedding = model.get_input_embeddings().weight
    score = model(**inputs)[0].pow(3).sum()
    (gradient,) = torch.autograd.grad(score, embedding, create_graph=True)
    gradient.pow(2).sum().backward()
    gradients = gradients_of(model)
    model.zero_grad()
    return gradients
