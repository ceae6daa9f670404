"""What pairing scores and carried scores are worth: the same training without either, or both.

    python -m scripts.ablate ablation rfam_seed.tsv.gz runs/ablation --seeds 2

Four models are trained alike, from the same seeds on the same batches: ERNIE-RNA as it is; with
pairing scores of zero; with the projected pairing scores in each layer in place of the scores of
the layer before; and with neither, which is a plain transformer. Prints masked-LM loss, pair loss
and F1 on the validation split: means over the seeds, and each. The same command resumes a run that
was killed.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from recipes.pretraining.rnas import choose_sample, read_ids, read_table
from recipes.pretraining.settings import find_config, read_settings
from recipes.pretraining.train import pretrain
from recipes.pretraining.weights import evaluate, new_model

# Name -> whether pairing scores are given, and whether scores are handed from layer to layer.
VARIANTS = {
    "pairing scores, carried": (True, True),
    "no pairing scores": (False, True),
    "not carried": (True, False),
    "neither": (False, False),
}


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("config", type=find_config, metavar="CONFIG", help="as for train")
    add("rnas", type=Path, metavar="TABLE", help="TSV or Parquet")
    add("out", type=Path, metavar="OUT", help="folder for the runs")
    add("--seeds", type=int, default=2, metavar="N", help="trainings of each (2)")
    add("--leave-out", type=Path, metavar="FILE", help="ids not to train on")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    settings = read_settings(args.config)
    training = list(read_table(args.rnas, "train", read_ids(args.leave_out)))
    validation = list(read_table(args.rnas, "validation"))
    sample = choose_sample(validation, settings)
    lines = ["variant\tmasked-LM loss\tpair loss\tF1"]
    for name, kept in VARIANTS.items():
        found = []
        for seed in range(args.seeds):
            chosen = replace(settings, training={**(settings.training or {}), "seed": seed})
            model = new_model(chosen)
            take_away(model, *kept)
            folder = args.out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            trainer = pretrain(chosen, training, validation, folder, model)
            metrics = evaluate(trainer.average.module, sample, chosen)
            found.append([metrics[key] for key in ("masked_lm_loss", "pair_loss", "f1")])
        lines.append(name)
        for each in zip(*found, strict=True):
            lines[-1] += f"\t{np.mean(each):.4f} ({', '.join(f'{value:.4f}' for value in each)})"
    print("\n".join(lines))
    return 0


def take_away(model: Any, pairing: bool, carried: bool) -> None:
    """Make a model, and copies of it, do without pairing scores, or scores of the layer before."""
    encoder = model.ernie_rna
    if not pairing:
        encoder.twod_proj.register_forward_pre_hook(lambda _, args: (torch.zeros_like(args[0]),))
    first: list[torch.Tensor] = []

    def keep(layer: Any, args: tuple[Any, ...]) -> None:
        first[:] = [args[-1]]

    def give_the_first(layer: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*args[:-1], first[0].clone())  # A layer may write on what it is given.

    for number, layer in enumerate(() if carried else encoder.layers):
        layer.register_forward_pre_hook(give_the_first if number else keep)


if __name__ == "__main__":
    sys.exit(main())
