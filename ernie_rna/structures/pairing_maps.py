"""Pairing maps, from which structures are predicted: attention scores or logits of a trained head.

The map of a sequence beyond the model's limit is assembled from the windows of `sequences.chunks`.
If two bases share several windows, their score comes from the window in which the base closer to
an edge is farthest from it; an end of the sequence is no edge. Two bases that share no window
cannot pair: those farther apart than the limit, and some that are slightly closer.

Shapes: batch (sequences), seq (tokens), length (bases of the longest sequence).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ernie_rna.model.configuration_ernie_rna import WITH_PAIR_HEAD
from ernie_rna.model.heads_ernie_rna import bases_of_scores
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForSecondaryStructure, ErnieRnaModel
from ernie_rna.run.attention_scores import attention_scores, check_heads, run_head
from ernie_rna.run.loading import has_head, load, read_config, resolve_layer, tokenize
from ernie_rna.sequences.chunks import MAPS_FROM, SCORES_FROM, pair_head_cost, windows

# The authors' choice for structures without training, and the threshold of their optimisation.
LAYER, HEAD, THRESHOLD = -1, 5, 1.5
# The score of bases that share no window: too far below any threshold for a contact to form.
NOT_SEEN = -100.0


@dataclass(frozen=True)
class PairingMaps:
    """A loaded model that computes pairing maps.

    Attributes:
        compute: maps ids and mask, (batch, seq) each, to symmetric maps (batch, length, length).
        cost, squared_from: for `chunks.Plan`.
        source, origin: short descriptions of the maps, and of the structures predicted from them.
        label: name of the values, for the axis of a plot.
        certainty: name of the measure of how sure a pair is.
        threshold: the score around which `structures_ernie_rna.solve_each` weights the map.
        slope, offset: line from the values to log-odds of pairs; offset is None if there is none.
    """

    model: Any
    compute: Callable[[Tensor, Tensor], Tensor]
    cost: float
    squared_from: int
    source: str
    origin: str
    label: str
    certainty: str
    threshold: float = THRESHOLD
    slope: float = 1.0
    offset: float | None = None

    def of(self, texts: Sequence[str], window: tuple[int, int] | None = None) -> Tensor:
        """Compute the maps of sequences, (batch, length, length).

        Args:
            window: the longest window and the overlap, in bases; longer sequences are assembled
                from windows. None computes every sequence whole.
        """
        longest = max(map(len, texts))
        if window is None or longest <= window[0]:
            return self.compute(*tokenize(list(texts), self.model.device))
        maps = torch.zeros(len(texts), longest, longest)
        for padded_map, text in zip(maps, texts, strict=True):
            assembled = windowed_map(lambda piece: self.of([piece])[0], text, *window)
            padded_map[: len(text), : len(text)] = assembled
        return maps

    def check_prior(self) -> None:
        """Raise ValueError unless a prior can be added."""
        if self.offset is None:
            raise ValueError(
                f"--prior needs the logits of a structure head, but these are {self.origin}; "
                "choose a model with such a head, such as mini, and leave out --layer and --head"
            )
        if self.model.config.pair_prior is None:
            raise ValueError(
                "--prior needs the weight and offset for this head's logits, "
                "pair_prior in config.json: scripts/calibrate_pairs.py fits them for any head"
            )

    def add_prior(self, maps: Tensor, prior: Tensor) -> Tensor:
        """Add the log-odds of an energy model, of the same shape as the maps; see `prior`."""
        weight, offset = self.model.config.pair_prior
        return maps.float() + weight * prior + offset

    def log_odds(self, maps: Tensor, prior: Tensor | None) -> Tensor | None:
        """Log-odds of pairs, from maps without the prior and from the prior; None if no offset."""
        if self.offset is None:
            return None
        calibration = self.model.config.pair_prior_calibration
        if prior is not None and calibration is None:
            maps = self.add_prior(maps, prior)
        log_odds = self.slope * maps.float() + self.offset
        if prior is None or calibration is None:
            return log_odds
        map_weight, prior_weight, offset = calibration
        return map_weight * log_odds + prior_weight * prior + offset


def load_maps(
    source: Any,
    layer: int | None = None,
    head: int | None = None,
    pairing_scores: str | None = None,
    **loading: Any,
) -> PairingMaps:
    """Load a model as `PairingMaps`.

    Args:
        source: what `find_model` returns.
        layer, head: layer and head of the attention scores, see `fold.fold`; if both are None, the
            trained head is used if the model has one.
        pairing_scores: as for `attention_scores.use_pairing_scores`.
        loading: arguments of `loading.load_model`.

    Raises:
        ValueError: the layer or head does not exist; or as `load_model`.
        OSError: the model does not exist.
    """
    config = read_config(source, loading.get("revision"))
    if layer is None and head is None and has_head(source, config, *WITH_PAIR_HEAD):
        model = load(ErnieRnaForSecondaryStructure, source, config=config, **loading)
        slope, offset = model.config.pair_calibration or (1.0, 0.0)
        return PairingMaps(
            model,
            lambda ids, mask: run_head(model, ids, mask, pairing_scores).logits,
            cost=pair_head_cost(model.config),
            squared_from=MAPS_FROM,
            source="secondary-structure head",
            origin="structures by the model's secondary-structure head",
            label="logit",
            certainty="probability",
            threshold=float(model.config.pair_threshold),
            slope=slope,
            offset=offset,
        )
    number = resolve_layer(LAYER if layer is None else layer, config.num_hidden_layers)
    heads = check_heads([HEAD if head is None else head], config.num_attention_heads)
    encoder = load(ErnieRnaModel, getattr(source, "ernie_rna", source), config=config, **loading)

    def compute(ids: Tensor, mask: Tensor) -> Tensor:
        scores = attention_scores(
            encoder, ids, mask, layer=number, heads=heads, pairing_scores=pairing_scores
        )
        base_scores, _ = bases_of_scores(scores, mask.bool(), None)
        return symmetrize(base_scores[:, 0])

    name = f"layer {number}, head {heads[0]}"
    return PairingMaps(
        encoder,
        compute,
        cost=encoder.config.hidden_size,
        squared_from=SCORES_FROM,
        source=name,
        origin=f"structures without training, by the attention scores of {name}",
        label="attention score" if number else "projected pairing score",
        certainty="contact",
    )


def symmetrize(scores: Tensor) -> Tensor:
    """Mean of a map and its transpose over the last two dimensions, (..., length, length)."""
    return torch.div(scores + scores.transpose(-1, -2), 2)


def head_maps(
    model: ErnieRnaModel, sequence: str, layer: int, pairing_scores: str | None = None
) -> Tensor:
    """Compute the symmetric scores of all heads of a layer, (heads, length, length)."""
    input_ids, mask = tokenize([sequence], model.device)
    scores = attention_scores(model, input_ids, mask, layer=layer, pairing_scores=pairing_scores)
    return symmetrize(scores[0, :, 1:-1, 1:-1])  # without <cls> and <eos>


def windowed_map(
    compute: Callable[[str], Tensor], sequence: str, limit: int, overlap: int
) -> Tensor:
    """Assemble the symmetric map of a long sequence from windows.

    Args:
        compute: returns the map (length, length) of a sequence of at most ``limit`` bases.
        limit, overlap: as for `chunks.windows`.

    Returns:
        (length, length), `NOT_SEEN` where two bases share no window.
    """
    length = len(sequence)
    merged = torch.full((length, length), NOT_SEEN)
    margins = torch.full((length, length), -1)
    for piece in windows(0, length, limit, overlap):
        block = slice(piece.start, piece.stop)
        scores = compute(sequence[block]).to(merged)  # (window, window)
        index = torch.arange(piece.stop - piece.start)
        # Number of bases between each base and the nearest edge. An end of the sequence may count
        # as an edge: for a base near it, the edge of every other window is closer still.
        margin = torch.minimum(index, index.flip(0))
        pair_margins = torch.minimum(margin[:, None], margin)
        better = pair_margins > margins[block, block]
        merged[block, block] = torch.where(better, scores, merged[block, block])
        margins[block, block] = torch.where(better, pair_margins, margins[block, block])
    return merged
