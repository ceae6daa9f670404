"""Measures a converted folder against values that the authors' own code computed.

Every output is compared at every layer, with eager attention and with sdpa, in the batches that
the authors' values come from. The same weights in float64 tell how far rounding alone takes the
authors' values, and ours, from what the model means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ernie_rna.parity.golden import Golden, Outputs, ParityError, Sample, read_golden
from ernie_rna.parity.models import Models

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


def compare_with_authors(models: Models, golden: Golden) -> list[Difference]:
    """The differences from the authors' values, by attention and padding.

    Raises:
        ParityError: the values are those of a model of another size.
    """
    check_sizes(models, golden)
    differences = []
    for attention in ATTENTIONS:
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
