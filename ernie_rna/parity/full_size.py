"""What rounding does at the released size, which the golden values' small model does not tell.

Large matrices may take another product than small ones: see `ErnieRnaLinear`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.layers_ernie_rna import ErnieRnaLinear
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from ernie_rna.run.loading import tokenize


@dataclass(frozen=True)
class Rounding:
    """The error of float32 hidden states, all layers, against the same weights in float64.

    Attributes:
        product: what multiplied the large matrices, "PyTorch's" or "oneDNN's".
        largest: absolute.
        root_mean_square: over all values.
    """

    product: str
    largest: float
    root_mean_square: float


def measure_full_size(
    sequences: Iterable[str], config: ErnieRnaConfig | None = None
) -> list[Rounding]:
    """The rounding of each product that runs on this CPU, with random weights of a fixed seed.

    Args:
        sequences: RNAs, each run alone.
        config: None is the released size.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = ErnieRnaModel(config or ErnieRnaConfig(), add_pooling_layer=False).eval()
    exact = copy.deepcopy(model).double()
    found: dict[str, list[torch.Tensor]] = {}
    for sequence in sequences:
        expected = _hidden_states(exact, sequence)
        for product in _products(model):
            with _product(product):
                difference = _hidden_states(model, sequence) - expected
            found.setdefault(product, []).append(difference.flatten())
    return [
        Rounding(product, errors.abs().max().item(), errors.square().mean().sqrt().item())
        for product, errors in ((name, torch.cat(parts)) for name, parts in found.items())
    ]


def format_full_size(roundings: Iterable[Rounding]) -> str:
    """A line for each product."""
    lines = [
        "Full size, random weights: the error of all float32 hidden states against float64",
        f"{'product of the large matrices':<32}{'largest':>9}{'rms':>9}",
        *(f"{r.product:<32}{r.largest:>9.1e}{r.root_mean_square:>9.1e}" for r in roundings),
    ]
    return "\n".join(lines)


def _hidden_states(model: ErnieRnaModel, sequence: str) -> torch.Tensor:
    """(layers + 1, seq, hidden) in float64."""
    inputs = tokenize([sequence], torch.device("cpu"))
    with torch.no_grad():
        return torch.cat(model(*inputs, output_hidden_states=True).hidden_states).double()


def _products(model: ErnieRnaModel) -> list[str]:
    linears = (module for module in model.modules() if isinstance(module, ErnieRnaLinear))
    with torch.no_grad():
        onednn = any(linear.runs_onednn(linear.weight) for linear in linears)
    return ["PyTorch's", "oneDNN's"] if onednn else ["PyTorch's"]


@contextmanager
def _product(name: str) -> Iterator[None]:
    """Have large matrices multiplied by this product, by the switch that users have."""
    mkldnn: Any = torch.backends.mkldnn
    before = mkldnn.enabled
    try:
        mkldnn.enabled = name == "oneDNN's"
        yield
    finally:
        mkldnn.enabled = before
