"""Embeddings of sequences, in memory or in a file.

>>> for embedding in embed(["GGGAAAACCC", "AUGC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(embedding.id, embedding["mean"].shape)
0 (768,)
1 (768,)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from os import fspath
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
from ernie_rna.run.outputs import check_output_files
from ernie_rna.run.parts import Part, Results
from ernie_rna.run.runner import Output, RunSummary, Task, Written, iterate, run
from ernie_rna.sequences import chunks
from ernie_rna.sequences.chunks import Piece
from ernie_rna.sequences.fasta import FastaRecord, FilePath
from ernie_rna.sequences.sources import Sequences, Survey

if TYPE_CHECKING:
    from torch import Tensor

# What the model gives of a piece by the name of the column.
_Arrays = dict[str, np.ndarray]
# About what the vectors of a chunk may take in memory; a longer sequence is alone in its chunk.
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
        check_output_files([target], streams=False)
    return run(task, sequences, model, [Output(target)])


class EmbedTask(Task[Embedding]):
    """Vectors of the columns asked for.

    Shapes: batch sequences, seq tokens (`<cls>`, nucleotides, `<eos>`, padding), hidden.

    Attributes:
        columns, hidden: what a result consists of, and the length of its vectors.
        dtype: of the results: float16 where the model computes in that, else float32 (NumPy has
            no bfloat16).
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
        most = max(1, min(chunks.CHUNK_BATCHES * tokens, in_memory))
        self.plan = chunks.Plan(tokens, self.hidden, split, most)

    def compute(self, records: list[FastaRecord], pieces: list[Piece]) -> list[_Arrays]:
        """What each piece keeps: (hidden,), or, for token, (nucleotides, hidden)."""
        import torch

        from ernie_rna.run.loading import not_finite, tokenize

        kept: list[_Arrays] = [{} for _ in pieces]
        pairs = zip(records, pieces, strict=True)
        texts = [record.sequence[piece.start : piece.stop] for record, piece in pairs]
        with torch.inference_mode():
            input_ids, mask = tokenize(texts, self.model.device)
            output = self.model(
                input_ids=input_ids, attention_mask=mask, output_hidden_states=self._all_layers
            )
            for name, (pooling, layer) in self.columns.items():
                states = output.hidden_states or {layer: output.last_hidden_state}
                pooled = self._pool(pooling, states[layer], pieces)
                for record, arrays, array in zip(records, kept, pooled, strict=True):
                    if not np.isfinite(array).all():
                        raise not_finite(f"{record.id}: {name}", self.model)
                    arrays[name] = array
        return kept

    def _pool(self, pooling: str, state: Tensor, pieces: list[Piece]) -> list[np.ndarray]:
        """(batch, seq, hidden) -> an array for each piece, none of which keeps the batch."""
        import torch

        starts = [1 + piece.own_start - piece.start for piece in pieces]  # behind <cls>
        own = [slice(at, at + piece.owned) for at, piece in zip(starts, pieces, strict=True)]
        if pooling == "cls":
            state = state[:, 0]
        elif pooling == "mean":  # over the nucleotides kept, in float32
            weights = torch.zeros(state.shape[:2])
            for row, kept in zip(weights, own, strict=True):
                row[kept] = 1 / (kept.stop - kept.start)
            state = (weights[:, None].to(state.device) @ state.float())[:, 0]
        rows = state.to("cpu", getattr(torch, self.dtype.name)).numpy()
        return [
            (row[kept] if pooling == "token" else row).copy()
            for row, kept in zip(rows, own, strict=True)
        ]

    def merge(self, record: FastaRecord, pieces: list[Piece], values: list[_Arrays]) -> Embedding:
        """The windows of a sequence become one, see `sequences.chunks`."""
        merged = dict(values[0])
        owned = [piece.owned for piece in pieces]
        for name in self.columns if len(pieces) > 1 else ():
            parts = [one[name] for one in values]
            joined = (
                np.concatenate(parts)
                if is_per_token(name)
                else np.average(np.stack(parts), axis=0, weights=owned)
            )
            merged[name] = joined.astype(self.dtype)
        return Embedding(record.id, len(record.sequence), merged)

    def pack(self, results: list[Embedding]) -> Results:
        return pack(results)

    def existing(self, outputs: Sequence[Output[Embedding]]) -> list[Path]:
        return [path for output in outputs for path in existing_files(Path(output.path))]

    def nbytes(self, found: Survey) -> int:
        return self._nbytes(found.records, found.nucleotides)

    def _nbytes(self, sequences: int, nucleotides: int) -> int:
        """What the results of so many sequences of so many nucleotides together take."""
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
        own = {"format_version": 1, "columns": [*self.columns], "hidden_size": self.hidden}
        return own | super().metadata(found, given)


def _windows(limit: int, overlap: int, record: int, sequence: str) -> list[Piece]:
    return chunks.windows(record, len(sequence), limit, overlap)


def resolve_columns(
    layers: Iterable[int] | None, pooling: Iterable[str], num_layers: int
) -> dict[str, tuple[str, int]]:
    """Pooling and layer of the columns asked for, by layer, then token, cls, mean; each once.

    Args:
        layers: 0 to `num_layers`; negative ones count from the end, -1 is the last. None is
            all of them.
        pooling: any of `POOLINGS`.
        num_layers: transformer layers of the model.

    Raises:
        ValueError: there is no such layer.

    >>> resolve_columns([-1, 0], ["mean"], 12)
    {'mean_layer0': ('mean', 0), 'mean_layer12': ('mean', 12)}
    """
    from ernie_rna.run.loading import resolve_layer  # imports torch

    chosen = range(num_layers + 1) if layers is None else layers
    absolute = sorted({resolve_layer(layer, num_layers) for layer in chosen})
    asked = [(name, layer) for layer in absolute for name in POOLINGS if name in pooling]
    return {f"{name}_layer{layer}": (name, layer) for name, layer in asked}
