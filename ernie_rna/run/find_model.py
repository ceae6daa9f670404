"""Checks that a model can be loaded, before torch is imported, which takes seconds."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
import warnings
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ernie_rna.data import MINI, mini

_CONFIG = "config.json"
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_SECONDS = 5.0  # to wait for an answer of the Hub


def find_model(model: Any, revision: str | None = None) -> Any:
    """Return what to load a model from: a folder, a Hub id, or a loaded model unchanged.

    Args:
        model: a converted folder, "mini", or a Hub id. Anything that is not a name or a path is
            returned unchanged.
        revision: branch, tag or commit on the Hub.

    Raises:
        ValueError: it is a file, a folder without a model, or not a valid name.
        FileNotFoundError: the folder does not exist, or this installation lacks `mini`.
        ConnectionError: the model is not in the cache, and the Hub cannot be reached.
    """
    if not isinstance(model, (str, PathLike)):
        return model
    name = fspath(model)
    path = Path(name)
    if not name:
        raise ValueError(f"the model's name is empty; -m {MINI} comes with ernie-rna")
    if name == MINI:
        if path.exists():
            warnings.warn(
                f"{MINI} is the model that comes with ernie-rna; write ./{MINI} for the one here",
                stacklevel=2,
            )
        return str(mini())
    if path.is_file():
        raise ValueError(
            f"{name} is a file, but a model is a folder; convert it first: ernie-rna convert "
            f"{name} {path.stem or 'ERNIE-RNA'}, then -m {path.stem or 'ERNIE-RNA'}"
        )
    if path.is_dir():
        _check_folder(path)
    elif name.startswith((".", "~", "/")) or name.endswith("/") or name.count("/") > 1:
        # A Hub id has at most one slash.
        raise FileNotFoundError(
            f"there is no folder {name}; `ernie-rna convert CHECKPOINT {name}` makes one, and "
            f"-m {MINI} is the model that comes with ernie-rna"
        )
    else:
        _check_on_hub(name, revision)
    return name


def model_files(model: Any) -> list[Path]:
    """The configuration and weights of a model that is a folder; of any other model none."""
    if not isinstance(model, (str, PathLike)):
        return []
    folder = mini() if fspath(model) == MINI else Path(model)
    weights = (path for path in folder.glob("model*") if _WEIGHTS.fullmatch(path.name))
    return [folder / _CONFIG, *weights]


def _check_folder(path: Path) -> None:
    if (path / _CONFIG).is_file():
        return
    if (path / "adapter_config.json").is_file():
        raise ValueError(
            f"{path} holds an adapter of PEFT, not a complete model: merge it into its base model "
            "(docs/for-engineers.md) and give that folder"
        )
    checkpoint = min(map(str, path.glob("*.pt")), default="CHECKPOINT")
    raise ValueError(
        f"{path} is not a model: it has no {_CONFIG}; `ernie-rna convert {checkpoint} OUT_DIR` "
        "converts the authors' checkpoint"
    )


def _check_on_hub(name: str, revision: str | None) -> None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.utils import HFValidationError

    try:
        cached = try_to_load_from_cache(name, _CONFIG, revision=revision)
    except HFValidationError:
        raise ValueError(f"{name!r} is neither a folder here nor a valid Hub id") from None
    reason = None if isinstance(cached, str) else why_no_hub()
    if reason is not None:
        raise ConnectionError(
            f"there is no folder {name} here, and the Hub, which may have a model of that name, "
            f"cannot be reached ({reason}): give a folder that `ernie-rna convert` wrote, or "
            f"-m {MINI}"
        )


def why_no_hub() -> str | None:
    """Return why the Hub cannot be reached; None if it sends any answer."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    address = constants.ENDPOINT
    request = urllib.request.Request(address, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_SECONDS).close()
    except OSError as error:
        reason = str(getattr(error, "reason", error))
        # huggingface_hub has its own certificates, so it may accept one that is refused here.
        if not isinstance(error, urllib.error.HTTPError) and "certificate" not in reason.lower():
            return f"{address}: {reason}"
    return None
