"""The moving average of a model's weights over the steps of its training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from safetensors.torch import load_file

from recipes.pretraining.checkpoints import AVERAGE_FILE


@dataclass
class Average:
    """The moving average of a model's floating-point state.

    The first steps count fully and the decay rises to its value as (1 + step) / (10 + step).
    """

    decay: float
    values: dict[str, torch.Tensor]

    @classmethod
    def of(cls, model: torch.nn.Module, decay: float) -> Average:
        return cls(decay, {name: value.clone() for name, value in _floats(model).items()})

    @torch.no_grad()
    def update(self, model: torch.nn.Module, step: int) -> None:
        rate = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in _floats(model).items():
            self.values[name].lerp_(value, rate)

    @contextlib.contextmanager
    def applied(self, model: torch.nn.Module) -> Iterator[None]:
        """The model with the average for its weights, for as long as the context lasts."""
        present = {name: value.clone() for name, value in _floats(model).items()}
        _set_floats(model, self.values)
        try:
            yield
        finally:
            _set_floats(model, present)


def _floats(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights and floating-point buffers by name, tied ones once."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: value.detach() for name, value in tensors.items() if value.is_floating_point()}


@torch.no_grad()
def _set_floats(model: torch.nn.Module, values: dict[str, torch.Tensor]) -> None:
    for name, value in _floats(model).items():
        value.copy_(values[name])


def load_average(checkpoint: Path) -> ErnieRnaForPreTraining:
    """The model of a checkpoint with the moving average for its weights."""
    model = ErnieRnaForPreTraining.from_pretrained(checkpoint).float().eval()
    missing, unexpected = model.load_state_dict(load_file(checkpoint / AVERAGE_FILE), strict=False)
    missing = [name for name in missing if not name.endswith(("decoder.weight", "_tracked"))]
    if missing or unexpected:
        raise ValueError(f"{checkpoint}: its average is of another model: {missing + unexpected}")
    return model
