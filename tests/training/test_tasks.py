"""Tasks: parsing cells into labels, warnings about odd labels, and cutting examples."""

import random
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ernie_rna.options import PredictOptions
from ernie_rna.sequences.fasta import InputError
from ernie_rna.training.collators import PairCollator
from ernie_rna.training.metrics import NO_LABEL
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.rows import Rows
from ernie_rna.training.tasks import TASKS, Classification

MEASURED = [f"{value / 7:.3f}" for value in range(20)]


def make(name, names=(), **options):
    task = TASKS[name](FinetuneOptions(task=name, **options))
    task.names = list(names)
    return task


def rows_of(*labels, sequences=None):
    columns = zip(sequences or "A" * len(labels), labels, strict=True)
    cells = tuple({"sequence": sequence, "label": label} for sequence, label in columns)
    return Rows("t.tsv", tuple(range(2, len(cells) + 2)), cells, "sequence")


@pytest.mark.parametrize(
    "names", [["1", "1.0", "1e0", "2"], ["-3", "2", "10"], ["10", "9", "nan"], ["miRNA", "rRNA"]]
)
def test_the_order_of_classes_does_not_depend_on_the_rows(names):
    for seed in range(5):
        cells = [*names, ""]
        random.Random(seed).shuffle(cells)
        task = make("classification")
        task.learn_names(rows_of(*cells))
        assert task.names == names


@pytest.mark.parametrize(
    ("cells", "refused"),
    [
        (MEASURED, True),
        ([f"4,{value:02}" for value in range(20)], True),
        (MEASURED * 20, False),  # Each value has many rows.
        ([str(value) for value in range(20)], False),  # They may be numbers of families.
        (["0.5", "1.0", "2.0"], False),
    ],
)
def test_measured_values_are_refused_as_classes(cells, refused):
    message = r"20 different numbers, .* in 20 rows: .*regression"
    with pytest.raises(InputError, match=message) if refused else nullcontext():
        make("classification").learn_names(rows_of(*cells))


@pytest.mark.parametrize(
    ("task", "cells", "warnings"),
    [
        ("classification", "a a NA nan nan NA", ["NA, nan (4 rows) is used as a class of its"]),
        ("classification", "a a b", ["classes with a single row: b"]),
        ("classification", "a a b b", []),
        ("token-classification", "- A", []),
        ("multi-label", "a;b a,b a b a,b", []),
        ("multi-label", "a,b a a,b a", ["';', but 2 have ',': if that separates labels, give -"]),
    ],
)
def test_odd_labels_are_named(task, cells, warnings):
    notes = [*make(task).learn_names(rows_of(*cells.split()))]
    assert len(notes) == len(warnings)
    assert all(warning in note for warning, note in zip(warnings, notes, strict=True))


@pytest.mark.parametrize(
    ("task", "cell", "label"),
    [
        ("multi-label", "short; GC", [1, 1]),
        ("multi-label", "", [0, 0]),
        ("multi-label", "GC", [1, 0]),
        ("token-classification", "GC short .", [0, 1, NO_LABEL]),
        ("token-classification", "GC,short,.", [0, 1, NO_LABEL]),
        ("regression", "4,5", 4.5),
        ("regression", "-100", -100),
        ("regression", "1e18", 1e18),
        ("structure", "<:>", "(.)"),
    ],
)
def test_a_cell_is_parsed_into_a_label(task, cell, label):
    options = {"ignore_label": "."} if task == "token-classification" else {}
    assert make(task, ["GC", "short"], **options).parse(cell, True) == label


def test_a_letter_is_a_label_also_with_the_options_of_predict():
    task = TASKS["token-classification"](PredictOptions(ignore_label="."))
    task.names = ["S", "W"]
    assert task.parse("SW.", False) == [0, 1, NO_LABEL]


@pytest.mark.parametrize(
    ("cell", "problem"),
    [("", "'' is not a number"), ("nan", "'nan' is not finite"), ("1e300", "'1e300' is .*too lar")],
)
def test_a_cell_that_is_not_a_number_is_refused(cell, problem):
    with pytest.raises(ValueError, match=problem):
        make("regression").parse(cell, False)


def test_a_truncated_sequence_keeps_the_labels_of_its_bases(tokenizer):
    ids, task = [*tokenizer("GGGAAACCC")["input_ids"][:8], 2], make("structure")
    assert task.cut("(.)", 7) == "(.)"
    example = task.encode(ids, task.cut("(((...)))", 7))
    assert example["labels"] == "..(...)"
    assert PairCollator(tokenizer)([example])["labels"].shape == (1, 7, 7)
    task = make("token-classification")
    example = task.encode(ids, task.cut([*range(9)], 7))
    assert example["labels"] == [NO_LABEL, *range(7), NO_LABEL]
    assert task.known([example, example]).tolist() == [*range(7)] * 2


@pytest.mark.parametrize(
    ("task", "labels", "sequences", "count"),
    [
        ("structure", ["....", ".....", "..", "()"], ["AAAA", "CCCCC", "gt", "AA"], 2),
        ("token-classification", [[NO_LABEL] * 2, [0, NO_LABEL]], ["AA", "AA"], 1),
        ("masked-lm", [None, None], ["AAA", "CCC"], 2),  # 0.9 of 6 nucleotides
        ("masked-lm", [None, None], ["AAA", "CCCC"], 0),
        ("regression", [1.0], ["A"], 0),
    ],
)
def test_rows_that_no_loss_depends_on(task, labels, sequences, count):
    rows = replace(rows_of(*labels, sequences=sequences), labels=tuple(labels))
    assert make(task).unlabelled(rows) == count


def test_logits_become_classes():
    logits = torch.tensor([[0.1, -0.2, 0.3]])
    assert Classification(FinetuneOptions(task="classification")).reduce(logits, None).item() == 2
    assert make("multi-label").reduce(logits, None).tolist() == [[True, False, True]]


@pytest.mark.parametrize(("heads", "pair_heads"), [(4, None), (5, None), (6, [5]), (12, [5])])
def test_a_new_structure_head_reads_attention_head_5_if_the_model_has_it(heads, pair_heads):
    before, task = SimpleNamespace(num_attention_heads=heads), make("structure")
    assert task.config(before, kept=False) == {"pair_heads": pair_heads}
    assert task.config(before, kept=True) == {}
