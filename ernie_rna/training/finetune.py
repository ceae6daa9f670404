"""Fine-tuning, from files to a folder: check the rows; train, save and evaluate a model.

>>> summary = finetune(  # doctest: +SKIP
...     "table.tsv", "mini", "OUT", task="regression", label_column="mrl", eval_file="test.tsv"
... )
>>> print(summary.metrics["test"]["r2"])  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ernie_rna.conversion.folder import check_target, write_model
from ernie_rna.extras import import_extra
from ernie_rna.options import OptionError, Share, takes
from ernie_rna.run.find_model import find_model
from ernie_rna.run.outputs import (
    OutputError,
    full_disk_explained,
    holds,
    replacing,
    replacing_folder,
)
from ernie_rna.run.progress import show_loading
from ernie_rna.run.store import Store, check_place, is_begun, partial_folder
from ernie_rna.sequences.chunks import nucleotide_limit
from ernie_rna.sequences.fasta import InputError, some
from ernie_rna.training.card import draw_curve, write_card
from ernie_rna.training.metrics import Metrics, for_json
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.rows import add_split, read_splits
from ernie_rna.training.splits import assign, find_groups, leakage
from ernie_rna.training.tasks import TASKS, Example

HELD_OUT = "held-out"  # name of the split of the rows that --split takes from training

_SAMPLE = 16  # most rows on which a dry run times predictions
# Options that a dry run turns off, since they are not part of a training step.
_ONLY_STEPS: dict[str, Any] = {"resume": False, "best": None, "eval_steps": None, "patience": None}


@dataclass
class FinetuneSummary:
    """The result of a fine-tuning.

    Attributes:
        folder: folder with the model, its tokenizer and code.
        facts: what was trained, on which data and how, for JSON.
        metrics: metrics of each evaluation, under its name; "NAME: guess" has those of the simplest
            guess, "NAME: k-mers" those of a regression on counts of k-mers. Cross-validation has
            "folds: mean" and "folds: sd", also of both; facts["folds"] has those of each fold.
        notes: remarks on the data and the training, a sentence each.
        estimate: time and memory that the run will take, if it was a dry run; else "".
    """

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Metrics] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    estimate: str = ""

    @property
    def text(self) -> str:
        """A summary in a few lines."""
        facts, names = self.facts, self.facts["labels"]
        rows = ", ".join(f"{name} {split['rows']:,}" for name, split in facts["splits"].items())
        steps = "1 step" if facts["steps"] == 1 else f"{facts['steps']} steps"
        if self.estimate:
            return f"{rows} rows, {steps}: {self.estimate}"
        labels = f"labels ({len(names)}): {', '.join(names[:20])}\n" if names else ""
        return (
            f"{rows} rows\n{labels}{facts['weights_trained']:,} of {facts['weights']:,} weights "
            f"were trained, {steps} in {facts['seconds']:.0f} s\nsaved: {self.folder}"
        )

    def as_json(self) -> str:
        """Facts, metrics (or the estimate) and notes as JSON; null for a number not finite."""
        measured = {"estimate": self.estimate} if self.estimate else {"metrics": self.metrics}
        values = {**self.facts, **measured, "notes": self.notes}
        return json.dumps(for_json(values), indent=2)


@takes(FinetuneOptions)
def finetune(
    train: str | PathLike[str],
    model: str | PathLike[str],
    output: str | PathLike[str],
    *,
    options: FinetuneOptions,
) -> FinetuneSummary:
    """Train a model for a task, save it and evaluate it.

    The complete folder appears when training has succeeded; metrics.json follows the evaluation. Of
    several processes (torchrun, accelerate launch), the leading one saves. The same seed leads to
    the same weights, except for calls in several threads of a process, which share one generator.

    Args:
        train: CSV or TSV; also FASTA for masked-lm; .ct, .bpseq, .dbn or a folder for structure.
        model: a converted or saved folder, "mini", or a name on the Hub.
        output: the folder to write: model, tokenizer, code, card, metrics.json and log.jsonl.

    Returns:
        A summary with all metrics.

    Raises:
        InputError: a file, a row or the model is invalid; raised before training.
        ExportError: the folder exists already, or holds something else.
        OutputError: another run writes the folder, a run with other settings is unfinished, or its
            state is damaged; or the output would replace an input.
        TrainingError: a loss or gradient is not finite; nothing was saved.
    """
    if not isinstance(model, (str, PathLike)):
        raise TypeError(
            f"expected a folder or a Hub id, such as a saved model's; got {type(model)}"
        )
    target = Path(os.path.abspath(output))
    with full_disk_explained(target), _locked_output(output, target, options) as store:
        source = find_model(model, options.revision)
        _check_inputs(target, train, source, *options.eval_file)
        run = _Run(train, source, target, options)
        with show_loading(options.progress if leads() else False):
            for extra in ("accelerate", "sklearn", *(["peft"] if options.lora else [])):
                import_extra(extra, "train", "fine-tuning")
            from ernie_rna.run.loading import use_threads, without_report

            run.load()
        with use_threads(options.threads), without_report():
            if options.dry_run:
                run.estimate()
                return run.summary
            run.train(store)
            try:
                run.evaluate()
            except BaseException:
                message = f"the model is saved in {target}, without the metrics of its evaluation"
                warnings.warn(message, stacklevel=2)
                raise
            if store is not None:
                store.finish_share()
                store.finish()
    return run.summary


def leads() -> bool:
    """Whether this is the leading process of those that torchrun or accelerate launch started."""
    return int(os.environ.get("RANK", 0)) == 0


def _check_inputs(target: Path, *inputs: str | PathLike[str]) -> None:
    """Raise OutputError if the run would replace one of its inputs, as it can with --force."""
    for path in map(Path, inputs):
        if path.exists() and (holds(target, path) or holds(partial_folder(target), path)):
            raise OutputError(f"{target} would replace {path}, an input: name another output")


@contextlib.contextmanager
def _locked_output(
    output: str | PathLike[str], target: Path, options: FinetuneOptions
) -> Iterator[Store | None]:
    """Check and lock the output. Yield the store in the leading process; silence the others."""
    if not options.dry_run:
        # A run that was stopped while it evaluated has written the folder without metrics.
        is_resumed = options.resume and is_begun(target) and not (target / "metrics.json").exists()
        check_place(check_target(output, options.force or is_resumed))
    with contextlib.ExitStack() as stack:
        store = None
        if not leads():
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        elif not options.dry_run:
            store = stack.enter_context(Store(target, Share(), options.force))
        yield store


class _Run:
    """One fine-tuning. Errors in the data are raised before the model is loaded, and before torch
    is imported unless the configuration of the model says where sequences are cut."""

    def __init__(
        self, train: str | PathLike[str], source: Any, target: Path, options: FinetuneOptions
    ):
        self.options, self.source, self.target = options, source, target
        self.summary, self.folds = FinetuneSummary(target), list[np.ndarray]()
        self.task = TASKS[str(options.task)](options)
        if options.best not in (None, *self.task.metric_names):
            raise OptionError("best", f"must be {' or '.join(self.task.metric_names)}")
        splits, notes = read_splits(train, options), self.summary.notes
        notes += self.task.learn_names(splits["train"])
        self.splits = {
            name: replace(rows, labels=tuple(self.task.read_labels(rows)))
            for name, rows in splits.items()
        }
        if options.truncate:
            self._cut()
        if options.split is not None or options.folds is not None:
            self._divide()
        elif len(splits) == 1:
            column, way_out = options.split_column, "--split similar holds out some of the rows"
            if column is not None:
                way_out = f"--eval-split names the values of {column!r} to evaluate on"
            notes.append(f"nothing is evaluated: {way_out}")
        self._check_labels()
        notes += leakage(self.splits)

    def _cut(self) -> None:
        """Cut longer sequences, before rows that are then equal are put on one side of a split."""
        limit = self.options.max_length
        if limit is None:
            from ernie_rna.run.loading import read_config

            limit = nucleotide_limit(read_config(self.source, self.options.revision))
        for name, rows in self.splits.items():
            count = sum(len(sequence) > limit for sequence in rows.sequences)
            if count:
                cut = f"{count} of {len(rows)} sequences of {name} were cut after {limit}"
                self.summary.notes.append(f"{cut} nucleotides")
                self.splits[name] = rows.cut(limit, self.task.cut)

    def _divide(self) -> None:
        """Hold out some of the training rows, or assign them to the folds."""
        options, notes, splits = self.options, self.summary.notes, self.splits
        rows = splits.pop("train")
        groups, description = find_groups(rows, options.split or "random")
        notes.append(f"{len(rows)} rows have {description}; each stays on one side of a split")
        divide = partial(assign, groups, seed=options.seed, description=description)
        if options.folds is not None:
            self.folds = divide([1 / options.folds] * options.folds)
            self.splits = {"train": rows}
            notes.append(
                "each fold was evaluated with a model trained on the others; the saved model was "
                "trained on all rows"
            )
        else:
            train, held_out = divide([1 - options.held_out, options.held_out])
            held_out_rows = rows.take(held_out, HELD_OUT)
            self.splits = {"train": rows.take(train, "train"), HELD_OUT: held_out_rows}
        for name, split_rows in splits.items():
            add_split(self.splits, name, split_rows)
        if options.task == "classification":
            trained = {*self.splits["train"].labels}
            untrained = [name for id, name in enumerate(self.task.names) if id not in trained]
            if untrained:
                notes.append(f"all rows of these classes are held out: {some(untrained)}")

    def _check_labels(self) -> None:
        """Raise InputError if training has nothing to learn, or if a split or fold has no label of
        a base, without which there are no metrics; note training rows without labels."""
        rows, reason = self.splits["train"], self.task.no_label.format_map(vars(self.options))
        folds = (rows.take(fold, f"fold {number}") for number, fold in enumerate(self.folds, 1))
        for split in (*self.splits.values(), *folds):
            is_needed = split is rows or self.task.of_bases
            if is_needed and self.task.unlabelled(split) == len(split):
                raise InputError(f"{split.name}: {reason}")
        count = self.task.unlabelled(rows)
        if count:
            self.summary.notes.append(f"{count} training rows have no part in the loss: {reason}")

    def load(self) -> None:
        """Load the model, and make examples from sequences and labels."""
        from ernie_rna.training.trainer import load

        self.loaded = load(self.task, self.source)
        limit = self.options.max_length or nucleotide_limit(self.loaded.model.config)
        self.examples: dict[str, list[Example]] = {}
        for name, rows in self.splits.items():
            texts = rows.folded
            for line, text in zip(rows.lines, texts, strict=True):
                if len(text) > limit:
                    problem = f"{len(text)} nucleotides, more than the limit of {limit}: --truncate"
                    way_out = "cuts longer sequences, --max-length changes the limit"
                    raise InputError.at(rows.name, line, f"{problem} {way_out}")
            ids = self.loaded.tokenizer(texts, verbose=False)["input_ids"]
            columns = zip(ids, rows.labels, rows.lines, texts, strict=True)
            self.examples[name] = [
                {**self.task.encode(input_ids, label), "line": line, "sequence": text}
                for input_ids, label, line, text in columns
            ]
        self.summary.facts |= {
            "model": Path(self.source).name,
            "weights": self.loaded.model.num_parameters(),
            "labels": self.task.names,
            "splits": {
                name: {
                    "rows": len(examples),
                    "sha256": hashlib.sha256(json.dumps(examples).encode()).hexdigest(),
                }
                for name, examples in self.examples.items()
            },
        }

    def train(self, store: Store | None) -> None:
        """Train the model and save it, in the leading process, which has the store."""
        from ernie_rna.model.configuration_ernie_rna import AUTO_MAP
        from ernie_rna.training.trainer import FinetuneTrainer, make_arguments

        folder, (train, *evaluation) = partial_folder(self.target), self.examples.values()
        arguments = make_arguments(self.options, folder, len(train))
        manifest = self._describe(arguments)
        with arguments.main_process_first(local=False):
            if store is not None and self.options.resume:
                store.begin(manifest)
            elif store is not None and store.begun and not (store.done or self.options.force):
                raise OutputError(
                    f"{store.folder} has the state of an unfinished run: --resume resumes it, "
                    "--force deletes it"
                )
            elif store is not None:
                store.drop()
        start = time.monotonic()
        if self.folds:
            self._cross_validate(folder)
        watched = evaluation[0] if evaluation else []
        self.trainer = FinetuneTrainer(self.loaded, self.task, arguments, train, watched)
        self.trainer.fit()
        auto_classes = {path.partition(".")[2]: name for name, path in AUTO_MAP.items()}
        self.summary.facts |= {
            "auto_class": auto_classes.get(self.task.model_name, "AutoModel"),
            "weights_trained": self.trainer.weights_trained,
            "steps": self.trainer.state.global_step,
            "seconds": time.monotonic() - start,
            **manifest,
        }
        if store is not None:
            self._save()

    def estimate(self) -> None:
        """Time some steps and predictions, and set the estimate of the whole run."""
        from ernie_rna.run.estimate import SECONDS, Estimate, in_bytes, peak_memory
        from ernie_rna.training.trainer import FinetuneTrainer, make_arguments, schedule

        options, (train, *evaluation) = self.options, self.examples.values()
        rows = [example for split in evaluation for example in split]
        (steps, every), predictions = schedule(options, len(train)), len(rows)
        if options.watches:
            predictions += steps // every * len(evaluation[0])
        for fold in self.folds:
            steps += schedule(options, len(train) - len(fold))[0]
            predictions += len(fold)
        fields: Any = options.trainer
        fields = {**fields, "report_to": []}
        self.task.options = replace(options, **_ONLY_STEPS, progress=False, trainer=fields)
        with tempfile.TemporaryDirectory() as name:
            arguments = make_arguments(self.task.options, Path(name), len(train))
            trainer = FinetuneTrainer(self.loaded, self.task, arguments, train, [])
            times = trainer.time_steps(SECONDS)
        rows = rows or train
        sample = rows[:: math.ceil(len(rows) / _SAMPLE)]
        begin = time.monotonic()
        trainer.score(sample)
        prediction_seconds = (time.monotonic() - begin) / len(sample)
        warm = times[1:] or times  # The first step includes one-time set-up.
        seconds = steps * sum(warm) / len(warm) + predictions * prediction_seconds
        weights = self.summary.facts["weights"]
        estimate = Estimate(seconds, peak_memory(), 4 * weights, len(times), "step")
        self.summary.estimate = estimate.text
        if options.resume or options.best:
            trained = trainer.weights_trained
            # Adam's two moments and the weights in float32; for a while there are two states.
            state = 8 * trained + 4 * (trained if options.lora else weights)
            self.summary.notes.append(
                f"{partial_folder(self.target)} takes up to {in_bytes(2 * state)} while it trains"
            )
        self.summary.facts["steps"] = steps

    def _describe(self, arguments: Any) -> dict[str, Any]:
        """All that the trained weights depend on, for JSON."""
        from ernie_rna.run.provenance import model_sha256, versions

        processes = arguments.world_size
        if self.task.batch_norms and arguments.gradient_accumulation_steps * processes > 1:
            self.summary.notes.append(
                f"the head's batch norms see the {self.options.batch_size} rows of one batch of "
                "one process only, despite --accumulate or more processes (no SyncBatchNorm)"
            )
        return {
            "format": "ernie-rna finetune",
            "options": self.options.recorded(),
            **{name: self.summary.facts[name] for name in ("labels", "splits")},
            "model_sha256": model_sha256(self.loaded.model),
            "processes": processes,
            "device": arguments.device.type,
            "versions": versions(),
        }

    def _cross_validate(self, folder: Path) -> None:
        """Train without each fold and evaluate on it, unless the resumed run has done so."""
        from ernie_rna.training.trainer import FinetuneTrainer, check_state, make_arguments

        folds: list[dict[str, Any]] = []
        for number, fold in enumerate(self.folds, 1):
            path, examples = folder / f"fold-{number}" / "metrics.json", self.examples["train"]
            train = [examples[row] for row in np.delete(np.arange(len(examples)), fold)]
            held_out = [examples[row] for row in fold]
            if self.options.resume and path.exists():
                check_state(path)
                metrics = json.loads(path.read_text(encoding="utf-8"))
            else:
                arguments = make_arguments(self.options, path.parent, len(train))
                loaded = self.loaded._replace(model=copy.deepcopy(self.loaded.model))
                trainer = FinetuneTrainer(loaded, self.task, arguments, train, held_out)
                trainer.fit()
                metrics = self._measure("folds", trainer, train, held_out)
                if self.options.resume and leads():
                    path.parent.mkdir(exist_ok=True)
                    with replacing(path) as temporary:
                        temporary.write_text(json.dumps(metrics), encoding="utf-8")
                    for state in path.parent.glob("checkpoint-*"):
                        shutil.rmtree(state)
            folds.append({"rows": len(held_out), **metrics})
        self.summary.facts["folds"] = folds
        for name in [*folds[0]][1:]:  # after "rows"
            for title, statistic in (("mean", np.mean), ("sd", partial(np.std, ddof=1))):
                self.summary.metrics[f"{name}: {title}"] = {
                    metric: float(statistic([fold[name][metric] for fold in folds]))
                    for metric in folds[0][name]
                }

    def _measure(
        self, name: str, trainer: Any, train: list[Example], examples: list[Example]
    ) -> dict[str, Metrics]:
        """The metrics on some examples of the trained model, and of what it is compared with."""
        metrics = {}
        if leads():
            metrics[f"{name}: {self.task.guess_name}"] = self.task.guess(train, examples)
            metrics[f"{name}: k-mers"] = self.task.by_kmers(train, examples)
        metrics[name] = trainer.score(examples)
        return {title: values for title, values in metrics.items() if values}

    def _save(self) -> None:
        """Write the complete folder, with the code that `trust_remote_code` loads."""
        from ernie_rna.model.configuration_ernie_rna import AUTO_MAP

        model: Any = self.trainer.model
        # The run time of a resumed run leaves out the time before.
        log = [entry for entry in self.trainer.state.log_history if "train_runtime" not in entry]
        # In a model from the Hub, each entry starts with the name of its repository.
        model.config.auto_map = dict(AUTO_MAP)
        model.config.weights_origin = "fine-tuned"
        with replacing_folder(self.target) as folder:
            write_model(model, folder, tokenizer=self.loaded.tokenizer)
            lines = "".join(f"{json.dumps(for_json(entry))}\n" for entry in log)
            (folder / "log.jsonl").write_text(lines, encoding="utf-8")
            draw_curve(log, folder / "curve.svg")
            write_card(folder, self.summary)

    def evaluate(self) -> None:
        """Evaluate the saved model, and add the metrics to its folder."""
        (_, train), *evaluation = self.examples.items()
        for name, examples in evaluation:
            self.summary.metrics |= self._measure(name, self.trainer, train, examples)
        self.summary.notes += better_counts(self.summary.metrics, self.task.metric_names[0])
        if leads():
            with replacing(self.target / "metrics.json") as path:
                path.write_text(self.summary.as_json() + "\n", encoding="utf-8")
            write_card(self.target, self.summary)


def better_counts(metrics: Mapping[str, Metrics], metric: str) -> Iterator[str]:
    """Sentences on the evaluations in which k-mer counts are at least as good as the model."""
    for title, counts in metrics.items():
        name = title.replace(": k-mers", "")
        model = metrics[name]
        if name != title and not name.endswith(": sd") and counts[metric] >= model[metric]:
            yield (
                f"{name}: k-mer counts are no worse than this model, {metric} {counts[metric]:.4f} "
                f"against {model[metric]:.4f}: use them, or train on more rows or another model"
            )
