"""What the ablation takes away, seen in the scores of the layers, and its table."""

import copy

import pytest
import torch

from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from recipes.pretraining.settings import Settings
from recipes.pretraining.weights import new_model
from scripts import ablate
from tests.recipes.conftest import MODEL, TRAINING, config, table  # noqa: F401


def scores(*kept, queries=True, copied=False):
    """The projected pairing scores and each layer's scores of a hairpin, of equal weights."""
    model = new_model(Settings(model=MODEL, pairing_gain=20.0)).eval()
    if kept:
        ablate.take_away(model, *kept)
    if copied:  # As the moving average is, whose scores must be those of the model.
        model = copy.deepcopy(model)
    if not queries:
        for layer in model.ernie_rna.layers:
            torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
    batch = ErnieRnaTokenizer()(["GGGAAACCC"], return_tensors="pt")
    with torch.no_grad():
        return model.ernie_rna(**batch, output_attention_biases=True).attention_biases


def test_nothing_taken_away_is_the_model_as_it_is():
    assert all(map(torch.equal, scores(True, True), scores()))


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("carried", [False, True])
def test_without_pairing_scores_all_pairs_begin_alike(carried, copied):
    first, *later = scores(False, carried, copied=copied)
    assert (first == first[:, :, :1, :1]).all()
    assert len(later) == 2
    first, *_ = scores(True, carried, copied=copied)
    assert not (first == first[:, :, :1, :1]).all()


def test_not_carried_each_layer_begins_with_the_pairing_scores():
    """Without queries a layer's scores are the bias that it was given."""
    first, *later = scores(True, False, queries=False)
    assert all(torch.equal(bias, first) for bias in later)
    carried, kept = scores(True, True), scores(True, False)
    assert torch.equal(carried[1], kept[1])
    assert not torch.allclose(carried[2], kept[2])


def test_a_table_of_all_four(table, config, tmp_path, capsys):  # noqa: F811
    settings = config(training={**TRAINING, "max_steps": 2, "use_cpu": True})
    command = [*map(str, [settings, table, tmp_path / "out", "--seeds", "1"])]
    assert ablate.main(command) == 0
    printed = capsys.readouterr().out
    lines = printed[printed.index("variant") :].splitlines()
    assert [line.split("\t")[0] for line in lines[1:]] == list(ablate.VARIANTS)
    assert ablate.main(command) == 0  # what is done is not done again
    assert capsys.readouterr().out.splitlines() == lines
