"""torch.compile without a graph break or a recompilation per length, and torch.export."""

import pytest
import torch
import torch.nn.functional as F

from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel

pytestmark = pytest.mark.core


@pytest.fixture
def encoder(config) -> ErnieRnaModel:
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return ErnieRnaModel(config).eval()


def ids(batch: int, seq: int) -> torch.Tensor:
    tokens = torch.randint(4, 8, (batch, seq))
    tokens[0, -2:] = 1
    return tokens


@pytest.mark.parametrize(
    ("attention", "train"), [("sdpa", False), ("sdpa", True), ("eager", False)]
)
def test_one_graph_serves_all_lengths(encoder, attention, train):
    encoder.set_attn_implementation(attention)
    encoder.train(train)
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(encoder, fullgraph=True, dynamic=True, backend=count)
    with torch.set_grad_enabled(train):
        for batch, seq in ((2, 20), (3, 33), (2, 120)):
            tokens = ids(batch, seq)
            hidden = compiled(input_ids=tokens).last_hidden_state
            expected = encoder(input_ids=tokens).last_hidden_state
            keep = tokens != 1
            torch.testing.assert_close(hidden[keep], expected[keep], atol=5e-6, rtol=0)
    assert len(graphs) == 1
    calls = [node.target for node in graphs[0].graph.nodes]
    fused = calls.count(F.scaled_dot_product_attention)
    # In training the graph has eager's steps, for the compiler to choose what to keep.
    assert fused == (encoder.config.num_hidden_layers if attention == "sdpa" and not train else 0)


def test_export(encoder):
    shape = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("seq", min=3, max=1024)}
    with torch.no_grad():
        program = torch.export.export(
            encoder, (), {"input_ids": ids(2, 20)}, dynamic_shapes={"input_ids": shape}
        )
        tokens = ids(3, 41)
        exported = program.module()(input_ids=tokens).last_hidden_state
        expected = encoder(tokens).last_hidden_state
    torch.testing.assert_close(exported, expected, atol=5e-6, rtol=0)


@pytest.mark.slow
def test_inductor(encoder):
    """With the default backend, forward and backward; needs a C++ compiler."""
    compiled = torch.compile(encoder, fullgraph=True, dynamic=True)
    tokens = ids(2, 40)
    keep = tokens != 1
    gradients = []
    for model in (encoder, compiled):
        encoder.zero_grad()
        hidden = model(input_ids=tokens).last_hidden_state[keep]
        (hidden**3).sum().backward()
        gradients.append((hidden.detach(), encoder.embed_tokens.weight.grad.clone()))
    torch.testing.assert_close(*(g[0] for g in gradients), atol=1e-5, rtol=0)  # measured: 5.4e-6
    torch.testing.assert_close(*(g[1] for g in gradients), atol=1e-3, rtol=1e-4)
