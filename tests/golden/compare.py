"""Compares a converted folder with what the authors' own code computed, the values beside this.

Every output is compared at every layer, with eager attention and with sdpa, in the batches that
the authors' values come from. The same weights in float64 tell how far rounding alone takes the
authors' values, and ours, from what the model means. The folder's own code is run.

Shapes: batch sequences, seq tokens, heads, hidden, vocab; length bases.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ernie_rna.model.configuration_ernie_rna import VOCABULARY
from ernie_rna.model.structures_ernie_rna import predict_pairs, solve_each
from ernie_rna.structures.formats.by_extension import format_ct
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.verify import load_own

# An output of one sequence by its place in the model, such as "hidden state 3" or "logits".
Outputs = dict[str, torch.Tensor]

HERE = Path(__file__).parent
# MKL splits its sums by the number of threads and by the CPU's instructions; the values were made
# with two threads on a CPU with AVX-512, where the differences are 0. With AVX2, or with one
# thread, they are up to 2.1e-5 in the logits; the authors' are 2.2e-5 from float64.
THREADS = 2
# The most that float32 outputs may differ from the authors': twice what theirs are off from
# float64 (5.6e-6, 1.9e-5, 2.2e-5, 8.0e-6 at worst, by `measure_rounding`) and 1e-6. Both are sums
# of the same terms, in an order that the CPU and the threads decide.
BARS = {"hidden state": 1.2e-5, "bias": 3.9e-5, "logits": 4.5e-5, "pooler output": 1.7e-5}
ATTENTIONS = ("eager", "sdpa")


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


@dataclass(frozen=True)
class Sample:
    """A sequence, `input_ids` (seq,), with what the authors' code computed from it.

    Attributes:
        pairing_scores: (seq, seq) if others than those of the ids were given.
    """

    name: str
    input_ids: torch.Tensor
    expected: Outputs
    pairing_scores: torch.Tensor | None = None


def read_samples() -> tuple[list[Sample], list[Sample]]:
    """The sequences that the authors' code ran alone, and those that it ran in one batch."""
    named: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(HERE / "tiny_expected.safetensors").items():
        name, _, kind = key.partition(".")
        named.setdefault(name, {})[kind] = tensor
    batch = named.pop("batch")
    alone = []
    for name, own in named.items():
        given = own["pairing_scores"] if name == "pretrain_mask" else None
        alone.append(Sample(name, own["input_ids"], _by_place(**own), given))
    rows = []
    for row, real in enumerate(batch["input_ids"] != VOCABULARY.index("<pad>")):
        own = {"hidden_states": batch["hidden_states"][:, row, real]}
        own["logits"] = batch["logits"][row, real]
        rows.append(Sample(f"batch row {row}", batch["input_ids"][row, real], _by_place(**own)))
    return alone, rows


def _by_place(
    hidden_states: Iterable[torch.Tensor] = (),
    attention_biases: Iterable[torch.Tensor] = (),
    **others: torch.Tensor,
) -> Outputs:
    kept = {name: others[name] for name in ("logits", "pooler_output") if name in others}
    return {
        **{f"hidden state {i}": state for i, state in enumerate(hidden_states)},
        **{f"bias {i}": bias for i, bias in enumerate(attention_biases)},
        **{name.replace("_", " "): output for name, output in kept.items()},
    }


class Models:
    """The encoder and the masked language model of a folder."""

    def __init__(self, folder: str | Path):
        self.encoder = load_own(folder, "modeling_ernie_rna.ErnieRnaModel").eval()
        self.masked_lm = load_own(folder, "modeling_ernie_rna.ErnieRnaForMaskedLM").eval()

    def double(self) -> Models:
        """A copy in float64, with eager attention."""
        exact = copy.deepcopy(self)
        exact.encoder.double()
        exact.masked_lm.double()
        return exact.use("eager")

    def use(self, attention: str) -> Models:
        self.encoder.set_attn_implementation(attention)
        self.masked_lm.set_attn_implementation(attention)
        return self

    def run_alone(self, samples: Iterable[Sample]) -> list[Outputs]:
        return [output for sample in samples for output in self.run_padded([sample])]

    def run_padded(self, samples: Sequence[Sample], side: str = "right") -> list[Outputs]:
        """All outputs of sequences that are padded together, without those of the padding."""
        seq, batch = max(len(sample.input_ids) for sample in samples), len(samples)
        ids = torch.full((batch, seq), self.encoder.config.pad_token_id)
        inputs = {"input_ids": ids, "attention_mask": torch.zeros_like(ids)}
        if any(sample.pairing_scores is not None for sample in samples):
            inputs["pairing_scores"] = torch.zeros(batch, seq, seq)
        real = []
        for row, sample in enumerate(samples):
            start = seq - len(sample.input_ids) if side == "left" else 0
            where = slice(start, start + len(sample.input_ids))
            ids[row, where], inputs["attention_mask"][row, where] = sample.input_ids, 1
            if sample.pairing_scores is not None:
                inputs["pairing_scores"][row, where, where] = sample.pairing_scores
            real.append(where)
        with torch.no_grad():
            flags = {"output_hidden_states": True, "output_attention_biases": True}
            encoded, logits = self.encoder(**inputs, **flags), self.masked_lm(**inputs).logits
        return [
            _by_place(
                [state[row, where] for state in encoded.hidden_states],
                [bias[row, :, where, where] for bias in encoded.attention_biases],
                logits=logits[row, where],
                pooler_output=encoded.pooler_output[row],
            )
            for row, where in enumerate(real)
        ]


