"""Attention scores of one layer, compared with the `attention_biases` that the model returns."""

import pytest
import torch

from ernie_rna.run.attention_scores import attention_scores
from ernie_rna.run.loading import load_model, tokenize


@pytest.fixture(scope="module")
def encoder(golden_folder):
    return load_model(golden_folder, device="cpu")


@pytest.mark.parametrize("memory", ["carry", "recompute"])
@pytest.mark.parametrize("layer", range(-1, 5))
def test_scores_are_the_attention_biases(encoder, monkeypatch, sequences, memory, layer):
    batch = tokenize([sequences["trna_arg"], "GGGAAACCC"], encoder.device)
    with torch.inference_mode():
        expected = encoder(*batch, output_attention_biases=True).attention_biases[layer]
    monkeypatch.setattr(encoder.config, "score_memory", memory)
    scores = attention_scores(encoder, *batch, layer=layer)
    torch.testing.assert_close(scores, expected, rtol=0, atol=2e-5)
    two_heads = attention_scores(encoder, *batch, layer=layer, heads=[7, 2])
    assert torch.equal(two_heads, scores[:, [7, 2]])


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_zero_pairing_scores_and_no_change_to_the_model(encoder, sequences, layer):
    ids, mask = tokenize([sequences["trna_arg"], "GGGAAACCC"], encoder.device)
    zeros = torch.zeros(2, ids.shape[1], ids.shape[1])
    with torch.inference_mode():
        expected = encoder(ids, mask, pairing_scores=zeros, output_attention_biases=True)
        before = encoder(ids, mask).last_hidden_state
    scores = attention_scores(encoder, ids, mask, layer=layer, pairing_scores="zero")
    torch.testing.assert_close(scores, expected.attention_biases[layer], rtol=0, atol=2e-5)
    for module in encoder.modules():
        assert {*module._forward_hooks, *module._forward_pre_hooks} == set()
    with torch.inference_mode():
        assert torch.equal(encoder(ids, mask).last_hidden_state, before)
