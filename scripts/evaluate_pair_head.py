"""F1, precision and recall of a model's pair head on known structures, beside ViennaRNA.

    python -m scripts.evaluate_pair_head mini rfam_seed.tsv.gz:validation --by type \\
        --methods prior,head,mfe,mea,centroid,greedy
    python -m scripts.evaluate_pair_head mini rfam_seed.tsv.gz:validation --methods head,prior \\
        --print scores knots confidence
    python -m scripts.evaluate_pair_head mini bprna_new.tsv:new --random
    python -m scripts.evaluate_pair_head mini bprna_new.tsv:new --scores 6,3

Methods: the head; prior, the head with `--prior vienna`; of ViennaRNA alone the structure of
minimum free energy, that of maximum expected accuracy and the centroid; and greedy, the strongest
stems one by one, without any model. The structures are those of `ernie-rna fold`.

Three tables. `scores`: means over sequences with known pairs, by length and by the labels of a
column, with intervals of 95 % by bootstrap over sequences and over families, and how far the first
method is above each other one. `knots`: what rules for crossing pairs leave of them, and the F1
with each. `confidence`: how many of the pairs of each probability are known.

Beside the head: the same network with random weights, and attention scores of a layer and head in
place of the logits (zero-shot), which `--scores all` tries one by one.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import transformers

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.extras import import_extra
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from ernie_rna.model.structures_ernie_rna import (
    MIN_LOOP,
    MIN_STEM,
    allowed_pairs,
    nested_pages,
)
from ernie_rna.options import parse_words
from ernie_rna.run.find_model import find_model
from ernie_rna.run.outputs import open_text
from ernie_rna.sequences.fasta import to_rna
from ernie_rna.sequences.tables import format_row
from ernie_rna.structures.confidence import expected_calibration_error, reliability
from ernie_rna.structures.evaluation import PairScore, mean_score, score_pairs
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.dot_bracket import BasePair, from_dot_bracket
from ernie_rna.structures.prior import VIENNA
from recipes.pretraining.rnas import COLUMNS, Rna, read_table, table_rows, with_pairs
from scripts.measuring import evenly

_BINS = (0, 75, 100, 150, 200, 300, 10**6)
_PRIORS = {"head": None, "prior": VIENNA}  # of the methods that fold by the model
_OF_VIENNA = ("mfe", "mea", "centroid")
_METHODS = (*_PRIORS, *_OF_VIENNA, "greedy")
_DRAWS = 2000  # of the bootstrap
_STRENGTH = {"CG": 3, "GC": 3, "AU": 2, "UA": 2, "GU": 1, "UG": 1}  # of the greedy structure
_SHORTEST_RUN = 3

# The pairs of an RNA, and the probability of each; NaN where the method gives none.
Pairs = dict[BasePair, float]
Found = Mapping[str, Sequence[Pairs]]  # by method, of some RNAs
Scored = Sequence[tuple[Rna, PairScore]]


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder with a pair head, or mini")
    known = "known structures, as for pretraining, and the value of their column split"
    add("tables", nargs="+", metavar="TABLE:SPLIT", help=known)
    add("--sequences", type=int, metavar="N", help="only so many of each table, evenly spaced")
    add("--methods", type=parse_words, default=_METHODS[:1], metavar="M,M", help="(head)")
    add("--print", nargs="+", choices=_TABLES, default=["scores"], help="which tables (scores)")
    add("--by", metavar="COLUMN", help="scores for each label in this column as well")
    add("--random", action="store_true", help="draw the weights anew")
    help = "of this layer (0: projected) and head; all tries each"
    add("--scores", type=parse_scores, metavar="L,H", help=help)
    add("-o", "--output", metavar="FILE", help="scores by sequence, TSV")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    unknown = sorted(set(args.methods) - set(_METHODS))
    if unknown:
        raise ValueError(f"--methods must be among {', '.join(_METHODS)}; got {unknown[0]}")
    if args.scores is not None and "prior" in args.methods:
        raise ValueError("--scores are no logits, which prior needs: leave out one of the two")
    sets = {name: read_set(name, args.sequences) for name in args.tables}
    labels = {name: read_labels(name, args.by) for name in args.tables if args.by}
    with tempfile.TemporaryDirectory() as folder:
        model = random_weights(args.model, folder) if args.random else args.model
        if args.scores == "all":
            compare_heads(model, [rna for rnas in sets.values() for rna in rnas])
            return 0
        place = args.scores or (None, None)
        found = {name: predict(args.methods, rnas, model, *place) for name, rnas in sets.items()}
    for which in args.print:
        header, table = _TABLES[which]
        print(format_row("set", "method", *header), end="")
        for name, rnas in sets.items():
            for row in table(rnas, found[name], labels.get(name, {})):
                print(format_row(Path(name).name, *row), end="", flush=True)
    if args.output is not None:
        with open_text(args.output) as file:
            file.writelines(score_lines(sets, found))
    return 0


def score_lines(sets: Mapping[str, Sequence[Rna]], found: Mapping[str, Found]) -> Iterator[str]:
    """A table of the scores of each sequence by each method."""
    yield format_row("set", "method", "id", "family", "length", "precision", "recall", "f1")
    for name, rnas in sets.items():
        for method, pairs in found[name].items():
            for r, one in score(rnas, pairs):
                own = r.id, r.family, len(r.sequence), *_cells(one)
                yield format_row(Path(name).name, method, *own)


def read_set(name: str, count: int | None) -> Sequence[Rna]:
    """The RNAs with known pairs of TABLE:SPLIT."""
    path, colon, split = name.rpartition(":")
    if not colon:
        raise ValueError(f"{name}: which rows? Write {name}:SPLIT")
    return evenly(list(with_pairs(read_table(Path(path), split), f"{path}, {split}")), count)


def read_labels(name: str, column: str) -> dict[str, str]:
    """A column of TABLE:SPLIT by id."""
    path = Path(name.rpartition(":")[0])
    return {row["id"]: row[column] for row in table_rows(path, {*COLUMNS, column})}


def parse_scores(text: str) -> str | tuple[int, int]:
    """Layer and head, or "all"; argparse names the option where it is neither."""
    if text == "all":
        return text
    layer, head = map(int, text.split(","))
    return layer, head


def random_weights(model: str, folder: str) -> str:
    """The same network with random weights, in a folder."""
    config = ErnieRnaConfig.from_pretrained(find_model(model))
    transformers.set_seed(0)
    ErnieRnaForPreTraining(config).save_pretrained(folder)
    return folder


# ---------------------------------------------------------------------------------------------
# Predictions


def predict(
    methods: Sequence[str],
    rnas: Sequence[Rna],
    model: str,
    layer: int | None = None,
    head: int | None = None,
) -> dict[str, list[Pairs]]:
    """By method, the pairs of each RNA."""
    found: dict[str, list[Pairs]] = {method: [] for method in methods}
    for method, prior in _PRIORS.items():
        if method in methods:
            how: Any = {"layer": layer, "head": head, "prior": prior, "long": "full"}
            found[method] = fold_pairs(rnas, model, **how)
    by_vienna = set(methods) & set(_OF_VIENNA)
    for rna in rnas:
        others = vienna_pairs(rna.sequence, by_vienna) if by_vienna else {}
        if "greedy" in methods:
            others["greedy"] = greedy_pairs(rna.sequence)
        for method, pairs in others.items():
            found[method].append(dict.fromkeys(pairs, float("nan")))
    return found


def fold_pairs(rnas: Sequence[Rna], model: str, **options: Any) -> list[Pairs]:
    """The pairs of `ernie-rna fold` with their probabilities."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That weights are random, or without a pair, is known.
        folded = list(fold(rnas, model, matrix="probabilities", **options))
    return [
        {pair: float(one.matrix[pair]) for pair in one.structure.pairs}
        if one.matrix is not None
        else {}
        for one in folded
    ]


