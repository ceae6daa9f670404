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
from collections.abc import Iterator, Mapping, Sequence
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
from ernie_rna.training.labels import some
from ernie_rna.training.metrics import Metrics, for_json
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.rows import Rows, read_splits
from ernie_rna.training.splits import assign, find_groups, leakage, predict_by_kmers
from ernie_rna.training.tasks import TASKS, Example, Task

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
        facts = self.facts
        labels = f"labels ({len(facts['labels'])}): {', '.join(facts['labels'][:20])}\n"
        rows = ", ".join(f"{name} {split['rows']:,}" for name, split in facts["splits"].items())
        steps = "1 step" if facts["steps"] == 1 else f"{facts['steps']} steps"
        if self.estimate:
            return f"{rows} rows, {steps}: {self.estimate}"
        return (
            f"{rows} rows\n{labels if facts['labels'] else ''}{facts['weights_trained']:,} of "
            f"{facts['weights']:,} weights were trained, {steps} in "
            f"{facts['seconds']:.0f} s\nsaved: {self.folder}"
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
    has. Of several processes (torchrun, accelerate launch), the leading one saves.

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
    alone: contextlib.AbstractContextManager[Store | None] = contextlib.nullcontext()
    if not options.dry_run:
        # A run that was stopped while it was evaluated has written the folder without metrics.
        ours = options.resume and is_begun(target) and not (target / "metrics.json").exists()
        check_place(check_target(output, options.force or ours))
        alone = _alone(target, options.force)
    with full_disk_explained(target), alone as store:
        run = _Run(train, target, options)
        source = find_model(model, options.revision)
        with show_loading(options.progress if leads() else False):
            from ernie_rna.run.loading import use_threads, without_report

        for extra in ("accelerate", "sklearn", *(["peft"] if options.lora else [])):
            import_extra(extra, "train", "fine-tuning")
        with use_threads(options.threads), without_report():
            if options.dry_run:
                run.estimate(source)
                return run.summary
            run.train(source, store)
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
def _alone(target: Path, force: bool) -> Iterator[Store | None]:
    """What the leading process keeps beside the folder, locked; the others are silent."""
    if leads():
        with Store(target, Share(), force) as store:
            yield store
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield None


class _Run:
    """One fine-tuning; what is wrong with the data is found before torch is imported."""

    def __init__(self, train: str | PathLike[str], target: Path, options: FinetuneOptions):
        self.options, self.target = options, target
        self.task: Task = TASKS[str(options.task)](options)
        if options.best not in (None, *self.task.metric_names):
            raise OptionError("best", f"must be {' or '.join(self.task.metric_names)}")
        self.summary = FinetuneSummary(target)
        self.splits = read_splits(Path(train), options)
        self.summary.notes += self.task.learn_names(self.splits["train"])
        self.folds: list[np.ndarray] = []
        if options.split is not None or options.folds is not None:
            self._divide()
        elif len(self.splits) == 1:
            column, way_out = options.split_column, "--split similar holds out a part of the rows"
            if column is not None:
                way_out = f"--eval-split names the values of {column!r} to evaluate on"
            self.summary.notes.append(f"nothing is evaluated: {way_out}")
        self.labels = {name: self.task.read_labels(rows) for name, rows in self.splits.items()}
        for number, fold in enumerate(self.folds, 1):
            self.task.read_labels(self.splits["train"].take(fold, f"fold {number}"))
        self.summary.notes += leakage(self.splits, self.labels)
        if type(self.task) is Task:
            known = {*self.labels["train"]}
            gone = [name for place, name in enumerate(self.task.names) if place not in known]
            if gone:
                self.summary.notes.append(f"all rows of these classes are held out: {some(gone)}")

    def _divide(self) -> None:
        """Hold out rows of training, or find those that each fold holds out."""
        options, rows = self.options, self.splits.pop("train")
        groups, what = find_groups(rows, options.split or "random")
        if options.folds is not None:
            self.folds = assign(groups, [1 / options.folds] * options.folds, options.seed, what)
            self.splits = {"train": rows, **self.splits}
        elif HELD_OUT in self.splits:
            raise InputError(
                f"{HELD_OUT!r} names the rows that --split holds out: rename the other split"
            )
        else:
            parts = assign(groups, [1 - options.held_out, options.held_out], options.seed, what)
            held = zip(("train", HELD_OUT), parts, strict=True)
            self.splits = {**{name: rows.take(own, name) for name, own in held}, **self.splits}
        self.summary.notes.append(
            f"{len(rows)} rows have {what}; each of these is on one side of a split"
        )
        if self.folds:
            self.summary.notes.append(
                "each fold was measured by a model that was trained on the others; what is saved "
                "was trained on all rows"
            )

    def train(self, source: Any, store: Store | None) -> None:
        """Load a model, train it and, in the leading process, save it."""
        with show_loading(self.options.progress if leads() else False):
            from ernie_rna.training import trainer as training

            model, self.tokenizer, kept = training.load(self.task, source)
        self.examples = self._encode(model.config.max_position_embeddings)
        train, folder = self.examples["train"], partial_folder(self.target)
        arguments = training.make_arguments(self.options, folder, len(train))
        manifest = self._describe(model, arguments)
        with arguments.main_process_first(local=False):
            if store is not None:
                _begin(store, manifest, self.options)
        start = time.monotonic()
        if self.folds:
            self._cross_validate(model, kept, folder)
        watched = next((self.examples[name] for name in [*self.examples][1:]), [])
        self.trainer = self._trainer(model, kept, arguments, train, watched)
        self.trainer.fit()
        self.summary.facts |= {
            "model": Path(source).name,
            "auto_class": _AUTO_CLASSES.get(self.task.model_name, "AutoModel"),
            "weights": model.num_parameters(),
            "weights_trained": self.trainer.weights_trained,
            "steps": self.trainer.state.global_step,
            "seconds": time.monotonic() - start,
            **{name: manifest[name] for name in ("options", "labels", "splits", "versions")},
        }
        if store is not None:
            self._save()

    def estimate(self, source: Any) -> None:
        """Time some steps and predictions, and say what all of them will take."""
        from ernie_rna.run.estimate import SECONDS, Estimate, in_bytes, peak_memory
        from ernie_rna.training import trainer as training

        model, self.tokenizer, kept = training.load(self.task, source)
        self.examples = self._encode(model.config.max_position_embeddings)
        train, *evaluation = self.examples.values()
        rows = [example for split in evaluation for example in split]
        weights, measured = model.num_parameters(), len(rows) + len(train) * bool(self.folds)
        with tempfile.TemporaryDirectory() as name:
            make = partial(training.make_arguments, folder=Path(name))
            arguments = make(self.options, examples=len(train))
            steps = arguments.max_steps
            if self.options.watches:
                measured += steps // int(arguments.eval_steps or 1) * len(evaluation[0])
            for fold in self.folds:
                steps += make(self.options, examples=len(train) - len(fold)).max_steps
            given: Any = self.options.trainer
            others = {**given, "report_to": []}
            self.task.options = replace(self.options, **_PLAIN, progress=False, trainer=others)
            arguments = make(self.task.options, examples=len(train))
            trainer = self._trainer(model, kept, arguments, train, [])
            times = trainer.time_steps(SECONDS)
        sample = (rows or train)[:: -(-len(rows or train) // _SAMPLE)]
        begin = time.monotonic()
        trainer.score(sample)
        each = (time.monotonic() - begin) / len(sample)
        warm = times[1:] or times  # The first one also builds what is built once.
        seconds = steps * sum(warm) / len(warm) + measured * each
        about = Estimate(seconds, peak_memory(), 4 * weights, len(times), "step")
        self.summary.estimate = about.text
        if self.options.resume or self.options.best:
            state = 8 * trainer.weights_trained + 4 * (
                trainer.weights_trained if self.options.lora else weights
            )
            self.summary.notes.append(
                f"{partial_folder(self.target)} takes up to {in_bytes(2 * state)} while it trains"
            )
        splits = {name: {"rows": len(examples)} for name, examples in self.examples.items()}
        named = {"labels": self.task.names, "splits": splits}
        self.summary.facts |= {"steps": steps, "weights": weights, **named}

    def _encode(self, tokens: int) -> dict[str, list[Example]]:
        """Sequences, cut if that is asked for, and labels as examples."""
        limit = self.options.max_length or tokens - _SPECIAL_TOKENS
        encoded = {}
        for name, rows in self.splits.items():
            if not self.options.truncate:
                _check_lengths(rows, limit)
            longest = limit + _SPECIAL_TOKENS
            ids = self.tokenizer(rows.sequences, truncation=True, max_length=longest)["input_ids"]
            pairs = zip(ids, self.labels[name], strict=True)
            also = zip(rows.lines, (sequence[:limit] for sequence in rows.folded), strict=True)
            encoded[name] = [
                {**self.task.encode(*pair), "line": line, "sequence": sequence}
                for pair, (line, sequence) in zip(pairs, also, strict=True)
            ]
        return encoded

    def _describe(self, model: Any, arguments: Any) -> dict[str, Any]:
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
            "labels": self.task.names,
            "splits": {
                name: {"rows": len(examples), "sha256": _sha256(examples)}
                for name, examples in self.examples.items()
            },
            "model_sha256": model_sha256(model),
            "processes": processes,
            "device": arguments.device.type,
            "versions": versions(),
        }

    def _trainer(
        self, model: Any, kept: bool, arguments: Any, train: list[Example], watched: list[Example]
    ) -> Any:
        """What trains a model on some examples."""
        from ernie_rna.training.trainer import FinetuneTrainer

        if not kept:
            self.task.start_head(model, [example["labels"] for example in train])
        return FinetuneTrainer(model, self.tokenizer, self.task, arguments, train, watched)

    def _cross_validate(self, model: Any, kept: bool, folder: Path) -> None:
        """Train without each fold and measure on it, unless a run that is resumed has done so."""
        from ernie_rna.training.trainer import make_arguments

        folds: list[dict[str, Any]] = []
        for number, fold in enumerate(self.folds, 1):
            path, places = folder / f"fold-{number}" / "metrics.json", {*fold.tolist()}
            held: list[Example] = []
            train: list[Example] = []
            for place, example in enumerate(self.examples["train"]):
                (held if place in places else train).append(example)
            if self.options.resume and path.exists():
                metrics = json.loads(path.read_text(encoding="utf-8"))
            else:
                arguments = make_arguments(self.options, path.parent, len(train))
                trainer = self._trainer(copy.deepcopy(model), kept, arguments, train, held)
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
        task, metrics = self.task, {}
        if leads():
            metrics[f"{name}: {task.guess_name}"] = task.guess(train, examples)
            if task.of_sequences and self.options.baseline == "kmer":
                known, test = task.known(train), task.known(examples)
                texts = ([one["sequence"] for one in split] for split in (train, examples))
                predicted = predict_by_kmers(next(texts), known, next(texts), task.of_numbers)
                metrics[f"{name}: k-mers"] = task.metrics(predicted.reshape(test.shape), test)
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
            self.tokenizer.save_pretrained(folder)
            self.tokenizer.save_vocabulary(str(folder))  # transformers 5 leaves it out
            lines = "".join(f"{json.dumps(for_json(entry))}\n" for entry in log)
            (folder / "log.jsonl").write_text(lines, encoding="utf-8")
            draw_curve(log, folder / "curve.svg")
            write_card(folder, self.summary)

    def evaluate(self) -> None:
        """Measure what was saved, and add that to the folder."""
        train, *evaluation = self.examples
        for name in evaluation:
            examples = (self.examples[train], self.examples[name])
            self.summary.metrics |= self._measure(name, self.trainer, *examples)
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


def _check_lengths(rows: Rows, longest: int) -> None:
    """Raise InputError if a sequence has more than `longest` nucleotides, saying how many do."""
    lengths = [len(sequence) for sequence in rows.sequences]
    long = sum(length > longest for length in lengths)
    if long:
        worst = max(range(len(lengths)), key=lengths.__getitem__)
        raise InputError(
            f"{rows.name}: {long} of {len(lengths)} sequences are longer than {longest} "
            f"nucleotides, the longest has {lengths[worst]} (line {rows.lines[worst]}); "
            "--truncate cuts them, --max-length moves the limit"
        )


def _begin(store: Store, manifest: dict[str, Any], options: FinetuneOptions) -> None:
    """Have the state of training kept, or resumed if it is of the same run."""
    if options.resume:
        store.begin(manifest)
    elif store.begun and not store.done and not options.force:
        raise OutputError(
            f"{store.folder} has the state of an unfinished run: --resume resumes it, --force "
            "drops it"
        )
    else:
        store.drop()


def _sha256(examples: Sequence[Example]) -> str:
    return hashlib.sha256(json.dumps(examples, default=str).encode()).hexdigest()
