"""Export the last checkpoint of a pretraining as a folder for the Hub.

    python -m recipes.pretraining.export runs/mini -o out --card card.md \\
        --structures rfam_seed.tsv.gz
    python -m recipes.pretraining.export runs/paper -o out --card card.md

The moving average of the weights is exported in float16. After a training with structures, an
offset is added to the logits: the loss predicts a pair if it is likelier than no pair, but the best
F1 needs more pairs, and the post-processing removes the surplus. Offset and threshold of structure
prediction are those with the best mean F1 on RNAs with pairs of the validation split.

A training without structures does not train the pair head; its export is a model for masked
language modelling without that head.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.conversion.folder import check_target, write_model
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForMaskedLM
from ernie_rna.run.outputs import replacing_folder
from ernie_rna.sequences.fasta import InputError
from recipes.pretraining.rnas import choose_sample, read_table
from recipes.pretraining.settings import SETTINGS_FILE, read_settings
from recipes.pretraining.weights import find_checkpoint, load_average, score_structures

# The offsets of the logits, and the thresholds of structure prediction, to try.
OFFSETS = (2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0)
THRESHOLDS = (1.0, 1.5, 2.0, 2.5, 3.0)


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("folder", type=Path, metavar="RUN", help="folder of the pretraining")
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="folder to write")
    add("--card", type=Path, required=True, metavar="FILE", help="the model card, in Markdown")
    add("--structures", type=Path, metavar="TABLE", help="table with the validation split")
    add("--split", default="validation", metavar="VALUE", help="rows of TABLE to use (validation)")
    add("--sequences", type=int, default=300, metavar="N", help="how many of these to use (300)")
    add("--max-length", type=int, default=500, metavar="NT", help="of a sequence (500)")
    add("--force", action="store_true", help="replace an earlier export")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    checkpoint = find_checkpoint(args.folder)
    settings = read_settings(args.folder / SETTINGS_FILE)
    check_target(args.output, args.force)
    card = args.card.read_text(encoding="utf-8")
    if settings.has_structures and args.structures is None:
        raise InputError(f"{args.folder}: its pair head was trained; name a table by --structures")
    if args.structures is not None and not settings.has_structures:
        raise InputError(f"{args.folder}: its pair head was not trained; leave out --structures")
    model = load_average(checkpoint)
    if settings.has_structures:
        limits = {"pairs_max_length": args.max_length, "eval_sequences": args.sequences}
        rnas, what = read_table(args.structures, args.split), f"{args.structures}, {args.split}"
        sample = choose_sample(rnas, replace(settings, **limits), what)
        _, f1 = score_structures(model, sample, OFFSETS, THRESHOLDS)
        offset, threshold = max(f1, key=lambda setting: f1[setting])
        print(
            f"{checkpoint.name}: offset {offset:g}, threshold {threshold:g}: mean F1 "
            f"{f1[offset, threshold]:.4f} on {len(sample)} sequences of {args.split}"
        )
        head: Any = model.pair_head
        with torch.no_grad():  # A logit is the sum of two outputs, each with this bias.
            head.conv_out.bias += offset / 2
        model.config.pair_threshold = threshold
    write(model, args.output, card, with_pair_head=settings.has_structures)
    return 0


def write(model: Any, folder: Path, card: str, with_pair_head: bool) -> None:
    """Write a folder for the Hub, which appears complete or not at all."""
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
        if name != "lm_head.decoder.weight"  # tied
        and (with_pair_head or not name.startswith("pair_head."))
    }
    kind = type(model) if with_pair_head else ErnieRnaForMaskedLM
    model.config.update({"weights_origin": "pretrained", "has_pooler": False})
    with torch.device("meta"):
        written = kind(model.config)
    with replacing_folder(folder) as target:
        write_model(written, target, state)
        (target / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
