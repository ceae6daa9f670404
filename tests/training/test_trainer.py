"""The Trainer's arguments, what is trained, and what ends a training."""

import pytest
import torch

from ernie_rna.options import OptionError
from ernie_rna.training import trainer
from ernie_rna.training.collators import MaskingCollator
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.tasks import TASKS


def arguments(tmp_path, **given):
    options = FinetuneOptions(**{"task": "classification", "device": "cpu", **given})
    return trainer.make_arguments(options, tmp_path, 40)


@pytest.mark.parametrize(
    ("given", "made"),
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
        # Other fields have their types.
        (
            {"trainer": ["max_grad_norm=0.5", "lr_scheduler_type=cosine"]},
            {"max_grad_norm": 0.5, "lr_scheduler_type": "cosine"},
        ),
        ({"trainer": {"max_grad_norm": 2.0}}, {"max_grad_norm": 2.0}),
        ({"trainer": {"max_grad_norm": 2, "tf32": None}}, {"max_grad_norm": 2.0, "tf32": None}),
        ({"trainer": ["max-grad-norm=2"]}, {"max_grad_norm": 2.0}),
    ],
)
@pytest.mark.filterwarnings("error::FutureWarning")  # of a name that is deprecated
def test_arguments(tmp_path, given, made):
    found = arguments(tmp_path, **given)
    assert {name: getattr(found, name) for name in made} == made


@pytest.mark.parametrize(
    ("given", "message"),
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
def test_what_the_trainer_cannot_do(tmp_path, given, message):
    given = {"trainer": [given]} if isinstance(given, str) else given
    with pytest.raises(OptionError, match=message) as error:
        arguments(tmp_path, **given)
    assert error.value.option in given


@pytest.fixture
def made(model_folder, tmp_path):
    """A function that makes a trainer of some rows by their labels."""

    def made(*labels, task="classification", **options):
        task = TASKS[task](FinetuneOptions(task=task, device="cpu", **options))
        task.names = ["a", "b"]
        loaded = trainer.load(task, str(model_folder))
        ids = [loaded.tokenizer("ACGU" * (row + 1))["input_ids"] for row in range(len(labels))]
        rows = [{**task.encode(*own), "line": 2} for own in zip(ids, labels, strict=True)]
        how = trainer.make_arguments(task.options, tmp_path / "state", len(rows))
        return trainer.FinetuneTrainer(loaded, task, how, rows, [])

    return made


def test_norms_and_biases_do_not_decay(made):
    own = made(1.0, 2.0, task="ribosome-loading")
    decayed = own.get_decay_parameter_names(own.model)
    assert "loading_head.conv_in.weight" in decayed
    assert not [name for name in decayed if "norm" in name or name.endswith("bias")]


def test_a_frozen_encoder_has_no_dropout(made):
    own = made(0, 1, frozen=True, steps=1)
    own.train()
    assert not any(module.training for module in own.model.ernie_rna.modules())
    assert own.model.classifier.training


def test_draws_depend_on_seed_epoch_and_lines_and_time_ends_a_training(tokenizer, config, made):
    def drawn(seed=0, epoch=0, line=2):
        collator = trainer._Collator(MaskingCollator(tokenizer, config, probability=0.5), seed)
        collator.epoch = epoch
        example = {"input_ids": tokenizer("ACGU" * 20)["input_ids"], "line": line}
        return collator([{**example, "of_training": True}])["input_ids"].tolist()

    assert drawn() == drawn()
    assert all(drawn() != drawn(**{name: 7}) for name in ("seed", "epoch", "line"))
    own = made(0, 1, epochs=2.0)
    own.fit()
    assert own.data_collator.epoch == 1
    assert len(made(0, 1, steps=3).time_steps(seconds=0)) == 1


def test_rare_classes_weigh_more(made):
    labels = [0, 0, 0, 1]
    model = made(*labels, class_weights="balanced").model
    logits = torch.randn(4, 2)
    plain = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="none")
    expected = (plain * torch.tensor([2 / 3, 2 / 3, 2 / 3, 2])).sum() / 4
    assert model._loss(logits, torch.tensor(labels), None) == pytest.approx(expected.item())


def test_what_is_not_finite_is_not_saved_and_no_class(made):
    class Poison(trainer.TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **rest):
            model.classifier.weight.data[0, 0] = float("inf")

    own = made(0, 1, steps=1)
    with pytest.raises(trainer.TrainingError, match="predictions are not finite"):
        trainer._reduce(own._task, torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]))
    own.add_callback(Poison())
    with pytest.raises(trainer.TrainingError, match=r"not finite .* among them classifier\.weight"):
        own.fit()
