"""Pretrain an ERNIE-RNA from new weights with the Trainer of transformers.

    python -m recipes.pretraining.train mini rfam_seed.tsv.gz runs/mini
    python -m recipes.pretraining.train mini rfam_seed.tsv.gz runs/mini --resume
    torchrun --nproc-per-node 2 -m recipes.pretraining.train mini rfam_seed.tsv.gz runs/mini --cpu
    python -m recipes.pretraining.train paper rnas.fasta runs/paper --eval-fasta others.fasta

CONFIG is a JSON file of settings, or the name of one in recipes/pretraining/configs. RNAS is a
table, TSV (may be compressed) or Parquet, with the columns id, sequence, dot_bracket, family and
split, or a FASTA file, which serves only for masked language modelling. A FASTA file is always
streamed, a table only with --stream. RUN receives the settings, the checkpoints, the Trainer's
state with the log and a picture of it (needs matplotlib). `recipes.pretraining.export` exports it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from ernie_rna.options import Share, whole
from ernie_rna.run.outputs import replacing
from ernie_rna.run.store import Store
from ernie_rna.sequences.fasta import InputError
from ernie_rna.training.card import draw_curve
from recipes.pretraining import rnas, weights
from recipes.pretraining.settings import SETTINGS_FILE, Settings, find_config, read_settings

# Arguments that a configuration cannot set: batches are limited by their tokens, and there are no
# epochs; our batches start where a resumed run stopped, so the Trainer must not skip any; and a
# batch uses only one of the two heads.
_FIXED: dict[str, Any] = {
    "per_device_train_batch_size": 1,
    "num_train_epochs": 1,
    "eval_strategy": "steps",
    "save_strategy": "steps",
    "ignore_data_skip": True,
    "ddp_find_unused_parameters": True,
    "disable_tqdm": True,
}
_DEFAULTS: dict[str, Any] = {
    "save_total_limit": 3,
    "report_to": [],
    "logging_nan_inf_filter": False,
}


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__, shares_work=True)
    parser.set_defaults(interrupted="; --resume resumes from the last checkpoint")
    add = parser.add_argument
    add("config", metavar="CONFIG", help="settings, see above")
    add("rnas", type=Path, metavar="RNAS", help="a table or a FASTA file")
    add("folder", type=Path, metavar="RUN", help="folder for checkpoints and log")
    add("--stream", action="store_true", help="read RNAS repeatedly in its order, not into memory")
    add("--train-split", default="train", metavar="VALUE", help="rows to train on (train)")
    add("--eval-split", default="validation", metavar="VALUE", help="to evaluate on (validation)")
    add("--eval-fasta", type=Path, metavar="FILE", help="to evaluate on instead of a split")
    add("--leave-out", type=Path, metavar="FILE", help="ids of RNAs not to train on")
    add("--predicted", type=Path, metavar="TABLE", help="further RNAs, with predicted structures")
    add("--start-from", type=Path, metavar="RUN", help="start with the weights of another run")
    add("--resume", action="store_true", help="resume from the last checkpoint, if there is one")
    add("--steps", type=int, metavar="N", help="train to this step instead of max_steps")
    add("--cpu", action="store_true", help="do not use a GPU")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    settings = read_settings(find_config(args.config))
    steps = {} if args.steps is None else {"max_steps": args.steps}
    cpu = {"use_cpu": True} if args.cpu else {}
    settings = replace(settings, training={**(settings.training or {}), **steps, **cpu})
    _check(args, settings)
    read = partial(rnas.read_rnas, args.rnas, args.train_split, rnas.read_ids(args.leave_out))
    training: list[rnas.Rna] | rnas.Read = read
    if not args.stream and rnas.is_table(args.rnas):
        training = list(read())
        if args.predicted is not None:
            training += rnas.read_table(args.predicted, args.train_split, predicted=True)
    evaluation = list(rnas.read_rnas(args.eval_fasta or args.rnas, args.eval_split))
    start = None if args.start_from is None else weights.find_checkpoint(args.start_from)
    pretrain(settings, training, evaluation, args.folder, weights.new_model(settings, start))
    return 0


def _check(args: argparse.Namespace, settings: Settings) -> None:
    """Raise InputError for settings and options that disagree."""
    share, power, is_table = settings.predicted, settings.family_power, rnas.is_table(args.rnas)
    if args.predicted is None and share > 0:
        raise InputError(f"{args.config}: predicted is {share}; name a table by --predicted")
    if args.predicted is not None and share == 0:
        raise InputError(f"{args.config}: predicted is {share}; raise it or leave out --predicted")
    if not is_table and settings.has_structures:
        raise InputError(f"{args.rnas}: FASTA has no structures; set masked to 1 in {args.config}")
    if not is_table and args.eval_fasta is None:
        raise InputError(f"{args.rnas}: has no splits; name a file by --eval-fasta")
    if args.predicted is not None and (args.stream or not is_table):
        raise InputError("--predicted is for tables in memory; put all rows into one for --stream")
    if args.stream and power != 1:
        raise InputError(f"{args.config}: family_power is {power}; with --stream it must be 1")
    if weights.last_checkpoint(args.folder) is not None and not args.resume:
        raise InputError(f"{args.folder}: has checkpoints; --resume resumes from the last")


def pretrain(
    settings: Settings,
    training: Sequence[rnas.Rna] | rnas.Read,
    validation: Sequence[rnas.Rna],
    folder: Path,
    model: ErnieRnaForPreTraining,
) -> PretrainingTrainer:
    """Train a model, from the newest checkpoint in `folder` if there is one.

    Args:
        training: RNAs to train on, or a function that starts reading them.

    Raises:
        InputError: there are no suitable RNAs, or a setting is unknown to TrainingArguments.
        OutputError: another training is running in `folder`.
    """
    arguments = training_arguments(settings, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    is_first = arguments.process_index == 0
    # The first process locks a folder beside the run's as long as it runs.
    with Store(folder, Share()) if is_first else contextlib.nullcontext():
        sample = rnas.choose_sample(validation, settings)
        share = (arguments.process_index, arguments.world_size)
        batches = rnas.PretrainingBatches(training, settings, model.config, *share)
        checkpoint = weights.last_checkpoint(folder)
        common: Any = {"model": model, "args": arguments, "train_dataset": batches}
        trainer = PretrainingTrainer(settings, sample, checkpoint, **common)
        if trainer.average.n_averaged >= arguments.max_steps:
            return trainer
        if is_first:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / SETTINGS_FILE) as path:
                path.write_text(json.dumps(asdict(settings), indent=1), encoding="utf-8")
        trainer.train(str(checkpoint) if checkpoint else None)
        trainer.save_state()
        return trainer


def training_arguments(settings: Settings, folder: Path) -> TrainingArguments:
    """The TrainingArguments of a run in `folder`.

    Raises:
        InputError: one is unknown, invalid, or cannot be set by a configuration.
    """
    values = settings.training or {}
    for name in sorted(_FIXED.keys() & values.keys()):
        raise InputError(f"training.{name} is always {_FIXED[name]}: leave it out")
    steps = values.get("max_steps")
    problem = whole(1)(steps)
    if problem is not None:
        raise InputError(f"training.max_steps {problem}; got {steps!r}")
    try:
        return TrainingArguments(str(folder), **{**_DEFAULTS, **values, **_FIXED})
    except (TypeError, ValueError) as error:
        raise InputError(f"training: {error}") from error


class PretrainingTrainer(transformers.Trainer, TrainerCallback):
    """A Trainer with our batches, moving average and evaluation, which is its own callback.

    Args:
        sample: the RNAs that the model is evaluated on.
        checkpoint: the checkpoint to resume from.
        common: arguments of Trainer.

    Attributes:
        average: the moving average of the model's weights.
    """

    def __init__(
        self, settings: Settings, sample: Sequence[rnas.Rna], checkpoint: Path | None, **common: Any
    ):
        super().__init__(eval_dataset=[], **common)
        self.remove_callback(transformers.PrinterCallback)
        self.add_callback(self)
        # Otherwise the Trainer counts the labels of all batches, which those of structures lack.
        self.model_accepts_loss_kwargs = False
        self._settings, self._sample = settings, sample
        # The average is made here because the model is now on its device.
        self.average = weights.average_of(self.model, settings.ema_decay, checkpoint)

    def get_train_dataloader(self) -> DataLoader:
        """Load the batches directly: each process makes its own, which accelerate would divide."""
        batches: Any = self.train_dataset
        return DataLoader(batches, batch_size=None, num_workers=self.args.dataloader_num_workers)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Metrics of the moving average on the validation data.

        The first process computes them; the others wait for it in the next step.
        """
        metrics = {}
        if self.is_world_process_zero():
            values = weights.evaluate(self.average.module, self._sample, self._settings)
            metrics = {f"eval_{name}": value for name, value in values.items()}
            self.log(metrics)
        # Without this event the Trainer would evaluate again at the end.
        on_evaluate = self.callback_handler.on_evaluate
        self.control = on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the batches where the run stopped, and follow the schedule of `args`."""
        # The Trainer creates the loader before it knows the step.
        batches: Any = self.train_dataset
        batches.start = state.global_step * args.gradient_accumulation_steps
        # The Trainer would keep the checkpoint's intervals, its learning rate for one step, and its
        # highest learning rate forever.
        for name in ("logging_steps", "eval_steps", "save_steps"):
            setattr(state, name, int(getattr(args, name)))
        scheduler, groups = kwargs["lr_scheduler"], kwargs["optimizer"].param_groups
        scheduler.base_lrs = [args.learning_rate] * len(groups)
        for group, factor in zip(groups, getattr(scheduler, "lr_lambdas", ()), strict=False):
            group["lr"] = args.learning_rate * factor(state.global_step)
        scheduler._last_lr = [group["lr"] for group in groups]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Dropout, too, depends only on the seed and the step: the Trainer restores the random state
        # of a resumed run only if it skips the batches itself.
        seeds = np.random.SeedSequence((args.seed, state.global_step, args.process_index))
        torch.manual_seed(int(seeds.generate_state(1)[0]))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.average.update_parameters(kwargs["model"])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir, f"checkpoint-{state.global_step}")
            weights.save_average(self.average, checkpoint)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        print(json.dumps({"step": state.global_step, **logs}), flush=True)
        if any(name.startswith("eval_") for name in logs):
            state.save_to_json(Path(args.output_dir, TRAINER_STATE_NAME))
            draw_curve(state.log_history, Path(args.output_dir, "curves.svg"))


if __name__ == "__main__":
    sys.exit(main())
