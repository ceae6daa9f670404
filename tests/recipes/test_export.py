"""A run as a folder for the Hub."""

import json

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining

from ernie_rna.conversion.folder import why_no_model
from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForMaskedLM,
    ErnieRnaForPreTraining,
    ErnieRnaForSecondaryStructure,
    ErnieRnaModel,
)
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from recipes.pretraining import export
from recipes.pretraining.export import OFFSETS, THRESHOLDS
from recipes.pretraining.weights import load_average
from tests.recipes.conftest import log, pretrain


@pytest.fixture
def card(tmp_path):
    (tmp_path / "card.md").write_text("# A card")
    return tmp_path / "card.md"


def run_export(*arguments):
    return export.main([*map(str, arguments)])


def test_export(table, config, card, tmp_path, capsys):
    assert pretrain(config(), table, tmp_path / "run", "--steps", 2) == 0
    out = tmp_path / "model"
    command = [tmp_path / "run", "-o", out, "--card", card, "--structures", table]
    assert run_export(*command) == 0
    assert why_no_model(out) is None
    assert "threshold" in capsys.readouterr().out
    average = load_average(tmp_path / "run" / "checkpoint-2")
    model, info = ErnieRnaForPreTraining.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert model.dtype == torch.float32
    offset = 2 * (model.pair_head.conv_out.bias - average.pair_head.conv_out.bias).item()
    assert offset == pytest.approx(min(OFFSETS, key=lambda one: abs(one - offset)), abs=1e-2)
    assert model.config.pair_threshold in THRESHOLDS
    assert model.config.weights_origin == "pretrained"
    fits = {"rtol": 2e-3, "atol": 2e-3}  # float16 has 11 bits
    batch = ErnieRnaTokenizer()(["GGGAAACCC"], return_tensors="pt")
    expected, found = average(**batch), model.eval()(**batch)
    torch.testing.assert_close(found.logits, expected.logits, **fits)
    inside = expected.pair_logits + offset
    torch.testing.assert_close(found.pair_logits, inside, rtol=1e-2, atol=2e-2)
    for model_class in (ErnieRnaModel, ErnieRnaForMaskedLM, ErnieRnaForSecondaryStructure):
        _, info = model_class.from_pretrained(out, output_loading_info=True)
        assert not info["missing_keys"]
    auto = AutoModelForPreTraining.from_pretrained(out, trust_remote_code=True)
    assert type(auto).__name__ == "ErnieRnaForPreTraining"
    assert run_export(*command) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert run_export(*command, "--force") == 0


def test_without_structures_there_is_no_pair_head(fasta, config, card, tmp_path, capsys, table):
    run, out = tmp_path / "run", tmp_path / "model"
    assert pretrain(config(masked=1.0), fasta, run, "--eval-fasta", fasta, "--steps", 3) == 0
    names = {name for line in log(run) for name in line}
    assert "eval_masked_lm_loss" in names
    assert "eval_f1" not in names
    command = [run, "-o", out, "--card", card]
    assert run_export(*command, "--structures", table) == 1
    assert "was not trained; leave out --structures" in capsys.readouterr().err
    assert run_export(*command) == 0
    assert json.loads((out / "config.json").read_text())["architectures"] == ["ErnieRnaForMaskedLM"]
    assert why_no_model(out) is None
    model, info = ErnieRnaForMaskedLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    batch = ErnieRnaTokenizer()(["GGGAAACCC"], return_tensors="pt")
    expected = load_average(run / "checkpoint-3")(**batch).logits
    torch.testing.assert_close(model.eval()(**batch).logits, expected, rtol=2e-3, atol=2e-3)
    AutoModelForMaskedLM.from_pretrained(out, trust_remote_code=True)


def test_it_is_whole_or_not_there(table, config, card, tmp_path, monkeypatch, capsys):
    assert pretrain(config(), table, tmp_path / "run", "--steps", 1) == 0
    command = [tmp_path / "run", "-o", tmp_path / "new" / "model", "--card", card]
    assert run_export(*command) == 1
    assert "its pair head was trained; name a table by --structures" in capsys.readouterr().err

    def full(*arguments, **others):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_model", full)
    assert run_export(*command, "--structures", table) == 1
    assert not (tmp_path / "new").exists()
