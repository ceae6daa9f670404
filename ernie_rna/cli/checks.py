"""What can be known before torch is imported, which takes seconds: of inputs, outputs and models.

Each function raises an error that tells the next step. The library checks again what it loads.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

from ernie_rna.data import MINI

_CONFIG = "config.json"
_SECONDS = 5.0  # to wait for the Hub to answer at all


def check_input(path: str) -> None:
    """Raise FileNotFoundError or IsADirectoryError unless an input is there; "-" always is."""
    if path == "-":
        return
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such file")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path}: a folder; name a file in it")


def check_output(output: str, extension: str, force: bool) -> None:
    """Check the file of a run that can be gone on with, as the library does.

    Raises:
        ValueError: it has another extension.
        OutputError: it exists and may not be replaced, or there is no folder for it.
    """
    from ernie_rna.run.store import check_place  # numpy, which `--help` does without

    path = Path(output)
    if path.suffix.lower() != extension:
        raise ValueError(f"{output}: the extension must be {extension}")
    check_place(path, [path] if path.exists() else [], force)


def check_model(model: str, revision: str | None = None) -> None:
    """Check that `-m` can be loaded: a converted folder, `mini`, or a model on a Hub in reach.

    Raises:
        ValueError: it is a file, a folder without a model, or no name of a model.
        FileNotFoundError: there is no such folder.
        ConnectionError: it is on the Hub, not in the cache, and the Hub cannot be reached.
    """
    path = Path(model)
    if model == MINI:
        return
    if path.is_file():
        raise ValueError(
            f"{model} is a file, and a model is a folder; convert it first: ernie-rna convert "
            f"{model} {path.stem or 'ERNIE-RNA'}, then -m {path.stem or 'ERNIE-RNA'}"
        )
    if path.is_dir():
        _check_folder(model)
    elif _is_path(model):
        raise FileNotFoundError(
            f"there is no folder {model}; `ernie-rna convert CHECKPOINT {model}` makes one, and "
            f"-m {MINI} is the model that comes with ernie-rna"
        )
    else:
        _check_on_hub(model, revision)


def _check_folder(model: str) -> None:
    if (Path(model) / _CONFIG).is_file():
        return
    checkpoints = [file.name for file in sorted(Path(model).iterdir()) if file.suffix == ".pt"]
    source = str(Path(model) / checkpoints[0]) if checkpoints else "CHECKPOINT"
    raise ValueError(
        f"{model} is no folder of a model: it has no {_CONFIG}; `ernie-rna convert {source} "
        "OUT_DIR` makes one of the authors' checkpoint"
    )


def _is_path(model: str) -> bool:
    """Whether a name can only be that of a folder; one of the Hub has at most one slash."""
    return model.startswith((".", "~", "/")) or model.endswith("/") or model.count("/") > 1


def _check_on_hub(model: str, revision: str | None) -> None:
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.utils import HFValidationError

    try:
        cached = try_to_load_from_cache(model, _CONFIG, revision=revision)
    except HFValidationError:
        raise ValueError(f"{model!r} is neither a folder here nor a name on the Hub") from None
    if isinstance(cached, str):
        return
    unreachable = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _why(constants.ENDPOINT)
    if unreachable is not None:
        raise ConnectionError(
            f"there is no folder {model} here, and the Hub, where a model may have that name, "
            f"cannot be asked ({unreachable}): name a folder that `ernie-rna convert` wrote, or "
            f"-m {MINI}"
        )


def _why(address: str) -> str | None:
    """Why nothing answers at an address, or None; any answer will do."""
    request = urllib.request.Request(address, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        return None
    except urllib.error.URLError as error:
        # What is wrong with a certificate may be right for huggingface_hub, which has its own.
        reason = str(error.reason)
        return None if "certificate" in reason.lower() else f"{address}: {reason}"
    except OSError as error:
        return f"{address}: {error}"
    return None
