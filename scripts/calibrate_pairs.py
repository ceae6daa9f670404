"""Calibrate the pair probabilities of a model's structure head, and measure the calibration.

    python -m scripts.calibrate_pairs FOLDER rfam_seed.tsv.gz --split validation

The script writes to FOLDER's config.json: `pair_calibration`, the line from logits to log-odds; and
if ViennaRNA is installed, `pair_prior`, the weight and offset with which its log-odds are added to
the logits (those with the best mean F1 of the values tried), and `pair_prior_calibration`, the line
from both to log-odds. All are fitted on half of the split's families. The reliability diagrams show
how many of the pairs that are predicted for the other families are in the known structure.
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

# An RNA, and its logits and the prior's log-odds, (2, length, length).
Maps = list[tuple[Rna, np.ndarray]]


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="a model with a structure head")
    add("table", type=Path, metavar="TABLE", help="known structures, as for pretraining")
    add("--split", default="validation", metavar="VALUE", help="rows of TABLE to use (validation)")
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
        raise ValueError(f"{args.folder} has no head for structures: name a model that has one")
    what = f"{args.table}, {args.split}"
    rnas = list(with_pairs(read_table(args.table, args.split), what, args.max_length))
    has_prior = importlib.util.find_spec("RNA") is not None
    parts = halves(rnas, args.per_family)
    fitting, held_out = (collect(args.folder, half, has_prior) for half in parts)
    print(f"{len(fitting)} and {len(held_out)} sequences of {args.split}")
    evidence, known = pairs_of(fitting)
    slope, offset = line = fit_calibration(evidence[:, :1], known)
    fits: dict[str, Sequence[float]] = {"pair_calibration": line}
    print(f"log-odds = {slope:.4f} x logit {offset:+.4f}")
    show(held_out, config, (0.0, 0.0), (slope, 0.0, offset))
    if has_prior:
        priors = itertools.product(WEIGHTS, OFFSETS)
        f1 = {prior: mean_f1(fitting, config, prior) for prior in priors}
        best = max(f1, key=lambda prior: f1[prior])
        calibrated = np.stack([slope * evidence[:, 0] + offset, evidence[:, 1]], axis=1)
        head, prior, constant = line = fit_calibration(calibrated, known)
        fits |= {"pair_prior": best, "pair_prior_calibration": line}
        print(f"\nlogit + {best[0]} x log-odds of ViennaRNA + {best[1]}: F1 {f1[best]:.3f}")
        print(f"log-odds = {head:.4f} x log-odds {prior:+.4f} x those of ViennaRNA {constant:+.4f}")
        show(held_out, config, best, (head * slope, prior, head * offset + constant))
    if not args.dry_run:
        path = args.folder / "config.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        values |= {name: [round(number, 6) for number in fit] for name, fit in fits.items()}
        with replacing(path) as new:
            new.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0


def halves(rnas: Sequence[Rna], per_family: int) -> tuple[list[Rna], list[Rna]]:
    """Sample sequences of each family; the families are divided at random into two halves.

    Raises:
        ValueError: there are fewer than two families.
    """
    generator = random.Random(0)
    families: dict[str, list[Rna]] = {}
    for rna in rnas:
        families.setdefault(rna.family, []).append(rna)
    if len(families) < 2:
        raise ValueError("calibration needs at least two families, one to fit and one to evaluate")
    order = sorted(families)
    generator.shuffle(order)
    parts: tuple[list[Rna], list[Rna]] = ([], [])
    for number, family in enumerate(order):
        members = families[family]
        parts[number % 2].extend(generator.sample(members, min(per_family, len(members))))
    return parts


def collect(folder: Path, rnas: Sequence[Rna], has_prior: bool) -> Maps:
    """The maps of the RNAs whose logits are finite; without a prior, its log-odds are zeros."""
    prior = Prior(VIENNA) if has_prior else None
    folds = fold(rnas, folder, matrix="scores", min_loop=structures.MIN_LOOP)
    return [
        (rna, np.stack([folded.matrix, prior.log_odds(rna) if prior else 0 * folded.matrix]))
        for rna, folded in zip(rnas, folds, strict=True)
        if folded.matrix is not None
    ]


def pairs_of(maps: Maps, chosen: Sequence[list[BasePair]] | None = None) -> tuple[np.ndarray, ...]:
    """Evidence of the chosen pairs, or of all possible ones, (pairs, 2); whether each is known."""
    evidence, are_known = [np.empty((0, 2))], [np.empty(0, bool)]
    for number, (rna, values) in enumerate(maps):
        known = np.zeros(values.shape[1:], dtype=bool)
        known[tuple(np.array(rna.pairs).T)] = True
        if chosen is None:
            (allowed,) = structures.allowed_pairs([rna.sequence], min_loop=structures.MIN_LOOP)
            i, j = allowed.triu(1).numpy().nonzero()
        else:
            i, j = np.array(chosen[number], dtype=int).reshape(-1, 2).T
        evidence.append(values[:, i, j].T)
        are_known.append(known[i, j])
    return np.concatenate(evidence), np.concatenate(are_known)


def predict(maps: Maps, config: Any, prior: Sequence[float]) -> list[list[BasePair]]:
    """The pairs that `ernie-rna fold` predicts, given weight and offset of the prior."""
    predicted: list[list[BasePair]] = []
    for rna, (logits, log_odds) in maps:
        scores = torch.from_numpy(logits + prior[0] * log_odds + prior[1]).float()[None]
        options: Any = {"threshold": config.pair_threshold, "min_loop": structures.MIN_LOOP}
        contacts: Any = structures.solve_each(scores, [rna.sequence], **options)[0]
        predicted.append([])
        if not isinstance(contacts, str):  # the reason for no contacts
            predicted[-1] = structures.predict_pairs(contacts, min_stem=structures.MIN_STEM)
    return predicted


def mean_f1(maps: Maps, config: Any, prior: Sequence[float]) -> float:
    predictions = zip(maps, predict(maps, config, prior), strict=True)
    return float(np.mean([score_pairs(pairs, rna.pairs).f1 for (rna, _), pairs in predictions]))


def show(maps: Maps, config: Any, prior: Sequence[float], weights: Sequence[float]) -> None:
    """Print the reliability diagram of the predicted pairs."""
    evidence, known = pairs_of(maps, predict(maps, config, prior))
    if not len(evidence):
        raise ValueError("no pair is predicted for the other half: raise --per-family")
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
