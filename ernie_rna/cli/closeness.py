"""`ernie-rna closeness`: a FASTA file in, maps of closeness in space out."""

from __future__ import annotations

import argparse
from typing import Any

from ernie_rna.cli.checks import check_input, check_model, check_output
from ernie_rna.cli.options import (
    add_computing,
    add_fasta,
    add_input_rules,
    add_model,
    add_pairing_scores,
    add_resumable_output,
    new_parser,
    write_output,
)

_DESCRIPTION = """\
Predict which bases of each sequence of a FASTA file are near one another in space, by a model with
a head for that (`ernie-rna convert` makes one of the authors' fine-tuned checkpoint).

OUT.npz has the map of each sequence under its id: (length, length) in float32, symmetric, a
probability for every two bases. `ernie-rna plot --what closeness` draws one.

A run that was killed goes on where it stopped if the same command is run again, and the output is
the same. Until it is complete, what has been computed is in OUT.npz.partial.
"""
_EXAMPLES = """\
  ernie-rna closeness rna.fasta -m MODEL -o maps.npz
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what closeness -o tRNA.png
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers,
        "closeness",
        "which bases are near one another in space",
        _DESCRIPTION,
        _EXAMPLES,
    )
    add_fasta(parser)
    add_model(parser)
    add_resumable_output(parser, "OUT.npz", required=True, help="file to write")
    add_pairing_scores(parser)
    add_input_rules(parser)
    add_computing(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Predict as the arguments say."""
    check_output(args.output, ".npz", args.force)
    check_input(args.input)
    check_model(args.model, args.revision)
    # From here on seconds pass.
    from transformers.utils import logging

    from ernie_rna.structures.closeness import closeness

    logging.disable_progress_bar()  # Ours is enough.
    return write_output(args, closeness, pairing_scores=args.pairing_scores)