def vienna_pairs(sequence: str, methods: Iterable[str]) -> dict[str, list[BasePair]]:
    """Structures of ViennaRNA with its default parameters, by method."""
    vienna = import_extra("RNA", "vienna", "--methods mfe, mea and centroid")
    ensemble = vienna.fold_compound(to_rna(sequence))
    text, energy = ensemble.mfe()
    texts = {"mfe": text}
    if set(methods) != {"mfe"}:
        ensemble.exp_params_rescale(energy)
        ensemble.pf()
        texts |= {"mea": ensemble.MEA()[0], "centroid": ensemble.centroid()[0]}
    return {method: from_dot_bracket(texts[method]) for method in methods}


def greedy_pairs(sequence: str) -> list[BasePair]:
    """The strongest runs of stacked pairs, one by one.

    All longest runs of at least three canonical pairs are taken in the order of their strength (3
    for G-C, 2 for A-U, 1 for G-U), each cut to the bases that are free and cross no run before it.
    """
    bases = to_rna(sequence)
    allowed = allowed_pairs([bases], min_loop=MIN_LOOP)[0].numpy()
    runs = []
    for i, j in zip(*np.triu(allowed).nonzero(), strict=True):
        if i and j + 1 < len(bases) and allowed[i - 1, j + 1]:
            continue  # it begins farther out
        run = []
        while i < j and allowed[i, j]:
            run.append((int(i), int(j)))
            i, j = i + 1, j - 1
        if len(run) >= _SHORTEST_RUN:
            runs.append(run)
    runs.sort(key=lambda run: -sum(_STRENGTH[bases[i] + bases[j]] for i, j in run))
    pairs: list[BasePair] = []
    for run in runs:
        taken = {base for pair in pairs for base in pair}
        rest = [
            pair
            for pair in run
            if not taken & set(pair) and not any(cross(pair, other) for other in pairs)
        ]
        if len(rest) >= _SHORTEST_RUN:
            pairs += rest
    return sorted(pairs)


