"""`ernie-rna evaluate`: how well predicted structures agree with known ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from ernie_rna.cli.options import new_parser
from ernie_rna.cli.probing import Fits, add_reactivity, fit_columns, fit_summary, fits, read_probing
from ernie_rna.run.outputs import check_output_files, open_text

if TYPE_CHECKING:
    from ernie_rna.structures.evaluation import Evaluation
    from ernie_rna.structures.formats.structure import Structure
    from ernie_rna.structures.reactivities import Probing
    from ernie_rna.structures.score_groups import Group

_DESCRIPTION = """\
Score predicted structures against the known ones with the same id.

PRED and REF are each a .tsv, .ct, .bpseq, .dbn or .db file, or a folder of such files. Every id
of REF needs a prediction of the same sequence (T is U, N stands for any base), unless --missing
says otherwise; other ids of PRED are left out.

Pairs count as exact positions, pseudoknots included. precision is the part of the predicted pairs
that is known, recall the part of the known ones that is predicted, f1 = 2 |R and P| / (|R| + |P|);
all three are 1 where neither structure has a pair (the summary counts these), 0 where just one
has none. In the *_shifted columns a pair (i, j) is also found at (i+-1, j) and (i, j+-1). Means
are over sequences: of all, and by length; where REF is a .tsv with a column family, by that as
well.

--reactivity compares with chemical probing: the AUC is the probability that of an unpaired and a
paired base of the structure the unpaired one is the more reactive (0.5 is chance), of PRED and, as
what can be hoped for, of REF.
"""
_EXAMPLES = """\
  ernie-rna evaluate predicted.dbn known/ -o scores.tsv
  ernie-rna evaluate predicted.tsv known.tsv --with-mfe -o scores.tsv
  ernie-rna evaluate predicted.tsv known.tsv --by type --groups means.tsv
  ernie-rna evaluate predicted.dbn --reactivity rna.shape.tsv
"""
_MEASURES = ("precision", "recall", "f1")


def add_parser(subparsers: Any) -> None:
    """Add the command to `ernie-rna`."""
    parser = new_parser(
        subparsers,
        "evaluate",
        "F1, precision and recall of structures against known ones",
        _DESCRIPTION,
        _EXAMPLES,
    )
    parser.add_argument("predicted", metavar="PRED", help="predicted structures")
    parser.add_argument(
        "reference", nargs="?", metavar="REF", help="known structures; not needed with --reactivity"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT.tsv",
        help="a table with a line for each sequence; - is stdout",
    )
    parser.add_argument(
        "--by",
        action="append",
        metavar="COLUMN",
        help="means by this column of REF, a .tsv, in place of family; more than once for several",
    )
    parser.add_argument(
        "--groups", metavar="OUT.tsv", help="the means by length and column, a line for each"
    )
    parser.add_argument("--force", action="store_true", help="replace outputs that exist")
    parser.add_argument(
        "--with-mfe",
        action="store_true",
        help="score ViennaRNA's structures of minimum free energy, of the sequences in REF, as "
        'well (pip install "ernie-rna[vienna]"); about 80 sequences a second',
    )
    parser.add_argument(
        "--missing",
        choices=("error", "skip", "unpaired"),
        default="error",
        help="ids of REF without a prediction: refuse them (the default), leave them out, or score "
        "them as structures without pairs",
    )
    for name, metavar in (("predicted", "PRED"), ("reference", "REF")):
        parser.add_argument(
            f"--{name}-column",
            default="dot_bracket",
            metavar="NAME",
            help=f"column with the structures, where {metavar} is a .tsv (dot_bracket)",
        )
    add_reactivity(parser, "compare the structures with what probing says of the bases")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate as the arguments say."""
    from ernie_rna.structures.evaluation import evaluate
    from ernie_rna.structures.formats.by_extension import read_structures
    from ernie_rna.structures.score_groups import group_rows

    outputs = [args.output] if args.output else []
    tables = [*outputs, *([args.groups] if args.groups else [])]
    check_output_files(tables, args.force, extension=".tsv")
    probing = read_probing(args)
    predicted = read_structures(args.predicted, args.predicted_column)
    if args.reference is None:
        return _fit_alone(args, probing, predicted)
    reference = read_structures(args.reference, args.reference_column)
    evaluations = {"predicted": evaluate(predicted, reference, args.missing)}
    if args.with_mfe:
        scored = set(evaluations["predicted"].ids)
        known = [structure for structure in reference if structure.id in scored]
        evaluations["mfe"] = evaluate(minimum_free_energy(known, predicted), known)
    found: Fits = {}
    if probing is not None:
        scored = set(evaluations["predicted"].ids)
        known = [one for one in reference if one.id in scored]
        own = {one.id: one for one in predicted}
        mine = [own.get(one.id, replace(one, pairs=[])) for one in known]
        found = fits(probing, {"predicted": mine, "known": known})
    groups = group(evaluations, reference, args.reference, args.by)
    for output in outputs:
        with open_text(output) as file:
            file.write(table(evaluations, found))
    if args.groups:
        with open_text(args.groups) as file:
            file.writelines("\t".join(row) + "\n" for row in group_rows(groups))
    # With the table on stdout, the means are for whoever looks on.
    stdout_taken = "-" in (args.output, args.groups)
    text = "\n".join([*describe_groups(groups), summary(evaluations)])
    text += f"\n{fit_summary(found)}" * bool(found)
    print(text, file=sys.stderr if stdout_taken else sys.stdout)
    return 0


