"""Families by nearest neighbour and classes by a linear probe, with a small model."""

import random

import numpy as np
import pytest

from scripts import evaluate_embeddings
from scripts.evaluate_embeddings import choose_families, neighbours, probe
from tests.golden_folder import write_golden_folder

ROWS = [(letter * (20 + i), letter) for letter in "ACG" for i in range(4)]


def count_letters(sequences):
    return np.array([[s.count(letter) for letter in "ACGU"] for s in sequences], float)


def test_share_of_neighbours_in_the_same_family_is_averaged_over_families():
    assert neighbours(ROWS, count_letters) == [1.0]
    mixed = [(sequence, "AB"[i % 2]) for i, (sequence, _) in enumerate(ROWS)]
    assert neighbours(mixed, lambda sequences: np.eye(len(sequences)))[0] < 1.0
    # The two sequences of the fourth family have their nearest neighbours in others.
    with_fourth = [*ROWS, ("AC" * 10, "Z"), ("GU" * 10, "Z")]
    assert neighbours(with_fourth, count_letters) == [pytest.approx(0.75, abs=0.07)]


def test_families_with_one_sequence_are_left_out():
    rows = [*ROWS, ("UUUU", "lone"), ("A" * 20, "A")]
    assert [family for _, family in choose_families(rows, 2)] == ["A", "A", "C", "C", "G", "G"]


def test_the_probe_has_a_second_accuracy_without_copies_of_training_rows():
    generator = random.Random(0)
    classes = ("AAC", "GGU") * 12
    rows = [("".join(generator.choices(letters, k=30)), letters) for letters in classes]
    mislabelled_copy = rows[0][0], "GGU"
    test_rows = [*rows[:3], mislabelled_copy, ("GU" * 15, "GGU")]
    assert probe(rows, test_rows, count_letters) == [0.8, 1.0]


@pytest.mark.parametrize(
    ("what", "column", "title"),
    [("families", "family", "nearest neighbour"), ("classes", "label", "without copies")],
)
def test_the_script_prints_a_table(tmp_path, capsys, what, column, title):
    generator = random.Random(0)
    lines = [f"sequence\t{column}\tsplit"]
    for split in ("validation", "test") * 12:
        letters = generator.choice(["AAC", "GGU"])
        lines.append(f"{''.join(generator.choices(letters, k=20))}\t{letters}\t{split}")
    table = tmp_path / "table.tsv"
    table.write_text("\n".join(lines) + "\n")
    model = write_golden_folder(tmp_path / "model")
    command = [what, str(model), str(table), "--train", "validation"]
    assert evaluate_embeddings.main(command) == 0
    printed = capsys.readouterr().out
    assert title in printed
    assert "\n| the same network, random weights | " in printed
    assert printed.count("\n| ") == 4
    assert evaluate_embeddings.main([*command, "--split", "none", "--test", "none"]) == 1
    assert "no row has the split 'none'" in capsys.readouterr().err
