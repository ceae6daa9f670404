"""`ernie-rna ribosome-loading`: a FASTA file in, predicted mean ribosome loading out."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ernie_rna.cli.before import check_input, check_model
from ernie_rna.cli.options import (
    INTERRUPTED,
    add_computing,
    add_fasta,
    add_input_rules,
    add_model,
    add_pairing_scores,
    computing,
    describe_run,
    new_parser,
)

_DESCRIPTION = """\
Predict the mean ribosome loading of the 5' untranslated regions in a FASTA file, by a model with a
head for that (`ernie-rna convert` makes one of the authors' fine-tuned checkpoint).

OUT.tsv has the columns id, length, standardised (what the head gives) and mrl, the mean number of
ribosomes on a transcript: mean + scale * standardised, with the two numbers of the model's
config.json. The authors' head was trained on regions of 25 to 100 nt.

A run that was killed goes on where it stopped if the same command is run again, and the output is
the same. Until it is complete, what has been computed is in OUT.tsv.partial.
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
    add = parser.add_argument
    add("-o", "--output", metavar="OUT.tsv", help="file to write; without it, the table to stdout")
    add("--force", action="store_true", help="replace OUT and unfinished results")
    add("--quiet", action="store_true", help="no progress bar and no summary")
    add_pairing_scores(parser)
    add_input_rules(parser)
    add_computing(parser)
    parser.set_defaults(run=run, interrupted=INTERRUPTED)


def run(args: argparse.Namespace) -> int:
    """Predict as the arguments say."""
    check_input(args.input)
    check_model(args.model, args.revision)
    # From here on seconds pass.
    from transformers.utils import logging

    from ernie_rna.scoring.ribosome_loading import ribosome_loading

    logging.disable_progress_bar()  # Ours is enough.
    options = {"pairing_scores": args.pairing_scores, "threads": args.threads, **computing(args)}
    if args.output is None:
        return _to_stdout(args, options)
    summary = ribosome_loading(
        args.input,
        args.model,
        args.output,
        force=args.force,
        progress=False if args.quiet else None,
        **options,
    )
    if not args.quiet and summary.rank == 0:
        print(describe_run(summary), file=sys.stderr)
    return 0


def _to_stdout(args: argparse.Namespace, options: dict[str, Any]) -> int:
    from ernie_rna.inference.loading import use_threads
    from ernie_rna.scoring.ribosome_loading import HEADER, ribosome_loading
    from ernie_rna.sequences.sources import readable_twice

    progress = False if args.quiet or sys.stdout.isatty() else None
    with readable_twice(args.input, args.unknown) as sequences, use_threads(args.threads):
        results = ribosome_loading(sequences, args.model, progress=progress, **options)
        sys.stdout.write(HEADER)
        sys.stdout.writelines(result.line for result in results)
    return 0
