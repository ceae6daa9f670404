"""Configuration files: valid and invalid settings, and the files that the recipe includes."""

import json

import pytest

from recipes.pretraining.settings import CONFIGS, Settings, find_config, read_settings
from recipes.pretraining.train import training_arguments
from recipes.pretraining.weights import new_model
from tests.recipes.conftest import MODEL, TRAINING


def test_remarks_and_defaults(config):
    settings = read_settings(config(eval_thresholds=[1, 2.5]))
    assert (settings.pairs_squared_tokens, settings.masked_share) == (3000, 0.15)
    assert settings.eval_thresholds == (1, 2.5)
    assert settings.has_structures
    assert (settings.seed, Settings().seed) == (0, 42)  # 42 is the default of TrainingArguments.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maskd": 1}, ".json: a configuration has no option 'maskd'; did you mean masked"),
        ({"masked": 1.5}, "masked must be a number from 0 to 1; got 1.5"),
        ({"masked_tokens": "many"}, "masked_tokens must be a whole number"),
        ({"eval_thresholds": []}, "eval_thresholds must be a list of numbers"),
        ({"eval_thresholds": [1, "x"]}, "eval_thresholds must be a list of numbers"),
        ({"model": 3}, "model must be an object"),
        ({"ema_decay": None}, "ema_decay must be a number"),
        ("[1]", "must be a JSON object"),
        ("{", ".json: "),
        ("\xff", ".json: "),
        (
            {"model": {**MODEL, "hiden_size": 16}},
            "model.hiden_size is not a field of ErnieRnaConfig",
        ),
        ({"model": {**MODEL, "pair_blocks": 0}}, "pair_blocks must be a positive integer"),
        ({"training": {**TRAINING, "lerning_rate": 1}}, "lerning_rate"),
        ({"training": {**TRAINING, "num_train_epochs": 3}}, "num_train_epochs is always 1: leave"),
        ({"training": {**TRAINING, "max_steps": 0}}, "max_steps must be a whole number of at le"),
        ({"training": {"seed": 0}}, "training.max_steps must be a whole number"),
        ({"training": {**TRAINING, "lr_scheduler_type": "sideways"}}, "sideways"),
    ],
)
def test_invalid_settings_are_refused(config, table, tmp_path, refused, changes, message):
    path = config(**changes) if isinstance(changes, dict) else config()
    if isinstance(changes, str):
        path.write_text(changes, encoding="latin-1")
    refused(message, path, table, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_included_configurations_are_valid(name, tmp_path):
    path = find_config(name)
    settings = read_settings(path)
    training = {**settings.training, "bf16": False}  # which needs a GPU
    small_model = {**settings.model, "num_hidden_layers": 1, "intermediate_size": 8}
    small = Settings(model=small_model, training=training)
    assert training_arguments(small, tmp_path).max_steps == training["max_steps"]
    assert new_model(small).config.hidden_size == small_model["hidden_size"]
    assert json.loads(path.read_text())["_about"]
    assert settings.has_structures == (name != "paper")
    assert find_config(str(tmp_path)) == tmp_path
