"""Writes a converted model as a folder for the Hub, and proves that it loads.

The folder holds all that `from_pretrained(..., trust_remote_code=True)` needs: configuration,
weights, tokenizer, the modules of the model and a model card. It is written beside its
place, loaded in a fresh process, compared, and only then renamed: whoever sees it sees it whole.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.checkpoints.convert import Conversion
from ernie_rna.checkpoints.fresh_process import sha256
from ernie_rna.checkpoints.model_card import model_card
from ernie_rna.files.atomic import replace_folder
from modeling_ernie_rna import ErnieRnaForMaskedLM, ErnieRnaModel
from tokenization_ernie_rna import ErnieRnaTokenizer

MODULES = (
    "attention_ernie_rna",
    "configuration_ernie_rna",
    "heads_ernie_rna",
    "modeling_ernie_rna",
    "outputs_ernie_rna",
    "tokenization_ernie_rna",
)
REQUIRED = frozenset(
    (
        *("config.json", "model.safetensors", "README.md"),
        *("tokenizer.json", "tokenizer_config.json", "vocab.json"),
        *(f"{module}.py" for module in MODULES),
    )
)
# What some versions of transformers write as well, and what Python leaves beside modules.
_OPTIONAL = frozenset(("special_tokens_map.json", "added_tokens.json", "__pycache__"))

_TOKENIZER_MAP = ["tokenization_ernie_rna.ErnieRnaTokenizer", None]
_PROBE = ("GGGAAACCC", "AUG<mask>ACGNU")  # padded together
_FRESH_PROCESS = Path(__file__).with_name("fresh_process.py")
# Far below any error of a name or a layout, above what another alignment of the same numbers
# can change in a sum.
_LOGIT_TOLERANCE = 1e-5
_TIMEOUT = 1800  # seconds; the released model takes half a minute


class ExportError(ValueError):
    """A folder cannot be written, replaced or published; the message says why and the way out."""


@dataclass(frozen=True)
class Verification:
    """What a fresh process found in a written folder.

    Attributes:
        tensors: how many weights it loaded, each equal bit for bit to the converted one.
        max_difference: largest difference of its logits and pooler output, on a short batch,
            from those of the same model in this process.
    """

    tensors: int
    max_difference: float


@dataclass(frozen=True)
class Export:
    """A written folder, what is in it and what it was proven with."""

    path: Path
    conversion: Conversion
    verification: Verification


def export(conversion: Conversion, out_dir: str | Path, force: bool = False) -> Export:
    """Write a converted model; `out_dir` appears complete and verified, or not at all.

    Args:
        conversion: the model.
        out_dir: the folder; the folders above it are made if need be.
        force: replace a folder that an earlier export wrote.

    Raises:
        ExportError: see `check_target` and `verify_export`.
        OSError: the disk refuses.
    """
    target = check_target(out_dir, force)
    with _staging(target) as folder:
        write_folder(conversion, folder)
        verification = verify_export(folder, conversion)
        replace_folder(folder, target)
    return Export(target, conversion, verification)


def check_target(out_dir: str | Path, force: bool = False) -> Path:
    """The absolute path of `out_dir`, if an export may go there.

    Raises:
        ExportError: it is a file or a link, or a folder that holds something; with `force`, one
            that holds anything but an earlier export.
    """
    target = Path(os.path.abspath(out_dir))
    if target.is_symlink():
        raise ExportError(f"{target}: a symbolic link; name the folder itself")
    if not target.exists():
        return target
    if not target.is_dir():
        raise ExportError(f"{target}: a file; name a folder")
    if not any(target.iterdir()):
        return target
    odd = why_no_export(target)
    if odd is not None:
        raise ExportError(f"{target}: not empty and no earlier export ({odd}); name another folder")
    if not force:
        raise ExportError(f"{target}: there already; --force replaces it")
    return target


def why_no_export(folder: Path) -> str | None:
    """What keeps a folder from being a complete export and nothing else, or None."""
    names = {child.name for child in folder.iterdir()} if folder.is_dir() else set()
    missing, more = sorted(REQUIRED - names), sorted(names - REQUIRED - _OPTIONAL)
    if missing:
        return f"lacks {', '.join(missing)}"
    if more:
        return f"holds {', '.join(more[:5])} as well"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type = config["model_type"]
    except (ValueError, KeyError, TypeError):
        return "its config.json is none"
    if model_type != ErnieRnaConfig.model_type:
        return f"its config.json is of model_type {model_type!r}"
    return None


def write_folder(conversion: Conversion, folder: Path) -> None:
    """Write all files of an export into an empty folder."""
    config = copy.deepcopy(conversion.config)
    config.architectures = [ErnieRnaForMaskedLM.__name__]
    config.auto_map = {**config.auto_map, "AutoTokenizer": _TOKENIZER_MAP}
    config.save_pretrained(folder)
    _write_tokenizer(folder, config.max_position_embeddings)
    for module in MODULES:
        shutil.copyfile(_source(module), folder / f"{module}.py")
    weights = folder / "model.safetensors"
    save_file(conversion.state_dict, weights, metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", weights)  # some versions of safetensors write 0600
    (folder / "README.md").write_text(model_card(conversion), encoding="utf-8")


def verify_export(folder: str | Path, conversion: Conversion) -> Verification:
    """Load a written folder in a fresh process, as a user would, and compare.

    Raises:
        ExportError: it does not load, or loads other weights or another function.
    """
    expected = _expect(conversion)
    with tempfile.TemporaryDirectory() as scratch:
        report, outputs = _run_fresh(Path(folder).absolute(), Path(scratch))
    _compare_weights(report, conversion.state_dict)
    for name in ("input_ids", "attention_mask"):
        if not torch.equal(outputs[name], expected[name]):
            raise ExportError(f"the tokenizer it loads gives other {name}")
    differences = [
        (outputs[name] - expected[name]).abs().max().item() for name in ("logits", "pooler_output")
    ]
    if not max(differences) <= _LOGIT_TOLERANCE:
        raise ExportError(
            f"the model it loads computes something else: its logits differ by {differences[0]:.1e}"
            f", its pooler output by {differences[1]:.1e}"
        )
    return Verification(len(report["digests"]), max(differences))


def _write_tokenizer(folder: Path, max_length: int) -> None:
    tokenizer = ErnieRnaTokenizer(model_max_length=max_length)
    tokenizer.save_pretrained(folder)
    tokenizer.save_vocabulary(str(folder))  # transformers 5 does not, for a fast tokenizer
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["auto_map"] = {"AutoTokenizer": _TOKENIZER_MAP}
    settings["tokenizer_class"] = ErnieRnaTokenizer.__name__
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _source(module: str) -> Path:
    """The file of a root module, in a checkout as well as installed."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ExportError(f"{module}.py cannot be found: install this package anew")
    return Path(spec.origin)


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder in a hidden one beside the target, gone at the end with what was made for it."""
    made = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    hidden = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        # Older transformers (4.41) import the code by the folder's name, which may hold no dot.
        folder = hidden / "staging"
        folder.mkdir(parents=True)
        yield folder
    finally:  # also at Ctrl-C
        shutil.rmtree(hidden, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # it is in use: the export was a success
                parent.rmdir()


def _expect(conversion: Conversion) -> dict[str, torch.Tensor]:
    """What the model must compute on the probe."""
    batch = ErnieRnaTokenizer()(list(_PROBE), padding=True, return_tensors="pt")
    masked_lm = ErnieRnaForMaskedLM(conversion.config).eval()
    model = ErnieRnaModel(conversion.config).eval()
    _fill(masked_lm, conversion.state_dict, "")
    _fill(model, conversion.state_dict, "ernie_rna.")
    with torch.no_grad():
        logits = masked_lm(**batch).logits
        pooler_output = model(**batch).pooler_output
    return {**batch, "logits": logits, "pooler_output": pooler_output}


def _fill(model: torch.nn.Module, weights: Mapping[str, torch.Tensor], prefix: str) -> None:
    """Copy the weights that the model has; raise if one of its own is not among them."""
    names = {name.removeprefix(prefix): name for name in weights if name.startswith(prefix)}
    own = dict(model.named_parameters())  # the tied decoder is the embedding
    absent = sorted(own.keys() - names.keys())
    if absent:
        raise ExportError(f"the converted weights lack {', '.join(absent)}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[names[name]])


def _run_fresh(folder: Path, scratch: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Run `fresh_process` on a folder; its report and its outputs."""
    task = {
        "folder": str(folder),
        "scratch": str(scratch),
        "sequences": _PROBE,
        "threads": torch.get_num_threads(),
        "sys_path": [entry for entry in sys.path if not _leads_astray(entry)],
    }
    environment = {
        **os.environ,
        "HF_MODULES_CACHE": str(scratch / "modules"),  # no copy of the code from another time
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        process = subprocess.run(
            [sys.executable, "-I", str(_FRESH_PROCESS)],
            input=json.dumps(task),
            env=environment,
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"it does not load in a fresh process within {_TIMEOUT} s") from None
    if process.returncode:
        error = process.stderr.strip().splitlines() or ["no message"]
        raise ExportError(f"it does not load in a fresh process: {error[-1]}")
    report = json.loads((scratch / "report.json").read_text(encoding="utf-8"))
    return report, load_file(scratch / "outputs.safetensors")


def _leads_astray(entry: str) -> bool:
    """Whether an entry of sys.path would hide the folder's code from the fresh process.

    That is a checkout of this package, and the cache of remote code that transformers has put
    there in this process. Installed, the package shares its entry with all others, and
    `fresh_process` can only look whether it was imported.
    """
    folder = Path(entry)
    checkout = (folder / f"{MODULES[0]}.py").is_file() and not (folder / "transformers").is_dir()
    return checkout or (folder / "transformers_modules").is_dir()


def _compare_weights(report: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
    if report["problems"]:
        raise ExportError(f"it loads, but: {'; '.join(report['problems'])}")
    digests = {name: sha256(weight) for name, weight in weights.items()}
    differing = sorted(
        name
        for name in digests.keys() | report["digests"].keys()
        if digests.get(name) != report["digests"].get(name)
    )
    if differing:
        raise ExportError(f"it loads other weights than were converted: {', '.join(differing)}")
