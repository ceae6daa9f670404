"""`ernie-rna evaluate`: how right structures are, by sequence, by group and on average."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ernie_rna
from ernie_rna.cli.arguments import argument, command, read_options
from ernie_rna.cli.computing import REACTIVITY_FILES
from ernie_rna.options import EvaluateOptions, OptionError, ProbingOptions
from ernie_rna.sequences.fasta import FastaRecord, check_records

if TYPE_CHECKING:
    from ernie_rna.structures.evaluation import Evaluation
    from ernie_rna.structures.formats.structure import Structure

# Of each evaluation by its name: "predicted", "mfe" and "prior".
Evaluations = Mapping[str, "Evaluation"]


@dataclass(frozen=True, kw_only=True)
class _Options(EvaluateOptions, ProbingOptions):
    """All that the command takes."""


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
            "column of REF (a table) for means, instead of family; may be given more than once",
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
            "also score the structures of `fold -m MODEL --prior vienna`, such as mini",
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
    over all sequences, by length, and by family if REF is a table with that column.

    --reactivity compares with chemical probing: the AUC is the probability that an unpaired base of
    the structure is more reactive than a paired one (0.5 is chance). It is printed for PRED and, as
    the reachable value, for REF.

    examples:
      ernie-rna evaluate predicted.dbn known/ -o scores.tsv
      ernie-rna evaluate predicted.tsv known.tsv --with-mfe --with-prior mini -o scores.tsv
      ernie-rna evaluate predicted.tsv known.tsv --by type --groups means.tsv
      ernie-rna evaluate predicted.dbn --reactivity rna.shape.tsv
    """
    from ernie_rna.run.outputs import check_output_files
    from ernie_rna.sequences.tables import TABLES
    from ernie_rna.structures.evaluation import structures_by_id
    from ernie_rna.structures.reactivities import Probing

    outputs = [getattr(args, name) for name in ("output", "groups") if name in args]
    check_output_files(outputs, "force" in args, extensions=tuple(TABLES))
    if "-" not in outputs:
        check_output_files(["-"])  # where the means go
    options = read_options(_Options, args)
    if "reference" not in args:
        _check_without_reference(args)
    probing = Probing(args.reactivities, options) if "reactivities" in args else None
    if probing is None:
        options.check_unused()
    predicted = structures_by_id(args.predicted, options.predicted_column, "predicted")
    compared: dict[str, Sequence[Structure]] = {"predicted": [*predicted.values()]}
    evaluations: dict[str, Evaluation] = {}
    groups: dict[str, dict[str, str]] = {}
    if "reference" in args:
        reference = structures_by_id(args.reference, options.reference_column, "reference")
        groups = _groups(reference, args)
        first = ernie_rna.evaluate(predicted.values(), reference.values(), options=options)
        evaluations = {"predicted": first, **dict(_evaluate_others(first, args))}
        sides = zip(*first.structures, strict=True)
        compared = dict(zip(("predicted", "known"), sides, strict=True))
    fits = {} if probing is None else {name: probing.fits(all) for name, all in compared.items()}
    if "output" in args:
        _write(args.output, _score_rows(evaluations, fits, compared["predicted"]))
    if "groups" in args:
        _write(args.groups, _group_rows(evaluations, groups))
    lines = [*_describe_means(evaluations), *_describe_fits(fits)]
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
    """Evaluations of other predictions of the same sequences, as far as they are asked for."""
    from ernie_rna.structures.evaluation import mfe_structure

    known = [one for _, one in first.structures]
    if "with_mfe" in args:
        structures = [mfe_structure(text, id) for id, text in _sequences(first).items()]
        yield "mfe", ernie_rna.evaluate(structures, known)
    if "with_prior" in args:
        folded = ernie_rna.fold(_sequences(first), args.with_prior, prior="vienna", long="full")
        yield "prior", ernie_rna.evaluate((one.structure for one in folded), known)


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
    columns = getattr(args, "by", ["family"])
    if "length" in columns:
        raise OptionError("by", "cannot be length, by which there are means in any case")
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
    for by, names in groups.items():
        for name, which, count, score in group_means(evaluations, names):
            yield by, name, which, count, *score


def _score_rows(
    evaluations: Evaluations,
    fits: Mapping[str, Sequence[float]],
    structures: Sequence[Structure],
) -> Iterator[Sequence[object]]:
    columns = {
        f"{name}_{column}".removeprefix("predicted_"): values
        for name, evaluation in evaluations.items()
        for column, values in evaluation.columns().items()
    } | {f"{name}_reactivity_auc": values for name, values in fits.items()}
    yield "id", *columns
    yield from zip((one.id for one in structures), *columns.values(), strict=True)


def _write(path: str, rows: Iterable[Sequence[object]]) -> None:
    from ernie_rna.run.outputs import full_disk_explained, open_text
    from ernie_rna.sequences.tables import as_named, format_row

    with full_disk_explained(path), open_text(path) as file:
        file.writelines(as_named(path, format_row(*_cells(row, 6))) for row in rows)


def _cells(row: Sequence[object], decimals: int) -> list[str]:
    return [f"{cell:.{decimals}f}" if isinstance(cell, float) else str(cell) for cell in row]


def _describe_means(evaluations: Evaluations) -> Iterator[str]:
    if not evaluations:
        return
    empty = ((one.both_empty, name) for name, one in evaluations.items())
    counts = ", ".join(f"{count} ({name})" for count, name in empty if count)
    remark = f"; no pair on either side, which scores 1: {counts}" if counts else ""
    count = len(evaluations["predicted"].ids)
    yield f"means over {count} sequence{'s' * (count != 1)}{remark}"
    rows: list[Sequence[object]] = [("", *evaluations["predicted"].columns())]
    rows += [(name, *one.mean_exact, *one.mean_shifted) for name, one in evaluations.items()]
    yield from _aligned(rows)


def _describe_fits(fits: Mapping[str, Sequence[float]]) -> Iterator[str]:
    parts = []
    for name, values in fits.items():
        known = [value for value in values if value == value]  # NaN is not
        mean = f"{sum(known) / len(known):.4f}" if known else "none"
        parts.append(f"{name} {mean} ({len(known)} of {len(values)} sequences)")
    if parts:
        yield f"mean AUC of reactivities, unpaired against paired bases: {', '.join(parts)}"


def _aligned(rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of cells below one another, words to the left and numbers to the right."""
    columns = []
    for name, *cells in zip(*(_cells(row, 4) for row in rows), strict=True):
        numbers = all(cell.replace(".", "").isdecimal() for cell in cells)
        width = max(map(len, (name, *cells)))
        columns.append([f"{cell:{'>' if numbers else '<'}{width}}" for cell in (name, *cells)])
    return ["  ".join(cells) for cells in zip(*columns, strict=True)]
