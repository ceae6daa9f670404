"""Mean precision, recall and F1 of a model's pair head on known structures.

    python scripts/evaluate_pair_head.py mini rfam_seed.tsv.gz --split validation
    python scripts/evaluate_pair_head.py mini bprna_new.tsv --split bpRNA-new -o scores.tsv
    python scripts/evaluate_pair_head.py mini bprna_new.tsv --split bpRNA-new --random
    python scripts/evaluate_pair_head.py mini rfam_seed.tsv.gz --split validation --sequences 100 \
        --scores all
    python scripts/evaluate_pair_head.py mini bprna_new.tsv --split bpRNA-new --scores 6,3

Means are over sequences with known pairs, as in `ernie-rna evaluate`; the threshold is that of the
model's config. Beside the head: the same network with random weights, and attention scores of a
layer and head in place of the logits (zero-shot, with the authors' threshold), which `--scores all`
tries one by one.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from ernie_rna.model.modeling_ernie_rna import ErnieRnaForPreTraining
from ernie_rna.model.tokenization_ernie_rna import ErnieRnaTokenizer

from ernie_rna.data import resolve_model
from ernie_rna.sequences.fasta import InputError
from ernie_rna.structures.contacts import symmetrize
from recipes.pretraining.data import Rna, read_table, with_pairs
from recipes.pretraining.evaluation import score_structures
from recipes.pretraining.export import pair_logits

AUTHORS_THRESHOLD = 1.5
_BINS = (0, 75, 100, 150, 200, 300, 10**6)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="folder with a pair head, or mini")
    parser.add_argument("table", type=Path, metavar="TABLE", help="TSV, may be gzipped")
    parser.add_argument("--split", required=True, metavar="VALUE", help="rows of the split column")
    parser.add_argument("--part", default="0/1", metavar="I/N", help="every N-th row from I on")
    parser.add_argument("--sequences", type=int, metavar="N", help="only so many, evenly spaced")
    parser.add_argument("--random", action="store_true", help="draw the weights anew")
    parser.add_argument("--scores", metavar="L,H", help="of this layer (0: projected) and head")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="scores by sequence, TSV")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        run(args)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(args: argparse.Namespace) -> None:
    model = ErnieRnaForPreTraining.from_pretrained(resolve_model(args.model)).float().eval()
    if args.random:
        transformers.set_seed(0)
        model = ErnieRnaForPreTraining(model.config).eval()
    start, step = map(int, args.part.split("/"))
    known = read_table(args.table, args.split)
    rnas = list(with_pairs(known, f"{args.table}, {args.split}"))[start::step]
    if args.sequences is not None:
        rnas = rnas[:: max(1, len(rnas) // args.sequences)][: args.sequences]
    if args.scores == "all":
        compare_heads(model, rnas)
        return
    if args.scores is None:
        maps, threshold = pair_logits(model, rnas), model.config.pair_threshold
    else:
        layer, head = map(int, args.scores.split(","))
        chosen = ((batch, scores[layer, head]) for batch, scores in attention_scores(model, rnas))
        maps, threshold = chosen, AUTHORS_THRESHOLD
    rows = []
    for batch, logits in maps:
        scores = score_structures(batch, logits, threshold)
        rows += [(r, s.precision, s.recall, s.f1) for r, s in zip(batch, scores, strict=True)]
    report(rows)
    if args.out is not None:
        with args.out.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(["id", "family", "length", "precision", "recall", "f1"])
            for rna, *values in rows:
                cells = [f"{value:.6f}" for value in values]
                writer.writerow([rna.id, rna.family, len(rna.sequence), *cells])


@torch.no_grad()
def attention_scores(
    model: ErnieRnaForPreTraining, rnas: Sequence[Rna]
) -> Iterator[tuple[list[Rna], torch.Tensor]]:
    """One RNA at a time, and its symmetric scores (layers + 1, heads, 1, length, length)."""
    tokenizer = ErnieRnaTokenizer()
    for rna in rnas:
        batch = tokenizer([rna.sequence], return_tensors="pt")
        biases = model.ernie_rna(**batch, output_attention_biases=True).attention_biases
        inside = torch.stack(biases)[:, 0, :, 1:-1, 1:-1]
        yield [rna], symmetrize(inside)[:, :, None]


def compare_heads(model: ErnieRnaForPreTraining, rnas: Sequence[Rna]) -> None:
    """Print the mean F1 of each layer's and head's scores, the best first."""
    f1: dict[tuple[int, int], list[float]] = defaultdict(list)
    for rna, scores in attention_scores(model, rnas):
        for layer, heads in enumerate(scores):
            for head, map in enumerate(heads):
                (score,) = score_structures(rna, map, AUTHORS_THRESHOLD)
                f1[layer, head].append(score.f1)
    print("layer\thead\tF1")
    for layer, head in sorted(f1, key=lambda each: -np.mean(f1[each])):
        print(f"{layer}\t{head}\t{np.mean(f1[layer, head]):.4f}")


def report(rows: Sequence[tuple[Rna, float, float, float]]) -> None:
    """Print means over all rows, over families, and by length."""
    print("which\tsequences\tprecision\trecall\tF1")
    _line("all", rows)
    families = {row[0].family for row in rows}
    means = [np.mean([r[3] for r in rows if r[0].family == family]) for family in families]
    print(f"mean of families\t{len(families)}\t\t\t{np.mean(means):.4f}")
    for low, high in itertools.pairwise(_BINS):
        _line(f"{low + 1} to {high} nt", [r for r in rows if low < len(r[0].sequence) <= high])


def _line(name: str, rows: Sequence[tuple[Rna, float, float, float]]) -> None:
    if rows:
        means = np.mean([row[1:] for row in rows], axis=0)
        print(f"{name}\t{len(rows)}\t" + "\t".join(f"{mean:.4f}" for mean in means))


if __name__ == "__main__":
    sys.exit(main())
