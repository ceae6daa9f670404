"""Mean precision, recall and F1 of a model's pair head on known structures.

    python scripts/evaluate_pair_head.py mini rfam_seed.tsv.gz --split validation
    python scripts/evaluate_pair_head.py mini bprna_new.tsv --split bpRNA-new -o scores.tsv
    python scripts/evaluate_pair_head.py mini bprna_new.tsv --split bpRNA-new --random
    python scripts/evaluate_pair_head.py mini rfam_seed.tsv.gz --split validation --sequences 100 \
        --scores all
    python scripts/evaluate_pair_head.py mini bprna_new.tsv --split bpRNA-new --scores 6,3

Means are over sequences with known pairs, of the structures of `ernie-rna fold`. Beside the head:
the same network with random weights, and attention scores of a layer and head in place of the
logits (zero-shot), which `--scores all` tries one by one.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import transformers

from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.model.configuration_ernie_rna import ErnieRnaConfig
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from ernie_rna.run.find_model import find_model
from ernie_rna.run.outputs import open_text
from ernie_rna.sequences.tables import format_row
from ernie_rna.structures.evaluation import PairScore, mean_score, score_pairs
from ernie_rna.structures.fold import fold
from recipes.pretraining.rnas import Rna, read_table, with_pairs
from scripts.measuring import evenly

_BINS = (0, 75, 100, 150, 200, 300, 10**6)

Scored = Sequence[tuple[Rna, PairScore]]


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder with a pair head, or mini")
    add("table", type=Path, metavar="TABLE", help="with known structures, as for pretraining")
    add("--split", required=True, metavar="VALUE", help="rows of the split column")
    add("--sequences", type=int, metavar="N", help="only so many, evenly spaced")
    add("--random", action="store_true", help="draw the weights anew")
    add("--scores", metavar="L,H", help="of this layer (0: projected) and head; all tries each")
    add("-o", "--output", metavar="FILE", help="scores by sequence, TSV")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    known = read_table(args.table, args.split)
    rnas = evenly(list(with_pairs(known, f"{args.table}, {args.split}")), args.sequences)
    with tempfile.TemporaryDirectory() as folder:
        model = random_weights(args.model, folder) if args.random else args.model
        if args.scores == "all":
            compare_heads(model, rnas)
            return 0
        layer, head = map(int, args.scores.split(",")) if args.scores else (None, None)
        scored = score(model, rnas, layer, head)
    for row in means(scored):
        print(format_row(*row), end="")
    if args.output is not None:
        with open_text(args.output) as file:
            file.write(format_row("id", "family", "length", "precision", "recall", "f1"))
            file.writelines(
                format_row(r.id, r.family, len(r.sequence), *_cells(s)) for r, s in scored
            )
    return 0


def random_weights(model: str, folder: str) -> str:
    """The same network with random weights, in a folder."""
    config = ErnieRnaConfig.from_pretrained(find_model(model))
    transformers.set_seed(0)
    ErnieRnaForPreTraining(config).save_pretrained(folder)
    return folder


def score(model: str, rnas: Sequence[Rna], layer: int | None, head: int | None) -> Scored:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That weights are random, or without a pair, is known.
        folded = list(fold(rnas, model, layer=layer, head=head, long="full"))
    scores = (score_pairs(f.structure.pairs, r.pairs) for f, r in zip(folded, rnas, strict=True))
    return list(zip(rnas, scores, strict=True))


def compare_heads(model: str, rnas: Sequence[Rna]) -> None:
    """Print the mean F1 of each layer's and head's scores, the best first."""
    config = ErnieRnaConfig.from_pretrained(find_model(model))
    layers, heads = range(config.num_hidden_layers + 1), range(config.num_attention_heads)
    f1 = {
        place: mean_score([one for _, one in score(model, rnas, *place)]).f1
        for place in itertools.product(layers, heads)
    }
    print("layer\thead\tF1")
    for layer, head in sorted(f1, key=lambda place: -f1[place]):
        print(f"{layer}\t{head}\t{f1[layer, head]:.4f}")


def means(scored: Scored) -> Iterator[list[object]]:
    """Rows of means over all, over families, and by length."""
    yield ["which", "sequences", "precision", "recall", "F1"]
    yield ["all", len(scored), *_cells(mean_score([one for _, one in scored]))]
    families: dict[str, list[float]] = {}
    for rna, one in scored:
        families.setdefault(rna.family, []).append(one.f1)
    f1 = np.mean([np.mean(values) for values in families.values()])
    yield ["mean of families", len(families), "", "", f"{f1:.4f}"]
    for low, high in itertools.pairwise(_BINS):
        own = [one for rna, one in scored if low < len(rna.sequence) <= high]
        if own:
            yield [f"{low + 1} to {high} nt", len(own), *_cells(mean_score(own))]


def _cells(score: PairScore) -> list[str]:
    return [f"{value:.4f}" for value in (score.precision, score.recall, score.f1)]


if __name__ == "__main__":
    sys.exit(main())
