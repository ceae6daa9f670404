"""Rows held out with all rows like them; cross-validation; the baseline of k-mer counts."""

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


def mutate(rna, rate):
    return "".join(DRAW.choice("ACGU") if DRAW.random() < rate else base for base in rna)


# Eight families of five similar sequences each.
RNAS = [mutate(rna, 0.05) for rna in (draw(80) for _ in range(8)) for _ in range(5)]
FAMILIES = [[*range(first, first + 5)] for first in range(0, 40, 5)]


def rows_of(sequences, **columns):
    columns = {"sequence": sequences, **columns}
    values = zip(*columns.values(), strict=True)
    cells = tuple(dict(zip(columns, row, strict=True)) for row in values)
    return Rows("t.tsv", tuple(range(2, len(cells) + 2)), cells, "sequence")


def partition(groups):
    """The rows of each group, from the number of each row's group."""
    return sorted(np.flatnonzero(groups == group).tolist() for group in set(groups.tolist()))


def test_similar_sequences_are_found_by_kmers_if_no_program_is_installed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    for rnas, clusters in (
        (["ACG", "N" * 20, "ACU"], [[0], [1], [2]]),
        ([RNAS[0], RNAS[0][10:50], draw(60)], [[0, 1], [2]]),
    ):
        assert partition(splits.find_groups(rows_of(rnas), "similar")[0]) == clusters


@pytest.mark.parametrize(
    ("criterion", "groups", "description"),
    [
        ("random", [[i] for i in range(40)], "40 different sequences"),
        ("similar", FAMILIES, "8 clusters (by 8-mers)"),
        ("kind", [[*range(0, 40, 2)], [*range(1, 40, 2)]], "2 values of the column 'kind'"),
    ],
)
def test_groups(criterion, groups, description, monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = splits.find_groups(rows_of(RNAS, kind=["a", "b"] * 20), criterion)
    assert (partition(found[0]), found[1]) == (groups, description)


def test_copies_of_a_sequence_are_in_one_group():
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
def test_similar_sequences_are_found_by_an_installed_program(tmp_path, monkeypatch, program):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / program).write_text(f"#!/bin/sh\ntest -s in.fasta && {PROGRAMS[program]}\n")
    (tmp_path / program).chmod(0o755)
    rows = rows_of([draw(30) for _ in range(5)])
    groups, description = splits.find_groups(rows, "similar")
    assert partition(groups) == [[0, 1], [2, 3], [4]]
    assert description == f"3 clusters (by {program})"
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
        groups_of_parts = [set(groups[part]) for part in parts]
        assert sum(map(len, groups_of_parts)) == len(set(groups))
        sizes = [len(part) for part in parts]
        assert sizes == pytest.approx([60 * share for share in shares], abs=8)
        one_group_each = splits.assign(np.arange(len(shares)), shares, seed)
        assert [len(part) for part in one_group_each] == [1] * len(shares)
    with pytest.raises(InputError, match="groups of rows cannot be divided into"):
        splits.assign(np.zeros(9, int), shares, 0)


def test_counts_of_kmers():
    features = splits.count_kmers(["AAAAA", "ACGUN"])
    assert features.shape == (2, 64 + 256 + 1)
    assert features[0].max() == pytest.approx(np.log(5))
    assert sorted(features[0])[-3:-1] == [2 / 5, 3 / 5]  # AAAA twice, AAA three times


def test_kmers_predict_labels_that_depend_on_composition():
    rnas = [mutate(letters * 10, 0.2) for letters in ("AAC", "GGU") * 12]
    labels = np.array([0, 1] * 12)
    assert splits.predict_by_kmers(rnas, labels, rnas[:4], False).tolist() == [0, 1, 0, 1]
    multi_label = np.stack([labels, 1 - labels], axis=1)
    assert splits.predict_by_kmers(rnas, multi_label, rnas[:2], False).tolist() == [[0, 1], [1, 0]]
    numbers = splits.predict_by_kmers(rnas, labels * 1.0, rnas[:2], True)
    assert numbers == pytest.approx([0, 1], abs=0.3)
    assert splits.predict_by_kmers(rnas, labels * 0, rnas[:2], False).tolist() == [0, 0]


# ---------------------------------------------------------------------------------------------
# In the command `finetune`


