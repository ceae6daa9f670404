"""Fine-tune an ERNIE-RNA on labelled sequences, by transformers' Trainer.

    python scripts/finetune.py ernie-rna data.tsv out --task classification \\
        --label-column family --split-column split --eval-split test
    python scripts/finetune.py ernie-rna train.csv out --task regression \\
        --label-column mrl --eval-file valid.csv test.csv
    python scripts/finetune.py ernie-rna rnas.fasta out --task masked-lm --mask-pairing pretraining

Tables are CSV or TSV with a header. What is wrong with them is said before any work begins. OUT_DIR
gets the model, the tokenizer and metrics.json, and loads by `trust_remote_code`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import transformers

from ernie_rna.scoring.masking import PAIRINGS
from ernie_rna.sequences.fasta import UNKNOWN, InputError
from ernie_rna.training import finetune as finetuning
from ernie_rna.training.finetune import Settings, Split
from ernie_rna.training.metrics import Metrics, format_metrics
from ernie_rna.training.tables import Table, read_sequences
from ernie_rna.training.tasks import TASKS, LabelFormat, MaskedLM, Task


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="a converted folder, or a name on the Hub")
    parser.add_argument("train", type=Path, metavar="TRAIN", help="CSV, TSV or, masked-lm, FASTA")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="the folder to write")
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--force", action="store_true", help="write into a folder that is there")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")
    add_data_options(parser.add_argument_group("data"))
    add_training_options(parser.add_argument_group("training"))
    return parser


def add_data_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--sequence-column", default="sequence", metavar="NAME")
    group.add_argument(
        "--label-column",
        nargs="+",
        default=["label"],
        metavar="NAME",
        help="several for several numbers (regression) or columns of 0 and 1 (multi-label)",
    )
    group.add_argument(
        "--label-separator", default=";", help="between the labels of a cell (multi-label)"
    )
    group.add_argument("--ignore-label", metavar="LABEL", help="of bases that have no label")
    group.add_argument("--split-column", metavar="NAME", help="says which split a row is of")
    group.add_argument("--train-split", default="train", metavar="VALUE")
    group.add_argument("--eval-split", nargs="+", default=[], metavar="VALUE")
    group.add_argument("--eval-file", nargs="+", default=[], type=Path, metavar="FILE")
    group.add_argument("--max-length", type=int, help="nucleotides (default: the model's)")
    group.add_argument("--truncate", action="store_true", help="cut sequences that are longer")
    group.add_argument(
        "--unknown",
        choices=UNKNOWN,
        default="error",
        help="what to do with characters that are no nucleotide codes",
    )


def add_training_options(group: argparse._ArgumentGroup) -> None:
    default = Settings()
    group.add_argument("--steps", type=int, help="optimizer steps, in place of --epochs")
    group.add_argument("--epochs", type=float, default=default.epochs)
    group.add_argument("--batch-size", type=int, default=default.batch_size)
    group.add_argument("--accumulate", type=int, default=default.accumulate, help="batches a step")
    group.add_argument("--learning-rate", type=float, default=default.learning_rate)
    group.add_argument("--weight-decay", type=float, default=default.weight_decay)
    group.add_argument("--warmup", type=float, default=default.warmup, help="share of the steps")
    group.add_argument("--frozen", action="store_true", help="train the head alone")
    group.add_argument("--gradient-checkpointing", action="store_true")
    group.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    group.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    group.add_argument("--seed", type=int, default=default.seed)
    group.add_argument(
        "--mask-pairing",
        choices=PAIRINGS,
        default="inference",
        help="pairing scores of masked positions: 0, or as in the authors' pretraining -1 on "
        "their rows and columns (masked-lm)",
    )
    group.add_argument("--mask-probability", type=float, default=0.15, help="(masked-lm)")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    transformers.logging.disable_progress_bar()
    try:
        finetuning.check_extras()
        finetuning.check_out_dir(arguments.out_dir, arguments.force)
        run(arguments)
    except (InputError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(arguments: argparse.Namespace) -> None:
    settings = Settings(**{f.name: getattr(arguments, f.name) for f in fields(Settings)})
    task = make_task(arguments)
    tables = read_tables(arguments)
    longest = arguments.max_length or finetuning.longest_sequence(arguments.model)
    task.learn_names(next(iter(tables.values())))
    limit = None if arguments.truncate else longest
    options = arguments.sequence_column, arguments.unknown, limit
    data = {name: finetuning.read_split(task, t, *options) for name, t in tables.items()}

    model, tokenizer = finetuning.load(task, arguments.model, settings.seed)
    training, *evaluation = (
        finetuning.encode(task, tokenizer, name, own, longest) for name, own in data.items()
    )
    task.start_head(model, data[training.name][1])
    print_plan(arguments, task, model, [training, *evaluation], settings)
    start = time.monotonic()
    trainer = finetuning.train(task, model, tokenizer, training, settings)
    print(f"trained in {time.monotonic() - start:.0f} s\n")
    scores: dict[str, Metrics] = {}
    for split in evaluation:
        scores[f"{split.name}: guess"] = task.guess(training.examples, split.examples)
        scores[split.name] = finetuning.evaluate(task, trainer, split, settings.seed)
    finetuning.save(model, tokenizer, arguments.out_dir)
    report(arguments, settings, scores)


def make_task(arguments: argparse.Namespace) -> Task:
    if arguments.task == "masked-lm":
        return MaskedLM(arguments.mask_pairing, arguments.mask_probability)
    columns = tuple(arguments.label_column)
    format = LabelFormat(columns, arguments.label_separator, arguments.ignore_label)
    return TASKS[arguments.task](format)


def read_tables(arguments: argparse.Namespace) -> dict[str, Table]:
    """The training rows, then those of each evaluation, by name."""
    whole = read_sequences(arguments.train, arguments.sequence_column, arguments.unknown)
    column = arguments.split_column
    if column is None and arguments.eval_split:
        raise InputError("--eval-split needs --split-column, which says what split a row is of")
    tables = {"train": whole if column is None else whole.split(column, arguments.train_split)}
    tables |= {value: whole.split(column, value) for value in arguments.eval_split}
    for path in arguments.eval_file:
        if path.stem in tables:
            raise InputError(f"{path}: another split is called {path.stem!r}: rename the file")
        tables[path.stem] = read_sequences(path, arguments.sequence_column, arguments.unknown)
    return tables


def print_plan(
    arguments: argparse.Namespace,
    task: Task,
    model: transformers.PreTrainedModel,
    splits: Sequence[Split],
    settings: Settings,
) -> None:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if settings.frozen:
        trained = sum(p.numel() for n, p in model.named_parameters() if n.startswith("classifier"))
    print(f"{arguments.task}: {', '.join(f'{s.name} {len(s.examples):,}' for s in splits)}")
    if task.names:
        print(f"labels ({len(task.names)}): {', '.join(task.names[:20])}")
    print(f"{trained:,} of {model.num_parameters():,} weights are trained\n")


def report(arguments: argparse.Namespace, settings: Settings, scores: dict[str, Metrics]) -> None:
    """Print the metrics and write them beside the model."""
    facts = {
        "model": str(arguments.model),
        "task": arguments.task,
        "train": str(arguments.train),
        "settings": asdict(settings),
        "metrics": scores,
    }
    text = json.dumps(facts, indent=2)
    (arguments.out_dir / "metrics.json").write_text(text + "\n", encoding="utf-8")
    if arguments.json:
        print(text)
    elif scores:
        print(format_metrics(scores))
    print(f"\nsaved: {arguments.out_dir}")


if __name__ == "__main__":
    sys.exit(main())
