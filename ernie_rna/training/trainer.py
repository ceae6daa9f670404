"""Training of a model by transformers' Trainer: the weights to train, settings, failures."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import math
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import transformers
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
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
from ernie_rna.run.outputs import OutputError
from ernie_rna.run.progress import is_hidden
from ernie_rna.sequences.fasta import InputError, some
from ernie_rna.training.metrics import LESS_IS_BETTER, NO_LABEL, Metrics
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.tasks import Example, Task

# The modules that LoRA adapts: every linear map of the layers.
_LORA_MODULES = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
# The classes whose heads have the same names of weights, but mean something else.
_SAME_HEAD = {
    "classifier": ("ErnieRnaForSequenceClassification", "ErnieRnaForTokenClassification"),
    "pair_head": ("ErnieRnaForCloseness",),
}


class TrainingError(RuntimeError):
    """A loss, gradient, weight or prediction is not finite; the message names it."""


class Loaded(NamedTuple):
    """A model to fine-tune, in float32, its tokenizer, and whether the folder had the head."""

    model: Any
    tokenizer: ErnieRnaTokenizer
    kept: bool


class FinetuneTrainer(transformers.Trainer):
    """A Trainer that stops at values that are not finite, and measures the metrics of the task.

    Args:
        loaded: the model; weights that are not trained will no longer require gradients.
        task: the task to train for.
        train, watched: examples to train on, and to evaluate on while it trains.
    """

    def __init__(
        self,
        loaded: Loaded,
        task: Task,
        arguments: TrainingArguments,
        train: Sequence[Example],
        watched: Sequence[Example],
    ):
        self._task, self._watched, self._has_begun = task, list(watched), False
        model, labels = loaded.model, [example.get("labels") for example in train]
        collator = _Collator(task.collator(loaded.tokenizer, model.config), arguments.seed)
        if not loaded.kept:
            task.start_head(model, labels)
        if task.options.class_weights:
            _weigh_classes(model, labels, len(task.names))
        shortest = min(train, key=lambda example: len(example["input_ids"]))
        adapted = _choose_weights(model, task, collator([shortest]))
        self.weights_trained = sum(w.numel() for w in model.parameters() if w.requires_grad)
        transformers.set_seed(arguments.seed)
        with self._fields_blamed():
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
        """Train, or resume; `model` is then the plain model, with LoRA's updates merged into it."""
        path, has_ended = _newest_checkpoint(Path(str(self.args.output_dir)), self.args.world_size)
        if path is not None and has_ended:  # The Trainer would train for another step.
            self.state = TrainerState.load_from_json(f"{path}/trainer_state.json")
            best = self.args.load_best_model_at_end and self.state.best_model_checkpoint
            self._load_from_checkpoint(best or path)
        else:
            self._train(path)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is None:
            metric = self.args.metric_for_best_model
            message = f"{metric} was NaN in every evaluation: the last state is used"
            warnings.warn(message, stacklevel=2)
        model: Any = self.accelerator.unwrap_model(self.model)
        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        self.model = self.model_wrapped = model
        for name, weight in model.state_dict().items():
            if not weight.isfinite().all():
                raise TrainingError(f"weights are not finite after training, among them {name}")

    def time_steps(self, seconds: float) -> list[float]:
        """Train for about so many seconds and return the seconds of each step. A last step takes
        the longest rows, so that the memory in use reaches its peak."""
        self.progress.seconds = seconds
        self._train()
        size = self.args.per_device_train_batch_size
        dataset: Any = self.train_dataset
        longest = sorted(dataset, key=lambda example: -len(example["input_ids"]))[:size]
        self.training_step(self.model_wrapped, self.data_collator(longest))
        return self.progress.steps

    def _train(self, path: str | None = None) -> None:
        with self._fields_blamed():
            # An evaluation that fails must not do so only after hours of training.
            self.score(self._watched[:1])
            self.train(resume_from_checkpoint=path)

    @contextlib.contextmanager
    def _fields_blamed(self) -> Iterator[None]:
        """Name the option `trainer` in errors before the first step, if it is given."""
        try:
            yield
        except Exception as error:
            has_fields = bool(self._task.options.trainer)  # the likely cause
            if self._has_begun or not has_fields or isinstance(error, TrainingError):
                raise
            raise OptionError("trainer", f"breaks the training: {error}") from error

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
        self._has_begun, lines = True, inputs.pop("lines")
        loss = super().training_step(model, inputs, *rest, **more)
        self._check("loss", loss, lines)
        if not self.args.fp16:  # In float16 gradients may overflow; torch then skips the step.
            weights = [weight for weight in model.parameters() if weight.grad is not None]
            self._check("gradient", torch.nn.utils.clip_grad_norm_(weights, math.inf), lines)
        return loss

    def _check(self, name: str, value: torch.Tensor, lines: torch.Tensor) -> None:
        """Raise TrainingError, with the lines of the batch, if the value is not finite."""
        if not value.isfinite():
            numbers = ", ".join(map(str, lines.tolist()))
            raise TrainingError(
                f"the {name} became {value.item()} in step {self.state.global_step + 1}, on the "
                f"training rows in lines {numbers}: nothing was saved; check their labels, or "
                f"lower --learning-rate ({self.args.learning_rate:g})"
            )

    def compute_loss(self, model: Any, *rest: Any, **more: Any) -> Any:
        if self._task.options.frozen:  # Dropout in a frozen encoder would only add noise.
            self.accelerator.unwrap_model(model).ernie_rna.eval()
        return super().compute_loss(model, *rest, **more)

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """The names of matrices and convolutions; transformers would decay some norms as well."""
        return [name for name, weight in model.named_parameters() if weight.ndim > 1]

    def score(self, examples: Sequence[Example]) -> Metrics:
        """The metrics of the task, the same in every process; the seed fixes the masked bases."""
        if not examples:
            return {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.args.seed)
            metrics = [self._task.evaluate(self, examples)]
        return dict(broadcast_object_list(metrics)[0])

    def evaluate(self, *rest: Any, **more: Any) -> dict[str, float]:
        """The metrics of the watched examples, logged; the Trainer calls this every eval_steps."""
        metrics = {f"eval_{name}": value for name, value in self.score(self._watched).items()}
        self.log(metrics)
        callbacks = self.callback_handler
        self.control = callbacks.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class Progress(TrainerCallback):
    """Callback that shows steps and loss, times the steps, and tells the collator the epoch.

    Args:
        show: None shows a bar on a terminal and about ten lines elsewhere; False shows nothing.

    Attributes:
        steps: seconds that each step took.
        seconds: seconds of all steps after which the training ends.
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
        is_tenth = state.global_step % max(1, state.max_steps // 10) == 0
        if not self._bar.disable:
            self._bar.set_postfix_str(text)
        elif text and self._show is None and (is_tenth or "loss" not in shown):
            print(f"step {state.global_step} of {state.max_steps}: {text}", file=sys.stderr)

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._bar.close()


def _newest_checkpoint(folder: Path, processes: int) -> tuple[str | None, bool]:
    """The newest complete checkpoint, or None, and whether training had ended with it. Complete is
    one with the random state of every process and that of the Trainer, which is written last.

    Raises:
        OutputError: a file of it is damaged, or the best state is missing.
    """
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name[11:])):
        if len([*path.glob("rng_state*.pth")]) < processes:
            continue
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        best = Path(state["best_model_checkpoint"] or path)
        if not best.is_dir():
            raise OutputError(f"{best}, the best state, is missing: delete {folder} to start anew")
        for file in (*path.iterdir(), *best.iterdir()):
            check_state(file)
        control = state["stateful_callbacks"]["TrainerControl"]
        return str(path), control["args"]["should_training_stop"]
    return None, False


def check_state(file: Path) -> None:
    """Raise OutputError if a file of a training's state was cut short or overwritten."""
    try:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".safetensors":
            safe_open(file, framework="pt")
        elif file.suffix in (".bin", ".pt", ".pth"):  # which torch writes as ZIP
            zipfile.ZipFile(file).close()
    except (ValueError, SafetensorError, zipfile.BadZipFile) as error:
        raise OutputError(
            f"{file} is damaged ({error}): delete {file.parent} to resume from an older state, or "
            "from the start if there is none"
        ) from error


