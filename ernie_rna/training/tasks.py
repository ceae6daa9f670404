"""The tasks of fine-tuning: labels, head, batches and metrics of each.

`Task.config` defines what a saved model records about its labels. Torch is imported when needed.

Shapes: batch sequences, seq tokens, labels.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ernie_rna.sequences.fasta import FastaRecord, InputError, some
from ernie_rna.sequences.tables import parse_decimal
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket, to_dot_bracket
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.training import metrics as measures
from ernie_rna.training.metrics import NO_LABEL, Metrics
from ernie_rna.training.rows import Rows
from ernie_rna.training.splits import predict_by_kmers

Example = dict[str, Any]

_MISSING = frozenset(("na", "nan", "n/a", "none", "null", "#n/a", "?", "-"))
_SEPARATORS = ",;|/+ "
_LARGEST = 1e18  # its square is still finite in float32
_MANY_CLASSES = 10  # fewer different labels are accepted as classes even if they look like numbers
_AUTHORS_HEAD = 5  # attention head, counted from 0, that the authors predict structures from


class Task:
    """Base class of the tasks, each of which overrides parts of it.

    Attributes:
        model_name: class of the model.
        head: prefix of the names of the head's weights, which a pretrained folder may lack.
        also_in: other model classes that have the head.
        adapted: modules that LoRA trains in full besides its updates; () stands for the head.
        parse: the label in a cell, given whether commas are decimal; ValueError if it has none.
        metrics: metrics from predictions and labels.
        metric_names: keys of what `metrics` returns.
        guess_name: name of what `guess` measures.
        batch_norms: whether the head has batch norms.
        of_sequences, of_bases: whether each sequence, or each base, gets a prediction.
        of_numbers: whether predictions are numbers in the units of the table, not classes.
        several: whether labels may be in several columns, one value in each.
        one_a_base: whether a label must have one entry for each base.
        no_label: why the loss does not depend on a row, with names of options in braces.
        names: names of the labels, in the order of their ids.
        options: options of fine-tuning or of predictions, which name the columns of labels.
    """

    model_name = "ErnieRnaForSequenceClassification"
    head = "classifier"
    also_in: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    problem_type: str | None = None
    parse: Callable[[str, bool], Any]
    metrics: Callable[..., Metrics]
    metric_names: tuple[str, ...]
    guess_name = "guess"
    batch_norms = False
    of_sequences, of_bases, of_numbers = False, False, False
    several, one_a_base = False, False
    no_label = ""

    def __init__(self, options: Any):
        self.options = options
        self.names: list[str] = []

    # Cells of a table -> labels

    @property
    def columns(self) -> Sequence[str]:
        """The columns of labels; InputError if there are several and the task needs one."""
        columns: Sequence[str] = self.options.label_columns
        if len(columns) != 1 and not self.several:
            raise InputError(f"one label column is needed; got {', '.join(columns)}")
        return columns

    def cells(self, rows: Rows) -> list[str]:
        return rows.column(self.columns[0], "--label-column")

    def learn_names(self, training: Rows) -> Iterable[str]:
        """Set `names` from the training rows; return warnings about suspicious labels."""
        self.names = list(self.columns) if self.several or self.of_numbers else []
        return ()

    def read_labels(self, rows: Rows) -> list[Any]:
        """The label of each row, as `encode` takes it."""
        parsed = [rows.parse(column, self.parse) for column in self.columns]
        labels = [list(row) for row in zip(*parsed, strict=True)] if self.several else parsed[0]
        for line, sequence, label in zip(rows.lines, rows.sequences, labels, strict=True):
            if self.one_a_base and len(label) != len(sequence):
                problem = f"{len(label)} labels for {len(sequence)} bases"
                raise InputError.at(rows.name, line, problem)
        return labels

    def cut(self, label: Any, bases: int) -> Any:
        """The label of a sequence of which only the first bases are left."""
        return label

    def unlabelled(self, rows: Rows) -> int:
        """The number of rows on which the loss does not depend; `no_label` says why."""
        return 0

    # Labels -> a model and its batches

    def encode(self, input_ids: list[int], label: Any) -> Example:
        return {"input_ids": input_ids, "labels": label}

    def collator(self, tokenizer: Any, config: Any) -> Any:
        from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding

        kind: Any = DataCollatorForTokenClassification if self.of_bases else DataCollatorWithPadding
        return kind(tokenizer)

    def config(self, before: Any, kept: bool) -> dict[str, Any]:
        """Entries of the saved config.json about the labels: all that a prediction needs.

        id2label maps ids to classes, or to the columns of several labels or numbers. problem_type
        is, for labels of sequences, single_label_classification, multi_label_classification (a
        logit above 0 means that the sequence has the label) or regression (logits are numbers in
        the units of the table); it is None for classes of bases and for ribosome loading, which is
        `loading_mean` + `loading_scale` * logit. For structures, logits above 0 mean pairs, and
        `pair_calibration` is None: none was fitted. `architectures` names the model's class.

        Args:
            before: the configuration of the pretrained folder.
            kept: whether the folder has the head already.
        """
        id2label = dict(enumerate(self.names))
        return {"id2label": id2label, "label2id": self._ids, "problem_type": self.problem_type}

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def start_head(self, model: Any, labels: Sequence[Any]) -> None:
        """Set a new head's weights and settings from the labels of training."""

    # A model -> predictions and metrics

    def values(self, output: Any) -> Any:
        """Probabilities, or numbers in their units, from the output of the model."""
        in_units = "predictions" in output  # of ribosome loading
        return self.activate(output.predictions[:, None] if in_units else output.logits)

    def activate(self, logits: Any) -> Any:
        """Probabilities, or numbers in their units, from logits."""
        return logits.float()

    def decide(self, values: Any) -> Any:
        """The predicted classes, labels or numbers, from what `activate` returns."""
        return values

    def reduce(self, logits: Any, labels: Any) -> Any:
        """The part of a batch's predictions that the metrics need, to save memory."""
        return self.decide(self.activate(logits))

    def evaluate(self, trainer: Any, examples: Sequence[Example]) -> Metrics:
        """The metrics of a trained model; every process must call this."""
        outputs = trainer.predict(list(examples))
        return self.metrics(outputs.predictions, outputs.label_ids)

    def guess(self, training: Sequence[Example], evaluation: Sequence[Example]) -> Metrics:
        """The metrics of the best guess without the sequence; empty if the task has none."""
        train, test = self.known(training), self.known(evaluation)
        guess = measures.simplest_guess(train, len(test), self.of_numbers)
        return self.metrics(guess.reshape(test.shape), test)

    def by_kmers(self, training: Sequence[Example], evaluation: Sequence[Example]) -> Metrics:
        """The metrics of a regression on counts of k-mers, for labels of sequences; else empty."""
        if not self.of_sequences or self.options.baseline != "kmer":
            return {}
        train, test = self.known(training), self.known(evaluation)
        rnas, test_rnas = ([e["sequence"] for e in split] for split in (training, evaluation))
        predicted = predict_by_kmers(rnas, train, test_rnas, self.of_numbers)
        return self.metrics(predicted.reshape(test.shape), test)

    def known(self, examples: Sequence[Example]) -> np.ndarray:
        """The labels of examples as an array."""
        return np.array([example["labels"] for example in examples])


