"""Compare a converted folder with the values in this folder, which the authors' code computed.

Every output is compared at every layer, with eager attention and with sdpa, in the batches in which
the authors' values were computed. The same weights in float64 show how far the authors' values and
ours are from the exact ones by rounding. The comparison runs the code in the converted folder.

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

# By name of the sequence: `input_ids` (seq,), `pairing_scores` (seq, seq) unless they follow from
# the ids, and the values that were computed from these.
Samples = Mapping[str, Mapping[str, Any]]
# Outputs by name of the sequence and place in the model, such as "hidden state 3" or "logits".
Outputs = Mapping[tuple[str, str], torch.Tensor]

HERE = Path(__file__).parent
# MKL splits its sums by the number of threads and the CPU's instructions. The values were computed
# with two threads on a CPU with AVX-512, where the differences are 0. With AVX2 or one thread they
# are up to 2.1e-5 in the logits; the authors' logits differ from float64 by up to 2.2e-5.
THREADS = 2
# The largest allowed difference of float32 outputs from the authors' values: twice the largest
# error of these against float64 (5.6e-6, 1.9e-5, 2.2e-5, 8.0e-6, by `measure_rounding`) plus 1e-6.
# Both are sums of the same terms, in an order that depends on the CPU and the threads.
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
        each = (self.run({name: sample}, attention) for name, sample in samples.items())
        return {key: tensor for outputs in each for key, tensor in outputs.items()}

    @torch.no_grad()
    def run(self, samples: Samples, attention: str = "eager", side: str = "right") -> Outputs:
        """All outputs at real tokens for sequences that are padded together."""
        self.tokenizer.padding_side = side
        ids = [sample["input_ids"].tolist() for sample in samples.values()]
        inputs = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        scores = [own["pairing_scores"] for own in samples.values() if "pairing_scores" in own]
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
    found = []
    for attention in ATTENTIONS:
        found += _differ(f"{attention} alone", models.run_alone(alone, attention), expected, BARS)
        for side in ("right", "left"):
            ours = models.run(batch, attention, side)
            found += _differ(f"{attention} {side}", ours, expected, BARS)
    return found


def measure_rounding(models: Models) -> list[Difference]:
    """The rounding errors of values, found with the same weights in float64. The cases are:

    - "sdpa - eager": single sequences; on a CPU the two must be equal.
    - "authors", "eager" and "sdpa - float64": single sequences.
    - "float32" and "float64 batch": the difference between a sequence in a batch and alone. Sums of
      other shapes are rounded differently in float32; in float64 almost nothing may remain.
    """
    alone, batch = read_samples()
    theirs = _by_place(alone)
    exact = copy.deepcopy(models)
    exact.encoder.double()
    exact.masked_lm.double()
    ours = {attention: models.run_alone(alone, attention) for attention in ATTENTIONS}
    found = _differ("sdpa - eager", ours["sdpa"], ours["eager"], dict.fromkeys(BARS, 0.0))
    true = {key: value for key, value in exact.run_alone(alone).items() if key in theirs}
    for name, values in {"authors": theirs, **ours}.items():
        found += _differ(f"{name} - float64", values, true)
    for dtype, pair in {"float32": models, "float64": exact}.items():
        each = pair.run_alone(batch)
        for side in ("right", "left"):
            found += _differ(f"{dtype} batch", pair.run(batch, "eager", side), each)
    return found


def _differ(
    case: str, ours: Outputs, others: Outputs, bars: Mapping[str, float] | None = None
) -> list[Difference]:
    """The differences at the places that both have; a bar is for places that begin with its key."""
    found = []
    for name, place in (key for key in ours if key in others):
        value = (ours[name, place].double() - others[name, place].double()).abs().max().item()
        bar = next((b for kind, b in (bars or {}).items() if place.startswith(kind)), None)
        found.append(Difference(case, place, name, value, bar))
    return found


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

    The pairing scores are computed from the sequences, as they were for these values.
    """
    nested = _read_nested("tiny_heads_expected.safetensors")
    expected = {key: values for key, values in nested.items() if key.startswith(f"{task}.")}
    named = json.loads((HERE / "sequences.json").read_text(encoding="utf-8"))
    plain = {**named["sequences"], **named["utrs"]}.items()
    texts = {f"{task}.{name}": text for name, text in plain if set(text) <= set("ACGU")}
    by_length = sorted(texts, key=lambda key: len(texts[key]))
    # With the shortest and the longest sequence in the batch, each of the others is padded.
    together = [*dict.fromkeys([by_length[0], by_length[-1], *expected])]
    model = load_own(folder, f"modeling_ernie_rna.{HEADS[task]}").eval()
    model.config.pairing_scores = "sequence"
    tokenizer = load_own(folder, "tokenization_ernie_rna.ErnieRnaTokenizer")
    found = []
    for attention in attentions:
        model.set_attn_implementation(attention)
        batches = [("alone", [key]) for key in expected]
        for case, keys in [*batches, ("right", together), ("left", together)]:
            tokenizer.padding_side = "left" if case == "left" else "right"
            batch = tokenizer([texts[key] for key in keys], padding=True, return_tensors="pt")
            with torch.no_grad():
                logits = model(**batch).logits
            for key, row in zip(keys, logits, strict=True):
                if key in expected:
                    values = _head_differences(key, texts[key], row, expected[key], model.config)
                    for place, value in values.items():
                        name, bar = key.partition(".")[2], HEAD_BARS[place]
                        found.append(Difference(f"{attention} {case}", place, name, value, bar))
    return found


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
    known = json.loads((HERE / "tiny_structures.json").read_text(encoding="utf-8"))[key].split("\n")
    return {
        "contact": _largest(contact - expected["contact"]),
        LOGITS: _largest(logits - expected["logits"]) / _largest(expected["logits"]),
        CT: float(sum(ours != theirs for ours, theirs in zip_longest(ct, known))),
    }


def _largest(difference: torch.Tensor) -> float:
    return difference.abs().max().item()


# ---------------------------------------------------------------------------------------------
# Tables


def format_table(differences: Sequence[Difference]) -> str:
    """A table of places by cases with the largest value of all sequences, marked by `!` if it is
    above its bar; below the table a line for each value that is."""
    by_value = sorted(differences, key=lambda one: (math.isnan(one.value), one.value))
    worst = {(one.place, one.case): one for one in by_value}
    cases = {one.case: max(len(one.case), 8) + 2 for one in differences}
    lines = [" " * 34 + "".join(f"{case:>{width}}" for case, width in cases.items())]
    for place in dict.fromkeys(one.place for one in differences):
        cells = (f"{_cell(worst.get((place, case))):>{width}}" for case, width in cases.items())
        lines.append(f"{place:<34}" + "".join(cells))
    for one in by_value[::-1]:
        if one.missed:
            where = f"{one.case}, {one.place} of {one.sample}"
            lines.append(f"missed: {where}: {one.value:.1e} > {one.bar:.1e}")
    return "\n".join(lines)


def _cell(one: Difference | None) -> str:
    if one is None:
        return "·"
    return ("0" if one.value == 0 else f"{one.value:.1e}") + "!" * one.missed


def summarize(differences: Iterable[Difference]) -> list[Difference]:
    """The differences without the numbers of places and the padding of cases, for a short table."""
    return [
        one._replace(place=kind, case=one.case.split()[0])
        for kind in BARS
        for one in differences
        if one.place.startswith(kind)
    ]
