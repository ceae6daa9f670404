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
model. Each position is masked in turn, so a sequence of L nucleotides takes L passes. P is the
model's probability of a letter given all others, a softmax over A, C, G and U (see --vocabulary);
log is the natural logarithm.

Tables are .tsv or .csv, by the extension:

  -o           the effects: id, position (from 1), wildtype, mutant, and
               effect = log P(mutant) - log P(wildtype), negative where the model prefers the
               wildtype
  --positions  id, position, wildtype, log_p_A, log_p_C, log_p_G, log_p_U, and log_likelihood of
               the wildtype
  --summary    id, length, scored (positions with scores), pseudo_log_likelihood (the sum of
               their log-likelihoods) and pseudo_perplexity (exp of minus their mean)

T is read as U and written as U, unless --keep-letters is given. N and the other IUPAC codes are
context without scores: no line in the effects, NA in the positions, not counted in the summary.

The same command resumes a run that was killed, also in the middle of a sequence. Results of an
unfinished run are kept in a folder beside the first output, OUT.tsv.partial.
"""
_MUTATE_EXAMPLES = """\
  ernie-rna mutate rna.fasta -m mini -o effects.tsv
  ernie-rna mutate rna.fasta -m MODEL --summary perplexity.tsv
  ernie-rna mutate rna.fasta -m MODEL -o effects.tsv --unmasked        one pass for each sequence
"""
_PREDICT = """\
Predict labels of sequences or of bases with a model that `ernie-rna finetune` trained, or with the
authors' model for mean ribosome loading. A pretrained model, such as -m mini, must be fine-tuned
first.

IN is FASTA, or a table (.csv, .tsv) with a column of sequences. OUT (.csv, .tsv) has a row for each
sequence or base: id and length (position and base), or the columns of the table; then `predicted`
and the probability p_NAME of each class or label, or each number as predicted_NAME in its unit (mrl
of the authors: ribosomes per transcript, for regions of 25 to 100 nt). Tables of bases omit the
columns of sequences and labels. .npz, .h5, .safetensors and .parquet have the ids and an array of
probabilities or numbers, as in `ernie-rna embed`.

With --label-column, the metrics of `ernie-rna finetune` are printed for the predictions. The same
command resumes a run that was killed.
"""
_PREDICT_EXAMPLES = """\
  ernie-rna predict utrs.fasta -m MODEL -o loading.tsv
  ernie-rna predict rnas.csv -m MODEL --label-column family -o families.csv
  ernie-rna predict rnas.tsv -m MODEL -o - | sort -t "$(printf '\\t')" -k4,4gr | head
"""


def add_commands(subparsers: Any) -> None:
    """Add the commands to `ernie-rna`."""
    run: dict[str, Any] = {"interrupted": RESUMES, "shares_work": True}
    summary = "effects of all substitutions, by the masked language model"
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
