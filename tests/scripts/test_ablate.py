"""The ablation: what it removes from the scores of the layers, and its table."""

import copy

import pytest
import torch

from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from recipes.pretraining.settings import Settings
from recipes.pretraining.weights import new_model
from scripts import ablate
from tests.recipes.conftest import MODEL, TRAINING, config, table  # noqa: F401


def scores(*kept, queries=True, copied=False):
    """The projected pairing scores and each layer's scores for a hairpin, with the same weights."""
    model = new_model(Settings(model=MODEL, pairing_gain=20.0)).eval()
    if kept:  # whether pairing scores and carrying are kept
        ablate.take_away(model, *kept)
    if copied:  # The moving average is a copy, and must have the same scores.
        model = copy.deepcopy(model)
    if not queries:
        for layer in model.ernie_rna.layers:
            torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
    batch = ErnieRnaTokenizer()(["GGGAAACCC"], return_tensors="pt")
    with torch.no_grad():
        return model.ernie_rna(**batch, output_attention_biases=True).attention_biases


def test_keeping_both_changes_nothing():
    assert all(map(torch.equal, scores(True, True), scores()))


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("carried", [False, True])
def test_without_pairing_scores_all_pairs_have_the_same_first_score(carried, copied):
    first, *later = scores(False, carried, copied=copied)
    assert (first == first[:, :, :1, :1]).all()
    assert len(later) == 2
    first, *_ = scores(True, carried, copied=copied)
    assert not (first == first[:, :, :1, :1]).all()


def test_without_carrying_each_layer_starts_from_the_pairing_scores():
    """Without queries the scores of a layer equal its bias."""
    first, *later = scores(True, False, queries=False)
    assert all(torch.equal(bias, first) for bias in later)
    carried, not_carried = scores(True, True), scores(True, False)
    assert torch.equal(carried[1], not_carried[1])
    assert not torch.allclose(carried[2], not_carried[2])


def test_the_table_has_all_variants(table, config, tmp_path, capsys):  # noqa: F811
    settings = config(training={**TRAINING, "max_steps": 2, "use_cpu": True})
    command = [*map(str, [settings, table, tmp_path / "out", "--seeds", "1"])]
    assert ablate.main(command) == 0
    printed = capsys.readouterr().out
    lines = printed[printed.index("variant") :].splitlines()
    assert [line.split("\t")[0] for line in lines[1:]] == list(ablate.VARIANTS)
    assert ablate.main(command) == 0  # The finished runs are not repeated.
    assert capsys.readouterr().out.splitlines() == lines
