"""Fine-tuning from files to a folder: tables checked, a model trained, evaluated and saved."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ernie_rna.sequences.fasta import InputError
from ernie_rna.training import finetune as finetuning
from ernie_rna.training.finetune import Split
from ernie_rna.training.metrics import Metrics
from ernie_rna.training.settings import Data, Settings
from ernie_rna.training.tables import Table, read_sequences
from ernie_rna.training.tasks import Task


def finetune(
    model: str,
    out_dir: str | Path,
    task: Task,
    data: Data,
    settings: Settings | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Metrics]:
    """Train a model for a task and save it; what is wrong with the data is said before.

    Args:
        model: a converted or saved folder, or a name on the Hub.
        out_dir: gets the model, its tokenizer and code.
        say: takes lines on what is trained and how long it took.

    Returns:
        For each evaluation its metrics, and those of the simplest guess ("NAME: guess"). Of
        several processes only the leading one says anything, saves, and has all of them.

    Raises:
        InputError: a file, a row or the model is unfit.
    """
    settings = settings or Settings()
    tables = read_tables(data)
    longest = data.max_length or finetuning.longest_sequence(model)
    task.learn_names(next(iter(tables.values())))
    options = data.sequence_column, data.unknown, None if data.truncate else longest
    rows = {name: finetuning.read_split(task, t, *options) for name, t in tables.items()}

    loaded, tokenizer = finetuning.load(task, model, settings.seed)
    training, *evaluation = (
        finetuning.encode(task, tokenizer, name, own, longest) for name, own in rows.items()
    )
    task.start_head(loaded, rows[training.name][1])
    if leads():
        _describe(task, loaded, [training, *evaluation], settings, say)
    start = time.monotonic()
    trainer = finetuning.train(task, loaded, tokenizer, training, settings, out_dir)
    seconds = time.monotonic() - start
    scores: dict[str, Metrics] = {}
    for split in evaluation:
        guess = task.guess(training.examples, split.examples) if leads() else {}
        if guess:
            scores[f"{split.name}: {task.guess_name}"] = guess
        scores[split.name] = finetuning.evaluate(task, trainer, split, settings.seed)
    if leads():
        say(f"trained in {seconds:.0f} s\n")
        finetuning.save(finetuning.finished(trainer), tokenizer, out_dir)
    return scores


def leads() -> bool:
    """Whether this process leads those that torchrun or accelerate launch started."""
    return int(os.environ.get("RANK", 0)) == 0


def read_tables(data: Data) -> dict[str, Table]:
    """The training rows, then those of each evaluation, by name.

    Raises:
        InputError: a file or split is not there or unfit, or two have one name.
    """
    whole = read_sequences(data.train, data.sequence_column, data.unknown)
    column = data.split_column
    if column is None and data.eval_splits:
        raise InputError("--eval-split needs --split-column, which says what split a row is of")
    tables = {"train": whole if column is None else whole.split(column, data.train_split)}
    if column is not None:
        tables |= {value: whole.split(column, value) for value in data.eval_splits}
    for path in data.eval_files:
        if path.stem in tables:
            raise InputError(f"{path}: another split is called {path.stem!r}: rename the file")
        tables[path.stem] = read_sequences(path, data.sequence_column, data.unknown)
    return tables


def _describe(
    task: Task, model: Any, splits: Sequence[Split], settings: Settings, say: Callable[[str], None]
) -> None:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if settings.frozen or settings.lora is not None:
        trained = sum(p.numel() for n, p in model.named_parameters() if n.startswith(task.head))
    lora = f", and updates of rank {settings.lora}" if settings.lora is not None else ""
    say(", ".join(f"{split.name} {len(split.examples):,}" for split in splits))
    if task.names:
        say(f"labels ({len(task.names)}): {', '.join(task.names[:20])}")
    say(f"{trained:,} of {model.num_parameters():,} weights are trained{lora}\n")
