"""Fine-tuning from files to a folder: rows checked, a model trained, saved and evaluated.

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

from ernie_rna.conversion.folder import check_target
from ernie_rna.extras import import_extra
from ernie_rna.options import OptionError, Share, takes
from ernie_rna.run.find_model import find_model
from ernie_rna.run.outputs import OutputError, full_disk_explained, replacing, replacing_folder
from ernie_rna.run.progress import show_loading
from ernie_rna.run.store import Store, check_place, is_begun, partial_folder
from ernie_rna.sequences.fasta import InputError
from ernie_rna.training.card import draw_curve, write_card
from ernie_rna.training.metrics import NO_LABEL, Metrics, for_json
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.rows import add_split, read_splits, some
from ernie_rna.training.splits import assign, find_groups, leakage
from ernie_rna.training.tasks import TASKS, Example

HELD_OUT = "held-out"  # the rows that --split takes from training, by name

_SPECIAL_TOKENS = 2  # <cls> and <eos>
_SAMPLE = 16  # rows that a dry run measures predictions on, at most
# What a dry run does without: all that is done beside training.
_PLAIN: dict[str, Any] = {"resume": False, "best": None, "eval_steps": None, "patience": None}
_AUTO_CLASSES = {
    "ErnieRnaForMaskedLM": "AutoModelForMaskedLM",
    "ErnieRnaForSequenceClassification": "AutoModelForSequenceClassification",
    "ErnieRnaForTokenClassification": "AutoModelForTokenClassification",
}


@dataclass
class FinetuneSummary:
    """What a fine-tuning has made.

    Attributes:
        folder: the model, its tokenizer and code.
        facts: what was trained on what, and how, for JSON.
        metrics: of each evaluation, and under "NAME: guess" those of the simplest guess, under
            "NAME: k-mers" those of a regression on counts of k-mers; of cross-validation under
            "folds: mean" and "folds: sd", and likewise; facts["folds"] has those of each fold.
        notes: what to know of the data and the training, a sentence each.
        estimate: what the run will take, of a dry run.
    """

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Metrics] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    estimate: str = ""

    @property
    def text(self) -> str:
        """A few lines that say it."""
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
        """All of it, null where a number is not finite."""
        made = {"estimate": self.estimate} if self.estimate else {"metrics": self.metrics}
        values = {**self.facts, **made, "notes": self.notes}
        return json.dumps(for_json(values), indent=2)


@takes(FinetuneOptions)
def finetune(
    train: str | PathLike[str],
    model: str | PathLike[str],
    output: str | PathLike[str],
    *,
    options: FinetuneOptions,
) -> FinetuneSummary:
    """Train a model for a task, save it, evaluate it.

    The folder appears whole, once training has ended well; metrics are added when the evaluation
    has. Of several processes (torchrun, accelerate launch), the leading one saves. The same seed
    gives the same weights, but not to calls in several threads of one process, which draw from one
    generator of random numbers.

    Args:
        train: CSV or TSV; for masked-lm FASTA; for structures .ct, .bpseq, .dbn or a folder.
        model: a converted or saved folder, "mini", or a name on the Hub.
        output: the folder to write: model, tokenizer, code, card, metrics.json and log.jsonl.

    Returns:
        What was done, with all metrics.

    Raises:
        InputError: a file, a row or the model is unfit; before training.
        ExportError: the folder is there, or holds something else.
        OutputError: another run works on it, or one with other settings is unfinished.
        TrainingError: a loss or gradient is not finite; nothing was saved.
    """
    if not isinstance(model, (str, PathLike)):
        raise TypeError(
            f"expected a folder or a Hub id, such as a saved model's; got {type(model)}"
        )
    target = Path(os.path.abspath(output))
    with full_disk_explained(target), _alone(output, target, options) as store:
        run = _Run(train, target, options)
        source = find_model(model, options.revision)
        with show_loading(options.progress if leads() else False):
            for extra in ("accelerate", "sklearn", *(["peft"] if options.lora else [])):
                import_extra(extra, "train", "fine-tuning")
            from ernie_rna.run.loading import use_threads, without_report

            run.load(source)
        with use_threads(options.threads), without_report():
            if options.dry_run:
                run.estimate()
                return run.summary
            run.train(store)
            try:
                run.evaluate()
            except BaseException:
                warnings.warn(
                    f"the model is saved in {target}, without the metrics of its evaluation",
                    stacklevel=2,
                )
                raise
            if store is not None:
                store.finish_share()
                store.finish()
    return run.summary


def leads() -> bool:
    """Whether this process leads those that torchrun or accelerate launch started."""
    return int(os.environ.get("RANK", 0)) == 0


@contextlib.contextmanager
def _alone(
    output: str | PathLike[str], target: Path, options: FinetuneOptions
) -> Iterator[Store | None]:
    """What the leading process keeps beside the folder, locked; the others are silent."""
    if not options.dry_run:
        # A run that was stopped while it was evaluated has written the folder without metrics.
        ours = options.resume and is_begun(target) and not (target / "metrics.json").exists()
        check_place(check_target(output, options.force or ours))
    with contextlib.ExitStack() as held:
        store = None
        if not leads():
            held.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        elif not options.dry_run:
            store = held.enter_context(Store(target, Share(), options.force))
        yield store


class _Run:
    """One fine-tuning; what is wrong with the data is found before torch is imported."""

    def __init__(self, train: str | PathLike[str], target: Path, options: FinetuneOptions):
        self.options, self.target = options, target
        self.summary, self.folds = FinetuneSummary(target), list[np.ndarray]()
        self.task = TASKS[str(options.task)](options)
        if options.best not in (None, *self.task.metric_names):
            raise OptionError("best", f"must be {' or '.join(self.task.metric_names)}")
        splits, notes = read_splits(Path(train), options), self.summary.notes
        notes += self.task.learn_names(splits["train"])
        self.splits = {
            name: replace(rows, labels=tuple(self.task.read_labels(rows)))
            for name, rows in splits.items()
        }
        if options.split is not None or options.folds is not None:
            self._divide()
        elif len(splits) == 1:
            column, way_out = options.split_column, "--split similar holds out a part of the rows"
            if column is not None:
                way_out = f"--eval-split names the values of {column!r} to evaluate on"
            notes.append(f"nothing is evaluated: {way_out}")
        whole = self.splits["train"]
        folds = (whole.take(fold, f"fold {number}") for number, fold in enumerate(self.folds, 1))
        for rows in (*self.splits.values(), *folds) if self.task.of_bases else ():
            if all(label == NO_LABEL for row in rows.labels for label in row):
                ignored = options.ignore_label
                raise InputError(
                    f"{rows.name}: no base has a label but {ignored!r}, which is ignored"
                )
        notes += leakage(self.splits)

    def _divide(self) -> None:
        """Hold out rows of training, or find those that each fold holds out."""
        options, notes, splits = self.options, self.summary.notes, self.splits
        rows = splits.pop("train")
        groups, what = find_groups(rows, options.split or "random")
        notes.append(f"{len(rows)} rows have {what}; each of these is on one side of a split")
        if options.folds is not None:
            self.folds = assign(groups, [1 / options.folds] * options.folds, options.seed, what)
            self.splits = {"train": rows}
            notes.append(
                "each fold was measured by a model that was trained on the others; what is saved "
                "was trained on all rows"
            )
        else:
            parts = assign(groups, [1 - options.held_out, options.held_out], options.seed, what)
            held = zip(("train", HELD_OUT), parts, strict=True)
            self.splits = {name: rows.take(own, name) for name, own in held}
        for name, others in splits.items():
            add_split(self.splits, name, others)
        if options.task == "classification":
            known = {*self.splits["train"].labels}
            gone = [name for place, name in enumerate(self.task.names) if place not in known]
            if gone:
                notes.append(f"all rows of these classes are held out: {some(gone)}")

    def load(self, source: Any) -> None:
        """Load the model, and make examples of sequences, cut if that is asked for, and labels."""
        from ernie_rna.training.trainer import load

        self.loaded = load(self.task, source)
        tokens = self.loaded.model.config.max_position_embeddings
        limit = self.options.max_length or tokens - _SPECIAL_TOKENS
        self.examples: dict[str, list[Example]] = {}
        for name, rows in self.splits.items():
            for line, own in zip(rows.lines, rows.sequences, strict=True):
                if len(own) > limit and not self.options.truncate:
                    problem = f"{len(own)} nucleotides; at most {limit} are trained on: --truncate"
                    way_out = "cuts longer sequences, --max-length moves the limit"
                    raise InputError.at(rows.name, line, f"{problem} {way_out}")
            texts = [sequence[:limit] for sequence in rows.folded]
            ids = self.loaded.tokenizer(texts, verbose=False)["input_ids"]
            self.examples[name] = [
                {**self.task.encode(own, label), "line": line, "sequence": text}
                for own, label, line, text in zip(ids, rows.labels, rows.lines, texts, strict=True)
            ]
        self.summary.facts |= {
            "model": Path(source).name,
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
        """Train the model and, in the leading process, save it."""
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
                    "--force drops it"
                )
            elif store is not None:
                store.drop()
        start = time.monotonic()
        if self.folds:
            self._cross_validate(folder)
        watched = evaluation[0] if evaluation else []
        self.trainer = FinetuneTrainer(self.loaded, self.task, arguments, train, watched)
        self.trainer.fit()
        self.summary.facts |= {
            "auto_class": _AUTO_CLASSES.get(self.task.model_name, "AutoModel"),
            "weights_trained": self.trainer.weights_trained,
            "steps": self.trainer.state.global_step,
            "seconds": time.monotonic() - start,
            **manifest,
        }
        if store is not None:
            self._save()

    def estimate(self) -> None:
        """Time some steps and predictions, and say what all of them will take."""
        from ernie_rna.run.estimate import SECONDS, Estimate, in_bytes, peak_memory
        from ernie_rna.training.trainer import FinetuneTrainer, make_arguments, schedule

        options, (train, *evaluation) = self.options, self.examples.values()
        rows = [example for split in evaluation for example in split]
        (steps, every), measured = schedule(options, len(train)), len(rows)
        if options.watches:
            measured += steps // every * len(evaluation[0])
        for fold in self.folds:
            steps += schedule(options, len(train) - len(fold))[0]
            measured += len(fold)
        others: Any = options.trainer
        others = {**others, "report_to": []}
        self.task.options = replace(options, **_PLAIN, progress=False, trainer=others)
        with tempfile.TemporaryDirectory() as name:
            arguments = make_arguments(self.task.options, Path(name), len(train))
            trainer = FinetuneTrainer(self.loaded, self.task, arguments, train, [])
            times = trainer.time_steps(SECONDS)
        sample = (rows or train)[:: -(-len(rows or train) // _SAMPLE)]
        begin = time.monotonic()
        trainer.score(sample)
        each = (time.monotonic() - begin) / len(sample)
        warm = times[1:] or times  # The first one also builds what is built once.
        seconds = steps * sum(warm) / len(warm) + measured * each
        weights = self.summary.facts["weights"]
        self.summary.estimate = Estimate(
            seconds, peak_memory(), 4 * weights, len(times), "step"
        ).text
        if options.resume or options.best:
            trained = trainer.weights_trained
            state = 8 * trained + 4 * (trained if options.lora else weights)
            self.summary.notes.append(
                f"{partial_folder(self.target)} takes up to {in_bytes(2 * state)} while it trains"
            )
        self.summary.facts["steps"] = steps

    def _describe(self, arguments: Any) -> dict[str, Any]:
        """What the weights depend on."""
        from ernie_rna.run.provenance import model_sha256, versions

        processes = arguments.world_size
        if self.task.batch_norms and arguments.gradient_accumulation_steps * processes > 1:
            self.summary.notes.append(
                f"the head's batch norms see {self.options.batch_size} rows at a time, those of "
                "one batch of one process; --accumulate and more processes do not change that "
                "(SyncBatchNorm, which would, is not used)"
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
        """Train without each fold and measure on it, unless a run that is resumed has done so."""
        from ernie_rna.training.trainer import FinetuneTrainer, make_arguments

        folds: list[dict[str, Any]] = []
        for number, fold in enumerate(self.folds, 1):
            path, examples = folder / f"fold-{number}" / "metrics.json", self.examples["train"]
            others = np.delete(np.arange(len(examples)), fold)
            train, held = ([examples[place] for place in part] for part in (others, fold))
            if self.options.resume and path.exists():
                metrics = json.loads(path.read_text(encoding="utf-8"))
            else:
                arguments = make_arguments(self.options, path.parent, len(train))
                loaded = self.loaded._replace(model=copy.deepcopy(self.loaded.model))
                trainer = FinetuneTrainer(loaded, self.task, arguments, train, held)
                trainer.fit()
                metrics = self._measure("folds", trainer, train, held)
                if self.options.resume and leads():
                    path.parent.mkdir(exist_ok=True)
                    with replacing(path) as temporary:
                        temporary.write_text(json.dumps(metrics), encoding="utf-8")
                    for state in path.parent.glob("checkpoint-*"):
                        shutil.rmtree(state)
            folds.append({"rows": len(held), **metrics})
        self.summary.facts["folds"] = folds
        for name in [*folds[0]][1:]:
            for title, statistic in (("mean", np.mean), ("sd", partial(np.std, ddof=1))):
                self.summary.metrics[f"{name}: {title}"] = {
                    metric: float(statistic([fold[name][metric] for fold in folds]))
                    for metric in folds[0][name]
                }

    def _measure(
        self, name: str, trainer: Any, train: list[Example], examples: list[Example]
    ) -> dict[str, Metrics]:
        """The metrics of what was trained, and of what knows less, on some examples."""
        metrics = {}
        if leads():
            metrics[f"{name}: {self.task.guess_name}"] = self.task.guess(train, examples)
            metrics[f"{name}: k-mers"] = self.task.by_kmers(train, examples)
        metrics[name] = trainer.score(examples)
        return {title: own for title, own in metrics.items() if own}

    def _save(self) -> None:
        """The folder, whole; it loads by `trust_remote_code`, code included."""
        from ernie_rna.model.configuration_ernie_rna import AUTO_MAP

        model: Any = self.trainer.model
        # The times of a run that was resumed are not those of the whole.
        log = [one for one in self.trainer.state.log_history if "train_runtime" not in one]
        # A model from the Hub has its name in front of each entry.
        model.config.auto_map = dict(AUTO_MAP)
        model.config.weights_origin = "fine-tuned"
        with replacing_folder(self.target) as folder:
            model.save_pretrained(folder)
            # Some versions of safetensors write 0600.
            shutil.copymode(folder / "config.json", folder / "model.safetensors")
            self.loaded.tokenizer.save_pretrained(folder)
            self.loaded.tokenizer.save_vocabulary(str(folder))  # transformers 5 leaves it out
            lines = "".join(f"{json.dumps(for_json(entry))}\n" for entry in log)
            (folder / "log.jsonl").write_text(lines, encoding="utf-8")
            draw_curve(log, folder / "curve.svg")
            write_card(folder, self.summary)

    def evaluate(self) -> None:
        """Measure what was saved, and add that to the folder."""
        train, *evaluation = self.examples.items()
        for name, examples in evaluation:
            self.summary.metrics |= self._measure(name, self.trainer, train[1], examples)
        self.summary.notes += better_counts(self.summary.metrics, self.task.metric_names[0])
        if leads():
            with replacing(self.target / "metrics.json") as path:
                path.write_text(self.summary.as_json() + "\n", encoding="utf-8")
            write_card(self.target, self.summary)


def better_counts(metrics: Mapping[str, Metrics], metric: str) -> Iterator[str]:
    """Say on which rows a regression on k-mer counts is no worse than the model."""
    for title, counts in metrics.items():
        name = title.replace(": k-mers", "")
        own = metrics[name]
        if name != title and not name.endswith(": sd") and counts[metric] >= own[metric]:
            yield (
                f"{name}: k-mer counts are no worse than this model, {metric} {counts[metric]:.4f} "
                f"against {own[metric]:.4f}: prefer them, or train on more rows or another model"
            )
