"""Rows held out to evaluate on, so that nothing like them is trained on; and what leaks. No torch.

`similar` puts sequences of one cluster on one side. Clusters are those of MMseqs2 (easy-cluster) or
cd-hit-est where one of them is installed, at 80 % identity over 80 % of both, or of the shorter,
sequence. Else they come of k-mers, after Linclust (Steinegger and Soeding, Nature Communications
9:2542, 2018): each sequence is compared with the longest one that shares any of its 32 lowest
hashes of 8-mers, and joined to it if they share at least .15 of the 8-mers of the one that has
fewer; .8 to the power of 8 is .17. The time is linear in the number of rows. RNAs of a family whose
sequence has changed further are not found so: split these by a column of families.

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

_K, _SKETCH, _SHARED = 8, 32, 0.15  # as the first lines say
_IDENTITY = 0.8
# The program, how it is called, the file that it writes, and what there tells the cluster and the
# row of each line.
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


def find_groups(rows: Rows, how: str) -> tuple[np.ndarray, str]:
    """Which rows belong together, (rows,), copies of a sequence always; and in words what they are.

    Args:
        how: "random", "similar" or a column whose values are not divided.

    Raises:
        InputError: there is no such column, or a program that clusters has failed.
    """
    sequences = rows.folded
    links, kind, detail = _links(sequences), "different sequence", ""
    if how == "similar":
        clusters, program = _cluster(sequences)
        links, kind, detail = links + clusters, "cluster", f" (by {program})"
    elif how != "random":
        links, kind = links + _links(rows.column(how, "--split")), "value"
        detail = f" of the column {how!r}"
    ones, others = np.array(links).T
    sparse = import_extra("scipy.sparse", "train", "dividing rows")
    graph = sparse.coo_matrix((np.ones(len(ones)), (ones, others)), shape=(len(rows), len(rows)))
    count, groups = sparse.csgraph.connected_components(graph, directed=False)
    return groups, f"{count} {kind}{'s' * (count > 1)}{detail}"


def _links(values: Sequence[str]) -> list[Link]:
    """Each place with the first one of the same value."""
    first: dict[str, int] = {}
    return [(place, first.setdefault(value, place)) for place, value in enumerate(values)]


def assign(
    groups: np.ndarray, shares: Sequence[float], seed: int, what: str = "groups of rows"
) -> list[np.ndarray]:
    """The places of the rows of each part, none of the groups being in two.

    The largest groups go first, and each where most room is left; those of one size go by chance.

    Args:
        shares: of the rows, for each part.
        what: the groups in words, as `find_groups` gives them.

    Raises:
        InputError: there are fewer groups than parts.
    """
    if groups.max() + 1 < len(shares):
        raise InputError(
            f"{what} cannot be divided into {len(shares)} parts; fewer --folds, another column "
            "and --split random ask for less"
        )
    sizes = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    room, parts = np.array(shares) * len(groups), np.empty(len(sizes), int)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        parts[group] = room.argmax()
        room[parts[group]] -= sizes[group]
    for empty in set(range(len(shares))).difference(parts):  # one of two, of few rows
        parts[group] = empty
    return [np.flatnonzero(parts[groups] == part) for part in range(len(shares))]


def leakage(splits: Mapping[str, Rows]) -> Iterator[str]:
    """What makes metrics look better than they are, or labels contradict one another."""
    training, *evaluation = splits.items()
    known: dict[str, list[Any]] = defaultdict(list)
    for sequence, label in zip(training[1].folded, training[1].labels, strict=True):
        known[sequence].append(label)
    twice = [own for own in known.values() if any(label != own[0] for label in own)]
    if twice:
        yield f"{len(twice)} training sequences occur more than once, with different labels"
    for name, rows in evaluation:
        count = sum(sequence in known for sequence in rows.folded)
        if count:
            yield (
                f"{count} of {len(rows)} sequences of {name} are in training as well: its metrics "
                "say less of new sequences than they seem to"
            )


# ---------------------------------------------------------------------------------------------
# Similar sequences


def _cluster(sequences: Sequence[str]) -> tuple[list[Link], str]:
    """Links within the clusters of sequences, and what has found them."""
    for program, (arguments, output, line) in _PROGRAMS.items():
        if shutil.which(program):
            return _run([program, *arguments.split()], output, line, sequences), program
    return cluster_by_kmers(sequences), f"{_K}-mers"


def _run(
    command: list[str], output: str, line: re.Pattern[str], sequences: Sequence[str]
) -> list[Link]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = (f">{row}\n{sequence}\n" for row, sequence in enumerate(sequences))
        (folder / "in.fasta").write_text("".join(lines), encoding="ascii")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-300:]
            raise InputError(f"{command[0]}, which --split similar runs, has failed: {said}")
        text = (folder / output).read_text(encoding="utf-8")
    cluster, first = "", dict[str, int]()
    links: list[Link] = []
    for found in line.finditer(text):
        cluster = found["cluster"] or cluster
        if found["row"] is not None:
            row = int(found["row"])
            links.append((row, first.setdefault(cluster, row)))
    return links


def cluster_by_kmers(sequences: Sequence[str]) -> list[Link]:
    """Rows of similar sequences, two by two, as the first lines say."""
    kmers = [_kmers(sequence) for sequence in sequences]
    hashes = np.random.default_rng(0).permutation(4**_K)
    longest: dict[int, int] = {}  # of each hash, the row
    links: set[Link] = set()
    for row in sorted(range(len(kmers)), key=lambda row: -len(kmers[row])):
        sketch = np.sort(hashes[kmers[row]])[:_SKETCH].tolist()
        links.update((row, longest.setdefault(code, row)) for code in sketch)
    return [
        (one, other)
        for one, other in links
        if len(np.intersect1d(kmers[one], kmers[other], assume_unique=True))
        >= _SHARED * min(len(kmers[one]), len(kmers[other]))
    ]


def _kmers(sequence: str) -> np.ndarray:
    """The different k-mers of A, C, G and U as numbers, in order."""
    digits = np.array(["ACGU".find(letter) for letter in sequence])
    if len(digits) < _K:
        return np.empty(0, int)
    windows = np.lib.stride_tricks.sliding_window_view(digits, _K)
    return np.unique(windows[(windows >= 0).all(axis=1)] @ 4 ** np.arange(_K))


# ---------------------------------------------------------------------------------------------
# Counts of k-mers: what needs no model

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
    """Labels of sequences by a linear model on standardised counts of k-mers.

    Args:
        labels: of training: ids of classes, (rows,); 0 and 1, (rows, labels); or numbers, either.
        numbers: whether they are numbers: a ridge regression, else a logistic one.
    """
    if labels.ndim == 2 and not numbers:  # each label by itself
        columns = (predict_by_kmers(training, own, sequences, False) for own in labels.T)
        return np.stack([*columns], axis=1)
    if (labels == labels[0]).all():  # There is nothing to learn.
        return np.repeat(labels[:1], len(sequences), axis=0)
    scaler, linear = (
        sklearn_module("preprocessing").StandardScaler(),
        sklearn_module("linear_model"),
    )
    ridge, logistic = linear.RidgeCV(np.logspace(-1, 5, 13)), linear.LogisticRegression
    model = ridge if numbers else logistic(C=0.1, max_iter=1000)
    model.fit(scaler.fit_transform(count_kmers(training)), labels)
    return np.asarray(model.predict(scaler.transform(count_kmers(sequences))))
