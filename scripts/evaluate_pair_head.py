"""Evaluate a model's pair head on known structures, and compare it with ViennaRNA.

    python -m scripts.evaluate_pair_head mini rfam_seed.tsv.gz:validation --by type \\
        --methods prior,head,mfe,mea,centroid,greedy
    python -m scripts.evaluate_pair_head mini rfam_seed.tsv.gz:validation --methods head,prior \\
        --print scores knots confidence
    python -m scripts.evaluate_pair_head mini bprna_new.tsv:new --random
    python -m scripts.evaluate_pair_head mini rfam_seed.tsv.gz:validation --scores all

Methods: head, the structures of `ernie-rna fold`; prior, the same with `--prior vienna`; mfe, mea
and centroid, ViennaRNA's structure of minimum free energy, that of maximum expected accuracy and
the centroid; and greedy, which adds the strongest stems one by one, without a model.

Tables: `scores`, mean precision, recall and F1 over sequences with known pairs, in total, by length
and by the labels of a column, with 95 % bootstrap intervals over sequences and over families, and
the lead of the first method over the others; `knots`, the crossing pairs that each rule keeps, and
the F1 with them; `confidence`, the share of known pairs among those of each probability.

With `--random` the network has random weights. With `--scores all` the attention scores of each
layer and head replace the logits (zero-shot); the best are listed first.
"""

import argparse
import itertools
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.extras import import_extra
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from ernie_rna.model.structures_ernie_rna import MIN_LOOP, MIN_STEM, allowed_pairs, nested_pages
from ernie_rna.options import parse_words
from ernie_rna.run.find_model import find_model
from ernie_rna.sequences.fasta import to_rna
from ernie_rna.sequences.tables import format_row
from ernie_rna.structures.confidence import expected_calibration_error, reliability
from ernie_rna.structures.evaluation import score_pairs
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.dot_bracket import BasePair, from_dot_bracket
from ernie_rna.structures.prior import VIENNA
from recipes.pretraining.rnas import COLUMNS, Rna, read_table, table_rows, with_pairs
from scripts.measuring import evenly

_BINS = (0, 75, 100, 150, 200, 300, 10**6)
_PRIORS = {"head": None, "prior": VIENNA}  # for the methods that use the model
_METHODS = (*_PRIORS, "mfe", "mea", "centroid", "greedy")
_DRAWS = 2000  # bootstrap samples
_STRENGTH = {"CG": 3, "GC": 3, "AU": 2, "UA": 2, "GU": 1, "UG": 1}  # for the greedy structure
_SHORTEST_RUN = 3  # of the greedy structure, in pairs

# Pair of an RNA -> its probability, NaN if the method computes none.
Pairs = dict[BasePair, float]
Predictions = Mapping[str, Sequence[Pairs]]  # method -> the pairs of each RNA
Labels = Mapping[str, str]  # id of an RNA -> its label
Rows = Iterator[tuple[object, ...]]  # rows of a table: a method, and cells


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder with a pair head, or mini")
    help = "known structures, as for pretraining, and the value of their column split"
    add("tables", nargs="+", metavar="TABLE:SPLIT", help=help)
    add("--sequences", type=int, metavar="N", help="use N of each table, evenly spaced (all)")
    add("--methods", type=parse_words, default=_METHODS[:1], metavar="M,M", help="see above (head)")
    add("--print", nargs="+", choices=_TABLES, default=["scores"], help="which tables (scores)")
    add("--by", default="", metavar="COLUMN", help="also print a row for each label in this column")
    add("--random", action="store_true", help="use random weights")
    add("--scores", choices=["all"], help="F1 by the scores of each layer (0: projected) and head")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    for unknown in sorted({*args.methods} - {*_METHODS}):
        raise ValueError(f"--methods must be among {', '.join(_METHODS)}; got {unknown}")
    sets = {name: read_set(name, args.sequences, args.by) for name in args.tables}
    with tempfile.TemporaryDirectory() as folder:
        model = args.model
        if args.random:
            config, model = ErnieRnaConfig.from_pretrained(find_model(model)), folder
            transformers.set_seed(0)
            ErnieRnaForPreTraining(config).save_pretrained(folder)
        if args.scores:
            compare_heads(model, [rna for rnas, _ in sets.values() for rna in rnas])
            return 0
        predictions = {name: predict(args.methods, rnas, model) for name, (rnas, _) in sets.items()}
    for table_name in args.print:
        header, table = _TABLES[table_name]
        print(format_row("set", "method", *header.split(",")), end="")
        for name, (rnas, labels) in sets.items():
            for row in table(rnas, predictions[name], labels):
                print(format_row(Path(name).name, *row), end="", flush=True)
    return 0


