"""Loads a written folder in a process of its own, as a user would; run by `verification`.

It reads a task in JSON from its input, knows nothing of this package, and leaves report.json and
outputs.safetensors in the task's scratch folder.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

OUTPUTS = ("logits", "predictions", "pooler_output")  # what is compared


def main() -> None:
    task = json.load(sys.stdin)
    sys.path[:] = task["sys_path"]  # that of the caller, without this package
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(task["threads"])  # the order of sums depends on it
    digests, problems, outputs = load(task["folder"], task["sequences"], task["classes"])
    scratch = Path(task["scratch"])
    save_file(outputs, scratch / "outputs.safetensors")
    report = {"digests": digests, "problems": problems}
    (scratch / "report.json").write_text(json.dumps(report), encoding="utf-8")


def load(
    folder: str, sequences: list[str], classes: dict[str, str]
) -> tuple[dict[str, str], list[str], dict[str, torch.Tensor]]:
    """The digests of the weights, what is wrong with the loading, and outputs.

    Args:
        classes: the Auto classes to load it with -> the prefix of its weights' names.
    """
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    batch = tokenizer(sequences, padding=True, return_tensors="pt")
    outputs: dict[str, Any] = dict(batch)
    digests: dict[str, str] = {}
    problems: list[str] = []
    for name, prefix in classes.items():
        model, info = getattr(transformers, name).from_pretrained(
            folder, trust_remote_code=True, output_loading_info=True
        )
        problems += [f"{kind} of {name}: {keys}" for kind, keys in info.items() if keys]
        with torch.no_grad():
            output = model.eval()(**batch)
        weights = [*model.named_parameters(), *model.named_buffers()]
        digests |= {prefix + key: sha256(weight) for key, weight in weights}
        outputs |= {key: output[key].contiguous() for key in OUTPUTS if key in output}
    ours = [name for name in sys.modules if name.split(".")[0] in foreign(folder)]
    problems += [f"{name} was imported from outside the folder" for name in ours]
    return digests, problems, outputs


def foreign(folder: str) -> set[str]:
    """Names under which only an installed copy of the code could have been imported."""
    return {"ernie_rna", *(path.stem for path in Path(folder).glob("*.py"))}


def sha256(weight: torch.Tensor) -> str:
    """The digest of a weight's numbers."""
    return hashlib.sha256(weight.detach().contiguous().numpy().tobytes()).hexdigest()


if __name__ == "__main__":
    main()
