"""The authors' fine-tuning tasks: secondary structure and mean ribosome loading.

Shapes: batch sequences, seq tokens, length bases of the longest sequence.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForRibosomeLoading,
    ErnieRnaForSecondaryStructure,
)
from ernie_rna.scoring.masking import NO_LABEL
from ernie_rna.sequences.fasta import FastaRecord
from ernie_rna.structures.contacts import allowed_pairs
from ernie_rna.structures.evaluation import evaluate, mfe_structure
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.training.metrics import Metrics
from ernie_rna.training.tables import Table, check_bases
from ernie_rna.training.tasks import Collator, Example, LabelFormat, Regression, Task

# The head of the scores that the authors read structures off, counted from 0.
_AUTHORS_HEAD = 5
# Classes whose folders hold a pair head for structures.
_WITH_HEAD = frozenset(("ErnieRnaForSecondaryStructure", "ErnieRnaForPreTraining"))


class SecondaryStructure(Task):
    """Which bases pair.

    Trained on every two bases that can pair (A-U, G-C, G-U) or are known to. Measured by the F1
    of the structures that `fold` reads off the logits, beside ViennaRNA's where that is installed.

    Args:
        positive_weight: weight of a pair in the loss, the others have 1; None is that of the
            folder's configuration.
    """

    model_class = ErnieRnaForSecondaryStructure
    head = "pair_head."
    problem_type = None
    guess_name = "ViennaRNA"
    leaves_weights_unused = True  # All of the last layer that is behind its scores.

    def __init__(self, format: LabelFormat, positive_weight: float | None = None):
        super().__init__(format)
        self._positive_weight = positive_weight

    def learn_names(self, training: Table) -> None:
        """There are none."""

    def read_labels(self, table: Table, sequences: Sequence[str]) -> list[Structure]:
        brackets = table.column(self.format.column)
        check_bases(table, sequences, brackets)
        pairs = table.parse(self.format.column, from_dot_bracket)
        named = enumerate(zip(sequences, pairs, strict=True))
        return [Structure(str(row), *parts) for row, parts in named]

    def encode(self, input_ids: list[int], label: Structure) -> Example:
        bases = len(input_ids) - 2  # fewer than in the label if the sequence was cut
        pairs = [pair for pair in label.pairs if pair[1] < bases]
        return {
            "input_ids": input_ids,
            "labels": Structure(label.id, label.sequence[:bases], pairs),
        }

    def collator(self, tokenizer: Any, config: Any) -> Collator:
        return PairCollator(tokenizer.pad_token_id)

    def config(self, before: Any) -> dict[str, Any]:
        """The settings of a folder's own head are kept; a new one is like the authors'."""
        settings: dict[str, Any] = {}
        if self._positive_weight is not None:
            settings["pair_positive_weight"] = self._positive_weight
        if not _WITH_HEAD.intersection(before.architectures or ()):
            settings["pair_heads"] = [_AUTHORS_HEAD]
        return settings

    def evaluate(self, trainer: Any, examples: Sequence[Example]) -> Metrics:
        if not trainer.is_world_process_zero():
            return {}
        known = [example["labels"] for example in examples]
        records = [FastaRecord(one.id, one.sequence) for one in known]
        model = _unwrapped(trainer)
        results = fold(records, model, unknown="unk", long="full")
        return _scores([folded.structure for folded in results], known)

    def guess(self, training: Sequence[Example], evaluation: Sequence[Example]) -> Metrics:
        """ViennaRNA's structures; nothing where it is not installed."""
        if importlib.util.find_spec("RNA") is None:
            return {}
        known = [example["labels"] for example in evaluation]
        return _scores([mfe_structure(one.sequence, one.id) for one in known], known)


def _scores(predicted: Sequence[Structure], known: Sequence[Structure]) -> Metrics:
    mean = evaluate(predicted, known).mean_exact
    return {"f1": mean.f1, "precision": mean.precision, "recall": mean.recall}


class PairCollator:
    """Pads sequences on the right; labels are those of `pair_labels`."""

    def __init__(self, padding: int):
        self._padding = padding

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Examples -> input_ids, attention_mask (batch, seq), labels (batch, length, length)."""
        sequences = [torch.tensor(example["input_ids"]) for example in examples]
        input_ids = pad_sequence(sequences, batch_first=True, padding_value=self._padding)
        labels = pair_labels([example["labels"] for example in examples], input_ids.shape[1] - 2)
        mask = (input_ids != self._padding).long()
        return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


def pair_labels(structures: Sequence[Structure], length: int) -> torch.Tensor:
    """(batch, length, length): 1 pairs, 0 none, -100 where two bases cannot pair and at padding."""
    allowed = allowed_pairs([structure.sequence for structure in structures], length)
    labels = torch.full(allowed.shape, NO_LABEL, dtype=torch.int8).masked_fill_(allowed, 0)
    for row, structure in zip(labels, structures, strict=True):
        for i, j in structure.pairs:
            row[i, j] = row[j, i] = 1
    return labels


class RibosomeLoading(Regression):
    """Mean ribosome loading of 5' untranslated regions, in its own units.

    The scaler is that of the training rows, unless the folder has such a head already.
    """

    model_class = ErnieRnaForRibosomeLoading
    head = "loading_head."

    def __init__(self, format: LabelFormat):
        super().__init__(format)
        self._new = True

    def config(self, before: Any) -> dict[str, Any]:
        self._new = self.model_class.__name__ not in (before.architectures or ())
        return {}

    def start_head(self, model: Any, labels: Sequence[Any]) -> None:
        if self._new:
            values = np.array(labels, dtype=np.float64)
            model.config.loading_mean = float(values.mean())
            model.config.loading_scale = float(values.std()) or 1.0

    def encode(self, input_ids: list[int], label: Any) -> Example:
        return {"input_ids": input_ids, "labels": label[0]}

    def reduce(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        # Logits, then predictions in the units of the labels.
        return outputs[1] if isinstance(outputs, (tuple, list)) else outputs


def _unwrapped(trainer: Any) -> Any:
    """The model as its own class, without what trains it: processes, LoRA."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model
