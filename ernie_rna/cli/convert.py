"""`ernie-rna convert`: a checkpoint in, a folder for transformers and the Hub out."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ernie_rna.cli.options import new_parser
from ernie_rna.convert.folder import check_target

if TYPE_CHECKING:
    from ernie_rna.convert.export import Export

_DESCRIPTION = """\
Convert a checkpoint of ERNIE-RNA into a folder that AutoModel.from_pretrained loads and that can
be pushed to the Hub: configuration, weights, tokenizer, the model's code and a card.

CHECKPOINT is the authors' .pt file (pretrained, or fine-tuned for secondary structure, closeness or
ribosome loading), or a folder with the model.safetensors of multimolecule/ernierna or -ss. Which of
them it is, its keys say. Nothing in it is run. Unknown, missing and misshaped weights are errors;
what is left out is listed with its reason. OUT_DIR appears once it has been loaded in a fresh
process and compared, or not at all.
"""
_EXAMPLES = """\
  ernie-rna convert ERNIE-RNA_pretrain.pt ERNIE-RNA
  ernie-rna convert ERNIE-RNA_ss_prediction.pt ERNIE-RNA-ss --pairing-scores zero
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers, "convert", "a checkpoint into a folder for the Hub", _DESCRIPTION, _EXAMPLES
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a file, or a folder with one")
    parser.add_argument("out_dir", metavar="OUT_DIR", help="the folder to write")
    parser.add_argument(
        "--force", action="store_true", help="replace a folder that an earlier run wrote"
    )
    parser.add_argument(
        "--pairing-scores",
        choices=("sequence", "zero"),
        default="sequence",
        help="what the model is to take for the potential of two bases to pair, noted in its "
        "config.json: read off the sequence (the default), or zero as the authors' script for "
        "structures has it; no checkpoint says with which it was trained",
    )
    parser.set_defaults(run=run, interrupted="; nothing was written")


def run(args: argparse.Namespace) -> int:
    """Convert as the arguments say."""
    if not Path(args.checkpoint).exists():
        raise FileNotFoundError(f"{args.checkpoint}: no such file")
    check_target(args.out_dir, args.force)
    # From here on seconds pass.
    from ernie_rna.convert.export import convert

    print_report(convert(args.checkpoint, args.out_dir, args.force, args.pairing_scores))
    return 0


def print_report(written: Export) -> None:
    """What was read, what became of it, and what was written."""
    conversion, source = written.conversion, written.conversion.source
    config = conversion.config
    print(f"read      {source.path} ({source.kind}, names of {conversion.naming})")
    print(f"sha256    {source.sha256}")
    print(
        f"model     {config.num_hidden_layers} layers, {config.num_attention_heads} heads, width "
        f"{config.hidden_size}, feed-forward {config.intermediate_size}, "
        f"{config.max_position_embeddings} tokens"
    )
    if conversion.kind:
        print(
            f"head      {conversion.kind.task} ({conversion.kind.model_class}), pairing scores: "
            f"{config.pairing_scores}"
        )
    if config.weights_origin == "random":
        print("note      the weights are random: never trained, and nobody's work")
    for note in conversion.notes:
        print(f"note      {note}")
    _print_table("dropped", conversion.dropped)
    _print_table("made by a rule", conversion.initialised)
    print(f"wrote     {written.path}")
    print(
        f"verified in a fresh process: {written.verification.tensors} weights equal bit for bit, "
        f"outputs within {written.verification.max_difference:.1e}"
    )


def _print_table(title: str, reasons: Mapping[str, str]) -> None:
    """Each key with its reason."""
    if not reasons:
        return
    print(f"{title} ({len(reasons)}):")
    width = max(map(len, reasons))
    for key, reason in reasons.items():
        print(f"  {key:<{width}}  {reason}")
