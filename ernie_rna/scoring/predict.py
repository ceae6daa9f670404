"""Predictions of a fine-tuned model for sequences or for their bases.

>>> for prediction in predict(["GGAGACUUCAGGCAUC"], "folder-or-hub-id"):  # doctest: +SKIP
...     print(prediction.id, prediction.predicted, prediction.values)
"""

from __future__ import annotations

import sys
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from ernie_rna.embeddings import formats
from ernie_rna.options import OptionError, PredictOptions, takes
from ernie_rna.run.outputs import STANDARD_OUTPUT, check_output_files, output_path, refuse_inputs
from ernie_rna.run.parts import Part, Results
from ernie_rna.run.runner import Output, RunSummary, Task, Written, iterate, run, text_output
from ernie_rna.sequences.chunks import Piece, Plan, resolve_batch_tokens
from ernie_rna.sequences.fasta import FastaRecord, FilePath, InputError, uncompressed
from ernie_rna.sequences.sources import Sequences, Source, Survey
from ernie_rna.sequences.tables import TABLES, format_row
from ernie_rna.training.rows import Rows, read_file
from ernie_rna.training.tasks import TASKS

_TASKS = [name for name, task in TASKS.items() if task.of_sequences or task.of_bases]
# The only task to which an option applies.
_APPLIES_TO = {"ignore_label": "token-classification", "label_separator": "multi-label"}
# The commands that run models with other heads.
_COMMANDS = {"ErnieRnaForSecondaryStructure": "fold", "ErnieRnaForCloseness": "closeness"}


@dataclass(frozen=True)
class Prediction:
    """The prediction for a sequence.

    Attributes:
        id: id of the sequence; for a row of a table its line, such as "line 2".
        sequence: in upper case with U for T, unless `keep_letters` is set.
        task: the task of the model, a value of `ernie-rna finetune --task`.
        names: names of the classes, labels or numbers.
        values: probabilities, or numbers in their units: (names,), or for bases (length, names).
    """

    id: str
    sequence: str
    task: str
    names: tuple[str, ...]
    values: np.ndarray

    @property
    def predicted(self) -> Any:
        """A class; a list of labels, or of the classes of the bases; or a dict of numbers."""
        if self.task == "multi-label":
            return [self.names[id] for id in np.flatnonzero(self.values > 0.5)]
        if TASKS[self.task].of_numbers:
            return dict(zip(self.names, self.values.tolist(), strict=True))
        ids = self.values.argmax(axis=-1).tolist()
        return self.names[ids] if isinstance(ids, int) else [self.names[id] for id in ids]


@takes(PredictOptions)
def predict(
    sequences: Sequences, model: Any, output: FilePath | None = None, *, options: PredictOptions
) -> Iterator[Prediction] | RunSummary:
    """Predict classes, labels or numbers with a fine-tuned model, in input order.

    Runs are resumed and shared as by `embed.embed`. Predictions do not depend on the batches.

    Args:
        sequences: as for `embed.embed`; or the path of a table, .csv or .tsv.
        model: folder, Hub id or a model, with a head for sequences or for bases.
        output: a .tsv or .csv file, or "-" for standard output, with a row for each sequence or
            base, which keeps the columns of an input table (for bases, all but sequences and
            labels); or a file of arrays (see `embeddings.formats`) with the column probabilities
            or numbers (for bases, token_probabilities). If None, predictions are yielded.

    Returns:
        Predictions; or the summary of a run, with metrics if there is a column of labels.

    Raises:
        ValueError: the model has no such head.
        InputError: a row or a label is invalid.
        And as `embed.embed`.
    """
    table, target = None, None if output is None else output_path(output)
    path = sequences if isinstance(sequences, (str, PathLike)) else ""
    if target is not None:
        refuse_inputs([target], [sequences])
    if uncompressed(path).suffix.lower() in TABLES:
        table = read_file(fspath(path), options.sequence_column, options.unknown, options.degap)
        texts = table.sequences if options.keep_letters else table.folded
        rows = zip(table.lines, texts, strict=True)
        records = [FastaRecord(f"line {line}", text) for line, text in rows]
        sequences = Source(lambda: iter(records))
    if table is None and options.is_given("sequence_column"):
        raise OptionError("sequence_column", f"needs a table ({', '.join(TABLES)})")
    if options.label_columns and (table is None or target is None):
        raise OptionError("label_column", "needs a table of sequences, and an output")
    task = PredictTask(options, table)
    if target is None:
        return iterate(task, sequences, model)
    # `run` checks whether the file may be replaced, since it knows of unfinished runs.
    check_output_files([target], force=True, extensions=(*TABLES, *formats.EXTENSIONS))
    if Path(target).suffix.lower() in formats.EXTENSIONS:
        formats.check_format(target)
        return run(task, sequences, model, [Output(target)])
    return run(task, sequences, model, [text_output(target, task.header, task.lines)])


