"""What there is to fine-tune for: labels, the head, batches and metrics of each task.

`Task.config` is what a saved model says of its labels. Torch is imported where a model is.

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

from ernie_rna.sequences.fasta import FastaRecord, InputError
from ernie_rna.sequences.tables import parse_decimal
from ernie_rna.structures.formats.dot_bracket import from_dot_bracket, to_dot_bracket
from ernie_rna.structures.formats.structure import Structure
from ernie_rna.training import metrics as measures
from ernie_rna.training.metrics import NO_LABEL, Metrics
from ernie_rna.training.rows import Rows, some
from ernie_rna.training.splits import predict_by_kmers

Example = dict[str, Any]

_MISSING = frozenset(("na", "nan", "n/a", "none", "null", "#n/a", "?", "-"))
_SEPARATORS = ",;|/+ "
_LARGEST = 1e18  # its square is still a number of float32
_MANY_CLASSES = 10  # fewer are taken for classes, whatever their names
# The head of the scores that the authors read structures off, counted from 0.
_AUTHORS_HEAD = 5


class Task:
    """What the tasks have in common; each changes parts of it.

    Attributes:
        model_name: the class of the model.
        head: how the names of the weights begin that a pretrained folder lacks.
        also_in: other classes whose folders have the head.
        adapted: modules that are trained beside LoRA's updates.
        parse: what a cell says, if told of a decimal comma; ValueError if that is no label.
        metrics: from what is predicted and the labels.
        metric_names: keys of what `metrics` returns.
        guess_name: what `guess` is.
        batch_norms: whether the head has any.
        of_sequences, of_bases, of_numbers: what is predicted: something of each sequence or of
            its bases; numbers in their units, or classes.
        several: whether a label has a number for each of several columns.
        one_a_base: whether it must have the length of its sequence.
        names: of the labels, in the order of their ids.
        options: that say where the labels are, of fine-tuning or of predictions.
    """

    model_name = "ErnieRnaForSequenceClassification"
    head = "classifier"
    also_in: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ("classifier",)
    problem_type: str | None = None
    parse: Callable[[str, bool], Any]
    metrics: Callable[..., Metrics]
    metric_names: tuple[str, ...]
    guess_name = "guess"
    batch_norms = False
    of_sequences, of_bases, of_numbers = False, False, False
    several, one_a_base = False, False

    def __init__(self, options: Any):
        self.options = options
        self.names: list[str] = []

    # Cells of a table -> labels

    @property
    def columns(self) -> Sequence[str]:
        """The columns of labels; InputError if they are several where one is needed."""
        columns: Sequence[str] = self.options.label_columns
        if len(columns) != 1 and not self.several:
            raise InputError(f"one label column is needed; got {', '.join(columns)}")
        return columns

    def cells(self, rows: Rows) -> list[str]:
        return rows.column(self.columns[0], "--label-column")

    def learn_names(self, training: Rows) -> Iterable[str]:
        """Fix the names of the labels, which are those of training; return what looks odd."""
        self.names = list(self.columns) if self.several or self.of_numbers else []
        return ()

    def read_labels(self, rows: Rows) -> list[Any]:
        """A label for each row, as the model takes it."""
        parsed = [rows.parse(column, self.parse) for column in self.columns]
        labels = [list(row) for row in zip(*parsed, strict=True)] if self.several else parsed[0]
        for line, sequence, own in zip(rows.lines, rows.sequences, labels, strict=True):
            if self.one_a_base and len(own) != len(sequence):
                problem = f"{len(own)} labels for {len(sequence)} bases"
                raise InputError.at(rows.name, line, problem)
        return labels

    # Labels -> a model, and what it is trained on

    def encode(self, input_ids: list[int], label: Any) -> Example:
        return {"input_ids": input_ids, "labels": label}

    def collator(self, tokenizer: Any, config: Any) -> Any:
        from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding

        kind: Any = DataCollatorForTokenClassification if self.of_bases else DataCollatorWithPadding
        return kind(tokenizer)

    def config(self, before: Any, kept: bool) -> dict[str, Any]:
        """What the saved config.json says of the labels, all that a prediction needs.

        `architectures` names the class of the model. id2label has the classes, or the columns of
        several labels or of numbers, by their ids. problem_type of whole sequences is
        single_label_classification, multi_label_classification (logits above 0 are labels that
        are there) or regression (logits are numbers in the units of the table); classes of bases
        and ribosome loading (`loading_mean` + `loading_scale` * logits) have none. The logits of
        structures are above 0 for pairs; `pair_calibration` is None, since no line was fitted.

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
        """Set a new head to where training should begin."""

    # A model -> what it predicts, and how good that is

    def values(self, output: Any) -> Any:
        """Probabilities, or numbers in their units, of what the model returns."""
        own = output.predictions[:, None] if "predictions" in output else output.logits
        return self.activate(own)

    def activate(self, logits: Any) -> Any:
        """The same of its logits."""
        return logits.float()

    def decide(self, values: Any) -> Any:
        """What is predicted by them."""
        return values

    def reduce(self, logits: Any, labels: Any) -> Any:
        """What of a batch's logits the metrics need."""
        return self.decide(self.activate(logits))

    def evaluate(self, trainer: Any, examples: Sequence[Example]) -> Metrics:
        """The metrics of a trained model; of several processes, all call this."""
        outputs = trainer.predict(list(examples))
        return self.metrics(outputs.predictions, outputs.label_ids)

    def guess(self, training: Sequence[Example], evaluation: Sequence[Example]) -> Metrics:
        """The metrics of the best guess that never looks at the sequence; empty without any."""
        train, test = self.known(training), self.known(evaluation)
        guess = measures.simplest_guess(train, len(test), self.of_numbers)
        return self.metrics(guess.reshape(test.shape), test)

    def by_kmers(self, training: Sequence[Example], evaluation: Sequence[Example]) -> Metrics:
        """The metrics of a regression on counts of k-mers; empty but for labels of sequences."""
        if not self.of_sequences or self.options.baseline != "kmer":
            return {}
        train, test = self.known(training), self.known(evaluation)
        texts = ([one["sequence"] for one in split] for split in (training, evaluation))
        predicted = predict_by_kmers(next(texts), train, next(texts), self.of_numbers)
        return self.metrics(predicted.reshape(test.shape), test)

    def known(self, examples: Sequence[Example]) -> np.ndarray:
        """The labels of examples as an array."""
        return np.array([example["labels"] for example in examples])


