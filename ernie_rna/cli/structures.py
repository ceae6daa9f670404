"""`ernie-rna fold`, `closeness` and `evaluate`: structures, and how right they are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ernie_rna.cli.arguments import (
    RESUMES,
    add_command,
    add_fasta,
    add_model,
    add_options,
    read_options,
    report,
)
from ernie_rna.options import (
    EvaluateOptions,
    FoldOptions,
    HeadOptions,
    OptionError,
    ProbingOptions,
)
from ernie_rna.sequences.fasta import FastaRecord, InputError, check_records
from ernie_rna.sequences.sources import is_word

if TYPE_CHECKING:
    from ernie_rna.structures.evaluation import Evaluation
    from ernie_rna.structures.formats.structure import Structure

_FOLD = """\
Predict the secondary structures of the sequences of a FASTA file, from the logits of the model's
structure head or, without one, from the scores of one attention head of the last layer (zero-shot:
such a model was not trained on structures). The authors' optimisation turns either into contacts.
The strongest contacts become base pairs, at most one for each base. The summary names the source.

output formats, by extension; -o may be given more than once:
  .dbn .db      FASTA with a dot-bracket line, ([{<Aa...Zz where pairs cross; - is stdout
  .tsv .csv     columns id, sequence, dot_bracket and description
  .ct           all structures in one file; OUT.ct/ is a folder with a file for each
  .bpseq        a folder with a file for each
  .npz          the matrix of each sequence, under its id: see --matrix

--pairs and --bases write confidences, .tsv or .csv. With a structure head these are probabilities,
calibrated as the model's card describes; without one they only rank pairs.

--reactivity reads SHAPE or DMS data: a base of reactivity r changes the logit of its pairs by
-(2.6 ln(r + 1) - 0.8) / 0.616, the pseudo-energy of Deigan et al. (2009) in units of RT at 37
degrees, divided by the slope of the model's calibration. Bases without data change nothing.

--prior vienna adds ViennaRNA's ensemble to the logits of a structure head: a pair of probability p
in the ensemble changes its logit by weight x ln(p / (1 - p)) + offset; weight and offset belong to
the head (pair_prior in config.json). Instead of vienna, name a file ID.bpp of another energy model,
or a folder of such files.

-C reads a line of constraints below each sequence, as RNAfold does: x is unpaired, | paired, <
paired with a later base, > with an earlier base, ( and ) are paired with one another, . is free.
Pairs that contradict a constraint are removed. Brackets always pair; a base with | < or > may still
stay unpaired.

Only A-U, G-C and G-U pair. T is read as U; N and the other IUPAC codes stay unpaired. The id of a
sequence is the first word of its header; the rest, its description, is written to the outputs too.
Letters are written in upper case with U for T, unless --keep-letters is given.

A sequence is in no output if the optimisation diverges or its scores are not finite, and in no
dot-bracket output if its pairs need more than 30 kinds of bracket (.ct and .bpseq hold it). Each
such sequence is named at the end with the reason, the others are written, and the exit code is 1.

The same command resumes a run that was killed, with the same outputs. Results of an unfinished run
are kept in OUT.partial.
"""
_FOLD_EXAMPLES = """\
  ernie-rna fold GGGGAAAACCCC -m mini
  ernie-rna fold rna.fasta -m MODEL
  ernie-rna fold rna.fasta -m MODEL -o rna.dbn -o rna.npz --matrix contacts
  ernie-rna fold rna.fasta -m MODEL -o rna.dbn --pairs pairs.tsv --bases bases.tsv
  ernie-rna fold rna.fasta -m MODEL -o rna.ct/ --as-authors    as the authors' script
  ernie-rna fold rna.fasta -m MODEL --reactivity rna.shape.tsv
  ernie-rna fold rna.fasta -m mini --prior vienna -o rna.dbn --pairs pairs.tsv
  ernie-rna fold rna.fasta -m MODEL -o rna.tsv && ernie-rna evaluate rna.tsv known.tsv
"""
_CLOSENESS = """\
Predict which bases are close in space, for each sequence of a FASTA file, by a model with a
closeness head (`ernie-rna convert` converts the authors' fine-tuned checkpoint; -m mini has no such
head).

OUT.npz has the map of each sequence under its id: (length, length) in float32, symmetric, a
probability for every two bases. `ernie-rna plot --what closeness` draws a map.

The same command resumes a run that was killed, with the same output. Results of an unfinished run
are kept in OUT.npz.partial.
"""
_CLOSENESS_EXAMPLES = """\
  ernie-rna closeness rna.fasta -m MODEL -o maps.npz
  ernie-rna plot rna.fasta -m MODEL --id tRNA --what closeness -o tRNA.png
"""
_EVALUATE = """\
Score predicted structures against the known ones with the same id.

PRED and REF are each a .tsv, .csv, .ct, .bpseq, .dbn or .db file, or a folder of such files. Every
id of REF needs a prediction of the same sequence (T equals U, N any base), unless --missing says
otherwise; other ids of PRED are ignored. An id is the first word of a header.

Pairs must agree in both positions; pseudoknots count. precision is the share of predicted pairs
that are known, recall the share of known pairs that are predicted, f1 = 2 |R and P| / (|R| + |P|).
All three are 1 if neither structure has a pair (the summary counts these), 0 if only one has none.
The *_shifted columns also accept (i+-1, j) and (i, j+-1) for a pair (i, j). Means are over all
sequences, by length, and by family if REF is a table with that column.

--reactivity compares with chemical probing: the AUC is the probability that an unpaired base of the
structure is more reactive than a paired one (0.5 is chance). It is printed for PRED and, as the
reachable value, for REF.
"""
_EVALUATE_EXAMPLES = """\
  ernie-rna evaluate predicted.dbn known/ -o scores.tsv
  ernie-rna evaluate predicted.tsv known.tsv --with-mfe --with-prior mini -o scores.tsv
  ernie-rna evaluate predicted.tsv known.tsv --by type --groups means.tsv
  ernie-rna evaluate predicted.dbn --reactivity rna.shape.tsv
"""
_SIDES = ("predicted", "known")


def add_commands(subparsers: Any) -> None:
    """Add the commands to `ernie-rna`."""
    resumes: Any = {"interrupted": RESUMES, "shares_work": True}
    summary = "secondary structures: dot-bracket, .ct, .bpseq or a table"
    fold = add_command(subparsers, "fold", _fold, summary, _FOLD, _FOLD_EXAMPLES, **resumes)
    add_fasta(fold)
    add_model(fold)
    files = "file or folder to write, see above; without it, dot-bracket to stdout"
    fold.add_argument("-o", "--output", action="append", metavar="OUT", help=files)
    pairs = "a line for each pair: id, i, j, base_i, base_j and its probability; - is stdout"
    fold.add_argument("--pairs", metavar="OUT.tsv", help=pairs)
    fold.add_argument(
        "--bases",
        metavar="OUT.tsv",
        help="a line for each base: id, position, base, partner (0: unpaired) and its "
        "reliability (the probability of its pair, or of being unpaired); - is stdout",
    )
    _add_reactivity(fold, "change the map by probing data")
    constraint = "read constraints below the sequences, see above"
    fold.add_argument("-C", "--constraint", action="store_true", help=constraint)
    add_options(fold, FoldOptions)

    summary = "which bases are close in space"
    closeness = add_command(
        subparsers, "closeness", _closeness, summary, _CLOSENESS, _CLOSENESS_EXAMPLES, **resumes
    )
    add_fasta(closeness)
    add_model(closeness)
    add = closeness.add_argument
    add("-o", "--output", required=True, metavar="OUT.npz", help="file to write")
    add_options(closeness, HeadOptions)

    summary = "F1, precision and recall of structures against known ones"
    evaluate = add_command(
        subparsers, "evaluate", _evaluate, summary, _EVALUATE, _EVALUATE_EXAMPLES
    )
    _add_evaluating(evaluate)
    add_options(evaluate, EvaluateOptions)
    _add_reactivity(evaluate, "compare the structures with probing data")
    add_options(evaluate, ProbingOptions, leave_out=("reactivity_slope", "reactivity_intercept"))


def _add_reactivity(parser: argparse.ArgumentParser, use: str) -> None:
    parser.add_argument(
        "--reactivity",
        metavar="FILE",
        help=f"{use}. A table with columns id, position and reactivity; ID.shape or ID.map with "
        "position and reactivity, or position, base and reactivity; ID.rdat; or a folder of such "
        "files. NaN, -999 and missing positions are no data",
    )


def _add_evaluating(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("predicted", metavar="PRED", help="predicted structures")
    known = "known structures; not needed with --reactivity"
    add("reference", nargs="?", metavar="REF", help=known)
    table = "a table (.tsv or .csv) with a line for each sequence; - is stdout"
    add("-o", "--output", metavar="OUT.tsv", help=table)
    add(
        "--by",
        action="append",
        metavar="COLUMN",
        help="column of REF (a table) for means, instead of family; may be given more than once",
    )
    add("--groups", metavar="OUT.tsv", help="table of the means by length and column")
    add("--force", action="store_true", help="replace outputs that exist")
    add(
        "--with-mfe",
        action="store_true",
        help="also score ViennaRNA's minimum free energy structures of the sequences in REF "
        '(pip install "ernie-rna[vienna]"); about 80 sequences a second',
    )
    prior = "also score the structures of `fold -m MODEL --prior vienna`, such as mini"
    add("--with-prior", metavar="MODEL", help=prior)


def _fold(args: argparse.Namespace) -> int:
    from ernie_rna.structures.fold import fold

    options = read_options(FoldOptions, args)
    to_stdout = ["-"] if "-" not in (args.pairs, args.bases) else []
    given, constraints = args.input, None
    if args.constraint:
        from ernie_rna.structures.constraints import read_constrained

        if options.degap:
            raise OptionError(
                "degap", "does not go with -C: take the gaps and their constraints out of the file"
            )
        if is_word(given):
            raise InputError(
                f"{given}: there is no such file; -C reads constraints from one: a line >name, the "
                "sequence, and its constraint below it (- is standard input)"
            )
        given, constraints = read_constrained(given, options.unknown)
    summary = fold(
        given,
        args.model,
        args.output or to_stdout,
        pairs=args.pairs,
        bases=args.bases,
        reactivities=args.reactivity,
        constraints=constraints,
        options=options,
    )
    return report(summary, options.progress is False)


def _closeness(args: argparse.Namespace) -> int:
    from ernie_rna.structures.closeness import closeness

    options = read_options(HeadOptions, args)
    summary = closeness(args.input, args.model, args.output, options=options)
    return report(summary, options.progress is False)


# ---------------------------------------------------------------------------------------------
# evaluate


def _evaluate(args: argparse.Namespace) -> int:
    from ernie_rna.run.outputs import check_output_files
    from ernie_rna.sequences.tables import TABLES
    from ernie_rna.structures.evaluation import evaluate, mfe_structure, structures_by_id
    from ernie_rna.structures.fold import fold
    from ernie_rna.structures.reactivities import Probing

    outputs = [path for path in (args.output, args.groups) if path]
    check_output_files(outputs, args.force, extensions=tuple(TABLES))
    if "-" not in outputs:
        check_output_files(["-"])  # where the means go
    options = read_options(EvaluateOptions, args)
    probing_options = read_options(ProbingOptions, args)
    if args.reference is None:
        _check_without_reference(args)
    probing = None
    if args.reactivity is not None:
        probing = Probing(args.reactivity, probing_options)
    else:
        probing_options.check_unused()
    predicted = structures_by_id(args.predicted, options.predicted_column, "predicted")
    evaluations: dict[str, Evaluation] = {}
    groups: dict[str, dict[str, str]] = {}
    compared = {"predicted": [*predicted.values()]}
    if args.reference is not None:
        reference = structures_by_id(args.reference, options.reference_column, "reference")
        groups = _groups(reference, args)
        first = evaluate(predicted.values(), reference.values(), options=options)
        compared = {name: [both[n] for both in first.structures] for n, name in enumerate(_SIDES)}
        evaluations["predicted"] = first
        if args.with_mfe:
            structures = [mfe_structure(text, id) for id, text in _sequences(first).items()]
            evaluations["mfe"] = evaluate(structures, compared["known"])
        if args.with_prior:
            folded = fold(_sequences(first), args.with_prior, prior="vienna", long="full")
            evaluations["prior"] = evaluate((one.structure for one in folded), compared["known"])
    fits = {} if probing is None else {name: probing.fits(all) for name, all in compared.items()}
    if args.output:
        _write(args.output, _score_rows(evaluations, fits, compared["predicted"]))
    if args.groups:
        _write(args.groups, _group_rows(evaluations, groups, decimals=6))
    lines = [*_describe_means(evaluations), *_describe_fits(fits)]
    if groups:
        lines = [*_aligned(_group_rows(evaluations, groups, decimals=4)), "", *lines]
    # A table on stdout must not be mixed with the means.
    print("\n".join(lines), file=sys.stderr if "-" in outputs else sys.stdout)
    return 0


def _check_without_reference(args: argparse.Namespace) -> None:
    if args.reactivity is None:
        raise ValueError("name REF, the known structures, or --reactivity to compare with")
    for name in ("with_mfe", "with_prior", "by", "groups", "missing", "reference_column"):
        if getattr(args, name) != args.parser.get_default(name):
            option = name.replace("_", "-")
            raise ValueError(f"--{option} scores against known structures: name them as REF")


def _sequences(evaluation: Evaluation) -> dict[str, str]:
    """The known sequences by id.

    A table without sequences makes them all N; then those of the prediction are taken.

    Raises:
        ValueError: a sequence has no known base in either, or a letter that `fold` refuses.
    """
    found = {}
    for predicted, known in evaluation.structures:
        texts = (text for text in (known.sequence, predicted.sequence) if set(text) - set("Nn"))
        found[known.id] = next(texts, "")
        if not found[known.id]:
            raise ValueError(
                f"--with-mfe and --with-prior fold sequences, and that of {known.id} is not given"
            )
    records = (FastaRecord(id, text) for id, text in found.items())
    return {one.id: one.sequence for one in check_records(records, "--with-mfe, --with-prior")}


def _groups(
    reference: Mapping[str, Structure], args: argparse.Namespace
) -> dict[str, dict[str, str]]:
    """By length, and by columns of the reference, which group each id belongs to; of the columns
    family, if none are asked for."""
    from ernie_rna.structures.evaluation import length_name, read_labels

    lengths = {id: len(one.sequence) for id, one in reference.items()}
    groups = {
        "length": {id: length_name(lengths[id]) for id in sorted(lengths, key=lengths.__getitem__)}
    }
    if "length" in (args.by or []):
        raise OptionError("by", "cannot be length, by which there are means in any case")
    for column in args.by or ["family"]:
        labels = read_labels(args.reference, column)
        if labels is not None:
            groups[column] = labels
        elif args.by:
            raise ValueError(f"{args.reference} is not a table with a column {column!r}")
    return groups


def _group_rows(
    evaluations: Mapping[str, Evaluation], groups: Mapping[str, Mapping[str, str]], decimals: int
) -> Iterator[list[str]]:
    from ernie_rna.structures.evaluation import PairScore, group_means

    yield ["by", "group", "evaluation", "sequences", *PairScore._fields]
    for by, names in groups.items():
        for name, which, count, score in group_means(evaluations, names):
            yield [by, name, which, str(count), *(f"{value:.{decimals}f}" for value in score)]


def _score_rows(
    evaluations: Mapping[str, Evaluation],
    fits: Mapping[str, Sequence[float]],
    structures: Iterable[Structure],
) -> Iterator[Sequence[str]]:
    columns = {
        f"{name}_{column}".removeprefix("predicted_"): values
        for name, evaluation in evaluations.items()
        for column, values in evaluation.columns().items()
    } | {f"{name}_reactivity_auc": values for name, values in fits.items()}
    yield ["id", *columns]
    for one, *values in zip(structures, *columns.values(), strict=True):
        yield [one.id, *(f"{value:.6f}" for value in values)]


def _write(path: str, rows: Iterable[Sequence[str]]) -> None:
    from ernie_rna.run.outputs import full_disk_explained, open_text
    from ernie_rna.sequences.tables import as_named, format_row

    with full_disk_explained(path), open_text(path) as file:
        file.writelines(as_named(path, format_row(*row)) for row in rows)


def _describe_means(evaluations: Mapping[str, Evaluation]) -> list[str]:
    if not evaluations:
        return []
    empty = {name: one.both_empty for name, one in evaluations.items() if one.both_empty}
    counts = ", ".join(f"{count} ({name})" for name, count in empty.items())
    remark = f"; no pair on either side, which scores 1: {counts}" if counts else ""
    rows = [["", *evaluations["predicted"].columns()]]
    for name, evaluation in evaluations.items():
        means = (*evaluation.mean_exact, *evaluation.mean_shifted)
        rows.append([name, *(f"{mean:.4f}" for mean in means)])
    count = len(evaluations["predicted"].ids)
    noun = "sequence" if count == 1 else "sequences"
    return [f"means over {count} {noun}{remark}", *_aligned(rows)]


def _describe_fits(fits: Mapping[str, Sequence[float]]) -> list[str]:
    parts = []
    for name, values in fits.items():
        known = [value for value in values if value == value]  # NaN is not
        mean = f"{sum(known) / len(known):.4f}" if known else "none"
        parts.append(f"{name} {mean} ({len(known)} of {len(values)} sequences)")
    if not parts:
        return []
    return [f"mean AUC of reactivities, unpaired against paired bases: {', '.join(parts)}"]


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of cells below one another, words to the left and numbers to the right."""
    columns = []
    for name, *cells in zip(*rows, strict=True):
        numbers = all(cell.replace(".", "").isdecimal() for cell in cells)
        width = max(map(len, (name, *cells)))
        columns.append([f"{cell:{'>' if numbers else '<'}{width}}" for cell in (name, *cells)])
    return ["  ".join(cells) for cells in zip(*columns, strict=True)]