class PredictTask(Task[Prediction]):
    """Predictions by the head of a model; `table` has the sequences if they are from a table."""

    name = "predictions"
    options: PredictOptions

    def __init__(self, options: PredictOptions, table: Rows | None):
        super().__init__(options)
        self._table = table
        self._rows = iter(() if table is None else table.cells)  # consumed by `lines`
        self._written: list[np.ndarray] = []  # values of the output, for `metrics`

    def load(self, source: Any) -> None:
        from ernie_rna.model import modeling_ernie_rna as models
        from ernie_rna.run.loading import load, read_config

        options = self.options
        config: Any = read_config(source, options.revision)
        self._task_name = _find_task(source, config)
        self._check_options()
        self._task = task = TASKS[self._task_name](options)
        self._names = tuple(config.id2label[id] for id in range(config.num_labels))
        if self._task_name == "ribosome-loading" and len(self._names) > 1:  # the authors' model
            self._names = ("mrl",)
        task.names = list(self._names)
        # `_array` names the values in the store and in files of arrays.
        if task.of_numbers:
            self._array = "numbers"
            self._new_columns = [f"predicted_{name}" for name in self._names]
        else:
            self._array = "token_probabilities" if task.of_bases else "probabilities"
            place = ["position", "base"] if task.of_bases else []
            self._new_columns = [*place, "predicted", *(f"p_{name}" for name in self._names)]
        self._kept_columns = self._find_kept_columns()
        self._labels = self._read_labels() if options.label_columns else None
        model_class = getattr(models, task.model_name)
        self.model = load(model_class, source, config=config, **options.loading)
        tokens = resolve_batch_tokens(options.batch_tokens, self.model.device)
        self.plan = Plan(tokens, config.hidden_size)

    def _check_options(self) -> None:
        """Raise OptionError for an option that does not apply to the task of the model."""
        options, task = self.options, self._task_name
        for name, applies_to in _APPLIES_TO.items():
            if options.is_given(name) and task != applies_to:
                raise OptionError(name, f"applies to {applies_to}; the task of the model is {task}")
        if options.ignore_label is not None and not options.label_columns:
            raise OptionError("ignore_label", "has no effect without --label-column")

    def compute(self, records: list[FastaRecord], pieces: list[Piece]) -> Iterator[Prediction]:
        from ernie_rna.run.attention_scores import run_head
        from ernie_rna.run.loading import not_finite, tokenize

        batch = tokenize([record.sequence for record in records], self.model.device)
        output = run_head(self.model, *batch, self.options.pairing_scores)
        for record, values in zip(records, self._task.values(output).cpu().numpy(), strict=True):
            if self._task.of_bases:
                values = values[1 : 1 + len(record.sequence)]  # without <cls>, <eos> and padding
            if not np.isfinite(values).all():
                raise not_finite(f"{record.id}: the prediction", self.model)
            yield Prediction(record.id, record.sequence, self._task_name, self._names, values)

    def pack(self, results: list[Prediction]) -> Results:
        name = self._array
        rows = [formats.Embedding(r.id, len(r.sequence), {name: r.values}) for r in results]
        return {**formats.pack(rows), "sequences": [result.sequence for result in results]}

    def unpack(self, part: Part) -> Iterator[Prediction]:
        rows = zip(formats.read_embeddings(part.path), part.texts("sequences"), strict=True)
        for row, sequence in rows:
            values = row.arrays[self._array]
            yield Prediction(row.id, sequence, self._task_name, self._names, values)

    def existing(self, outputs: Sequence[Output[Prediction]]) -> list[Path]:
        # A file of arrays also replaces the index and the shards of an output of `embed`.
        paths = [Path(output.path) for output in outputs if output.path != STANDARD_OUTPUT]
        return [file for path in paths for file in formats.existing_files(path)]

    def assemble(
        self, parts: list[Part], outputs: Sequence[Output[Prediction]], metadata: dict[str, Any]
    ) -> Written:
        if outputs[0].open is not None:
            return super().assemble(parts, outputs, metadata)
        if self._labels is not None:
            self._written = [part.get(self._array) for part in parts]
        return formats.write_parts(parts, Path(outputs[0].path), metadata, sys.maxsize), []

    def metrics(self) -> dict[str, float]:
        """The task's metrics of the predictions written; empty if there are no labels."""
        if self._labels is None or not self._written:
            return {}
        values = np.concatenate([np.atleast_2d(array) for array in self._written])
        return self._task.metrics(self._task.decide(values), self._labels)

    def metadata(self, found: Survey, given: Any) -> dict[str, Any]:
        about = super().metadata(found, given)
        return {"columns": [self._array], "names": self._names, "task": self._task_name, **about}

    def describe_settings(self) -> dict[str, Any]:
        return {
            "pairing_scores": self.options.pairing_scores or self.model.config.pairing_scores,
            # An output is kept with its metrics, which depend on the labels.
            "labels": None if self._labels is None else zlib.crc32(self._labels.tobytes()),
        }

    def header(self) -> str:
        """The header of a table of predictions."""
        return format_row(*self._kept_columns, *self._new_columns)

    def lines(self, prediction: Prediction) -> Iterator[str]:
        """The lines of a sequence; seven digits distinguish neighbouring float32 numbers."""
        if self._labels is not None:
            self._written.append(prediction.values)
        sequence, values = prediction.sequence, prediction.values.tolist()
        row = next(self._rows, {"id": prediction.id, "length": str(len(sequence))})
        kept = [row.get(name, prediction.id) for name in self._kept_columns]
        if self._task.of_bases:
            rows: Iterable[Any] = zip(
                count(1), sequence, prediction.predicted, values, strict=False
            )
        elif self._task.of_numbers:
            rows = [(values,)]
        elif self._task_name == "multi-label":
            rows = [(self.options.label_separator.join(prediction.predicted), values)]
        else:
            rows = [(prediction.predicted, values)]
        for *texts, numbers in rows:
            yield format_row(*kept, *texts, *map("{:.7g}".format, numbers))

    def _find_kept_columns(self) -> list[str]:
        """The columns before the new ones; InputError if two would have the same name."""
        options, of_bases = self.options, self._task.of_bases
        if self._table is None:
            return ["id"] if of_bases else ["id", "length"]
        left_out = [options.sequence_column, *options.label_columns] if of_bases else []
        kept = [name for name in self._table.cells[0] if name not in left_out]
        twice = sorted({*kept} & {*self._new_columns})
        if twice:
            problem = f"the output also has a column {twice[0]!r}: rename that of the table"
            raise InputError(f"{self._table.name}: {problem}")
        return kept or ["id"]  # such as "line 2", if there is no other column to keep

    def _read_labels(self) -> np.ndarray:
        """The labels of the table, read as in fine-tuning; InputError for one the model lacks."""
        columns, names = self.options.label_columns, self._names
        several = self._task.of_numbers or self._task.several
        if len(columns) != (len(names) if several else 1):
            expected = f"{len(names)} ({', '.join(names)})" if several else "1"
            raise OptionError("label_column", f"must name {expected}; got {', '.join(columns)}")
        if several and {*columns} == {*names}:  # They may be in any order.
            self._task.options = replace(self.options, label_column=names)
        elif several and any(a != b and a in names for a, b in zip(columns, names, strict=True)):
            raise OptionError(
                "label_column",
                f"must be in the order of the model's {', '.join(names)}; got {', '.join(columns)}",
            )
        assert self._table is not None
        labels = self._task.read_labels(self._table)
        return np.concatenate(labels) if self._task.of_bases else np.array(labels)


def _find_task(source: Any, config: Any) -> str:
    """The name of the task that a model was fine-tuned for; ValueError if it has no such head."""
    from ernie_rna.run.loading import has_head, name_and_kind

    possible = [name for name in _TASKS if has_head(source, config, TASKS[name].model_name)]
    if not possible:
        name, kind = name_and_kind(source, config)
        command = _COMMANDS.get(kind)
        way_out = f"`ernie-rna {command}` runs it" if command else "`ernie-rna finetune` trains one"
        problem = f"has no head for labels of sequences or of bases: it is {kind}"
        raise ValueError(f"{name} {problem}; {way_out}")
    of_type = [name for name in possible if TASKS[name].problem_type == config.problem_type]
    if of_type or len(possible) == 1:
        return (of_type or possible)[0]
    task = "regression" if config.num_labels == 1 else "classification"
    warnings.warn(f"config.json has no problem_type: the model is run as {task}", stacklevel=2)
    return task
