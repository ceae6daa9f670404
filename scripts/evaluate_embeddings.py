"""What the embeddings of a model know: families by nearest neighbour, classes by a linear probe.

    python -m scripts.evaluate_embeddings families MODEL rfam_seed.tsv.gz --split validation
    python -m scripts.evaluate_embeddings classes MODEL nrc_13class.tsv --train train --test test

A sequence is its mean vector of the last layer. Beside it stand the same network with random
weights and counts of k-mers (3 and 4, with the length). Tables have the columns sequence and split,
and family or label.

families: each sequence's nearest other one by cosine; the share whose neighbour is of its family,
the mean over families. Families of one sequence are left out, and of the others at most
--per-family sequences are taken, evenly over the file.

classes: logistic regression on standardised vectors, its strength chosen by cross-validation on
the training rows; accuracy on the test rows, and on those that are no copy of a training row.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import transformers
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ernie_rna import ErnieRnaModel, embed, load_model
from ernie_rna.cli.arguments import program_parser
from ernie_rna.cli.main import run_program
from ernie_rna.sequences.fasta import InputError
from ernie_rna.training.splits import count_kmers
from recipes.pretraining.rnas import table_rows
from scripts.measuring import evenly, nearest, print_table

# Sequences -> (sequences, features) in float64.
Features = Callable[[Sequence[str]], np.ndarray]


class Row(NamedTuple):
    """A sequence, and its family or class."""

    sequence: str
    label: str


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("what", choices=("families", "classes"))
    add("model", metavar="MODEL", help="a folder, or mini")
    add("table", type=Path, metavar="TABLE", help="TSV, CSV or Parquet")
    add("--split", default="validation", help="of the families (validation)")
    add("--per-family", type=int, default=20, metavar="N", help="at most (20)")
    add("--train", default="train", metavar="SPLIT", help="of the classes (train)")
    add("--test", default="test", metavar="SPLIT", help="of the classes (test)")
    add("--most", type=int, metavar="N", help="rows of each split, evenly (all)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    if args.what == "families":
        rows = choose_families(read_rows(args.table, "family", args.split), args.per_family)
        print(f"{len(rows)} sequences of {len({row.label for row in rows})} families\n")
        titles = ["features", "nearest neighbour of the same family"]
        results = ((name, [neighbours(f, rows)]) for name, f in feature_sets(args.model))
    else:
        train, test = (
            evenly(read_rows(args.table, "label", split), args.most)
            for split in (args.train, args.test)
        )
        print(f"{len(train)} training rows, {len(test)} test rows\n")
        titles = ["features", "accuracy", "without copies of training rows"]
        results = ((name, probe(f, train, test)) for name, f in feature_sets(args.model))
    print_table(titles, ([name, *(f"{share:.3f}" for share in own)] for name, own in results))
    return 0


def read_rows(path: Path, column: str, split: str) -> list[Row]:
    """The rows of a split of a table, with the label of a column.

    Raises:
        InputError: a column is missing, or there is no such row.
    """
    found = table_rows(path, ("sequence", column, "split"))
    rows = [Row(one["sequence"], one[column]) for one in found if one["split"] == split]
    if not rows:
        raise InputError(f"{path}: no row is of the split {split!r}")
    return rows


def choose_families(rows: Sequence[Row], per_family: int) -> list[Row]:
    """The rows of the families that have at least two different sequences."""
    families: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        families[row.label][row.sequence] = row
    chosen = [list(family.values()) for family in families.values() if len(family) > 1]
    return [row for family in chosen for row in evenly(family, per_family)]


def feature_sets(name: str) -> list[tuple[str, Features]]:
    """The three kinds of features with their titles."""
    model: Any = load_model(name)
    transformers.set_seed(0)
    random = ErnieRnaModel(model.config, add_pooling_layer=False).eval()
    return [
        (name, lambda sequences: mean_vectors(model, sequences)),
        ("the same network, random weights", lambda sequences: mean_vectors(random, sequences)),
        ("3-mers, 4-mers, length", count_kmers),
    ]


def mean_vectors(model: ErnieRnaModel, sequences: Sequence[str]) -> np.ndarray:
    """(sequences, hidden): the mean of the last layer over the nucleotides."""
    embeddings = embed(list(sequences), model, long="full")
    return np.stack([embedding["mean"] for embedding in embeddings]).astype(np.float64)


def neighbours(features: Features, rows: Sequence[Row]) -> float:
    """The share of sequences whose nearest other one is of their family, mean over families."""
    others, _ = nearest(features([row.sequence for row in rows]))
    found: dict[str, list[bool]] = defaultdict(list)
    for row, other in zip(rows, others, strict=True):
        found[row.label].append(row.label == rows[other].label)
    return float(np.mean([np.mean(hits) for hits in found.values()]))


def probe(features: Features, train: Sequence[Row], test: Sequence[Row]) -> list[float]:
    """The accuracy of a linear probe on all test rows, and on those that are no training row."""
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    strengths = {"logisticregression__C": [0.01, 0.1, 1.0]}
    classifier = GridSearchCV(regression, strengths, cv=3)
    classifier.fit(features([row.sequence for row in train]), [row.label for row in train])
    predicted = classifier.predict(features([row.sequence for row in test]))
    hits = predicted == np.array([row.label for row in test])
    seen = {row.sequence for row in train}
    new = np.array([row.sequence not in seen for row in test])
    return [float(hits.mean()), float(hits[new].mean())]


if __name__ == "__main__":
    sys.exit(main())
