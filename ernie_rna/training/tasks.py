"""What there is to fine-tune for: labels, the head, batches and metrics of each task.

Shapes: batch sequences, seq tokens, labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding

from ernie_rna.model.modeling_ernie_rna import (
    ErnieRnaForMaskedLM,
    ErnieRnaForSequenceClassification,
    ErnieRnaForTokenClassification,
)
from ernie_rna.scoring.masking import NO_LABEL, MaskingCollator
from ernie_rna.sequences.fasta import InputError
from ernie_rna.training.metrics import (
    Metrics,
    classification_metrics,
    common_guess,
    frequency_guess,
    majority_guess,
    masked_lm_metrics,
    mean_guess,
    multi_label_metrics,
    regression_metrics,
)
from ernie_rna.training.tables import (
    Table,
    base_names,
    check_bases,
    class_names,
    parse_bases,
    parse_class,
    parse_classes,
    parse_number,
    split_labels,
)

Example = dict[str, Any]
Collator = Callable[[list[Any]], dict[str, Any]]


@dataclass(frozen=True)
class LabelFormat:
    """How labels stand in a table.

    Attributes:
        columns: where they are.
        separator: between the labels of one cell, for several labels a sequence.
        ignored: the label of bases that have none.
    """

    columns: tuple[str, ...]
    separator: str = ";"
    ignored: str | None = None

    @property
    def column(self) -> str:
        """The only column.

        Raises:
            InputError: there are several, or none.
        """
        if len(self.columns) != 1:
            raise InputError(f"one label column is needed; got {', '.join(self.columns) or 'none'}")
        return self.columns[0]


class Task:
    """Single labels: one class for each sequence. The other tasks change parts of this.

    `head` begins the names of the weights that a pretrained folder lacks, and `guess_name` says
    what `guess` is.
    """

    model_class: type = ErnieRnaForSequenceClassification
    head = "classifier."
    problem_type: str | None = "single_label_classification"
    guess_name = "guess"
    # Whether the loss does not depend on some weights of the encoder.
    leaves_weights_unused = False

    def __init__(self, format: LabelFormat):
        self.format = format
        self.names: list[str] = []

    def learn_names(self, training: Table) -> None:
        """Fix the names of the labels, which are those of the training rows."""
        self.names = class_names(training.column(self.format.column))
        if len(self.names) < 2:
            raise InputError(
                f"{training.name}: column {self.format.column!r} has {len(self.names)} different "
                "labels; a classification needs at least 2"
            )

    def read_labels(self, table: Table, sequences: Sequence[str]) -> list[Any]:
        """A label for each row, as the model takes it."""
        return table.parse(self.format.column, parse_class(self.names))

    def encode(self, input_ids: list[int], label: Any) -> Example:
        return {"input_ids": input_ids, "labels": label}

    def collator(self, tokenizer: Any, config: Any) -> Collator:
        return DataCollatorWithPadding(tokenizer)

    def config(self, before: Any) -> dict[str, Any]:
        """What the model's configuration says of the labels; `before` is that of its folder."""
        return {
            "id2label": dict(enumerate(self.names)),
            "label2id": {name: index for index, name in enumerate(self.names)},
            "problem_type": self.problem_type,
        }

    def start_head(self, model: Any, labels: Sequence[Any]) -> None:
        """Set a new head to where training should begin."""

    def reduce(self, logits: torch.Tensor, labels: torch.Tensor) -> Any:
        """What of a batch's logits the metrics need."""
        return logits.argmax(dim=-1)

    def metrics(self, predicted: Any, labels: np.ndarray) -> Metrics:
        return classification_metrics(predicted, labels)

    def evaluate(self, trainer: Any, examples: Sequence[Example]) -> Metrics:
        """The metrics of a trained model; of several processes, all call this."""
        outputs = trainer.predict(list(examples))
        return self.metrics(outputs.predictions, outputs.label_ids)

    def guess(self, training: Sequence[Example], evaluation: Sequence[Example]) -> Metrics:
        """The metrics of the best guess that never looks at the sequence."""
        return majority_guess(_labels(training), _labels(evaluation))


class MultiLabel(Task):
    """Any number of classes for each sequence."""

    problem_type = "multi_label_classification"

    def learn_names(self, training: Table) -> None:
        if len(self.format.columns) > 1:
            self.names = list(self.format.columns)
            return
        cells = training.column(self.format.column)
        self.names = class_names([x for c in cells for x in split_labels(c, self.format.separator)])
        if not self.names:
            raise InputError(f"{training.name}: column {self.format.column!r} holds no label")

    def read_labels(self, table: Table, sequences: Sequence[str]) -> list[list[float]]:
        if len(self.format.columns) == 1:
            return table.parse(self.format.column, parse_classes(self.names, self.format.separator))
        return _transposed(table.parse(name, _parse_flag) for name in self.format.columns)

    def reduce(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits > 0).long()

    def metrics(self, predicted: Any, labels: np.ndarray) -> Metrics:
        return multi_label_metrics(predicted, labels.astype(int))

    def guess(self, training: Sequence[Example], evaluation: Sequence[Example]) -> Metrics:
        return common_guess(_labels(training).astype(int), _labels(evaluation).astype(int))


