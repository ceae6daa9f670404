"""Measures a converted fine-tuned model against values that the authors' own code computed.

Logits, contacts, probabilities and predictions are compared with each sequence alone and in one
batch, padded on either side, with eager attention and with sdpa; structures as .ct text.

Shapes: batch sequences, seq tokens, length bases.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ernie_rna.model.configuration_ernie_rna import HEAD_MODELS
from ernie_rna.parity.differences import ATTENTIONS, Difference
from ernie_rna.parity.golden import Outputs, ParityError
from ernie_rna.parity.models import load_own
from ernie_rna.structures.contacts import solve_contacts
from ernie_rna.structures.formats.ct import format_ct
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.structures.pairs import predict_pairs

# The most that float32 values may differ; logits, which are in the hundreds for the small
# checkpoint's random weights, relative to the largest.
BAR = 1e-5
# The optimisation enlarges what such logits are off: from float64, the authors' contacts are so by
# up to 1.23e-4. Twice that and 1e-6; from the authors' own logits the contacts keep to BAR.
CONTACT_BAR = 2.5e-4
LOGITS, CT, SOLVED = "logits, of the largest", ".ct lines that differ", "contact, of their logits"

_TASKS = dict(
    zip(HEAD_MODELS, ("secondary_structure", "closeness", "ribosome_loading"), strict=True)
)


@dataclass(frozen=True)
class HeadGolden:
    """The authors' values for one kind of head.

    Attributes:
        sequences: by name, those that they ran and others to pad together with them.
        expected: by name, their outputs by place.
        structures: by name, the .ct text that they wrote.
    """

    sequences: Mapping[str, str]
    expected: Mapping[str, Outputs]
    structures: Mapping[str, str]


def read_head_golden(path: str | Path, task: str) -> HeadGolden:
    """Read the values of one task.

    Args:
        path: safetensors with `TASK.NAME.logits`, `.contact` or `.probabilities` (length, length),
            or `.prediction` (1,). Beside it lie sequences.json, with the sequences by name under
            "sequences" and "utrs", and, for structures, tiny_structures.json, with the .ct text
            under TASK.NAME.
        task: "secondary_structure", "closeness" or "ribosome_loading".

    Raises:
        ParityError: one of them is no such file, or has no values of this task.
    """
    path = Path(path)
    try:
        tensors = load_file(path)
        named = json.loads(path.with_name("sequences.json").read_text(encoding="utf-8"))
        sequences = {**named["sequences"], **named["utrs"]}
        structures = json.loads(path.with_name("tiny_structures.json").read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise ParityError(f"{path}: not a file of golden values of heads ({error!r})") from error
    expected: dict[str, Outputs] = {}
    for key, tensor in tensors.items():
        own, _, rest = key.partition(".")
        name, _, place = rest.rpartition(".")
        if own == task:
            expected.setdefault(name, {})[place] = tensor
    if not expected:
        raise ParityError(f"{path}: no values of {task}")
    # The shortest and the longest of the others, so that every sequence has padding somewhere.
    plain = {name: text for name, text in sequences.items() if set(text) <= set("ACGU")}
    by_length = sorted(plain, key=lambda name: len(plain[name]))
    padded = {name: plain[name] for name in {by_length[0]: 0, by_length[-1]: 0, **expected}}
    texts = {
        name: structures[f"{task}.{name}"] for name in expected if f"{task}.{name}" in structures
    }
    return HeadGolden(padded, expected, texts)


def is_head_folder(folder: str | Path) -> str | None:
    """The task of a folder with one of the authors' heads, or None."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        names = config.get("architectures") or []
    except (OSError, ValueError, AttributeError):
        return None
    return next((_TASKS[name] for name in names if name in _TASKS), None)


def compare_head(folder: str | Path, path: str | Path) -> list[Difference]:
    """The differences of a fine-tuned folder from the authors' values, by attention and padding.

    Raises:
        ParityError: the folder holds no such model, or the file no values of its task.
    """
    task = is_head_folder(folder)
    if task is None:
        raise ParityError(f"{folder}: holds none of the authors' fine-tuned models")
    golden = read_head_golden(path, task)
    head = _Head(Path(folder), task)
    differences = []
    for attention in ATTENTIONS:
        head.model.set_attn_implementation(attention)
        alone = {name: head.run({name: golden.sequences[name]})[name] for name in golden.expected}
        differences += _differ(f"{attention} alone", golden, alone)
        for side in ("right", "left"):
            padded = head.run(golden.sequences, side)
            differences += _differ(f"{attention} padded {side}", golden, padded)
    return differences


class _Head:
    """A fine-tuned model, run by its folder's own code."""

    def __init__(self, folder: Path, task: str):
        self._outputs = _OUTPUTS[task]
        name = next(name for name, own in _TASKS.items() if own == task)
        self.model = load_own(folder, f"modeling_ernie_rna.{name}").eval()
        self._tokenizer = load_own(folder, "tokenization_ernie_rna.ErnieRnaTokenizer")

    def run(self, sequences: Mapping[str, str], side: str = "right") -> dict[str, Outputs]:
        """The outputs of sequences that are padded together, by name, without the padding.

        The pairing scores are read off the sequences, as for the golden values, whatever the
        folder's configuration says.
        """
        self._tokenizer.padding_side = side
        batch = self._tokenizer(list(sequences.values()), padding=True, return_tensors="pt")
        before, self.model.config.pairing_scores = self.model.config.pairing_scores, "sequence"
        with torch.no_grad():
            logits = self.model(**batch).logits
        self.model.config.pairing_scores = before
        return {
            name: self._outputs(row, text, self.model.config)
            for row, (name, text) in zip(logits, sequences.items(), strict=True)
        }


def _structure(logits: torch.Tensor, text: str, config: Any) -> Outputs:
    own = logits[: len(text), : len(text)]
    contact = solve_contacts(own[None], [text], threshold=config.pair_threshold)[0]
    return {"logits": own, "contact": contact}


def _closeness(logits: torch.Tensor, text: str, config: Any) -> Outputs:
    return {"probabilities": logits[: len(text), : len(text)].sigmoid()}


def _loading(logits: torch.Tensor, text: str, config: Any) -> Outputs:
    return {"prediction": logits[None]}


_OUTPUTS: dict[str, Callable[[torch.Tensor, str, Any], Outputs]] = {
    "secondary_structure": _structure,
    "closeness": _closeness,
    "ribosome_loading": _loading,
}


def _differ(case: str, golden: HeadGolden, ours: Mapping[str, Outputs]) -> list[Difference]:
    differences = []
    for name, expected in golden.expected.items():
        for place, values in expected.items():
            largest = values.abs().max().item() if place == "logits" else 1.0
            shown = LOGITS if place == "logits" else place
            value = (ours[name][place] - values).abs().max().item() / largest
            bar = CONTACT_BAR if place == "contact" else BAR
            differences.append(Difference(case, shown, name, value, bar))
        if "contact" in expected:
            solved = solve_contacts(expected["logits"][None], [golden.sequences[name]])[0]
            value = (solved - expected["contact"]).abs().max().item()
            differences.append(Difference(case, SOLVED, name, value, BAR))
        if name in golden.structures:
            pairs = predict_pairs(ours[name]["contact"][None])[0]
            text = format_ct(Structure(name, golden.sequences[name], pairs))
            lines = zip(text.split("\n"), golden.structures[name].split("\n"), strict=False)
            count = sum(own != their for own, their in lines)
            count += abs(text.count("\n") - golden.structures[name].count("\n"))
            differences.append(Difference(case, CT, name, float(count), 0.0))
    return differences