def read_set(name: str, count: int | None, by: str = "") -> tuple[Sequence[Rna], dict[str, str]]:
    """The RNAs with known pairs of TABLE:SPLIT; and id -> value of the column `by`, if any."""
    path, colon, split = name.rpartition(":")
    if not colon:
        raise ValueError(f"{name} names no split: write {name}:SPLIT")
    rnas = list(with_pairs(read_table(Path(path), split), f"{path}, {split}"))
    rows = table_rows(Path(path), {*COLUMNS, by}) if by else ()
    return evenly(rnas, count), {row["id"]: row[by] for row in rows}


def compare_heads(model: str, rnas: Sequence[Rna]) -> None:
    """Print the mean F1 of structures from the scores of each layer and head, the best first."""
    config = ErnieRnaConfig.from_pretrained(find_model(model))
    layers, heads = range(config.num_hidden_layers + 1), range(config.num_attention_heads)
    f1 = {
        (layer, head): score(rnas, fold_pairs(rnas, model, layer=layer, head=head))[:, 2].mean()
        for layer, head in itertools.product(layers, heads)
    }
    print("layer\thead\tF1")
    for layer, head in sorted(f1, key=lambda which: -f1[which]):
        print(f"{layer}\t{head}\t{f1[layer, head]:.4f}")


def predict(methods: Sequence[str], rnas: Sequence[Rna], model: str) -> dict[str, list[Pairs]]:
    """Method -> the predicted pairs of each RNA."""
    predictions: dict[str, list[Pairs]] = {}
    for method in methods:
        if method in _PRIORS:
            predictions[method] = fold_pairs(rnas, model, prior=_PRIORS[method])
        else:
            all_pairs = (without_model(rna.sequence, method) for rna in rnas)
            predictions[method] = [dict.fromkeys(pairs, float("nan")) for pairs in all_pairs]
    return predictions


