"""Options of fine-tuning: invalid values and combinations, and how values are converted."""

import json

import numpy as np
import pytest

from ernie_rna.options import OptionError
from ernie_rna.training.options import TASKS, FinetuneOptions
from ernie_rna.training.tasks import TASKS as CLASSES


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": None}, "task must be given: classification, multi-label"),
        ({"warmup": 2}, "warmup must be a number from 0 to 1; got 2"),
        ({"epochs": 0.0}, "epochs must be a number above 0"),
        ({"epochs": 1e300}, "epochs must be a number above 0 and of at most 1000000"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number above 0"),
        ({"lora": 4, "frozen": True}, "lora 4 and --frozen exclude each other"),
        ({"label_column": ["x", "x"]}, "label_column has 'x' twice"),
        ({"eval_split": "test"}, "eval_split needs --split-column"),
        ({"eval_split": ["x", "train"], "split_column": "s"}, "'train' is the split to train on"),
        ({"patience": 2}, "patience needs --best"),
        ({"best": "mcc"}, "best needs rows to evaluate on"),
        ({"eval_steps": 5}, "eval_steps needs rows to evaluate on"),
        ({"positive_weight": 2.0}, "positive_weight applies to structure; the task is classi"),
        ({"ignore_label": "."}, "ignore_label applies to token-classification"),
        ({"task": "regression", "class_weights": "balanced"}, "class_weights applies to classif"),
        ({"held_out": 0.95}, "held_out must be a number above 0 and of at most 0.9"),
        ({"folds": 3, "best": "mcc"}, "best excludes --folds: a state chosen by the rows"),
        ({"trainer": "optim"}, "trainer must be NAME=VALUE; got 'optim'"),
        ({"trainer": ["optim=sgd", "optim=adafactor"]}, "trainer has optim twice"),
        (
            {"trainer": "hub_token=secret"},
            "trainer cannot set hub_token: OUT would record a secret",
        ),
        (
            {"trainer": {"push-to-hub-token": "x"}},
            "`hf auth login` stores a token, and `ernie-rna p",
        ),
        (
            {"trainer": {"deepspeed": {"comet": {"api_key": "x"}}}},
            "cannot set deepspeed: OUT would",
        ),
        (
            {"trainer": {"include_for_metrics": {"inputs"}}},
            "include_for_metrics must be a number, ",
        ),
        ({"trainer": {"accelerator_config": object()}}, "list or dictionary of these; got object"),
        ({"trainer": {"optim_args": np.ones(2)}}, "trainer optim_args must be a number, text"),
        ({"trainer": None}, "trainer must be one or several texts; got None"),
        ({"train_split": "test"}, "train_split needs --split-column"),
        ({"split": ""}, "split must be non-empty text"),
        ({"held_out": 0.3}, "held_out needs --split without --folds: it is the share"),
        ({"held_out": 0.3, "split": "random", "folds": 2}, "needs --split without --folds"),
        ({"label_separator": ","}, "label_separator applies to multi-label; the task is c"),
        ({"task": "masked-lm", "label_column": "x"}, "label_column applies to classification, "),
        ({"mask_pairing": "pretraining"}, "mask_pairing applies to masked-lm; the task is class"),
    ],
)
def test_invalid_options(values, message):
    with pytest.raises(OptionError) as error:
        FinetuneOptions(**{"task": "classification", **values})
    assert message in str(error.value)


def test_values_are_converted_and_every_task_has_a_class():
    trainer = ["optim=sgd", "run_name=a=b"]
    options = FinetuneOptions(task="regression", label_column="mrl", trainer=trainer)
    assert options.label_columns == ("mrl",)
    assert options.trainer == {"optim": "sgd", "run_name": "a=b"}
    options = FinetuneOptions(task="regression", trainer={"max_grad_norm": np.float32(2)})
    assert json.dumps(options.trainer) == '{"max_grad_norm": 2.0}'
    assert FinetuneOptions(task="structure").label_columns == ("dot_bracket",)
    assert set(TASKS) == set(CLASSES)
