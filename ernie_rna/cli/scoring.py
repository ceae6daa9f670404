"""`ernie-rna mutate` and `ernie-rna predict`: a FASTA file in, scores or predictions out."""

from __future__ import annotations

import argparse
from typing import Any

from ernie_rna.cli.arguments import (
    RESUMES,
    add_command,
    add_fasta,
    add_model,
    add_options,
    read_options,
    report,
)
from ernie_rna.options import MutateOptions

_MUTATE = """\
Score the nucleotides of each sequence, and every single substitution, by the masked language
model. Each position is masked in turn, so a sequence of L nucleotides takes L passes; P is the
model's probability of a letter there given all others, a softmax over A, C, G and U (see
--vocabulary), and log is natural.

  -o           the effects: id, position (from 1), wildtype, mutant, and
               effect = log P(mutant) - log P(wildtype), negative where the model prefers what
               is there
  --positions  id, position, wildtype, log_p_A, log_p_C, log_p_G, log_p_U, and log_likelihood,
               that of the wildtype
  --summary    id, length, scored (positions with scores), pseudo_log_likelihood (the sum of
               their log-likelihoods) and pseudo_perplexity (exp of minus their mean)

T is read and written as U. N and the other IUPAC codes are context for the others and have no
scores: no line among the effects, NA among the positions, and no part in the summary.

A run that was killed is resumed by the same command, and the outputs are the same. Until they are
complete, what has been computed is in a folder beside the first of them, OUT.tsv.partial.
"""
_MUTATE_EXAMPLES = """\
  ernie-rna mutate rna.fasta -m MODEL -o effects.tsv
  ernie-rna mutate rna.fasta -m MODEL --summary perplexity.tsv
  ernie-rna mutate rna.fasta -m MODEL -o effects.tsv --unmasked        one pass a sequence
"""


def add_commands(subparsers: Any) -> None:
    """Add the commands to `ernie-rna`."""
    parser = add_command(
        subparsers,
        "mutate",
        _mutate,
        "masked-LM scores: substitutions, likelihoods, perplexity",
        _MUTATE,
        _MUTATE_EXAMPLES,
        interrupted=RESUMES,
        shares_work=True,
    )
    add_fasta(parser)
    add_model(parser)
    add = parser.add_argument
    add("-o", "--output", metavar="OUT.tsv", help="effects of all substitutions; - is stdout")
    add("--positions", metavar="OUT.tsv", help="log-probabilities at each position; - is stdout")
    add("--summary", metavar="OUT.tsv", help="a line for each sequence; - is stdout")
    add_options(parser, MutateOptions)


def _mutate(args: argparse.Namespace) -> int:
    from ernie_rna.scoring.mutate import mutate

    if not (args.output or args.positions or args.summary):
        raise ValueError("nothing to write: give -o, --positions or --summary")
    options = read_options(MutateOptions, args)
    summary = mutate(
        args.input, args.model, args.output, args.positions, args.summary, options=options
    )
    return report(summary, options.progress is False)
