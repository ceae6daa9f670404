"""Fine-tuning from files to a folder: rows checked, a model trained, saved and evaluated.

>>> summary = finetune(  # doctest: +SKIP
...     "table.tsv", "mini", "OUT", task="regression", label_column="mrl", eval_file="test.tsv"
... )
>>> print(summary.metrics["test"]["r2"])  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from os import PathLike
from pathlib import Path
from typing import Any

from ernie_rna.extras import import_extra
from ernie_rna.options import OptionError, Share, takes
from ernie_rna.run.find_model import find_model
from ernie_rna.run.outputs import OutputError, replacing, replacing_folder
from ernie_rna.run.store import Store, check_place, partial_folder
from ernie_rna.training.card import draw_curve, write_card
from ernie_rna.training.labels import check_lengths
from ernie_rna.training.metrics import Metrics, for_json
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.rows import Rows, read_splits
from ernie_rna.training.tasks import TASKS, Example, Task

_SPECIAL_TOKENS = 2  # <cls> and <eos>
# What a folder has in it that may be replaced.
_OURS = (
    *("config.json", "model*.safetensors", "model.safetensors.index.json", "*_ernie_rna.py"),
    *("tokenizer*.json", "vocab.json", "special_tokens_map.json", "added_tokens.json"),
    *("README.md", "metrics.json", "log.jsonl", "curve.svg", "__pycache__"),
)
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
        metrics: of each evaluation, and under "NAME: guess" those of the simplest guess.
        notes: what to know of the data and the training, a sentence each.
    """

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Metrics] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """A few lines that say it."""
        facts = self.facts
        labels = f"labels ({len(facts['labels'])}): {', '.join(facts['labels'][:20])}\n"
        rows = ", ".join(f"{name} {split['rows']:,}" for name, split in facts["splits"].items())
        return (
            f"{rows} rows\n{labels if facts['labels'] else ''}{facts['weights_trained']:,} of "
            f"{facts['weights']:,} weights were trained, {facts['steps']} steps in "
            f"{facts['seconds']:.0f} s\nsaved: {self.folder}"
        )

    def as_json(self) -> str:
        """All of it, null where a number is not finite."""
        values = {**self.facts, "metrics": self.metrics, "notes": self.notes}
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
        OutputError: the folder is there, or a run with other settings is unfinished.
        TrainingError: a loss or gradient is not finite; nothing was saved.
    """
    target = Path(os.path.abspath(output))
    _check_target(target, options.force)
    with _alone(target, options.force) as store:
        run = _Run(train, target, options)
        source = find_model(model, options.revision)
        from ernie_rna.run.loading import without_report
        from ernie_rna.run.threads import use_threads

        for extra in ("accelerate", "sklearn", *(["peft"] if options.lora else [])):
            import_extra(extra, "train", "fine-tuning")
        with use_threads(options.threads), without_report():
            run.train(source, store)
            try:
                run.evaluate()
            except BaseException:
                warnings.warn(
                    f"the model is saved in {target}, without the metrics of its evaluation",
                    stacklevel=2,
                )
                raise
    return run.summary


def leads() -> bool:
    """Whether this process leads those that torchrun or accelerate launch started."""
    return int(os.environ.get("RANK", 0)) == 0


def _check_target(target: Path, force: bool) -> None:
    """Raise OutputError where the folder cannot be made, or has in it what is not ours."""
    if target.is_symlink() or target.is_file():
        raise OutputError(f"{target}: a file or link; name a folder")
    names = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    others = [name for name in names if not any(fnmatch(name, ours) for ours in _OURS)]
    if others:
        raise OutputError(
            f"{target}: not empty, and {others[0]} is nothing that finetune writes: name another "
            "folder"
        )
    if names and not force:
        raise OutputError(f"{target}: not empty; --force replaces it")
    check_place(target)


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
        self.splits = read_splits(Path(train), options)
        self.summary = FinetuneSummary(target)
        self.summary.notes += self.task.learn_names(self.splits["train"])
        self.labels = {
            name: self.task.read_labels(rows, rows.sequences) for name, rows in self.splits.items()
        }
        self.summary.notes += leakage(self.splits, self.labels)

    def train(self, model: Any, store: Store | None) -> None:
        """Load a model, train it and, in the leading process, save it."""
        from ernie_rna.training import trainer as training

        task, options = self.task, self.options
        loaded, self.tokenizer, kept = training.load(task, model)
        self.examples = self._encode(loaded.config.max_position_embeddings)
        if not kept:
            task.start_head(loaded, self.labels["train"])
        folder = partial_folder(self.target)
        arguments = training.make_arguments(options, folder, len(self.examples["train"]))
        manifest = self._describe(loaded, arguments)
        with arguments.main_process_first(local=False):
            if store is not None:
                _begin(store, manifest, options)
        self.trainer = training.make_trainer(
            loaded, self.tokenizer, task, arguments, self.examples, self.splits["train"].lines
        )
        weights = [weight.numel() for weight in loaded.parameters() if weight.requires_grad]
        start = time.monotonic()
        training.fit(self.trainer)
        self.summary.facts |= {
            "model": Path(model).name,
            "auto_class": _AUTO_CLASSES.get(task.model_name, "AutoModel"),
            "weights": loaded.num_parameters(),
            "weights_trained": sum(weights),
            "steps": self.trainer.state.global_step,
            "seconds": time.monotonic() - start,
            **{name: manifest[name] for name in ("options", "labels", "splits", "versions")},
        }
        if store is not None:
            self._save()
            store.finish_share()
            store.finish()

    def _encode(self, tokens: int) -> dict[str, list[Example]]:
        """Sequences, cut if that is asked for, and labels as examples."""
        limit = self.options.max_length or tokens - _SPECIAL_TOKENS
        encoded = {}
        for name, rows in self.splits.items():
            if not self.options.truncate:
                check_lengths(rows, rows.sequences, limit)
            longest = limit + _SPECIAL_TOKENS
            ids = self.tokenizer(rows.sequences, truncation=True, max_length=longest)["input_ids"]
            pairs = zip(ids, self.labels[name], strict=True)
            encoded[name] = [self.task.encode(*pair) for pair in pairs]
        return encoded

    def _describe(self, model: Any, arguments: Any) -> dict[str, Any]:
        """What the weights depend on."""
        from ernie_rna.run.provenance import model_sha256, versions

        splits = {
            name: {"rows": len(examples), "sha256": _sha256(examples)}
            for name, examples in self.examples.items()
        }
        if (
            self.task.batch_norms
            and arguments.gradient_accumulation_steps * arguments.world_size > 1
        ):
            self.summary.notes.append(
                f"the head's batch norms see {self.options.batch_size} rows at a time, those of "
                "one batch of one process; --accumulate and more processes do not change that"
            )
        return {
            "format": "ernie-rna finetune",
            "options": self.options.recorded(),
            "labels": self.task.names,
            "splits": splits,
            "model_sha256": model_sha256(model),
            "processes": arguments.world_size,
            "device": arguments.device.type,
            "versions": versions(),
        }

    def _save(self) -> None:
        """The folder, whole; it loads by `trust_remote_code`, code included."""
        from ernie_rna.model.configuration_ernie_rna import AUTO_MAP

        model: Any = self.trainer.model
        log = self.trainer.state.log_history
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
            guess = self.task.guess(self.examples[train], self.examples[name]) if leads() else {}
            if guess:
                self.summary.metrics[f"{name}: {self.task.guess_name}"] = guess
            self.summary.metrics[name] = self.trainer.score(self.examples[name])
        if leads():
            with replacing(self.target / "metrics.json") as path:
                path.write_text(self.summary.as_json() + "\n", encoding="utf-8")
            write_card(self.target, self.summary)


def _begin(store: Store, manifest: dict[str, Any], options: FinetuneOptions) -> None:
    """Have the state of training kept, or resumed if it is of the same run."""
    if options.resume:
        store.begin(manifest)
    elif store.begun and not store.done and not options.force:
        raise OutputError(
            f"{store.folder} has the state of a run that was cut off: --resume resumes it, --force "
            "drops it"
        )
    else:
        store.drop()


def _sha256(examples: list[Example]) -> str:
    return hashlib.sha256(json.dumps(examples, default=str).encode()).hexdigest()


def leakage(splits: Mapping[str, Rows], labels: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """What makes metrics look better than they are, or labels contradict one another."""
    known: dict[str, list[Any]] = defaultdict(list)
    for sequence, label in zip(_folded(splits["train"]), labels["train"], strict=True):
        known[sequence].append(getattr(label, "pairs", label))
    twice = [own for own in known.values() if any(label != own[0] for label in own)]
    if twice:
        yield f"{len(twice)} training sequences stand there twice, with different labels"
    for name, rows in list(splits.items())[1:]:
        count = sum(sequence in known for sequence in _folded(rows))
        if count:
            yield (
                f"{count} of {len(rows)} sequences of {name} are in training as well: its metrics "
                "say less of new sequences than they seem to"
            )


def _folded(rows: Rows) -> list[str]:
    return [sequence.upper().replace("T", "U") for sequence in rows.sequences]
