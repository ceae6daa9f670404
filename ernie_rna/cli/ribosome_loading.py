"""`ernie-rna ribosome-loading`: a FASTA file in, predicted mean ribosome loading out."""

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
    computing,
    new_parser,
    write_output,
)
from ernie_rna.run.outputs import STANDARD_OUTPUT, check_output_files, open_text

_DESCRIPTION = """\
Predict the mean ribosome loading of the 5' untranslated regions in a FASTA file, by a model with a
head for that (`ernie-rna convert` makes one of the authors' fine-tuned checkpoint).

OUT.tsv has the columns id, length, standardised (what the head gives) and mrl, the mean number of
ribosomes on a transcript: mean + scale * standardised, with the two numbers of the model's
config.json. The authors' head was trained on regions of 25 to 100 nt.

A run with -o that was killed goes on where it stopped if the same command is run again, and the
output is the same. Until it is complete, what has been computed is in OUT.tsv.partial.
"""
_EXAMPLES = """\
  ernie-rna ribosome-loading utrs.fasta -m MODEL -o loading.tsv
  ernie-rna ribosome-loading utrs.fasta -m MODEL | sort -k4,4gr | head
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers,
        "ribosome-loading",
        "mean ribosome loading of 5' untranslated regions",
        _DESCRIPTION,
        _EXAMPLES,
    )
    add_fasta(parser)
    add_model(parser)
    where = "file to write; without it, the table to stdout"
    add_resumable_output(parser, "OUT.tsv", help=where)
    add_pairing_scores(parser)
    add_input_rules(parser)
    add_computing(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Predict as the arguments say."""
    if args.output is None:
        check_output_files([STANDARD_OUTPUT])
        args.interrupted = "; without -o nothing is kept"
    else:
        check_output(args.output, ".tsv", args.force)
    check_input(args.input)
    check_model(args.model, args.revision)
    # From here on seconds pass.
    from transformers.utils import logging

    from ernie_rna.scoring.ribosome_loading import ribosome_loading

    logging.disable_progress_bar()  # Ours is enough.
    if args.output is None:
        return _to_stdout(args)
    return write_output(args, ribosome_loading, pairing_scores=args.pairing_scores)


def _to_stdout(args: argparse.Namespace) -> int:
    from ernie_rna.scoring.ribosome_loading import HEADER, ribosome_loading
    from ernie_rna.sequences.sources import readable_twice

    with (
        readable_twice(args.input, args.unknown) as sequences,
        open_text(STANDARD_OUTPUT) as file,
    ):
        progress = False if args.quiet or file.isatty() else None
        results = ribosome_loading(
            sequences,
            args.model,
            pairing_scores=args.pairing_scores,
            threads=args.threads,
            progress=progress,
            **computing(args),
        )
        file.write(HEADER)
        file.writelines(result.line for result in results)
    return 0
