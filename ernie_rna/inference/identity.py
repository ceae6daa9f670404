"""What results depend on beside the input: the weights, the configuration, the versions."""

from __future__ import annotations

import hashlib
import inspect
import json
from os import PathLike, fspath
from typing import Any

import torch
import transformers

from ernie_rna import __version__


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
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
