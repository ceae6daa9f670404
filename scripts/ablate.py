"""Measure the value of pairing scores and carried scores by training without one or both of them.

    python -m scripts.ablate ablation rfam_seed.tsv.gz runs/ablation --seeds 2

Four models are trained from the same seeds on the same batches: the unchanged ERNIE-RNA; one with
pairing scores of zero; one that adds the projected pairing scores in each layer instead of the
previous layer's scores; and one with neither, a plain transformer. Prints masked-LM loss, pair loss
and F1 on the validation split: the mean over the seeds, and each value. The same command resumes a
run that was killed.
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

# Name -> whether the model uses pairing scores, and whether layers pass on their scores.
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
    add("--seeds", type=int, default=2, metavar="N", help="trainings of each model (2)")
    add("--leave-out", type=Path, metavar="FILE", help="ids of RNAs not to train on")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    settings = read_settings(args.config)
    training = list(read_table(args.rnas, "train", read_ids(args.leave_out)))
    validation = list(read_table(args.rnas, "validation"))
    sample = choose_sample(validation, settings)
    lines = ["variant\tmasked-LM loss\tpair loss\tF1"]
    for name, parts in VARIANTS.items():
        rows = []
        for seed in range(args.seeds):
            seeded = replace(settings, training={**(settings.training or {}), "seed": seed})
            model = new_model(seeded)
            take_away(model, *parts)
            folder = args.out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            trainer = pretrain(seeded, training, validation, folder, model)
            metrics = evaluate(trainer.average.module, sample, seeded)
            rows.append([metrics[key] for key in ("masked_lm_loss", "pair_loss", "f1")])
        lines.append(name)
        for values in zip(*rows, strict=True):
            lines[-1] += f"\t{np.mean(values):.4f} ({', '.join(f'{v:.4f}' for v in values)})"
    print("\n".join(lines))
    return 0


def take_away(model: Any, pairing: bool, carried: bool) -> None:
    """Remove pairing scores and carried scores, unless kept, from a model and its later copies."""
    encoder = model.ernie_rna
    if not pairing:
        encoder.twod_proj.register_forward_pre_hook(lambda _, args: (torch.zeros_like(args[0]),))
    first_bias: list[torch.Tensor] = []

    def store(layer: Any, args: tuple[Any, ...]) -> None:
        first_bias[:] = [args[-1]]

    def replace_bias(layer: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*args[:-1], first_bias[0].clone())  # A layer may overwrite its arguments.

    for number, layer in enumerate([] if carried else encoder.layers):
        layer.register_forward_pre_hook(replace_bias if number else store)


if __name__ == "__main__":
    sys.exit(main())
