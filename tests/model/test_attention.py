"""Compare every attention path with float64, forward and backward."""

import math

import pytest
import torch

from ernie_rna.model import attention_ernie_rna, layers_ernie_rna, modeling_ernie_rna
from ernie_rna.model.attention_ernie_rna import (
    Dropout,
    RecomputedAttention,
    add_query_key,
    fused_attention,
)
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM, ErnieRnaModel
from tests.model.small_models import (
    DTYPES,
    PATHS,
    assert_deterministic,
    gradient_error,
    informative,
    on_path,
    outcome,
    outcomes_by_checkpointing,
    padded_ids,
    small_model,
    use_small_blocks,
)

pytestmark = pytest.mark.core


@pytest.fixture
def oracle_model() -> ErnieRnaForMaskedLM:
    return small_model(64, 4, 3)


@pytest.mark.parametrize(
    ("seq", "padding"), [(7, "none"), (7, "left"), (7, "right"), (200, "left"), (200, "right")]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_errors_are_at_most_twice_those_of_eager(oracle_model, monkeypatch, dtype, seq, padding):
    ids = padded_ids(seq, padding)
    exact_hidden, exact = outcome(on_path(oracle_model, "eager", torch.float64), ids)
    eager_hidden, eager = outcome(on_path(oracle_model, "eager", dtype), ids)
    for path in ("sdpa", "recompute", "fused"):
        if path == "fused":  # This function runs on a GPU.
            monkeypatch.setattr(attention_ernie_rna, "attend_without_dropout", fused_attention)
        model = on_path(oracle_model, path.replace("fused", "sdpa"), dtype)
        hidden, gradients = outcome(model, ids)
        assert_at_most_twice_eager(hidden, eager_hidden, exact_hidden, path)
        assert gradients.keys() == exact.keys()
        if dtype != torch.float32:
            # The ratio of the errors was 0.83 to 1.13 over all parameters; in a single parameter
            # it depends on chance and reaches 3.
            assert gradient_error(gradients, exact) <= 1.3 * gradient_error(eager, exact), path
            continue
        for name in informative(exact):
            assert_at_most_twice_eager(gradients[name], eager[name], exact[name], (path, name))


def assert_at_most_twice_eager(values, eager, exact, label):
    assert (values - exact).abs().max() <= 2 * (eager - exact).abs().max() + 1e-6, label


def assert_same_outcome(outcome, expected, atol):
    (hidden, gradients), (expected_hidden, expected_gradients) = outcome, expected
    torch.testing.assert_close(hidden, expected_hidden, atol=atol, rtol=0)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("path", ["sdpa", "recompute"])
@pytest.mark.parametrize("blocks", [50, 2000, 2**22])
def test_float64_gradients_are_equal(oracle_model, monkeypatch, path, blocks):
    """A block holds part of a head, several heads, or all heads."""
    use_small_blocks(monkeypatch, blocks)
    ids = padded_ids(30, "right")
    ours, eager = (
        outcome(on_path(oracle_model, name, torch.float64), ids) for name in (path, "eager")
    )
    assert_same_outcome(ours, eager, atol=1e-12)


@pytest.mark.parametrize("path", ["sdpa", "recompute"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(oracle_model, path, dropout, reentrant):
    model = on_path(oracle_model, path, torch.float64).train()
    model.config.attention_probs_dropout_prob = dropout
    plain, checkpointed = outcomes_by_checkpointing(model, padded_ids(30, "left"), reentrant)
    assert_same_outcome(checkpointed, plain, atol=0)


def test_dropout_has_its_rate_and_repeats_its_mask():
    weights = torch.ones(4, 200, 200)
    dropout = Dropout(0.25)
    dropped, mask = dropout.start(weights.device)(weights)
    assert (dropped == 0).double().mean().item() == pytest.approx(0.25, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(mask, dropout.start(weights.device)(weights)[1])
    assert not torch.equal(mask, Dropout(0.25).start(weights.device)(weights)[1])


@pytest.mark.parametrize("path", PATHS)
def test_runs_are_deterministic_and_dropout_in_training_follows_the_seed(oracle_model, path):
    assert_deterministic(on_path(oracle_model, path), padded_ids(300, "right"))
    model, ids = on_path(oracle_model, path).train(), padded_ids(30, "none")
    model.config.hidden_dropout_prob = 0.0
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(outcome(model, ids)[0])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("blocks", [500, 2**20])
def test_sdpa_equals_eager_on_the_cpu(oracle_model, monkeypatch, dtype, blocks):
    use_small_blocks(monkeypatch, blocks)
    flags = {"output_hidden_states": True, "output_attention_biases": True}
    ids = padded_ids(40, "right")
    with torch.no_grad():
        eager, sdpa = (
            on_path(oracle_model, path, dtype).ernie_rna(ids, **flags) for path in ("eager", "sdpa")
        )
    for name in ("hidden_states", "attention_biases"):
        assert torch.equal(torch.stack(eager[name]), torch.stack(sdpa[name]))


def test_inference_updates_one_buffer_and_the_last_layer_carries_nothing(oracle_model, monkeypatch):
    pointers, carried = set(), []
    attend = attention_ernie_rna.attend_without_dropout

    def record_pointers(bias, *args):
        scores = add_query_key(bias, *args)
        pointers.update((bias.data_ptr(), scores.data_ptr()))
        return scores

    def record_scores(*args, **kwargs):
        context, scores = attend(*args, **kwargs)
        carried.append(scores is not None)
        return context, scores

    monkeypatch.setattr(attention_ernie_rna, "add_query_key", record_pointers)
    monkeypatch.setattr(attention_ernie_rna, "attend_without_dropout", record_scores)
    with torch.no_grad():
        on_path(oracle_model, "sdpa")(padded_ids(30, "none"))
    assert len(pointers) == 1  # Here all scores are one block, so the buffer has one address.
    assert carried == [True, True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("path", PATHS)
def test_autocast(oracle_model, path, dtype):
    """The scores stay in float32, like the residual stream.

    Measured errors of hidden states of about 1: 0.017 with bfloat16, 0.002 with float16.
    """
    ids = padded_ids(40, "right")
    exact = outcome(on_path(oracle_model, "eager", torch.float64), ids)[0]
    with torch.autocast("cpu", dtype=dtype):
        hidden, gradients = outcome(on_path(oracle_model, path), ids)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert (hidden - exact).abs().max() < {torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        output = on_path(oracle_model, "eager")(ids, output_attention_biases=True)
    assert {bias.dtype for bias in output.attention_biases} == {torch.float32}


def test_output_attentions_under_sdpa_runs_eager_and_warns(oracle_model, monkeypatch):
    warnings, ids = [], padded_ids(20, "none")
    monkeypatch.setattr(layers_ernie_rna.logger, "warning_once", warnings.append)
    sdpa, eager = (
        on_path(oracle_model, path)(ids, output_attentions=True).attentions
        for path in ("sdpa", "eager")
    )
    assert all(map(torch.equal, sdpa, eager))
    assert "running eager" in warnings[0]


@pytest.mark.parametrize("name", ["output_attentions", "output_attention_biases", "pairing_scores"])
def test_recompute_refuses_arguments_that_need_the_scores(oracle_model, name):
    value = torch.zeros(2, 6, 6) if name == "pairing_scores" else True
    model = on_path(oracle_model, "recompute")
    with pytest.raises(ValueError, match=f"{name} needs: use score_memory='carry'"):
        model(padded_ids(6, "none"), **{name: value})


@pytest.mark.parametrize(
    ("free", "seq", "flags", "recomputes"),
    [
        (1e5, 100, {}, False),
        (1e5, 200, {}, True),
        (1e5, 200, {"output_attention_biases": True}, False),
        (1e12, 200, {}, False),
    ],
)
def test_auto_recomputes_long_sequences_when_memory_is_short(
    oracle_model, monkeypatch, free, seq, flags, recomputes
):
    assert 2**20 < modeling_ernie_rna.free_memory(torch.device("cpu")) < math.inf
    monkeypatch.setattr(modeling_ernie_rna, "free_memory", lambda device: free)
    calls = []
    monkeypatch.setattr(RecomputedAttention, "apply", lambda value, *_: calls.append(1) or value)
    oracle_model.config.update({"score_memory": "auto", "max_position_embeddings": 100})
    with torch.no_grad():
        oracle_model(padded_ids(seq, "none"), **flags)
    assert bool(calls) == recomputes


# ---------------------------------------------------------------------------------------------
# The dtype of the carried scores, justified by the error against float64


@pytest.fixture
def steep_model() -> ErnieRnaModel:
    """Twelve layers whose scores grow to about 50."""
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256}
    model = ErnieRnaModel(ErnieRnaConfig(**sizes, attn_implementation="eager")).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter *= 10
            if "twod_proj" in name:
                parameter *= 20
    return model


@torch.no_grad()
def test_rounding_carried_scores_to_bfloat16(steep_model, monkeypatch):
    """It multiplies the error by 1.0 in a bfloat16 model, and by 1.3 to 1.5 under autocast."""
    ids = torch.randint(4, 8, (2, 100))
    half = on_path(steep_model, "eager", torch.bfloat16)
    exact = on_path(steep_model, "eager", torch.float64)(ids, output_attention_biases=True)
    assert exact.attention_biases[-1].abs().max() > 20

    def errors(model, autocast):
        """The mean errors of the last hidden state and of the last scores."""
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = model(ids, output_attention_biases=True)
        hidden = (output.last_hidden_state - exact.last_hidden_state).abs().mean()
        return hidden, (output.attention_biases[-1] - exact.attention_biases[-1]).abs().mean()

    def carry_in_the_other_dtype(bias, query, key, in_place=False):
        if bias.dtype == torch.bfloat16:
            return add_query_key(bias.float(), query.float(), key.float())
        return add_query_key(bias, query, key).bfloat16().float()

    half_errors, autocast_errors = errors(half, False), errors(steep_model, True)
    monkeypatch.setattr(attention_ernie_rna, "add_query_key", carry_in_the_other_dtype)
    half_with_float32, autocast_with_bfloat16 = errors(half, False), errors(steep_model, True)
    # A bfloat16 model gains nothing from scores in float32 ...
    assert half_errors[0] < 1.1 * half_with_float32[0]
    # ... but autocast, whose residual stream is float32, would lose by scores in bfloat16.
    assert autocast_with_bfloat16[0] > 1.2 * autocast_errors[0]
    assert autocast_with_bfloat16[1] > 1.2 * autocast_errors[1]


@torch.no_grad()
def test_bfloat16_embeddings_point_the_same_way(steep_model):
    ids, half = torch.randint(4, 8, (4, 100)), on_path(steep_model, "eager", torch.bfloat16)
    exact, rounded = (model(ids).last_hidden_state.float().mean(1) for model in (steep_model, half))
    assert torch.cosine_similarity(rounded, exact).min() > 0.9999
