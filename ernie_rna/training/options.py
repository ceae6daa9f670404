"""The options of fine-tuning. This module does not import torch."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

from ernie_rna.options import (
    MASK_PAIRINGS,
    InputOptions,
    ModelOptions,
    OptionError,
    OutputOptions,
    TableOptions,
    number,
    option,
    own_share,
    some_text,
    whole,
)

TASKS = (
    *("classification", "multi-label", "regression", "token-classification"),
    *("masked-lm", "structure", "ribosome-loading"),
)
_CLASSES = ("classification", "token-classification")
# The tasks to which an option applies, if not to all.
_APPLIES_TO = {
    "positive_weight": ("structure",),
    "class_weights": _CLASSES,
    "ignore_label": ("token-classification",),
    "label_separator": ("multi-label",),
    "label_column": tuple(task for task in TASKS if task != "masked-lm"),
    "mask_pairing": ("masked-lm",),
    "mask_probability": ("masked-lm",),
}

# Fields of TrainingArguments about uploads, among them tokens; names differ between versions.
_HUB = re.compile(r"(push_to_)?hub_")
_KEY = re.compile(r"api_key\W*[:=]")  # in values that are dictionaries
_INPUT, _TABLE = "input", "table"
_SPLITS, _TRAINING = "splits and evaluation", "training"

_choice = partial(option, group=_TRAINING, recorded=True)
_count = partial(_choice, check=whole(1))
_flag = partial(_choice, False)
_names = partial(option, (), group=_SPLITS)


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(ModelOptions, InputOptions, TableOptions, OutputOptions):
    """Options of `training.finetune`."""

    task: str | None = _choice(
        None, "kind of labels; required", choices=TASKS, metavar="TASK", group=None
    )
    resume: bool = option(
        False,
        "keep the training state in OUT.partial and resume from it: after an interruption, the "
        "same command leads to the same weights",
    )
    dtype: str | None = _choice(
        None,
        "dtype of the computation (autocast); weights stay in float32, the default; float16 needs "
        "a GPU",
        choices=("float32", "bfloat16", "float16"),
        group="computation",
    )

    label_column: Sequence[str] = _names(
        "column with the label; defaults to label, or dot_bracket for structure; give several "
        "columns for several numbers (regression) or several labels, 0 or 1 each (multi-label)",
        group=_TABLE,
    )
    max_length: int | None = _count(
        None,
        "longest sequence, in nucleotides; defaults to the length the model was trained on",
        group=_INPUT,
    )
    truncate: bool = option(False, "cut longer sequences at --max-length", group=_INPUT)

    eval_file: Sequence[str | PathLike[str]] = _names(
        "file to evaluate on; its name is the name of the split", metavar="FILE"
    )
    split_column: str | None = option(None, "column with the split of each row", group=_SPLITS)
    train_split: str = option("train", "value of --split-column for training", group=_SPLITS)
    eval_split: Sequence[str] = _names("value of --split-column for evaluation")
    split: str | None = option(
        None,
        "hold out some training rows for evaluation: random; similar, whole clusters of sequences "
        "(by MMseqs2 or cd-hit-est if installed, else by k-mers); or all rows with some values of "
        "a COLUMN such as family; copies of a sequence always stay on one side",
        check=some_text,
        metavar="random|similar|COLUMN",
        group=_SPLITS,
        recorded=True,
    )
    held_out: float = _choice(
        0.2,
        "share of the rows that --split holds out",
        check=number(above=0, high=0.9),
        group=_SPLITS,
    )
    folds: int | None = _count(
        None,
        "N-fold cross-validation, with folds made by --split (random without it); the saved model "
        "is then trained on all rows",
        check=whole(2, 10**6),  # The shares of the rows are stored in a list.
        group=_SPLITS,
    )
    baseline: str = option(
        "kmer",
        "kmer also prints the metrics of a regression on k-mer counts, for labels of sequences",
        choices=("kmer", "none"),
        group=_SPLITS,
    )

    steps: int | None = _count(None, "optimizer steps; replaces --epochs")
    epochs: float = _choice(3.0, "passes over the training rows", check=number(above=0, high=1e6))
    batch_size: int = _count(16, "sequences in a batch")
    accumulate: int = _count(1, "batches in an optimizer step")
    learning_rate: float = _choice(1e-4, "peak learning rate", check=number(above=0))
    weight_decay: float = _choice(
        0.01, "weight decay of matrices; norms have none", check=number(0)
    )
    warmup: float = _choice(
        0.1, "share of the steps in which the learning rate rises", check=number(0, 1)
    )
    frozen: bool = _flag("train only the head; the encoder is frozen")
    lora: int | None = _count(
        None,
        "LoRA: train the head and updates of this rank to the encoder, merged at the end (peft)",
    )
    class_weights: str | None = _choice(
        None, "balanced: every class has the same total weight in the loss", choices=("balanced",)
    )
    positive_weight: float | None = _choice(
        None,
        "weight of a pair in the loss (structure); defaults to the model's",
        check=number(above=0),
    )
    mask_pairing: str = _choice(
        "inference",
        "pairing scores of masked positions (masked-lm): inference is 0; pretraining is -1 on "
        "their rows and columns, as in the authors' pretraining",
        choices=MASK_PAIRINGS,
    )
    mask_probability: float = _choice(
        0.15, "share of the nucleotides to predict (masked-lm)", check=number(above=0, high=1)
    )
    gradient_checkpointing: bool = _flag(
        "recompute layers in the backward pass to save memory", recorded=False
    )
    seed: int = _count(
        0,
        "seed of new weights, the order of rows, dropout, masks and held-out rows",
        check=whole(0, 2**32 - 1),
    )
    eval_steps: int | None = _count(
        None, "steps between evaluations on the first split; with --best, a tenth of all by default"
    )
    best: str | None = _choice(None, "metric by which the best state is chosen and saved")
    patience: int | None = _count(None, "stop when --best has not improved for N evaluations")
    trainer: Mapping[str, Any] | Sequence[str] = _names(
        "any other field of transformers' TrainingArguments, such as lr_scheduler_type=cosine, "
        "optim=adafactor or report_to=tensorboard",
        metavar="NAME=VALUE",
        group=_TRAINING,
        recorded=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "trainer", _parse_fields(self.trainer))
        self._check_task()
        for name, is_broken, problem in self._rules():
            if is_broken:
                raise OptionError(name, problem)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns with labels: those that are set, or the default of the task."""
        return tuple(self.label_column) or ("dot_bracket" if self.task == "structure" else "label",)

    @property
    def watches(self) -> bool:
        """Whether the model is evaluated during training."""
        return self.eval_steps is not None or self.best is not None

    def _check_task(self) -> None:
        if self.task is None:
            raise OptionError("task", f"must be given: {', '.join(TASKS)}")
        for name, tasks in _APPLIES_TO.items():
            if self.is_given(name) and self.task not in tasks:
                raise OptionError(name, f"applies to {', '.join(tasks)}; the task is {self.task}")
        for name in ("label_column", "eval_split"):
            twice = [value for value, count in Counter(getattr(self, name)).items() if count > 1]
            if twice:
                raise OptionError(name, f"has {twice[0]!r} twice")

    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        """The rules between options: the option at fault, whether the rule is broken, a message."""
        lacks_column = self.split_column is None
        problem = "needs --split-column, the column with the split of each row"
        yield "eval_split", bool(self.eval_split) and lacks_column, problem
        yield "train_split", self.is_given("train_split") and lacks_column, problem
        holds_out = self.split is not None and self.folds is None
        problem = "needs --split without --folds: it is the share of rows held out"
        yield "held_out", self.is_given("held_out") and not holds_out, problem
        problem = f"{self.train_split!r} is the split to train on; name another one"
        yield "eval_split", self.train_split in self.eval_split, problem
        lacks_metric = self.patience is not None and self.best is None
        yield "patience", lacks_metric, "needs --best, the metric to improve"
        cause = "best" if self.best is not None else "eval_steps"
        problem = "excludes --folds: a state chosen by the rows that it is tested on looks too good"
        yield cause, self.watches and self.folds is not None, problem
        has_rows = bool(self.eval_file or self.eval_split or self.split)
        problem = "needs rows to evaluate on: --split, --eval-file or --eval-split"
        yield cause, self.watches and not has_rows, problem
        is_contradiction = self.lora is not None and self.frozen
        yield "lora", is_contradiction, f"{self.lora} and --frozen exclude each other"
        processes = own_share(None).count if self.dry_run else 1
        problem = f"measures one process; this is one of {processes}"
        yield "dry_run", processes > 1, problem


def _parse_fields(trainer: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Names and values of fields, from `NAME=VALUE` or a mapping; the output records them."""
    fields: dict[str, Any] = {}
    pairs = trainer.items() if isinstance(trainer, Mapping) else map(_parse_field, trainer)
    for spelling, value in pairs:
        name = str(spelling).replace("-", "_")  # Both spellings are accepted.
        if name in fields:
            raise OptionError("trainer", f"has {name} twice")
        if _HUB.match(name) or _KEY.search(str(value)):
            raise OptionError(
                "trainer",
                f"cannot set {name}: OUT would record a secret, and no run uploads to the Hub; "
                "`hf auth login` stores a token, and `ernie-rna push` uploads OUT",
            )
        try:  # Enum members and NumPy numbers become plain values.
            plain = value.item() if hasattr(value, "item") else getattr(value, "value", value)
            json.dumps(plain)
        except (TypeError, ValueError) as error:
            kind = type(value).__name__
            problem = f"{name} must be a number, text, or a list or dictionary of these; got {kind}"
            raise OptionError("trainer", problem) from error
        fields[name] = plain
    return fields


def _parse_field(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise OptionError("trainer", f"must be NAME=VALUE; got {word!r}")
    return name, value
