"""F1, precision and recall of a model's pair head on known structures, beside ViennaRNA.

    python scripts/evaluate_pair_head.py mini rfam_seed.tsv.gz:validation --sequences 400 \\
        --methods head,prior,mfe,mea,centroid
    python scripts/evaluate_pair_head.py mini bprna_new.tsv --split new -o scores.tsv
    python scripts/evaluate_pair_head.py mini bprna_new.tsv --split new --random
    python scripts/evaluate_pair_head.py mini bprna_new.tsv --split new --scores 6,3

Means are over sequences with known pairs, of the structures of `ernie-rna fold`, with intervals of
95 % by bootstrap over sequences, or over families. Methods: the head; prior, the head with
`--prior vienna`; and of ViennaRNA alone the structure of minimum free energy, that of maximum
expected accuracy and the centroid. Beside the head: the same network with random weights, and
attention scores of a layer and head in place of the logits (zero-shot), which `--scores all` tries
one by one.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.extras import import_extra
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from ernie_rna.options import parse_words
from ernie_rna.run.find_model import find_model
from ernie_rna.run.outputs import open_text
from ernie_rna.sequences.fasta import to_rna
from ernie_rna.sequences.tables import format_row
from ernie_rna.structures.evaluation import PairScore, mean_score, score_pairs
from ernie_rna.structures.fold import fold
from ernie_rna.structures.formats.dot_bracket import BasePair, from_dot_bracket
from recipes.pretraining.rnas import Rna, read_table, with_pairs
from scripts.measuring import evenly

_BINS = (0, 75, 100, 150, 200, 300, 10**6)
_METHODS = ("head", "prior", "mfe", "mea", "centroid")
_DRAWS = 2000  # of the bootstrap

Scored = Sequence[tuple[Rna, PairScore]]


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder with a pair head, or mini")
    add("tables", nargs="+", metavar="TABLE[:SPLIT]", help="known structures, as for pretraining")
    add("--split", metavar="VALUE", help="rows of the split column, of tables that name none")
    add("--sequences", type=int, metavar="N", help="only so many of each table, evenly spaced")
    add("--methods", type=parse_words, default=_METHODS[:1], metavar="M,M", help="(head)")
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
    sets = {name: read_set(name, args.split, args.sequences) for name in args.tables}
    header = ["set", "method", "which", "sequences", "precision", "recall", "F1", "low", "high"]
    lines = [["set", "method", "id", "family", "length", "precision", "recall", "f1"]]
    with tempfile.TemporaryDirectory() as folder:
        model = random_weights(args.model, folder) if args.random else args.model
        if args.scores == "all":
            compare_heads(model, [rna for rnas in sets.values() for rna in rnas])
            return 0
        print(format_row(*header), end="")
        for (name, rnas), method in itertools.product(sets.items(), args.methods):
            scored = score(method, model, rnas, *(args.scores or (None, None)))
            for row in means(scored):
                print(format_row(Path(name).name, method, *row), end="", flush=True)
            for r, one in scored:
                cells = r.id, r.family, str(len(r.sequence)), *_cells(one)
                lines.append([Path(name).name, method, *cells])
    if args.output is not None:
        with open_text(args.output) as file:
            file.writelines(format_row(*line) for line in lines)
    return 0


def read_set(name: str, split: str | None, count: int | None) -> Sequence[Rna]:
    """The RNAs with known pairs of TABLE[:SPLIT]."""
    path, colon, own = name.rpartition(":")
    path, wanted = (path, own) if colon else (name, split)
    if wanted is None:
        raise ValueError(f"{name}: which rows? Write {name}:SPLIT, or --split")
    return evenly(list(with_pairs(read_table(Path(path), wanted), f"{path}, {wanted}")), count)


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


def score(
    method: str, model: str, rnas: Sequence[Rna], layer: int | None, head: int | None
) -> Scored:
    if method in ("head", "prior"):
        how: Any = {"layer": layer, "head": head, "prior": "vienna" if method == "prior" else None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # That weights are random, or without a pair, is known.
            found = [one.structure.pairs for one in fold(rnas, model, long="full", **how)]
    else:
        found = [vienna_pairs(method, rna.sequence) for rna in rnas]
    return [(rna, score_pairs(one, rna.pairs)) for rna, one in zip(rnas, found, strict=True)]


def vienna_pairs(method: str, sequence: str) -> list[BasePair]:
    """The structure of ViennaRNA with its default parameters."""
    vienna = import_extra("RNA", "vienna", f"--methods {method}")
    ensemble = vienna.fold_compound(to_rna(sequence))
    text, energy = ensemble.mfe()
    if method != "mfe":
        ensemble.exp_params_rescale(energy)
        ensemble.pf()
        text, _ = ensemble.MEA() if method == "mea" else ensemble.centroid()
    return from_dot_bracket(text)


def compare_heads(model: str, rnas: Sequence[Rna]) -> None:
    """Print the mean F1 of each layer's and head's scores, the best first."""
    config = ErnieRnaConfig.from_pretrained(find_model(model))
    layers, heads = range(config.num_hidden_layers + 1), range(config.num_attention_heads)
    f1 = {
        place: mean_score([one for _, one in score("head", model, rnas, *place)]).f1
        for place in itertools.product(layers, heads)
    }
    print("layer\thead\tF1")
    for layer, head in sorted(f1, key=lambda place: -f1[place]):
        print(f"{layer}\t{head}\t{f1[layer, head]:.4f}")


def means(scored: Scored) -> Iterator[list[str]]:
    """Rows of means over all, over families, and by length, with intervals of the F1."""
    f1 = np.array([one.f1 for _, one in scored])
    everything = mean_score([one for _, one in scored])
    yield ["all", str(len(scored)), *_cells(everything), *_interval(f1)]
    families: dict[str, list[float]] = {}
    for rna, one in scored:
        families.setdefault(rna.family, []).append(one.f1)
    by_family = np.array([np.mean(values) for values in families.values()])
    cells = "", "", f"{by_family.mean():.4f}", *_interval(by_family)
    yield ["mean of families", str(len(families)), *cells]
    for low, high in itertools.pairwise(_BINS):
        own = [one for rna, one in scored if low < len(rna.sequence) <= high]
        if own:
            cells = *_cells(mean_score(own)), *_interval(np.array([one.f1 for one in own]))
            yield [f"{low + 1} to {high} nt", str(len(own)), *cells]


def _interval(values: np.ndarray) -> list[str]:
    """What 95 % of the means of as many values lie in, drawn with replacement."""
    drawn = np.random.default_rng(0).integers(0, len(values), (_DRAWS, len(values)))
    return [f"{end:.4f}" for end in np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])]


def _cells(score: PairScore) -> list[str]:
    return [f"{value:.4f}" for value in (score.precision, score.recall, score.f1)]


if __name__ == "__main__":
    sys.exit(main())
