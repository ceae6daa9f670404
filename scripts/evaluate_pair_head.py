"""F1, precision and recall of a model's pair head on known structures, beside ViennaRNA.

    python -m scripts.evaluate_pair_head mini rfam_seed.tsv.gz:validation --by type \\
        --methods prior,head,mfe,mea,centroid,greedy
    python -m scripts.evaluate_pair_head mini rfam_seed.tsv.gz:validation --methods head,prior \\
        --print scores knots confidence
    python -m scripts.evaluate_pair_head mini bprna_new.tsv:new --random
    python -m scripts.evaluate_pair_head mini rfam_seed.tsv.gz:validation --scores all

Methods: the head; prior, the head with `--prior vienna`; of ViennaRNA alone the structure of
minimum free energy, that of maximum expected accuracy and the centroid; and greedy, the strongest
stems one by one, without any model. The structures are those of `ernie-rna fold`.

Three tables. `scores`: means over sequences with known pairs, by length and by the labels of a
column, with intervals of 95 % by bootstrap over sequences and over families, and how far the first
method is above each other one. `knots`: what rules for crossing pairs leave of them, and the F1
with each. `confidence`: how many of the pairs of each probability are known.

Beside the head: the same network with random weights; and, with `--scores all`, the attention
scores of each layer and head in place of the logits (zero-shot), the best first.
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
_PRIORS = {"head": None, "prior": VIENNA}  # of the methods that fold by the model
_METHODS = (*_PRIORS, "mfe", "mea", "centroid", "greedy")
_DRAWS = 2000  # of the bootstrap
_STRENGTH = {"CG": 3, "GC": 3, "AU": 2, "UA": 2, "GU": 1, "UG": 1}  # of the greedy structure
_SHORTEST_RUN = 3

# The pairs of an RNA, and the probability of each; NaN where the method gives none.
Pairs = dict[BasePair, float]
Found = Mapping[str, Sequence[Pairs]]  # by method, of some RNAs
Rows = Iterator[tuple[object, ...]]  # of a table: a method, and cells


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder with a pair head, or mini")
    known = "known structures, as for pretraining, and the value of their column split"
    add("tables", nargs="+", metavar="TABLE:SPLIT", help=known)
    add("--sequences", type=int, metavar="N", help="only so many of each table, evenly spaced")
    add("--methods", type=parse_words, default=_METHODS[:1], metavar="M,M", help="(head)")
    add("--print", nargs="+", choices=_TABLES, default=["scores"], help="which tables (scores)")
    add("--by", default="", metavar="COLUMN", help="scores for each label in this column as well")
    add("--random", action="store_true", help="draw the weights anew")
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
        if args.random:  # The same network with random weights.
            config, model = ErnieRnaConfig.from_pretrained(find_model(model)), folder
            transformers.set_seed(0)
            ErnieRnaForPreTraining(config).save_pretrained(folder)
        if args.scores:
            compare_heads(model, [rna for rnas, _ in sets.values() for rna in rnas])
            return 0
        found = {name: predict(args.methods, rnas, model) for name, (rnas, _) in sets.items()}
    for which in args.print:
        header, table = _TABLES[which]
        print(format_row("set", "method", *header.split(",")), end="")
        for name, (rnas, labels) in sets.items():
            for row in table(rnas, found[name], labels):
                print(format_row(Path(name).name, *row), end="", flush=True)
    return 0


def read_set(name: str, count: int | None, by: str = "") -> tuple[Sequence[Rna], dict[str, str]]:
    """The RNAs with known pairs of TABLE:SPLIT, and what a column says, by id."""
    path, colon, split = name.rpartition(":")
    if not colon:
        raise ValueError(f"{name}: which rows? Write {name}:SPLIT")
    rnas = list(with_pairs(read_table(Path(path), split), f"{path}, {split}"))
    rows = table_rows(Path(path), {*COLUMNS, by}) if by else ()
    return evenly(rnas, count), {row["id"]: row[by] for row in rows}


def compare_heads(model: str, rnas: Sequence[Rna]) -> None:
    """Print the mean F1 of each layer's and head's scores, the best first."""
    config = ErnieRnaConfig.from_pretrained(find_model(model))
    layers, heads = range(config.num_hidden_layers + 1), range(config.num_attention_heads)
    f1 = {
        place: score(rnas, fold_pairs(rnas, model, layer=place[0], head=place[1]))[:, 2].mean()
        for place in itertools.product(layers, heads)
    }
    print("layer\thead\tF1")
    for layer, head in sorted(f1, key=lambda place: -f1[place]):
        print(f"{layer}\t{head}\t{f1[layer, head]:.4f}")


def predict(methods: Sequence[str], rnas: Sequence[Rna], model: str) -> dict[str, list[Pairs]]:
    """By method, the pairs of each RNA."""
    found: dict[str, list[Pairs]] = {}
    for method in methods:
        if method in _PRIORS:
            found[method] = fold_pairs(rnas, model, prior=_PRIORS[method])
        else:
            others = (without_model(rna.sequence, method) for rna in rnas)
            found[method] = [dict.fromkeys(pairs, float("nan")) for pairs in others]
    return found


def fold_pairs(rnas: Sequence[Rna], model: str, **options: Any) -> list[Pairs]:
    """The pairs of `ernie-rna fold` with their probabilities."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That weights are random, or without a pair, is known.
        folded = list(fold(rnas, model, matrix="probabilities", long="full", **options))
    return [
        {pair: float(one.matrix[pair]) for pair in one.structure.pairs if one.matrix is not None}
        for one in folded
    ]


