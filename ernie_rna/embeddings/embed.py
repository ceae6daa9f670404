"""Embeddings of sequences, in memory or in a file.

>>> for embedding in embed(["GGGAAAACCC", "AUGC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(embedding.id, embedding["mean"].shape)
0 (768,)
1 (768,)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, overload

from ernie_rna.embeddings.columns import Embedding, split_rows
from ernie_rna.embeddings.encoder import Encoder
from ernie_rna.embeddings.options import EmbedOptions, Model
from ernie_rna.embeddings.to_file import embed_to_file
from ernie_rna.embeddings.writers import SHARD_BYTES
from ernie_rna.inference.loading import use_threads
from ernie_rna.inference.progress import Progress
from ernie_rna.inference.resumable import RunSummary
from ernie_rna.sequences.batches import Window
from ernie_rna.sequences.fasta import FilePath
from ernie_rna.sequences.long import LONG
from ernie_rna.sequences.sources import Intake, Sequences, as_source

__all__ = ["Embedding", "RunSummary", "embed"]


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
    options = EmbedOptions(
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
    target = Path(output)
    with use_threads(threads):
        return embed_to_file(source, model, target, options, force, progress, shard_bytes)


def _iterate(
    intake: Intake, model: Model, options: EmbedOptions, progress: bool | None
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
