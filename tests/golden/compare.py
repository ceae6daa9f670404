"""Compare a converted folder with the values in this folder, which the authors' code computed.

Every output is compared at every layer, with eager attention and with sdpa, in the batches in which
the authors' values were computed. The same weights in float64 show how far the authors' values and
ours differ from the exact ones by rounding. The comparison runs the code in the converted folder.

Shapes: batch sequences, seq tokens, heads, hidden, vocab; length bases.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

from ernie_rna.model.configuration_ernie_rna import VOCABULARY
from ernie_rna.model.structures_ernie_rna import predict_pairs, solve_each
from ernie_rna.structures.formats.by_extension import format_ct
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.verify import load_own

# By name of the sequence: `input_ids` (seq,), `pairing_scores` (seq, seq) if they do not follow
# from the ids, and the values that were computed from these.
Samples = Mapping[str, Mapping[str, Any]]
# Outputs by name of the sequence and place in the model, such as "hidden state 3" or "logits".
Outputs = Mapping[tuple[str, str], torch.Tensor]

HERE = Path(__file__).parent
# MKL's order of summation depends on the number of threads and the CPU's instructions. The values
# were computed with two threads on a CPU with AVX-512, where the differences are 0. With AVX2 or
# one thread they reach 2.1e-5 in the logits; the authors' logits differ from float64 by 2.2e-5.
THREADS = 2
# The largest allowed difference of float32 outputs from the authors' values: twice the largest
# error of these against float64 (5.6e-6, 1.9e-5, 2.2e-5, 8.0e-6, by `measure_rounding`) plus 1e-6.
# Both sum the same terms, in an order that depends on the CPU and the threads.
BARS = {"hidden state": 1.2e-5, "bias": 3.9e-5, "logits": 4.5e-5, "pooler output": 1.7e-5}
ATTENTIONS = ("eager", "sdpa")


class Difference(NamedTuple):
    """The largest absolute difference at one place of one sequence.

    Attributes:
        case: the two things that are compared.
        bar: the largest allowed value; None if the value is only informative.
    """

    case: str
    place: str
    sample: str
    value: float
    bar: float | None = None

    @property
    def missed(self) -> bool:
        return self.bar is not None and not self.value <= self.bar  # also if the value is NaN


def read_samples() -> tuple[Samples, Samples]:
    """The sequences that the authors' code ran alone, and those that it ran in one batch."""
    alone = _read_nested("tiny_expected.safetensors")
    batch = alone.pop("batch")
    for name in alone.keys() - {"pretrain_mask"}:
        del alone[name]["pairing_scores"]
    rows = {}
    for row, real in enumerate(batch["input_ids"] != VOCABULARY.index("<pad>")):
        sample = {kind: batch[kind][row, real] for kind in ("input_ids", "logits")}
        rows[f"batch row {row}"] = {**sample, "hidden_states": batch["hidden_states"][:, row, real]}
    return alone, rows