def without_model(sequence: str, method: str) -> list[BasePair]:
    """The greedy structure, or one of ViennaRNA with its default parameters."""
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
    """The strongest runs of stacked pairs, one by one.

    All longest runs of at least three canonical pairs are taken in the order of their strength (3
    for G-C, 2 for A-U, 1 for G-U), each cut to the bases that are free and cross no run before it.
    """
    bases = to_rna(sequence)
    allowed = allowed_pairs([bases], min_loop=MIN_LOOP)[0].triu().nonzero().tolist()
    runs = [run for run in stems([(i, j) for i, j in allowed]) if len(run) >= _SHORTEST_RUN]
    # Of two as strong the one that begins first.
    runs.sort(key=lambda run: (-sum(_STRENGTH[bases[i] + bases[j]] for i, j in run), run))
    pairs: list[BasePair] = []
    for run in runs:
        taken = {base for pair in pairs for base in pair}
        rest = [pair for pair in run if not taken & {*pair} and not crosses(pair, pairs)]
        if len(rest) >= _SHORTEST_RUN:
            pairs += rest
    return sorted(pairs)


def stems(pairs: Sequence[BasePair]) -> list[list[BasePair]]:
    """The runs of sorted pairs that stack on one another."""
    runs: dict[BasePair, list[BasePair]] = {}
    for i, j in pairs:
        runs[i, j] = [*runs.pop((i - 1, j + 1), []), (i, j)]
    return list(runs.values())


def crosses(pair: BasePair, others: Iterable[BasePair]) -> bool:
    """Whether a pair crosses one of some others."""
    both = (sorted([pair, other]) for other in others)
    return any(i < begin < j < end for (i, j), (begin, end) in both)


def score(rnas: Sequence[Rna], pairs: Iterable[Iterable[BasePair]]) -> np.ndarray:
    """Precision, recall and F1 of each RNA: (rnas, 3)."""
    return np.array([score_pairs(one, rna.pairs) for rna, one in zip(rnas, pairs, strict=True)])


