"""Measures a converted folder against values that the authors' own code computed.

Every output is compared at every layer, with eager attention and with sdpa, in the batches that
the authors' values come from. The same weights in float64 tell how far rounding alone takes the
authors' values, and ours, from what the model means.

Shapes: batch sequences, seq tokens, heads, hidden, vocab.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from configuration_ernie_rna import VOCABULARY
from ernie_rna.checkpoints.convert import convert_weights
from ernie_rna.checkpoints.reading import read_checkpoint

# An output of one sequence by its place in the model, e.g. "hidden state 3" or "logits".
Outputs = dict[str, torch.Tensor]

# The most that float32 outputs may differ from the authors': twice what theirs are off from
# float64 (5.6e-6, 1.9e-5, 2.2e-5, 8.0e-6 at worst, by `measure_rounding`) and 1e-6. Both are sums
# of the same terms, in an order that the CPU and the threads decide.
BARS = {"hidden state": 1.2e-5, "bias": 3.9e-5, "logits": 4.5e-5, "pooler output": 1.7e-5}

# MKL splits its sums by the number of threads and by the CPU's instructions; the golden values
# were made with two threads on a CPU with AVX-512, where the differences are 0. With AVX2, or
# with one thread, they are up to 2.1e-5 in the logits; the authors' are 2.2e-5 from float64.
GOLDEN_THREADS = 2

_WEIGHTS = "model.safetensors"
_ATTENTIONS = ("eager", "sdpa")


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


@dataclass(frozen=True)
class Difference:
    """The largest absolute difference at one place of one sequence.

    Attributes:
        case: what is compared with what.
        place: which output, e.g. "hidden state 3".
        sample: which sequence.
        bar: the most that is allowed, None where the value only informs.
    """

    case: str
    place: str
    sample: str
    value: float
    bar: float | None = None

    @property
    def missed(self) -> bool:
        return self.bar is not None and not self.value <= self.bar  # NaN misses


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
    return Golden(
        single=[_sample(name, values) for name, values in by_name.items()],
        batch=[] if batch is None else _batch_samples(batch),
    )


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


class Models:
    """The models in a folder, run by the folder's own code.

    Attributes:
        folder: where they are.
        tokenizer, encoder, masked_lm: of the classes in the folder, as `trust_remote_code` takes
            them; where `ernie_rna` is imported the Auto classes may take the installed ones.

    Raises:
        ParityError: there is no such folder, or it does not hold weights and code.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / _WEIGHTS).is_file():
            raise ParityError(f"{folder}: no folder with {_WEIGHTS}; convert a checkpoint into it")
        self.tokenizer = self._load("tokenization_ernie_rna.ErnieRnaTokenizer")
        self.encoder = self._load("modeling_ernie_rna.ErnieRnaModel").eval()
        self.masked_lm = self._load("modeling_ernie_rna.ErnieRnaForMaskedLM").eval()

    def _load(self, reference: str) -> Any:
        try:
            own_class: Any = get_class_from_dynamic_module(reference, str(self.folder))
        except OSError as error:
            raise ParityError(f"{self.folder}: lacks the model's code ({error})") from error
        return own_class.from_pretrained(self.folder)

    def double(self) -> Models:
        """A copy in float64, with eager attention."""
        exact = copy.copy(self)
        exact.encoder = copy.deepcopy(self.encoder).double()
        exact.masked_lm = copy.deepcopy(self.masked_lm).double()
        exact.use("eager")
        return exact

    def use(self, attention: str) -> None:
        """Switch the attention implementation."""
        self.encoder.set_attn_implementation(attention)
        self.masked_lm.set_attn_implementation(attention)

    def run_alone(self, samples: Sequence[Sample]) -> list[Outputs]:
        """All outputs of sequences, one after the other."""
        return [output for sample in samples for output in self.run_padded([sample])]

    def run_padded(self, samples: Sequence[Sample], side: str = "right") -> list[Outputs]:
        """All outputs of sequences that are padded together, without those of the padding."""
        if not samples:
            return []
        length = max(len(sample.input_ids) for sample in samples)
        starts = [length - len(s.input_ids) if side == "left" else 0 for s in samples]
        real = [
            slice(start, start + len(sample.input_ids))
            for start, sample in zip(starts, samples, strict=True)
        ]
        inputs = self._pad(samples, real, length)
        with torch.no_grad():
            flags = {"output_hidden_states": True, "output_attention_biases": True}
            encoded = self.encoder(**inputs, **flags)
            logits = self.masked_lm(**inputs).logits
        return [_outputs_of(row, where, encoded, logits) for row, where in enumerate(real)]

    def _pad(
        self, samples: Sequence[Sample], real: Sequence[slice], length: int
    ) -> dict[str, torch.Tensor]:
        padding = self.encoder.config.pad_token_id
        inputs = {
            "input_ids": torch.full((len(samples), length), padding),
            "attention_mask": torch.zeros(len(samples), length, dtype=torch.long),
        }
        if any(sample.pairing_scores is not None for sample in samples):
            inputs["pairing_scores"] = torch.zeros(len(samples), length, length)
        for row, (sample, where) in enumerate(zip(samples, real, strict=True)):
            inputs["input_ids"][row, where] = sample.input_ids
            inputs["attention_mask"][row, where] = 1
            if sample.pairing_scores is not None:
                inputs["pairing_scores"][row, where, where] = sample.pairing_scores
        return inputs