def cross(one: BasePair, other: BasePair) -> bool:
    (i, j), (begin, end) = sorted([one, other])
    return i < begin < j < end


# ---------------------------------------------------------------------------------------------
# Tables: rows of a method and cells, by the RNAs, what each method predicts, and labels by id


Rows = Iterator[tuple[str, ...]]


def score(rnas: Sequence[Rna], pairs: Sequence[Iterable[BasePair]]) -> Scored:
    return [(rna, score_pairs(one, rna.pairs)) for rna, one in zip(rnas, pairs, strict=True)]


def table_of_scores(rnas: Sequence[Rna], found: Found, labels: Mapping[str, str]) -> Rows:
    """Means over all, over families, by length and by label; then how far the first is above."""
    scored = {method: score(rnas, pairs) for method, pairs in found.items()}
    for method, own in scored.items():
        for row in means(own, labels):
            yield method, *row
    first, *others = scored
    families = [rna.family for rna in rnas]
    for other in others:
        above = np.array(
            [a.f1 - b.f1 for (_, a), (_, b) in zip(scored[first], scored[other], strict=True)]
        )
        cells = f"{above.mean():.4f}", *_interval(above), *_interval(above, families)
        yield f"{first} - {other}", "all", str(len(rnas)), "", "", *cells


def means(scored: Scored, labels: Mapping[str, str]) -> Iterator[list[str]]:
    """Rows of means over all, over families, by length and by label, with intervals of the F1."""

    def row(which: str, own: Scored) -> list[str]:
        f1 = np.array([one.f1 for _, one in own])
        intervals = [*_interval(f1), *_interval(f1, [rna.family for rna, _ in own])]
        return [which, str(len(own)), *_cells(mean_score([one for _, one in own])), *intervals]

    yield row("all", scored)
    families: dict[str, list[float]] = {}
    for rna, one in scored:
        families.setdefault(rna.family, []).append(one.f1)
    by_family = np.array([np.mean(values) for values in families.values()])
    cells = "", "", f"{by_family.mean():.4f}", "", "", *_interval(by_family)
    yield ["mean of families", str(len(families)), *cells]
    for low, high in itertools.pairwise(_BINS):
        own = [(rna, one) for rna, one in scored if low < len(rna.sequence) <= high]
        if own:
            yield row(f"{low + 1} to {high} nt", own)
    for label in sorted({labels[rna.id] for rna, _ in scored} if labels else ()):
        yield row(label, [(rna, one) for rna, one in scored if labels[rna.id] == label])


