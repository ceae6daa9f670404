"""Rows held out: nothing like them is trained on; cross-validation; counts of k-mers."""

import random

import numpy as np
import pytest

from ernie_rna.sequences.fasta import InputError
from ernie_rna.training import splits
from ernie_rna.training.finetune import better_counts
from ernie_rna.training.rows import Rows

DRAW = random.Random(0)


def draw(length):
    return "".join(DRAW.choices("ACGU", k=length))


def changed(rna, share):
    return "".join(DRAW.choice("ACGU") if DRAW.random() < share else base for base in rna)


FAMILIES = [[changed(rna, 0.05) for _ in range(5)] for rna in (draw(80) for _ in range(8))]
RNAS = [rna for family in FAMILIES for rna in family]


def rows_of(sequences, **columns):
    cells = [
        {"sequence": rna, **{n: c[i] for n, c in columns.items()}}
        for i, rna in enumerate(sequences)
    ]
    return Rows("t.tsv", tuple(range(2, len(cells) + 2)), tuple(cells), "sequence")


def partition(groups):
    return sorted(np.flatnonzero(groups == one).tolist() for one in set(groups.tolist()))


BY_FIVES = [[*range(at, at + 5)] for at in range(0, 40, 5)]


def test_clusters_of_kmers(monkeypatch):
    monkeypatch.setenv("PATH", "")
    for rnas, clusters in (
        (["ACG", "N" * 20, "ACU"], [[0], [1], [2]]),
        ([RNAS[0], RNAS[0][10:50], draw(60)], [[0, 1], [2]]),
    ):
        assert partition(splits.find_groups(rows_of(rnas), "similar")[0]) == clusters


@pytest.mark.parametrize(
    ("how", "groups", "what"),
    [
        ("random", [[i] for i in range(40)], "40 different sequences"),
        ("similar", BY_FIVES, "8 clusters (by 8-mers)"),
        ("kind", [[*range(0, 40, 2)], [*range(1, 40, 2)]], "2 values of the column 'kind'"),
    ],
)
def test_groups(how, groups, what, monkeypatch):
    monkeypatch.setenv("PATH", "")
    rows = rows_of(RNAS, kind=["a", "b"] * 20)
    found, said = splits.find_groups(rows, how)
    assert (partition(found), said) == (groups, what)


def test_copies_stay_together():
    rows = rows_of(["ACGU", "acgt", "GGGG", "GGGA"], kind=["a", "b", "b", "c"])
    assert partition(splits.find_groups(rows, "random")[0]) == [[0, 1], [2], [3]]
    assert partition(splits.find_groups(rows, "kind")[0]) == [[0, 1, 2], [3]]
    with pytest.raises(InputError, match=r"no column 'family'; .*--split names the right one"):
        splits.find_groups(rows, "family")


PROGRAMS = {
    "mmseqs": 'printf "0\\t0\\n0\\t1\\n3\\t3\\n3\\t2\\n" > out_cluster.tsv',
    "cd-hit-est": 'printf ">Cluster 0\\n0\\t9nt, >1... *\\n1\\t8nt, >0... at 1\\n'
    '>Cluster 1\\n0\\t9nt, >2... *\\n1\\t9nt, >3... *\\n" > out.clstr',
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_that_cluster(tmp_path, monkeypatch, program):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / program).write_text(f"#!/bin/sh\ntest -s in.fasta && {PROGRAMS[program]}\n")
    (tmp_path / program).chmod(0o755)
    rows = rows_of([draw(30) for _ in range(5)])
    groups, what = splits.find_groups(rows, "similar")
    assert partition(groups) == [[0, 1], [2, 3], [4]]
    assert what == f"3 clusters (by {program})"
    (tmp_path / program).write_text("#!/bin/sh\necho no room >&2; exit 3\n")
    with pytest.raises(InputError, match=f"{program}, which --split similar runs, .*: no room"):
        splits.find_groups(rows, "similar")


@pytest.mark.parametrize("shares", [[0.8, 0.2], [0.25] * 4, [0.1, 0.9]])
def test_no_group_is_divided_and_no_part_is_empty(shares):
    for seed in range(5):
        groups = np.random.default_rng(seed).integers(0, 12, 60)
        groups = np.unique(groups, return_inverse=True)[1]
        parts = splits.assign(groups, shares, seed)
        assert sorted(np.concatenate(parts)) == [*range(60)]
        owners = [set(groups[part]) for part in parts]
        assert sum(map(len, owners)) == len(set(groups))
        assert [len(part) for part in parts] == pytest.approx([60 * one for one in shares], abs=8)
        few = splits.assign(np.arange(len(shares)), shares, seed)
        assert all(len(part) == 1 for part in few)
    with pytest.raises(InputError, match="groups of rows cannot be divided into"):
        splits.assign(np.zeros(9, int), shares, 0)


def test_kmers():
    features = splits.count_kmers(["AAAAA", "ACGUN"])
    assert features.shape == (2, 64 + 256 + 1)
    assert features[0].max() == pytest.approx(np.log(5))
    assert sorted(features[0])[-3:-1] == [2 / 5, 3 / 5]  # AAAA twice, AAA three times


