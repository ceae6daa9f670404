"""Mean precision, recall and F1 of a model's pair head on known structures.

    python scripts/evaluate_pair_head.py mini rfam_seed.tsv.gz --split validation
    python scripts/evaluate_pair_head.py mini bprna_new.tsv --split bpRNA-new -o scores.tsv

Means are over sequences, as in `ernie-rna evaluate`; the threshold is that of the model's config.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ernie_rna.pretraining.data import Rna, read_table
from ernie_rna.pretraining.evaluation import score_structures
from ernie_rna.pretraining.export import pair_logits
from ernie_rna.sequences.fasta import InputError
from ernie_rna.shipped import resolve_model
from modeling_ernie_rna import ErnieRnaForPreTraining

_BINS = (0, 75, 100, 150, 200, 300, 10**6)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="folder with a pair head, or mini")
    parser.add_argument("table", type=Path, metavar="TABLE", help="TSV, may be gzipped")
    parser.add_argument("--split", required=True, metavar="VALUE", help="rows of the split column")
    parser.add_argument("--part", default="0/1", metavar="I/N", help="every N-th row from I on")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="scores by sequence, TSV")
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
    model = ErnieRnaForPreTraining.from_pretrained(resolve_model(args.model)).float().eval()
    start, step = map(int, args.part.split("/"))
    rows = []
    for rnas, logits in pair_logits(model, read_table(args.table, args.split)[start::step]):
        scores = score_structures(rnas, logits, model.config.pair_threshold)
        rows += [(r, s.precision, s.recall, s.f1) for r, s in zip(rnas, scores, strict=True)]
    report(rows)
    if args.out is not None:
        with args.out.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(["id", "family", "length", "precision", "recall", "f1"])
            for rna, *values in rows:
                cells = [f"{value:.6f}" for value in values]
                writer.writerow([rna.id, rna.family, len(rna.sequence), *cells])


def report(rows: Sequence[tuple[Rna, float, float, float]]) -> None:
    """Print means over all rows, over families, and by length."""
    print("which\tsequences\tprecision\trecall\tF1")
    _line("all", rows)
    families = {row[0].family for row in rows}
    means = [np.mean([r[3] for r in rows if r[0].family == family]) for family in families]
    print(f"mean of families\t{len(families)}\t\t\t{np.mean(means):.4f}")
    for low, high in itertools.pairwise(_BINS):
        _line(f"{low + 1} to {high} nt", [r for r in rows if low < len(r[0].sequence) <= high])


def _line(name: str, rows: Sequence[tuple[Rna, float, float, float]]) -> None:
    if rows:
        means = np.mean([row[1:] for row in rows], axis=0)
        print(f"{name}\t{len(rows)}\t" + "\t".join(f"{mean:.4f}" for mean in means))


if __name__ == "__main__":
    sys.exit(main())
