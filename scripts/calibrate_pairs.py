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

from ernie_rna.run.outputs import write_atomically
from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.calibration import (
    Bin,
    Calibration,
    expected_calibration_error,
    fit_calibration,
    reliability,
)
from ernie_rna.structures.contacts import allowed_pairs
from ernie_rna.structures.fold import fold
from ernie_rna.structures.pairing_maps import reads_head
from recipes.pretraining.data import Rna, read_table, with_pairs

MIN_LOOP = 3

# Logits of pairs, and whether each is in the known structure; of all that may pair, and of those
# that are predicted.
Pairs = tuple[np.ndarray, np.ndarray]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a model with such a head")
    parser.add_argument("table", type=Path, metavar="TABLE", help="TSV with the known structures")
    parser.add_argument("--split", default="validation", metavar="VALUE")
    parser.add_argument("--per-family", type=int, default=5, help="sequences of each family")
    parser.add_argument("--max-length", type=int, default=200, help="nucleotides")
    parser.add_argument("--dry-run", action="store_true", help="leave config.json as it is")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        run(args)
    except (InputError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(args: argparse.Namespace) -> None:
    if not reads_head(args.folder, None, None):
        raise ValueError(f"{args.folder} has no head for structures, whose logits are calibrated")
    table = read_table(args.table, args.split)
    rnas = list(with_pairs(table, f"{args.table}, {args.split}", args.max_length))
    fitted, others = halves(rnas, args.per_family)
    (logits, known), _ = collect(args.folder, fitted)
    line = fit_calibration(logits, known)
    _, (logits, known) = collect(args.folder, others)
    bins = reliability(1 / (1 + np.exp(-(line.slope * logits + line.offset))), known)
    print(f"{len(fitted)} and {len(others)} sequences of {args.split}")
    print(report(line, bins))
    if not args.dry_run:
        write(line, args.folder / "config.json")


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
    sequences = {str(number): rna.sequence for number, rna in enumerate(rnas)}
    may_be: list[np.ndarray] = []
    predicted: list[np.ndarray] = []
    for rna, folded in zip(
        rnas, fold(sequences, folder, matrix="scores", min_loop=MIN_LOOP), strict=True
    ):
        if folded.matrix is None:
            continue
        known = np.zeros(folded.matrix.shape, dtype=bool)
        known[tuple(np.array(rna.pairs).T)] = True
        both = np.stack([folded.matrix, known])  # (2, length, length)
        allowed = allowed_pairs([rna.sequence], min_loop=MIN_LOOP)[0].triu(1).numpy()
        may_be.append(both[:, allowed])
        chosen = np.array(folded.structure.pairs, dtype=int).reshape(-1, 2).T
        predicted.append(both[:, chosen[0], chosen[1]])
    return _joined(may_be), _joined(predicted)


def _joined(parts: list[np.ndarray]) -> Pairs:
    logits, known = np.concatenate(parts, axis=1)
    return logits, known > 0


def report(line: Calibration, bins: list[Bin]) -> str:
    """The line, the error and the reliability diagram as a table."""
    rows = [
        f"| {one.low:.1f} to {one.high:.1f} | {one.count} | {one.predicted:.3f} | {one.known:.3f} |"
        for one in bins
    ]
    return "\n".join(
        [
            f"log-odds = {line.slope:.4f} x logit {line.offset:+.4f}",
            "predicted pairs of the other half, expected calibration error "
            f"{expected_calibration_error(bins):.3f}:",
            "",
            "| probability | pairs | mean probability | in the known structure |",
            "|---|--:|--:|--:|",
            *rows,
        ]
    )


def write(line: Calibration, path: Path) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config["pair_calibration"] = [round(line.slope, 6), round(line.offset, 6)]
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    write_atomically(path, text.encode("utf-8"))


if __name__ == "__main__":
    sys.exit(main())
