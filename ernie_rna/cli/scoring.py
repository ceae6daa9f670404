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
from ernie_rna.options import MutateOptions, PredictOptions

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

T is read as U, and written so but for --keep-letters. N and the other IUPAC codes are context for
the others and have no scores: no line among the effects, NA among the positions, and no part in
the summary.

A run that was killed is resumed by the same command, in the middle of a sequence as well. Until
it is complete, what has been computed is in a folder beside the first output, OUT.tsv.partial.
"""
_MUTATE_EXAMPLES = """\
  ernie-rna mutate rna.fasta -m MODEL -o effects.tsv
  ernie-rna mutate rna.fasta -m MODEL --summary perplexity.tsv
  ernie-rna mutate rna.fasta -m MODEL -o effects.tsv --unmasked        one pass a sequence
"""
_PREDICT = """\
Predict by a model with a head of sequences or of bases: one that `ernie-rna finetune` trained, or
the authors' for mean ribosome loading.

IN is FASTA, or a table (.csv, .tsv) with a column of sequences. OUT.tsv has a row a sequence, or a
row a base: id and length (position and base), or the columns of the table; then `predicted` and
the probability p_NAME of each class or label, or each number as predicted_NAME in its unit (the
authors' mrl: ribosomes a transcript, for regions of 25 to 100 nt). Of bases, the columns of
sequences and labels are left out. .npz, .h5, .safetensors and .parquet have the ids and an array
of probabilities or numbers, as for `ernie-rna embed`.

With --label-column, how well predictions agree with labels is printed, by the metrics of
`ernie-rna finetune`. A run that was killed is resumed by the same command.
"""
_PREDICT_EXAMPLES = """\
  ernie-rna predict utrs.fasta -m MODEL -o loading.tsv
  ernie-rna predict rnas.csv -m MODEL --label-column family -o families.tsv
  ernie-rna predict rnas.tsv -m MODEL -o - | sort -t "$(printf '\\t')" -k4,4gr | head
"""


def add_commands(subparsers: Any) -> None:
    """Add the commands to `ernie-rna`."""
    run: dict[str, Any] = {"interrupted": RESUMES, "shares_work": True}
    summary = "masked-LM scores: substitutions, likelihoods, perplexity"
    parser = add_command(subparsers, "mutate", _mutate, summary, _MUTATE, _MUTATE_EXAMPLES, **run)
    add_fasta(parser)
    add_model(parser)
    add = parser.add_argument
    add("-o", "--output", metavar="OUT.tsv", help="effects of all substitutions; - is stdout")
    add("--positions", metavar="OUT.tsv", help="log-probabilities at each position; - is stdout")
    add("--summary", metavar="OUT.tsv", help="a line for each sequence; - is stdout")
    add_options(parser, MutateOptions)

    summary = "classes, labels or numbers by a fine-tuned model"
    parser = add_command(
        subparsers, "predict", _predict, summary, _PREDICT, _PREDICT_EXAMPLES, **run
    )
    parser.add_argument("input", metavar="IN", help="FASTA or table, or - for FASTA from stdin")
    add_model(parser)
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="- is stdout, as TSV")
    add_options(parser, PredictOptions)


def _mutate(args: argparse.Namespace) -> int:
    from ernie_rna.scoring.mutate import mutate

    if not (args.output or args.positions or args.summary):
        raise ValueError("nothing to write: give -o, --positions or --summary")
    options = read_options(MutateOptions, args)
    outputs = (args.output, args.positions, args.summary)
    summary = mutate(args.input, args.model, *outputs, options=options)
    return report(summary, options.progress is False)


def _predict(args: argparse.Namespace) -> int:
    from ernie_rna.scoring.predict import predict

    options = read_options(PredictOptions, args)
    summary = predict(args.input, args.model, args.output, options=options)
    return report(summary, options.progress is False)
