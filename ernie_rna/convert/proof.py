"""Proves that a written folder loads, in a fresh process, as what was converted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

from ernie_rna.convert import load_probe
from ernie_rna.convert.conversion import Conversion
from ernie_rna.convert.folder import ExportError
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer

_SEQUENCES = ["GGGAAACCC", "AUG<mask>ACGNU"]  # padded together
_OUTPUTS = ("logits", "predictions", "pooler_output")  # what is compared
# The Auto classes of a pretrained model -> the prefix of their weights' names.
_PRETRAINED = {"AutoModelForMaskedLM": "", "AutoModel": "ernie_rna."}
_TIMEOUT = 1800  # seconds; the released model takes half a minute


class Proof(NamedTuple):
    """What a fresh process found in a written folder.

    Attributes:
        tensors: how many weights it loaded, each equal bit for bit to the converted one.
        max_difference: largest difference of its outputs (logits, and pooler output or
            predictions), on a short batch, from those of the same model in this process.
    """

    tensors: int
    max_difference: float


def prove(folder: str | Path, conversion: Conversion) -> Proof:
    """Load a written folder in a fresh process, as a user would, and compare.

    Raises:
        ExportError: it does not load, or loads other weights or another function.
    """
    batch = ErnieRnaTokenizer()(_SEQUENCES, padding=True, return_tensors="pt")
    model, weights = conversion.model, conversion.state_dict
    with torch.no_grad():
        outputs = {**model(**batch), **({} if conversion.kind else model.ernie_rna(**batch))}
    kept = {name: value.contiguous() for name, value in outputs.items() if name in _OUTPUTS}
    with tempfile.TemporaryDirectory() as scratch:
        expected = Path(scratch, "expected.safetensors")
        save_file({**batch, **kept}, expected)
        task = {
            "folder": str(Path(folder).absolute()),
            "sequences": _SEQUENCES,
            "classes": {"AutoModel": ""} if conversion.kind else _PRETRAINED,
            "digests": {name: load_probe.sha256(weight) for name, weight in weights.items()},
            "expected": str(expected),
            "threads": torch.get_num_threads(),
        }
        return Proof(**_run_probe(task, scratch))


def _run_probe(task: dict[str, Any], scratch: str) -> dict[str, Any]:
    """Run `load_probe`; what it reports."""
    environment = {
        **os.environ,
        "HF_MODULES_CACHE": str(Path(scratch, "modules")),  # no copy of the code of another time
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, str(load_probe.__file__)]
    keep: dict[str, Any] = {"capture_output": True, "text": True, "timeout": _TIMEOUT}
    try:
        process = subprocess.run(
            command, input=json.dumps(task), env=environment, cwd=scratch, check=False, **keep
        )
    except subprocess.TimeoutExpired:
        raise ExportError(f"it does not load in a fresh process within {_TIMEOUT} s") from None
    if process.returncode:
        error = process.stderr.strip().splitlines() or ["no message"]
        raise ExportError(f"it does not load in a fresh process as it should: {error[-1]}")
    report: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return report
