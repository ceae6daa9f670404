"""Proves that a written folder loads, in a fresh process, as what was converted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ernie_rna.convert.conversion import Conversion
from ernie_rna.convert.folder import ExportError
from ernie_rna.convert.load_probe import OUTPUTS, sha256
from ernie_rna.model import modeling_ernie_rna
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer

_PROBE = ("GGGAAACCC", "AUG<mask>ACGNU")  # padded together
_FRESH_PROCESS = Path(__file__).with_name("fresh_process.py")
# Far below any error of a name or a layout, above what another alignment of the same numbers
# can change in a sum. Of values over 1, relative to the largest.
_LOGIT_TOLERANCE = 1e-5
# The Auto classes of a pretrained model -> the prefix of their weights' names.
_PRETRAINED = {"AutoModelForMaskedLM": "", "AutoModel": "ernie_rna."}
_TIMEOUT = 1800  # seconds; the released model takes half a minute


@dataclass(frozen=True)
class Verification:
    """What a fresh process found in a written folder.

    Attributes:
        tensors: how many weights it loaded, each equal bit for bit to the converted one.
        max_difference: largest difference of its outputs (logits, and pooler output or
            predictions), on a short batch, from those of the same model in this process.
    """

    tensors: int
    max_difference: float


def verify_export(folder: str | Path, conversion: Conversion) -> Verification:
    """Load a written folder in a fresh process, as a user would, and compare.

    Raises:
        ExportError: it does not load, or loads other weights or another function.
    """
    expected = _expect(conversion)
    classes = {"AutoModel": ""} if conversion.kind else _PRETRAINED
    with tempfile.TemporaryDirectory() as scratch:
        report, outputs = _run_fresh(Path(folder).absolute(), Path(scratch), classes)
    _compare_weights(report, conversion.state_dict)
    inputs = ("input_ids", "attention_mask")
    for name in inputs:
        if not torch.equal(outputs[name], expected[name]):
            raise ExportError(f"the tokenizer it loads gives other {name}")
    differences = {
        name: (outputs[name] - values).abs().max().item() / max(1.0, values.abs().max().item())
        for name, values in expected.items()
        if name not in inputs
    }
    if not max(differences.values()) <= _LOGIT_TOLERANCE:
        named = ", its ".join(
            f"{name.replace('_', ' ')} {'differ' if name.endswith('s') else 'differs'} by "
            f"{value:.1e}"
            for name, value in differences.items()
        )
        raise ExportError(f"the model it loads computes something else: its {named}")
    return Verification(len(report["digests"]), max(differences.values()))


def _expect(conversion: Conversion) -> dict[str, torch.Tensor]:
    """What the model must compute on the probe."""
    batch = ErnieRnaTokenizer()(list(_PROBE), padding=True, return_tensors="pt")
    expected: dict[str, torch.Tensor] = dict(batch)
    name = conversion.kind.model_class if conversion.kind else None
    classes = {name: ""} if name else {"ErnieRnaForMaskedLM": "", "ErnieRnaModel": "ernie_rna."}
    for name, prefix in classes.items():
        model = getattr(modeling_ernie_rna, name)(conversion.config).eval()
        weights = conversion.state_dict.items()
        # The decoder is tied, and the pooler is not of the masked language model.
        model.load_state_dict(
            {key.removeprefix(prefix): weight for key, weight in weights if key.startswith(prefix)},
            strict=bool(conversion.kind),
        )
        with torch.no_grad():
            output = model(**batch)
        expected |= {key: output[key] for key in OUTPUTS if key in output}
    return expected


def _run_fresh(
    folder: Path, scratch: Path, classes: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Run `fresh_process` on a folder; its report and its outputs."""
    task = {
        "folder": str(folder),
        "scratch": str(scratch),
        "sequences": _PROBE,
        "classes": classes,
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
    checkout = (folder / "configuration_ernie_rna.py").is_file() and not (
        folder / "transformers"
    ).is_dir()
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
