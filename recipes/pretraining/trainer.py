"""Pretrains an ERNIE-RNA by transformers' Trainer, so that it can be killed and go on."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from recipes.pretraining.batches import PretrainingBatches
from recipes.pretraining.checkpoints import AVERAGE_FILE, last_checkpoint
from recipes.pretraining.data import (
    Batches,
    Limit,
    Read,
    Rna,
    Sampler,
    Stream,
    with_pairs,
)
from recipes.pretraining.ema import Average
from recipes.pretraining.evaluation import Evaluator
from recipes.pretraining.initial_weights import new_model
from recipes.pretraining.plot import LOG_FILE, plot_log
from recipes.pretraining.settings import Settings


class PretrainingTrainer(transformers.Trainer):
    """A Trainer with our batches, schedule, moving average and evaluation.

    Args:
        model, tokenizer: to train.
        settings: of the run.
        arguments: of the Trainer, from `training_arguments`.
        training: RNAs to train on, or what reads them again and again.
        evaluator: what computes the metrics.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        settings: Settings,
        arguments: transformers.TrainingArguments,
        training: Sequence[Rna] | Read,
        evaluator: Evaluator,
    ):
        self._settings, self._tokenizer, self._training = settings, tokenizer, training
        self._evaluator, self._config = evaluator, model.config
        # The Trainer insists on data sets for the loader and the evaluation that are our own.
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=evaluator.sample,
            eval_dataset=evaluator.sample,
            callbacks=[_Keeper(self), _Log()],
        )
        self.remove_callback(transformers.PrinterCallback)
        self.average = Average.of(model, settings.ema_decay)  # on the model's device by now

    def get_train_dataloader(self) -> DataLoader:
        self.batches = PretrainingBatches(
            *_batches(self._training, self._settings),
            self._settings,
            self._tokenizer,
            self._config,
            rank=self.args.process_index,
            world=self.args.world_size,
        )
        return _Loader(self.batches, batch_size=None, num_workers=self._settings.workers)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            optimizer = self.optimizer if optimizer is None else optimizer
            schedule = _schedule(self._settings)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return self.lr_scheduler

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Metrics of the moving average, if there is one, on the validation split.

        The first process computes them, and the others go on to wait for it in the next step.
        """
        if not self.is_world_process_zero():
            return {}
        averaged = self._settings.ema_decay > 0
        model: Any = self.model
        with self.average.applied(model) if averaged else contextlib.nullcontext():
            metrics = self._evaluator(model)
        self.log({f"eval_{name}": value for name, value in metrics.items()})
        return metrics


class _Loader(DataLoader):
    """The Trainer asks how long an epoch is; there is one, as long as the run."""

    def __len__(self) -> int:
        return 2**31


def _schedule(settings: Settings) -> Callable[[int], float]:
    """The learning rate's factor at a step: up, level, and down to 0."""

    def factor(step: int) -> float:
        rise = (step + 1) / max(1, settings.warmup_steps)
        fall = (settings.steps - step) / max(1, settings.decay_steps)
        return max(0.0, min(1.0, rise, fall))

    return factor  # A function is not put into checkpoints, so that new settings count.


class _Keeper(TrainerCallback):
    """Has the batches begin where the run stopped, and keeps the moving average."""

    def __init__(self, trainer: PretrainingTrainer):
        self._trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        # The Trainer makes the loader before it knows the step.
        self._trainer.batches.start = state.global_step * args.gradient_accumulation_steps
        # The Trainer would keep the intervals of the checkpoint.
        for name in ("logging_steps", "eval_steps", "save_steps"):
            setattr(state, name, int(getattr(args, name)))

    def on_step_begin(self, args, state, control, **kwargs):
        # Dropout too is drawn from the seed and the step alone: the Trainer puts no random state
        # back into a run whose batches it does not skip itself.
        seeds = np.random.SeedSequence((args.seed, state.global_step, args.process_index))
        torch.manual_seed(int(seeds.generate_state(1)[0]))

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if self._trainer.average.decay:
            self._trainer.average.update(model, state.global_step)

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            save_file(self._trainer.average.values, folder / AVERAGE_FILE)


class _Log(TrainerCallback):
    """Appends each log to a file of JSON lines, prints it, and draws the evaluations."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        line = json.dumps({"step": state.global_step, **logs})
        with (Path(args.output_dir) / LOG_FILE).open("a") as file:
            file.write(f"{line}\n")
        print(line, flush=True)
        if "eval_masked_lm_loss" in logs or "eval_pair_loss" in logs:
            with contextlib.suppress(ImportError):  # A run needs no picture.
                plot_log(Path(args.output_dir))


def _batches(
    source: Sequence[Rna] | Read, settings: Settings
) -> tuple[Batches | None, Batches | None]:
    """The masked-LM and the structure batches of a run; None for a kind that it has not."""
    masked, structure = settings.masked_lm, settings.structure
    power, seed = settings.family_power, settings.seed
    tokens = Limit(masked.tokens, 1, masked.max_length)
    pairs = Limit(structure.squared_tokens, 2, structure.max_length)
    kinds: list[Batches | None] = [None, None]

    def known(rnas: Iterable[Rna]) -> Iterator[Rna]:
        return with_pairs(rnas, "the training data", structure.max_length)

    if masked.fraction > 0:
        if callable(source):
            kinds[0] = Stream(source, tokens, 2 * seed)
        else:
            found = [rna for rna in source if not rna.predicted]
            kinds[0] = Sampler(found, power, tokens, 2 * seed)
    if masked.fraction < 1:
        if callable(source):
            kinds[1] = Stream(lambda: known(source()), pairs, 2 * seed + 1)
        else:
            kinds[1] = Sampler(list(known(source)), power, pairs, 2 * seed + 1, structure.predicted)
    return kinds[0], kinds[1]


def training_arguments(
    settings: Settings, folder: Path, cpu: bool = False
) -> transformers.TrainingArguments:
    """The Trainer's own settings for a run in `folder`."""
    return transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.adam_betas[0],
        adam_beta2=settings.adam_betas[1],
        adam_epsilon=settings.adam_epsilon,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.bf16,
        use_cpu=cpu,
        # accelerate takes a named backend for a sign of several processes.
        ddp_backend="gloo" if cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None,
        seed=settings.seed,
        logging_steps=settings.logging_steps,
        eval_strategy="steps",
        eval_steps=settings.eval_steps,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=3,
        # The batches begin where the run stopped.
        ignore_data_skip=True,
        # A batch reaches only one of the two heads.
        ddp_find_unused_parameters=True,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def pretrain(
    settings: Settings,
    training: Sequence[Rna] | Read,
    validation: Sequence[Rna],
    folder: Path,
    *,
    cpu: bool = False,
    model: ErnieRnaForPreTraining | None = None,
) -> PretrainingTrainer:
    """Train to `settings.steps`, from the newest checkpoint in `folder` if there is one.

    Args:
        training: RNAs to train on, or what reads them again and again.
        model: to train; None is `new_model`.

    Raises:
        InputError: structures are asked for, and there are none.
    """
    model, tokenizer = model or new_model(settings), ErnieRnaTokenizer()
    arguments = training_arguments(settings, folder, cpu)
    evaluator = Evaluator(validation, settings, tokenizer)
    trainer = PretrainingTrainer(model, tokenizer, settings, arguments, training, evaluator)
    checkpoint = last_checkpoint(folder)
    if checkpoint is not None:
        trainer.average.values = load_file(checkpoint / AVERAGE_FILE, device=str(arguments.device))
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return trainer
