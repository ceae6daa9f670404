"""`ernie-rna mutate`: a FASTA file in, likelihoods and the effects of substitutions out."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ernie_rna.cli.checks import check_input, check_model
from ernie_rna.cli.options import (
    add_computing,
    add_fasta,
    add_input_rules,
    add_model,
    computing,
    new_parser,
)
from ernie_rna.run.outputs import check_output_files, describe, full_disk_explained, open_text

if TYPE_CHECKING:
    from ernie_rna.scoring.mutate import LetterScores

_DESCRIPTION = """\
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
"""
_EXAMPLES = """\
  ernie-rna mutate rna.fasta -m MODEL -o effects.tsv
  ernie-rna mutate rna.fasta -m MODEL --summary perplexity.tsv
  ernie-rna mutate rna.fasta -m MODEL -o effects.tsv --unmasked        one pass a sequence
"""
_NONE = "NA"

# A table's header, and the lines of one sequence.
_Table = tuple[str, Callable[["LetterScores"], Iterator[str]]]


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers,
        "mutate",
        "masked-LM scores: substitutions, likelihoods, perplexity",
        _DESCRIPTION,
        _EXAMPLES,
    )
    add_fasta(parser)
    add_model(parser)
    add = parser.add_argument
    add("-o", "--output", metavar="OUT.tsv", help="effects of all substitutions; - is stdout")
    add("--positions", metavar="OUT.tsv", help="log-probabilities at each position; - is stdout")
    add("--summary", metavar="OUT.tsv", help="a line for each sequence; - is stdout")
    add(
        "--mask-pairing",
        choices=("inference", "pretraining"),
        default="inference",
        help="how <mask> pairs in the first layer: with nothing (score 0), as when the authors "
        "run the trained model (the default), or with score -1 on its row and column, the others "
        "read off the unmasked sequence, as in their pretraining",
    )
    add(
        "--vocabulary",
        choices=("nucleotides", "all"),
        default="nucleotides",
        help="what probabilities are normalised over: A, C, G and U (the default), or all tokens, "
        "as in pretraining; the effects are the same",
    )
    add(
        "--unmasked",
        action="store_true",
        help="read all positions off one pass over the unmasked sequence: L times cheaper, but the "
        "model sees the letter that it is asked about",
    )
    add("--force", action="store_true", help="replace files that exist")
    add("--quiet", action="store_true", help="no progress bar and no summary line")
    add_input_rules(parser)
    add_computing(parser)
    parser.set_defaults(run=run, interrupted="; no file was written")


def run(args: argparse.Namespace) -> int:
    """Score as the arguments say."""
    outputs = _outputs(args)
    if args.unmasked and args.mask_pairing != "inference":
        raise ValueError(f"--mask-pairing {args.mask_pairing} with --unmasked: there is no mask")
    check_input(args.input)
    check_model(args.model, args.revision)
    # From here on seconds pass.
    from transformers.utils import logging

    from ernie_rna.run.threads import use_threads
    from ernie_rna.scoring.mutate import mutate
    from ernie_rna.sequences.sources import readable_twice

    logging.disable_progress_bar()  # Ours is enough.
    start = time.monotonic()
    count = 0
    with contextlib.ExitStack() as stack:
        sequences = stack.enter_context(readable_twice(args.input, args.unknown))
        stack.enter_context(use_threads(args.threads))
        results = mutate(
            sequences,
            args.model,
            masked=not args.unmasked,
            mask_pairing=args.mask_pairing,
            vocabulary=args.vocabulary,
            progress=False if args.quiet else None,
            **computing(args),
        )
        writers = [stack.enter_context(_opened(output, table)) for output, table in outputs.items()]
        for scores in results:
            count += 1
            for write in writers:
                write(scores)
    if not args.quiet:
        seconds = time.monotonic() - start
        print(f"{describe([*outputs])}: {count} sequences in {seconds:.1f} s", file=sys.stderr)
    return 0


def _outputs(args: argparse.Namespace) -> dict[str, _Table]:
    """What to write where; ValueError if nothing is asked for."""
    tables = {args.output: _EFFECTS, args.positions: _POSITIONS, args.summary: _SUMMARY}
    names = [name for name in (args.output, args.positions, args.summary) if name is not None]
    if not names:
        raise ValueError("nothing to write: give -o, --positions or --summary")
    check_output_files(names, args.force, extension=".tsv")
    return {name: tables[name] for name in names}


@contextlib.contextmanager
def _opened(output: str, table: _Table) -> Iterator[Callable[[LetterScores], None]]:
    """A function that writes the lines of one sequence, behind the table's header."""
    header, lines_of = table
    with open_text(output) as file:
        file.write(header)

        def write(scores: LetterScores) -> None:
            with full_disk_explained(output):
                file.writelines(lines_of(scores))

        yield write


def _effect_lines(scores: LetterScores) -> Iterator[str]:
    from ernie_rna.scoring.masked_lm import NUCLEOTIDES

    for position, (letter, effects) in enumerate(
        zip(scores.sequence, scores.effects.tolist(), strict=True), 1
    ):
        for mutant, effect in zip(NUCLEOTIDES, effects, strict=True):
            if letter in NUCLEOTIDES and mutant != letter:
                yield f"{scores.id}\t{position}\t{letter}\t{mutant}\t{effect:.6f}\n"


def _position_lines(scores: LetterScores) -> Iterator[str]:
    rows = zip(
        scores.sequence,
        scores.log_probabilities.tolist(),
        scores.log_likelihoods.tolist(),
        strict=True,
    )
    for position, (letter, values, own) in enumerate(rows, 1):
        numbers = "\t".join(map(_number, [*values, own]))
        yield f"{scores.id}\t{position}\t{letter}\t{numbers}\n"


def _summary_lines(scores: LetterScores) -> Iterator[str]:
    count = int(scores.scored.sum())
    numbers = [scores.pseudo_log_likelihood, scores.pseudo_perplexity] if count else [math.nan] * 2
    values = "\t".join(map(_number, numbers))
    yield f"{scores.id}\t{len(scores.sequence)}\t{count}\t{values}\n"


def _number(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:.6f}"


_EFFECTS: _Table = ("id\tposition\twildtype\tmutant\teffect\n", _effect_lines)
_POSITIONS: _Table = (
    "id\tposition\twildtype\tlog_p_A\tlog_p_C\tlog_p_G\tlog_p_U\tlog_likelihood\n",
    _position_lines,
)
_SUMMARY: _Table = (
    "id\tlength\tscored\tpseudo_log_likelihood\tpseudo_perplexity\n",
    _summary_lines,
)
