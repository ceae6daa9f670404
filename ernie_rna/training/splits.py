"""Splits that hold out rows unlike those trained on, leakage between splits, and k-mers. No torch.

`similar` puts all sequences of a cluster on one side. If MMseqs2 or cd-hit-est is installed, it
finds the clusters, at 80 % identity: MMseqs2 (easy-cluster) over 80 % of both sequences, cd-hit-est
over 80 % of the shorter one. Otherwise they are found by k-mers, after Linclust (Steinegger and
Soeding, Nature Communications 9:2542, 2018): each sequence is compared with the longest one that
shares any of its 32 lowest hashes of 8-mers, and linked to it if they share at least 15 % of the
8-mers of the one that has fewer; 0.8 to the power of 8 is 0.17. The time is linear in the number of
rows. Members of a family that have diverged further are not found: split by a column of families.

>>> groups = np.array([0, 0, 0, 1, 2, 3])
>>> assign(groups, [0.5, 0.5], seed=0)
[array([0, 1, 2]), array([3, 4, 5])]
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ernie_rna.extras import import_extra
from ernie_rna.sequences.fasta import InputError
from ernie_rna.training.metrics import sklearn_module
from ernie_rna.training.rows import Rows

Link = tuple[int, int]  # two rows that belong together

_K, _SKETCH, _SHARED = 8, 32, 0.15  # see the module's docstring
_IDENTITY = 0.8
# The arguments of each program, the file that it writes, and the pattern of a cluster or row there.
_PROGRAMS = {
    "mmseqs": (
        f"easy-cluster in.fasta out tmp --min-seq-id {_IDENTITY} -c 0.8 --threads 1 -v 1",
        "out_cluster.tsv",
        re.compile(r"(?P<cluster>\d+)\t(?P<row>\d+)"),
    ),
    "cd-hit-est": (
        f"-i in.fasta -o out -c {_IDENTITY} -aS 0.8 -n 5 -l 4 -r 0 -d 0 -M 0 -T 1",
        "out.clstr",
        re.compile(r">(Cluster (?P<cluster>\d+)|(?P<row>\d+)\.\.\.)"),
    ),
}


def find_groups(rows: Rows, criterion: str) -> tuple[np.ndarray, str]:
    """The number of each row's group, (rows,), and a description such as "7 clusters (by mmseqs)".

    Args:
        criterion: what puts rows into one group besides equal sequences: "random" nothing,
            "similar" similar sequences, else the same value of this column.

    Raises:
        InputError: there is no such column, or the clustering program has failed.
    """
    sequences = rows.folded
    links, kind, detail = _link_equal(sequences), "different sequence", ""
    if criterion == "similar":
        similar, program = _link_similar(sequences)
        links, kind, detail = links + similar, "cluster", f" (by {program})"
    elif criterion != "random":
        links, kind = links + _link_equal(rows.column(criterion, "--split")), "value"
        detail = f" of the column {criterion!r}"
    starts, ends = np.array(links).T
    sparse = import_extra("scipy.sparse", "train", "dividing rows")
    graph = sparse.coo_matrix((np.ones(len(links)), (starts, ends)), shape=(len(rows), len(rows)))
    count, groups = sparse.csgraph.connected_components(graph, directed=False)
    return groups, f"{count} {kind}{'s' if count > 1 else ''}{detail}"


def _link_equal(values: Sequence[str]) -> list[Link]:
    """Each row linked to the first row with the same value."""
    first: dict[str, int] = {}
    return [(row, first.setdefault(value, row)) for row, value in enumerate(values)]


def assign(
    groups: np.ndarray, shares: Sequence[float], seed: int, description: str = "groups of rows"
) -> list[np.ndarray]:
    """The row numbers on each side of a split, counted from 0; no group is divided.

    The largest groups are assigned first, each to the side that lacks most rows; ties by chance.

    Args:
        shares: the share of the rows of each side.
        description: of the groups, as `find_groups` returns it, for the message.

    Raises:
        InputError: there are fewer groups than sides.
    """
    if groups.max() + 1 < len(shares):
        raise InputError(
            f"{description} cannot be divided into {len(shares)} parts: use fewer --folds, another "
            "column or --split random"
        )
    sizes = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    lacking, sides = np.array(shares) * len(groups), np.empty(len(sizes), int)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        sides[group] = lacking.argmax()
        lacking[sides[group]] -= sizes[group]
    for empty in set(range(len(shares))).difference(sides):  # one of two, if there are few rows
        sides[group] = empty
    return [np.flatnonzero(sides[groups] == side) for side in range(len(shares))]


def leakage(splits: Mapping[str, Rows]) -> Iterator[str]:
    """Sentences on contradicting labels, and on training sequences in the later splits."""
    (_, training), *evaluation = splits.items()
    labels: dict[str, list[Any]] = defaultdict(list)
    for sequence, label in zip(training.folded, training.labels, strict=True):
        labels[sequence].append(label)
    contradictions = sum(any(label != same[0] for label in same) for same in labels.values())
    if contradictions:
        yield f"{contradictions} training sequences occur more than once, with different labels"
    for name, rows in evaluation:
        count = sum(sequence in labels for sequence in rows.folded)
        if count:
            yield (
                f"{count} of {len(rows)} sequences of {name} are in training as well: its metrics "
                "overestimate those on new sequences"
            )


# ---------------------------------------------------------------------------------------------
# Similar sequences


def _link_similar(sequences: Sequence[str]) -> tuple[list[Link], str]:
    """Links within the clusters of sequences, and the name of the method that found them."""
    for program, (arguments, output, pattern) in _PROGRAMS.items():
        if shutil.which(program):
            return _run([program, *arguments.split()], output, pattern, sequences), program
    return cluster_by_kmers(sequences), f"{_K}-mers"


def _run(
    command: list[str], output: str, pattern: re.Pattern[str], sequences: Sequence[str]
) -> list[Link]:
    """Run a clustering program; link each row to the first one that it lists in the cluster."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = (f">{row}\n{sequence}\n" for row, sequence in enumerate(sequences))
        (folder / "in.fasta").write_text("".join(lines), encoding="ascii")
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if process.returncode != 0:
            message = (process.stderr or process.stdout).strip()[-300:]
            raise InputError(f"{command[0]}, which --split similar runs, has failed: {message}")
        text = (folder / output).read_text(encoding="utf-8")
    cluster, first = "", dict[str, int]()
    links: list[Link] = []
    for match in pattern.finditer(text):
        cluster = match["cluster"] or cluster
        if match["row"] is not None:
            row = int(match["row"])
            links.append((row, first.setdefault(cluster, row)))
    return links


