"""The JSON file that a pretraining run is described by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ernie_rna.sequences.fasta import InputError


@dataclass(frozen=True)
class MaskedLMPart:
    """Batches of masked sequences.

    Attributes:
        fraction: of all steps; the others are of pairs.
        tokens: of a batch on each process, padding and special tokens included.
        max_length: nucleotides; of a longer sequence a window is drawn.
        probability: share of the nucleotides that are to be predicted.
    """

    fraction: float = 1.0
    tokens: int = 16384
    max_length: int = 1022
    probability: float = 0.15


@dataclass(frozen=True)
class StructurePart:
    """Batches of unmasked sequences with their pairs.

    Sequences without pairs are left out, see `data.with_pairs`.

    Attributes:
        squared_tokens: of a batch on each process, padding included.
        max_length: nucleotides; longer sequences are left out.
        permuted: share of the sequences whose pairs, and whose unpaired bases, change places
            among themselves, so that the structure stays and the sequence is new.
        permuted_rate: largest share of a sequence's pairs and bases that do.
        predicted: share of the sequences that come from the table of predicted structures, which
            are not permuted.
    """

    squared_tokens: int = 250_000
    max_length: int = 400
    permuted: float = 0.0
    permuted_rate: float = 1.0
    predicted: float = 0.0


@dataclass(frozen=True)
class Settings:
    """How to pretrain.

    Attributes:
        model: fields of ErnieRnaConfig that differ from its defaults.
        family_power: families are drawn by their size to this power: 0 all alike, 1 as they come.
        steps: optimizer steps.
        warmup_steps: of which the learning rate rises in the first.
        decay_steps: of which it falls to 0 in the last, linearly; between the two it is constant.
        accumulate: batches to a step.
        pairing_gain: newly drawn weights of the pairing projection are multiplied by this.
        embedding_gain: and those of the token embedding.
        residual_gain: and the last maps of attention and feed-forward, or those of the weights that
            are begun with. Where the residual stream has outgrown what later layers add to it,
            this brings it back; before the next LayerNorm a scale makes no difference.
        pair_bias: what the pair head's last bias begins with; a logit has it twice.
        ema_decay: of the moving average of the weights, which is evaluated and exported; 0 for
            none.
        workers: processes beside each training one that make its batches, which stay the same.
        eval_sequences: of the validation split, with structures, that F1 is computed on.
        eval_offset: added to the logits there, see `export.Calibration`.
        eval_thresholds: thresholds of the structure prediction that are tried there.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    masked_lm: MaskedLMPart = MaskedLMPart()
    structure: StructurePart = StructurePart()
    family_power: float = 1.0
    steps: int = 1000
    warmup_steps: int = 100
    decay_steps: int = 900
    accumulate: int = 1
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    adam_betas: tuple[float, float] = (0.9, 0.98)
    adam_epsilon: float = 1e-6
    max_grad_norm: float = 1.0
    pairing_gain: float = 1.0
    embedding_gain: float = 1.0
    residual_gain: float = 1.0
    pair_bias: float = 0.0
    ema_decay: float = 0.0
    bf16: bool = False
    workers: int = 0
    eval_steps: int = 500
    eval_sequences: int = 200
    eval_offset: float = 0.0
    eval_thresholds: tuple[float, ...] = (1.5,)
    save_steps: int = 500
    logging_steps: int = 50
    seed: int = 0


def read_settings(path: str | Path) -> Settings:
    """Settings from a JSON file; keys that begin with "_" are remarks.

    Raises:
        InputError: it is no JSON object or has a key that is no setting.
    """
    try:
        values = json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: no JSON: {error}") from error
    parts = {"masked_lm": MaskedLMPart, "structure": StructurePart}
    values = _known(path, values, Settings)
    for name, part in parts.items():
        if name in values:
            values[name] = part(**_known(path, values[name], part))
    return Settings(**values)


def _known(path: str | Path, values: Any, part: type) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InputError(f"{path}: a JSON object is needed; got {values!r}")
    values = {name: value for name, value in values.items() if not name.startswith("_")}
    names = {each.name for each in fields(part)}
    for name in values:
        if name not in names:
            raise InputError(f"{path}: {name!r} is none of {', '.join(sorted(names))}")
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
