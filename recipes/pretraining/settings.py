"""The JSON file that describes a pretraining.

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

# The configurations that come along, by name.
CONFIGS = {path.stem: path for path in (Path(__file__).parent / "configs").glob("*.json")}

SETTINGS_FILE = "settings.json"  # in the folder of a run

_SHARE = number(0, 1)


def _object(value: Any) -> str | None:
    return None if isinstance(value, Mapping) else "must be an object, names and values"


def _numbers(values: Any) -> str | None:
    return "must be a list of numbers" if not values or any(map(number(), values)) else None


@dataclass(frozen=True, kw_only=True)
class Settings(Options):
    """How to pretrain. Batches are those of each process; max_length is in nucleotides."""

    model: Mapping[str, Any] | None = option(None, "fields of ErnieRnaConfig", check=_object)
    training: Mapping[str, Any] | None = option(None, "of TrainingArguments", check=_object)
    masked: float = option(1.0, "share of masked batches; the others have pairs", check=_SHARE)
    masked_tokens: int = option(16384, "of a batch, padding included", check=whole(1))
    masked_max_length: int = option(1022, "of a longer sequence a window is drawn", check=whole(1))
    masked_share: float = option(0.15, "of the nucleotides, to be predicted", check=_SHARE)
    pairs_squared_tokens: int = option(250_000, "of a batch, padding included", check=whole(1))
    pairs_max_length: int = option(400, "longer sequences are left out", check=whole(1))
    # Pairs, and unpaired bases, change places among themselves: the structure stays, the sequence
    # is new.
    permuted: float = option(0.0, "share of the structures whose bases do so", check=_SHARE)
    permuted_rate: float = option(1.0, "share of the bases at most that do so", check=_SHARE)
    predicted: float = option(0.0, "share of predicted structures, not permuted", check=_SHARE)
    family_power: float = option(1.0, "families count by their size to this", check=number())
    pairing_gain: float = option(1.0, "of new weights for pairing scores", check=number())
    embedding_gain: float = option(1.0, "of new token embeddings", check=number(above=0))
    # Where the residual stream has outgrown what later layers add to it, this brings it back;
    # before the next LayerNorm a scale makes no difference.
    residual_gain: float = option(1.0, "of attention's and feed-forward's last", check=number())
    pair_bias: float = option(
        0.0, "of the pair head at first; a logit has it twice", check=number()
    )
    ema_decay: float = option(0.0, "of the average that is evaluated and exported", check=_SHARE)
    eval_sequences: int = option(200, "how many are evaluated", check=whole(1))
    eval_offset: float = option(0.0, "added to logits, as `export` does", check=number())
    eval_thresholds: tuple[float, ...] = option((1.5,), "the best of which counts", check=_numbers)

    @property
    def has_structures(self) -> bool:
        """Whether the pair head is trained."""
        return self.masked < 1

    @property
    def seed(self) -> int:
        """Of all that is drawn; the default is that of TrainingArguments."""
        return int((self.training or {}).get("seed", 42))


def find_config(config: str) -> Path:
    """The file of a configuration that comes along, by its name, or any file."""
    return CONFIGS.get(config, Path(config))


def read_settings(path: Path) -> Settings:
    """Settings from a JSON file; keys that begin with "_" are remarks.

    Raises:
        InputError: it is no JSON object, or a key or value is none that a setting has.
        OSError: there is no such file.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(given, dict):
            raise TypeError(f"must be a JSON object; got {given!r}")
        values = {name: value for name, value in given.items() if not name.startswith("_")}
        return cast(Settings, make_options(Settings, values, "a configuration"))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}") from error
