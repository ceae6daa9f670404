"""Make the probabilities of a model's structure head come true, and show how far they do.

    python scripts/calibrate_pairs.py FOLDER rfam_seed.tsv.gz --split validation

The line from logits to log-odds is fitted on half of the split's families and goes into FOLDER's
config.json as `pair_calibration`. The reliability diagram is of the pairs that are predicted for
the other families: how often a pair with such a probability is in the known structure.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.model.structures_ernie_rna import allowed_pairs
from ernie_rna.run.find_model import find_model
from ernie_rna.run.loading import has_head, read_config
from ernie_rna.run.outputs import replacing
from ernie_rna.structures.calibration import (
    expected_calibration_error,
    fit_calibration,
    reliability,
)
from ernie_rna.structures.fold import fold
from ernie_rna.structures.pairing_maps import WITH_HEAD
from recipes.pretraining.rnas import Rna, read_table, with_pairs
from scripts.measuring import print_table

MIN_LOOP = 3

# Logits of pairs, and whether each is in the known structure; of all that may pair, and of those
# that are predicted.
Pairs = tuple[np.ndarray, np.ndarray]


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="a model with such a head")
    add("table", type=Path, metavar="TABLE", help="with known structures, as for pretraining")
    add("--split", default="validation", metavar="VALUE", help="rows of it (validation)")
    add("--per-family", type=int, default=5, metavar="N", help="sequences of each family (5)")
    add("--max-length", type=int, default=200, metavar="NT", help="of a sequence (200)")
    add("--dry-run", action="store_true", help="leave config.json as it is")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    source = find_model(args.folder)
    if not has_head(source, read_config(source), *WITH_HEAD):
        raise ValueError(f"{args.folder} has no head for structures, whose logits are calibrated")
    what = f"{args.table}, {args.split}"
    rnas = list(with_pairs(read_table(args.table, args.split), what, args.max_length))
    fitted, others = halves(rnas, args.per_family)
    line = fit_calibration(*collect(args.folder, fitted)[0])
    logits, known = collect(args.folder, others)[1]
    if not len(logits):
        raise ValueError("no pair is predicted for the other half, so there is nothing to look at")
    bins = reliability(1 / (1 + np.exp(-(line.slope * logits + line.offset))), known)
    print(
        f"{len(fitted)} and {len(others)} sequences of {args.split}\n"
        f"log-odds = {line.slope:.4f} x logit {line.offset:+.4f}\n"
        "predicted pairs of the other half, expected calibration error "
        f"{expected_calibration_error(bins):.3f}:\n"
    )
    print_table(
        ["probability", "pairs", "mean probability", "in the known structure"],
        (
            [
                f"{one.low:.1f} to {one.high:.1f}",
                one.count,
                f"{one.predicted:.3f}",
                f"{one.known:.3f}",
            ]
            for one in bins
        ),
    )
    if not args.dry_run:
        path = args.folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config["pair_calibration"] = [round(line.slope, 6), round(line.offset, 6)]
        with replacing(path) as new:
            new.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0


def halves(rnas: Sequence[Rna], per_family: int) -> tuple[list[Rna], list[Rna]]:
    """Some sequences of each family, every other family in one half and the rest in the other.

    Raises:
        ValueError: there is just one family.
    """
    drawing = random.Random(0)
    families: dict[str, list[Rna]] = {}
    for rna in rnas:
        families.setdefault(rna.family, []).append(rna)
    if len(families) < 2:
        raise ValueError("calibration needs two families at least, one to fit and one to look at")
    order = sorted(families)
    drawing.shuffle(order)
    parts: tuple[list[Rna], list[Rna]] = ([], [])
    for number, family in enumerate(order):
        mine = families[family]
        parts[number % 2].extend(drawing.sample(mine, min(per_family, len(mine))))
    return parts


def collect(folder: Path, rnas: Sequence[Rna]) -> tuple[Pairs, Pairs]:
    """The pairs that may be, and those that are predicted, of all sequences."""
    may_be: list[np.ndarray] = []
    predicted: list[np.ndarray] = []
    folded = fold(rnas, folder, matrix="scores", min_loop=MIN_LOOP)
    for rna, one in zip(rnas, folded, strict=True):
        if one.matrix is None:
            continue
        known = np.zeros(one.matrix.shape, dtype=bool)
        known[tuple(np.array(rna.pairs).T)] = True
        both = np.stack([one.matrix, known])  # (2, length, length)
        allowed = allowed_pairs([rna.sequence], min_loop=MIN_LOOP)[0].triu(1).numpy()
        may_be.append(both[:, allowed])
        chosen = np.array(one.structure.pairs, dtype=int).reshape(-1, 2).T
        predicted.append(both[:, chosen[0], chosen[1]])
    return _joined(may_be), _joined(predicted)


def _joined(parts: list[np.ndarray]) -> Pairs:
    logits, known = np.concatenate([np.empty((2, 0)), *parts], axis=1)
    return logits, known > 0


if __name__ == "__main__":
    sys.exit(main())
