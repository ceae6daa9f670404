"""Turns a checkpoint into weights and a configuration of this package.

The names come from the table in `names`, strict both ways: a key that it does not know, a key
that is missing and a key of another shape are errors, all of them named at once; a key that has
no place in the model is dropped with a reason. Sizes come from the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from configuration_ernie_rna import VOCABULARY, ErnieRnaConfig
from ernie_rna.checkpoints.names import (
    EMBEDDING,
    MULTIMOLECULE,
    NAMINGS,
    SIZES,
    THEIR_EXTRA_POSITIONS,
    Naming,
    Row,
    count_layers,
    expand,
)
from ernie_rna.checkpoints.origin import weights_origin
from ernie_rna.checkpoints.pickles import CheckpointError
from ernie_rna.checkpoints.reading import Checkpoint
from ernie_rna.checkpoints.vocabulary import reorder_tokens

# For what a checkpoint lacks and transformers would draw anew at each loading.
_SEED = 0
_NEW_WEIGHTS = (
    f"not in the checkpoint: as for a new model, from seed {_SEED} (weights N(0, 0.02), biases 0, "
    "LayerNorm 1 and 0)"
)


@dataclass(frozen=True)
class Conversion:
    """Weights and configuration of this package, and how they came about.

    Attributes:
        source: the checkpoint that was converted.
        naming: whose names its weights had, "fairseq" or "multimolecule".
        config: sizes from the weights, rates from the settings, `norm_first=False`, and in
            `weights_origin` whether they were ever trained.
        state_dict: our name -> weight, in float32: `ErnieRnaForMaskedLM` without the tied
            decoder weight, and the pooler of `ErnieRnaModel`.
        dropped: key, or key[token], of the checkpoint -> why it has no place here.
        initialised: our name, or name[token] -> by which rule, for what the checkpoint lacks.
        notes: what else was done to the values.
    """

    source: Checkpoint
    naming: str
    config: ErnieRnaConfig
    state_dict: dict[str, torch.Tensor]
    dropped: dict[str, str]
    initialised: dict[str, str]
    notes: tuple[str, ...]


@dataclass
class _Draft:
    """A conversion on its way; `keys` tells the checkpoint's key of each of our names."""

    naming: Naming
    prefix: str
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    initialised: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)

    def problem(self, kind: str, what: str) -> None:
        self.problems.setdefault(kind, []).append(what)

    def raise_problems(self) -> None:
        if self.problems:
            kinds = (f"{kind}: {', '.join(sorted(found))}" for kind, found in self.problems.items())
            raise CheckpointError("; ".join(kinds))

    def their_name(self, row: Row) -> str:
        name: str = getattr(row, self.naming.column)
        return name if name.startswith(self.naming.outside) else self.prefix + name


