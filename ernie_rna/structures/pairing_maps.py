"""The maps that structures are read off: attention scores, or the logits of a trained head.

The map of a sequence that is longer than the model's limit is put together from windows, those of
`sequences.chunks`. Two bases that share several windows get the score of the one in which the
nearer of the two to an edge is farthest from it; an end of the sequence is no edge. Two bases that
share no window cannot pair: those farther apart than the limit, and some that are not much nearer.

Shapes: batch sequences, seq tokens, length bases of the longest sequence.
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

# The authors' choice for structures without training, and the constant of their optimisation.
LAYER, HEAD, THRESHOLD = -1, 5, 1.5
# Of bases that share no window: so far below any threshold that no contact starts from it.
NOT_SEEN = -100.0


@dataclass(frozen=True)
class PairingMaps:
    """A loaded model as a source of maps.

    Attributes:
        model: what computes them.
        compute: of ids and mask, (batch, seq) each, symmetric maps (batch, length, length).
        cost, squared_from: for `chunks.Plan`.
        source, origin: what the maps are, in a few words, and what of structures.
        label: what their numbers are.
        certainty: what says how sure pairs are.
        threshold: the score around which `structures_ernie_rna.solve_each` weights them.
        slope, offset: from their numbers to log-odds of pairs; no offset where these say nothing.
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
        """The maps of sequences, (batch, length, length).

        Args:
            window: the limit, beyond which a map is put together from windows, and their overlap;
                None computes all sequences whole.
        """

        def compute(*some: str) -> Tensor:
            return self.compute(*tokenize(list(some), self.model.device))

        longest = max(map(len, texts))
        if window is None or longest <= window[0]:
            return compute(*texts)
        batch = torch.zeros(len(texts), longest, longest)
        for row, text in zip(batch, texts, strict=True):
            inside = slice(len(text))
            row[inside, inside] = windowed_map(lambda part: compute(part)[0], text, *window)
        return batch

    def check_prior(self) -> None:
        """ValueError unless a prior can be added."""
        if self.offset is None:
            raise ValueError(
                f"--prior needs the logits of a structure head, but these are {self.origin}"
            )
        if self.model.config.pair_prior is None:
            raise ValueError(
                "--prior needs the weight and offset for this head's logits, "
                "pair_prior in config.json: scripts/calibrate_pairs.py fits them for any head"
            )

    def add_prior(self, maps: Tensor, prior: Tensor) -> Tensor:
        """Maps with the log-odds of an energy model, of one shape, see `prior`."""
        weight, offset = self.model.config.pair_prior
        return maps.float() + weight * prior + offset

    def log_odds(self, maps: Tensor, prior: Tensor | None) -> Tensor | None:
        """Of pairs, by maps without the prior, and that; None where maps say nothing of them."""
        if self.offset is None:
            return None
        fitted = self.model.config.pair_prior_calibration
        if prior is not None and fitted is None:
            maps = self.add_prior(maps, prior)
        own = self.slope * maps.float() + self.offset
        if prior is None or fitted is None:
            return own
        mine, others, offset = fitted
        return mine * own + others * prior + offset


def load_maps(
    source: Any,
    layer: int | None = None,
    head: int | None = None,
    pairing_scores: str | None = None,
    **loading: Any,
) -> PairingMaps:
    """Load the source of maps that a folder, or a model, has.

    Args:
        source: what `find_model` returns.
        layer, head: of the attention scores, see `fold.fold`; both None takes the trained head
            if there is one.
        pairing_scores: as for `attention_scores.use_pairing_scores`.
        loading: arguments of `loading.load_model`.

    Raises:
        ValueError: there is no such layer or head; or as `load_model`.
        OSError: there is no such model.
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
        how: Any = {"layer": number, "heads": heads, "pairing_scores": pairing_scores}
        bases, _ = bases_of_scores(attention_scores(encoder, ids, mask, **how), mask.bool(), None)
        return symmetrize(bases[:, 0])

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
    """The mean of a map and its transpose, over the last two dimensions: (..., length, length)."""
    mean: Tensor = (scores + scores.transpose(-1, -2)) / 2
    return mean


def head_maps(
    model: ErnieRnaModel, sequence: str, layer: int, pairing_scores: str | None = None
) -> Tensor:
    """The symmetric scores of all heads of a layer, (heads, length, length)."""
    input_ids, mask = tokenize([sequence], model.device)
    scores = attention_scores(model, input_ids, mask, layer=layer, pairing_scores=pairing_scores)
    return symmetrize(scores[0, :, 1:-1, 1:-1])  # without <cls> and <eos>


def windowed_map(
    compute: Callable[[str], Tensor], sequence: str, limit: int, overlap: int
) -> Tensor:
    """The symmetric map of a whole sequence.

    Args:
        compute: the map (length, length) of a sequence of at most ``limit`` bases.
        sequence: its bases.
        limit: bases in a window.
        overlap: bases that neighbouring windows share at least; below ``limit``.

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
        # Bases between each base and the nearest edge. From an end of the sequence no other window
        # is farther, so that it decides nothing.
        margin = torch.minimum(index, index.flip(0))
        pair_margins = torch.minimum(margin[:, None], margin)
        better = pair_margins > margins[block, block]
        merged[block, block] = torch.where(better, scores, merged[block, block])
        margins[block, block] = torch.where(better, pair_margins, margins[block, block])
    return merged
