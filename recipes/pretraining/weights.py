"""The weights of a pretraining: new or from another run, their moving average, and metrics."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from safetensors.torch import load_model, save_model
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from ernie_rna.model.structures_ernie_rna import MIN_LOOP, MIN_STEM, predict_pairs, solve_each
from ernie_rna.run.outputs import replacing
from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.evaluation import score_pairs
from ernie_rna.training.metrics import NO_LABEL
from recipes.pretraining.rnas import Rna, masked_batch, structure_batch
from recipes.pretraining.settings import Settings

# The file that is written last, so a checkpoint without it is incomplete.
_AVERAGE = "average.safetensors"
# Fields of the config, besides dropout, that may differ from those of the run whose weights a run
# starts with: they do not affect the model's outputs.
_FREE = {"pair_positive_weight", "pair_threshold", "initializer_range"}
_FREE |= {"score_memory", "weights_origin"}


@torch.no_grad()
def new_model(settings: Settings, checkpoint: Path | None = None) -> ErnieRnaForPreTraining:
    """A model with weights drawn from the seed, or with the averaged weights of another run.

    With gains above 1, tokens and pairing scores dominate positions and the layers' random scores
    from the beginning; a short training has no time to learn this.

    Args:
        checkpoint: of another run. The pair head may have more blocks than that run's; the new
            ones start as the identity, so they do not change the outputs. Dropout and other fields
            without an effect on the outputs may differ as well.

    Raises:
        InputError: a field of the model is unknown to ErnieRnaConfig, or the models differ.
        ValueError: a field has an invalid value.
    """
    fields = settings.model or {}
    known = inspect.signature(ErnieRnaConfig).parameters.keys() | {"attn_implementation"}
    for name in fields.keys() - known:
        raise InputError(f"model.{name} is not a field of ErnieRnaConfig")
    transformers.set_seed(settings.seed)
    model: Any = ErnieRnaForPreTraining(ErnieRnaConfig(**fields))
    for linear in (model.ernie_rna.twod_proj.linear1, model.ernie_rna.twod_proj.linear2):
        linear.weight.mul_(settings.pairing_gain)
    embedding = model.get_input_embeddings().weight
    embedding.mul_(settings.embedding_gain)
    if settings.embedding_gain != 1.0:  # This gives the tied decoder's logits a spread of 1.
        spread = float(embedding.std()) * model.config.hidden_size**0.5
        model.lm_head.layer_norm.weight.fill_(1 / spread)
    model.pair_head.conv_out.bias.fill_(settings.pair_bias)
    if checkpoint is not None:
        _take_weights(model, checkpoint)
    for layer in model.ernie_rna.layers:
        for linear in (layer.self_attn.out_proj, layer.fc2):
            linear.weight.mul_(settings.residual_gain)
            linear.bias.mul_(settings.residual_gain)
    return model


def _take_weights(model: Any, checkpoint: Path) -> None:
    old: Any = load_average(checkpoint)
    for name in inspect.signature(ErnieRnaConfig).parameters:
        before: Any = getattr(old.config, name, None)
        now: Any = getattr(model.config, name, None)
        may_differ = name in _FREE or "dropout" in name or (name == "pair_blocks" and before < now)
        if before != now and not may_differ:
            raise InputError(f"{checkpoint}: a model whose {name} is {before}, not {now}")
    for block in model.pair_head.blocks[old.config.pair_blocks :]:
        torch.nn.init.zeros_(block.conv2.weight)
    model.load_state_dict(old.state_dict(), strict=False)


def average_of(model: Any, decay: float, checkpoint: Path | None = None) -> AveragedModel:
    """The moving average of a model, buffers included, from a checkpoint if one is given.

    The decay rises to its value as (1 + step) / (10 + step), so that the random initial weights
    soon lose their influence. With a decay of 0 the average is the model itself.
    """

    def update(averaged: Any, current: Any, step: torch.Tensor | int) -> None:
        rising = (1 + int(step)) / (10 + int(step))
        get_ema_multi_avg_fn(min(decay, rising))(averaged, current, step)

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True).eval()
    if checkpoint is not None:
        load_model(average, checkpoint / _AVERAGE)
    return average


def save_average(average: AveragedModel, checkpoint: Path) -> None:
    """Write the average into a checkpoint, which completes it."""
    with replacing(checkpoint / _AVERAGE) as path:
        save_model(average, str(path))


def load_average(checkpoint: Path) -> ErnieRnaForPreTraining:
    """The model of a checkpoint, with the moving average as its weights."""
    model: Any = ErnieRnaForPreTraining.from_pretrained(checkpoint).float()
    return cast(ErnieRnaForPreTraining, average_of(model, 0.0, checkpoint).module)


def last_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    complete = [path.parent for path in run.glob(f"checkpoint-*/{_AVERAGE}")]
    return max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)


def find_checkpoint(run: Path) -> Path:
    """The newest complete checkpoint of a run; InputError if there is none."""
    checkpoint = last_checkpoint(run)
    if checkpoint is None:
        raise InputError(f"{run}: has no complete checkpoint of a pretraining")
    return checkpoint


def evaluate(model: Any, sample: Sequence[Rna], settings: Settings) -> dict[str, float]:
    """Masked-LM loss, pair loss and F1 of a model in evaluation mode, for the heads in training."""
    metrics = {}
    if settings.masked:
        metrics["masked_lm_loss"] = masked_lm_loss(model, sample, settings.masked_share)
    if settings.has_structures:
        offsets, thresholds = [settings.eval_offset], settings.eval_thresholds
        metrics["pair_loss"], f1 = score_structures(model, sample, offsets, thresholds)
        metrics["f1"] = max(f1.values())
        metrics |= {f"f1_at_{threshold:g}": value for (_, threshold), value in f1.items()}
    return metrics


@torch.no_grad()
def masked_lm_loss(model: Any, rnas: Sequence[Rna], share: float) -> float:
    """The mean loss of the masked nucleotides, which are always the same."""
    total, count = 0.0, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for group in _by_length(rnas):
            batch = masked_batch([rna.sequence for rna in group], model.config, share)
            masked = int((batch["labels"] != NO_LABEL).sum())
            total += float(_run(model, batch).loss) * masked
            count += masked
    return total / max(1, count)


@torch.no_grad()
def score_structures(
    model: Any, rnas: Sequence[Rna], offsets: Iterable[float], thresholds: Iterable[float]
) -> tuple[float, dict[tuple[float, float], float]]:
    """The mean pair loss, and the mean F1 by offset of the logits and threshold of the prediction.

    If the optimisation has no solution, no pair is predicted, as in `ernie-rna fold`.
    """
    losses: list[float] = []
    f1: dict[tuple[float, float], list[float]] = {
        setting: [] for setting in itertools.product(offsets, thresholds)
    }
    for group in _by_length(rnas):
        output = _run(model, structure_batch(group))
        losses += [float(output.loss)] * len(group)
        logits, sequences = output.pair_logits.float().cpu(), [rna.sequence for rna in group]
        for (offset, threshold), values in f1.items():
            solved = solve_each(logits + offset, sequences, threshold=threshold, min_loop=MIN_LOOP)
            for rna, result in zip(group, solved, strict=True):
                pairs = [] if isinstance(result, str) else predict_pairs(result, min_stem=MIN_STEM)
                values.append(score_pairs(pairs, rna.pairs).f1)
    return float(np.mean(losses)), {key: float(np.mean(values)) for key, values in f1.items()}


def _by_length(rnas: Sequence[Rna], batch: int = 8) -> Iterator[list[Rna]]:
    rnas = sorted(rnas, key=lambda rna: len(rna.sequence))
    for start in range(0, len(rnas), batch):
        yield rnas[start : start + batch]


def _run(model: Any, batch: dict[str, torch.Tensor]) -> Any:
    return model(**{name: value.to(model.device) for name, value in batch.items()})
