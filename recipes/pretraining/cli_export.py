"""`ernie-rna export-pretrained`: a run of `pretrain` in, a folder for the Hub out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ernie_rna.cli.checks import check_input
from ernie_rna.cli.options import at_least_one, new_parser
from ernie_rna.convert.folder import check_target

_DESCRIPTION = """\
Make a folder for the Hub of the last checkpoint of `ernie-rna pretrain`.

The moving average of the weights is what is exported, in float16. The offset and the threshold of
structure prediction are those with the best mean F1 on the validation split, of RNAs with pairs.
"""
_EXAMPLES = """\
  ernie-rna export-pretrained runs/mini rfam_seed.tsv.gz out --card card.md
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers, "export-pretrained", "a model of a pretraining", _DESCRIPTION, _EXAMPLES
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="RUN", help="folder of the pretraining")
    add("table", type=Path, metavar="TABLE", help="table with the validation split")
    add("out_dir", type=Path, metavar="OUT_DIR", help="folder to write; an earlier export goes")
    add("--card", type=Path, required=True, metavar="FILE", help="the model card, in Markdown")
    add("--split", default="validation", metavar="VALUE")
    add("--sequences", type=at_least_one, default=300, metavar="N", help="of the split (300)")
    add("--family-power", type=float, default=0.5, metavar="P", help="as in the config (0.5)")
    add("--max-length", type=at_least_one, default=500, metavar="NT", help="of a sequence (500)")
    parser.set_defaults(run=run, interrupted="; nothing was written")


def run(args: argparse.Namespace) -> int:
    """Export as the arguments say."""
    from ernie_rna.sequences.fasta import InputError
    from recipes.pretraining.checkpoints import last_checkpoint
    from recipes.pretraining.data import read_table, with_pairs

    checkpoint = last_checkpoint(args.folder)
    if checkpoint is None:
        raise InputError(f"{args.folder}: has no whole checkpoint")
    check_target(args.out_dir, force=True)
    for path in (args.table, args.card):
        check_input(str(path))
    card = args.card.read_text(encoding="utf-8")
    rnas = read_table(args.table, args.split)
    rnas = list(with_pairs(rnas, f"{args.table}, {args.split}", args.max_length))
    # From here on seconds pass.
    from recipes.pretraining.ema import load_average
    from recipes.pretraining.evaluation import draw_sample
    from recipes.pretraining.export import calibrate, export_pretrained

    rnas = draw_sample(rnas, args.family_power, args.sequences)
    model = load_average(checkpoint)
    found = calibrate(model, rnas)
    print(
        f"{checkpoint.name}: offset {found.offset:g}, threshold {found.threshold:g}: "
        f"mean F1 {found.f1:.4f} on {len(rnas)} sequences of {args.split}"
    )
    export_pretrained(model, found, args.out_dir, card)
    return 0
