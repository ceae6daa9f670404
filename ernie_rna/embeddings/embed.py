"""Embeddings of sequences, in memory or in a file.

>>> for embedding in embed(["GGGAAAACCC", "AUGC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(embedding.id, embedding["mean"].shape)
0 (768,)
1 (768,)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ernie_rna.embeddings.formats import (
    Embedding,
    check_format,
    existing_files,
    is_per_token,
    pack,
    write_parts,
)
from ernie_rna.options import POOLINGS, EmbedOptions, takes
from ernie_rna.run.outputs import check_output_files, output_path
from ernie_rna.run.parts import Part, Results
from ernie_rna.run.runner import Output, RunSummary, Task, Written, iterate, run
from ernie_rna.sequences import chunks
from ernie_rna.sequences.chunks import Piece
from ernie_rna.sequences.fasta import FastaRecord, FilePath
from ernie_rna.sequences.sources import Sequences, Survey

if TYPE_CHECKING:
    from torch import Tensor

# The vectors of a piece, by the name of the column.
_Arrays = dict[str, np.ndarray]
# Roughly the memory that the vectors of a chunk may take; a longer sequence is a chunk by itself.
_CHUNK_BYTES = 1 << 28


@overload
def embed(
    sequences: Sequences, model: Any, output: None = None, **options: Any
) -> Iterator[Embedding]: ...


@overload
def embed(sequences: Sequences, model: Any, output: FilePath, **options: Any) -> RunSummary: ...


@takes(EmbedOptions)
def embed(
    sequences: Sequences, model: Any, output: FilePath | None = None, *, options: EmbedOptions
) -> Iterator[Embedding] | RunSummary:
    """Compute embeddings and yield them, or write them to a file.

    Embeddings are in input order. If a call that writes is killed, the same call resumes it, and
    writes the same bytes. Several processes can share it, see `run.runner`.

    Args:
        sequences: path of a FASTA file (also gzip, bzip2 or xz) or "-" for standard input; a
            mapping of ids to sequences; or an iterable of records, (id, sequence) pairs or
            sequences. `sequences.fasta` says which are refused.
        model: folder, Hub id, "mini" or an `ErnieRnaModel`.
        output: file whose extension names the format, see `embeddings.formats`; if None, embeddings
            are yielded. Vectors are float16 for dtype "float16", else float32.

    Raises:
        InputError: a sequence or file is invalid, or a sequence too long; raised before anything is
            computed if the input can be read twice or `output` is given.
        ValueError: an option is invalid.
        EncodingError: a result is not finite, or memory does not suffice; the message has the id.
        OutputError: the output exists, is an input or is being written, or the disk is full.
    """
    task = EmbedTask(options)
    if output is None:
        return iterate(task, sequences, model)
    target = output_path(output)
    check_format(target, options.pooling)
    if not existing_files(Path(target)):
        check_output_files([target], streams=False)
    return run(task, sequences, model, [Output(target)])


class EmbedTask(Task[Embedding]):
    """Embeddings with the columns that the options request.

    Shapes: batch sequences, seq tokens (`<cls>`, nucleotides, `<eos>`, padding), hidden.

    Attributes:
        columns, hidden: pooling and layer of each column, by its name; length of the vectors.
        dtype: dtype of the vectors: float16 if it is the model's, else float32, also for bfloat16.
    """

    name = "embeddings"
    options: EmbedOptions

    def load(self, source: Any) -> None:
        import torch

        from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
        from ernie_rna.run.loading import load

        options = self.options
        self.model = load(ErnieRnaModel, source, **options.loading)
        config: Any = self.model.config
        last: int = config.num_hidden_layers
        self.columns = resolve_columns(options.layers, options.pooling, last)
        self.hidden: int = config.hidden_size
        self.dtype = np.dtype(np.float16 if self.model.dtype == torch.float16 else np.float32)
        self._all_layers = any(layer != last for _, layer in self.columns.values())
        split, limit = chunks.whole, chunks.nucleotide_limit(config)
        if options.long == "window":
            chunks.check_overlap(options.overlap, limit)
            split = partial(_windows, limit, options.overlap)
        tokens = chunks.resolve_batch_tokens(options.batch_tokens, self.model.device)
        in_memory = _CHUNK_BYTES // max(1, self._nbytes(0, 1))
        self.plan = chunks.Plan(tokens, self.hidden, split, max(1, in_memory))

    def compute(self, records: list[FastaRecord], pieces: list[Piece]) -> list[_Arrays]:
        """The vectors of each piece: (hidden,), or for token (owned nucleotides, hidden)."""
        import torch

        from ernie_rna.run.loading import not_finite, tokenize

        vectors: list[_Arrays] = [{} for _ in pieces]
        texts = [r.sequence[p.start : p.stop] for r, p in zip(records, pieces, strict=True)]
        with torch.inference_mode():
            input_ids, mask = tokenize(texts, self.model.device)
            output = self.model(
                input_ids=input_ids, attention_mask=mask, output_hidden_states=self._all_layers
            )
            for name, (pooling, layer) in self.columns.items():
                states = output.hidden_states or {layer: output.last_hidden_state}
                pooled = self._pool(pooling, states[layer], pieces)
                for record, arrays, array in zip(records, vectors, pooled, strict=True):
                    if not np.isfinite(array).all():
                        raise not_finite(f"{record.id}: {name}", self.model)
                    arrays[name] = array
        return vectors

    def _pool(self, pooling: str, state: Tensor, pieces: list[Piece]) -> list[np.ndarray]:
        """(batch, seq, hidden) -> an array for each piece, a copy that does not keep the batch."""
        import torch

        owned = []  # tokens
        for piece in pieces:
            start = 1 + piece.own_start - piece.start  # after <cls>
            owned.append(slice(start, start + piece.owned))
        if pooling == "cls":
            state = state[:, 0]
        elif pooling == "mean":  # over the owned nucleotides, in float32
            weights = torch.zeros(state.shape[:2])
            for row, tokens in zip(weights, owned, strict=True):
                row[tokens] = 1 / (tokens.stop - tokens.start)
            state = (weights[:, None].to(state.device) @ state.float())[:, 0]
        rows = state.to("cpu", getattr(torch, self.dtype.name)).numpy()
        if pooling == "token":
            return [row[tokens].copy() for row, tokens in zip(rows, owned, strict=True)]
        return [row.copy() for row in rows]

    def merge(self, record: FastaRecord, pieces: list[Piece], values: list[_Arrays]) -> Embedding:
        """Combine the vectors of the windows of a sequence, as `sequences.chunks` describes."""
        merged = dict(values[0])
        weights = [piece.owned for piece in pieces]
        for name in self.columns if len(pieces) > 1 else ():
            windows = [arrays[name] for arrays in values]
            if is_per_token(name):
                vectors = np.concatenate(windows)
            else:
                vectors = np.average(np.stack(windows), axis=0, weights=weights)
            merged[name] = vectors.astype(self.dtype)
        return Embedding(record.id, len(record.sequence), merged)

    def pack(self, results: list[Embedding]) -> Results:
        return pack(results)

    def existing(self, outputs: Sequence[Output[Embedding]]) -> list[Path]:
        return [path for output in outputs for path in existing_files(Path(output.path))]

    def nbytes(self, found: Survey) -> int:
        return self._nbytes(found.records, found.nucleotides)

    def _nbytes(self, sequences: int, nucleotides: int) -> int:
        """Bytes of the vectors of so many sequences, with so many nucleotides in total."""
        rows = [nucleotides if is_per_token(name) else sequences for name in self.columns]
        return sum(rows) * self.hidden * self.dtype.itemsize

    def assemble(
        self, parts: list[Part], outputs: Sequence[Output[Embedding]], metadata: dict[str, Any]
    ) -> Written:
        return write_parts(parts, Path(outputs[0].path), metadata, self.options.shard_bytes), []

    def describe_settings(self) -> dict[str, Any]:
        poolings, layers = map(set, zip(*self.columns.values(), strict=True))
        return {
            "layers": sorted(layers),
            "pooling": sorted(poolings),
            "overlap": self.options.overlap if self.options.long == "window" else None,
        }

    def metadata(self, found: Survey, given: Any) -> dict[str, Any]:
        about = {"format_version": 1, "columns": [*self.columns], "hidden_size": self.hidden}
        return about | super().metadata(found, given)


def _windows(limit: int, overlap: int, record: int, sequence: str) -> list[Piece]:
    return chunks.windows(record, len(sequence), limit, overlap)


def resolve_columns(
    layers: Iterable[int] | None, pooling: Iterable[str], num_layers: int
) -> dict[str, tuple[str, int]]:
    """Pooling and layer of each requested column, once, in the order of layers, then of POOLINGS.

    Args:
        layers: 0 to `num_layers`; negative ones count from the end, -1 is the last. None means all.
        pooling: any of `POOLINGS`: token, cls, mean.
        num_layers: number of transformer layers of the model.

    Raises:
        ValueError: there is no such layer.

    >>> resolve_columns([-1, 0], ["mean"], 12)
    {'mean_layer0': ('mean', 0), 'mean_layer12': ('mean', 12)}
    """
    from ernie_rna.run.loading import resolve_layer  # imports torch

    requested = range(num_layers + 1) if layers is None else layers
    absolute = sorted({resolve_layer(layer, num_layers) for layer in requested})
    columns = [(name, layer) for layer in absolute for name in POOLINGS if name in pooling]
    return {f"{name}_layer{layer}": (name, layer) for name, layer in columns}