class Classification(Task):
    """One class for each sequence; base class of the other tasks with classes.

    Attributes:
        fewest: fewest classes that the training rows must have.
    """

    problem_type: str | None = "single_label_classification"
    metrics = staticmethod(measures.classification_metrics)
    metric_names = ("accuracy", "macro_f1", "mcc")
    of_sequences = True
    fewest = 2

    def classes(self, cell: str) -> list[str]:
        """The names of the classes in a cell."""
        return [cell]

    def learn_names(self, training: Rows) -> Iterable[str]:
        if self.several:
            return super().learn_names(training)
        labels = [label for cell in self.cells(training) for label in self.classes(cell)]
        names = self.names = _in_order(labels)
        column_has = f"{training.name}: column {self.columns[0]!r} has {len(names)} different"
        if len(names) < self.fewest:
            raise InputError(f"{column_has} labels; this task needs at least {self.fewest}")
        decimals = [name for name in names if re.fullmatch(r"-?[0-9]+[.,][0-9]+", name)]
        are_measured = 2 * len(decimals) > len(names) and 2 * len(names) > len(labels)
        if are_measured and len(names) >= _MANY_CLASSES:
            raise InputError(
                f"{column_has} numbers, such as {names[0]}, in {len(labels)} rows: they are not "
                "classes; use --task regression to predict numbers"
            )
        return () if self.of_bases else _odd_classes(labels)  # "-" may be a class of bases.

    def parse(self, cell: str, decimal_comma: bool) -> Any:
        if cell not in self._ids:
            raise ValueError(f"{cell!r} is not a label of the training: {some(self.names)}")
        return self._ids[cell]

    def activate(self, logits: Any) -> Any:
        return logits.float().softmax(dim=-1)

    def decide(self, values: Any) -> Any:
        return values.argmax(-1)