def _fit_alone(
    args: argparse.Namespace, probing: Probing | None, predicted: list[Structure]
) -> int:
    """Compare predictions with reactivities, where no structures are known."""
    if probing is None:
        raise ValueError("nothing to compare with: name REF, the known structures, or --reactivity")
    for name in ("with_mfe", "by", "groups"):
        if getattr(args, name):
            option = name.replace("_", "-")
            raise ValueError(f"--{option} scores against known structures: name them as REF")
    found = fits(probing, {"predicted": predicted})
    if args.output:
        ids = [["id"], *([one.id] for one in predicted)]
        with open_text(args.output) as file:
            for row in zip(ids, fit_columns(found), strict=True):
                file.write("\t".join(chain(*row)) + "\n")
    print(fit_summary(found), file=sys.stderr if args.output == "-" else sys.stdout)
    return 0


def group(
    evaluations: Mapping[str, Evaluation],
    reference: list[Structure],
    path: str,
    columns: list[str] | None,
) -> list[Group]:
    """The means by length, and by columns of the reference.

    Args:
        path: of the reference.
        columns: None takes family, if there is such a column.

    Raises:
        ValueError: a column is asked for that is not there.
    """
    from ernie_rna.structures.score_groups import by_label, by_length, read_labels

    groups = by_length(evaluations, reference)
    for column in columns or ["family"]:
        labels = read_labels(path, column) if path.lower().endswith(".tsv") else None
        if labels is not None:
            groups += by_label(evaluations, labels, column)
        elif columns:
            raise ValueError(f"{path} is no .tsv with a column {column!r}")
    return groups


def describe_groups(groups: list[Group]) -> list[str]:
    """The means by group, in tables to read."""
    lines = []
    width = max((len(one.name) for one in groups), default=0)
    for before, one in zip([None, *groups], groups, strict=False):
        if before is None or before.by != one.by:
            lines += [] if before is None else [""]
            names = "".join(f"{f'{which} {m}':>20}" for which in one.scores for m in _MEASURES)
            lines += [f"by {one.by}", f"{'':<{width}}{'sequences':>11}{names}"]
        values = "".join(
            f"{getattr(score, measure):>20.4f}"
            for score in one.scores.values()
            for measure in _MEASURES
        )
        lines.append(f"{one.name:<{width}}{one.count:>11}{values}")
    return [*lines, ""]


def minimum_free_energy(reference: list[Structure], predicted: list[Structure]) -> list[Structure]:
    """ViennaRNA's structures of the known sequences.

    A table without sequences makes them all N; then those of the prediction are taken.

    Raises:
        ValueError: a sequence has no known base in either.
        ImportError: ViennaRNA is not installed.
    """
    from ernie_rna.structures.evaluation import mfe_structure

    sequences = {structure.id: structure.sequence for structure in predicted}
    structures = []
    for known in reference:
        texts = (known.sequence, sequences.get(known.id, ""))
        sequence = next((text for text in texts if set(text) - set("Nn")), None)
        if sequence is None:
            raise ValueError(f"--with-mfe folds sequences, and that of {known.id} is not given")
        structures.append(mfe_structure(sequence, known.id))
    return structures


def table(evaluations: Mapping[str, Evaluation], found: Fits) -> str:
    """A line for each sequence: its id and the scores, those of the second and later evaluations
    with their name in front of the columns', and how it fits the reactivities, if there are any."""
    tables = []
    for number, (name, evaluation) in enumerate(evaluations.items()):
        header, *rows = evaluation.rows()
        if number:  # The ids are there already.
            header, rows = [f"{name}_{title}" for title in header[1:]], [row[1:] for row in rows]
        tables.append([header, *rows])
    if found:
        tables.append(fit_columns(found))
    return "".join("\t".join(chain(*parts)) + "\n" for parts in zip(*tables, strict=True))


def summary(evaluations: Mapping[str, Evaluation]) -> str:
    """The means, in a table to read."""
    columns = [*_MEASURES, *(f"{measure}_shifted" for measure in _MEASURES)]
    first = next(iter(evaluations.values()))
    lines = [f"means over {len(first.ids)} sequences{_empty(evaluations)}"]
    lines.append("".join([" " * 10, *(f"{column:>18}" for column in columns)]))
    for name, evaluation in evaluations.items():
        values = [
            getattr(score, measure)
            for score in (evaluation.mean_exact, evaluation.mean_shifted)
            for measure in _MEASURES
        ]
        lines.append("".join([f"{name:<10}", *(f"{value:>18.4f}" for value in values)]))
    return "\n".join(lines)


def _empty(evaluations: Mapping[str, Evaluation]) -> str:
    """How many sequences score 1 because neither structure has a pair."""
    counts = {name: one.both_empty for name, one in evaluations.items() if one.both_empty}
    if not counts:
        return ""
    parts = ", ".join(f"{count} ({name})" for name, count in counts.items())
    return f"; without a pair on either side, which scores 1: {parts}"
