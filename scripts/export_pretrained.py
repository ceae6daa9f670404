"""Make a folder for the Hub of a pretraining's last checkpoint.

    python scripts/export_pretrained.py runs/mini rfam_seed.tsv.gz out --card card.md

The moving average of the weights is what is exported, in float16. The offset and the threshold of
structure prediction are those with the best mean F1 on the validation split.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ernie_rna.pretraining.data import read_table
from ernie_rna.pretraining.evaluation import draw_sample
from ernie_rna.pretraining.export import calibrate, export_pretrained, load_average
from ernie_rna.pretraining.trainer import last_checkpoint
from ernie_rna.sequences.fasta import InputError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the pretraining")
    parser.add_argument("table", type=Path, metavar="TABLE", help="TSV with the validation split")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    parser.add_argument("--card", type=Path, required=True, help="the model card, in Markdown")
    parser.add_argument("--split", default="validation", metavar="VALUE")
    parser.add_argument("--sequences", type=int, default=300, help="of the split")
    parser.add_argument("--family-power", type=float, default=0.5, help="as in the config")
    parser.add_argument("--max-length", type=int, default=500, help="nucleotides, for calibration")
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
    checkpoint = last_checkpoint(args.run)
    if checkpoint is None:
        raise InputError(f"{args.run}: has no whole checkpoint")
    card = args.card.read_text(encoding="utf-8")
    rnas = [r for r in read_table(args.table, args.split) if len(r.sequence) <= args.max_length]
    rnas = draw_sample(rnas, args.family_power, min(args.sequences, len(rnas)))
    model = load_average(checkpoint)
    found = calibrate(model, rnas)
    print(
        f"{checkpoint.name}: offset {found.offset:g}, threshold {found.threshold:g}: "
        f"mean F1 {found.f1:.4f} on {len(rnas)} sequences of {args.split}"
    )
    export_pretrained(model, found, args.out_dir, card)


if __name__ == "__main__":
    sys.exit(main())
