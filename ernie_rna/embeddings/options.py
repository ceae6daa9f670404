"""What `embed` is asked to do: its options, the model and plan that follow from them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import torch
import transformers

from ernie_rna import __version__
from ernie_rna.embeddings.columns import check_pooling
from ernie_rna.embeddings.encoder import Encoder
from ernie_rna.inference.loading import load_model
from ernie_rna.inference.processes import World
from ernie_rna.inference.progress import Progress
from ernie_rna.sequences.batches import Plan, resolve_batch_tokens, work
from ernie_rna.sequences.fasta import InputError
from ernie_rna.sequences.long import check_long
from ernie_rna.sequences.survey import Survey
from modeling_ernie_rna import ErnieRnaModel

Model = str | PathLike[str] | ErnieRnaModel


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
        return encoder, Plan(tokens, encoder.limit, self.long, self.overlap)


def check_lengths(found: Survey, plan: Plan, encoder: Encoder) -> None:
    """Refuse sequences over the limit, or warn, as `plan.long` says."""
    too_long = sum(count for length, count in found.lengths.items() if length > plan.limit)
    if not too_long or plan.long == "window":
        return
    longest, _ = found.longest[0]
    if plan.long == "full":
        gigabytes = encoder.model.config.num_attention_heads * (longest + 2) ** 2 * 4 / 1e9
        warnings.warn(
            f"{too_long} sequences have more than the {plan.limit} nt that the model was trained "
            f"on and are computed whole; the attention scores of the longest, {longest} nt, take "
            f"{gigabytes:.1f} GB, or none but more time where memory is short",
            stacklevel=2,
        )
        return
    named = ", ".join(f"{id} ({length} nt)" for length, id in found.longest if length > plan.limit)
    raise InputError(
        f"{too_long} of {found.records} sequences are longer than the {plan.limit} nt that the "
        f"model takes, the longest: {named}. --long window embeds them by overlapping windows, "
        "--long full as they are"
    )


def make_bar(
    progress: bool | None,
    encoder: Encoder,
    plan: Plan,
    found: Survey | None,
    world: World | None = None,
) -> Progress:
    hidden = encoder.layout.hidden
    world = world or World()
    show = progress if world.leads else False

    def cost(length: int) -> float:
        return sum(work(piece.tokens, hidden) for piece in plan.split(0, length))

    return Progress.over(show, hidden, found, cost, world.size)


def versions() -> dict[str, str]:
    """The versions that the vectors depend on, by package."""
    return {
        "ernie_rna": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
