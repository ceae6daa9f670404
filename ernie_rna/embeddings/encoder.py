"""The model at work: batches of nucleotide sequences in, pooled vectors out.

Shapes: batch sequences, seq tokens (`<cls>`, nucleotides, `<eos>`, padding), hidden.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ernie_rna.embeddings.columns import Column, Layout, resolve_columns
from ernie_rna.inference.loading import EncodingError, memory_explained, tokenize
from ernie_rna.sequences.batches import Window
from ernie_rna.sequences.long import Piece, nucleotide_limit
from modeling_ernie_rna import ErnieRnaModel


def model_sha256(model: ErnieRnaModel) -> str:
    """Digest of all that the vectors depend on: the weights (the pooler left out), the config."""
    digest = hashlib.sha256()
    names = inspect.signature(type(model.config).__init__).parameters
    values = model.config.to_dict()
    fields = {name: values[name] for name in sorted(names) if name in values}
    digest.update(json.dumps(fields, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not name.startswith("pooler."):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


class Encoder:
    """A loaded model and the columns wanted of it.

    Args:
        model: as `load_model` returns it.
        layers, pooling: as for `embedding.resolve_columns`.

    Attributes:
        layout: columns, width and type of the results: float16 where the model computes in
            that, else float32 (NumPy has no bfloat16).
        limit: nucleotides that the model was trained to take at once.
    """

    def __init__(self, model: ErnieRnaModel, layers: Any = (-1,), pooling: Any = ("mean",)):
        config: Any = model.config
        self.model = model
        self.columns = resolve_columns(layers, pooling, config.num_hidden_layers)
        half = model.dtype == torch.float16
        dtype = np.dtype(np.float16 if half else np.float32)
        self.layout = Layout(self.columns, config.hidden_size, dtype)
        self.limit = nucleotide_limit(config)
        self._all_layers = any(column.layer != config.num_hidden_layers for column in self.columns)

    def encode(self, window: Window, batch: int) -> Iterator[np.ndarray]:
        """Compute one batch of a window.

        Yields:
            For each column in turn, for each piece of the batch: (1, hidden), or, for token,
            (nucleotides that the piece keeps, hidden).

        Raises:
            EncodingError: a result is not finite, or there is not enough memory.
        """
        pieces = [window.pieces[index] for index in window.batches[batch]]
        with memory_explained([window.records[piece.record] for piece in pieces]):
            hidden_states = self._forward(window, pieces)
            for column in self.columns:
                yield from self._pool(column, hidden_states[column.layer], window, pieces)

    @torch.inference_mode()
    def _forward(self, window: Window, pieces: list[Piece]) -> dict[int, torch.Tensor]:
        """Layer -> (batch, seq, hidden)."""
        texts = [
            window.records[piece.record].sequence[piece.start : piece.stop] for piece in pieces
        ]
        input_ids, mask = tokenize(texts, self.model.device)
        output = self.model(
            input_ids=input_ids, attention_mask=mask, output_hidden_states=self._all_layers
        )
        if not self._all_layers:
            return {self.model.config.num_hidden_layers: output.last_hidden_state}
        return dict(enumerate(output.hidden_states))

    @torch.inference_mode()
    def _pool(
        self, column: Column, hidden_states: torch.Tensor, window: Window, pieces: list[Piece]
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
                record = window.records[piece.record]
                raise EncodingError(
                    f"{record.id}: {column.name} is not finite (NaN or infinity); the model or "
                    f"its dtype, {str(self.model.dtype).removeprefix('torch.')}, is at fault"
                )
            yield array

    def _to_numpy(self, tensor: torch.Tensor) -> np.ndarray:
        return tensor.to("cpu", getattr(torch, self.layout.dtype.name)).numpy()


def _mean(hidden_states: torch.Tensor, pieces: list[Piece]) -> torch.Tensor:
    """(batch, seq, hidden) -> (batch, 1, hidden) over the nucleotides kept, in float32."""
    weights = torch.zeros(hidden_states.shape[:2])
    for row, piece in zip(weights, pieces, strict=True):
        first = 1 + piece.own_start - piece.start
        row[first : first + piece.owned] = 1 / piece.owned
    return weights[:, None].to(hidden_states.device) @ hidden_states.float()