def _read_nested(file: str) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of a file, whose keys are NAME.KIND, by name and kind."""
    named: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(HERE / file).items():
        name, _, kind = key.rpartition(".")
        named.setdefault(name, {})[kind] = tensor
    return named


def _by_place(samples: Samples) -> Outputs:
    outputs = {}
    for name, sample in samples.items():
        for kind, layers in (("hidden state", "hidden_states"), ("bias", "attention_biases")):
            for number, tensor in enumerate(sample.get(layers, ())):
                outputs[name, f"{kind} {number}"] = tensor
        for kind in ("logits", "pooler_output"):
            if kind in sample:
                outputs[name, kind.replace("_", " ")] = sample[kind]
    return outputs


class Models:
    """The encoder and the masked language model of a folder."""

    def __init__(self, folder: str | Path):
        self.encoder = load_own(folder, "modeling_ernie_rna.ErnieRnaModel").eval()
        self.masked_lm = load_own(folder, "modeling_ernie_rna.ErnieRnaForMaskedLM").eval()
        self.tokenizer = load_own(folder, "tokenization_ernie_rna.ErnieRnaTokenizer")

    def run_alone(self, samples: Samples, attention: str = "eager") -> Outputs:
        outputs: dict[tuple[str, str], torch.Tensor] = {}
        for name, sample in samples.items():
            outputs |= self.run({name: sample}, attention)
        return outputs

    @torch.no_grad()
    def run(self, samples: Samples, attention: str = "eager", side: str = "right") -> Outputs:
        """All outputs at real tokens for sequences that are padded together."""
        self.tokenizer.padding_side = side
        ids = [sample["input_ids"].tolist() for sample in samples.values()]
        inputs = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        scores = [s["pairing_scores"] for s in samples.values() if "pairing_scores" in s]
        if scores:  # Only a sample that is run alone has them.
            inputs["pairing_scores"] = torch.stack(scores)
        for model in (self.encoder, self.masked_lm):
            model.set_attn_implementation(attention)
        encoded = self.encoder(**inputs, output_hidden_states=True, output_attention_biases=True)
        logits, values = self.masked_lm(**inputs).logits, {}
        real_tokens = inputs["attention_mask"].bool()
        for row, (name, real) in enumerate(zip(samples, real_tokens, strict=True)):
            values[name] = {
                "hidden_states": [states[row, real] for states in encoded.hidden_states],
                "attention_biases": [
                    bias[row][:, real][..., real] for bias in encoded.attention_biases
                ],
                "logits": logits[row, real],
                "pooler_output": encoded.pooler_output[row],
            }
        return _by_place(values)


def compare_with_authors(models: Models) -> list[Difference]:
    """The differences from the authors' values, for each attention and side of padding."""
    alone, batch = read_samples()
    expected = _by_place({**alone, **batch})
    differences = []
    for attention in ATTENTIONS:
        runs = {"alone": models.run_alone(alone, attention)}
        runs |= {side: models.run(batch, attention, side) for side in ("right", "left")}
        for case, outputs in runs.items():
            differences += _differ(f"{attention} {case}", outputs, expected, BARS)
    return differences


def measure_rounding(models: Models) -> list[Difference]:
    """The rounding errors of outputs, by comparison with the same weights in float64. The cases:

    - "sdpa - eager": single sequences; on a CPU the two must be equal.
    - "authors", "eager" and "sdpa - float64": single sequences.
    - "float32" and "float64 batch": the difference between a sequence in a batch and alone. Sums of
      other shapes are rounded differently in float32; in float64 the difference must be near 0.
    """
    alone, batch = read_samples()
    authors = _by_place(alone)
    exact = copy.deepcopy(models)
    exact.encoder.double()
    exact.masked_lm.double()
    ours = {attention: models.run_alone(alone, attention) for attention in ATTENTIONS}
    differences = _differ("sdpa - eager", ours["sdpa"], ours["eager"], dict.fromkeys(BARS, 0.0))
    true = {key: value for key, value in exact.run_alone(alone).items() if key in authors}
    for name, outputs in {"authors": authors, **ours}.items():
        differences += _differ(f"{name} - float64", outputs, true)
    for dtype, in_dtype in {"float32": models, "float64": exact}.items():
        singly = in_dtype.run_alone(batch)
        for side in ("right", "left"):
            differences += _differ(f"{dtype} batch", in_dtype.run(batch, "eager", side), singly)
    return differences


def _differ(
    case: str, outputs: Outputs, expected: Outputs, bars: Mapping[str, float] | None = None
) -> list[Difference]:
    """The differences at the places that both have; a bar is for places that begin with its key."""
    differences = []
    for name, place in (key for key in outputs if key in expected):
        value = _largest(outputs[name, place].double() - expected[name, place].double())
        bar = next((b for kind, b in (bars or {}).items() if place.startswith(kind)), None)
        differences.append(Difference(case, place, name, value, bar))
    return differences


# ---------------------------------------------------------------------------------------------
# The authors' heads

HEADS = {
    "secondary_structure": "ErnieRnaForSecondaryStructure",
    "closeness": "ErnieRnaForCloseness",
    "ribosome_loading": "ErnieRnaForRibosomeLoading",
}
LOGITS, CT = "logits, of the largest", ".ct lines that differ"
# Logits are compared relative to the largest, since they are in the hundreds for the random weights
# of the small checkpoint. The optimisation enlarges errors of such logits: the authors' contacts
# differ from float64 by up to 1.23e-4. The bar is twice that plus 1e-6.
HEAD_BARS = {LOGITS: 1e-5, "probabilities": 1e-5, "prediction": 1e-5, "contact": 2.5e-4, CT: 0.0}


