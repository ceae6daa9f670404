"""Pretrain an ERNIE-RNA from a config and a table of RNAs, by transformers' Trainer.

python scripts/pretrain.py configs/mini.json rfam_seed.tsv.gz runs/mini
python scripts/pretrain.py configs/mini.json rfam_seed.tsv.gz runs/mini --resume
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ernie_rna.pretraining.data import Rna, is_table, read_table, stream_fasta
from ernie_rna.pretraining.settings import read_settings
from ernie_rna.pretraining.trainer import last_checkpoint, pretrain
from ernie_rna.sequences.fasta import InputError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a JSON file of settings")
    parser.add_argument("rnas", type=Path, metavar="RNAS", help="a table or a FASTA file")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder for checkpoints and log")
    parser.add_argument("--train-split", default="train", metavar="VALUE")
    parser.add_argument("--eval-split", default="validation", metavar="VALUE")
    parser.add_argument("--eval-fasta", type=Path, metavar="FILE", help="in place of the split")
    parser.add_argument("--leave-out", type=Path, metavar="FILE", help="ids not to train on")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--steps", type=int, help="in place of the config's")
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        run(args)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(args: argparse.Namespace) -> None:
    settings = read_settings(args.config)
    if args.steps is not None:
        settings = replace(settings, steps=args.steps)
    if last_checkpoint(args.run) is not None and not args.resume:
        raise InputError(f"{args.run}: has checkpoints; --resume goes on from the last")
    args.run.mkdir(parents=True, exist_ok=True)
    pretrain(settings, _training(args), _evaluation(args), args.run, cpu=args.cpu)


def _training(args: argparse.Namespace) -> list[Rna] | Path:
    if not is_table(args.rnas):
        return Path(args.rnas)
    left_out = frozenset(args.leave_out.read_text().split()) if args.leave_out else frozenset()
    return read_table(args.rnas, args.train_split, left_out)


def _evaluation(args: argparse.Namespace) -> list[Rna]:
    if args.eval_fasta is not None:
        return list(stream_fasta(args.eval_fasta)())
    if not is_table(args.rnas):
        raise InputError(f"{args.rnas}: has no splits; name a file by --eval-fasta")
    return read_table(args.rnas, args.eval_split)


if __name__ == "__main__":
    sys.exit(main())
