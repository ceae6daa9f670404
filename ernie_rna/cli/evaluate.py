"""`ernie-rna evaluate`: scores of structures for each sequence, for each group and on average."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ernie_rna
from ernie_rna.cli.arguments import argument, command, read_options
from ernie_rna.cli.computing import REACTIVITY_FILES
from ernie_rna.options import EvaluateOptions, OptionError, ProbingOptions
from ernie_rna.run.outputs import (
    check_output_files,
    files_of,
    full_disk_explained,
    open_text,
    refuse_inputs,
)
from ernie_rna.sequences.fasta import FastaRecord, check_records
from ernie_rna.sequences.tables import TABLES, as_named, format_row

if TYPE_CHECKING:
    from ernie_rna.structures.evaluation import Evaluation
    from ernie_rna.structures.formats.structure import Structure

# By name: "predicted", "mfe" and "prior".
Evaluations = Mapping[str, "Evaluation"]


@dataclass(frozen=True, kw_only=True)
class _Options(EvaluateOptions, ProbingOptions):
    """All options of the command."""


@command(
    summary="F1, precision and recall of structures against known ones",
    arguments=(
        argument("predicted PRED", "predicted structures"),
        argument("reference REF", "known structures; not needed with --reactivity", nargs="?"),
        argument(
            "-o --output OUT.tsv",
            "a table (.tsv or .csv) with a line for each sequence; - is stdout",
        ),
        argument(
            "--by COLUMN",
            "column of REF (a table) to group by, instead of family; may be given more than once",
            action="append",
        ),
        argument("--groups OUT.tsv", "table of the means by length and column"),
        argument("--force", "replace outputs that exist"),
        argument(
            "--with-mfe",
            "also score ViennaRNA's minimum free energy structures of the sequences in REF "
            '(pip install "ernie-rna[vienna]"); about 80 sequences a second',
        ),
        argument(
            "--with-prior MODEL",
            "also score the structures that `fold -m MODEL --prior vienna` predicts",
        ),
        argument(
            "--reactivity FILE",
            f"compare the structures with probing data: {REACTIVITY_FILES}",
            dest="reactivities",
        ),
    ),
    options=_Options,
    leave_out=("reactivity_slope", "reactivity_intercept"),
)
def evaluate(args: argparse.Namespace) -> int:
    """Score predicted structures against the known ones with the same id.

    PRED and REF are each a .tsv, .csv, .ct, .bpseq, .dbn or .db file, or a folder of such files.
    Every id of REF needs a prediction of the same sequence (T equals U, N any base), unless
    --missing says otherwise; other ids of PRED are ignored. An id is the first word of a header.

    Pairs must agree in both positions; pseudoknots count. precision is the share of predicted pairs
    that are known, recall the share of known pairs that are predicted, f1 = 2 |R and P| / (|R| +
    |P|). All three are 1 if neither structure has a pair (the summary counts these), 0 if only one
    has none. The *_shifted columns also accept (i+-1, j) and (i, j+-1) for a pair (i, j). Means are
    printed over all sequences, by length, and by family if REF is a table with that column.

    --reactivity compares with chemical probing: the AUC is the probability that an unpaired base of
    the structure is more reactive than a paired one (0.5 is chance). It is printed for PRED and for
    REF, whose AUC a perfect prediction would reach.

    examples:
      ernie-rna evaluate predicted.dbn known/ -o scores.tsv
      ernie-rna evaluate predicted.tsv known.tsv --with-mfe --with-prior mini -o scores.tsv
      ernie-rna evaluate predicted.tsv known.tsv --by type --groups means.tsv
      ernie-rna evaluate predicted.dbn --reactivity rna.shape.tsv
    """
    from ernie_rna.structures.evaluation import structures_by_id
    from ernie_rna.structures.reactivities import Probing

    outputs = [getattr(args, name) for name in ("output", "groups") if name in args]
    inputs = [getattr(args, name, None) for name in ("predicted", "reference", "reactivities")]
    refuse_inputs(outputs, [file for path in inputs for file in files_of(path, TABLES)])
    check_output_files(outputs, "force" in args, extensions=tuple(TABLES))
    if "-" not in outputs:
        check_output_files(["-"])  # The means are printed there.
    options = read_options(_Options, args)
    if "reference" not in args:
        _check_without_reference(args)
    probing = Probing(args.reactivities, options) if "reactivities" in args else None
    if probing is None:
        options.check_unused()
    predicted = structures_by_id(args.predicted, options.predicted_column, "predicted")
    sides: dict[str, Sequence[Structure]] = {"predicted": [*predicted.values()]}
    evaluations: dict[str, Evaluation] = {}
    groups: dict[str, dict[str, str]] = {}
    if "reference" in args:
        reference = structures_by_id(args.reference, options.reference_column, "reference")
        groups = _groups(reference, args)
        first = ernie_rna.evaluate(predicted.values(), reference.values(), options=options)
        evaluations = {"predicted": first, **dict(_evaluate_others(first, args))}
        sides["predicted"], sides["known"] = zip(*first.structures, strict=True)
    aucs = {} if probing is None else {name: probing.fits(side) for name, side in sides.items()}
    if "output" in args:
        _write(args.output, _score_rows(evaluations, aucs, sides["predicted"]))
    if "groups" in args:
        _write(args.groups, _group_rows(evaluations, groups))
    lines = [*_describe_means(evaluations), *_describe_aucs(aucs)]
    if groups:
        lines = [*_aligned(_group_rows(evaluations, groups)), "", *lines]
    # A table on stdout must not be mixed with the means.
    print("\n".join(lines), file=sys.stderr if "-" in outputs else sys.stdout)
    return 0


def _check_without_reference(args: argparse.Namespace) -> None:
    if "reactivities" not in args:
        raise ValueError("name REF, the known structures, or --reactivity to compare with")
    for name in ("with_mfe", "with_prior", "by", "groups", "missing", "reference_column"):
        if name in args:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} scores against known structures: name them as REF")


def _evaluate_others(
    first: Evaluation, args: argparse.Namespace
) -> Iterator[tuple[str, Evaluation]]:
    """Evaluations of other predictions of the same sequences, if they are requested."""
    from ernie_rna.structures.evaluation import mfe_structure

    known = [reference for _, reference in first.structures]
    if "with_mfe" in args:
        structures = [mfe_structure(text, id) for id, text in _sequences(first).items()]
        yield "mfe", ernie_rna.evaluate(structures, known)
    if "with_prior" in args:
        folded = ernie_rna.fold(_sequences(first), args.with_prior, prior="vienna", long="full")
        yield "prior", ernie_rna.evaluate((result.structure for result in folded), known)


def _sequences(evaluation: Evaluation) -> dict[str, str]:
    """The known sequences by id.

    A sequence of N alone, as from a table without sequences, is replaced by that of the prediction.

    Raises:
        ValueError: both sequences of an id consist of N, or one has a letter that `fold` refuses.
    """
    sequences = {}
    for predicted, known in evaluation.structures:
        texts = (text for text in (known.sequence, predicted.sequence) if set(text) - set("Nn"))
        sequences[known.id] = next(texts, "")
        if not sequences[known.id]:
            raise ValueError(
                f"--with-mfe and --with-prior need sequences; {known.id} has none in PRED or REF"
            )
    records = (FastaRecord(id, text) for id, text in sequences.items())
    checked = check_records(records, "--with-mfe, --with-prior")
    return {record.id: record.sequence for record in checked}


def _groups(
    reference: Mapping[str, Structure], args: argparse.Namespace
) -> dict[str, dict[str, str]]:
    """The group of each id, by length and by each column of the reference that --by names; without
    --by, by the column family if there is one."""
    from ernie_rna.structures.evaluation import length_name, read_labels

    lengths = {id: len(structure.sequence) for id, structure in reference.items()}
    groups = {
        "length": {id: length_name(lengths[id]) for id in sorted(lengths, key=lengths.__getitem__)}
    }
    columns = getattr(args, "by", ["family"])
    if "length" in columns:
        raise OptionError("by", "cannot be length: means by length are always printed")
    for column in columns:
        labels = read_labels(args.reference, column)
        if labels is not None:
            groups[column] = labels
        elif "by" in args:
            raise ValueError(f"{args.reference} is not a table with a column {column!r}")
    return groups


def _group_rows(
    evaluations: Evaluations, groups: Mapping[str, Mapping[str, str]]
) -> Iterator[Sequence[object]]:
    from ernie_rna.structures.evaluation import PairScore, group_means

    yield "by", "group", "evaluation", "sequences", *PairScore._fields
    for by, group_of_id in groups.items():
        for group, evaluation, count, score in group_means(evaluations, group_of_id):
            yield by, group, evaluation, count, *score


def _score_rows(
    evaluations: Evaluations, aucs: Mapping[str, Sequence[float]], structures: Sequence[Structure]
) -> Iterator[Sequence[object]]:
    columns = {
        f"{name}_{column}".removeprefix("predicted_"): values
        for name, evaluation in evaluations.items()
        for column, values in evaluation.columns().items()
    } | {f"{name}_reactivity_auc": values for name, values in aucs.items()}
    yield "id", *columns
    yield from zip((structure.id for structure in structures), *columns.values(), strict=True)


def _write(path: str, rows: Iterable[Sequence[object]]) -> None:
    with full_disk_explained(path), open_text(path) as file:
        file.writelines(as_named(path, format_row(*_cells(row, 6))) for row in rows)


def _cells(row: Sequence[object], decimals: int) -> list[str]:
    return [f"{cell:.{decimals}f}" if isinstance(cell, float) else str(cell) for cell in row]


def _describe_means(evaluations: Evaluations) -> Iterator[str]:
    if not evaluations:
        return
    empty = [(name, each.both_empty) for name, each in evaluations.items() if each.both_empty]
    counts = ", ".join(f"{count} ({name})" for name, count in empty)
    remark = f"; no pair on either side, which scores 1: {counts}" if counts else ""
    count = len(evaluations["predicted"].ids)
    yield f"means over {count} {'sequence' if count == 1 else 'sequences'}{remark}"
    rows: list[Sequence[object]] = [("", *evaluations["predicted"].columns())]
    rows += [(name, *each.mean_exact, *each.mean_shifted) for name, each in evaluations.items()]
    yield from _aligned(rows)


def _describe_aucs(aucs: Mapping[str, Sequence[float]]) -> Iterator[str]:
    means = []
    for name, values in aucs.items():
        numbers = [value for value in values if not math.isnan(value)]
        mean = f"{sum(numbers) / len(numbers):.4f}" if numbers else "none"
        means.append(f"{name} {mean} ({len(numbers)} of {len(values)} sequences)")
    if means:
        yield f"mean AUC of reactivities, unpaired against paired bases: {', '.join(means)}"


def _aligned(rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines with the cells in columns: text aligned to the left, numbers to the right."""
    columns = []
    for column in zip(*(_cells(row, 4) for row in rows), strict=True):
        is_numeric = all(cell.replace(".", "").isdecimal() for cell in column[1:])
        align, width = ">" if is_numeric else "<", max(map(len, column))
        columns.append([f"{cell:{align}{width}}" for cell in column])
    return ["  ".join(cells) for cells in zip(*columns, strict=True)]
