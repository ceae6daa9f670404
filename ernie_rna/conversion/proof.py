"""Proves that a written folder, loaded in a fresh process, is the model that was converted.

That process runs this file as a script. Like a user's script, it does not import this package. It
reads a task in JSON and prints a report in JSON; if the folder has a fault, the last line of
standard error describes it and the exit code is 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ernie_rna.conversion.weights import Conversion

_SEQUENCES = ["GGGAAACCC", "AUG<mask>ACGNU"]  # padded together
_OUTPUTS = ("logits", "predictions", "pooler_output")  # those that are compared
# The Auto classes of a pretrained model -> the prefix of their weights' names.
_PRETRAINED = {"AutoModelForMaskedLM": "", "AutoModel": "ernie_rna."}
_TIMEOUT = 1800  # seconds; the released model takes half a minute
# Far below the effect of a wrong name or layout, and above the rounding that a different memory
# alignment causes in a sum. Relative to the largest value if that exceeds 1.
_TOLERANCE = 1e-5


class Proof(NamedTuple):
    """The comparison of a folder, loaded in a fresh process, with the converted model.

    Attributes:
        tensors: number of loaded weights, each equal bit for bit to the converted one.
        max_difference: largest difference between the outputs in that process and in this one
            (logits, and pooler output or predictions), on a short batch.
    """

    tensors: int
    max_difference: float


def prove(folder: str | Path, conversion: Conversion) -> Proof:
    """Load a written folder in a fresh process, as a user would, and compare.

    Raises:
        ExportError: it does not load, or its weights or outputs differ from the converted model's.
    """
    import torch
    from safetensors.torch import save_file

    from ernie_rna.conversion.folder import ExportError
    from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer

    batch = ErnieRnaTokenizer()(_SEQUENCES, padding=True, return_tensors="pt")
    model = conversion.model
    with torch.no_grad():
        outputs = {**model(**batch), **({} if conversion.kind else model.ernie_rna(**batch))}
    kept = {name: value.contiguous() for name, value in outputs.items() if name in _OUTPUTS}
    with tempfile.TemporaryDirectory() as scratch:
        expected = Path(scratch, "expected.safetensors")
        save_file({**batch, **kept}, expected)
        task = {
            "folder": str(Path(folder).absolute()),
            "classes": {"AutoModel": ""} if conversion.kind else _PRETRAINED,
            "digests": {name: _sha256(weight) for name, weight in conversion.state_dict.items()},
            "expected": str(expected),
            "threads": torch.get_num_threads(),
        }
        environment = {
            **os.environ,
            "HF_MODULES_CACHE": os.path.join(scratch, "modules"),  # no code of earlier runs
            "HF_HUB_OFFLINE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        try:
            process = subprocess.run(
                [sys.executable, __file__],
                input=json.dumps(task),
                env=environment,
                cwd=scratch,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise ExportError(f"it does not load in a fresh process within {_TIMEOUT} s") from None
    if process.returncode:
        error = process.stderr.strip().splitlines() or ["no message"]
        raise ExportError(f"it does not load in a fresh process as it should: {error[-1]}")
    return Proof(**json.loads(process.stdout.splitlines()[-1]))


def _sha256(weight: Any) -> str:
    """The digest of a weight's values."""
    return hashlib.sha256(weight.detach().contiguous().numpy().tobytes()).hexdigest()


def _probe(task: dict[str, Any]) -> None:
    """Load the folder, compare it with what the task says, and print the report."""
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(task["threads"])  # the order of sums depends on it
    tensors, digests, problems = _load(task["folder"], task["classes"])
    differing = sorted({name for name, _ in digests.items() ^ task["digests"].items()})
    if differing:
        problems.append(f"it loads other weights than were converted: {', '.join(differing)}")
    largest = 0.0
    for name, expected in load_file(task["expected"]).items():
        difference = (tensors[name] - expected).abs().max() / expected.abs().max().clamp(min=1)
        if not difference <= _TOLERANCE:
            problems.append(f"its {name.replace('_', ' ')} differ by {difference.item():.1e}")
        largest = max(largest, difference.item())
    if problems:
        sys.exit("; ".join(problems))
    print(json.dumps({"tensors": len(digests), "max_difference": largest}))


def _load(folder: str, classes: dict[str, str]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Inputs and outputs of the models by name, digests of their weights, and the problems."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    batch = tokenizer(_SEQUENCES, padding=True, return_tensors="pt")
    tensors: dict[str, Any] = dict(batch)
    digests: dict[str, str] = {}
    problems: list[str] = []
    for name, prefix in classes.items():
        model, info = getattr(transformers, name).from_pretrained(
            folder, trust_remote_code=True, output_loading_info=True
        )
        problems += [f"{kind} of {name}: {keys}" for kind, keys in info.items() if keys]
        with torch.no_grad():
            tensors |= model.eval()(**batch)
        weights = [*model.named_parameters(), *model.named_buffers()]
        digests |= {prefix + key: _sha256(weight) for key, weight in weights}
    # The folder's code is imported under other names; these are names of an installed copy.
    installed = {"ernie_rna", *(path.stem for path in Path(folder).glob("*.py"))}
    foreign = [name for name in sys.modules if name.split(".")[0] in installed]
    problems += [f"{name} was imported from outside the folder" for name in foreign]
    return tensors, digests, problems


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    _probe(json.load(sys.stdin))
