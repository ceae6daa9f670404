"""Fine-tunes a model by transformers' Trainer, evaluates it and saves it."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from ernie_rna.extras import import_extra
from ernie_rna.model.configuration_ernie_rna import AUTO_MAP, ErnieRnaConfig
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from ernie_rna.run.loading import without_report
from ernie_rna.sequences.fasta import InputError
from ernie_rna.training.metrics import Metrics
from ernie_rna.training.settings import Settings
from ernie_rna.training.tables import Table, check_lengths
from ernie_rna.training.tasks import Example, Task

_SPECIAL_TOKENS = 2  # <cls> and <eos>
# What LoRA adapts: every linear map of the layers.
_LORA_MODULES = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Split:
    """Rows that belong together, as the model takes them."""

    name: str
    examples: list[Example]


def check_extras(lora: bool = False) -> None:
    """Raise ImportError, with the way out, unless what training needs is installed."""
    for module in ("accelerate", "sklearn", "scipy", *(["peft"] if lora else [])):
        import_extra(module, "train", "fine-tuning")


def load(task: Task, folder: str | Path, seed: int = 0) -> tuple[Any, ErnieRnaTokenizer]:
    """The model with the task's head, in float32, and its tokenizer.

    Args:
        folder: a converted or saved folder, or a name on the Hub.
        seed: of the weights of a new head.

    Raises:
        InputError: it lacks weights that are not the head's, or its head is of other labels.
        OSError: there is no such folder.
    """
    transformers.set_seed(seed)
    settings = task.config(ErnieRnaConfig.from_pretrained(folder))
    config = ErnieRnaConfig.from_pretrained(folder, **settings)
    # The class is our own, so that no code of the folder is run.
    load_model: Any = task.model_class.from_pretrained  # type: ignore[attr-defined]
    with without_report():  # That a new head is new need not be warned of.
        try:
            model, info = load_model(folder, config=config, output_loading_info=True)
        except RuntimeError as error:
            raise InputError(f"{folder}: its head is of other labels: {error}") from error
    if config.weights_origin == "random":
        warnings.warn(
            f"{folder} has random weights, which were never trained: fine-tuning begins with "
            "nothing learned",
            stacklevel=2,
        )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(task.head))
    if missing:
        raise InputError(f"{folder}: lacks weights of an ERNIE-RNA: {', '.join(missing[:5])}")
    return model.float(), ErnieRnaTokenizer.from_pretrained(folder)


def longest_sequence(folder: str | Path) -> int:
    """How many nucleotides the model was made for."""
    config = ErnieRnaConfig.from_pretrained(folder)
    return int(config.max_position_embeddings) - _SPECIAL_TOKENS


def read_split(
    task: Task, table: Table, sequence_column: str, unknown: str, longest: int | None
) -> tuple[list[str], list[Any]]:
    """The sequences and labels of a table, checked.

    Args:
        unknown: see `fasta.read_fasta`.
        longest: nucleotides that a sequence may have; None does not look.

    Raises:
        InputError: a sequence or label is unfit; the message names the line.
    """
    sequences = table.sequences(sequence_column, unknown)
    if longest is not None:
        check_lengths(table, sequences, longest)
    return sequences, task.read_labels(table, sequences)


def encode(
    task: Task, tokenizer: Any, name: str, data: tuple[list[str], list[Any]], longest: int
) -> Split:
    """Sequences, cut behind `longest` nucleotides, and labels as examples."""
    sequences, labels = data
    length = longest + _SPECIAL_TOKENS
    ids = tokenizer(sequences, truncation=True, max_length=length)["input_ids"]
    return Split(name, [task.encode(*pair) for pair in zip(ids, labels, strict=True)])


def train(
    task: Task,
    model: Any,
    tokenizer: Any,
    training: Split,
    settings: Settings,
    out_dir: str | Path | None = None,
) -> transformers.Trainer:
    """Train a model, which is changed, and return the trainer for `evaluate` and `finished`.

    Args:
        out_dir: where the state of training is kept, with `settings.resume`.
    """
    if settings.frozen:
        model.ernie_rna.requires_grad_(False)
    if settings.lora is not None:
        model = _with_lora(model, settings.lora, task.head)
    transformers.set_seed(settings.seed)
    with _state_folder(settings, out_dir) as folder:
        arguments = _arguments(settings, str(folder), len(training.examples))
        if task.leaves_weights_unused and not settings.frozen:
            arguments["ddp_find_unused_parameters"] = True
        trainer = transformers.Trainer(
            model=model,
            args=transformers.TrainingArguments(**arguments),
            train_dataset=training.examples,
            data_collator=task.collator(tokenizer, model.config),
            preprocess_logits_for_metrics=task.reduce,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        if trainer.is_world_process_zero():
            trainer.add_callback(_Progress())
        last = get_last_checkpoint(str(folder)) if settings.resume else None
        trainer.train(resume_from_checkpoint=last)
    return trainer


def _with_lora(model: Any, rank: int, head: str) -> Any:
    """The model with low-rank updates of the encoder, and its head trained as it is."""
    peft = import_extra("peft", "train", "LoRA")
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=_LORA_MODULES,
        modules_to_save=[head.removesuffix(".")],
    )
    return peft.get_peft_model(model, config)


@contextlib.contextmanager
def _state_folder(settings: Settings, out_dir: str | Path | None) -> Iterator[Path]:
    """Where the Trainer keeps its state."""
    if settings.resume and out_dir is not None:
        folder = Path(out_dir) / _CHECKPOINTS
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def finished(trainer: transformers.Trainer) -> Any:
    """The trained model as its own class, LoRA's updates merged into the weights."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def _arguments(settings: Settings, folder: str, examples: int) -> dict[str, Any]:
    batches = -(-examples // (settings.batch_size * settings.accumulate))
    steps = settings.steps or max(1, round(settings.epochs * batches))
    arguments: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulate,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "warmup_steps": round(settings.warmup * steps),
        "bf16": settings.bf16,
        "use_cpu": settings.cpu,
        "seed": settings.seed,
        "logging_steps": max(1, steps // 10),
        "save_strategy": "steps" if settings.resume else "no",
        "save_steps": max(1, steps // 10),
        "save_total_limit": 1,
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available() and not settings.cpu,
    }
    if settings.gradient_checkpointing:
        arguments[_checkpointing_name()] = True
    return arguments


def _checkpointing_name() -> str:
    """Newer transformers warn of the old name."""
    names = {field.name for field in fields(transformers.TrainingArguments)}
    new = "activation_checkpointing"
    return new if new in names else "gradient_checkpointing"


def evaluate(task: Task, trainer: transformers.Trainer, split: Split, seed: int) -> Metrics:
    """The task's metrics on a split; the seed fixes which positions are masked."""
    transformers.set_seed(seed)
    return task.evaluate(trainer, split.examples)


def save(model: Any, tokenizer: ErnieRnaTokenizer, out_dir: str | Path) -> None:
    """Write a folder that loads by `trust_remote_code`, code included."""
    # A model from the Hub has its name in front of each entry.
    model.config.auto_map = dict(AUTO_MAP)  # Saving puts a head's class in place of AutoModel's.
    model.config.weights_origin = "fine-tuned"
    model.save_pretrained(out_dir)
    shutil.rmtree(Path(out_dir) / _CHECKPOINTS, ignore_errors=True)
    tokenizer.save_pretrained(out_dir)
    tokenizer.save_vocabulary(str(out_dir))  # transformers 5 leaves it out


class _Progress(TrainerCallback):
    """Prints the loss now and then."""

    def on_log(self, args, state, control, logs: Mapping[str, Any] | None = None, **kwargs):
        if logs and "loss" in logs:
            step = f"step {state.global_step:>6} of {state.max_steps}"
            print(f"{step}  loss {float(logs['loss']):.4f}", file=sys.stderr, flush=True)
