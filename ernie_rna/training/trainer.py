"""Trains a model by transformers' Trainer: what is trained of it, how, and what stops it."""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import transformers
from accelerate.utils import broadcast_object_list
from tqdm import tqdm
from transformers import (
    EarlyStoppingCallback,
    HfArgumentParser,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from ernie_rna.extras import import_extra
from ernie_rna.model import modeling_ernie_rna
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.heads_ernie_rna import at_least_one
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.options import OptionError
from ernie_rna.run.loading import has_head, read_config, resolve_device, without_report
from ernie_rna.run.progress import is_hidden
from ernie_rna.sequences.fasta import InputError
from ernie_rna.training.metrics import LESS_IS_BETTER, NO_LABEL, Metrics
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.rows import some
from ernie_rna.training.tasks import Example, Task

# What LoRA adapts: every linear map of the layers.
_LORA_MODULES = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


class TrainingError(RuntimeError):
    """A loss, gradient, weight or prediction is not finite; the message says where."""


class Loaded(NamedTuple):
    """What is fine-tuned: a model, in float32, its tokenizer, and whether it had the head."""

    model: Any
    tokenizer: ErnieRnaTokenizer
    kept: bool


class FinetuneTrainer(transformers.Trainer):
    """The Trainer, ended by what is not finite, and measuring as the task does.

    Args:
        loaded: the model, of which only what is to be trained will take gradients.
        task: what the model is trained for.
        train, watched: examples to train on, and to evaluate on while it trains or afterwards.
    """

    def __init__(
        self,
        loaded: Loaded,
        task: Task,
        arguments: TrainingArguments,
        train: Sequence[Example],
        watched: Sequence[Example],
    ):
        self._task, self._watched, self._began = task, list(watched), False
        model, labels = loaded.model, [example.get("labels") for example in train]
        collator = _Collator(task.collator(loaded.tokenizer, model.config), arguments.seed)
        if not loaded.kept:
            task.start_head(model, labels)
        if task.options.class_weights:
            _weigh_classes(model, labels, len(task.names))
        shortest = min(train, key=lambda example: len(example["input_ids"]))
        adapted = _choose_weights(model, task, collator([shortest]))
        trained = [weight.numel() for weight in model.parameters() if weight.requires_grad]
        self.weights_trained = sum(trained)
        transformers.set_seed(arguments.seed)
        super().__init__(
            model=adapted,
            args=arguments,
            data_collator=collator,
            train_dataset=[{**example, "of_training": True} for example in train],
            eval_dataset=self._watched,
            preprocess_logits_for_metrics=partial(_reduce, task),
        )
        self.remove_callback(transformers.PrinterCallback)
        show = task.options.progress if self.is_world_process_zero() else False
        self.progress = Progress(show, collator)
        self.add_callback(self.progress)
        if task.options.patience is not None:
            self.add_callback(EarlyStoppingCallback(task.options.patience))

    def fit(self) -> None:
        """Train, or resume; the model is then of its own class, without LoRA's updates."""
        path, ended = _newest_checkpoint(Path(str(self.args.output_dir)), self.args.world_size)
        if path is not None and ended:  # The Trainer would train for another step.
            self.state = TrainerState.load_from_json(f"{path}/trainer_state.json")
            best = self.args.load_best_model_at_end and self.state.best_model_checkpoint
            self._load_from_checkpoint(best or path)
        else:
            self._train(path)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is None:
            metric = self.args.metric_for_best_model
            warnings.warn(
                f"{metric} was NaN in every evaluation: the last state is saved", stacklevel=2
            )
        model: Any = self.accelerator.unwrap_model(self.model)
        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        self.model = self.model_wrapped = model
        bad = [name for name, weight in model.state_dict().items() if not weight.isfinite().all()]
        if bad:
            raise TrainingError(f"weights are not finite after training, among them {bad[0]}")

    def time_steps(self, seconds: float) -> list[float]:
        """How long each of a few steps takes; the longest rows are trained on as well, for the
        memory that they need."""
        self.progress.seconds = seconds
        self._train()
        size = self.args.per_device_train_batch_size
        dataset: Any = self.train_dataset
        longest = sorted(dataset, key=lambda example: -len(example["input_ids"]))[:size]
        self.training_step(self.model_wrapped, self.data_collator(longest))
        return self.progress.steps

    def _train(self, path: str | None = None) -> None:
        try:
            # What keeps an example from being measured shall not cost a training.
            self.score(self._watched[:1])
            self.train(resume_from_checkpoint=path)
        except Exception as error:
            if self._began or not self._task.options.trainer or isinstance(error, TrainingError):
                raise
            raise OptionError("trainer", f"breaks the training: {error}") from error

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
        self._began, lines = True, inputs.pop("lines")
        loss = super().training_step(model, inputs, *rest, **more)
        self._check("loss", loss, lines)
        if not self.args.fp16:  # whose gradients may overflow; the step is then left out
            weights = [weight for weight in model.parameters() if weight.grad is not None]
            self._check("gradient", torch.nn.utils.clip_grad_norm_(weights, math.inf), lines)
        return loss

    def _check(self, what: str, value: torch.Tensor, lines: torch.Tensor) -> None:
        if not value.isfinite():
            named = ", ".join(map(str, lines.tolist()))
            raise TrainingError(
                f"the {what} became {value.item()} in step {self.state.global_step + 1}, of the "
                f"training rows in lines {named}: nothing was saved; look at their labels, or "
                f"lower --learning-rate ({self.args.learning_rate:g})"
            )

    def compute_loss(self, model: Any, *rest: Any, **more: Any) -> Any:
        if self._task.options.frozen:  # Its dropout would be noise that the head cannot learn from.
            self.accelerator.unwrap_model(model).ernie_rna.eval()
        return super().compute_loss(model, *rest, **more)

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Matrices and convolutions; transformers would decay some of our norms."""
        return [name for name, weight in model.named_parameters() if weight.ndim > 1]

    def score(self, examples: Sequence[Example]) -> Metrics:
        """The task's metrics, in every process; the seed fixes which bases are masked."""
        if not examples:
            return {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.args.seed)
            metrics = [self._task.evaluate(self, examples)]
        return dict(broadcast_object_list(metrics)[0])

    def evaluate(self, *rest: Any, **more: Any) -> dict[str, float]:
        """What the Trainer calls every so many steps."""
        metrics = {f"eval_{name}": value for name, value in self.score(self._watched).items()}
        self.log(metrics)
        callbacks = self.callback_handler
        self.control = callbacks.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class Progress(TrainerCallback):
    """Shows steps and loss, a bar on a terminal, else ten lines; times the steps, and has the
    collator know the epoch.

    Args:
        show: None shows a bar on a terminal only; False shows nothing.

    Attributes:
        steps: seconds that each step took.
        seconds: that all may take; the training then ends.
    """

    def __init__(self, show: bool | None, collator: _Collator):
        self._show, self._collator = show, collator
        self.steps: list[float] = []
        self.seconds = math.inf

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        total, done, hidden = state.max_steps, state.global_step, is_hidden(self._show)
        self._bar: Any = tqdm(total=total, initial=done, unit="step", disable=hidden)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._collator.epoch = int(state.epoch or 0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._begin = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._bar.update()
        self.steps.append(time.monotonic() - self._begin)
        control.should_training_stop |= sum(self.steps) > self.seconds

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        shown = [name for name in logs if name == "loss" or name.startswith("eval_")]
        text = ", ".join(f"{name.removeprefix('eval_')} {logs[name]:.4f}" for name in shown)
        tenth = state.global_step % max(1, state.max_steps // 10) == 0
        if not self._bar.disable:
            self._bar.set_postfix_str(text)
        elif text and self._show is None and (tenth or "loss" not in shown):
            print(f"step {state.global_step} of {state.max_steps}: {text}", file=sys.stderr)

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._bar.close()


def _newest_checkpoint(folder: Path, processes: int) -> tuple[str | None, bool]:
    """The newest state of training that is whole: with that of each process's random numbers, and
    the Trainer's own, which is written last; and whether training had ended with it."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name[11:])):
        if len([*path.glob("rng_state*.pth")]) < processes:
            continue
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        control = state["stateful_callbacks"]["TrainerControl"]
        return str(path), control["args"]["should_training_stop"]
    return None, False


class _Collator:
    """Makes batches; of rows to train on, with their lines, and with what is drawn depending on
    seed, epoch and lines alone, so that it is the same where a run is resumed."""

    def __init__(self, collator: Any, seed: int):
        self._collator, self._seed, self.epoch = collator, seed, 0

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        taken = ("input_ids", "labels")
        rows = [{name: one[name] for name in taken if name in one} for one in examples]
        if "of_training" not in examples[0]:
            return dict(self._collator(rows))
        lines = [example["line"] for example in examples]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(f"{self._seed} {self.epoch} {lines}".encode()))
            return {**self._collator(rows), "lines": torch.tensor(lines)}


def _reduce(task: Task, logits: torch.Tensor, labels: torch.Tensor) -> Any:
    if not logits.isfinite().all():
        raise TrainingError("the model's predictions are not finite (NaN or infinity)")
    return task.reduce(logits, labels)


# ---------------------------------------------------------------------------------------------
# What is trained


def load(task: Task, source: str) -> Loaded:
    """The model with the task's head.

    Raises:
        InputError: it lacks weights that are not the head's, or its head is of other labels.
        OSError: there is no such folder.
    """
    options, revision = task.options, task.options.revision or "main"
    transformers.set_seed(options.seed)  # of the weights of a new head
    before = read_config(source, revision)
    known = list((before.id2label or {}).values())
    kept = has_head(source, before, task.model_name, *task.also_in)
    named = known != [f"LABEL_{index}" for index in range(len(known))]
    if kept and task.names and (len(known) != len(task.names) or (named and known != task.names)):
        raise InputError(
            f"{source}: its head has other labels: {some(known)}; the table has "
            f"{some(task.names)}: start from a model without such a head"
        )
    # A line that was fitted to another head's logits says nothing about this one's.
    fitted = ("pair_calibration", "pair_prior", "pair_prior_calibration")
    changes = {**dict.fromkeys(fitted), **task.config(before, kept)}
    config = ErnieRnaConfig.from_dict({**before.to_dict(), **changes})
    # The class is our own, so that no code of the folder is run.
    from_pretrained = getattr(modeling_ernie_rna, task.model_name).from_pretrained
    more = {"revision": revision, "attn_implementation": options.attention or "sdpa"}
    with without_report():  # That a new head is new need not be warned of.
        model, info = from_pretrained(source, config=config, output_loading_info=True, **more)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(f"{task.head}."))
    if missing:
        raise InputError(f"{source}: lacks weights of an ERNIE-RNA: {some(missing)}")
    if config.weights_origin == "random":
        warnings.warn(
            f"{source} has random, untrained weights: fine-tuning starts from nothing",
            stacklevel=2,
        )
    tokenizer = ErnieRnaTokenizer.from_pretrained(source, revision=revision)
    return Loaded(model.float(), tokenizer, kept)


def _choose_weights(model: Any, task: Task, batch: dict[str, torch.Tensor]) -> Any:
    """The model, of which only what is to be trained takes gradients; with LoRA another one.

    Args:
        batch: on which is seen what the loss depends on: of structures, nothing of the last layer
            behind its scores. Several processes would wait for such gradients.
    """
    options = task.options
    if options.frozen:
        model.ernie_rna.requires_grad_(False)
    if options.lora is not None:
        peft = import_extra("peft", "train", "LoRA")
        config = peft.LoraConfig(
            r=options.lora,
            lora_alpha=2 * options.lora,
            target_modules=_LORA_MODULES,
            modules_to_save=list(task.adapted),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft's, of transformers' names
            model = peft.get_peft_model(model, config)
    model.eval()  # so that batch norms stay as they are
    model(**batch).loss.backward()
    for weight in model.parameters():
        weight.requires_grad_(weight.requires_grad and weight.grad is not None)
        weight.grad = None
    return model


def _weigh_classes(model: Any, labels: Sequence[Any], count: int) -> None:
    """Have the loss of a model weight classes so that each has the same weight in all."""
    flat = torch.cat([torch.as_tensor(label).flatten() for label in labels])
    counts = torch.bincount(flat[flat != NO_LABEL], minlength=count).float()
    weights = counts.sum() / (count * counts)

    def loss(logits: torch.Tensor, labels: torch.Tensor, num_items: Any) -> torch.Tensor:
        own = weights.to(logits.device)
        total = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), own, reduction="sum")
        return total / at_least_one((labels != NO_LABEL).sum() if num_items is None else num_items)

    model._loss = loss


# ---------------------------------------------------------------------------------------------
# How

# Fields that pass over the loss of the model, or the predictions that are measured, or what is
# done beside the Trainer by finetune itself.
_UNFIT = (
    *("label_smoothing_factor", "label_names", "prediction_loss_only", "batch_eval_metrics"),
    *("eval_do_concat_batches", "dataloader_drop_last", "bf16_full_eval", "fp16_full_eval"),
    *("push_to_hub", "resume_from_checkpoint", "save_only_model", "do_train", "do_eval"),
    *("num_train_epochs", "warmup_ratio"),
)


def schedule(options: FinetuneOptions, examples: int) -> tuple[int, int]:
    """The optimizer steps of a training, and those between evaluations or saved states."""
    batches = -(-examples // (options.batch_size * options.accumulate))
    steps = options.steps or max(1, round(options.epochs * batches))
    every = options.eval_steps or max(1, steps // 10)
    if every > steps:
        raise OptionError("eval_steps", f"{every} is more than the {steps} steps of the training")
    return steps, every


def make_arguments(options: FinetuneOptions, folder: Path, examples: int) -> TrainingArguments:
    """The Trainer's arguments.

    Raises:
        OptionError: `trainer` has a field or value that cannot be, or there is no such device.
    """
    steps, every = schedule(options, examples)
    kind_of_device = (options.device or "auto").partition(":")[0]
    no_gpu = kind_of_device == "auto" and resolve_device(None).type == "cpu"
    # Newer transformers warn of the old name.
    names = ("activation_checkpointing", "gradient_checkpointing")
    checkpointing = next(name for name in names if hasattr(TrainingArguments, name))
    decided: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": options.batch_size,
        "gradient_accumulation_steps": options.accumulate,
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "warmup_steps": round(options.warmup * steps),
        "bf16": options.dtype == "bfloat16",
        "fp16": options.dtype == "float16",
        "use_cpu": kind_of_device == "cpu" or no_gpu,
        "seed": options.seed,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if options.watches else "no",
        "eval_steps": every,
        "save_strategy": "steps" if options.resume or options.best else "no",
        "save_steps": every,
        "load_best_model_at_end": options.best is not None,
        "metric_for_best_model": options.best,
        "greater_is_better": options.best not in LESS_IS_BETTER,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,
        "restore_callback_states_from_checkpoint": options.patience is not None,
        checkpointing: options.gradient_checkpointing,
    }
    usual = {
        "per_device_eval_batch_size": options.batch_size,
        "logging_steps": max(1, steps // 100),
        "save_total_limit": 1,
        "report_to": [],
        "dataloader_pin_memory": kind_of_device != "cpu" and torch.cuda.is_available(),
    }
    kind: Any = TrainingArguments
    given: Any = options.trainer  # a dictionary by now
    parser, others = _Parser(kind, allow_abbrev=False), {}
    for spelling, value in given.items():
        name = spelling.replace("-", "_")  # The parser knows both.
        if name in {*decided, *names, *_UNFIT}:
            problem = f"cannot set {name}: other options of finetune set it, or rule it out"
            raise OptionError("trainer", problem)
        if isinstance(value, str):
            value = getattr(parser.parse_args([f"--{name}={value}"]), name)
        others[name] = value
    try:
        arguments = TrainingArguments(**{**usual, **others, **decided})
        device = arguments.device
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        name = "trainer" if others else "dtype" if options.dtype else "device"
        raise OptionError(name, f"is refused by transformers: {error}") from error
    is_cpu = kind_of_device == device.type == "cpu"  # whatever its number
    if not is_cpu and (options.device or "auto") not in ("auto", device.type, str(device)):
        raise OptionError(
            "device",
            f"{options.device} cannot be chosen: the Trainer uses {device}; cpu keeps it off a "
            "GPU, and CUDA_VISIBLE_DEVICES=1 chooses one of several",
        )
    if options.dtype == "float16" and device.type == "cpu":
        raise OptionError(
            "dtype",
            "float16 needs a GPU: small gradients become 0 in it unless the loss is scaled, which "
            "torch does on GPUs; bfloat16 and float32 train on a CPU",
        )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # One process trains on one; torchrun on several.
    return arguments


class _Parser(HfArgumentParser):
    """Raises where it would end the program."""

    def error(self, message: str) -> Any:
        raise OptionError("trainer", message.removeprefix("argument --"))
