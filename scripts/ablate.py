"""What pairing scores and carried scores are worth: the same training without either, or both.

    python scripts/ablate.py configs/ablation.json rfam_seed.tsv.gz runs/ablation --seeds 2

Four models are trained alike, from the same seeds on the same batches: ERNIE-RNA as it is; with
pairing scores of zero; with the projected pairing scores in each layer in place of the scores of
the layer before; and with neither, which is a plain transformer. Prints masked-LM loss and F1 on
the validation split for each seed. A run that was killed goes on with the same command.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ernie_rna.sequences.fasta import InputError
from recipes.pretraining.data import read_ids, read_table
from recipes.pretraining.initial_weights import new_model
from recipes.pretraining.settings import read_settings
from recipes.pretraining.trainer import pretrain

# Name -> whether pairing scores are given, and whether scores are handed from layer to layer.
VARIANTS = {
    "pairing scores, carried": (True, True),
    "no pairing scores": (False, True),
    "not carried": (True, False),
    "neither": (False, False),
}
RESULT = "result.json"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a JSON file of settings")
    parser.add_argument("rnas", type=Path, metavar="TABLE", help="TSV, may be gzipped, or Parquet")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each (default: 2)")
    parser.add_argument("--leave-out", type=Path, metavar="FILE", help="ids not to train on")
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
    training = read_table(args.rnas, "train", read_ids(args.leave_out))
    validation = read_table(args.rnas, "validation")
    results: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for seed in range(args.seeds):
        for name, (pairing, carried) in VARIANTS.items():
            folder = args.out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            done = folder / RESULT
            if not done.exists():
                folder.mkdir(parents=True, exist_ok=True)
                chosen = replace(settings, seed=seed)
                model = new_model(chosen)
                take_away(model, pairing, carried)
                trainer = pretrain(chosen, training, validation, folder, cpu=True, model=model)
                done.write_text(json.dumps(trainer.evaluate()))
            results[name].append(json.loads(done.read_text()))
    report(results)


def take_away(model: Any, pairing: bool, carried: bool) -> None:
    """Make a model do without pairing scores, or without scores from the layer before."""
    encoder = model.ernie_rna
    if not pairing:
        encoder.twod_proj.register_forward_pre_hook(lambda _, args: (torch.zeros_like(args[0]),))
    if carried:
        return
    first: list[torch.Tensor] = []

    def give_the_first(layer: Any, args: tuple) -> tuple:
        *others, bias = args
        if layer is encoder.layers[0]:
            first[:] = [bias]
        return (*others, first[0].clone())  # A layer may write on what it is given.

    for layer in encoder.layers:
        layer.register_forward_pre_hook(give_the_first)


def report(results: dict[str, list[dict[str, float]]]) -> None:
    """Print a line for each variant: means over the seeds, and the values that they are of."""
    print("variant\tmasked-LM loss\tpair loss\tF1")
    for name, runs in results.items():
        cells = []
        for metric in ("masked_lm_loss", "pair_loss", "f1"):
            values = [run[metric] for run in runs]
            mean = sum(values) / len(values)
            cells.append(f"{mean:.4f} ({', '.join(f'{value:.4f}' for value in values)})")
        print("\t".join([name, *cells]))


if __name__ == "__main__":
    sys.exit(main())
