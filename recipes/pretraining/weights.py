"""The weights of a pretraining: new ones, their moving average, and those of another run."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_model, save_model
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from ernie_rna.run.outputs import replacing
from ernie_rna.sequences.fasta import InputError
from recipes.pretraining.settings import Settings

# Written last into a checkpoint, so that one without it was cut short.
_AVERAGE = "average.safetensors"
# Fields of the config that a run may change when it begins with the weights of another.
_FREE = frozenset(
    {
        *("hidden_dropout_prob", "attention_probs_dropout_prob", "activation_dropout"),
        *("pair_dropout", "pair_block_dropout", "pair_positive_weight", "pair_threshold"),
        *("initializer_range", "score_memory", "weights_origin"),
    }
)


def new_model(settings: Settings) -> ErnieRnaForPreTraining:
    """A model with weights drawn from the seed.

    With gains above 1 tokens and pairing scores stand out from positions and from the random
    scores of the layers from the beginning, which a short training has no time to find out.

    Raises:
        InputError: a field of the model is none of ErnieRnaConfig, or has a value that none has.
    """
    fields = settings.model or {}
    known = inspect.signature(ErnieRnaConfig).parameters.keys() | {"attn_implementation"}
    for name in fields.keys() - known:
        raise InputError(f"model.{name} is no field of ErnieRnaConfig")
    try:
        config = ErnieRnaConfig(**fields)
    except ValueError as error:
        raise InputError(f"model.{error}") from error
    transformers.set_seed(settings.seed)
    model: Any = ErnieRnaForPreTraining(config)
    with torch.no_grad():
        for name, weight in model.ernie_rna.twod_proj.named_parameters():
            if name.endswith("weight"):
                weight.mul_(settings.pairing_gain)
        embedding = model.get_input_embeddings().weight
        embedding.mul_(settings.embedding_gain)
        if settings.embedding_gain != 1.0:  # The tied decoder's logits begin at a spread of 1.
            spread = float(embedding.std()) * model.config.hidden_size**0.5
            model.lm_head.layer_norm.weight.fill_(1 / spread)
        model.pair_head.conv_out.bias.fill_(settings.pair_bias)
    return _with_residual_gain(model, settings)


def model_of(checkpoint: Path, settings: Settings) -> ErnieRnaForPreTraining:
    """The averaged weights of another run, to begin a new one with.

    The settings' model may have more blocks in its pair head: those are new and begin as the
    identity, so that they change no answer. Dropout and the like may differ as well.

    Raises:
        InputError: the models differ in something else.
    """
    model: Any = new_model(settings)
    old: Any = load_average(checkpoint)
    for name in inspect.signature(ErnieRnaConfig).parameters:
        before: Any = getattr(old.config, name, None)
        now: Any = getattr(model.config, name, None)
        if before != now and name not in _FREE and not (name == "pair_blocks" and before < now):
            raise InputError(f"{checkpoint}: a model whose {name} is {before}, not {now}")
    for block in model.pair_head.blocks[old.config.pair_blocks :]:
        torch.nn.init.zeros_(block.conv2.weight)
    model.load_state_dict(old.state_dict(), strict=False)
    return _with_residual_gain(model, settings)


@torch.no_grad()
def _with_residual_gain(model: Any, settings: Settings) -> Any:
    for layer in model.ernie_rna.layers:
        for linear in (layer.self_attn.out_proj, layer.fc2):
            linear.weight.mul_(settings.residual_gain)
            linear.bias.mul_(settings.residual_gain)
    return model


# ---------------------------------------------------------------------------------------------
# The moving average, and the checkpoints that hold it


def average_of(model: torch.nn.Module, decay: float) -> AveragedModel:
    """The moving average of a model, buffers included, which begins as the model.

    The decay rises to its value as (1 + step) / (10 + step), so that the first weights, which are
    drawn, are soon forgotten. A decay of 0 is the model as it is.
    """

    def update(averaged: Any, current: Any, step: torch.Tensor | int) -> None:
        rising = (1 + int(step)) / (10 + int(step))
        get_ema_multi_avg_fn(min(decay, rising))(averaged, current, step)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True).eval()


def save_average(average: AveragedModel, checkpoint: Path) -> None:
    """Put the average into a checkpoint, which is whole with it."""
    with replacing(checkpoint / _AVERAGE) as path:
        save_model(average, str(path))


def restore_average(average: AveragedModel, checkpoint: Path) -> None:
    """Set an average to that of a checkpoint of the same model."""
    load_model(average, checkpoint / _AVERAGE)


def load_average(checkpoint: Path) -> ErnieRnaForPreTraining:
    """The model of a checkpoint with the moving average for its weights."""
    average: Any = average_of(ErnieRnaForPreTraining.from_pretrained(checkpoint).float(), 0.0)
    restore_average(average, checkpoint)
    model: ErnieRnaForPreTraining = average.module
    return model


def last_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None."""
    whole = [path.parent for path in run.glob(f"checkpoint-*/{_AVERAGE}")]
    return max(whole, key=step_of, default=None)


def find_checkpoint(run: Path) -> Path:
    """The newest whole checkpoint of a run; InputError if there is none."""
    checkpoint = last_checkpoint(run)
    if checkpoint is None:
        raise InputError(f"{run}: has no whole checkpoint of a pretraining")
    return checkpoint


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was written at."""
    return int(checkpoint.name.split("-")[1])
