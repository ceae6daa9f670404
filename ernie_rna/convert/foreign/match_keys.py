"""Sorts the keys of a checkpoint: to our names, to those that have no place here, to the problems.

The names are those of the tables in `names` and `head_names`, whatever stands before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ernie_rna.convert.foreign.head_names import Head, find_head
from ernie_rna.convert.foreign.names import EMBEDDING, NAMINGS, SIZES, Naming, Row, expand
from ernie_rna.convert.foreign.pickles import CheckpointError


@dataclass
class Draft:
    """A conversion on its way; `keys` tells the checkpoint's key of each of our names."""

    naming: Naming
    prefix: str
    head: Head | None = None
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
        if self.head and row in self.head.rows:
            return name
        return name if name.startswith(self.naming.outside) else self.prefix + name

    def table(self, layers: int) -> list[Row]:
        """The weights that the checkpoint should hold."""
        return [*expand(layers), *(self.head.rows if self.head else ())]


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


def sort_keys(state_dict: Mapping[str, torch.Tensor]) -> Draft:
    """Each key to our name for it, to the dropped ones or to the problems."""
    draft = Draft(*_find_naming(state_dict))
    beside: dict[str, torch.Tensor] = {}
    # Aliases last: where both spellings are there, the alias is the copy.
    for key in sorted(state_dict, key=lambda key: _strip(key, draft) in draft.naming.aliases):
        name, weight = _strip(key, draft), state_dict[key]
        ours = draft.naming.ours(name) if name is not None else None
        if ours is not None:
            _take(draft, ours, key, weight)
        elif name is None:
            beside[key] = weight
        elif reason := draft.naming.dropped.get(name):
            draft.dropped[key] = reason
        else:
            draft.problem("unknown", key)
    _sort_head(draft, beside)
    return draft


def _strip(key: str, draft: Draft) -> str | None:
    """The name of a key in the table's spelling, or None for what is no part of the encoder."""
    if key.startswith(draft.naming.outside):
        return key
    return key.removeprefix(draft.prefix) if key.startswith(draft.prefix) else None


def _sort_head(draft: Draft, beside: Mapping[str, torch.Tensor]) -> None:
    """The same for the keys beside the encoder: of a head that is known, or of another one."""
    module = "module." if draft.prefix.startswith("module.") else ""
    names = {key: key.removeprefix(module) for key in beside if key.startswith(module)}
    if draft.prefix in draft.naming.heads_beside:
        weights = {name: beside[key] for key, name in names.items()}
        draft.head = find_head(weights, draft.naming.column, _count_heads(draft))
    rows = draft.head.rows if draft.head else ()
    ours = {getattr(row, draft.naming.column): row.ours for row in rows}
    for key, weight in beside.items():
        name = names.get(key, "")
        if name in ours:
            _take(draft, ours[name], key, weight)
        elif reason := _why_dropped(draft, name):
            draft.dropped[key] = reason
        else:
            draft.problem("unknown", key)


def _count_heads(draft: Draft) -> int:
    ours, axis = SIZES["num_attention_heads"]
    weight = draft.weights.get(ours)
    return weight.shape[axis] if weight is not None and weight.dim() > axis else 0


def _why_dropped(draft: Draft, name: str) -> str | None:
    """The reason to drop a head that no table knows, or None to refuse it."""
    heads = draft.naming.heads if draft.prefix in draft.naming.heads_beside else {}
    return next((why for start, why in heads.items() if name.startswith(start)), None)


def _take(draft: Draft, ours: str, key: str, weight: torch.Tensor) -> None:
    if ours not in draft.weights:
        draft.weights[ours], draft.keys[ours] = weight, key
    elif torch.equal(draft.weights[ours], weight):
        draft.dropped[key] = f"a copy of {draft.keys[ours]}"
    else:
        draft.problem("differ but must be equal", f"{key} and {draft.keys[ours]}")
