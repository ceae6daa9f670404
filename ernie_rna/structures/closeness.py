"""Which bases are close to one another in space, by a model with a head for that.

>>> for close in closeness(["GGGGAAAACCCC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(close.id, close.probabilities.shape)
0 (12, 12)

The authors trained such a head on RNAs of known three-dimensional structure (Yin et al., Nature
Communications 16:8407, 2025, "RNA 3D closeness prediction").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np

from ernie_rna.model.modeling_ernie_rna import ErnieRnaForCloseness
from ernie_rna.run.head_tasks import HeadOptions, HeadTask, iterate, write_file
from ernie_rna.run.loading import map_width, not_finite, run_head
from ernie_rna.run.outputs import sync
from ernie_rna.run.resumable import Results, RunSummary
from ernie_rna.run.store import Part
from ernie_rna.run.threads import use_threads
from ernie_rna.sequences.batches import MAPS_FROM
from ernie_rna.sequences.fasta import FastaRecord, FilePath
from ernie_rna.sequences.sources import Sequences, Source, as_source
from ernie_rna.sequences.survey import Survey
from ernie_rna.structures.formats.output import MatrixWriter, check_matrix_id

Model = str | PathLike[str] | ErnieRnaForCloseness

# The maps of a window wait in memory: of 1022 nt each, these take 270 MB.
_WINDOW_TOKENS = 1 << 16


@dataclass(frozen=True)
class Closeness:
    """The map of one sequence.

    Attributes:
        id: its id.
        probabilities: (length, length) in float32, symmetric; for every two bases the
            probability that they are near one another.
    """

    id: str
    probabilities: np.ndarray


@overload
def closeness(
    sequences: Sequences, model: Model, output: None = None, **options: Any
) -> Iterator[Closeness]: ...


@overload
def closeness(
    sequences: Sequences, model: Model, output: FilePath, **options: Any
) -> RunSummary: ...


def closeness(  # type: ignore[misc]  # The overloads leave the options to this signature.
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
) -> Iterator[Closeness] | RunSummary:
    """Compute maps of closeness and yield them, in input order, or write them to a file.

    A batch gives what each sequence gives alone. What is written goes on where it stopped if the
    process is killed and the same call made again.

    Args:
        sequences: as for `embed.embed`.
        model: folder, Hub id or an `ErnieRnaForCloseness`.
        output: .npz file, with the map of each sequence under its id; None yields.
        pairing_scores: "sequence" or "zero", see `attention_scores.use_pairing_scores`; None is
            what the model's configuration says.
        long: what to do with a sequence longer than the model was trained on: "error" or
            "full" (computed whole).
        unknown: "error" or "unk", see `fasta`.
        batch_tokens: tokens in a batch; None is 2048 on a CPU, else 16384. In sequences over 256
            tokens each counts length / 256 times, for the sake of the head's memory.
        dtype: "float32", "bfloat16" or "float16"; None is "float32", or the type of a model
            that is given itself.
        device: of torch; None, or "auto", is CUDA where there is one, else the CPU.
        attention: "sdpa" or "eager"; None is "sdpa".
        threads: of torch on a CPU; None leaves them as they are.
        revision: branch, tag or commit of a model on the Hub.
        force: replace an output that exists, and drop results of other settings.
        progress: whether to show a bar; None shows it on a terminal.

    Raises:
        InputError: a sequence is unfit or too long; before any of it is computed, unless the
            input can be read only once and nothing is written.
        ValueError: an argument is off, or the model has no head for closeness.
        EncodingError: a result is not finite, or memory does not suffice; named by id.
        OutputError: the output exists, is being written, or the disk is full.
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
    if target.suffix.lower() != ".npz":
        raise ValueError(f"{target}: the extension must be .npz")
    source = _checked(as_source(sequences, unknown))
    with use_threads(threads):
        return write_file(_TASK, source, model, target, options, force, progress)


def _checked(source: Source) -> Source:
    """The same records, whose ids an .npz file can hold."""

    def check(record: FastaRecord) -> FastaRecord:
        check_matrix_id(record.id)
        return record

    return Source(lambda: map(check, source.read()), source.once)


def _compute(
    model: Any, pairing_scores: str | None, records: list[FastaRecord]
) -> Iterator[Closeness]:
    logits = run_head(model, [record.sequence for record in records], pairing_scores).logits
    maps = logits.float().sigmoid().cpu().numpy()  # (batch, length, length)
    for record, one in zip(records, maps, strict=True):
        length = len(record.sequence)
        probabilities = one[:length, :length].copy()
        if not np.isfinite(probabilities).all():
            raise not_finite(f"{record.id}: its closeness", model)
        yield Closeness(record.id, probabilities)


def _pack(results: list[Closeness]) -> Results:
    """The maps one behind the other, and their lengths."""
    lengths = [len(result.probabilities) for result in results]
    maps = np.concatenate([result.probabilities.ravel() for result in results])
    return {"lengths": np.array(lengths, np.int64), "maps": maps}


def _nbytes(found: Survey) -> int:
    return sum(4 * length**2 * count for length, count in found.lengths.items())


def _write(parts: list[Part], path: Path) -> None:
    with MatrixWriter(path) as writer:
        for part in parts:
            lengths = part.get("lengths").tolist()
            ends = np.cumsum(np.square(lengths))
            maps = np.split(part.get("maps"), ends[:-1])
            for id, length, values in zip(part.texts("ids"), lengths, maps, strict=True):
                writer.write(id, values.reshape(length, length))
    sync(path)


_TASK = HeadTask(
    "closeness",
    ErnieRnaForCloseness,
    map_width,
    MAPS_FROM,
    _WINDOW_TOKENS,
    _compute,
    _pack,
    _nbytes,
    _write,
)
