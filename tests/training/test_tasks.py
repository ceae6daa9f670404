"""What cells say of labels, what looks wrong with them, and how examples are cut."""

import random
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


def make(task, names=(), **options):
    made = TASKS[task](FinetuneOptions(task=task, **options))
    made.names = list(names)
    return made


def rows_of(*cells, sequences=None):
    texts = sequences or ["A"] * len(cells)
    both = zip(texts, cells, strict=True)
    kept = tuple({"sequence": text, "label": cell} for text, cell in both)
    return Rows("t.tsv", tuple(range(2, len(cells) + 2)), kept, "sequence")


@pytest.mark.parametrize(
    "names", [["1", "1.0", "1e0", "2"], ["-3", "2", "10"], ["10", "9", "nan"], ["miRNA", "rRNA"]]
)
def test_classes_have_one_order(names):
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
        (MEASURED * 20, False),  # many rows for each
        ([str(value) for value in range(20)], False),  # numbered families
        (["0.5", "1.0", "2.0"], False),
    ],
)
def test_measured_values_are_no_classes(cells, refused):
    task = make("classification")
    if refused:
        with pytest.raises(InputError, match=r"20 different numbers, .* in 20 rows: .*regression"):
            task.learn_names(rows_of(*cells))
    else:
        task.learn_names(rows_of(*cells))


@pytest.mark.parametrize(
    ("task", "cells", "sentences"),
    [
        ("classification", "a a NA nan nan NA", ["NA, nan (4 rows) is used as a class of its"]),
        ("classification", "a a b", ["classes with a single row: b"]),
        ("classification", "a a b b", []),
        ("token-classification", "- A", []),
        ("multi-label", "a;b a,b a b a,b", []),
        (
            "multi-label",
            "a,b a a,b a",
            ["';', but 2 have ',': if that separates labels, give --la"],
        ),
    ],
)
def test_what_looks_odd(task, cells, sentences):
    found = [*make(task).learn_names(rows_of(*cells.split()))]
    assert len(found) == len(sentences)
    assert all(sentence in own for sentence, own in zip(sentences, found, strict=True))


@pytest.mark.parametrize(
    ("task", "cell", "label"),
    [
        ("multi-label", "short; GC", [1, 1]),
        ("multi-label", "", [0, 0]),
        ("multi-label", "GC", [1, 0]),
        *(
            ("token-classification", cell, [0, 1, NO_LABEL])
            for cell in ("GC short .", "GC,short,.")
        ),
        ("regression", "4,5", 4.5),
        ("regression", "-100", -100),
        ("regression", "1e18", 1e18),
        ("structure", "<:>", "(.)"),
    ],
)
def test_what_cells_say(task, cell, label):
    options = {"ignore_label": "."} if task == "token-classification" else {}
    assert make(task, ["GC", "short"], **options).parse(cell, True) == label


def test_a_letter_is_a_label_and_the_options_of_predictions_will_do():
    task = TASKS["token-classification"](PredictOptions(ignore_label="."))
    task.names = ["S", "W"]
    assert task.parse("SW.", False) == [0, 1, NO_LABEL]


@pytest.mark.parametrize(
    ("cell", "problem"),
    [("", "'' is not a number"), ("nan", "'nan' is not finite"), ("1e300", "'1e300' is .*too lar")],
)
def test_cells_that_are_no_numbers(cell, problem):
    with pytest.raises(ValueError, match=problem):
        make("regression").parse(cell, False)


def test_a_cut_sequence_keeps_the_labels_that_are_in_it(tokenizer):
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
    rows = replace(rows_of(*sequences, sequences=sequences), labels=tuple(labels))
    assert make(task).unlabelled(rows) == count


def test_what_is_predicted():
    logits = torch.tensor([[0.1, -0.2, 0.3]])
    assert Classification(FinetuneOptions(task="classification")).reduce(logits, None).item() == 2
    assert make("multi-label").reduce(logits, None).tolist() == [[True, False, True]]


@pytest.mark.parametrize(("heads", "read"), [(4, None), (5, None), (6, [5]), (12, [5])])
def test_a_new_head_of_structures_reads_the_heads_that_there_are(heads, read):
    before, task = SimpleNamespace(num_attention_heads=heads), make("structure")
    assert task.config(before, kept=False) == {"pair_heads": read}
    assert task.config(before, kept=True) == {}
