"""Loads a written folder in a process of its own, as a user would; run by `proof`.

It knows nothing of this package. Its input is a task in JSON, its output a report in JSON; what is
wrong with the folder is the last line of standard error, and the exit code 1.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Far below any error of a name or a layout, above what another alignment of the same numbers
# can change in a sum. Of values over 1, relative to the largest.
_TOLERANCE = 1e-5


def main() -> None:
    task = json.load(sys.stdin)
    del sys.path[0]  # that of this file
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(task["threads"])  # the order of sums depends on it
    found, digests, problems = load(task["folder"], task["sequences"], task["classes"])
    other = sorted({name for name, _ in digests.items() ^ task["digests"].items()})
    problems += [f"it loads other weights than were converted: {', '.join(other)}"] * bool(other)
    largest = 0.0
    for name, expected in load_file(task["expected"]).items():
        difference = (found[name] - expected).abs().max() / expected.abs().max().clamp(min=1)
        if not difference <= _TOLERANCE:
            problems.append(f"its {name.replace('_', ' ')} differ by {difference.item():.1e}")
        largest = max(largest, difference.item())
    if problems:
        sys.exit("; ".join(problems))
    print(json.dumps({"tensors": len(digests), "max_difference": largest}))


def load(
    folder: str, sequences: list[str], classes: dict[str, str]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Inputs and outputs of the models, digests of their weights, and what is wrong.

    Args:
        classes: the Auto classes to load them with -> the prefix of their weights' names.
    """
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    batch = tokenizer(sequences, padding=True, return_tensors="pt")
    found, digests, problems = dict(batch), {}, []
    for name, prefix in classes.items():
        model, info = getattr(transformers, name).from_pretrained(
            folder, trust_remote_code=True, output_loading_info=True
        )
        problems += [f"{kind} of {name}: {keys}" for kind, keys in info.items() if keys]
        with torch.no_grad():
            found |= model.eval()(**batch)
        weights = [*model.named_parameters(), *model.named_buffers()]
        digests |= {prefix + key: sha256(weight) for key, weight in weights}
    # Names under which only an installed copy of the code could have been imported.
    foreign = {"ernie_rna", *(path.stem for path in Path(folder).glob("*.py"))}
    ours = [name for name in sys.modules if name.split(".")[0] in foreign]
    problems += [f"{name} was imported from outside the folder" for name in ours]
    return found, digests, problems


def sha256(weight: torch.Tensor) -> str:
    """The digest of a weight's numbers."""
    return hashlib.sha256(weight.detach().contiguous().numpy().tobytes()).hexdigest()


if __name__ == "__main__":
    main()