def table_of_scores(rnas: Sequence[Rna], found: Found, labels: Mapping[str, str]) -> Rows:
    """Means over all, over families, by length and by label; then how far the first is above."""
    scores = {method: score(rnas, pairs) for method, pairs in found.items()}
    families = np.array([rna.family for rna in rnas])
    lengths = np.array([len(rna.sequence) for rna in rnas])
    groups = [("all", lengths > 0), ("mean of families", lengths > 0)]
    for low, high in itertools.pairwise(_BINS):
        groups.append((f"{low + 1} to {high} nt", (low < lengths) & (lengths <= high)))
    own_labels = np.array([labels[rna.id] for rna in rnas] if labels else [])
    groups += [(label, own_labels == label) for label in np.unique(own_labels).tolist()]
    for method, all_scores in scores.items():
        for which, chosen in groups:
            own = all_scores[chosen]
            if which == "mean of families":
                each = dict.fromkeys(families.tolist())
                f1 = np.array([own[families == family, 2].mean() for family in each])
                yield method, which, len(f1), "", "", *_cells([f1.mean()]), "", "", *_interval(f1)
            elif len(own):
                intervals = *_interval(own[:, 2]), *_interval(own[:, 2], families[chosen])
                yield method, which, len(own), *_cells(own.mean(axis=0)), *intervals
    first, *others = scores
    for other in others:
        above = (scores[first] - scores[other])[:, 2]
        cells = *_cells([above.mean()]), *_interval(above), *_interval(above, families)
        yield f"{first} - {other}", "all", len(rnas), "", "", *cells


def _interval(values: np.ndarray, families: Sequence[Any] | np.ndarray = ()) -> list[str]:
    """What 95 % of the means lie in, if values, or families with all of theirs, are drawn anew."""
    _, group = np.unique([*families] or range(len(values)), return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    drawn = np.random.default_rng(0).integers(0, len(sums), (_DRAWS, len(sums)))
    drawn_means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return _cells(np.quantile(drawn_means, [0.025, 0.975]))


def _cells(values: Iterable[float]) -> list[str]:
    return [f"{value:.4f}" for value in values]


# Fewest pairs in a stem, the least mean of their probabilities, and the most bases in each of the
# three loops of an H-type pseudoknot, which the stem and what it crosses are taken for.
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
    """The largest nested set, and of the pairs that cross it the stems that a rule leaves."""
    nested, *others = nested_pages(sorted(predicted)) or [[]]
    left: list[BasePair] = []
    for stem in stems(sorted(pair for page in others for pair in page)):
        crossed = [pair for pair in nested if crosses(pair, stem)]
        (one, one_back), (two, two_back) = sorted(
            [sorted(side) for side in zip(*pairs, strict=True)] for pairs in (stem, crossed)
        )
        loops = two[0] - one[-1] - 1, one_back[0] - two[-1] - 1, two_back[0] - one_back[-1] - 1
        sure = float(np.mean([predicted[pair] for pair in stem]))
        if len(stem) >= shortest and sure >= probability and max(loops) <= loop:
            left += stem
    return [pair for stem in stems(nested) if len(stem) >= MIN_STEM for pair in stem], left


def table_of_knots(rnas: Sequence[Rna], found: Found, labels: Mapping[str, str]) -> Rows:
    """Of each rule the crossing pairs that it leaves, those of them that are known, and the F1."""
    for (method, predicted), rule in itertools.product(found.items(), _RULES):
        believed = [believed_pairs(pairs, *rule) for pairs in predicted]
        knots = [own for _, own in believed]
        right = sum(len({*own} & {*rna.pairs}) for rna, own in zip(rnas, knots, strict=True))
        f1 = score(rnas, ([*nested, *own] for nested, own in believed))[:, 2]
        counts = sum(map(bool, knots)), sum(map(len, knots)), right
        yield method, *rule, *counts, *_cells([f1.mean()]), *_interval(f1)


def table_of_confidence(rnas: Sequence[Rna], found: Found, labels: Mapping[str, str]) -> Rows:
    """Of the predicted pairs, by label and by probability, how many are known."""
    for method, predicted in found.items():
        pairs = [
            (sure, pair in rna.pairs, labels.get(rna.id, ""))
            for rna, own in zip(rnas, predicted, strict=True)
            for pair, sure in own.items()
            if not np.isnan(sure)
        ]
        for which in ["", *sorted({*labels.values()})]:
            own = np.array([(sure, known) for sure, known, label in pairs if which in ("", label)])
            if not len(own):
                continue
            bins = reliability(own[:, 0], own[:, 1])
            shares = *own.mean(axis=0), expected_calibration_error(bins)
            yield method, which or "all", len(own), *(f"{share:.3f}" for share in shares)
            for one in [] if which else bins:
                name = f"{one.low:.1f} to {one.high:.1f}"
                yield method, name, one.count, f"{one.predicted:.3f}", f"{one.known:.3f}", ""


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
