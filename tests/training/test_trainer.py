"""The Trainer: its arguments, dropout and decay, random draws, and values that are not finite."""

import pytest
import torch

from ernie_rna.options import OptionError
from ernie_rna.training import trainer
from ernie_rna.training.collators import MaskingCollator
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.tasks import TASKS


def arguments(tmp_path, **options):
    options = FinetuneOptions(**{"task": "classification", "device": "cpu", **options})
    return trainer.make_arguments(options, tmp_path, 40)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"epochs": 2.0, "batch_size": 8}, {"max_steps": 10}),
        ({"batch_size": 8, "accumulate": 2}, {"max_steps": 9}),
        (
            {"steps": 200, "warmup": 0.5},
            {"max_steps": 200, "warmup_steps": 100, "logging_steps": 2},
        ),
        ({"device": torch.device("cpu", 0)}, {"use_cpu": True}),
        ({"device": None, "dtype": "bfloat16"}, {"use_cpu": not torch.cuda.is_available()}),
        ({"gradient_checkpointing": True}, {"gradient_checkpointing": True}),
        # Values of --trainer are converted to the types of the fields.
        (
            {"trainer": ["max_grad_norm=0.5", "lr_scheduler_type=cosine"]},
            {"max_grad_norm": 0.5, "lr_scheduler_type": "cosine"},
        ),
        ({"trainer": {"max_grad_norm": 2.0}}, {"max_grad_norm": 2.0}),
        ({"trainer": {"max_grad_norm": 2, "tf32": None}}, {"max_grad_norm": 2.0, "tf32": None}),
        ({"trainer": {"save_total_limit": None, "data_seed": None}}, {"data_seed": None}),
        ({"trainer": {"run_name": "api_key_study"}}, {"run_name": "api_key_study"}),
        ({"trainer": ["max-grad-norm=2"]}, {"max_grad_norm": 2.0}),
    ],
)
@pytest.mark.filterwarnings("error::FutureWarning")  # for deprecated names
def test_options_become_arguments(tmp_path, options, expected):
    found = arguments(tmp_path, **options)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("a=b", "trainer has no field 'a' of TrainingArguments$"),
        ("max_grad=3", "has no field 'max_grad' of TrainingArguments; did you mean max_grad_norm?"),
        *((f"{name}=3", f"cannot set {name}: other") for name in ("learning_rate", "warmup_ratio")),
        *((f"{name}=1", f"cannot set {name}: other") for name in trainer._UNSUPPORTED[:6]),
        ("learning-rate=3", "cannot set learning_rate: other"),
        ("gradient_checkpointing=true", "cannot set gradient_checkpointing"),
        ({"trainer": {"max_grad_nrm": 3}}, "'max_grad_nrm' of .*; did you mean max_grad_norm?"),
        *(
            ({"trainer": {"max_grad_norm": value}}, "max_grad_norm.*: invalid float value")
            for value in (None, [1])
        ),
        ("optim=magic", "invalid choice: 'magic'"),
        ("max_grad_norm=much", "invalid float value: 'much'"),
        ("dataloader_prefetch_factor=2", "is refused by transformers: "),
        ({"device": "xla"}, "device xla cannot be chosen: the Trainer uses"),
        ({"dtype": "float16"}, "dtype (float16 needs a GPU: small|is refused by)"),
    ],
)
def test_options_that_the_trainer_refuses(tmp_path, options, message):
    options = {"trainer": [options]} if isinstance(options, str) else options
    with pytest.raises(OptionError, match=message) as error:
        arguments(tmp_path, **options)
    assert error.value.option in options


@pytest.fixture
def make_trainer(model_folder, tmp_path):
    """A function that makes a trainer for one row per label."""

    def make_trainer(*labels, task="classification", **options):
        task = TASKS[task](FinetuneOptions(task=task, device="cpu", **options))
        task.names = ["a", "b"]
        loaded = trainer.load(task, str(model_folder))
        rows = []
        for number, label in enumerate(labels, 1):
            ids = loaded.tokenizer("ACGU" * number)["input_ids"]
            rows.append({**task.encode(ids, label), "line": 2})
        arguments = trainer.make_arguments(task.options, tmp_path / "state", len(rows))
        return trainer.FinetuneTrainer(loaded, task, arguments, rows, [])

    return make_trainer


def test_norms_and_biases_do_not_decay(make_trainer):
    finetuner = make_trainer(1.0, 2.0, task="ribosome-loading")
    decayed = finetuner.get_decay_parameter_names(finetuner.model)
    assert "loading_head.conv_in.weight" in decayed
    assert not [name for name in decayed if "norm" in name or name.endswith("bias")]


def test_a_frozen_encoder_has_no_dropout(make_trainer):
    finetuner = make_trainer(0, 1, frozen=True, steps=1)
    finetuner.train()
    assert not any(module.training for module in finetuner.model.ernie_rna.modules())
    assert finetuner.model.classifier.training


def test_masks_depend_on_seed_epoch_and_line(tokenizer, config, make_trainer):
    def draw(seed=0, epoch=0, line=2):
        collator = trainer._Collator(MaskingCollator(tokenizer, config, probability=0.5), seed)
        collator.epoch = epoch
        example = {"input_ids": tokenizer("ACGU" * 20)["input_ids"], "line": line}
        return collator([{**example, "of_training": True}])["input_ids"].tolist()

    assert draw() == draw()
    assert all(draw() != draw(**{name: 7}) for name in ("seed", "epoch", "line"))
    finetuner = make_trainer(0, 1, epochs=2.0)
    finetuner.fit()
    assert finetuner.data_collator.epoch == 1


def test_timing_ends_after_the_given_seconds(make_trainer):
    assert len(make_trainer(0, 1, steps=3).time_steps(seconds=0)) == 1


def test_rare_classes_weigh_more(make_trainer):
    labels = [0, 0, 0, 1]
    model = make_trainer(*labels, class_weights="balanced").model
    logits = torch.randn(4, 2)
    plain = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="none")
    expected = (plain * torch.tensor([2 / 3, 2 / 3, 2 / 3, 2])).sum() / 4
    assert model._loss(logits, torch.tensor(labels), None) == pytest.approx(expected.item())


def test_values_that_are_not_finite_are_neither_reduced_nor_saved(make_trainer):
    class SetWeightToInfinity(trainer.TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **rest):
            model.classifier.weight.data[0, 0] = float("inf")

    finetuner = make_trainer(0, 1, steps=1)
    with pytest.raises(trainer.TrainingError, match="predictions are not finite"):
        trainer._reduce(finetuner._task, torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]))
    finetuner.add_callback(SetWeightToInfinity())
    with pytest.raises(trainer.TrainingError, match=r"not finite .* among them classifier\.weight"):
        finetuner.fit()
