"""New weights, their average, and checkpoints."""

import pytest
import torch

from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.sequences.fasta import InputError
from recipes.pretraining import weights
from recipes.pretraining.settings import Settings
from tests.recipes.conftest import MODEL


@pytest.fixture
def small():
    return weights.new_model(Settings(model=MODEL))


@pytest.fixture
def checkpoint(small, tmp_path):
    return save(small, tmp_path)


def save(model, folder, step=2):
    """A checkpoint as a run writes it."""
    path = folder / f"checkpoint-{step}"
    model.save_pretrained(path)
    weights.save_average(weights.average_of(model, 0.0), path)
    return path


def test_gains():
    model = {**MODEL, "hidden_size": 64}
    gained = weights.new_model(Settings(model=model, embedding_gain=20.0, pair_bias=-2.0)).eval()
    plain = weights.new_model(Settings(model=model))
    ratio = gained.get_input_embeddings().weight / plain.get_input_embeddings().weight
    assert ratio[0, 0].item() == pytest.approx(20.0)
    logits = gained(**ErnieRnaTokenizer()(["ACGU"], return_tensors="pt")).logits
    assert 0.3 < logits.std().item() < 3
    assert gained.pair_head.conv_out.bias.item() == -2.0


@pytest.mark.parametrize("most", [0.5, 0.0])
def test_the_average_follows_by_a_decay_that_rises(most):
    """Without a decay it is the model: what is exported are its last weights, not its first."""
    model = torch.nn.Linear(1, 1, bias=False)
    average = weights.average_of(model, most)
    expected = None
    for step in range(30):
        with torch.no_grad():
            model.weight.fill_(step)
        average.update_parameters(model)
        decay = min(most, (1 + step) / (10 + step))
        expected = step if expected is None else decay * expected + (1 - decay) * step
        assert average.module.weight.item() == pytest.approx(expected)


def test_checkpoints_are_whole_with_their_average(small, tmp_path):
    assert weights.last_checkpoint(tmp_path) is None
    with pytest.raises(InputError, match="has no whole checkpoint"):
        weights.find_checkpoint(tmp_path)
    save(small, tmp_path, step=10)
    save(small, tmp_path, step=9)
    small.save_pretrained(tmp_path / "checkpoint-11")
    assert weights.find_checkpoint(tmp_path).name == "checkpoint-10"


def test_the_average_of_a_checkpoint(small, checkpoint):
    average = weights.average_of(small, 0.9)
    average.update_parameters(small)
    with torch.no_grad():
        small.lm_head.decoder.bias.fill_(1.0)
    average.update_parameters(small)
    weights.save_average(average, checkpoint)
    found, bias = weights.load_average(checkpoint), average.module.lm_head.decoder.bias.tolist()
    assert type(found) is type(small)
    assert found.lm_head.decoder.bias.tolist() == bias != [1.0] * 25
    assert not list(checkpoint.glob("*.tmp"))


def test_a_model_may_have_more_blocks_than_another_and_differ_in_nothing_else(checkpoint):
    first = weights.load_average(checkpoint)
    wider = weights.model_of(checkpoint, Settings(model={**MODEL, "pair_blocks": 3})).eval()
    assert len(wider.pair_head.blocks) == 3
    batch = ErnieRnaTokenizer()(["GGGAAACCC", "AUGGCUACGAA"], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(first(**batch).pair_logits, wider(**batch).pair_logits)
    with pytest.raises(InputError, match="a model whose pair_channels is 8, not 9"):
        weights.model_of(checkpoint, Settings(model={**MODEL, "pair_channels": 9}))
    with pytest.raises(InputError, match="a model whose pairing_scores is sequence, not zero"):
        weights.model_of(checkpoint, Settings(model={**MODEL, "pairing_scores": "zero"}))


def test_residual_gain_of_the_weights_of_another_run(checkpoint):
    first = weights.load_average(checkpoint)
    after = weights.model_of(checkpoint, Settings(model=MODEL, residual_gain=0.25))
    for (name, before), now in zip(first.named_parameters(), after.parameters(), strict=True):
        scaled = "out_proj" in name or "fc2" in name
        torch.testing.assert_close(now, before * 0.25 if scaled else before)
