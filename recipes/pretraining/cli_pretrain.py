"""`ernie-rna pretrain`: a config and a file of RNAs in, checkpoints of a new model out."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_rna.cli.checks import check_input
from ernie_rna.cli.options import at_least_one, new_parser
from ernie_rna.data import CONFIGS, find_config

if TYPE_CHECKING:
    from recipes.pretraining.data import Read, Rna
    from recipes.pretraining.settings import Settings

_DESCRIPTION = f"""\
Pretrain an ERNIE-RNA from nothing, by transformers' Trainer (pip install "ernie-rna[train]").

CONFIG is a JSON file of settings, or one that comes along ({", ".join(CONFIGS)}).
RNAS is a table, .tsv, .tsv.gz or .parquet, with the columns id, sequence, dot_bracket, family and
split, or a FASTA file, which is for masked language modelling alone. A FASTA file is streamed, a
table with --stream. RUN gets the checkpoints, the log and, where matplotlib is installed, a picture
of it. `ernie-rna export-pretrained` makes a model of it.
"""
_EXAMPLES = """\
  ernie-rna pretrain mini rfam_seed.tsv.gz runs/mini
  ernie-rna pretrain mini rfam_seed.tsv.gz runs/mini --resume
  torchrun --nproc-per-node 2 -m ernie_rna.cli pretrain mini rfam_seed.tsv.gz runs/mini --cpu
  accelerate launch -m ernie_rna.cli pretrain paper rnas.fasta RUN --eval-fasta others.fasta
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(subparsers, "pretrain", "train a new model", _DESCRIPTION, _EXAMPLES)
    add = parser.add_argument
    add("config", metavar="CONFIG", help="settings, see above")
    add("rnas", type=Path, metavar="RNAS", help="a table or a FASTA file")
    add("folder", type=Path, metavar="RUN", help="folder for checkpoints and log")
    add("--stream", action="store_true", help="read RNAS over and over in its order, not at once")
    add("--train-split", default="train", metavar="VALUE")
    add("--eval-split", default="validation", metavar="VALUE")
    add("--eval-fasta", type=Path, metavar="FILE", help="in place of the split")
    add("--leave-out", type=Path, metavar="FILE", help="ids not to train on")
    add("--predicted", type=Path, metavar="TABLE", help="RNAS' like, of predicted structures")
    add("--start-from", type=Path, metavar="RUN", help="begin with the weights of another run")
    add("--resume", action="store_true", help="go on from the last checkpoint")
    add("--steps", type=at_least_one, metavar="N", help="in place of the config's")
    add("--cpu", action="store_true", help="leave a GPU alone")
    parser.set_defaults(run=run, shares_work=True)
    parser.set_defaults(interrupted="; --resume goes on from the last checkpoint")


def run(args: argparse.Namespace) -> int:
    """Train as the arguments say."""
    from ernie_rna.sequences.fasta import InputError
    from recipes.pretraining.checkpoints import last_checkpoint
    from recipes.pretraining.settings import read_settings

    settings = read_settings(find_config(args.config))
    if args.steps is not None:
        settings = replace(settings, steps=args.steps)
    if (args.predicted is None) != (settings.structure.predicted == 0):
        raise InputError(
            f"{args.config}: structure.predicted is {settings.structure.predicted}; it is above 0 "
            "with --predicted, and with it alone"
        )
    _check_stream(args, settings)
    for path in (args.rnas, args.eval_fasta, args.leave_out, args.predicted):
        if path is not None:
            check_input(str(path))
    start = None if args.start_from is None else last_checkpoint(args.start_from)
    if args.start_from is not None and start is None:
        raise InputError(f"{args.start_from}: has no whole checkpoint to begin with")
    if last_checkpoint(args.folder) is not None and not args.resume:
        raise InputError(f"{args.folder}: has checkpoints; --resume goes on from the last")
    training, evaluation = _training(args), _evaluation(args)
    # From here on seconds pass.
    from ernie_rna.extras import import_extra

    import_extra("accelerate", "train", "pretraining")
    from recipes.pretraining.initial_weights import model_of
    from recipes.pretraining.trainer import pretrain

    model = None if start is None else model_of(start, settings)
    args.folder.mkdir(parents=True, exist_ok=True)
    pretrain(settings, training, evaluation, args.folder, cpu=args.cpu, model=model)
    return 0


def _check_stream(args: argparse.Namespace, settings: Settings) -> None:
    from ernie_rna.sequences.fasta import InputError
    from recipes.pretraining.data import is_table

    if not is_table(args.rnas) and settings.masked_lm.fraction < 1:
        raise InputError(
            f"{args.rnas}: FASTA has no structures; set masked_lm.fraction to 1 in {args.config}"
        )
    if not args.stream:
        return
    if args.predicted is not None:
        raise InputError("--predicted is for tables in memory; put all rows into one for --stream")
    if settings.family_power != 1:
        raise InputError(
            f"{args.config}: family_power is {settings.family_power}; with --stream families come "
            "as often as in the file, which is family_power 1"
        )


def _training(args: argparse.Namespace) -> list[Rna] | Read:
    from recipes.pretraining.data import (
        is_table,
        iterate_table,
        read_ids,
        read_table,
        stream_fasta,
    )

    if not is_table(args.rnas):
        return stream_fasta(args.rnas)
    leave_out = read_ids(args.leave_out)
    if args.stream:
        return lambda: iterate_table(args.rnas, args.train_split, leave_out)
    rnas = read_table(args.rnas, args.train_split, leave_out)
    if args.predicted is None:
        return rnas
    return rnas + read_table(args.predicted, args.train_split, predicted=True)


def _evaluation(args: argparse.Namespace) -> list[Rna]:
    from ernie_rna.sequences.fasta import InputError
    from recipes.pretraining.data import is_table, read_table, stream_fasta

    if args.eval_fasta is not None:
        return list(stream_fasta(args.eval_fasta)())
    if not is_table(args.rnas):
        raise InputError(f"{args.rnas}: has no splits; name a file by --eval-fasta")
    return read_table(args.rnas, args.eval_split)