class _Collator:
    """Collator that adds their lines to batches of training rows, and draws random numbers for them
    that depend only on seed, epoch and lines, so that a resumed run draws the same."""

    def __init__(self, collator: Any, seed: int):
        self._collator, self._seed, self.epoch = collator, seed, 0

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        names = ("input_ids", "labels")
        rows = [{name: row[name] for name in names if name in row} for row in examples]
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
# The model and the weights to train


def load(task: Task, source: str) -> Loaded:
    """The model with the task's head.

    Raises:
        InputError: the folder lacks weights other than the head's, or its head has other labels.
        OptionError: the rank of LoRA is above the width of the matrices that it adapts.
        OSError: there is no such folder.
    """
    options, revision = task.options, task.options.revision or "main"
    transformers.set_seed(options.seed)  # for the weights of a new head
    before = read_config(source, revision)
    kept = has_head(source, before, task.model_name, *task.also_in)
    if kept and task.names:
        _check_names(source, before, task)
    elif not kept and has_head(source, before, *_SAME_HEAD.get(task.head, ())):
        maps = before.num_attention_heads if before.pair_heads is None else len(before.pair_heads)
        size = f"{maps} maps" if task.head == "pair_head" else f"{before.num_labels} labels"
        raise InputError(
            f"{source}: is {some(before.architectures or ())}, with a head of {size} for another "
            "task: start from a model without such a head, such as the pretrained one"
        )
    width = min(before.hidden_size, before.intermediate_size)
    if options.lora is not None and options.lora > width:
        problem = f"{options.lora} is above {width}, the width of the matrices that it adapts"
        raise OptionError("lora", f"{problem}; 4 to 16 is usual")
    # What was fitted to the logits of the folder's model does not hold after training.
    fitted = ("pair_calibration", "pair_prior", "pair_prior_calibration")
    changes = {**dict.fromkeys(fitted), **task.config(before, kept)}
    config = ErnieRnaConfig.from_dict({**before.to_dict(), **changes})
    # The class is this library's, so that no code from the folder runs.
    from_pretrained = getattr(modeling_ernie_rna, task.model_name).from_pretrained
    settings = {"revision": revision, "attn_implementation": options.attention or "sdpa"}
    with without_report():  # transformers would warn that a new head has new weights.
        model, info = from_pretrained(source, config=config, output_loading_info=True, **settings)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(f"{task.head}."))
    if missing:
        raise InputError(f"{source}: lacks weights of an ERNIE-RNA: {some(missing)}")
    if config.weights_origin == "random":
        message = f"{source} has random weights: fine-tuning starts from an untrained model"
        warnings.warn(message, stacklevel=2)
    tokenizer = ErnieRnaTokenizer.from_pretrained(source, revision=revision)
    return Loaded(model.float(), tokenizer, kept)


