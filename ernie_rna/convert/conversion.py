"""Turns a checkpoint into weights and a configuration of this package.

The names come from the table in `foreign.names`, strict both ways: a key that it does not know, a
key that is missing and a key of another shape are errors, all of them named at once; a key that
has no place in the model is dropped with a reason. Sizes come from the weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ernie_rna.convert.foreign.head_names import Kind, loading_rows, pair_rows
from ernie_rna.convert.foreign.match_keys import Draft, sort_keys
from ernie_rna.convert.foreign.names import (
    EMBEDDING,
    MULTIMOLECULE,
    SIZES,
    THEIR_EXTRA_POSITIONS,
    Row,
    count_layers,
    expand,
)
from ernie_rna.convert.foreign.pickles import CheckpointError
from ernie_rna.convert.foreign.reading import Checkpoint
from ernie_rna.convert.foreign.vocabulary import reorder_tokens
from ernie_rna.model.configuration_ernie_rna import VOCABULARY, ErnieRnaConfig

# For what a checkpoint lacks and transformers would draw anew at each loading.
_SEED = 0
_NEW_WEIGHTS = (
    f"not in the checkpoint: as for a new model, from seed {_SEED} (weights N(0, 0.02), biases 0, "
    "LayerNorm 1 and 0)"
)
# Parts of the pretrained model that a fine-tuned one does not use.
_PRETRAINING = ("lm_head.", "ernie_rna.pooler.")
_UNUSED = "of the pretrained model; the fine-tuned one does not use it"


# Whether weights were ever trained, in `weights_origin` of the configuration.
RANDOM = "random"
CHECKPOINT = "checkpoint"

# Embeddings of the tokens before the fillers, float32, by their SHA-256: that of this project's
# golden checkpoints, drawn at random for tests, and with LayerNorms other than 1 and 0.
_RANDOM_EMBEDDINGS = frozenset(
    ("eefb026cafb61bca6d9a7fb393ce9b83105bbd766608dddede705b7914db9e31",)
)


@dataclass(frozen=True)
class Conversion:
    """Weights and configuration of this package, and how they came about.

    Attributes:
        source: the checkpoint that was converted.
        naming: whose names its weights had, "fairseq" or "multimolecule".
        config: sizes from the weights, rates from the settings, `norm_first=False`, and in
            `weights_origin` whether they were ever trained.
        kind: of the fine-tuned model; None for the pretrained one.
        state_dict: our name -> weight, floats in float32: of the fine-tuned model, or
            `ErnieRnaForMaskedLM` without the tied decoder weight, and the pooler of
            `ErnieRnaModel`.
        dropped: key, or key[token], of the checkpoint -> why it has no place here.
        initialised: our name, or name[token] -> by which rule, for what the checkpoint lacks.
        notes: what else was done to the values.
    """

    source: Checkpoint
    naming: str
    config: ErnieRnaConfig
    kind: Kind | None
    state_dict: dict[str, torch.Tensor]
    dropped: dict[str, str]
    initialised: dict[str, str]
    notes: tuple[str, ...]


def convert_weights(checkpoint: Checkpoint, pairing_scores: str = "sequence") -> Conversion:
    """Rename, check and complete the weights of a checkpoint; they are copies.

    Args:
        pairing_scores: for the configuration, see `export.convert`.

    Raises:
        CheckpointError: keys are unknown, missing or misshaped, or the settings disagree with
            the weights or ask for another model.
    """
    try:
        draft = sort_keys(checkpoint.state_dict)
        draft.raise_problems()
        if draft.naming is MULTIMOLECULE:
            dropped, initialised = reorder_tokens(draft.weights, draft.keys, checkpoint)
            draft.dropped |= dropped
            draft.initialised |= initialised
        sizes = _check_table(draft)
        config = _configure(draft, sizes, checkpoint.args or {}, pairing_scores)
        if draft.head:
            _drop_unused(draft)
        else:
            _add_optional(draft, config)
        weights = _as_float32(draft)
        config.weights_origin = weights_origin(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error.__cause__
    return Conversion(
        source=checkpoint,
        naming=draft.naming.column,
        config=config,
        kind=draft.head.kind if draft.head else None,
        state_dict={
            row.ours: weights[row.ours]
            for row in draft.table(config.num_hidden_layers)
            if row.ours in weights
        },
        dropped=draft.dropped,
        initialised=draft.initialised,
        notes=tuple(draft.notes),
    )


def to_fairseq(
    state_dict: Mapping[str, torch.Tensor], prefix: str = "encoder."
) -> dict[str, torch.Tensor]:
    """The inverse of the name tables: our weights under the authors' names.

    Args:
        state_dict: of `convert_weights`; of a fine-tuned model it lacks what that does not use.
        prefix: before the names of the encoder; `module.` in it stands before the head's as well.

    Raises:
        CheckpointError: a name that the tables do not know, or one that is missing.
    """
    blocks = 1 + max(
        (int(match[1]) for match in map(_OUR_BLOCK.match, state_dict) if match), default=0
    )
    heads = {"pair_head.": pair_rows, "loading_head.": loading_rows}
    found = [rows for start, rows in heads.items() if any(n.startswith(start) for n in state_dict)]
    names = {row.ours: prefix + row.fairseq for row in expand(count_layers(state_dict))}
    if found:
        names = {ours: name for ours, name in names.items() if not ours.startswith(_PRETRAINING)}
        module = "module." if prefix.startswith("module.") else ""
        names |= {row.ours: module + row.fairseq for rows in found for row in rows(blocks)}
    odd = sorted(names.keys() ^ state_dict.keys())
    if odd:
        raise CheckpointError(f"unknown or missing: {', '.join(odd)}")
    return {names[name]: weight for name, weight in state_dict.items()}


_OUR_BLOCK = re.compile(r"(?:pair|loading)_head\.blocks\.([0-9]{1,4})\.")


def _check_table(draft: Draft) -> dict[str, int]:
    """The sizes; raise unless the weights are those of the table, and of its shapes."""
    layers = count_layers(draft.weights)
    if layers > len(draft.weights):
        layers = 1  # an absurd number in one name: it is that key which is unknown
    sizes = {"num_hidden_layers": layers}
    for size, (ours, axis) in SIZES.items():
        if ours in draft.weights and draft.weights[ours].dim() > axis:
            sizes[size] = draft.weights[ours].shape[axis]
    if draft.head:
        sizes |= draft.head.sizes
    lacking = _lacking_groups(draft)
    table = draft.table(layers)
    for row in table:
        if row.ours in draft.weights:
            _check_shape(draft, row, sizes)
        elif not row.ours.startswith(lacking):
            draft.problem("missing", draft.their_name(row))
    for ours in draft.weights.keys() - {row.ours for row in table}:
        draft.problem("unknown", draft.keys[ours])
    if sizes.get("vocab_size", len(VOCABULARY)) != len(VOCABULARY):
        rows, key = sizes["vocab_size"], draft.keys[EMBEDDING.ours]
        draft.problem("misshaped", f"{key} has {rows} tokens, the dictionary {len(VOCABULARY)}")
    draft.raise_problems()
    return sizes


def _check_shape(draft: Draft, row: Row, sizes: Mapping[str, int]) -> None:
    weight, key = draft.weights[row.ours], draft.keys[row.ours]
    expected = tuple(int(size) if size.isdigit() else sizes.get(size) for size in row.shape)
    shape = tuple(weight.shape)
    fits = len(shape) == len(expected) and all(
        size in (given, None) for given, size in zip(shape, expected, strict=True)
    )
    if not fits:
        draft.problem("misshaped", f"{key} {shape} instead of {expected}")
    if weight.is_floating_point() == row.ours.endswith("num_batches_tracked"):
        draft.problem("numbers of another kind", f"{key} ({weight.dtype})")


def _configure(
    draft: Draft, sizes: Mapping[str, Any], args: Mapping[str, Any], pairing_scores: str
) -> ErnieRnaConfig:
    """The configuration; raise where the settings disagree with the weights or the model."""
    naming = draft.naming
    for theirs, ours in naming.sizes.items():
        if theirs in args and args[theirs] != sizes[ours]:
            draft.problem(
                "settings that disagree with the weights",
                f"{theirs}={args[theirs]!r}, by the weights {sizes[ours]}",
            )
    for theirs, only in naming.fixed.items():
        if theirs in args and args[theirs] != only:
            draft.problem(
                "settings of another model", f"{theirs}={args[theirs]!r} instead of {only!r}"
            )
    draft.raise_problems()
    values: dict[str, Any] = {
        ours: args[theirs] for theirs, ours in naming.values.items() if theirs in args
    }
    values |= {"norm_first": False, "pairing_scores": pairing_scores}
    try:
        if naming is MULTIMOLECULE and "max_position_embeddings" in args:
            rows = args["max_position_embeddings"]
            values["max_position_embeddings"] = rows - THEIR_EXTRA_POSITIONS
        if draft.head:
            own = {size: sizes[size] for size in ("num_hidden_layers", *SIZES)}
            return ErnieRnaConfig(**values, **own, **draft.head.config)
        return ErnieRnaConfig(**values, **sizes)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"sizes or settings that fit no model: {error}") from error


def _lacking_groups(draft: Draft) -> tuple[str, ...]:
    """The optional parts of which the checkpoint has no weight at all."""
    return tuple(
        start
        for start in draft.naming.optional
        if not any(ours.startswith(start) for ours in draft.weights)
    )


def _drop_unused(draft: Draft) -> None:
    """Leave out what a fine-tuned model does not use of the pretrained one."""
    for ours in [ours for ours in draft.weights if ours.startswith(_PRETRAINING)]:
        del draft.weights[ours]
        draft.dropped[draft.keys[ours]] = _UNUSED
    for ours in [ours for ours in draft.initialised if ours.startswith(_PRETRAINING)]:
        del draft.initialised[ours]


def _add_optional(draft: Draft, config: ErnieRnaConfig) -> None:
    lacking = _lacking_groups(draft)
    generator = torch.Generator().manual_seed(_SEED)
    for row in expand(config.num_hidden_layers):
        if not row.ours.startswith(lacking):
            continue
        shape = [getattr(config, size) for size in row.shape]
        if row.ours.endswith("layer_norm.weight"):
            weight = torch.ones(shape)
        elif len(shape) == 1:
            weight = torch.zeros(shape)
        else:
            weight = torch.randn(shape, generator=generator) * config.initializer_range
        draft.weights[row.ours], draft.initialised[row.ours] = weight, _NEW_WEIGHTS


def _as_float32(draft: Draft) -> dict[str, torch.Tensor]:
    dtypes = {weight.dtype for weight in draft.weights.values()} - {torch.float32, torch.long}
    for dtype in sorted(dtypes, key=str):
        how = "rounded" if dtype == torch.float64 else "exactly"
        draft.notes.append(f"weights in {dtype} were turned into float32 ({how})")
    return {
        name: weight.clone()
        if weight.dtype == torch.long
        else torch.empty(weight.shape, dtype=torch.float32).copy_(weight)
        for name, weight in draft.weights.items()
    }


def weights_origin(state_dict: Mapping[str, torch.Tensor]) -> str:
    """`RANDOM` for weights that were drawn and never trained, else `CHECKPOINT`.

    Random are the golden checkpoints, and a model whose every LayerNorm is exactly 1 and 0, as a
    new model's is and that of none that took a step.

    Args:
        state_dict: by our names, in float32.
    """
    embedding = state_dict[EMBEDDING.ours][: VOCABULARY.index("madeupword0000")]
    digest = hashlib.sha256(embedding.contiguous().numpy().tobytes()).hexdigest()
    if digest in _RANDOM_EMBEDDINGS:
        return RANDOM
    norms = ((name, weight) for name, weight in state_dict.items() if "layer_norm." in name)
    untouched = all(bool((w == float(name.endswith("weight"))).all()) for name, w in norms)
    return RANDOM if untouched else CHECKPOINT
