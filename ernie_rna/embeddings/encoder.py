"""The model at work: batches of nucleotide sequences in, pooled vectors out.

Shapes: batch sequences, seq tokens (`<cls>`, nucleotides, `<eos>`, padding), hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ernie_rna.embeddings.embedding import resolve_columns
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel
from ernie_rna.run.loading import not_finite, tokenize
from ernie_rna.sequences.chunks import Piece
from ernie_rna.sequences.fasta import FastaRecord

# What the model gives of a piece, or of a sequence, by the name of the column.
Arrays = dict[str, np.ndarray]


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

    @torch.inference_mode()
    def encode(self, records: Sequence[FastaRecord], pieces: Sequence[Piece]) -> list[Arrays]:
        """What each piece of a batch keeps: (hidden,), or, for token, (nucleotides, hidden).

        Args:
            records: that of each piece.

        Raises:
            EncodingError: a result is not finite.
        """
        kept: list[Arrays] = [{} for _ in pieces]
        pairs = zip(records, pieces, strict=True)
        texts = [record.sequence[piece.start : piece.stop] for record, piece in pairs]
        input_ids, mask = tokenize(texts, self.model.device)
        output = self.model(
            input_ids=input_ids, attention_mask=mask, output_hidden_states=self._all_layers
        )
        for column in self.columns:
            states = output.hidden_states if self._all_layers else [output.last_hidden_state]
            state = states[column.layer if self._all_layers else 0]
            pooled = self._pool(column.pooling, state, pieces)
            for record, arrays, array in zip(records, kept, pooled, strict=True):
                if not np.isfinite(array).all():
                    raise not_finite(f"{record.id}: {column.name}", self.model)
                arrays[column.name] = array
        return kept

    def _pool(self, pooling: str, state: torch.Tensor, pieces: Sequence[Piece]) -> list[np.ndarray]:
        """(batch, seq, hidden) -> an array for each piece, none of which keeps the batch."""
        starts = [1 + piece.own_start - piece.start for piece in pieces]  # behind <cls>
        own = [slice(at, at + piece.owned) for at, piece in zip(starts, pieces, strict=True)]
        if pooling != "token":
            state = state[:, 0] if pooling == "cls" else _mean(state, own)
        rows = state.to("cpu", getattr(torch, self.dtype.name)).numpy()
        return [
            (row[kept] if pooling == "token" else row).copy()
            for row, kept in zip(rows, own, strict=True)
        ]

    def merge(self, pieces: Sequence[Piece], arrays: Sequence[Arrays]) -> Arrays:
        """The arrays of a sequence of those of its pieces, see `sequences.chunks`."""
        if len(pieces) == 1:
            return arrays[0]
        owned = [piece.owned for piece in pieces]
        merged = {}
        for column in self.columns:
            parts = [one[column.name] for one in arrays]
            joined = (
                np.concatenate(parts)
                if column.per_token
                else np.average(np.stack(parts), axis=0, weights=owned)
            )
            merged[column.name] = joined.astype(self.dtype)
        return merged


def _mean(state: torch.Tensor, own: list[slice]) -> torch.Tensor:
    """(batch, seq, hidden) -> (batch, hidden) over the nucleotides kept, in float32."""
    weights = torch.zeros(state.shape[:2])
    for row, kept in zip(weights, own, strict=True):
        row[kept] = 1 / (kept.stop - kept.start)
    return (weights[:, None].to(state.device) @ state.float())[:, 0]
