"""New weights, their moving average, and checkpoints."""

from dataclasses import replace

import pytest
import torch

from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.sequences.fasta import InputError
from recipes.pretraining import weights
from recipes.pretraining.settings import Settings
from tests.recipes.conftest import MODEL

SETTINGS = Settings(model=MODEL)
BATCH = ErnieRnaTokenizer()(["GGGAAACCC", "AUGGCUACGAA"], padding=True, return_tensors="pt")


def save(model, folder, step=2):
    """Write a checkpoint as a run does, and return its path."""
    path = folder / f"checkpoint-{step}"
    model.save_pretrained(path)
    weights.save_average(weights.average_of(model, 0.0), path)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    return save(weights.new_model(SETTINGS), tmp_path)


def test_gains_scale_new_weights():
    settings = replace(SETTINGS, model={**MODEL, "hidden_size": 64})
    gains = {"embedding_gain": 20.0, "pairing_gain": 3.0, "pair_bias": -2.0}
    plain = weights.new_model(settings)
    scaled = weights.new_model(replace(settings, **gains)).eval()
    for name, gain in (("embed_tokens", 20.0), ("twod_proj.linear2", 3.0)):
        weight, unscaled = (m.ernie_rna.get_submodule(name).weight for m in (scaled, plain))
        assert torch.equal(weight, unscaled * gain)
    logits = scaled(**ErnieRnaTokenizer()(["ACGU"], return_tensors="pt")).logits
    assert logits.std().item() == pytest.approx(1, rel=0.25)
    assert scaled.pair_head.conv_out.bias.item() == -2.0


@pytest.mark.parametrize("max_decay", [0.5, 0.0])
def test_the_decay_of_the_average_rises_to_its_maximum(max_decay):
    """With decay 0 the average is the model, so the last weights are exported, not the first."""
    model = torch.nn.Linear(1, 1, bias=False)
    average = weights.average_of(model, max_decay)
    expected = None
    for step in range(30):
        with torch.no_grad():
            model.weight.fill_(step)
        average.update_parameters(model)
        decay = min(max_decay, (1 + step) / (10 + step))
        expected = step if expected is None else decay * expected + (1 - decay) * step
        assert average.module.weight.item() == pytest.approx(expected)


def test_the_newest_complete_checkpoint_has_the_average(checkpoint, tmp_path):
    model = weights.new_model(SETTINGS)
    average = weights.average_of(model, 0.9)
    for bias in (0.0, 1.0):
        with torch.no_grad():
            model.lm_head.decoder.bias.fill_(bias)
        average.update_parameters(model)
    save(model, tmp_path, 10)
    weights.save_average(average, tmp_path / "checkpoint-10")
    model.save_pretrained(tmp_path / "checkpoint-11")
    assert weights.find_checkpoint(tmp_path).name == "checkpoint-10"
    loaded = weights.load_average(tmp_path / "checkpoint-10")
    bias = loaded.lm_head.decoder.bias.tolist()
    assert bias == average.module.lm_head.decoder.bias.tolist() == pytest.approx([9 / 11] * 25)
    assert not list(checkpoint.glob("*.tmp"))
    assert weights.last_checkpoint(checkpoint) is None
    with pytest.raises(InputError, match="has no complete checkpoint"):
        weights.find_checkpoint(checkpoint)


def test_a_model_may_start_from_one_with_fewer_blocks_but_no_other_difference(checkpoint):
    first = weights.load_average(checkpoint)
    settings = replace(SETTINGS, model={**MODEL, "pair_blocks": 3, "hidden_dropout_prob": 0.0})
    deeper = weights.new_model(settings, checkpoint).eval()
    assert len(deeper.pair_head.blocks) == 3
    with torch.no_grad():
        assert torch.equal(first(**BATCH).pair_logits, deeper(**BATCH).pair_logits)
    for change, message in (
        ({"pair_channels": 9}, "a model whose pair_channels is 8, not 9"),
        ({"pairing_scores": "zero"}, "a model whose pairing_scores is sequence, not zero"),
    ):
        with pytest.raises(InputError, match=message):
            weights.new_model(replace(SETTINGS, model={**MODEL, **change}), checkpoint)


def test_residual_gain_scales_the_weights_of_another_run(checkpoint):
    first = weights.load_average(checkpoint)
    scaled = weights.new_model(replace(SETTINGS, residual_gain=0.25), checkpoint)
    for (name, before), now in zip(first.named_parameters(), scaled.parameters(), strict=True):
        is_residual = "out_proj" in name or "fc2" in name
        torch.testing.assert_close(now, before * 0.25 if is_residual else before)
