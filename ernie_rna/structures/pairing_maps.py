"""The maps that structures are read off: attention scores, or the logits of a trained head.

Shapes: batch sequences, seq tokens, length bases of the longest sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any, Protocol

from torch import Tensor

from ernie_rna.model.modeling_ernie_rna import ErnieRnaForSecondaryStructure, ErnieRnaModel
from ernie_rna.run.attention_scores import (
    attention_scores,
    check_heads,
    check_pairing_scores,
)
from ernie_rna.run.loading import (
    class_names,
    load_head,
    load_model,
    map_width,
    resolve_layer,
    run_on_tokens,
    tokenize,
)
from ernie_rna.sequences.batches import MAPS_FROM, SCORES_FROM
from ernie_rna.structures.calibration import read_calibration
from ernie_rna.structures.confidence import contact_strengths, pair_probabilities
from ernie_rna.structures.contacts import extract_pairing_map, symmetrize

# The authors' choice for structures without training, and the constant of their optimisation.
LAYER, HEAD, THRESHOLD = -1, 5, 1.5
# Classes whose folders hold a head for structures.
_WITH_HEAD = ("ErnieRnaForSecondaryStructure", "ErnieRnaForPreTraining")

FoldingModel = str | PathLike[str] | ErnieRnaModel | ErnieRnaForSecondaryStructure


class PairingMaps(Protocol):
    """A loaded model as a source of maps.

    Attributes:
        model: what computes them.
        threshold: the score around which `contacts.solve_contacts` weights them.
        width: for `batches.work`.
        squared_from: for `batches.plan_batches`.
        source: what the maps are, in a few words.
        label: what their numbers are.
        slope: from their numbers to log-odds of pairs.
        certainty: what `probabilities` are.
    """

    @property
    def model(self) -> Any: ...

    @property
    def threshold(self) -> float: ...

    @property
    def width(self) -> float: ...

    @property
    def squared_from(self) -> int: ...

    @property
    def source(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def slope(self) -> float: ...

    @property
    def certainty(self) -> str: ...

    def compute(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, seq) each -> symmetric maps (batch, length, length)."""

    def probabilities(
        self, scores: Tensor, contacts: Tensor, sequence: str, min_loop: int
    ) -> Tensor:
        """How likely each pair is, by the map and the contacts of a sequence: all (length, length),
        see `confidence`."""


@dataclass(frozen=True)
class ScoreMaps:
    """The attention scores of one layer and head, made symmetric: no training on structures.

    Attributes:
        layer: counted from 0, the projected pairing scores.
    """

    model: ErnieRnaModel
    layer: int
    head: int
    pairing_scores: str | None
    threshold: float = THRESHOLD
    squared_from: int = SCORES_FROM
    slope: float = 1.0
    certainty: str = "contact"

    @property
    def width(self) -> float:
        config: Any = self.model.config
        return float(config.hidden_size)

    @property
    def source(self) -> str:
        return f"layer {self.layer}, head {self.head}"

    @property
    def label(self) -> str:
        return "attention score" if self.layer else "projected pairing score"

    def compute(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        scores = attention_scores(
            self.model,
            input_ids,
            attention_mask,
            layer=self.layer,
            heads=[self.head],
            pairing_scores=self.pairing_scores,
        )
        return extract_pairing_map([scores], attention_mask, layer=0, head=0)

    def probabilities(
        self, scores: Tensor, contacts: Tensor, sequence: str, min_loop: int
    ) -> Tensor:
        return contact_strengths(contacts)


@dataclass(frozen=True)
class HeadMaps:
    """The logits of a head that was trained on structures."""

    model: ErnieRnaForSecondaryStructure
    pairing_scores: str | None
    squared_from: int = MAPS_FROM
    source: str = "secondary-structure head"
    label: str = "logit"
    certainty: str = "probability"

    @property
    def slope(self) -> float:
        return read_calibration(self.model.config).slope

    @property
    def threshold(self) -> float:
        config: Any = self.model.config
        return float(config.pair_threshold)

    @property
    def width(self) -> float:
        return map_width(self.model.config)

    def compute(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        outputs = run_on_tokens(self.model, input_ids, attention_mask, self.pairing_scores)
        logits: Tensor = outputs.logits
        return logits

    def probabilities(
        self, scores: Tensor, contacts: Tensor, sequence: str, min_loop: int
    ) -> Tensor:
        line = read_calibration(self.model.config)
        return pair_probabilities(scores[None], [sequence], min_loop=min_loop, calibration=line)[0]


def reads_head(
    model: FoldingModel, layer: int | None, head: int | None, revision: str | None = None
) -> bool:
    """Whether structures come from a trained head: there is one, and no scores are asked for.

    Raises:
        OSError: there is no such model.
    """
    if layer is not None or head is not None:
        return False
    return any(name in _WITH_HEAD for name in class_names(model, revision))


def load_maps(
    model: FoldingModel,
    layer: int | None,
    head: int | None,
    pairing_scores: str | None,
    **loading: Any,
) -> PairingMaps:
    """Load the source of maps that a folder, or a model, has.

    Args:
        layer, head: of the attention scores, see `fold.fold`; both None takes the trained head
            if there is one.
        pairing_scores: as for `attention_scores.use_pairing_scores`.
        loading: arguments of `loading.load_model`.

    Raises:
        ValueError: there is no such layer, head or kind of pairing scores; or as `load_model`.
        OSError: there is no such model.
    """
    check_pairing_scores(pairing_scores)
    if reads_head(model, layer, head, loading.get("revision")):
        chosen: Any = model
        return HeadMaps(load_head(ErnieRnaForSecondaryStructure, chosen, **loading), pairing_scores)
    encoder: Any = getattr(model, "ernie_rna", model)
    loaded = load_model(encoder, **loading)
    number = resolve_layer(LAYER if layer is None else layer, loaded.config.num_hidden_layers)
    head = HEAD if head is None else head
    check_heads([head], loaded.config.num_attention_heads)
    return ScoreMaps(loaded, number, head, pairing_scores)


def head_maps(
    model: ErnieRnaModel, sequence: str, layer: int, pairing_scores: str | None = None
) -> Tensor:
    """The symmetric scores of all heads of a layer, (heads, length, length)."""
    input_ids, mask = tokenize([sequence], model.device)
    scores = attention_scores(model, input_ids, mask, layer=layer, pairing_scores=pairing_scores)
    return symmetrize(scores[0, :, 1:-1, 1:-1])  # without <cls> and <eos>