def _outputs_of(row: int, real: slice, encoded: Any, logits: torch.Tensor) -> Outputs:
    """The outputs of one sequence of a batch, its real tokens only."""
    hidden_states = encoded.hidden_states  # (batch, seq, hidden) each
    biases = encoded.attention_biases  # (batch, heads, seq, seq) each
    return {
        **{f"hidden state {i}": state[row, real] for i, state in enumerate(hidden_states)},
        **{f"bias {i}": bias[row, :, real, real] for i, bias in enumerate(biases)},
        "logits": logits[row, real],
        "pooler output": encoded.pooler_output[row],
    }


def compare_with_authors(models: Models, golden: Golden) -> list[Difference]:
    """The differences from the authors' values, by attention and padding.

    Raises:
        ParityError: the values are those of a model of another size.
    """
    check_sizes(models, golden)
    differences = []
    for attention in _ATTENTIONS:
        models.use(attention)
        alone = models.run_alone(golden.single)
        differences += _differ(f"{attention} alone", golden.single, alone, _expected(golden.single))
        for side in ("right", "left"):
            padded = models.run_padded(golden.batch, side)
            case = f"{attention} padded {side}"
            differences += _differ(case, golden.batch, padded, _expected(golden.batch))
    return differences


def compare_with_golden(models: Models, path: str | Path) -> list[Difference]:
    """All that a file of the authors' values tells: `compare_with_authors`, `measure_rounding`."""
    golden = read_golden(path)
    return [
        *compare_with_authors(models, golden),
        *measure_rounding(models, golden.single, golden.batch),
    ]


def measure_rounding(
    models: Models, single: Sequence[Sample], batch: Sequence[Sample] = ()
) -> list[Difference]:
    """What rounding does to a model's values; the weights in float64 tell.

    - "sdpa from eager": alone; on a CPU they compute the same.
    - "authors", "eager" and "sdpa from float64": alone.
    - "float32" and "float64 batch from alone": what a sequence's outputs owe to its batch. Sums
      of another shape round otherwise in float32; in float64 nothing of that size may remain.
    """
    exact = models.double()
    exact_alone = exact.run_alone(single)
    models.use("sdpa")
    sdpa = models.run_alone(single)
    models.use("eager")
    eager = models.run_alone(single)
    return [
        *_differ("sdpa from eager", single, sdpa, eager, bar=0.0),
        *_differ("authors from float64", single, _expected(single), exact_alone),
        *_differ("eager from float64", single, eager, exact_alone),
        *_differ("sdpa from float64", single, sdpa, exact_alone),
        *_batch_from_alone("float32", models, batch),
        *_batch_from_alone("float64", exact, batch),
    ]


def _batch_from_alone(dtype: str, models: Models, batch: Sequence[Sample]) -> list[Difference]:
    alone, case = models.run_alone(batch), f"{dtype} batch from alone"
    return [
        difference
        for side in ("right", "left")
        for difference in _differ(case, batch, models.run_padded(batch, side), alone)
    ]


def _expected(samples: Sequence[Sample]) -> list[Outputs]:
    return [sample.expected for sample in samples]


def check_sizes(models: Models, golden: Golden) -> None:
    """Raise ParityError if the golden values are those of a model of another size."""
    config = models.encoder.config
    for sample in (*golden.single, *golden.batch):
        states = [place for place in sample.expected if place.startswith("hidden state")]
        if not states:
            continue
        layers, hidden = len(states) - 1, sample.expected[states[0]].shape[-1]
        if (layers, hidden) != (config.num_hidden_layers, config.hidden_size):
            raise ParityError(
                f"the golden values are of a model with {layers} layers of width {hidden}; "
                f"{models.folder} has {config.num_hidden_layers} layers of width "
                f"{config.hidden_size}"
            )


def _differ(
    case: str,
    samples: Sequence[Sample],
    ours: Sequence[Outputs],
    theirs: Sequence[Outputs],
    bar: float | None = None,
) -> list[Difference]:
    """The difference at each place that both sides have, and the authors if they have any."""
    return [
        Difference(
            case,
            place + sample.note,
            sample.name,
            (output[place].double() - reference[place].double()).abs().max().item(),
            _bar(case, place) if bar is None else bar,
        )
        for sample, output, reference in zip(samples, ours, theirs, strict=True)
        for place in output
        if place in reference and place in (sample.expected or output)
    ]


def _bar(case: str, place: str) -> float | None:
    """The most that a difference from the authors' values may be."""
    if " from " in case:
        return None
    return next(bar for kind, bar in BARS.items() if place.startswith(kind))


def belongs_to(folder: str | Path, checkpoint: str | Path) -> bool:
    """Whether a folder holds exactly the weights of a checkpoint, whatever the paths."""
    weights = load_file(Path(folder) / _WEIGHTS)
    theirs = convert_weights(read_checkpoint(checkpoint)).state_dict
    return weights.keys() == theirs.keys() and all(
        torch.equal(weight, theirs[name]) for name, weight in weights.items()
    )