def convert_weights(checkpoint: Checkpoint) -> Conversion:
    """Rename, check and complete the weights of a checkpoint; they are copies.

    Raises:
        CheckpointError: keys are unknown, missing or misshaped, or the settings disagree with
            the weights or ask for another model.
    """
    try:
        draft = _sort_keys(checkpoint.state_dict)
        draft.raise_problems()
        if draft.naming is MULTIMOLECULE:
            dropped, initialised = reorder_tokens(draft.weights, draft.keys, checkpoint)
            draft.dropped |= dropped
            draft.initialised |= initialised
        sizes = _check_table(draft)
        config = _configure(draft, sizes, checkpoint.args or {})
        _add_optional(draft, config)
        weights = _as_float32(draft)
        config.weights_origin = weights_origin(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error.__cause__
    return Conversion(
        source=checkpoint,
        naming=draft.naming.column,
        config=config,
        state_dict={row.ours: weights[row.ours] for row in expand(config.num_hidden_layers)},
        dropped=draft.dropped,
        initialised=draft.initialised,
        notes=tuple(draft.notes),
    )


def to_fairseq(
    state_dict: Mapping[str, torch.Tensor], prefix: str = "encoder."
) -> dict[str, torch.Tensor]:
    """The inverse of the name table: our weights under the authors' names.

    Raises:
        CheckpointError: a name that the table does not know, or one that is missing.
    """
    names = {row.ours: prefix + row.fairseq for row in expand(count_layers(state_dict))}
    odd = sorted(names.keys() ^ state_dict.keys())
    if odd:
        raise CheckpointError(f"unknown or missing: {', '.join(odd)}")
    return {names[name]: weight for name, weight in state_dict.items()}


def _find_naming(names: Mapping[str, Any]) -> tuple[Naming, str]:
    """Whose names these are, and the prefix before them: where the token embedding is found."""
    found = [
        (naming, prefix)
        for naming in NAMINGS
        for prefix in naming.prefixes
        if prefix + getattr(EMBEDDING, naming.column) in names
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointError(f"holds {len(found)} models, under {[prefix for _, prefix in found]}")
    if EMBEDDING.ours in names:
        raise CheckpointError("converted already: load its folder with AutoModel.from_pretrained")
    some = ", ".join(list(names)[:3]) or "none"
    raise CheckpointError(
        f"not a model of ERNIE-RNA: no {EMBEDDING.fairseq} (fairseq) or {EMBEDDING.multimolecule} "
        f"(MultiMolecule) behind a known prefix among its {len(names)} keys ({some}, …)"
    )


def _sort_keys(state_dict: Mapping[str, torch.Tensor]) -> _Draft:
    """Each key to our name for it, to the dropped ones or to the problems."""
    draft = _Draft(*_find_naming(state_dict))
    # Aliases last: where both spellings are there, the alias is the copy.
    for key in sorted(state_dict, key=lambda key: _strip(key, draft) in draft.naming.aliases):
        name, weight = _strip(key, draft), state_dict[key]
        ours = draft.naming.ours(name) if name is not None else None
        if ours is not None:
            _take(draft, ours, key, weight)
        elif reason := _why_dropped(draft, key, name):
            draft.dropped[key] = reason
        else:
            draft.problem("unknown", key)
    return draft


def _strip(key: str, draft: _Draft) -> str | None:
    """The name of a key in the table's spelling, or None for what is no part of the model."""
    if key.startswith(draft.naming.outside):
        return key
    return key.removeprefix(draft.prefix) if key.startswith(draft.prefix) else None


def _why_dropped(draft: _Draft, key: str, name: str | None) -> str | None:
    """The reason to drop a key that `TABLE` does not know, or None to refuse it."""
    if name is not None:
        return draft.naming.dropped.get(name)
    heads = draft.naming.heads if draft.prefix in draft.naming.heads_beside else {}
    head = key.removeprefix("module.")
    return next((why for start, why in heads.items() if head.startswith(start)), None)


def _take(draft: _Draft, ours: str, key: str, weight: torch.Tensor) -> None:
    if ours not in draft.weights:
        draft.weights[ours], draft.keys[ours] = weight, key
    elif torch.equal(draft.weights[ours], weight):
        draft.dropped[key] = f"a copy of {draft.keys[ours]}"
    else:
        draft.problem("differ but must be equal", f"{key} and {draft.keys[ours]}")


def _check_table(draft: _Draft) -> dict[str, int]:
    """The sizes; raise unless the weights are those of the table, and of its shapes."""
    layers = count_layers(draft.weights)
    if layers > len(draft.weights):
        layers = 1  # an absurd number in one name: it is that key which is unknown
    sizes = {"num_hidden_layers": layers}
    for size, (ours, axis) in SIZES.items():
        if ours in draft.weights and draft.weights[ours].dim() > axis:
            sizes[size] = draft.weights[ours].shape[axis]
    lacking = _lacking_groups(draft)
    table = expand(layers)
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


def _check_shape(draft: _Draft, row: Row, sizes: Mapping[str, int]) -> None:
    weight, key = draft.weights[row.ours], draft.keys[row.ours]
    expected = tuple(int(size) if size.isdigit() else sizes.get(size) for size in row.shape)
    shape = tuple(weight.shape)
    fits = len(shape) == len(expected) and all(
        size in (given, None) for given, size in zip(shape, expected, strict=True)
    )
    if not fits:
        draft.problem("misshaped", f"{key} {shape} instead of {expected}")
    if not weight.is_floating_point():
        draft.problem("not numbers with a fraction", f"{key} ({weight.dtype})")


def _configure(draft: _Draft, sizes: Mapping[str, Any], args: Mapping[str, Any]) -> ErnieRnaConfig:
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
    try:
        if naming is MULTIMOLECULE and "max_position_embeddings" in args:
            rows = args["max_position_embeddings"]
            values["max_position_embeddings"] = rows - THEIR_EXTRA_POSITIONS
        return ErnieRnaConfig(norm_first=False, **values, **sizes)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"sizes or settings that fit no model: {error}") from error


def _lacking_groups(draft: _Draft) -> tuple[str, ...]:
    """The optional parts of which the checkpoint has no weight at all."""
    return tuple(
        start
        for start in draft.naming.optional
        if not any(ours.startswith(start) for ours in draft.weights)
    )


def _add_optional(draft: _Draft, config: ErnieRnaConfig) -> None:
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


def _as_float32(draft: _Draft) -> dict[str, torch.Tensor]:
    dtypes = {weight.dtype for weight in draft.weights.values()} - {torch.float32}
    for dtype in sorted(dtypes, key=str):
        how = "rounded" if dtype == torch.float64 else "exactly"
        draft.notes.append(f"weights in {dtype} were turned into float32 ({how})")
    return {
        name: torch.empty(weight.shape, dtype=torch.float32).copy_(weight)
        for name, weight in draft.weights.items()
    }
