"""What results depend on beside the input: settings, weights, configuration, versions."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import dataclass
from numbers import Integral
from os import PathLike, fspath
from typing import Any

import torch
import transformers

from ernie_rna import __version__
from ernie_rna.sequences.batches import Plan


@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments that all functions share which compute something of sequences.

    Raises:
        ValueError: a number is not whole, or below 1.
    """

    long: str
    unknown: str
    batch_tokens: int | None
    dtype: str | None
    device: str | None
    attention: str | None
    threads: int | None
    revision: str | None

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "threads"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Integral) and int(value) >= 1):
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")

    @property
    def loading(self) -> dict[str, Any]:
        """Those of `loading.load_model`."""
        names = ("revision", "dtype", "device", "attention")
        return {name: getattr(self, name) for name in names}


def describe(given: Any, model: Any, options: Options, plan: Plan) -> dict[str, Any]:
    """What results depend on beside the input and the machine, for JSON.

    Args:
        given: what the caller named as the model.
        model: what was loaded of it.
    """
    return {
        "model": {
            "name": model_name(given),
            "revision": getattr(model.config, "_commit_hash", None),
            "sha256": model_sha256(model),
        },
        "settings": {
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
            "attention": model.config._attn_implementation,
            "threads": options.threads if model.device.type == "cpu" else None,
            "batch_tokens": plan.batch_tokens,
            "long": plan.long,
            "unknown": options.unknown,
        },
        "versions": versions(),
    }


def model_sha256(model: Any) -> str:
    """Digest of all that results depend on: the weights (the pooler left out), the config."""
    digest = hashlib.sha256()
    names = inspect.signature(type(model.config).__init__).parameters
    values = model.config.to_dict()
    fields = {name: values[name] for name in sorted(names) if name in values}
    digest.update(json.dumps(fields, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith("pooler."):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def model_name(model: Any) -> str:
    """The folder or Hub id that a caller gave, or that a model was loaded from."""
    if isinstance(model, (str, PathLike)):
        return fspath(model)
    return str(model.config._name_or_path)


def versions() -> dict[str, str]:
    """The versions that results depend on, by package."""
    return {
        "ernie_rna": __version__,
        "torch": str(torch.__version__),  # Its own type compares as versions do: 2.13 is 2.13.0.
        "transformers": transformers.__version__,
    }
