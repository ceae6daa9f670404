"""The model that a pretraining begins with: new weights, or those of another run."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
import transformers
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining

from ernie_rna.sequences.fasta import InputError
from recipes.pretraining.ema import load_average
from recipes.pretraining.settings import Settings

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
    """
    transformers.set_seed(settings.seed)
    model: Any = ErnieRnaForPreTraining(ErnieRnaConfig(**settings.model))
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
def _with_residual_gain(model: Any, settings: Settings) -> ErnieRnaForPreTraining:
    for layer in model.ernie_rna.layers:
        for linear in (layer.self_attn.out_proj, layer.fc2):
            linear.weight.mul_(settings.residual_gain)
            linear.bias.mul_(settings.residual_gain)
    return model
