"""Whether weights were ever trained."""

import pytest
import torch
from ernie_rna.model.configuration_ernie_rna import VOCABULARY
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM

from ernie_rna.convert.conversion import (
    CHECKPOINT,
    RANDOM,
    convert_weights,
    weights_origin,
)
from ernie_rna.convert.foreign.reading import read_checkpoint
from tests.golden_folder import GOLDEN

CHECKPOINTS = sorted(GOLDEN.glob("*.pt"))


def weights(model) -> dict[str, torch.Tensor]:
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    del state["lm_head.decoder.weight"]
    return state


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_the_golden_checkpoints_are_random(path):
    assert convert_weights(read_checkpoint(path)).config.weights_origin == RANDOM


def test_a_new_model_is_random_until_it_takes_a_step(config):
    model = ErnieRnaForMaskedLM(config)
    assert weights_origin(weights(model)) == RANDOM
    ids = torch.tensor([[VOCABULARY.index(token) for token in ("<cls>", "A", "U", "<eos>")]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert weights_origin(weights(model)) == CHECKPOINT


def test_a_digest_is_of_the_letters_alone(config):
    """MultiMolecule keeps one filler of three."""
    state = convert_weights(read_checkpoint(CHECKPOINTS[0])).state_dict
    embedding = state["ernie_rna.embed_tokens.weight"].clone()
    embedding[VOCABULARY.index("madeupword0000")] += 1
    assert weights_origin({**state, "ernie_rna.embed_tokens.weight": embedding}) == RANDOM
    embedding[VOCABULARY.index("G")] += 1
    assert weights_origin({**state, "ernie_rna.embed_tokens.weight": embedding}) == CHECKPOINT