class Classification(Task):
    """One class for each sequence; in other tasks, several or those of its bases.

    Attributes:
        fewest: classes that the training must have.
    """

    problem_type: str | None = "single_label_classification"
    metrics = staticmethod(measures.classification_metrics)
    metric_names = ("accuracy", "macro_f1", "mcc")
    of_sequences = True
    fewest = 2

    def classes(self, cell: str) -> list[str]:
        """The names in a cell."""
        return [cell]

    def learn_names(self, training: Rows) -> Iterable[str]:
        if self.several:
            return super().learn_names(training)
        held = [one for cell in self.cells(training) for one in self.classes(cell)]
        names = self.names = _in_order(held)
        found = f"{training.name}: column {self.columns[0]!r} has {len(names)} different"
        if len(names) < self.fewest:
            raise InputError(f"{found} labels; this task needs at least {self.fewest}")
        decimals = [name for name in names if re.fullmatch(r"-?[0-9]+[.,][0-9]+", name)]
        measured = 2 * len(decimals) > len(names) and 2 * len(names) > len(held)
        if measured and len(names) >= _MANY_CLASSES:
            raise InputError(
                f"{found} numbers, such as {names[0]}, in {len(held)} rows: those are no classes; "
                "--task regression predicts numbers"
            )
        return () if self.of_bases else _odd_classes(held)  # of which - may be one

    def parse(self, cell: str, decimal_comma: bool) -> Any:
        if cell not in self._ids:
            raise ValueError(f"{cell!r} is not a label of the training: {some(self.names)}")
        return self._ids[cell]

    def activate(self, logits: Any) -> Any:
        return logits.float().softmax(dim=-1)

    def decide(self, values: Any) -> Any:
        return values.argmax(-1)


