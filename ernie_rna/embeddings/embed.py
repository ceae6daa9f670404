"""Embeddings of sequences, in memory or in a file.

>>> for embedding in embed(["GGGAAAACCC", "AUGC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(embedding.id, embedding["mean"].shape)
0 (768,)
1 (768,)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np

from ernie_rna.embeddings.embedding import Embedding, check_pooling, split_rows
from ernie_rna.embeddings.encoder import Encoder
from ernie_rna.embeddings.writers import (
    SHARD_BYTES,
    Table,
    check_output,
    existing_files,
    write_table,
)
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from ernie_rna.run.loading import load_model
from ernie_rna.run.outputs import behind_link
from ernie_rna.run.processes import World
from ernie_rna.run.progress import Progress
from ernie_rna.run.provenance import Options, describe
from ernie_rna.run.resumable import Job, Results, RunSummary, Step, run_job
from ernie_rna.run.store import Part
from ernie_rna.run.threads import use_threads
from ernie_rna.sequences.batches import WINDOW_BATCHES, Plan, Window, resolve_batch_tokens
from ernie_rna.sequences.fasta import FilePath
from ernie_rna.sequences.long import LONG, check_long
from ernie_rna.sequences.sources import Intake, Sequences, Source, as_source
from ernie_rna.sequences.survey import Survey, check_lengths

__all__ = ["Embedding", "RunSummary", "embed"]

Model = str | PathLike[str] | ErnieRnaModel

# About what the vectors of a window may take in memory; a longer sequence is alone in its window.
_WINDOW_BYTES = 1 << 28


@overload
def embed(
    sequences: Sequences, model: Model, output: None = None, **options: Any
) -> Iterator[Embedding]: ...


@overload
def embed(sequences: Sequences, model: Model, output: FilePath, **options: Any) -> RunSummary: ...


def embed(  # type: ignore[misc]  # The overloads leave the options to this signature.
    sequences: Sequences,
    model: Model,
    output: FilePath | None = None,
    *,
    layers: Sequence[int] | None = (-1,),
    pooling: Sequence[str] = ("mean",),
    dtype: str | None = None,
    device: str | None = None,
    batch_tokens: int | None = None,
    long: str = "error",
    overlap: int = 256,
    attention: str | None = None,
    threads: int | None = None,
    unknown: str = "error",
    revision: str | None = None,
    force: bool = False,
    progress: bool | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Iterator[Embedding] | RunSummary:
    """Compute embeddings and yield them, or write them to a file.

    Both give the sequences in input order. What is written goes on where it stopped if the
    process is killed and the same call made again, to the same bytes; see `files.store`. Under
    `torchrun` or `accelerate launch` the processes share the work and the first one writes.

    Args:
        sequences: path of a FASTA file (gzip, bzip2 or xz as well) or "-" for standard input; a
            mapping of ids to sequences; or an iterable of records, (id, sequence) pairs or
            sequences. `fasta` says what is refused.
        model: folder, Hub id or an `ErnieRnaModel`.
        output: file whose extension names the format, see `writers`; None yields.
        layers: 0, the embedding output, to the number of layers; -1 is the last one, None all.
        pooling: any of "token" (a vector a nucleotide), "cls" and "mean" (over the nucleotides;
            special tokens are left out).
        dtype: "float32", "bfloat16" or "float16", what is computed in; None is "float32", or
            the type of a model that is given itself. Vectors are float16 for float16, else
            float32.
        device: of torch; None, or "auto", is CUDA where there is one, else the CPU.
        batch_tokens: tokens in a batch; None is 2048 on a CPU, else 16384.
        long: what to do with a sequence longer than the model's 1022 nt: "error", "window"
            (overlapping windows, merged as `long` says) or "full" (computed whole).
        overlap: nucleotides that neighbouring windows share at least.
        attention: "sdpa" or "eager"; None is "sdpa".
        threads: of torch on a CPU; None leaves them as they are.
        unknown: "error" or "unk", see `fasta`.
        revision: branch, tag or commit of a model on the Hub.
        force: replace an output that exists, and drop results of other settings.
        progress: whether to show a bar; None shows it on a terminal.
        shard_bytes: about how large a safetensors file may be.

    Raises:
        InputError: a sequence or file is unfit, or too long; before any of it is computed, if
            the input can be read twice or `output` is given.
        ValueError: an argument is off.
        EncodingError: a result is not finite, or memory does not suffice; named by id.
        OutputError: the output exists, is being written, or the disk is full.
    """
    options = _EmbedOptions(
        layers=layers,
        pooling=pooling,
        dtype=dtype,
        device=device,
        batch_tokens=batch_tokens,
        long=long,
        overlap=overlap,
        attention=attention,
        threads=threads,
        unknown=unknown,
        revision=revision,
    )
    if output is None:
        return _iterate(Intake(sequences, long, unknown, LONG), model, options, progress)
    source = as_source(sequences, unknown)
    target = behind_link(Path(output))
    with use_threads(threads):
        return _embed_to_file(source, model, target, options, force, progress, shard_bytes)


@dataclass(frozen=True, kw_only=True)
class _EmbedOptions(Options):
    """The arguments of `embed` that say what is computed."""

    layers: Sequence[int] | None
    pooling: Sequence[str]
    overlap: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pooling(self.pooling)

    def load(self, model: Model) -> tuple[Encoder, Plan]:
        encoder = Encoder(load_model(model, **self.loading), self.layers, self.pooling)
        check_long(self.long, encoder.limit, self.overlap)
        tokens = resolve_batch_tokens(self.batch_tokens, encoder.model.device)
        in_memory = max(1, _WINDOW_BYTES // max(1, encoder.nbytes(0, 1)))
        window = min(WINDOW_BATCHES * tokens, in_memory)
        return encoder, Plan(tokens, encoder.limit, self.long, self.overlap, window)


def _iterate(
    intake: Intake, model: Model, options: _EmbedOptions, progress: bool | None
) -> Iterator[Embedding]:
    encoder, plan = options.load(model)
    windows = plan.windows(intake.records(encoder.model.config))
    hidden = encoder.hidden
    bar = Progress(progress, hidden, intake.found, lambda length: plan.cost(length, hidden))
    return _embeddings(windows, encoder, options.threads, bar)


def _embeddings(
    windows: Iterable[Window], encoder: Encoder, threads: int | None, bar: Progress
) -> Iterator[Embedding]:
    with contextlib.closing(bar):
        for window in windows:
            with use_threads(threads):
                arrays = encoder.encode_window(window, partial(bar.advance, window))
            yield from split_rows(window.ids, window.lengths, arrays)


def _embed_to_file(
    source: Source,
    model: Model,
    output: Path,
    options: _EmbedOptions,
    force: bool,
    progress: bool | None,
    shard_bytes: int,
) -> RunSummary:
    """Write the embeddings of a source to a file, as a job for `inference.resumable`."""
    check_output(output, check_pooling(options.pooling))

    def prepare(world: World, found: Survey) -> Job:
        own = replace(options, device=world.own_device(options.device))
        encoder, plan = own.load(model)
        config = encoder.model.config
        world.lead(lambda: check_lengths(found, config, options.long, LONG))
        metadata = _metadata(encoder, plan, options, found, model)

        def compute(window: Window, step: Step) -> Results:
            lengths = np.array(window.lengths, np.int64)
            return {"ids": window.ids, "lengths": lengths, **encoder.encode_window(window, step)}

        def assemble(parts: list[Part], folder: Path) -> list[Path]:
            return write_table(Table(metadata, parts), output, folder, shard_bytes)

        nbytes = encoder.nbytes(found.records, found.nucleotides)
        device = encoder.model.device
        return Job(metadata, device, plan, encoder.hidden, nbytes, compute, assemble)

    return run_job(
        source,
        output,
        prepare,
        existing=existing_files(output),
        force=force,
        progress=progress,
    )


def _metadata(
    encoder: Encoder, plan: Plan, options: _EmbedOptions, found: Survey, model: Model
) -> dict[str, Any]:
    """What the output says of itself: all that it depends on, nothing else."""
    metadata = describe(model, encoder.model, options, plan)
    metadata["settings"] |= {
        "layers": sorted({column.layer for column in encoder.columns}),
        "pooling": sorted({column.pooling for column in encoder.columns}),
        "overlap": plan.overlap if plan.long == "window" else None,
    }
    return {
        "format": "ernie-rna embeddings",
        "format_version": 1,
        "columns": [column.name for column in encoder.columns],
        "hidden_size": encoder.hidden,
        "records": found.records,
        "nucleotides": found.nucleotides,
        "input_sha256": found.sha256,
        **metadata,
    }
