"""Predictions of sequences or of their bases by a fine-tuned model.

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
from ernie_rna.run.outputs import check_output_files
from ernie_rna.run.parts import Part, Results
from ernie_rna.run.runner import Output, RunSummary, Task, Written, iterate, run, text_output
from ernie_rna.sequences.chunks import Piece, Plan, resolve_batch_tokens
from ernie_rna.sequences.fasta import FastaRecord, FilePath, InputError, uncompressed
from ernie_rna.sequences.sources import Sequences, Source, Survey
from ernie_rna.sequences.tables import TABLES, format_row
from ernie_rna.training.rows import Rows, read_file
from ernie_rna.training.tasks import TASKS

_TASKS = [name for name, task in TASKS.items() if task.of_sequences or task.of_bases]
_OTHERS = {"ErnieRnaForSecondaryStructure": "fold", "ErnieRnaForCloseness": "closeness"}


@dataclass(frozen=True)
class Prediction:
    """What is predicted of a sequence.

    Attributes:
        id: of the sequence; of a table the line of its row, as "line 2".
        sequence: as given.
        task: what the model was fine-tuned for, as `ernie-rna finetune --task` has it.
        names: of the classes, or of the numbers.
        values: (names,), or of bases (length, names): probabilities, or numbers in their units.
    """

    id: str
    sequence: str
    task: str
    names: tuple[str, ...]
    values: np.ndarray

    @property
    def predicted(self) -> Any:
        """A class; a list of labels, or of the classes of the bases; or numbers by their names."""
        if self.task == "multi-label":
            return [self.names[place] for place in np.flatnonzero(self.values > 0.5)]
        if TASKS[self.task].of_numbers:
            return dict(zip(self.names, self.values.tolist(), strict=True))
        places = self.values.argmax(axis=-1).tolist()
        return self.names[places] if isinstance(places, int) else [self.names[i] for i in places]


@takes(PredictOptions)
def predict(
    sequences: Sequences, model: Any, output: FilePath | None = None, *, options: PredictOptions
) -> Iterator[Prediction] | RunSummary:
    """Predict classes, labels or numbers by a fine-tuned model, in input order.

    Resuming and sharing are those of `embed.embed`. A batch gives what each sequence gives alone.

    Args:
        sequences: as for `embed.embed`; or the path of a table, .csv or .tsv.
        model: folder, Hub id or a model, with a head of sequences or of bases.
        output: .tsv or .csv, or "-" for standard output, with a row a sequence or a base, in which
            the columns of a table are kept (for bases, all but sequences and labels); or a file
            of arrays as `embeddings.formats` has them, of probabilities or numbers (for bases,
            token_probabilities). None yields.

    Returns:
        Predictions; or the summary of a run, with metrics if there is a column of labels.

    Raises:
        ValueError: also for a model without such a head.
        InputError: also for a row or a label that is unfit.
        And as `embed.embed`.
    """
    table = None
    path = sequences if isinstance(sequences, (str, PathLike)) else ""
    if uncompressed(path).suffix.lower() in TABLES:
        table = read_file(fspath(path), options.sequence_column, options.unknown, options.degap)
        texts = table.sequences if options.keep_letters else table.folded
        named = zip(table.lines, texts, strict=True)
        records = [FastaRecord(f"line {line}", text) for line, text in named]
        sequences = Source(lambda: iter(records))
    if options.label_columns and (table is None or output is None):
        raise OptionError("label_column", "needs a table of sequences, and an output")
    task = PredictTask(options, table)
    if output is None:
        return iterate(task, sequences, model)
    path = fspath(output)
    # Whether the file may be replaced is for `run` to see, which knows of unfinished runs.
    check_output_files([path], force=True, extensions=(*TABLES, *formats.EXTENSIONS))
    place = text_output(path, task.header, task.lines)
    if Path(path).suffix.lower() in formats.EXTENSIONS:
        formats.check_format(path)
        place = Output(path)
    return run(task, sequences, model, [place])


class PredictTask(Task[Prediction]):
    """What the head of a model gives; `table` is where sequences come from, if from one."""

    name = "predictions"
    options: PredictOptions

    def __init__(self, options: PredictOptions, table: Rows | None):
        super().__init__(options)
        self._table = table
        self._rows = iter(() if table is None else table.cells)  # gone through as it is written
        self._written: list[np.ndarray] = []

    def load(self, source: Any) -> None:
        from ernie_rna.model import modeling_ernie_rna as models
        from ernie_rna.run.loading import load, read_config

        options = self.options
        config: Any = read_config(source, options.revision)
        self._task = _find_task(source, config)
        self._trained = trained = TASKS[self._task](options)
        self._names = tuple(config.id2label[place] for place in range(config.num_labels))
        if self._task == "ribosome-loading" and len(self._names) > 1:  # the authors' model
            self._names = ("mrl",)
        trained.names = list(self._names)
        kind = "numbers" if trained.of_numbers else "probabilities"
        # The values in the store, and in files of arrays.
        self._column = "token_" * trained.of_bases + kind
        own = [f"{'predicted' if trained.of_numbers else 'p'}_{name}" for name in self._names]
        where = ["position", "base"] * trained.of_bases
        self._own = own if trained.of_numbers else [*where, "predicted", *own]
        self._kept = self._kept_columns()
        self._labels = self._read_labels() if options.label_columns else None
        model_class = getattr(models, trained.model_name)
        self.model = load(model_class, source, config=config, **options.loading)
        tokens = resolve_batch_tokens(options.batch_tokens, self.model.device)
        self.plan = Plan(tokens, config.hidden_size)

    def compute(self, records: list[FastaRecord], pieces: list[Piece]) -> Iterator[Prediction]:
        from ernie_rna.run.attention_scores import run_head
        from ernie_rna.run.loading import not_finite, tokenize

        batch = tokenize([record.sequence for record in records], self.model.device)
        output = run_head(self.model, *batch, self.options.pairing_scores)
        values = self._trained.values(output).cpu().numpy()
        for record, own in zip(records, values, strict=True):
            if self._trained.of_bases:
                own = own[1 : 1 + len(record.sequence)]
            if not np.isfinite(own).all():
                raise not_finite(f"{record.id}: what is predicted", self.model)
            yield Prediction(record.id, record.sequence, self._task, self._names, own)

    def pack(self, results: list[Prediction]) -> Results:
        column = self._column
        rows = [formats.Embedding(r.id, len(r.sequence), {column: r.values}) for r in results]
        return {**formats.pack(rows), "sequences": [one.sequence for one in results]}

    def unpack(self, part: Part) -> Iterator[Prediction]:
        rows = zip(formats.read_embeddings(part.path), part.texts("sequences"), strict=True)
        for one, sequence in rows:
            values = one.arrays[self._column]
            yield Prediction(one.id, sequence, self._task, self._names, values)

    def assemble(
        self, parts: list[Part], outputs: Sequence[Output[Prediction]], metadata: dict[str, Any]
    ) -> Written:
        if outputs[0].open is not None:
            return super().assemble(parts, outputs, metadata)
        self._written = [part.get(self._column) for part in parts if self._labels is not None]
        return formats.write_parts(parts, Path(outputs[0].path), metadata, sys.maxsize), []

    def metrics(self) -> dict[str, float]:
        """How well what was written agrees with the labels, by name; empty without any."""
        if self._labels is None or not self._written:
            return {}
        values = np.concatenate([np.atleast_2d(one) for one in self._written])
        return self._trained.metrics(self._trained.decide(values), self._labels)

    def metadata(self, found: Survey, given: Any) -> dict[str, Any]:
        about = super().metadata(found, given)
        return {"columns": [self._column], "names": self._names, "task": self._task, **about}

    def describe_settings(self) -> dict[str, Any]:
        return {
            "pairing_scores": self.options.pairing_scores or self.model.config.pairing_scores,
            # Metrics are kept with an output.
            "labels": None if self._labels is None else zlib.crc32(self._labels.tobytes()),
        }

    def header(self) -> str:
        """The header of a table of predictions."""
        return format_row(*self._kept, *self._own)

    def lines(self, one: Prediction) -> Iterator[str]:
        """The lines below the header; seven digits tell one float32 from the next."""
        if self._labels is not None:
            self._written.append(one.values)
        row = next(self._rows, {"id": one.id, "length": str(len(one.sequence))})
        kept = [row.get(name, one.id) for name in self._kept]
        predicted, values = one.predicted, one.values.tolist()
        if self._trained.of_bases:
            rows: Iterable[Any] = zip(count(1), one.sequence, predicted, values, strict=False)
        elif self._trained.of_numbers:
            rows = [(values,)]
        elif self._task == "multi-label":
            rows = [(self.options.label_separator.join(predicted), values)]
        else:
            rows = [(predicted, values)]
        for *own, numbers in rows:
            yield format_row(*kept, *own, *map("{:.7g}".format, numbers))

    def _kept_columns(self) -> list[str]:
        """The columns before those of our own; InputError where both have one name."""
        options, of_bases = self.options, self._trained.of_bases
        if self._table is None:
            return ["id"] if of_bases else ["id", "length"]
        left_out = [options.sequence_column, *options.label_columns] * of_bases
        kept = [name for name in self._table.cells[0] if name not in left_out]
        twice = sorted({*kept} & {*self._own})
        if twice:
            raise InputError(
                f"{self._table.name}: the output has a column {twice[0]!r} of its own: rename it"
            )
        return kept or ["id"]  # "line 2", if a table has nothing else of a sequence

    def _read_labels(self) -> np.ndarray:
        """The labels of the table, read as in fine-tuning: InputError names the line of one that
        the model cannot predict."""
        columns, names = self.options.label_columns, self._names
        several = self._trained.of_numbers or self._trained.several
        if len(columns) != (len(names) if several else 1):
            due = f"{len(names)} ({', '.join(names)})" if several else "1"
            raise OptionError("label_column", f"must name {due}; got {', '.join(columns)}")
        if several and {*columns} == {*names}:  # in any order
            self._trained.options = replace(self.options, label_column=names)
        elif several and any(a != b and a in names for a, b in zip(columns, names, strict=True)):
            raise OptionError(
                "label_column",
                f"must be in the order of the model's {', '.join(names)}; got {', '.join(columns)}",
            )
        assert self._table is not None
        labels = self._trained.read_labels(self._table)
        return np.concatenate(labels) if self._trained.of_bases else np.array(labels)


def _find_task(source: Any, config: Any) -> str:
    """What a model was fine-tuned for; ValueError where it has no such head."""
    from ernie_rna.run.loading import has_head, name_and_kind

    fitting = [name for name in _TASKS if has_head(source, config, TASKS[name].model_name)]
    if not fitting:
        name, kind = name_and_kind(source, config)
        raise ValueError(
            f"{name} has no head for labels of sequences or of bases: it is {kind}; `ernie-rna "
            f"{_OTHERS.get(kind, 'finetune')}` {'runs it' if kind in _OTHERS else 'trains one'}"
        )
    of_type = [name for name in fitting if TASKS[name].problem_type == config.problem_type]
    if of_type or len(fitting) == 1:
        return (of_type or fitting)[0]
    task = "regression" if config.num_labels == 1 else "classification"
    warnings.warn(f"config.json has no problem_type: it is taken for {task}", stacklevel=2)
    return task