def _interval(values: np.ndarray, families: Sequence[str] = ()) -> list[str]:
    """What 95 % of the means lie in, if values, or families with all of theirs, are drawn anew."""
    _, group = np.unique(families or range(len(values)), return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    drawn = np.random.default_rng(0).integers(0, len(sums), (_DRAWS, len(sums)))
    drawn_means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return [f"{end:.4f}" for end in np.quantile(drawn_means, [0.025, 0.975])]


def _cells(score: PairScore) -> list[str]:
    return [f"{value:.4f}" for value in (score.precision, score.recall, score.f1)]


class Rule(NamedTuple):
    """Which stems are believed that cross the largest nested set of the predicted pairs.

    Attributes:
        pairs: fewest in a stem.
        probability: the least mean of them.
        loop: most bases in each of the three loops of an H-type pseudoknot, which the stem and
            what it crosses are taken for.
    """

    pairs: float = 1
    probability: float = 0.0
    loop: float = np.inf

    def believes(self, stem: list[BasePair], crossed: list[BasePair], predicted: Pairs) -> bool:
        (one, one_back), (two, two_back) = sorted(
            [sorted(side) for side in zip(*pairs, strict=True)] for pairs in (stem, crossed)
        )
        loops = two[0] - one[-1] - 1, one_back[0] - two[-1] - 1, two_back[0] - one_back[-1] - 1
        return (
            len(stem) >= self.pairs
            and float(np.mean([predicted[pair] for pair in stem])) >= self.probability
            and max(loops) <= self.loop
        )


_RULES = (
    Rule(),
    Rule(np.inf),  # none
    *(Rule(pairs) for pairs in (3, 4, 5)),
    *(Rule(probability=p) for p in (0.4, 0.5, 0.6, 0.7, 0.8)),
    *itertools.starmap(Rule, itertools.product((1, 3, 4), (0.0, 0.5, 0.6), (8, 15, 30))),
)


def believed_pairs(predicted: Pairs, rule: Rule) -> tuple[list[BasePair], list[BasePair]]:
    """The largest nested set, and of the pairs that cross it the stems that a rule leaves."""
    nested, *others = nested_pages(sorted(predicted)) or [[]]
    left: list[BasePair] = []
    for stem in stems(sorted(pair for page in others for pair in page)):
        crossed = [pair for pair in nested if any(cross(pair, own) for own in stem)]
        if rule.believes(stem, crossed, predicted):
            left += stem
    return [pair for stem in stems(nested) if len(stem) >= MIN_STEM for pair in stem], left


def stems(pairs: Sequence[BasePair]) -> list[list[BasePair]]:
    """The runs of sorted pairs that stack on one another."""
    runs: dict[BasePair, list[BasePair]] = {}
    for i, j in pairs:
        runs[i, j] = [*runs.pop((i - 1, j + 1), []), (i, j)]
    return list(runs.values())


def table_of_knots(rnas: Sequence[Rna], found: Found, labels: Mapping[str, str]) -> Rows:
    """Of each rule the crossing pairs that it leaves, those of them that are known, and the F1."""
    for (method, predicted), rule in itertools.product(found.items(), _RULES):
        believed = [believed_pairs(pairs, rule) for pairs in predicted]
        right = [
            len(set(knots) & set(rna.pairs)) for rna, (_, knots) in zip(rnas, believed, strict=True)
        ]
        f1 = np.array([one.f1 for _, one in score(rnas, [[*a, *b] for a, b in believed])])
        counts = sum(bool(b) for _, b in believed), sum(len(b) for _, b in believed), sum(right)
        yield method, *map(str, (*rule, *counts)), f"{f1.mean():.4f}", *_interval(f1)


def table_of_confidence(rnas: Sequence[Rna], found: Found, labels: Mapping[str, str]) -> Rows:
    """Of the predicted pairs, by label and by probability, how many are known."""
    for method, predicted in found.items():
        pairs = [
            (sure, pair in set(rna.pairs), labels.get(rna.id, ""))
            for rna, own in zip(rnas, predicted, strict=True)
            for pair, sure in own.items()
            if not np.isnan(sure)
        ]
        for which in ["", *sorted(set(labels.values()))]:
            own = np.array([(sure, known) for sure, known, label in pairs if which in ("", label)])
            if not len(own):
                continue
            bins = reliability(own[:, 0], own[:, 1])
            cells = [
                f"{value:.3f}" for value in (*own.mean(axis=0), expected_calibration_error(bins))
            ]
            yield method, which or "all", str(len(own)), *cells
            for one in [] if which else bins:
                name = f"{one.low:.1f} to {one.high:.1f}"
                yield method, name, str(one.count), f"{one.predicted:.3f}", f"{one.known:.3f}", ""


_SCORES = "which,sequences,precision,recall,F1,low,high,family low,family high"
_KNOTS = "pairs of a stem,probability,loop,RNAs with knots,crossing pairs,right,F1,low,high"
_CONFIDENCE = "which,pairs,probability,known,calibration error"
_TABLES: dict[str, tuple[list[str], Callable[..., Rows]]] = {
    "scores": (_SCORES.split(","), table_of_scores),
    "knots": (_KNOTS.split(","), table_of_knots),
    "confidence": (_CONFIDENCE.split(","), table_of_confidence),
}


def compare_heads(model: str, rnas: Sequence[Rna]) -> None:
    """Print the mean F1 of each layer's and head's scores, the best first."""
    config = ErnieRnaConfig.from_pretrained(find_model(model))
    layers, heads = range(config.num_hidden_layers + 1), range(config.num_attention_heads)
    f1 = {}
    for place in itertools.product(layers, heads):
        found = predict(["head"], rnas, model, *place)["head"]
        f1[place] = mean_score([one for _, one in score(rnas, found)]).f1
    print("layer\thead\tF1")
    for layer, head in sorted(f1, key=lambda place: -f1[place]):
        print(f"{layer}\t{head}\t{f1[layer, head]:.4f}")


if __name__ == "__main__":
    sys.exit(main())