def test_held_out_rows_are_evaluated(run, table):
    result = run(table(), "--task", "classification", "--split", "random", "--held-out", "0.25")
    assert set(result.metrics) == {"held-out", "held-out: guess", "held-out: k-mers"}
    sizes = {name: split["rows"] for name, split in result.facts["splits"].items()}
    assert sizes == {"train": 18, "held-out": 6}
    note = "24 rows have 24 different sequences; each stays on one side of a split"
    assert result.notes == [note, *better_counts(result.metrics, "accuracy")]
    assert note in result.err
    assert "held-out: k-mers" in result.card


@pytest.mark.parametrize(
    ("kmers", "expected"),
    [(0.4, ["r2 0.4000 against 0.2000"]), (0.2, ["r2 0.2000 against 0.2000"]), (0.1, [])],
)
def test_a_note_says_that_kmers_are_as_good_as_the_model(kmers, expected):
    metrics = {"test: guess": {"r2": 0.9}, "test: k-mers": {"r2": kmers}, "test": {"r2": 0.2}}
    notes = list(better_counts(metrics, "r2"))
    assert len(notes) == len(expected)
    assert all(text in note for text, note in zip(expected, notes, strict=True))
    assert not list(better_counts({"test": {"r2": 0.2}}, "r2"))


@pytest.mark.parametrize("length", [("--max-length", 8), ()])
def test_rows_that_are_equal_once_cut_stay_on_one_side(run, table, rows, length):
    limit = 8 if length else 40  # that of the model
    for row in rows[:12]:
        row |= {"sequence": "ACGU" * (limit // 4) + row["sequence"]}
    options = ("--split", "random", "--truncate", *length, "--steps", 1, "--baseline", "none")
    result = run(table(rows=rows), "--task", "classification", *options)
    count = sum(len(row["sequence"]) > limit for row in rows)
    assert result.notes[0] == f"{count} of 24 sequences of train were cut after {limit} nucleotides"
    assert result.notes[1].startswith("24 rows have 13 different sequences; each stays on one side")
    assert not [note for note in result.notes if "are in training as well" in note]


def test_labels_are_learned_from_all_rows_also_those_held_out(run, table):
    options = ("--split", "label", "--held-out", "0.4", "--baseline", "none", "--steps", "1")
    result = run(table(), "--task", "classification", *options)
    assert set(result.metrics) == {"held-out", "held-out: guess"}
    assert len(result.facts["labels"]) == 3
    assert "all rows of these classes are held out: " in result.notes[-1]


def test_cross_validation(run, table, rows):
    result = run(table(), "--task", "regression", "--label-column", "number", "--folds", "3")
    folds = result.facts["folds"]
    assert [fold["rows"] for fold in folds] == [8, 8, 8]
    numbers = np.array([float(row["number"]) for row in rows])
    parts = splits.assign(np.arange(24), [1 / 3] * 3, seed=0)
    for fold, part in zip(folds, parts, strict=True):
        errors = numbers[part] - np.delete(numbers, part).mean()  # The guess is the training mean.
        assert fold["folds: guess"]["mse"] == pytest.approx((errors**2).mean())
    for name in ("folds", "folds: guess", "folds: k-mers"):
        values = [fold[name]["mse"] for fold in folds]
        assert result.metrics[f"{name}: mean"]["mse"] == pytest.approx(np.mean(values))
        assert result.metrics[f"{name}: sd"]["mse"] == pytest.approx(np.std(values, ddof=1))
    assert result.facts["splits"]["train"]["rows"] == 24
    assert "the saved model was trained on all rows" in result.notes[1]
    assert result.notes[2:] == [*better_counts(result.metrics, "r2")]
    assert "folds: sd" in result.out


def test_folds_are_resumed(start, interrupt, run, table, tmp_path, capsys):
    options = ("--task", "classification", "--folds", "2")
    interrupt(table(), *options, step=2, trainings=1)
    names = [path.name for path in (tmp_path / "out.partial" / "fold-1").iterdir()]
    assert names == ["metrics.json"]
    assert start(table(), *options[:3], "3", "--resume") == 1
    assert "options.folds was 2, is 3" in capsys.readouterr().err
    resumed = run(table(), *options, "--resume")
    assert resumed.metrics == run(table(), *options, out="uninterrupted").metrics