def _in_order(labels: Iterable[str]) -> list[str]:
    """The different labels, sorted: by value if all are numbers, else as text."""
    names = sorted({*labels} - {""})
    try:
        values = {name: float(name) for name in names}
    except ValueError:
        return names
    if not all(map(math.isfinite, values.values())):  # nan has no order.
        return names
    return sorted(names, key=values.__getitem__)


def _odd_classes(labels: Sequence[str]) -> Iterator[str]:
    """Warnings about suspicious classes of the training rows, a sentence each."""
    counts = Counter(labels)
    missing = sorted(name for name in counts if name.lower() in _MISSING)
    if missing:
        yield (
            f"{', '.join(missing)} ({sum(counts[name] for name in missing)} rows) is used as a "
            "class of its own: if it stands for a missing label, leave these rows out"
        )
    single = _in_order(name for name, count in counts.items() if count == 1)
    if single:
        yield f"classes with a single row: {some(single)}"


class MultiLabel(Classification):
    """Any number of classes for each sequence."""

    problem_type = "multi_label_classification"
    metrics = staticmethod(measures.multi_label_metrics)
    metric_names = ("exact_match", "macro_f1", "micro_f1")
    fewest = 1

    def __init__(self, options: Any):
        super().__init__(options)
        self.several = len(options.label_columns) > 1

    def classes(self, cell: str) -> list[str]:
        labels = map(str.strip, cell.split(self.options.label_separator))
        return [label for label in labels if label]

    def learn_names(self, training: Rows) -> Iterable[str]:
        warnings, separator = [*super().learn_names(training)], self.options.label_separator
        cells = [] if self.several else self.cells(training)
        counts = {sign: sum(sign in cell for cell in cells) for sign in (separator, *_SEPARATORS)}
        used = next((sign for sign, count in counts.items() if count), separator)
        if used != separator:
            warnings.append(
                f"no cell has the separator {separator!r}, but {counts[used]} have {used!r}: if "
                f"that separates labels, give --label-separator {used!r}"
            )
        return warnings

    def parse(self, cell: str, decimal_comma: bool) -> Any:
        if self.several:
            if cell not in ("0", "1"):
                raise ValueError(f"{cell!r} is neither 0 nor 1")
            return float(cell)
        ids = {super(MultiLabel, self).parse(label, False) for label in self.classes(cell)}
        return [float(index in ids) for index in range(len(self.names))]

    def activate(self, logits: Any) -> Any:
        return logits.float().sigmoid()

    def decide(self, values: Any) -> Any:
        return values > 0.5


