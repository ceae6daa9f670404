"""`ernie-rna fold`: a FASTA file in, secondary structures out."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ernie_rna.cli.checks import check_input, check_model
from ernie_rna.cli.options import (
    add_computing,
    add_fasta,
    add_input_rules,
    add_model,
    add_reading_off,
    computing,
    new_parser,
    reading_off,
)
from ernie_rna.cli.probing import add_reactivity, read_probing
from ernie_rna.run.outputs import STANDARD_OUTPUT, check_output_files, describe

if TYPE_CHECKING:
    from ernie_rna.structures.fold import Fold
    from ernie_rna.structures.formats.output import Write

_DESCRIPTION = """\
Predict the secondary structures of the sequences of a FASTA file. If the model has a head that was
trained on structures, its logits are read; without one, the last layer's scores of one attention
head, which no structure was needed for. The authors' optimisation turns either into contacts, of
which the strongest are taken, one partner a base. Which of the two it was is said to stderr.

output formats, by extension; -o may be given more than once:
  .dbn .db      FASTA with a dot-bracket line, ([{<Aa...Zz where pairs cross; - is stdout
  .tsv          the columns id, sequence and dot_bracket
  .ct           all structures in one file; OUT.ct/ is a folder with a file for each
  .bpseq        a folder with a file for each
  .npz          the matrix of each sequence, under its id: see --matrix

--pairs and --bases tell how sure the model is. By a head for structures these are probabilities, as
true as the model's card says its calibration is; without one they only rank.

--reactivity takes SHAPE or DMS data: a base of reactivity r changes the logit of its pairs by
-(2.6 ln(r + 1) - 0.8) / 0.616, the pseudo-energy of Deigan et al. (2009) in units of RT at 37
degrees, divided by the slope of the model's calibration. Bases without data change nothing.

Only A-U, G-C and G-U pair. T is U; N and the other IUPAC codes stay unpaired.

A sequence for which the optimisation diverges, or whose scores are not finite, is in no output;
one whose pairs need more than 30 kinds of bracket is in no dot-bracket (.ct and .bpseq hold it).
Each is named at the end with the reason, the others are written, and the exit code is 1.
"""
_EXAMPLES = """\
  ernie-rna fold rna.fasta -m MODEL
  ernie-rna fold rna.fasta -m MODEL -o rna.dbn -o rna.npz --matrix contacts
  ernie-rna fold rna.fasta -m MODEL -o rna.dbn --pairs pairs.tsv --bases bases.tsv
  ernie-rna fold rna.fasta -m MODEL -o rna.ct/ --as-authors    as the authors' script
  ernie-rna fold rna.fasta -m MODEL --reactivity rna.shape.tsv
  ernie-rna fold rna.fasta -m MODEL -o rna.tsv && ernie-rna evaluate rna.tsv known.tsv
"""
# Whether a trained head is read -> what to say.
_READ_OFF = {
    True: "structures by the model's secondary-structure head",
    False: "structures without training, by the attention scores of one head",
}


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers,
        "fold",
        "secondary structures, by a trained head or without",
        _DESCRIPTION,
        _EXAMPLES,
    )
    add_fasta(parser)
    add_model(parser)
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        metavar="OUT",
        help="file or folder to write, see above; without it, dot-bracket to stdout",
    )
    parser.add_argument(
        "--matrix",
        choices=("contacts", "scores", "probabilities"),
        help="for .npz: the contacts after the optimisation (the default; those of pairs are "
        "above 0.5), the symmetric scores or logits that they come from, or the probabilities "
        "of --pairs",
    )
    parser.add_argument(
        "--pairs",
        metavar="OUT.tsv",
        help="a line for each pair: id, i, j, base_i, base_j and how likely it is; - is stdout",
    )
    parser.add_argument(
        "--bases",
        metavar="OUT.tsv",
        help="a line for each base: id, position, base, partner (0: unpaired) and its "
        "reliability, which is the probability of its pair or of having none; - is stdout",
    )
    parser.add_argument("--force", action="store_true", help="replace outputs that exist")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    add_input_rules(parser, windows=True)
    add_reading_off(parser)
    add_reactivity(parser, "shift the map by what probing says of the bases", energies=True)
    add_computing(parser)
    parser.set_defaults(run=run, interrupted="; no file was written")


def run(args: argparse.Namespace) -> int:
    """Fold as the arguments say."""
    from ernie_rna.structures.formats.output import check_outputs, open_output

    tables = [output for output in (args.pairs, args.bases) if output is not None]
    outputs = args.output or [STANDARD_OUTPUT] * (STANDARD_OUTPUT not in tables)
    check_outputs(outputs, args.force)
    check_output_files([*outputs, *tables], args.force, folders=True)
    matrix = wanted_matrix(args.matrix, outputs, tables)
    check_input(args.input)
    check_model(args.model, args.revision)
    how = reading_off(args)
    probing = read_probing(args)
    # From here on seconds pass.
    from transformers.utils import logging

    from ernie_rna.run.threads import use_threads
    from ernie_rna.sequences.sources import readable_twice
    from ernie_rna.structures.fold import fold
    from ernie_rna.structures.pairing_maps import reads_head

    logging.disable_progress_bar()  # Ours is enough.
    on_terminal = STANDARD_OUTPUT in (*outputs, *tables) and sys.stdout.isatty()
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        sequences = stack.enter_context(readable_twice(args.input, args.unknown))
        stack.enter_context(use_threads(args.threads))
        results = fold(
            sequences,
            args.model,
            matrix=matrix,
            overlap=args.overlap,
            reactivities=probing,
            progress=False if args.quiet or on_terminal else None,
            **how,
            **computing(args),
        )
        if not args.quiet:
            by_head = reads_head(args.model, args.layer, args.head, args.revision)
            print(f"ernie-rna: {_READ_OFF[by_head]}", file=sys.stderr)
        opened = {output: open_output(output) for output in outputs} | open_tables(args)
        writers = {output: stack.enter_context(opening) for output, opening in opened.items()}
        count, paired, problems = _write(results, writers)
    if not paired:
        print("ernie-rna: warning: no structure has any pair", file=sys.stderr)
    for problem in problems:
        print(f"ernie-rna: {problem}", file=sys.stderr)
    if not args.quiet and not on_terminal:
        seconds = time.monotonic() - start
        print(
            f"{describe([*outputs, *tables])}: {count} sequences in {seconds:.1f} s",
            file=sys.stderr,
        )
    return 1 if problems else 0


def wanted_matrix(asked: str | None, outputs: list[str], tables: list[str]) -> str | None:
    """The kind of matrix that the outputs and the tables of confidence are written from.

    Raises:
        ValueError: they need different ones.
    """
    from ernie_rna.structures.formats.output import wants_matrix

    if tables:
        if wants_matrix(outputs) and asked not in (None, "probabilities"):
            raise ValueError(
                f"--matrix {asked} beside --pairs or --bases, which are made of probabilities: "
                "write the .npz in a run of its own, or with --matrix probabilities"
            )
        return "probabilities"
    return (asked or "contacts") if wants_matrix(outputs) else None


def open_tables(args: argparse.Namespace) -> dict[str, AbstractContextManager[Write]]:
    """The tables of confidence that are asked for, to be opened."""
    from ernie_rna.structures.confidence import BASES_HEADER, PAIRS_HEADER, base_lines, pair_lines
    from ernie_rna.structures.formats.output import open_table

    tables: dict[str, AbstractContextManager[Write]] = {}
    if args.pairs is not None:
        tables[args.pairs] = open_table(args.pairs, PAIRS_HEADER, pair_lines)
    if args.bases is not None:
        tables[args.bases] = open_table(args.bases, BASES_HEADER, base_lines)
    return tables


def _write(results: Iterable[Fold], writers: Mapping[str, Write]) -> tuple[int, int, list[str]]:
    """Write each result to each output.

    Returns:
        How many there are, how many have pairs, and what cannot be written.
    """
    count = paired = 0
    problems = []
    for folded in results:
        count += 1
        id = folded.structure.id
        if folded.problem is not None:
            problems.append(f"{id} has no structure: {folded.problem}")
            continue
        paired += bool(folded.structure.pairs)
        for output, write in writers.items():
            try:
                write(folded)
            except ValueError as error:
                problems.append(f"{id} is not in {output}: {error}")
    return count, paired, problems
