"""Mean ribosome loading of 5' untranslated regions, by a model with a head for that.

>>> for loading in ribosome_loading(["GGAGACUUCAGGCAUC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(loading.id, loading.mrl)

The authors trained such a head on the reporter library of Sample et al., Nature Biotechnology
37:803-809 (2019). Its result is standardised; the mean ribosome loading is mean + scale * result,
with the two numbers in the model's configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np

from ernie_rna.model.modeling_ernie_rna import ErnieRnaForRibosomeLoading
from ernie_rna.run.head_tasks import HeadOptions, HeadTask, iterate, write_file
from ernie_rna.run.loading import not_finite, run_head
from ernie_rna.run.outputs import sync
from ernie_rna.run.resumable import Results, RunSummary
from ernie_rna.run.store import Part
from ernie_rna.run.threads import use_threads
from ernie_rna.sequences.batches import SCORES_FROM
from ernie_rna.sequences.fasta import FastaRecord, FilePath
from ernie_rna.sequences.sources import Sequences, as_source
from ernie_rna.sequences.survey import Survey

Model = str | PathLike[str] | ErnieRnaForRibosomeLoading

HEADER = "id\tlength\tstandardised\tmrl\n"

_WINDOW_TOKENS = 1 << 16
_LINE_BYTES = 40


@dataclass(frozen=True)
class RibosomeLoading:
    """The prediction for one sequence.

    Attributes:
        id: its id.
        length: nucleotides in it.
        standardised: what the head gives, in units of the configuration's `loading_scale`.
        mrl: mean ribosome loading, ribosomes a transcript.
    """

    id: str
    length: int
    standardised: float
    mrl: float

    @property
    def line(self) -> str:
        """A line below `HEADER`."""
        return f"{self.id}\t{self.length}\t{self.standardised:.6f}\t{self.mrl:.6f}\n"


@overload
def ribosome_loading(
    sequences: Sequences, model: Model, output: None = None, **options: Any
) -> Iterator[RibosomeLoading]: ...


@overload
def ribosome_loading(
    sequences: Sequences, model: Model, output: FilePath, **options: Any
) -> RunSummary: ...


def ribosome_loading(  # type: ignore[misc]  # The overloads leave the options to this signature.
    sequences: Sequences,
    model: Model,
    output: FilePath | None = None,
    *,
    pairing_scores: str | None = None,
    long: str = "error",
    unknown: str = "error",
    batch_tokens: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
    attention: str | None = None,
    threads: int | None = None,
    revision: str | None = None,
    force: bool = False,
    progress: bool | None = None,
) -> Iterator[RibosomeLoading] | RunSummary:
    """Predict mean ribosome loading and yield it, in input order, or write it to a file.

    A batch gives what each sequence gives alone. What is written goes on where it stopped if the
    process is killed and the same call made again.

    Args:
        sequences: as for `embed.embed`.
        model: folder, Hub id or an `ErnieRnaForRibosomeLoading`.
        output: .tsv file with the columns id, length, standardised and mrl; None yields.
        batch_tokens: tokens in a batch; None is 2048 on a CPU, else 16384.

    The other arguments, and what is raised, are those of `closeness.closeness`.
    """
    options = HeadOptions(
        pairing_scores=pairing_scores,
        long=long,
        unknown=unknown,
        batch_tokens=batch_tokens,
        dtype=dtype,
        device=device,
        attention=attention,
        threads=threads,
        revision=revision,
    )
    if output is None:
        return iterate(_TASK, sequences, model, options, progress)
    target = Path(output)
    if target.suffix.lower() != ".tsv":
        raise ValueError(f"{target}: the extension must be .tsv")
    source = as_source(sequences, unknown)
    with use_threads(threads):
        return write_file(_TASK, source, model, target, options, force, progress)


def _compute(
    model: Any, pairing_scores: str | None, records: list[FastaRecord]
) -> Iterator[RibosomeLoading]:
    outputs = run_head(model, [record.sequence for record in records], pairing_scores)
    standardised = outputs.logits.float().tolist()
    predictions = outputs.predictions.tolist()
    for record, own, mrl in zip(records, standardised, predictions, strict=True):
        if not np.isfinite(own):
            raise not_finite(f"{record.id}: its ribosome loading", model)
        yield RibosomeLoading(record.id, len(record.sequence), own, mrl)


def _pack(results: list[RibosomeLoading]) -> Results:
    return {"lines": [result.line.rstrip("\n") for result in results]}


def _nbytes(found: Survey) -> int:
    return _LINE_BYTES * found.records


def _write(parts: list[Part], path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(HEADER)
        for part in parts:
            file.writelines(f"{line}\n" for line in part.texts("lines"))
    sync(path)


_TASK = HeadTask(
    "ribosome loading",
    ErnieRnaForRibosomeLoading,
    lambda config: float(config.hidden_size),
    SCORES_FROM,
    _WINDOW_TOKENS,
    _compute,
    _pack,
    _nbytes,
    _write,
)
