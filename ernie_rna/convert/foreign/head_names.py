"""The names that the weights of the authors' heads have elsewhere, as `names` for the encoder.

A file of a fine-tuned model is known by its keys: each kind of head has its own, and the maps that
the first convolution of a pair head takes tell structures (one head of the scores) from closeness
(all of them).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from ernie_rna.convert.foreign.names import Row


class Kind(NamedTuple):
    """A kind of fine-tuned model.

    Attributes:
        task: in words.
        model_class: ours.
        config: values of the configuration that the authors' code fixes.
    """

    task: str
    model_class: str
    config: Mapping[str, Any]


# The head of the scores that the authors read structures off, counted from 0.
STRUCTURE = Kind("secondary structure", "ErnieRnaForSecondaryStructure", {"pair_heads": [5]})
CLOSENESS = Kind("closeness", "ErnieRnaForCloseness", {"pair_heads": None})
LOADING = Kind("ribosome loading", "ErnieRnaForRibosomeLoading", {})

# What a batch norm keeps, and its shape behind that of the channels.
_NORM = {
    "weight": True,
    "bias": True,
    "running_mean": True,
    "running_var": True,
    "num_batches_tracked": False,
}
_BLOCK = re.compile(r"(?:resnet|blocks|predictor)\.([0-9]{1,4})\.conv2\.weight$")
# In the authors' predictor a convolution stands before the blocks, and pooling, reshaping and
# dropout between them and the last linear map.
_BEFORE, _BEHIND = 1, 3


class Head(NamedTuple):
    """A head found in a file.

    Attributes:
        kind: of model.
        rows: its weights, with the shape in names of `sizes`, or numbers.
        sizes: what the weights say.
        config: values of the configuration that follow from all of this.
    """

    kind: Kind
    rows: list[Row]
    sizes: Mapping[str, int]
    config: Mapping[str, Any]


def find_head(weights: Mapping[str, torch.Tensor], column: str, num_heads: int) -> Head | None:
    """The head that some weights are, or None.

    Args:
        weights: beside the encoder, by their names without `module.`.
        column: whose names these are, "fairseq" or "multimolecule".
        num_heads: attention heads of the encoder.
    """
    found = (_BLOCK.search(name) for name in weights)
    numbers = [int(match[1]) for match in found if match]
    first, loading = weights.get(_name(_PAIR[0], column)), "head.reductio_module.weight"
    most = len(weights)  # With an absurd number in one name, it is that key which is unknown.
    if first is not None and first.dim() == 4:
        blocks = min(1 + max(numbers, default=0), most)
        return _pair_head(weights, column, first.shape[1], num_heads, blocks)
    if loading in weights and column == "fairseq":
        return _loading_head(weights, min(max(numbers, default=1), most))
    return None


def _pair_head(
    weights: Mapping[str, torch.Tensor], column: str, maps: int, num_heads: int, blocks: int
) -> Head:
    kind = CLOSENESS if maps == num_heads else STRUCTURE
    sizes = {"pair_maps": 1 if kind is STRUCTURE else num_heads}
    last = weights.get(_name(_PAIR[-2], column))
    if last is not None and last.dim() == 4:
        sizes["pair_channels"] = last.shape[1]
        sizes["pair_expanded"] = last.shape[1] - sizes["pair_maps"]
    config = {**kind.config, "pair_blocks": blocks}
    if "pair_channels" in sizes:
        config["pair_channels"] = sizes["pair_channels"]
    return Head(kind, pair_rows(blocks), sizes, config)


def _loading_head(weights: Mapping[str, torch.Tensor], blocks: int) -> Head:
    sizes = {}
    for name, key, axis in (
        ("loading_reduced_size", "head.reductio_module.weight", 0),
        ("loading_channels", "head.predictor.0.weight", 0),
    ):
        if key in weights and weights[key].dim() > axis:
            sizes[name] = weights[key].shape[axis]
    config = {**LOADING.config, "loading_blocks": blocks, **sizes}
    return Head(LOADING, loading_rows(blocks), sizes, config)


def _name(row: Row, column: str) -> str:
    name: str = getattr(row, column)
    return name


def pair_rows(blocks: int) -> list[Row]:
    """The weights of a pair head; its first row is that of the first convolution's weight."""
    rows = list(_PAIR[:4])
    for block in range(blocks):
        ours, theirs = f"pair_head.blocks.{block}", f"proj.resnet.{block}"
        copy = f"ss_head.convnet.blocks.{block}"
        rows += _norm(f"{ours}.norm", f"{theirs}.bn1", f"{copy}.norm", "pair_channels")
        for part in ("conv1.weight", "conv2.weight"):
            shape = ("pair_channels", "pair_channels", "3", "3")
            rows.append(Row(f"{ours}.{part}", f"{theirs}.{part}", f"{copy}.{part}", shape))
    return [*rows, *_PAIR[4:]]


def loading_rows(blocks: int) -> list[Row]:
    """The weights of a ribosome loading head. MultiMolecule has none, and no names for them."""
    rows = [
        *_module("reduce", "reductio_module", "loading_reduced_size", "hidden_size"),
        *_module("conv_in", "predictor.0", _CHANNELS, "loading_reduced_size", "3"),
    ]
    for block in range(blocks):
        ours, theirs = f"blocks.{block}", f"predictor.{block + _BEFORE}"
        for number in ("1", "2"):
            rows += _loading_norm(f"{ours}.norm{number}", f"{theirs}.bn{number}")
            shape = (_CHANNELS, _CHANNELS, "3")
            rows.append(_weight(f"{ours}.conv{number}", f"{theirs}.conv{number}", *shape))
        if block % 2 == 0:
            shape = (_CHANNELS, _CHANNELS, "1")
            rows.append(_weight(f"{ours}.shortcut", f"{theirs}.downsample.0", *shape))
            rows += _loading_norm(f"{ours}.shortcut_norm", f"{theirs}.downsample.1")
    last = f"predictor.{blocks + _BEFORE + _BEHIND}"
    return [*rows, *_module("output", last, "1", _CHANNELS)]


_CHANNELS = "loading_channels"


def _weight(ours: str, theirs: str, *shape: str) -> Row:
    return Row(f"loading_head.{ours}.weight", f"head.{theirs}.weight", "", shape)


def _module(ours: str, theirs: str, *shape: str) -> list[Row]:
    """A weight, and a bias of its first dimension."""
    bias = Row(f"loading_head.{ours}.bias", f"head.{theirs}.bias", "", shape[:1])
    return [_weight(ours, theirs, *shape), bias]


def _loading_norm(ours: str, theirs: str) -> list[Row]:
    return _norm(f"loading_head.{ours}", f"head.{theirs}", "", _CHANNELS)


def _norm(ours: str, theirs: str, copy: str, channels: str) -> list[Row]:
    return [
        Row(
            f"{ours}.{part}",
            f"{theirs}.{part}",
            copy and f"{copy}.{part}",
            (channels,) if per_channel else (),
        )
        for part, per_channel in _NORM.items()
    ]


_PAIR = tuple(
    Row(f"pair_head.{ours}.{part}", f"{theirs}.{part}", f"ss_head.{copy}.{part}", shape)
    for ours, theirs, copy, dimensions in (
        ("conv_in", "conv1", "conv1", ("8", "pair_maps", "7", "7")),
        ("conv_expand", "conv2", "conv2", ("pair_expanded", "8", "7", "7")),
        ("conv_out", "proj.final", "convnet.projection", ("1", "pair_channels", "3", "3")),
    )
    for part, shape in (("weight", dimensions), ("bias", dimensions[:1]))
)