def cluster_by_kmers(sequences: Sequence[str]) -> list[Link]:
    """Pairs of rows with similar sequences, found as the module's docstring says."""
    kmers = [_kmers(sequence) for sequence in sequences]
    hashes = np.random.default_rng(0).permutation(4**_K)
    longest: dict[int, int] = {}  # hash -> row of the longest sequence that has it
    candidates: set[Link] = set()
    for row in sorted(range(len(kmers)), key=lambda row: -len(kmers[row])):
        sketch = np.sort(hashes[kmers[row]])[:_SKETCH].tolist()
        candidates.update((row, longest.setdefault(code, row)) for code in sketch)
    return [
        (row, representative)
        for row, representative in candidates
        if len(np.intersect1d(kmers[row], kmers[representative], assume_unique=True))
        >= _SHARED * min(len(kmers[row]), len(kmers[representative]))
    ]


def _kmers(sequence: str) -> np.ndarray:
    """The distinct k-mers of A, C, G and U as numbers, in ascending order."""
    digits = np.array(["ACGU".find(letter) for letter in sequence])
    if len(digits) < _K:
        return np.empty(0, int)
    windows = np.lib.stride_tricks.sliding_window_view(digits, _K)
    return np.unique(windows[(windows >= 0).all(axis=1)] @ 4 ** np.arange(_K))


# ---------------------------------------------------------------------------------------------
# Counts of k-mers: a baseline that needs no model

_COUNTED = ["".join(letters) for k in (3, 4) for letters in itertools.product("ACGU", repeat=k)]


def count_kmers(sequences: Sequence[str]) -> np.ndarray:
    """(sequences, 321): the shares of all 3-mers and 4-mers, and the logarithm of the length."""
    counter = sklearn_module("feature_extraction.text").CountVectorizer(
        analyzer="char", ngram_range=(3, 4), vocabulary=_COUNTED, lowercase=False
    )
    lengths = np.array([[len(sequence)] for sequence in sequences])
    return np.hstack([counter.transform(sequences).toarray() / lengths, np.log(lengths)])


def predict_by_kmers(
    training: Sequence[str], labels: np.ndarray, sequences: Sequence[str], numbers: bool
) -> np.ndarray:
    """Labels predicted for sequences by a linear model on standardised counts of k-mers.

    Args:
        labels: of training: class ids, (rows,); 0 and 1, (rows, labels); or numbers, either shape.
        numbers: whether labels are numbers, for ridge regression; else it is logistic regression.
    """
    if labels.ndim == 2 and not numbers:  # a model for each label
        columns = (predict_by_kmers(training, column, sequences, False) for column in labels.T)
        return np.stack([*columns], axis=1)
    if (labels == labels[0]).all():  # Logistic regression refuses a single class.
        return np.repeat(labels[:1], len(sequences), axis=0)
    scaler = sklearn_module("preprocessing").StandardScaler()
    linear = sklearn_module("linear_model")
    model = linear.LogisticRegression(C=0.1, max_iter=1000)
    if numbers:
        model = linear.RidgeCV(np.logspace(-1, 5, 13))
    model.fit(scaler.fit_transform(count_kmers(training)), labels)
    return np.asarray(model.predict(scaler.transform(count_kmers(sequences))))