def fold_pairs(rnas: Sequence[Rna], model: str, **options: Any) -> list[Pairs]:
    """The pairs that `ernie-rna fold` predicts, with their probabilities."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Random weights and missing pairs are expected here.
        folds = list(fold(rnas, model, matrix="probabilities", long="full", **options))
    return [
        {pair: float(f.matrix[pair]) for pair in f.structure.pairs if f.matrix is not None}
        for f in folds
    ]


def without_model(sequence: str, method: str) -> list[BasePair]:
    """The greedy structure, or a structure of ViennaRNA with its default parameters."""
    if method == "greedy":
        return greedy_pairs(sequence)
    vienna = import_extra("RNA", "vienna", "--methods mfe, mea and centroid")
    ensemble = vienna.fold_compound(to_rna(sequence))
    text, energy = ensemble.mfe()
    if method != "mfe":
        ensemble.exp_params_rescale(energy)
        ensemble.pf()
        text, _ = ensemble.MEA() if method == "mea" else ensemble.centroid()
    return from_dot_bracket(text)


def greedy_pairs(sequence: str) -> list[BasePair]:
    """The pairs of the strongest runs of stacked pairs, added one by one.

    All maximal runs of at least three canonical pairs are tried in the order of their strength (3
    for G-C, 2 for A-U, 1 for G-U), each without the pairs whose bases are taken or that cross an
    earlier run; it is added if at least three pairs are left.
    """
    bases = to_rna(sequence)
    allowed = allowed_pairs([bases], min_loop=MIN_LOOP)[0].triu().nonzero().tolist()
    runs = [run for run in stems([(i, j) for i, j in allowed]) if len(run) >= _SHORTEST_RUN]
    # Of two equally strong runs, the one that starts first comes first.
    runs.sort(key=lambda run: (-sum(_STRENGTH[bases[i] + bases[j]] for i, j in run), run))
    pairs: list[BasePair] = []
    for run in runs:
        taken = {base for pair in pairs for base in pair}
        left = [pair for pair in run if not taken & {*pair} and not crosses(pair, pairs)]
        if len(left) >= _SHORTEST_RUN:
            pairs += left
    return sorted(pairs)


def stems(pairs: Sequence[BasePair]) -> list[list[BasePair]]:
    """The runs of sorted pairs that stack on one another."""
    runs: dict[BasePair, list[BasePair]] = {}
    for i, j in pairs:
        runs[i, j] = [*runs.pop((i - 1, j + 1), []), (i, j)]
    return list(runs.values())


def crosses(pair: BasePair, others: Iterable[BasePair]) -> bool:
    """Whether a pair crosses any of the others."""
    ordered = (sorted([pair, other]) for other in others)
    return any(i < begin < j < end for (i, j), (begin, end) in ordered)


def score(rnas: Sequence[Rna], pairs: Iterable[Iterable[BasePair]]) -> np.ndarray:
    """Precision, recall and F1 of each RNA: (rnas, 3)."""
    return np.array([score_pairs(own, rna.pairs) for rna, own in zip(rnas, pairs, strict=True)])


def table_of_scores(rnas: Sequence[Rna], predictions: Predictions, labels: Labels) -> Rows:
    """Means over all RNAs, over families, by length and by label; then the first method's lead."""
    scores = {method: score(rnas, pairs) for method, pairs in predictions.items()}
    families = np.array([rna.family for rna in rnas])
    lengths = np.array([len(rna.sequence) for rna in rnas])
    groups = [("all", lengths > 0), ("mean of families", lengths > 0)]
    for low, high in itertools.pairwise(_BINS):
        groups.append((f"{low + 1} to {high} nt", (low < lengths) & (lengths <= high)))
    label_of = np.array([labels[rna.id] for rna in rnas] if labels else [])
    groups += [(label, label_of == label) for label in np.unique(label_of).tolist()]
    for method, all_scores in scores.items():
        for name, members in groups:
            group = all_scores[members]
            if name == "mean of families":
                names = dict.fromkeys(families.tolist())
                f1 = np.array([group[families == family, 2].mean() for family in names])
                yield method, name, len(f1), "", "", *_cells([f1.mean()]), "", "", *_interval(f1)
            elif len(group):
                intervals = *_interval(group[:, 2]), *_interval(group[:, 2], families[members])
                yield method, name, len(group), *_cells(group.mean(axis=0)), *intervals
    first, *others = scores
    for other in others:
        lead = (scores[first] - scores[other])[:, 2]
        cells = *_cells([lead.mean()]), *_interval(lead), *_interval(lead, families)
        yield f"{first} - {other}", "all", len(rnas), "", "", *cells