def test_kmers_learn_what_they_can():
    rnas = [changed(letters * 10, 0.2) for letters in ("AAC", "GGU") * 12]
    labels = np.array([0, 1] * 12)
    assert splits.predict_by_kmers(rnas, labels, rnas[:4], False).tolist() == [0, 1, 0, 1]
    several = np.stack([labels, 1 - labels], axis=1)
    assert splits.predict_by_kmers(rnas, several, rnas[:2], False).tolist() == [[0, 1], [1, 0]]
    numbers = splits.predict_by_kmers(rnas, labels * 1.0, rnas[:2], True)
    assert numbers == pytest.approx([0, 1], abs=0.3)
    assert splits.predict_by_kmers(rnas, labels * 0, rnas[:2], False).tolist() == [0, 0]


# ---------------------------------------------------------------------------------------------
# In a fine-tuning


def test_rows_held_out(run, table):
    made = run(table(), "--task", "classification", "--split", "random", "--held-out", "0.25")
    assert set(made.metrics) == {"held-out", "held-out: guess", "held-out: k-mers"}
    assert {name: one["rows"] for name, one in made.facts["splits"].items()} == {
        "train": 18,
        "held-out": 6,
    }
    note = "24 rows have 24 different sequences; each stays on one side of a split"
    assert made.notes == [note, *better_counts(made.metrics, "accuracy")]
    assert note in made.err
    assert "held-out: k-mers" in made.card


@pytest.mark.parametrize(("counts", "said"), [(0.4, True), (0.2, True), (0.1, False)])
def test_better_k_mer_counts_are_named(counts, said):
    metrics = {"test: guess": {"r2": 0.9}, "test: k-mers": {"r2": counts}, "test": {"r2": 0.2}}
    notes = list(better_counts(metrics, "r2"))
    assert len(notes) == said
    assert not said or f"r2 {counts:.4f} against 0.2000" in notes[0]
    assert not list(better_counts({"test": {"r2": 0.2}}, "r2"))


@pytest.mark.parametrize("length", [("--max-length", 8), ()])
def test_rows_that_are_equal_once_cut_stay_on_one_side(run, table, rows, length):
    limit = 8 if length else 40  # that of the model
    for row in rows[:12]:
        row |= {"sequence": "ACGU" * (limit // 4) + row["sequence"]}
    options = ("--split", "random", "--truncate", *length, "--steps", 1, "--baseline", "none")
    made = run(table(rows=rows), "--task", "classification", *options)
    count = sum(len(row["sequence"]) > limit for row in rows)
    assert made.notes[0] == f"{count} of 24 sequences of train were cut after {limit} nucleotides"
    assert made.notes[1].startswith("24 rows have 13 different sequences; each stays on one side")
    assert not [note for note in made.notes if "are in training as well" in note]


def test_labels_are_those_of_all_rows_before_they_are_divided(run, table):
    options = ("--split", "label", "--held-out", "0.4", "--baseline", "none", "--steps", "1")
    made = run(table(), "--task", "classification", *options)
    assert set(made.metrics) == {"held-out", "held-out: guess"}
    assert len(made.facts["labels"]) == 3
    assert "all rows of these classes are held out: " in made.notes[-1]


def test_cross_validation(run, table, rows):
    made = run(table(), "--task", "regression", "--label-column", "number", "--folds", "3")
    folds = made.facts["folds"]
    assert [fold["rows"] for fold in folds] == [8, 8, 8]
    numbers = np.array([float(row["number"]) for row in rows])
    for fold, own in zip(folds, splits.assign(np.arange(24), [1 / 3] * 3, seed=0), strict=True):
        errors = numbers[own] - np.delete(numbers, own).mean()  # by what is known of the others
        assert fold["folds: guess"]["mse"] == pytest.approx((errors**2).mean())
    for name in ("folds", "folds: guess", "folds: k-mers"):
        values = [fold[name]["mse"] for fold in folds]
        assert made.metrics[f"{name}: mean"]["mse"] == pytest.approx(np.mean(values))
        assert made.metrics[f"{name}: sd"]["mse"] == pytest.approx(np.std(values, ddof=1))
    assert made.facts["splits"]["train"]["rows"] == 24
    assert "the saved model was trained on all rows" in made.notes[1]
    assert made.notes[2:] == [*better_counts(made.metrics, "r2")]
    assert "folds: sd" in made.out


def test_folds_are_resumed(start, killed, run, table, tmp_path, capsys):
    options = ("--task", "classification", "--folds", "2")
    killed(table(), *options, step=2, after=1)
    names = [path.name for path in (tmp_path / "out.partial" / "fold-1").iterdir()]
    assert names == ["metrics.json"]
    assert start(table(), *options[:3], "3", "--resume") == 1
    assert "options.folds was 2, is 3" in capsys.readouterr().err
    resumed, whole = run(table(), *options, "--resume"), run(table(), *options, out="whole")
    assert resumed.metrics == whole.metrics
