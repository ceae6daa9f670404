"""torch.compile makes one graph for all lengths, without a graph break; torch.export works."""

import pytest
import torch
import torch.nn.functional as F

from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel

pytestmark = pytest.mark.core


@pytest.fixture
def encoder(config) -> ErnieRnaModel:
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return ErnieRnaModel(config).eval()


def random_ids(batch: int, seq: int) -> torch.Tensor:
    """Ids of random bases; the first sequence ends in padding."""
    ids = torch.randint(4, 8, (batch, seq))
    ids[0, -2:] = 1
    return ids


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
            ids = random_ids(batch, seq)
            hidden = compiled(input_ids=ids).last_hidden_state
            expected = encoder(input_ids=ids).last_hidden_state
            real = ids != 1
            torch.testing.assert_close(hidden[real], expected[real], atol=5e-6, rtol=0)
    assert len(graphs) == 1
    calls = [node.target for node in graphs[0].graph.nodes]
    fused = calls.count(F.scaled_dot_product_attention)
    # In training the graph has the steps of eager, so the compiler chooses which values to keep.
    assert fused == (encoder.config.num_hidden_layers if attention == "sdpa" and not train else 0)


def test_export(encoder):
    shape = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("seq", min=3, max=1024)}
    with torch.no_grad():
        program = torch.export.export(
            encoder, (), {"input_ids": random_ids(2, 20)}, dynamic_shapes={"input_ids": shape}
        )
        ids = random_ids(3, 41)
        exported = program.module()(input_ids=ids).last_hidden_state
        expected = encoder(ids).last_hidden_state
    torch.testing.assert_close(exported, expected, atol=5e-6, rtol=0)


@pytest.mark.slow
def test_inductor(encoder):
    """The default backend compiles forward and backward; it needs a C++ compiler."""
    compiled = torch.compile(encoder, fullgraph=True, dynamic=True)
    ids = random_ids(2, 40)
    states, gradients = [], []
    for model in (encoder, compiled):
        encoder.zero_grad()
        hidden = model(input_ids=ids).last_hidden_state[ids != 1]
        (hidden**3).sum().backward()
        states.append(hidden.detach())
        gradients.append(encoder.embed_tokens.weight.grad.clone())
    torch.testing.assert_close(*states, atol=1e-5, rtol=0)  # measured: 5.4e-6
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-4)