class TokenClassification(Classification):
    """A class for each base; `<cls>` and `<eos>` have none."""

    model_name = "ErnieRnaForTokenClassification"
    problem_type = None
    of_sequences, of_bases, one_a_base = False, True, True
    no_label = "no base has a label other than {ignore_label!r}, which is ignored"

    def classes(self, cell: str) -> list[str]:
        return [label for label in _split_labels(cell) if label != self.options.ignore_label]

    def parse(self, cell: str, decimal_comma: bool) -> Any:
        ignored, parse = self.options.ignore_label, super().parse
        return [
            NO_LABEL if label == ignored else parse(label, decimal_comma)
            for label in _split_labels(cell)
        ]

    def cut(self, label: Any, bases: int) -> Any:
        return label[:bases]

    def unlabelled(self, rows: Rows) -> int:
        return sum({*label} == {NO_LABEL} for label in rows.labels)

    def encode(self, input_ids: list[int], label: Any) -> Example:
        return super().encode(input_ids, [NO_LABEL, *label, NO_LABEL])

    def known(self, examples: Sequence[Example]) -> np.ndarray:
        labels = np.concatenate([example["labels"] for example in examples])
        return labels[labels != NO_LABEL]


def _split_labels(cell: str) -> list[str]:
    """The labels of bases in a cell: words separated by blanks or commas, or single characters."""
    words = cell.replace(",", " ").split()
    return words if len(words) > 1 else list(cell)


class Regression(Task):
    """One or several numbers for each sequence."""

    problem_type: str | None = "regression"
    metrics = staticmethod(measures.regression_metrics)
    metric_names = ("r2", "spearman", "mse")
    several = True
    of_sequences, of_numbers = True, True

    def parse(self, cell: str, decimal_comma: bool) -> Any:
        value = parse_decimal(cell, decimal_comma)
        if not abs(value) <= _LARGEST:  # `>` would be False for nan.
            raise ValueError(
                f"{cell!r} is not finite, or too large: beyond {_LARGEST:g} its square overflows "
                "float32; choose another unit"
            )
        return value

    def start_head(self, model: Any, labels: Sequence[Any]) -> None:
        # Otherwise the bias would have to learn the mean of the labels first, which takes long.
        model.classifier.bias.data.copy_(model.classifier.bias.new_tensor(labels).mean(dim=0))


class RibosomeLoading(Regression):
    """Mean ribosome loading of 5' untranslated regions, in the units of the table.

    The scaler is that of the training rows, or the folder's if it has such a head already.
    """

    model_name = "ErnieRnaForRibosomeLoading"
    head = "loading_head"
    problem_type = None
    batch_norms = True
    several = False

    def start_head(self, model: Any, labels: Sequence[Any]) -> None:
        values = np.array(labels, dtype=np.float64)
        model.config.loading_mean = float(values.mean())
        model.config.loading_scale = float(values.std()) or 1.0


class MaskedLM(Task):
    """Masked nucleotides."""

    model_name = "ErnieRnaForMaskedLM"
    head = "lm_head"
    also_in = ("ErnieRnaForPreTraining",)
    adapted = ("lm_head.dense", "lm_head.layer_norm")  # The decoder is tied to the embedding.
    metrics = staticmethod(measures.masked_lm_metrics)
    metric_names = ("perplexity", "loss", "accuracy")
    no_label = "{mask_probability} of the nucleotides is less than one: raise --mask-probability"

    def unlabelled(self, rows: Rows) -> int:
        masked = self.options.mask_probability * sum(map(len, rows.sequences))
        return len(rows) if masked < 1 else 0

    def read_labels(self, rows: Rows) -> list[Any]:
        return [None] * len(rows)

    def encode(self, input_ids: list[int], label: Any) -> Example:
        return {"input_ids": input_ids}

    def collator(self, tokenizer: Any, config: Any) -> Any:
        from ernie_rna.training.collators import MaskingCollator

        options = self.options
        return MaskingCollator(tokenizer, config, options.mask_pairing, options.mask_probability)

    def config(self, before: Any, kept: bool) -> dict[str, Any]:
        return {}

    def reduce(self, logits: Any, labels: Any) -> Any:
        likelihoods = logits.float().log_softmax(dim=-1)
        at_labels = likelihoods.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        return logits.argmax(dim=-1), at_labels  # (batch, seq) each

    def guess(self, training: Sequence[Example], evaluation: Sequence[Example]) -> Metrics:
        splits = ([e["input_ids"][1:-1] for e in split] for split in (training, evaluation))
        return measures.frequency_guess(*splits)