def compare_with_authors(models: Models) -> list[Difference]:
    """The differences from the authors' values, by attention and padding."""
    single, batch = read_samples()
    differences = []
    for attention in ATTENTIONS:
        models.use(attention)
        differences += _differ(f"{attention} alone", single, models.run_alone(single))
        for side in ("right", "left"):
            padded = models.run_padded(batch, side)
            differences += _differ(f"{attention} {side}", batch, padded)
    return differences


def measure_rounding(models: Models) -> list[Difference]:
    """What rounding does to a model's values; the weights in float64 tell.

    - "sdpa - eager": alone; on a CPU they compute the same.
    - "authors", "eager" and "sdpa - float64": alone.
    - "float32" and "float64 batch": what a sequence's outputs owe to its batch. Sums of another
      shape round otherwise in float32; in float64 nothing of that size may remain.
    """
    single, batch = read_samples()
    exact = models.double()
    true, theirs = exact.run_alone(single), [sample.expected for sample in single]
    ours = {attention: models.use(attention).run_alone(single) for attention in ATTENTIONS}
    found = _differ("sdpa - eager", single, ours["sdpa"], ours["eager"], bar=0.0)
    for name, values in {"authors": theirs, **ours}.items():
        found += _differ(f"{name} - float64", single, values, true)
    for dtype, own in {"float32": models.use("eager"), "float64": exact}.items():
        alone = own.run_alone(batch)
        for side in ("right", "left"):
            found += _differ(f"{dtype} batch", batch, own.run_padded(batch, side), alone)
    return found


def _differ(
    case: str,
    samples: Sequence[Sample],
    ours: Sequence[Outputs],
    others: Sequence[Outputs] | None = None,
    bar: float | None = None,
) -> list[Difference]:
    """From the authors' values, with their bars, or from others, at each place that both have."""
    found = []
    for number, (sample, output) in enumerate(zip(samples, ours, strict=True)):
        other = sample.expected if others is None else others[number]
        note = ", masked as in pretraining" if sample.pairing_scores is not None else ""
        for place in (place for place in output if place in other and place in sample.expected):
            value = (output[place].double() - other[place].double()).abs().max().item()
            own = next(b for kind, b in BARS.items() if place.startswith(kind))
            allowed = own if others is None else bar
            found.append(Difference(case, place + note, sample.name, value, allowed))
    return found


# ---------------------------------------------------------------------------------------------
# The authors' heads

# Logits, which are in the hundreds for the small checkpoint's random weights, relative to the
# largest.
HEAD_BAR = 1e-5
# The optimisation enlarges what such logits are off: from float64, the authors' contacts are so by
# up to 1.23e-4. Twice that and 1e-6.
CONTACT_BAR = 2.5e-4
LOGITS, CT = "logits, of the largest", ".ct lines that differ"


HEADS = {
    "secondary_structure": "ErnieRnaForSecondaryStructure",
    "closeness": "ErnieRnaForCloseness",
    "ribosome_loading": "ErnieRnaForRibosomeLoading",
}


def _head_outputs(task: str, logits: torch.Tensor, text: str, config: Any) -> Outputs:
    """Of one sequence of a batch."""
    if task == "ribosome_loading":
        return {"prediction": logits[None]}
    own = logits[: len(text), : len(text)]
    if task == "closeness":
        return {"probabilities": own.sigmoid()}
    contact: Any = solve_each(own[None], [text], threshold=config.pair_threshold)[0]
    return {"logits": own, "contact": contact}