class Regression(Task):
    """One or several numbers for each sequence."""

    problem_type = "regression"

    def learn_names(self, training: Table) -> None:
        self.names = list(self.format.columns)

    def read_labels(self, table: Table, sequences: Sequence[str]) -> list[list[float]]:
        return _transposed(table.parse(name, parse_number) for name in self.format.columns)

    def start_head(self, model: Any, labels: Sequence[Any]) -> None:
        # The mean of the labels would else be the first thing, and for long the only one, that
        # the bias has to learn.
        with torch.no_grad():
            model.classifier.bias.copy_(torch.tensor(labels).mean(dim=0))

    def reduce(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits

    def metrics(self, predicted: Any, labels: np.ndarray) -> Metrics:
        return regression_metrics(predicted, labels)

    def guess(self, training: Sequence[Example], evaluation: Sequence[Example]) -> Metrics:
        return mean_guess(_labels(training), _labels(evaluation))


class TokenClassification(Task):
    """A class for each base; `<cls>` and `<eos>` have none."""

    model_class = ErnieRnaForTokenClassification
    problem_type = None

    def learn_names(self, training: Table) -> None:
        cells = training.column(self.format.column)
        self.names = base_names(cells, self.format.ignored)
        if len(self.names) < 2:
            raise InputError(f"{training.name}: the bases need at least 2 different labels")

    def read_labels(self, table: Table, sequences: Sequence[str]) -> list[list[int]]:
        parse = parse_bases(self.names, self.format.ignored, NO_LABEL)
        labels = table.parse(self.format.column, parse)
        check_bases(table, sequences, labels)
        return labels

    def encode(self, input_ids: list[int], label: Any) -> Example:
        bases = len(input_ids) - 2  # fewer than labels if the sequence was cut
        return super().encode(input_ids, [NO_LABEL, *label[:bases], NO_LABEL])

    def collator(self, tokenizer: Any, config: Any) -> Collator:
        return DataCollatorForTokenClassification(tokenizer, label_pad_token_id=NO_LABEL)

    def metrics(self, predicted: Any, labels: np.ndarray) -> Metrics:
        real = labels != NO_LABEL
        return classification_metrics(predicted[real], labels[real])

    def guess(self, training: Sequence[Example], evaluation: Sequence[Example]) -> Metrics:
        train, test = (
            np.array([label for example in examples for label in example["labels"]])
            for examples in (training, evaluation)
        )
        return majority_guess(train[train != NO_LABEL], test[test != NO_LABEL])


class MaskedLM(Task):
    """The nucleotides themselves, masked."""

    model_class = ErnieRnaForMaskedLM

    def __init__(self, mask_pairing: str = "inference", probability: float = 0.15):
        super().__init__(LabelFormat(()))
        self._mask_pairing = mask_pairing
        self._probability = probability

    def learn_names(self, training: Table) -> None:
        pass

    def read_labels(self, table: Table, sequences: Sequence[str]) -> list[None]:
        return [None] * len(sequences)

    def encode(self, input_ids: list[int], label: Any) -> Example:
        return {"input_ids": input_ids}

    def collator(self, tokenizer: Any, config: Any) -> Collator:
        return MaskingCollator(tokenizer, config, self._mask_pairing, self._probability)

    def config(self, before: Any) -> dict[str, Any]:
        return {}

    def reduce(self, logits: torch.Tensor, labels: torch.Tensor) -> Any:
        likelihoods = logits.float().log_softmax(dim=-1)
        at_labels = likelihoods.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        return logits.argmax(dim=-1), at_labels  # (batch, seq) each

    def metrics(self, predicted: Any, labels: np.ndarray) -> Metrics:
        ids, log_likelihoods = predicted
        return masked_lm_metrics(ids, log_likelihoods, labels)

    def guess(self, training: Sequence[Example], evaluation: Sequence[Example]) -> Metrics:
        train, test = (
            [example["input_ids"][1:-1] for example in examples]
            for examples in (training, evaluation)
        )
        return frequency_guess(train, test)


TASKS: Mapping[str, type[Task]] = {
    "classification": Task,
    "multi-label": MultiLabel,
    "regression": Regression,
    "token-classification": TokenClassification,
    "masked-lm": MaskedLM,
}


def _labels(examples: Sequence[Example]) -> np.ndarray:
    return np.array([example["labels"] for example in examples])


def _transposed(columns: Any) -> list[list[float]]:
    return [list(row) for row in zip(*columns, strict=True)]


def _parse_flag(cell: str) -> float:
    if cell not in ("0", "1"):
        raise ValueError(f"{cell!r} is neither 0 nor 1")
    return float(cell)