class SecondaryStructure(Task):
    """Base pairs of each sequence.

    The loss covers every two bases that can pair (A-U, G-C, G-U) or pair in the known structure.
    Metrics are of the structures that `fold` predicts from the logits; the guess is ViennaRNA's.
    """

    model_name = "ErnieRnaForSecondaryStructure"
    head = "pair_head"
    also_in = ("ErnieRnaForPreTraining",)
    metric_names = ("f1", "precision", "recall")
    guess_name = "ViennaRNA"
    batch_norms, one_a_base = True, True
    no_label = "no two bases can pair (A-U, G-C or G-U)"

    def parse(self, cell: str, decimal_comma: bool) -> Any:
        return to_dot_bracket(from_dot_bracket(cell), len(cell))  # normalises the brackets

    def cut(self, label: Any, bases: int) -> Any:
        pairs = [pair for pair in from_dot_bracket(label) if pair[1] < bases]
        return to_dot_bracket(pairs, min(bases, len(label)))

    def unlabelled(self, rows: Rows) -> int:
        return sum(
            not any({*bases} <= {*sequence} for bases in ("AU", "GC", "GU")) and {*label} == {"."}
            for sequence, label in zip(rows.folded, rows.labels, strict=True)
        )

    def collator(self, tokenizer: Any, config: Any) -> Any:
        from ernie_rna.training.collators import PairCollator

        return PairCollator(tokenizer)

    def config(self, before: Any, kept: bool) -> dict[str, Any]:
        """Settings of the head: a folder's own are kept. A new head reads the scores of the
        attention head that the authors' does, or of all if the model has too few."""
        heads = [_AUTHORS_HEAD] if before.num_attention_heads > _AUTHORS_HEAD else None
        settings: dict[str, Any] = {} if kept else {"pair_heads": heads}
        if self.options.positive_weight is not None:
            settings["pair_positive_weight"] = self.options.positive_weight
        return settings

    def evaluate(self, trainer: Any, examples: Sequence[Example]) -> Metrics:
        if not trainer.is_world_process_zero():
            return {}
        from ernie_rna.structures.fold import fold

        known = _structures(examples)
        records = [FastaRecord(structure.id, structure.sequence) for structure in known]
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        results = fold(records, model, unknown="unk", long="full", progress=False)
        return _pair_scores([folded.structure for folded in results], known)

    def guess(self, training: Sequence[Example], evaluation: Sequence[Example]) -> Metrics:
        """The metrics of ViennaRNA's structures; empty if it is not installed."""
        if importlib.util.find_spec("RNA") is None:
            return {}
        from ernie_rna.structures.evaluation import mfe_structure

        known = _structures(evaluation)
        predicted = [mfe_structure(structure.sequence, structure.id) for structure in known]
        return _pair_scores(predicted, known)


def _structures(examples: Sequence[Example]) -> list[Structure]:
    return [
        Structure(str(number), example["sequence"], from_dot_bracket(example["labels"]))
        for number, example in enumerate(examples)
    ]


def _pair_scores(predicted: Sequence[Structure], known: Sequence[Structure]) -> Metrics:
    from ernie_rna.structures.evaluation import evaluate

    mean = evaluate(predicted, known).mean_exact
    return {"f1": mean.f1, "precision": mean.precision, "recall": mean.recall}


# The tasks by their names in the option `task`.
TASKS: Mapping[str, type[Task]] = {
    "classification": Classification,
    "multi-label": MultiLabel,
    "regression": Regression,
    "token-classification": TokenClassification,
    "masked-lm": MaskedLM,
    "structure": SecondaryStructure,
    "ribosome-loading": RibosomeLoading,
}
