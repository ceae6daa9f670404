"""The model at work: batches of nucleotide sequences in, pooled vectors out.

Shapes: batch sequences, seq tokens (`<cls>`, nucleotides, `<eos>`, padding), hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from ernie_rna.embeddings.embedding import Column, resolve_columns
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from ernie_rna.run.loading import memory_explained, not_finite, tokenize
from ernie_rna.sequences.chunks import Chunk, Piece


class Encoder:
    """A loaded model and the columns wanted of it.

    Args:
        model: as `load_model` returns it.
        layers, pooling: as for `embedding.resolve_columns`.

    Attributes:
        columns, hidden: what a result consists of, and the length of its vectors.
        dtype: of the results: float16 where the model computes in that, else float32 (NumPy has
            no bfloat16).
    """

    def __init__(self, model: ErnieRnaModel, layers: Any = (-1,), pooling: Any = ("mean",)):
        config: Any = model.config
        self.model = model
        self.columns = resolve_columns(layers, pooling, config.num_hidden_layers)
        self.hidden: int = config.hidden_size
        self.dtype = np.dtype(np.float16 if model.dtype == torch.float16 else np.float32)
        self._all_layers = any(column.layer != config.num_hidden_layers for column in self.columns)

    def nbytes(self, sequences: int, nucleotides: int) -> int:
        """What the results of so many sequences of so many nucleotides together take."""
        per_token = sum(column.per_token for column in self.columns)
        vectors = nucleotides * per_token + sequences * (len(self.columns) - per_token)
        return vectors * self.hidden * self.dtype.itemsize

    def encode_chunk(self, chunk: Chunk, step: Callable[[int], None]) -> dict[str, np.ndarray]:
        """Compute a chunk: lengths (records,), and by column (records, hidden), or, for token,
        (nucleotides, hidden).

        Args:
            step: called with the number of each batch once it is computed.

        Raises:
            EncodingError: a result is not finite, or there is not enough memory.
        """
        starts = [0, *accumulate(chunk.lengths)]
        rows = {True: starts[-1], False: len(chunk.pieces)}
        arrays = {
            column: np.empty((rows[column.per_token], self.hidden), self.dtype)
            for column in self.columns
        }
        for batch in range(len(chunk.batches)):
            for column, index, vectors in self.encode(chunk, batch):
                piece = chunk.pieces[index]
                first = starts[piece.record] + piece.own_start if column.per_token else index
                arrays[column][first : first + len(vectors)] = vectors
            step(batch)
        merged = {
            column.name: array if column.per_token else merge_pieces(array, chunk.pieces)
            for column, array in arrays.items()
        }
        return {"lengths": np.array(chunk.lengths, np.int64), **merged}

    def encode(self, chunk: Chunk, batch: int) -> Iterator[tuple[Column, int, np.ndarray]]:
        """Compute one batch of a chunk.

        Yields:
            Column, place of a piece in the chunk, and its (1, hidden), or, for token,
            (nucleotides that the piece keeps, hidden).

        Raises:
            As `encode_chunk`.
        """
        indices = chunk.batches[batch]
        pieces = [chunk.pieces[index] for index in indices]
        with memory_explained([chunk.records[piece.record] for piece in pieces]):
            hidden_states = self._forward(chunk, pieces)
            for column in self.columns:
                arrays = self._pool(column, hidden_states[column.layer], chunk, pieces)
                for index, array in zip(indices, arrays, strict=True):
                    yield column, index, array

    @torch.inference_mode()
    def _forward(self, chunk: Chunk, pieces: list[Piece]) -> dict[int, torch.Tensor]:
        """Layer -> (batch, seq, hidden)."""
        input_ids, mask = tokenize([chunk.text(piece) for piece in pieces], self.model.device)
        output = self.model(
            input_ids=input_ids, attention_mask=mask, output_hidden_states=self._all_layers
        )
        if not self._all_layers:
            return {self.model.config.num_hidden_layers: output.last_hidden_state}
        return dict(enumerate(output.hidden_states))

    @torch.inference_mode()
    def _pool(
        self, column: Column, hidden_states: torch.Tensor, chunk: Chunk, pieces: list[Piece]
    ) -> Iterator[np.ndarray]:
        """(batch, seq, hidden) -> the arrays of one column."""
        if column.pooling == "cls":
            values = self._to_numpy(hidden_states[:, :1])
        elif column.pooling == "mean":
            values = self._to_numpy(_mean(hidden_states, pieces))
        else:
            values = self._to_numpy(hidden_states)
        for array, piece in zip(values, pieces, strict=True):
            if column.per_token:
                first = 1 + piece.own_start - piece.start
                array = array[first : first + piece.owned]
            if not np.isfinite(array).all():
                raise not_finite(f"{chunk.records[piece.record].id}: {column.name}", self.model)
            yield array

    def _to_numpy(self, tensor: torch.Tensor) -> np.ndarray:
        return tensor.to("cpu", getattr(torch, self.dtype.name)).numpy()


def _mean(hidden_states: torch.Tensor, pieces: list[Piece]) -> torch.Tensor:
    """(batch, seq, hidden) -> (batch, 1, hidden) over the nucleotides kept, in float32."""
    weights = torch.zeros(hidden_states.shape[:2])
    for row, piece in zip(weights, pieces, strict=True):
        first = 1 + piece.own_start - piece.start
        row[first : first + piece.owned] = 1 / piece.owned
    return weights[:, None].to(hidden_states.device) @ hidden_states.float()


def merge_pieces(vectors: np.ndarray, pieces: Sequence[Piece]) -> np.ndarray:
    """(pieces, hidden) -> (records, hidden): means weighted by the nucleotides of each piece."""
    records = np.array([piece.record for piece in pieces])
    owned = np.array([piece.owned for piece in pieces])
    starts = np.flatnonzero(np.diff(records, prepend=-1))
    if len(starts) == len(pieces):
        return vectors
    lengths = np.add.reduceat(owned, starts)
    weights = owned / np.repeat(lengths, np.diff(starts, append=len(pieces)))
    merged = np.add.reduceat(vectors * weights[:, None], starts)
    whole = np.diff(starts, append=len(pieces)) == 1
    merged[whole] = vectors[starts[whole]]
    return merged.astype(vectors.dtype)
