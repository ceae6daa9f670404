"""What cells say, and what looks wrong with classes."""

import random

import pytest

from ernie_rna.training.labels import (
    NO_LABEL,
    are_measured,
    class_names,
    odd_classes,
    other_separator,
    parse_target,
)
from ernie_rna.training.options import FinetuneOptions
from ernie_rna.training.tasks import TASKS


def test_classes_have_one_order():
    by_value = ["1", "1.0", "1e0", "2"], ["-3", "2", "10"]
    for names in (*by_value, ["10", "9", "nan"], ["miRNA", "rRNA"]):
        for seed in range(5):
            cells = [*names, ""]
            random.Random(seed).shuffle(cells)
            assert class_names(cells) == names


def test_measured_values_are_no_classes():
    measured = [f"{value / 7:.3f}" for value in range(20)]
    assert are_measured(measured, 24)
    assert are_measured([f"4,{value:02}" for value in range(20)], 24)
    assert not are_measured(measured, 400)  # many rows for each
    assert not are_measured([str(value) for value in range(20)], 24)  # numbered families
    assert not are_measured(["0.5", "1.0", "2.0"], 4)


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (["a", "a", "NA", "nan", "nan", "NA"], "NA, nan (4 rows) is taken for a class"),
        (["a", "a", "None", "None"], "None (2 rows) is taken for a class of its own"),
        (["a", "a", "b"], "classes with a single row: b"),
    ],
)
def test_odd_classes(cells, sentence):
    (found,) = odd_classes(cells)
    assert sentence in found
    assert not [*odd_classes(["a", "a", "b", "b"])]


def test_another_separator_is_seen():
    assert not list(other_separator(["a;b", "a,b"], ";"))
    (sentence,) = other_separator(["a,b", "a"], ";")
    assert "no cell has the separator ';', but 1 have ','" in sentence
    assert "--label-separator ','" in sentence


def test_several_labels_of_a_cell_and_labels_of_bases():
    task = TASKS["multi-label"](FinetuneOptions(task="multi-label"))
    task.names = ["GC", "short"]
    found = [task.parse(cell, False) for cell in ("short; GC", "", "GC")]
    assert found == [[1, 1], [0, 0], [1, 0]]
    options = FinetuneOptions(task="token-classification", ignore_label=".")
    task = TASKS["token-classification"](options)
    task.names = ["S", "W"]
    for cell in ("SW.", "S W .", "S,W,."):
        assert task.parse(cell, False) == [0, 1, NO_LABEL]


def test_numbers():
    cells = {"4,5": 4.5, "-100": -100, "1e18": 1e18}
    assert [parse_target(cell, decimal_comma=True) for cell in cells] == [*cells.values()]


@pytest.mark.parametrize(
    ("cell", "problem"),
    [("", "an empty cell is not a number"), ("nan", "is not finite"), ("1e300", "is too large")],
)
def test_cells_that_are_no_numbers(cell, problem):
    with pytest.raises(ValueError, match=problem):
        parse_target(cell, False)
