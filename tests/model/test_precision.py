"""In which dtype the scores are carried, decided by their error against float64."""

import pytest
import torch

from ernie_rna.model import attention_ernie_rna
from ernie_rna.model.attention_ernie_rna import add_query_key
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from tests.model.small_models import on_path


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
