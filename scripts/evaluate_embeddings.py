"""Evaluate a model's embeddings: families by nearest neighbour, or classes by a linear probe.

    python -m scripts.evaluate_embeddings families MODEL rfam_seed.tsv.gz --split validation
    python -m scripts.evaluate_embeddings classes MODEL nrc_13class.tsv --train train --test test

The features of a sequence are its mean vector of the last layer. They are compared with those of
the same network with random weights, and with counts of k-mers (3 and 4, with the length). Tables
have the columns sequence and split, and family or label.

families: the share of sequences whose nearest neighbour by cosine belongs to their family, averaged
over families. Families with one sequence are left out, and of each other family at most 20
sequences are used, evenly spaced in the file.

classes: logistic regression on standardised vectors, regularised by cross-validation on the
training rows; accuracy on all test rows, and on those that are not copies of a training row.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

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
Row = tuple[str, str]  # a sequence, and its family or class


def build_parser() -> argparse.ArgumentParser:
    parser = program_parser(run, __doc__)
    add = parser.add_argument
    add("what", choices=("families", "classes"))
    add("model", metavar="MODEL", help="a folder, or mini")
    add("table", type=Path, metavar="TABLE", help="TSV, CSV or Parquet")
    add("--split", default="validation", help="rows to use for families (validation)")
    add("--train", default="train", metavar="SPLIT", help="training rows for classes (train)")
    add("--test", default="test", metavar="SPLIT", help="test rows for classes (test)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return run_program(build_parser(), argv)


def run(args: argparse.Namespace) -> int:
    measure: Callable[[Features], list[float]]
    if args.what == "families":
        rows = choose_families(read_rows(args.table, "family", args.split))
        print(f"{len(rows)} sequences of {len({family for _, family in rows})} families\n")
        titles, measure = ["nearest neighbour of the same family"], partial(neighbours, rows)
    else:
        train, test = (read_rows(args.table, "label", split) for split in (args.train, args.test))
        print(f"{len(train)} training rows, {len(test)} test rows\n")
        titles = ["accuracy", "without copies of training rows"]
        measure = partial(probe, train, test)
    results = ((name, measure(features)) for name, features in feature_sets(args.model))
    table = ([name, *(f"{share:.3f}" for share in shares)] for name, shares in results)
    print_table(["features", *titles], table)
    return 0


def read_rows(path: Path, column: str, split: str) -> list[Row]:
    """The sequences of a split of a table, with the labels in a column.

    Raises:
        InputError: a column is missing, or there is no such row.
    """
    table = table_rows(path, ("sequence", column, "split"))
    rows = [(row["sequence"], row[column]) for row in table if row["split"] == split]
    if not rows:
        raise InputError(f"{path}: no row has the split {split!r}")
    return rows


def choose_families(rows: Sequence[Row], per_family: int = 20) -> list[Row]:
    """Rows of the families with at least two different sequences, at most `per_family` of each."""
    families: dict[str, dict[str, Row]] = defaultdict(dict)
    for sequence, family in rows:
        families[family][sequence] = sequence, family
    chosen = [list(family.values()) for family in families.values() if len(family) > 1]
    return [row for family in chosen for row in evenly(family, per_family)]


def feature_sets(name: str) -> list[tuple[str, Features]]:
    """The title of each kind of features, and the function that computes them."""
    model: Any = load_model(name)
    transformers.set_seed(0)
    random = ErnieRnaModel(model.config, add_pooling_layer=False).eval()
    return [
        (name, partial(mean_vectors, model)),
        ("the same network, random weights", partial(mean_vectors, random)),
        ("3-mers, 4-mers, length", count_kmers),
    ]


def mean_vectors(model: ErnieRnaModel, sequences: Sequence[str]) -> np.ndarray:
    """(sequences, hidden): the mean of the last layer over the nucleotides."""
    embeddings = embed(list(sequences), model, long="full")
    return np.stack([embedding["mean"] for embedding in embeddings]).astype(np.float64)


def neighbours(rows: Sequence[Row], features: Features) -> list[float]:
    """The share of sequences whose nearest neighbour is of their family, averaged over families."""
    sequences, families = zip(*rows, strict=True)
    hits: dict[str, list[bool]] = defaultdict(list)
    for family, other in zip(families, nearest(features(sequences))[0], strict=True):
        hits[family].append(family == families[other])
    return [float(np.mean([np.mean(family_hits) for family_hits in hits.values()]))]


def probe(train: Sequence[Row], test: Sequence[Row], features: Features) -> list[float]:
    """The accuracy of a linear probe on all test rows, and on those not in the training rows."""
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    strengths = {"logisticregression__C": [0.01, 0.1, 1.0]}
    classifier = GridSearchCV(regression, strengths, cv=3)
    (seen, classes), (sequences, truth) = (zip(*rows, strict=True) for rows in (train, test))
    classifier.fit(features(seen), classes)
    hits = classifier.predict(features(sequences)) == np.array(truth)
    new = np.array([sequence not in set(seen) for sequence in sequences])
    return [float(hits.mean()), float(hits[new].mean())]


if __name__ == "__main__":
    sys.exit(main())
