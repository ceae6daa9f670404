"""Embeddings of sequences, in memory or in a file.

>>> for embedding in embed(["GGGAAAACCC", "AUGC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(embedding.id, embedding["mean"].shape)
0 (768,)
1 (768,)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ernie_rna.embeddings.embedding import Embedding
from ernie_rna.embeddings.formats import (
    check_format,
    existing_files,
    pack,
    split_rows,
    write_parts,
)
from ernie_rna.options import EmbedOptions, takes
from ernie_rna.run.outputs import behind_link, check_output_files
from ernie_rna.run.runner import Output, RunSummary, Task, Written, iterate, run
from ernie_rna.run.store import Part, Results
from ernie_rna.sequences.chunks import (
    CHUNK_BATCHES,
    Piece,
    Plan,
    check_overlap,
    nucleotide_limit,
    resolve_batch_tokens,
    whole,
    windows,
)
from ernie_rna.sequences.fasta import FastaRecord, FilePath
from ernie_rna.sequences.sources import Sequences, Survey

if TYPE_CHECKING:
    from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel

    Model = str | PathLike[str] | ErnieRnaModel

__all__ = ["Embedding", "RunSummary", "embed"]

# About what the vectors of a chunk may take in memory; a longer sequence is alone in its chunk.
_CHUNK_BYTES = 1 << 28


@overload
def embed(
    sequences: Sequences, model: Model, output: None = None, **options: Any
) -> Iterator[Embedding]: ...


@overload
def embed(sequences: Sequences, model: Model, output: FilePath, **options: Any) -> RunSummary: ...


@takes(EmbedOptions)
def embed(
    sequences: Sequences, model: Model, output: FilePath | None = None, *, options: EmbedOptions
) -> Iterator[Embedding] | RunSummary:
    """Compute embeddings and yield them, or write them to a file.

    Both give the sequences in input order. What is written resumes where it stopped if the process
    is killed and the same call made again, to the same bytes, and can be shared by several
    processes; see `run.runner`.

    Args:
        sequences: path of a FASTA file (gzip, bzip2 or xz as well) or "-" for standard input; a
            mapping of ids to sequences; or an iterable of records, (id, sequence) pairs or
            sequences. `sequences.fasta` says what is refused.
        model: folder, Hub id, "mini" or an `ErnieRnaModel`.
        output: file whose extension names the format, see `embeddings.formats`; None yields.
            Vectors are float16 for dtype "float16", else float32.

    Raises:
        InputError: a sequence or file is unfit, or too long; before any of it is computed, if
            the input can be read twice or `output` is given.
        ValueError: an option is off.
        EncodingError: a result is not finite, or memory does not suffice; named by id.
        OutputError: the output exists, is being written, or the disk is full.
    """
    task = EmbedTask(options)
    if output is None:
        return iterate(task, sequences, model)
    target = fspath(output)
    check_format(target, options.pooling)
    if not existing_files(Path(target)):
        check_output_files([target])
    return run(task, sequences, model, [Output(target)])


class EmbedTask(Task[Embedding]):
    """Vectors of the columns asked for."""

    name = "embeddings"
    options: EmbedOptions

    def load(self, source: Any, device: str | None) -> None:
        from ernie_rna.embeddings.encoder import Encoder
        from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
        from ernie_rna.run.loading import load

        options = self.options
        self.model = load(ErnieRnaModel, source, **{**options.loading, "device": device})
        self.encoder = Encoder(self.model, options.layers, options.pooling)
        limit = nucleotide_limit(self.model.config)
        by_window = options.long == "window"
        if by_window:
            check_overlap(options.overlap, limit)
        tokens = resolve_batch_tokens(options.batch_tokens, self.model.device)
        in_memory = max(1, _CHUNK_BYTES // max(1, self.encoder.nbytes(0, 1)))
        self.plan = Plan(
            tokens,
            self.encoder.hidden,
            partial(_split, limit, options.overlap) if by_window else whole,
            min(CHUNK_BATCHES * tokens, in_memory),
        )

    def compute(self, records: list[FastaRecord], pieces: list[Piece]) -> list[Any]:
        return self.encoder.encode(records, pieces)

    def merge(self, record: FastaRecord, pieces: list[Piece], values: list[Any]) -> Embedding:
        return Embedding(record.id, len(record.sequence), self.encoder.merge(pieces, values))

    def pack(self, results: list[Embedding]) -> Results:
        return pack(results)

    def unpack(self, part: Part) -> Iterator[Embedding]:
        names = [column.name for column in self.encoder.columns]
        arrays = {name: part.get(name) for name in ["lengths", *names]}
        return split_rows({"ids": part.texts("ids"), **arrays})

    def existing(self, outputs: Sequence[Output[Embedding]]) -> list[Path]:
        return [path for output in outputs for path in existing_files(Path(output.path))]

    def nbytes(self, found: Survey) -> int:
        return self.encoder.nbytes(found.records, found.nucleotides)

    def assemble(
        self, parts: list[Part], outputs: Sequence[Output[Embedding]], metadata: dict[str, Any]
    ) -> Written:
        place = behind_link(Path(outputs[0].path))
        return write_parts(parts, place, metadata, self.options.shard_bytes), []

    def describe_settings(self) -> dict[str, Any]:
        columns = self.encoder.columns
        return {
            "layers": sorted({column.layer for column in columns}),
            "pooling": sorted({column.pooling for column in columns}),
            "overlap": self.options.overlap if self.options.long == "window" else None,
        }

    def metadata(self, found: Survey, given: Any) -> dict[str, Any]:
        return {
            "format_version": 1,
            "columns": [column.name for column in self.encoder.columns],
            "hidden_size": self.encoder.hidden,
            **super().metadata(found, given),
        }

    def part_metadata(self, metadata: dict[str, Any]) -> dict[str, Any]:
        return metadata


def _split(limit: int, overlap: int, record: int, sequence: str) -> list[Any]:
    return windows(record, len(sequence), limit, overlap)