def _in_order(labels: Iterable[str]) -> list[str]:
    """The different labels, in order: numbers by value, other names by letters."""
    names = sorted({*labels} - {""})
    try:
        values = {name: float(name) for name in names}
    except ValueError:
        return names
    # nan has no place among numbers.
    finite = all(map(math.isfinite, values.values()))
    return sorted(names, key=values.__getitem__) if finite else names


def _odd_classes(labels: Sequence[str]) -> Iterator[str]:
    """What looks wrong with the classes of the training rows, a sentence each."""
    counts = Counter(labels)
    missing = sorted(name for name in counts if name.lower() in _MISSING)
    if missing:
        yield (
            f"{', '.join(missing)} ({sum(counts[name] for name in missing)} rows) is taken for a "
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
        odd, separator = [*super().learn_names(training)], self.options.label_separator
        cells = [] if self.several else self.cells(training)
        counts = {one: sum(one in cell for cell in cells) for one in (separator, *_SEPARATORS)}
        other = next((one for one, count in counts.items() if count), separator)
        if other != separator:
            odd.append(
                f"no cell has the separator {separator!r}, but {counts[other]} have {other!r}: if "
                f"that separates labels, give --label-separator {other!r}"
            )
        return odd

    def parse(self, cell: str, decimal_comma: bool) -> Any:
        if not self.several:
            held = {super(MultiLabel, self).parse(one, False) for one in self.classes(cell)}
            return [float(index in held) for index in range(len(self.names))]
        if cell not in ("0", "1"):
            raise ValueError(f"{cell!r} is neither 0 nor 1")
        return float(cell)

    def activate(self, logits: Any) -> Any:
        return logits.float().sigmoid()

    def decide(self, values: Any) -> Any:
        return values > 0.5


class TokenClassification(Classification):
    """A class for each base; `<cls>` and `<eos>` have none."""

    model_name = "ErnieRnaForTokenClassification"
    problem_type = None
    of_sequences, of_bases, one_a_base = False, True, True

    def classes(self, cell: str) -> list[str]:
        return [one for one in _of_bases(cell) if one != self.options.ignore_label]

    def parse(self, cell: str, decimal_comma: bool) -> Any:
        ignored, parse = self.options.ignore_label, super().parse
        return [
            NO_LABEL if label == ignored else parse(label, decimal_comma)
            for label in _of_bases(cell)
        ]

    def encode(self, input_ids: list[int], label: Any) -> Example:
        bases = len(input_ids) - 2  # fewer than labels if the sequence was cut
        return super().encode(input_ids, [NO_LABEL, *label[:bases], NO_LABEL])

    def known(self, examples: Sequence[Example]) -> np.ndarray:
        labels = np.concatenate([example["labels"] for example in examples])
        return labels[labels != NO_LABEL]


def _of_bases(cell: str) -> list[str]:
    """The labels of the bases: words divided by blanks or commas, else a letter each."""
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
        if not abs(value) <= _LARGEST:  # nan is none of both
            raise ValueError(
                f"{cell!r} is not finite, or too large: beyond {_LARGEST:g} its square overflows "
                "float32; choose another unit"
            )
        return value

    def start_head(self, model: Any, labels: Sequence[Any]) -> None:
        # The mean of the labels would else be the first thing, and for long the only one, that
        # the bias has to learn.
        model.classifier.bias.data.copy_(model.classifier.bias.new_tensor(labels).mean(dim=0))


class RibosomeLoading(Regression):
    """Mean ribosome loading of 5' untranslated regions, in its own units.

    The scaler is that of the training rows, unless the folder has such a head already.
    """

    model_name = "ErnieRnaForRibosomeLoading"
    head = "loading_head"
    adapted = ("loading_head",)
    problem_type = None
    batch_norms = True
    several = False

    def start_head(self, model: Any, labels: Sequence[Any]) -> None:
        values = np.array(labels, dtype=np.float64)
        model.config.loading_mean = float(values.mean())
        model.config.loading_scale = float(values.std()) or 1.0


class MaskedLM(Task):
    """The nucleotides themselves, masked."""

    model_name = "ErnieRnaForMaskedLM"
    head = "lm_head"
    also_in = ("ErnieRnaForPreTraining",)
    adapted = ("lm_head.dense", "lm_head.layer_norm")  # The decoder is tied to the embedding.
    metrics = staticmethod(measures.masked_lm_metrics)
    metric_names = ("perplexity", "loss", "accuracy")

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
        splits = ([one["input_ids"][1:-1] for one in split] for split in (training, evaluation))
        return measures.frequency_guess(*splits)


class SecondaryStructure(Task):
    """Which bases pair.

    Trained on every two bases that can pair (A-U, G-C, G-U) or are known to. Measured by the F1
    of the structures that `fold` reads off the logits, beside ViennaRNA's where that is installed.
    """

    model_name = "ErnieRnaForSecondaryStructure"
    head = "pair_head"
    also_in = ("ErnieRnaForPreTraining",)
    adapted = ("pair_head",)
    metric_names = ("f1", "precision", "recall")
    guess_name = "ViennaRNA"
    batch_norms, one_a_base = True, True

    def parse(self, cell: str, decimal_comma: bool) -> Any:
        return to_dot_bracket(from_dot_bracket(cell), len(cell))  # one way of writing it

    def encode(self, input_ids: list[int], label: str) -> Example:
        bases = len(input_ids) - 2  # fewer than in the label if the sequence was cut
        pairs = [pair for pair in from_dot_bracket(label) if pair[1] < bases]
        return super().encode(input_ids, to_dot_bracket(pairs, bases))

    def collator(self, tokenizer: Any, config: Any) -> Any:
        from ernie_rna.training.collators import PairCollator

        return PairCollator(tokenizer)

    def config(self, before: Any, kept: bool) -> dict[str, Any]:
        """The settings of a folder's own head are kept; a new one is like the authors', or reads
        all heads of a model that has not theirs."""
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
        records = [FastaRecord(one.id, one.sequence) for one in known]
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        results = fold(records, model, unknown="unk", long="full", progress=False)
        return _pair_scores([folded.structure for folded in results], known)

    def guess(self, training: Sequence[Example], evaluation: Sequence[Example]) -> Metrics:
        """ViennaRNA's structures; nothing where it is not installed."""
        if importlib.util.find_spec("RNA") is None:
            return {}
        from ernie_rna.structures.evaluation import mfe_structure

        known = _structures(evaluation)
        return _pair_scores([mfe_structure(one.sequence, one.id) for one in known], known)


def _structures(examples: Sequence[Example]) -> list[Structure]:
    return [
        Structure(str(number), example["sequence"], from_dot_bracket(example["labels"]))
        for number, example in enumerate(examples)
    ]


def _pair_scores(predicted: Sequence[Structure], known: Sequence[Structure]) -> Metrics:
    from ernie_rna.structures.evaluation import evaluate

    mean = evaluate(predicted, known).mean_exact
    return {"f1": mean.f1, "precision": mean.precision, "recall": mean.recall}


# By the values of the option `task`.
TASKS: Mapping[str, type[Task]] = {
    "classification": Classification,
    "multi-label": MultiLabel,
    "regression": Regression,
    "token-classification": TokenClassification,
    "masked-lm": MaskedLM,
    "structure": SecondaryStructure,
    "ribosome-loading": RibosomeLoading,
}
