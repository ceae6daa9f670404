"""Make the probabilities of a model's structure head come true, and show how far they do.

    python -m scripts.calibrate_pairs FOLDER rfam_seed.tsv.gz --split validation

Into FOLDER's config.json go `pair_calibration`, the line from logits to log-odds, and, where
ViennaRNA is installed, `pair_prior`, the weight and offset with which its log-odds are added to the
logits, of those tried the ones with the best mean F1, and `pair_prior_calibration`, the line over
both. All are fitted on half of the split's families. The reliability diagrams are of the pairs that
are predicted for the other families: how often such a pair is in the known structure.
"""

import argparse
import importlib.util
import itertools
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.model import structures_ernie_rna as structures
from ernie_rna.model.configuration_ernie_rna import WITH_PAIR_HEAD
from ernie_rna.run.find_model import find_model
from ernie_rna.run.loading import has_head, read_config
from ernie_rna.run.outputs import replacing
from ernie_rna.structures.confidence import expected_calibration_error, fit_calibration, reliability
from ernie_rna.structures.evaluation import score_pairs
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.dot_bracket import BasePair
from ernie_rna.structures.prior import VIENNA, Prior
from recipes.pretraining.rnas import Rna, read_table, with_pairs
from scripts.measuring import print_table

WEIGHTS, OFFSETS = (0.2, 0.3, 0.4, 0.5), (0.25, 0.5, 0.75, 1.0)

# Of an RNA the logits and the prior's log-odds, (2, length, length).
Maps = list[tuple[Rna, np.ndarray]]


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
    config: Any = read_config(source)
    if not has_head(source, config, *WITH_PAIR_HEAD):
        raise ValueError(f"{args.folder} has no head for structures, whose logits are calibrated")
    what = f"{args.table}, {args.split}"
    rnas = list(with_pairs(read_table(args.table, args.split), what, args.max_length))
    has_prior = importlib.util.find_spec("RNA") is not None
    parts = halves(rnas, args.per_family)
    fitted, others = (collect(args.folder, half, has_prior) for half in parts)
    print(f"{len(fitted)} and {len(others)} sequences of {args.split}")
    evidence, known = pairs_of(fitted)
    slope, offset = line = fit_calibration(evidence[:, :1], known)
    found: dict[str, Sequence[float]] = {"pair_calibration": line}
    print(f"log-odds = {slope:.4f} x logit {offset:+.4f}")
    show(others, config, (0.0, 0.0), (slope, 0.0, offset))
    if has_prior:
        priors = itertools.product(WEIGHTS, OFFSETS)
        tried = {prior: mean_f1(fitted, config, prior) for prior in priors}
        best = max(tried, key=lambda prior: tried[prior])
        calibrated = np.stack([slope * evidence[:, 0] + offset, evidence[:, 1]], axis=1)
        mine, prior, rest = line = fit_calibration(calibrated, known)
        found |= {"pair_prior": best, "pair_prior_calibration": line}
        print(f"\nlogit + {best[0]} x log-odds of ViennaRNA + {best[1]}: F1 {tried[best]:.3f}")
        print(f"log-odds = {mine:.4f} x log-odds {prior:+.4f} x those of ViennaRNA {rest:+.4f}")
        show(others, config, best, (mine * slope, prior, mine * offset + rest))
    if not args.dry_run:
        path = args.folder / "config.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        values |= {name: [round(one, 6) for one in line] for name, line in found.items()}
        with replacing(path) as new:
            new.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
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


def collect(folder: Path, rnas: Sequence[Rna], has_prior: bool) -> Maps:
    """The maps of the RNAs whose logits are finite; without a prior, zeros for it."""
    prior = Prior(VIENNA) if has_prior else None
    folded = fold(rnas, folder, matrix="scores", min_loop=structures.MIN_LOOP)
    return [
        (rna, np.stack([one.matrix, prior.log_odds(rna) if prior else 0 * one.matrix]))
        for rna, one in zip(rnas, folded, strict=True)
        if one.matrix is not None
    ]


def pairs_of(maps: Maps, chosen: Sequence[list[BasePair]] | None = None) -> tuple[np.ndarray, ...]:
    """Evidence of pairs, (pairs, 2), and whether each is known: of all that may be, or some."""
    evidence, are_known = [np.empty((0, 2))], [np.empty(0, bool)]
    for number, (rna, both) in enumerate(maps):
        known = np.zeros(both.shape[1:], dtype=bool)
        known[tuple(np.array(rna.pairs).T)] = True
        if chosen is None:
            (allowed,) = structures.allowed_pairs([rna.sequence], min_loop=structures.MIN_LOOP)
            i, j = allowed.triu(1).numpy().nonzero()
        else:
            i, j = np.array(chosen[number], dtype=int).reshape(-1, 2).T
        evidence.append(both[:, i, j].T)
        are_known.append(known[i, j])
    return np.concatenate(evidence), np.concatenate(are_known)


def predict(maps: Maps, config: Any, prior: Sequence[float]) -> list[list[BasePair]]:
    """The pairs of `ernie-rna fold`, with weight and offset of the prior."""
    found: list[list[BasePair]] = []
    for rna, (logits, log_odds) in maps:
        scores = torch.from_numpy(logits + prior[0] * log_odds + prior[1]).float()[None]
        how: Any = {"threshold": config.pair_threshold, "min_loop": structures.MIN_LOOP}
        contacts: Any = structures.solve_each(scores, [rna.sequence], **how)[0]
        found.append([])
        if not isinstance(contacts, str):  # why there are none
            found[-1] = structures.predict_pairs(contacts, min_stem=structures.MIN_STEM)
    return found


def mean_f1(maps: Maps, config: Any, prior: Sequence[float]) -> float:
    both = zip(maps, predict(maps, config, prior), strict=True)
    return float(np.mean([score_pairs(pairs, rna.pairs).f1 for (rna, _), pairs in both]))


def show(maps: Maps, config: Any, prior: Sequence[float], weights: Sequence[float]) -> None:
    """Print the reliability diagram of the pairs that are predicted."""
    evidence, known = pairs_of(maps, predict(maps, config, prior))
    if not len(evidence):
        raise ValueError("no pair is predicted for the other half, so there is nothing to look at")
    log_odds = evidence @ np.array(weights[:2]) + weights[2]
    bins = reliability(1 / (1 + np.exp(-log_odds)), known)
    error = expected_calibration_error(bins)
    print(f"predicted pairs of the other half, calibration error {error:.3f}:\n")
    rows = [
        (f"{b.low:.1f} to {b.high:.1f}", b.count, f"{b.predicted:.3f}", f"{b.known:.3f}")
        for b in bins
    ]
    print_table(["probability", "pairs", "mean probability", "in the known structure"], rows)


if __name__ == "__main__":
    sys.exit(main())