def compare_head(
    folder: str | Path, task: str, attentions: Sequence[str] = ATTENTIONS
) -> list[Difference]:
    """The differences of a fine-tuned folder from the authors' values, by attention and padding.

    The pairing scores are computed from the sequences, as in the authors' computation.
    """
    nested = _read_nested("tiny_heads_expected.safetensors")
    expected = {key: values for key, values in nested.items() if key.startswith(f"{task}.")}
    named = json.loads((HERE / "sequences.json").read_text(encoding="utf-8"))
    known = {**named["sequences"], **named["utrs"]}.items()
    texts = {f"{task}.{name}": text for name, text in known if set(text) <= set("ACGU")}
    by_length = sorted(texts, key=lambda key: len(texts[key]))
    # The shortest and the longest sequence are in the batch, so the others are padded.
    together = [*dict.fromkeys([by_length[0], by_length[-1], *expected])]
    model = load_own(folder, f"modeling_ernie_rna.{HEADS[task]}").eval()
    model.config.pairing_scores = "sequence"
    tokenizer = load_own(folder, "tokenization_ernie_rna.ErnieRnaTokenizer")
    differences = []
    for attention in attentions:
        model.set_attn_implementation(attention)
        batches = [("alone", [key]) for key in expected]
        for case, keys in [*batches, ("right", together), ("left", together)]:
            tokenizer.padding_side = "left" if case == "left" else "right"
            batch = tokenizer([texts[key] for key in keys], padding=True, return_tensors="pt")
            with torch.no_grad():
                logits = model(**batch).logits
            for key, row in zip(keys, logits, strict=True):
                if key not in expected:
                    continue
                values = _head_differences(key, texts[key], row, expected[key], model.config)
                for place, value in values.items():
                    name, bar = key.partition(".")[2], HEAD_BARS[place]
                    differences.append(Difference(f"{attention} {case}", place, name, value, bar))
    return differences


def _head_differences(
    key: str, text: str, logits: torch.Tensor, expected: Mapping[str, torch.Tensor], config: Any
) -> dict[str, float]:
    """The differences of one sequence in a batch, by place."""
    if "prediction" in expected:
        return {"prediction": _largest(logits - expected["prediction"])}
    logits = logits[: len(text), : len(text)]
    if "probabilities" in expected:
        return {"probabilities": _largest(logits.sigmoid() - expected["probabilities"])}
    contact: Any = solve_each(logits[None], [text], threshold=config.pair_threshold)[0]
    ct = format_ct(Structure(key.partition(".")[2], text, predict_pairs(contact))).split("\n")
    structures = json.loads((HERE / "tiny_structures.json").read_text(encoding="utf-8"))
    expected_ct = structures[key].split("\n")
    return {
        "contact": _largest(contact - expected["contact"]),
        LOGITS: _largest(logits - expected["logits"]) / _largest(expected["logits"]),
        CT: float(sum(line != other for line, other in zip_longest(ct, expected_ct))),
    }


def _largest(difference: torch.Tensor) -> float:
    return difference.abs().max().item()


# ---------------------------------------------------------------------------------------------
# Tables


def format_table(differences: Sequence[Difference]) -> str:
    """A table of places by cases with the largest value of all sequences.

    A value above its bar is marked with `!` and has a line of its own below the table.
    """
    by_value = sorted(differences, key=lambda d: (math.isnan(d.value), d.value))
    worst = {(d.place, d.case): d for d in by_value}
    cases = {d.case: max(len(d.case), 8) + 2 for d in differences}
    lines = [" " * 34 + "".join(f"{case:>{width}}" for case, width in cases.items())]
    for place in dict.fromkeys(d.place for d in differences):
        cells = (f"{_cell(worst.get((place, case))):>{width}}" for case, width in cases.items())
        lines.append(f"{place:<34}" + "".join(cells))
    for d in by_value[::-1]:
        if d.missed:
            where = f"{d.case}, {d.place} of {d.sample}"
            lines.append(f"missed: {where}: {d.value:.1e} > {d.bar:.1e}")
    return "\n".join(lines)


def _cell(difference: Difference | None) -> str:
    if difference is None:
        return "·"
    value = "0" if difference.value == 0 else f"{difference.value:.1e}"
    return f"{value}!" if difference.missed else value


def summarize(differences: Iterable[Difference]) -> list[Difference]:
    """The differences without layer numbers and padding in their names, for a short table."""
    return [
        d._replace(place=kind, case=d.case.split()[0])
        for kind in BARS
        for d in differences
        if d.place.startswith(kind)
    ]