def _check_names(source: str, before: ErnieRnaConfig, task: Task) -> None:
    """Raise InputError if the head of a folder does not predict the task's labels in their order.
    A head for one number may predict any."""
    names = list((before.id2label or {}).values())
    defaults = [f"LABEL_{index}" for index in range(len(task.names))]  # transformers'
    is_one_number = task.of_numbers and len(names) == len(task.names) == 1
    of_kind = before.problem_type in (None, task.problem_type)
    fits = of_kind and (is_one_number or names in (defaults, task.names))
    if fits or task.head == "loading_head":  # The authors' model has names of classes.
        return
    problem, way_out = "has other labels", "start from a model without such a head"
    if not of_kind:
        problem = f"is for {before.problem_type}"
    elif task.several and sorted(names) == sorted(task.names):
        problem, way_out = "has another order of labels", f"give --label-column {' '.join(names)}"
    raise InputError(
        f"{source}: its head {problem}: {some(names)}; the table has {some(task.names)}: {way_out}"
    )


def _choose_weights(model: Any, task: Task, batch: dict[str, torch.Tensor]) -> Any:
    """The model, or with LoRA a wrapper of it, in which only weights to train require gradients.

    Args:
        batch: shows which weights the loss depends on; several processes would wait forever for the
            gradients of others, which a head that only reads the last attention scores leaves out.
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
            modules_to_save=list(task.adapted or (task.head,)),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft's, about names in transformers
            model = peft.get_peft_model(model, config)
    model.eval()  # keeps the statistics of batch norms
    model(**batch).loss.backward()
    for weight in model.parameters():
        weight.requires_grad_(weight.requires_grad and weight.grad is not None)
        weight.grad = None
    return model


def _weigh_classes(model: Any, labels: Sequence[Any], count: int) -> None:
    """Change the loss of a model so that every class has the same total weight in it."""
    flat = torch.cat([torch.as_tensor(label).flatten() for label in labels])
    counts = torch.bincount(flat[flat != NO_LABEL], minlength=count).float()
    weights = counts.sum() / (count * counts)

    def loss(logits: torch.Tensor, labels: torch.Tensor, num_items: Any) -> torch.Tensor:
        on_device = weights.to(logits.device)
        total = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), on_device, reduction="sum")
        return total / at_least_one((labels != NO_LABEL).sum() if num_items is None else num_items)

    model._loss = loss


# ---------------------------------------------------------------------------------------------
# The settings of the Trainer

# Fields of TrainingArguments that replace the loss of the model, drop predictions that are
# measured, or do what `finetune` does itself.
_UNSUPPORTED = (
    *("label_smoothing_factor", "label_names", "prediction_loss_only", "batch_eval_metrics"),
    *("eval_do_concat_batches", "dataloader_drop_last", "bf16_full_eval", "fp16_full_eval"),
    *("push_to_hub", "resume_from_checkpoint", "save_only_model", "do_train", "do_eval"),
    *("num_train_epochs", "warmup_ratio"),
)


def schedule(options: FinetuneOptions, examples: int) -> tuple[int, int]:
    """The optimizer steps of a training, and the steps between evaluations or checkpoints."""
    steps_per_epoch = math.ceil(examples / (options.batch_size * options.accumulate))
    steps = options.steps or max(1, round(options.epochs * steps_per_epoch))
    every = options.eval_steps or max(1, steps // 10)
    if every > steps:
        raise OptionError("eval_steps", f"{every} is more than the {steps} steps of the training")
    return steps, every


def make_arguments(options: FinetuneOptions, folder: Path, examples: int) -> TrainingArguments:
    """The Trainer's arguments.

    Raises:
        OptionError: `trainer` has a field or value that is invalid, or there is no such device.
    """
    steps, every = schedule(options, examples)
    kind_of_device = (options.device or "auto").partition(":")[0]
    no_gpu = kind_of_device == "auto" and resolve_device(None).type == "cpu"
    # Newer versions of transformers warn about the old name, the second one.
    checkpointing_names = ("activation_checkpointing", "gradient_checkpointing")
    checkpointing = next(name for name in checkpointing_names if hasattr(TrainingArguments, name))
    fixed: dict[str, Any] = {
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
    defaults = {
        "per_device_eval_batch_size": options.batch_size,
        "logging_steps": max(1, steps // 100),
        "save_total_limit": 1,
        "report_to": [],
        "dataloader_pin_memory": kind_of_device != "cpu" and torch.cuda.is_available(),
    }
    fields: Any = options.trainer  # a dictionary after the checks of the options
    given = _convert_fields(fields, {*fixed, *checkpointing_names, *_UNSUPPORTED})
    try:
        arguments = TrainingArguments(**{**defaults, **given, **fixed})
        device = arguments.device
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        name = "trainer" if given else "dtype" if options.dtype else "device"
        raise OptionError(name, f"is refused by transformers: {error}") from error
    is_cpu = kind_of_device == device.type == "cpu"  # A number, as in cpu:0, does not matter.
    if not is_cpu and (options.device or "auto") not in ("auto", device.type, str(device)):
        raise OptionError(
            "device",
            f"{options.device} cannot be chosen: the Trainer uses {device}; use cpu to train "
            "without a GPU, or CUDA_VISIBLE_DEVICES=1 to choose one of several",
        )
    if options.dtype == "float16" and device.type == "cpu":
        raise OptionError(
            "dtype",
            "float16 needs a GPU: small gradients become 0 unless the loss is scaled, which torch "
            "does on GPUs only; use bfloat16 or float32 on a CPU",
        )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one GPU for each process, by torchrun if several
    return arguments


def _convert_fields(fields: dict[str, Any], forbidden: set[str]) -> dict[str, Any]:
    """Fields of TrainingArguments, with text parsed; OptionError for a field that is forbidden."""
    kind: Any = TrainingArguments
    parser, parsed = _Parser(kind, allow_abbrev=False), {}
    declared = {field.name: field for field in dataclasses.fields(kind)}
    for name, value in fields.items():
        if name in forbidden:
            problem = f"cannot set {name}: other options of finetune set it, or exclude it"
            raise OptionError("trainer", problem)
        if name not in declared:
            close = difflib.get_close_matches(name, {*declared} - forbidden, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise OptionError("trainer", f"has no field {name!r} of TrainingArguments{hint}")
        # The parser has turned types such as Optional[int] into int.
        is_default = value is None and declared[name].default is None
        is_plain = declared[name].type in (bool, int, float) and not is_default
        if isinstance(value, str) or is_plain:
            value = getattr(parser.parse_args([f"--{name}={value}"]), name)
        parsed[name] = value
    return parsed


class _Parser(HfArgumentParser):
    """A parser that raises OptionError instead of ending the program."""

    def error(self, message: str) -> Any:
        raise OptionError("trainer", message.removeprefix("argument --"))