def _interval(values: np.ndarray, families: Sequence[Any] | np.ndarray = ()) -> list[str]:
    """The 95 % bootstrap interval of the mean, resampling values, or families if they are given."""
    _, group = np.unique([*families] or range(len(values)), return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    drawn = np.random.default_rng(0).integers(0, len(sums), (_DRAWS, len(sums)))
    drawn_means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return _cells(np.quantile(drawn_means, [0.025, 0.975]))


def _cells(values: Iterable[float]) -> list[str]:
    return [f"{value:.4f}" for value in values]


# Rules for keeping a stem of crossing pairs: the fewest pairs, the least mean of probabilities, and
# the most bases in each of the three loops of the H-type pseudoknot with the pairs that it crosses.
_RULES = (
    (1, 0.0, np.inf),  # all
    (np.inf, 0.0, np.inf),  # none
    *((pairs, 0.0, np.inf) for pairs in (3, 4, 5)),
    *((1, probability, np.inf) for probability in (0.4, 0.5, 0.6, 0.7, 0.8)),
    *itertools.product((1, 3, 4), (0.0, 0.5, 0.6), (8, 15, 30)),
)


def believed_pairs(
    predicted: Pairs, shortest: float, probability: float, loop: float
) -> tuple[list[BasePair], list[BasePair]]:
    """The largest nested set, and the stems of pairs crossing it that a rule keeps."""
    nested, *pages = nested_pages(sorted(predicted)) or [[]]
    kept: list[BasePair] = []
    for stem in stems(sorted(pair for page in pages for pair in page)):
        crossed = [pair for pair in nested if crosses(pair, stem)]
        (first, first_back), (second, second_back) = sorted(  # stems of 5' and 3' strands
            [sorted(side) for side in zip(*pairs, strict=True)] for pairs in (stem, crossed)
        )
        strands = itertools.pairwise((first, second, first_back, second_back))
        loops = [after[0] - before[-1] - 1 for before, after in strands]
        confidence = float(np.mean([predicted[pair] for pair in stem]))
        if len(stem) >= shortest and confidence >= probability and max(loops) <= loop:
            kept += stem
    return [pair for stem in stems(nested) if len(stem) >= MIN_STEM for pair in stem], kept


def table_of_knots(rnas: Sequence[Rna], predictions: Predictions, labels: Labels) -> Rows:
    """For each rule, the number of crossing pairs that it keeps and that are known, and the F1."""
    for (method, predicted), rule in itertools.product(predictions.items(), _RULES):
        believed = [believed_pairs(pairs, *rule) for pairs in predicted]
        knots = [knot for _, knot in believed]
        right = sum(len({*knot} & {*rna.pairs}) for rna, knot in zip(rnas, knots, strict=True))
        f1 = score(rnas, ([*nested, *knot] for nested, knot in believed))[:, 2]
        counts = sum(map(bool, knots)), sum(map(len, knots)), right
        yield method, *rule, *counts, *_cells([f1.mean()]), *_interval(f1)


def table_of_confidence(rnas: Sequence[Rna], predictions: Predictions, labels: Labels) -> Rows:
    """The share of the predicted pairs that are known, by label and by probability."""
    for method, predicted in predictions.items():
        pairs = [
            (probability, pair in rna.pairs, labels.get(rna.id, ""))
            for rna, probabilities in zip(rnas, predicted, strict=True)
            for pair, probability in probabilities.items()
            if not np.isnan(probability)
        ]
        for label in ["", *sorted({*labels.values()})]:
            rows = np.array([(p, known) for p, known, own in pairs if label in ("", own)])
            if not len(rows):
                continue
            bins = reliability(rows[:, 0], rows[:, 1])
            shares = *rows.mean(axis=0), expected_calibration_error(bins)
            yield method, label or "all", len(rows), *(f"{share:.3f}" for share in shares)
            for b in [] if label else bins:
                name = f"{b.low:.1f} to {b.high:.1f}"
                yield method, name, b.count, f"{b.predicted:.3f}", f"{b.known:.3f}", ""


_TABLES: dict[str, tuple[str, Callable[..., Rows]]] = {
    "scores": (
        "which,sequences,precision,recall,F1,low,high,family low,family high",
        table_of_scores,
    ),
    "knots": (
        "pairs of a stem,probability,loop,RNAs with knots,crossing pairs,right,F1,low,high",
        table_of_knots,
    ),
    "confidence": ("which,pairs,probability,known,calibration error", table_of_confidence),
}


if __name__ == "__main__":
    sys.exit(main())
