"""What `embed` is asked to do, and the model and plan that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

from ernie_rna.embeddings.columns import check_pooling
from ernie_rna.embeddings.encoder import Encoder
from ernie_rna.inference.loading import load_model
from ernie_rna.sequences.batches import WINDOW_BATCHES, Plan, resolve_batch_tokens
from ernie_rna.sequences.long import check_long
from modeling_ernie_rna import ErnieRnaModel

Model = str | PathLike[str] | ErnieRnaModel

# About what the vectors of a window may take in memory; a longer sequence is alone in its window.
_WINDOW_BYTES = 1 << 28


@dataclass(frozen=True)
class EmbedOptions:
    """The arguments of `embed` that say what is computed."""

    layers: Sequence[int] | None
    pooling: Sequence[str]
    dtype: str | None
    device: str | None
    batch_tokens: int | None
    long: str
    overlap: int
    attention: str | None
    threads: int | None
    unknown: str
    revision: str | None

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        for name in ("batch_tokens", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")

    def load(self, model: Model) -> tuple[Encoder, Plan]:
        loaded = load_model(
            model,
            revision=self.revision,
            dtype=self.dtype,
            device=self.device,
            attention=self.attention,
        )
        encoder = Encoder(loaded, self.layers, self.pooling)
        check_long(self.long, encoder.limit, self.overlap)
        tokens = resolve_batch_tokens(self.batch_tokens, loaded.device)
        in_memory = max(1, _WINDOW_BYTES // max(1, encoder.nbytes(0, 1)))
        window = min(WINDOW_BATCHES * tokens, in_memory)
        return encoder, Plan(tokens, encoder.limit, self.long, self.overlap, window)
