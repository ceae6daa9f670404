"""What the embeddings of a model know: families by nearest neighbour, classes by a linear probe.

    python scripts/evaluate_embeddings.py families MODEL rfam_seed.tsv.gz --split validation
    python scripts/evaluate_embeddings.py classes MODEL nrc_13class.tsv --train train --test test

A sequence is its mean vector of the last layer. Beside it stand the same network with random
weights and counts of k-mers (3 and 4, with the length). Tables are TSV (may be gzipped) or Parquet
with the columns sequence and split, and family or label.

families: each sequence's nearest other one by cosine; the share whose neighbour is of its family,
the mean over families. Families of one sequence are left out, and of the others at most
--per-family sequences are taken, evenly over the file.

classes: logistic regression on standardised vectors, its strength chosen by cross-validation on
the training rows; accuracy on the test rows, and on those that are no copy of a training row.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import transformers
from ernie_rna.model.modeling_ernie_rna import ErnieRnaModel

from ernie_rna.data import resolve_model
from ernie_rna.embeddings.embed import embed
from ernie_rna.extras import import_extra
from ernie_rna.run.loading import load_model
from ernie_rna.sequences.fasta import InputError
from recipes.pretraining.data import table_rows

# Sequences -> (sequences, features) in float64.
Features = Callable[[Sequence[str]], np.ndarray]

_KMERS = tuple("".join(letters) for k in (3, 4) for letters in itertools.product("ACGU", repeat=k))


@dataclass(frozen=True)
class Row:
    """A sequence, its family or class, and the split that it is of."""

    sequence: str
    label: str
    split: str


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("families", "classes"))
    parser.add_argument("model", metavar="MODEL", help="a folder, or mini")
    parser.add_argument("table", type=Path, metavar="TABLE.tsv")
    parser.add_argument("--split", default="validation", help="of the families (validation)")
    parser.add_argument("--per-family", type=int, default=20, metavar="N")
    parser.add_argument("--train", default="train", metavar="SPLIT")
    parser.add_argument("--test", default="test", metavar="SPLIT")
    parser.add_argument("--most", type=int, metavar="N", help="rows of each split, evenly (all)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    transformers.logging.set_verbosity_error()
    try:
        {"families": print_families, "classes": print_classes}[args.what](args)
    except (InputError, ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def print_families(args: argparse.Namespace) -> None:
    rows = choose_families(read_rows(args.table, "family"), args.split, args.per_family)
    print(f"{len(rows)} sequences of {len({row.label for row in rows})} families\n")
    print("| features | nearest neighbour of the same family |\n|---|--:|")
    for name, features in feature_sets(args.model).items():
        print(f"| {name} | {neighbours(features, rows):.3f} |", flush=True)


def print_classes(args: argparse.Namespace) -> None:
    rows = read_rows(args.table, "label")
    train, test = (every(rows, split, args.most) for split in (args.train, args.test))
    print(f"{len(train)} training rows, {len(test)} test rows\n")
    print("| features | accuracy | without copies of training rows |\n|---|--:|--:|")
    for name, features in feature_sets(args.model).items():
        everything, new = probe(features, train, test)
        print(f"| {name} | {everything:.3f} | {new:.3f} |", flush=True)


def read_rows(path: Path, column: str) -> list[Row]:
    """The rows of a table.

    Raises:
        InputError: a column is missing.
    """
    rows = table_rows(path, ("sequence", column, "split"))
    return [Row(row["sequence"], row[column], row["split"]) for row in rows]


def every(rows: Sequence[Row], split: str, most: int | None) -> list[Row]:
    """The rows of a split, or `most` of them, evenly over the file.

    Raises:
        InputError: there is none.
    """
    chosen = [row for row in rows if row.split == split]
    if not chosen:
        raise InputError(f"no row is of the split {split!r}")
    step = 1 if most is None else max(1, len(chosen) // most)
    return chosen[::step][:most]


def choose_families(rows: Sequence[Row], split: str, per_family: int) -> list[Row]:
    """The rows of the families of a split that have at least two different sequences."""
    families: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in every(rows, split, None):
        families[row.label][row.sequence] = row
    chosen = [list(family.values()) for family in families.values() if len(family) > 1]
    return [row for family in chosen for row in every(family, split, per_family)]


def feature_sets(name: str) -> dict[str, Features]:
    """The three kinds of features by their titles."""
    model = load_model(resolve_model(name))
    transformers.set_seed(0)
    random = ErnieRnaModel(model.config, add_pooling_layer=False).eval()
    return {
        name: lambda sequences: mean_vectors(model, sequences),
        "the same network, random weights": lambda sequences: mean_vectors(random, sequences),
        "3-mers, 4-mers, length": count_kmers,
    }


def mean_vectors(model: ErnieRnaModel, sequences: Sequence[str]) -> np.ndarray:
    """(sequences, hidden): the mean of the last layer over the nucleotides."""
    embeddings = embed(list(sequences), model, long="full")
    return np.stack([embedding["mean"] for embedding in embeddings]).astype(np.float64)


def count_kmers(sequences: Sequence[str]) -> np.ndarray:
    """(sequences, 321): the shares of all 3-mers and 4-mers, and the logarithm of the length."""
    places = {kmer: index for index, kmer in enumerate(_KMERS)}
    features = np.zeros((len(sequences), len(places) + 1))
    for row, sequence in zip(features, sequences, strict=True):
        for k in (3, 4):
            found = Counter(sequence[i : i + k] for i in range(len(sequence) - k + 1))
            for kmer in found.keys() & places.keys():
                row[places[kmer]] = found[kmer] / len(sequence)
        row[-1] = np.log(len(sequence))
    return features


def neighbours(features: Features, rows: Sequence[Row]) -> float:
    """The share of sequences whose nearest other one is of their family, mean over families."""
    vectors = features([row.sequence for row in rows])
    vectors = vectors - vectors.mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    found: dict[str, list[bool]] = defaultdict(list)
    for row, nearest in zip(rows, similarity.argmax(1), strict=True):
        found[row.label].append(row.label == rows[nearest].label)
    return float(np.mean([np.mean(hits) for hits in found.values()]))


def probe(features: Features, train: Sequence[Row], test: Sequence[Row]) -> tuple[float, float]:
    """The accuracy of a linear probe on all test rows, and on those that are no training row."""
    linear_model = import_extra("sklearn.linear_model", "train", "the linear probe")
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = make_pipeline(StandardScaler(), linear_model.LogisticRegression(max_iter=1000))
    strengths = {"logisticregression__C": [0.01, 0.1, 1.0]}
    classifier = GridSearchCV(regression, strengths, cv=3)
    labels = [row.label for row in train]
    classifier.fit(features([row.sequence for row in train]), labels)
    predicted = classifier.predict(features([row.sequence for row in test]))
    hits = predicted == np.array([row.label for row in test])
    seen = {row.sequence for row in train}
    new = np.array([row.sequence not in seen for row in test])
    return float(hits.mean()), float(hits[new].mean())


if __name__ == "__main__":
    sys.exit(main())