def compare_head(
    folder: str | Path, task: str, attentions: Sequence[str] = ATTENTIONS
) -> list[Difference]:
    """The differences of a fine-tuned folder from the authors' values, by attention and padding.

    The pairing scores are read off the sequences, as for these values.
    """
    expected: dict[str, Outputs] = {}
    for key, tensor in load_file(HERE / "tiny_heads_expected.safetensors").items():
        own, name, place = key.split(".")
        if own == task:
            expected.setdefault(name, {})[place] = tensor
    named = json.loads((HERE / "sequences.json").read_text(encoding="utf-8"))
    plain = {**named["sequences"], **named["utrs"]}
    plain = {name: text for name, text in plain.items() if set(text) <= set("ACGU")}
    by_length = sorted(plain, key=lambda name: len(plain[name]))
    # The shortest and the longest of the others, so that every sequence has padding somewhere.
    texts = {name: plain[name] for name in [by_length[0], by_length[-1], *expected]}
    model = load_own(folder, f"modeling_ernie_rna.{HEADS[task]}").eval()
    model.config.pairing_scores = "sequence"
    tokenizer = load_own(folder, "tokenization_ernie_rna.ErnieRnaTokenizer")

    def run(names: Iterable[str], side: str) -> dict[str, Outputs]:
        tokenizer.padding_side = side
        batch = tokenizer([texts[name] for name in names], padding=True, return_tensors="pt")
        with torch.no_grad():
            rows = zip(model(**batch).logits, names, strict=True)
        return {name: _head_outputs(task, row, texts[name], model.config) for row, name in rows}

    found = []
    for attention in attentions:
        model.set_attn_implementation(attention)
        ours = {"alone": {name: run([name], "right")[name] for name in expected}}
        ours |= {side: run(texts, side) for side in ("right", "left")}
        for case, outputs in ours.items():
            for name, values in expected.items():
                for place, value, bar in _head_values(f"{task}.{name}", outputs[name], values):
                    found.append(Difference(f"{attention} {case}", place, name, value, bar))
    return found


def _head_values(name: str, ours: Outputs, expected: Outputs) -> Iterator[tuple[str, float, float]]:
    """Place, value and bar of each difference of a sequence."""
    for place, values in expected.items():
        largest = values.abs().max().item() if place == "logits" else 1.0
        value = (ours[place] - values).abs().max().item() / largest
        bar = CONTACT_BAR if place == "contact" else HEAD_BAR
        yield LOGITS if place == "logits" else place, value, bar
    if "contact" in expected:
        known = json.loads((HERE / "tiny_structures.json").read_text(encoding="utf-8"))[name]
        text = "".join(line.split()[1] for line in known.splitlines()[1:])
        pairs = predict_pairs(ours["contact"])
        lines = format_ct(Structure(name.partition(".")[2], text, pairs)).split("\n")
        count = sum(own != their for own, their in zip_longest(lines, known.split("\n")))
        yield CT, float(count), 0.0


# ---------------------------------------------------------------------------------------------
# Tables


def format_table(differences: Sequence[Difference]) -> str:
    """Places by cases, in each cell the largest of all sequences, `!` where it misses its bar; then
    a line for each that does."""
    worst: dict[tuple[str, str], Difference] = {}
    for one in differences:
        key = one.place, one.case
        if key not in worst or not one.value <= worst[key].value:  # NaN is larger than any
            worst[key] = one
    cases = list(dict.fromkeys(one.case for one in differences))
    widths = [max(len(case), 8) + 2 for case in cases]
    lines = [" " * 34 + "".join(f"{c:>{w}}" for c, w in zip(cases, widths, strict=True))]
    for place in dict.fromkeys(one.place for one in differences):
        cells = (_cell(worst.get((place, case))) for case in cases)
        row = "".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
        lines.append(f"{place:<34}{row}")
    for one in sorted((one for one in differences if one.missed), key=lambda one: -one.value):
        where = f"{one.case}, {one.place} of {one.sample}"
        lines.append(f"missed: {where}: {one.value:.1e} > {one.bar:.1e}")
    return "\n".join(lines)


def _cell(one: Difference | None) -> str:
    if one is None:
        return "·"
    return ("0" if one.value == 0 else f"{one.value:.1e}") + "!" * one.missed


def summarize(differences: Iterable[Difference]) -> list[Difference]:
    """Places without numbers and notes, cases without the padding: for a short table."""
    return [
        replace(one, place=kind, case=one.case.split()[0])
        for kind in BARS
        for one in differences
        if one.place.startswith(kind)
    ]
