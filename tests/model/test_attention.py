"""Every path of the attention against float64, forward and backward."""

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
)

pytestmark = pytest.mark.core


@pytest.fixture
def oracle_model() -> ErnieRnaForMaskedLM:
    return small_model(64, 4, 3)


def small_blocks(monkeypatch, scores):
    """Have attention go through the scores in blocks of about so many."""
    monkeypatch.setattr(attention_ernie_rna, "_BLOCK_SCORES", scores)
    monkeypatch.setattr(attention_ernie_rna, "_LEAST_ROWS", 1)


@pytest.mark.parametrize(
    ("seq", "padding"), [(7, "none"), (7, "left"), (7, "right"), (200, "left"), (200, "right")]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_errors_are_at_most_twice_eagers(oracle_model, monkeypatch, dtype, seq, padding):
    ids = padded_ids(seq, padding)
    exact_hidden, exact = outcome(on_path(oracle_model, "eager", torch.float64), ids)
    eager_hidden, eager = outcome(on_path(oracle_model, "eager", dtype), ids)
    for path in ("sdpa", "recompute", "fused"):
        if path == "fused":  # What runs on a GPU.
            monkeypatch.setattr(attention_ernie_rna, "attend_without_dropout", fused_attention)
        hidden, found = outcome(on_path(oracle_model, path.replace("fused", "sdpa"), dtype), ids)
        assert_twice(hidden, eager_hidden, exact_hidden, path)
        assert found.keys() == exact.keys()
        if dtype != torch.float32:
            # In single parameters chance decides, up to three times; in all, 0.83 to 1.13 was
            # measured.
            assert gradient_error(found, exact) <= 1.3 * gradient_error(eager, exact), path
            continue
        for name in informative(exact):
            assert_twice(found[name], eager[name], exact[name], (path, name))


def assert_twice(found, eager, exact, what):
    assert (found - exact).abs().max() <= 2 * (eager - exact).abs().max() + 1e-6, what


def assert_same_outcome(found, expected, atol):
    torch.testing.assert_close(found[0], expected[0], atol=atol, rtol=0)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("path", ["sdpa", "recompute"])
@pytest.mark.parametrize("blocks", [50, 2000, 2**22])
def test_float64_gradients_are_equal(oracle_model, monkeypatch, path, blocks):
    """Blocks of part of a head, of some heads and of all."""
    small_blocks(monkeypatch, blocks)
    ids = padded_ids(30, "right")
    found, expected = (
        outcome(on_path(oracle_model, one, torch.float64), ids) for one in (path, "eager")
    )
    assert_same_outcome(found, expected, atol=1e-12)


@pytest.mark.parametrize("path", ["sdpa", "recompute"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(oracle_model, path, dropout, reentrant):
    model = on_path(oracle_model, path, torch.float64).train()
    model.config.attention_probs_dropout_prob = dropout
    plain, checkpointed = outcomes_by_checkpointing(model, padded_ids(30, "left"), reentrant)
    assert_same_outcome(checkpointed, plain, atol=0)


def test_dropout_drops_at_its_rate_and_draws_the_same_again():
    weights = torch.ones(4, 200, 200)
    dropout = Dropout(0.25)
    dropped, mask = dropout.start(weights.device)(weights)
    assert (dropped == 0).double().mean().item() == pytest.approx(0.25, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(mask, dropout.start(weights.device)(weights)[1])
    assert not torch.equal(mask, Dropout(0.25).start(weights.device)(weights)[1])


@pytest.mark.parametrize("path", PATHS)
def test_dropout_is_active_in_training_and_seeded_and_runs_are_deterministic(oracle_model, path):
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
    small_blocks(monkeypatch, blocks)
    asked = {"output_hidden_states": True, "output_attention_biases": True}
    ids = padded_ids(40, "right")
    with torch.no_grad():
        eager, sdpa = (
            on_path(oracle_model, path, dtype).ernie_rna(ids, **asked) for path in ("eager", "sdpa")
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
    assert len(pointers) == 1  # That of the whole buffer, which is a single block here.
    assert carried == [True, True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("path", PATHS)
def test_autocast(oracle_model, path, dtype):
    """Scores stay in float32, as the residual stream does.

    Measured: 0.017 for bfloat16 and 0.002 for float16, in hidden states of about 1.
    """
    ids = padded_ids(40, "right")
    exact = outcome(on_path(oracle_model, "eager", torch.float64), ids)[0]
    with torch.autocast("cpu", dtype=dtype):
        hidden, gradients = outcome(on_path(oracle_model, path), ids)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert (hidden - exact).abs().max() < {torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        biases = on_path(oracle_model, "eager")(ids, output_attention_biases=True)
    assert {bias.dtype for bias in biases.attention_biases} == {torch.float32}


def test_output_attentions_under_sdpa_runs_eager_and_says_so(oracle_model, monkeypatch):
    warned, ids = [], padded_ids(20, "none")
    monkeypatch.setattr(layers_ernie_rna.logger, "warning_once", warned.append)
    sdpa, eager = (
        on_path(oracle_model, path)(ids, output_attentions=True).attentions
        for path in ("sdpa", "eager")
    )
    assert all(map(torch.equal, sdpa, eager))
    assert "running eager" in warned[0]


@pytest.mark.parametrize("flag", ["output_attentions", "output_attention_biases", "pairing_scores"])
def test_recompute_refuses_what_needs_the_scores(oracle_model, flag):
    ids = padded_ids(6, "none")
    asked = torch.zeros(2, 6, 6) if flag == "pairing_scores" else True
    model = on_path(oracle_model, "recompute")
    with pytest.raises(ValueError, match=f"{flag} needs: use score_memory='carry'"):
        model(ids, **{flag: asked})


@pytest.mark.parametrize(
    ("free", "seq", "asked", "recomputes"),
    [
        (1e5, 100, {}, False),
        (1e5, 200, {}, True),
        (1e5, 200, {"output_attention_biases": True}, False),
        (1e12, 200, {}, False),
    ],
)
def test_auto_recomputes_long_sequences_when_memory_is_short(
    oracle_model, monkeypatch, free, seq, asked, recomputes
):
    assert 2**20 < modeling_ernie_rna.free_memory(torch.device("cpu")) < math.inf
    monkeypatch.setattr(modeling_ernie_rna, "free_memory", lambda device: free)
    used = []
    monkeypatch.setattr(RecomputedAttention, "apply", lambda value, *_: used.append(1) or value)
    oracle_model.config.update({"score_memory": "auto", "max_position_embeddings": 100})
    with torch.no_grad():
        oracle_model(padded_ids(seq, "none"), **asked)
    assert bool(used) == recomputes


# ---------------------------------------------------------------------------------------------
# In which dtype the scores are carried, decided by their error against float64


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
    """Measured: 1.0 times the error in a bfloat16 model, 1.3 to 1.5 times under autocast."""
    ids = torch.randint(4, 8, (2, 100))
    half = on_path(steep_model, "eager", torch.bfloat16)
    exact = on_path(steep_model, "eager", torch.float64)(ids, output_attention_biases=True)
    assert exact.attention_biases[-1].abs().max() > 20

    def errors(model, autocast):
        """Mean errors of the last hidden state and of the last scores."""
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = model(ids, output_attention_biases=True)
        hidden = (output.last_hidden_state - exact.last_hidden_state).abs().mean()
        return hidden, (output.attention_biases[-1] - exact.attention_biases[-1]).abs().mean()

    def other_dtype(bias, query, key, in_place=False):
        if bias.dtype == torch.bfloat16:  # carried in float32 instead
            return add_query_key(bias.float(), query.float(), key.float())
        return add_query_key(bias, query, key).bfloat16().float()

    as_built = errors(half, False), errors(steep_model, True)
    monkeypatch.setattr(attention_ernie_rna, "add_query_key", other_dtype)
    other = errors(half, False), errors(steep_model, True)
    # A bfloat16 model gains nothing from scores in float32 ...
    assert as_built[0][0] < 1.1 * other[0][0]
    # ... but autocast, whose residual stream is float32, would lose by scores in bfloat16.
    assert other[1][0] > 1.2 * as_built[1][0]
    assert other[1][1] > 1.2 * as_built[1][1]


@torch.no_grad()
def test_bfloat16_embeddings_point_the_same_way(steep_model):
    ids, half = torch.randint(4, 8, (4, 100)), on_path(steep_model, "eager", torch.bfloat16)
    exact, found = (one(ids).last_hidden_state.float().mean(1) for one in (steep_model, half))
    assert torch.cosine_similarity(found, exact).min() > 0.9999
