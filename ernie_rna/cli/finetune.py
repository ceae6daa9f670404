"""`ernie-rna finetune`: labelled sequences in, a trained model and its metrics out."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_rna.cli.checks import check_input, check_model
from ernie_rna.cli.options import MODEL_HELP, add_unknown, new_parser
from ernie_rna.run.outputs import check_output_folder
from ernie_rna.training.settings import Data, Settings

if TYPE_CHECKING:
    from ernie_rna.training.metrics import Metrics
    from ernie_rna.training.tasks import Task

_DESCRIPTION = """\
Fine-tune a model on labelled sequences, by transformers' Trainer (pip install "ernie-rna[train]").

TRAIN is CSV or TSV with a header; for masked-lm FASTA as well, for structure .ct, .bpseq or .dbn
files or a folder of them. What is wrong with it is said before any work begins. OUT_DIR gets the
model, its tokenizer and code, and metrics.json; it loads by trust_remote_code. Metrics stand beside
those of the simplest guess, of structures beside ViennaRNA's.
"""
_EXAMPLES = """\
  ernie-rna finetune MODEL data.tsv OUT --task classification --label-column family \\
      --split-column split --eval-split test
  ernie-rna finetune MODEL train.csv OUT --task regression --label-column mrl --eval-file test.csv
  ernie-rna finetune MODEL rnas.fasta OUT --task masked-lm --mask-pairing pretraining
  ernie-rna finetune MODEL known.tsv OUT --task structure --lora 8 --resume
  ernie-rna finetune MODEL utrs.tsv OUT --task ribosome-loading --label-column mrl
  accelerate launch -m ernie_rna.cli finetune MODEL known.ct/ OUT --task structure --frozen
"""
# The keys of `tasks.TASKS`, those of `head_tasks`, and `masking.PAIRINGS`, which import torch.
TASK_NAMES = (
    *("classification", "multi-label", "regression", "token-classification"),
    *("masked-lm", "structure", "ribosome-loading"),
)
PAIRINGS = ("inference", "pretraining")


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers, "finetune", "train on labelled sequences", _DESCRIPTION, _EXAMPLES
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODEL_HELP)
    add("train", type=Path, metavar="TRAIN", help="table, or other files, see above")
    add("out_dir", type=Path, metavar="OUT_DIR", help="the folder to write")
    names = f"{', '.join(TASK_NAMES[:-1])} or {TASK_NAMES[-1]}"
    add("--task", required=True, choices=TASK_NAMES, metavar="TASK", help=names)
    add("--force", action="store_true", help="write into a folder that is there")
    add("--json", action="store_true", help="print the metrics as JSON")
    _add_data(parser.add_argument_group("data"))
    _add_training(parser.add_argument_group("training"))
    parser.set_defaults(run=run, interrupted="; nothing was saved", shares_work=True)


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--sequence-column", default="sequence", metavar="NAME")
    group.add_argument(
        "--label-column",
        nargs="+",
        metavar="NAME",
        help="label, or dot_bracket of structures, by default; several for several numbers "
        "(regression) or columns of 0 and 1 (multi-label)",
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
    add_unknown(group)


def _add_training(group: argparse._ArgumentGroup) -> None:
    default = Settings()
    group.add_argument("--steps", type=int, help="optimizer steps, in place of --epochs")
    group.add_argument("--epochs", type=float, default=default.epochs, help="(%(default)s)")
    group.add_argument("--batch-size", type=int, default=default.batch_size, help="(%(default)s)")
    group.add_argument(
        "--accumulate", type=int, default=default.accumulate, help="batches a step (%(default)s)"
    )
    group.add_argument(
        "--learning-rate", type=float, default=default.learning_rate, help="(%(default)s)"
    )
    group.add_argument(
        "--weight-decay", type=float, default=default.weight_decay, help="(%(default)s)"
    )
    group.add_argument(
        "--warmup", type=float, default=default.warmup, help="share of the steps (%(default)s)"
    )
    group.add_argument("--frozen", action="store_true", help="train the head alone")
    group.add_argument(
        "--lora",
        type=int,
        metavar="RANK",
        help="train the head and low-rank updates of the encoder, merged into it at the end (peft)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="keep the state of training in OUT_DIR/checkpoints, and go on from it if it is there: "
        "the same command again, after a kill, comes to the same weights",
    )
    group.add_argument(
        "--positive-weight",
        type=float,
        metavar="W",
        help="weight of a pair in the loss, all others have 1 (structure; default: the folder's)",
    )
    group.add_argument("--gradient-checkpointing", action="store_true")
    group.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    group.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    group.add_argument("--seed", type=int, default=default.seed, help="(%(default)s)")
    group.add_argument(
        "--mask-pairing",
        choices=PAIRINGS,
        default="inference",
        help="pairing scores of masked positions: 0, or as in the authors' pretraining -1 on "
        "their rows and columns (masked-lm)",
    )
    group.add_argument("--mask-probability", type=float, default=0.15, help="(masked-lm)")


def run(args: argparse.Namespace) -> int:
    """Train as the arguments say."""
    for path in (args.train, *args.eval_file):
        if not (args.task == "structure" and path.is_dir()):
            check_input(str(path))
    check_model(args.model)
    # The state of a training that was cut off, by its name in `training.finetune`.
    check_output_folder(args.out_dir, args.force, ["checkpoints"] * args.resume)
    # From here on seconds pass.
    import transformers

    from ernie_rna.training import finetune as finetuning
    from ernie_rna.training.from_tables import finetune, leads

    settings = Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})
    finetuning.check_extras(args.lora is not None)
    transformers.logging.disable_progress_bar()
    if args.resume:
        args.interrupted = "; the same command goes on from the state that was kept last"
    scores = finetune(args.model, args.out_dir, _task(args), _data(args), settings)
    if leads():
        _report(args, settings, scores)
    return 0


def _task(args: argparse.Namespace) -> Task:
    from ernie_rna.training.head_tasks import RibosomeLoading, SecondaryStructure
    from ernie_rna.training.tasks import TASKS, LabelFormat, MaskedLM

    if args.task == "masked-lm":
        return MaskedLM(args.mask_pairing, args.mask_probability)
    default = "dot_bracket" if args.task == "structure" else "label"
    columns = tuple(args.label_column or [default])
    format = LabelFormat(columns, args.label_separator, args.ignore_label)
    if args.task == "structure":
        return SecondaryStructure(format, args.positive_weight)
    return {**TASKS, "ribosome-loading": RibosomeLoading}[args.task](format)


def _data(args: argparse.Namespace) -> Data:
    return Data(
        args.train,
        tuple(args.eval_file),
        args.sequence_column,
        args.split_column,
        args.train_split,
        tuple(args.eval_split),
        args.max_length,
        args.truncate,
        args.unknown,
    )


def _report(args: argparse.Namespace, settings: Settings, scores: dict[str, Metrics]) -> None:
    """Print the metrics and write them beside the model."""
    from ernie_rna.training.metrics import format_metrics

    facts = {
        "model": str(args.model),
        "task": args.task,
        "train": str(args.train),
        "settings": asdict(settings),
        "metrics": scores,
    }
    text = json.dumps(facts, indent=2)
    (args.out_dir / "metrics.json").write_text(text + "\n", encoding="utf-8")
    if args.json:
        print(text)
    elif scores:
        print(format_metrics(scores))
    print(f"\nsaved: {args.out_dir}")
