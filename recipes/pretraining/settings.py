"""The settings of a pretraining, in a JSON file such as

{"_about": "a remark", "model": {"hidden_size": 192}, "training": {"max_steps": 3800},
 "masked": 0.2, "ema_decay": 0.999}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ernie_rna.options import Options, make_options, number, option, whole
from ernie_rna.sequences.fasta import InputError

# Name -> file of each configuration that is included.
CONFIGS = {path.stem: path for path in (Path(__file__).parent / "configs").glob("*.json")}

SETTINGS_FILE = "settings.json"  # in the folder of a run

_SHARE = number(0, 1)


def _object(value: Any) -> str | None:
    return None if isinstance(value, Mapping) else "must be an object of names and values"


def _numbers(values: Any) -> str | None:
    return "must be a list of numbers" if not values or any(map(number(), values)) else None


@dataclass(frozen=True, kw_only=True)
class Settings(Options):
    """How to pretrain. Batch limits are for each process; max_length is in nucleotides."""

    model: Mapping[str, Any] | None = option(None, "fields of ErnieRnaConfig", check=_object)
    training: Mapping[str, Any] | None = option(None, "of TrainingArguments", check=_object)
    masked: float = option(1.0, "share of masked batches; the others have pairs", check=_SHARE)
    masked_tokens: int = option(16384, "limit of a batch, with padding", check=whole(1))
    masked_max_length: int = option(1022, "longer sequences are cut to a window", check=whole(1))
    masked_share: float = option(0.15, "share of the nucleotides to predict", check=_SHARE)
    pairs_squared_tokens: int = option(250_000, "limit of a batch, with padding", check=whole(1))
    pairs_max_length: int = option(400, "longer sequences are left out", check=whole(1))
    # Permuting pairs among pairs, and unpaired bases among unpaired bases, makes a new sequence
    # with the same structure.
    permuted: float = option(0.0, "share of structures with permuted bases", check=_SHARE)
    permuted_rate: float = option(1.0, "most of their bases that are permuted", check=_SHARE)
    predicted: float = option(0.0, "share of predicted structures, not permuted", check=_SHARE)
    family_power: float = option(1.0, "a family's weight is its size ** this", check=number())
    pairing_gain: float = option(1.0, "scales new weights for pairing scores", check=number())
    embedding_gain: float = option(1.0, "scales new token embeddings", check=number(above=0))
    # If the residual stream has grown too large for the output of later layers to matter, this
    # restores the balance; the next LayerNorm makes the overall scale irrelevant.
    residual_gain: float = option(1.0, "scales each layer's residual branches", check=number())
    pair_bias: float = option(0.0, "initial pair-head bias, twice in a logit", check=number())
    ema_decay: float = option(0.0, "of the average that is evaluated and exported", check=_SHARE)
    eval_sequences: int = option(200, "how many are evaluated", check=whole(1))
    eval_offset: float = option(0.0, "added to the logits, as by `export`", check=number())
    eval_thresholds: tuple[float, ...] = option((1.5,), "the best one counts", check=_numbers)

    @property
    def has_structures(self) -> bool:
        """Whether the pair head is trained."""
        return self.masked < 1

    @property
    def seed(self) -> int:
        """The seed of all random draws; defaults to that of TrainingArguments."""
        return int((self.training or {}).get("seed", 42))


def find_config(config: str) -> Path:
    """The path of an included configuration, given its name, or of any other file."""
    return CONFIGS.get(config, Path(config))


def read_settings(path: Path) -> Settings:
    """Read settings from a JSON file; keys that start with "_" are remarks.

    Raises:
        InputError: it is not a JSON object, or has an unknown key or an invalid value.
        OSError: there is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError(f"must be a JSON object; got {content!r}")
        values = {name: value for name, value in content.items() if not name.startswith("_")}
        return cast(Settings, make_options(Settings, values, "a configuration"))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}") from error
