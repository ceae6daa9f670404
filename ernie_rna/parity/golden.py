"""The values that the authors' own code computed, read from their file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ernie_rna.model.configuration_ernie_rna import VOCABULARY

# An output of one sequence by its place in the model, e.g. "hidden state 3" or "logits".
Outputs = dict[str, torch.Tensor]

# MKL splits its sums by the number of threads and by the CPU's instructions; the golden values
# were made with two threads on a CPU with AVX-512, where the differences are 0. With AVX2, or
# with one thread, they are up to 2.1e-5 in the logits; the authors' are 2.2e-5 from float64.
GOLDEN_THREADS = 2


class ParityError(ValueError):
    """A folder or a file cannot be compared; the message says why."""


@dataclass(frozen=True)
class Sample:
    """A sequence with what the authors' code computed from it.

    Attributes:
        input_ids: (seq,).
        expected: the values to compare with.
        pairing_scores: (seq, seq) if others than those of the ids were given.
        note: what sets it apart from the other sequences, for the table.
    """

    name: str
    input_ids: torch.Tensor
    expected: Outputs = field(default_factory=dict)
    pairing_scores: torch.Tensor | None = None
    note: str = ""


@dataclass(frozen=True)
class Golden:
    """What a golden file holds.

    Attributes:
        single: sequences that the authors' code ran alone.
        batch: sequences that it ran padded together, on the right.
    """

    single: list[Sample]
    batch: list[Sample]


def read_golden(path: str | Path) -> Golden:
    """Read the authors' values.

    Args:
        path: safetensors with, for each sequence NAME, `NAME.input_ids` (seq,) and some of
            `NAME.hidden_states` (layers + 1, seq, hidden), `.attention_biases` (layers + 1,
            heads, seq, seq), `.logits` (seq, vocab) and `.pooler_output` (hidden,). `batch.*`
            has one more axis, and padding behind the shorter sequences; `pretrain_mask.*` was
            computed with its own `pairing_scores` (seq, seq).

    Raises:
        ParityError: it is no such file.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ParityError(f"{path}: not a file of golden values ({error})") from error
    by_name: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, kind = key.partition(".")
        by_name.setdefault(name, {})[kind] = tensor
    odd = sorted(name for name, values in by_name.items() if "input_ids" not in values)
    if odd or not by_name:
        raise ParityError(f"{path}: no golden values: {odd[:3] or 'nothing'} without input_ids")
    batch = by_name.pop("batch", None)
    try:
        return Golden(
            single=[_sample(name, values) for name, values in by_name.items()],
            batch=[] if batch is None else _batch_samples(batch),
        )
    except (KeyError, IndexError, TypeError) as error:
        raise ParityError(f"{path}: golden values are missing or misshaped ({error})") from error


def _sample(name: str, values: Mapping[str, torch.Tensor]) -> Sample:
    expected = {
        **{f"hidden state {i}": state for i, state in enumerate(values.get("hidden_states", ()))},
        **{f"bias {i}": bias for i, bias in enumerate(values.get("attention_biases", ()))},
    }
    for key in ("logits", "pooler_output"):
        if key in values:
            expected[key.replace("_", " ")] = values[key]
    if name == "pretrain_mask":
        scores = values["pairing_scores"]
        return Sample(name, values["input_ids"], expected, scores, ", masked as in pretraining")
    return Sample(name, values["input_ids"], expected)


def _batch_samples(batch: Mapping[str, torch.Tensor]) -> list[Sample]:
    """The rows of a padded batch, each without its padding."""
    samples = []
    for row, ids in enumerate(batch["input_ids"]):
        length = int((ids != VOCABULARY.index("<pad>")).sum())
        values = {
            "input_ids": ids[:length],
            "hidden_states": batch["hidden_states"][:, row, :length],
            "logits": batch["logits"][row, :length],
        }
        samples.append(_sample(f"batch row {row}", values))
    return samples
