"""Families by nearest neighbour and classes by a linear probe, on a small model."""

import random

import numpy as np
import pytest

from scripts import evaluate_embeddings
from scripts.evaluate_embeddings import Row, choose_families, neighbours, probe
from tests.golden_folder import write_golden_folder

ROWS = [Row(f"{letter * (20 + i)}", letter, "one") for letter in "ACG" for i in range(4)]


def letters_of(sequences):
    return np.array(
        [[sequence.count(letter) for letter in "ACGU"] for sequence in sequences], float
    )


def test_neighbours_of_one_kind_are_found():
    assert neighbours(letters_of, ROWS) == 1.0
    mixed = [Row(row.sequence, "AB"[i % 2], "one") for i, row in enumerate(ROWS)]
    assert neighbours(lambda sequences: np.eye(len(sequences)), mixed) < 1.0


def test_the_mean_is_over_families():
    odd = [*ROWS, Row("AC" * 10, "Z", "one"), Row("GU" * 10, "Z", "one")]
    assert neighbours(letters_of, odd) == pytest.approx(0.75, abs=0.07)


def test_families_of_one_sequence_are_left_out():
    rows = [*ROWS, Row("UUUU", "lone", "one"), Row("A" * 20, "A", "one"), Row("AA", "A", "two")]
    chosen = choose_families(rows, "one", 2)
    assert sorted(row.label for row in chosen) == ["A", "A", "C", "C", "G", "G"]


def test_probe_tells_copies_of_training_rows_apart():
    generator = random.Random(0)
    rows = [
        Row("".join(generator.choices(letters, k=30)), letters, "train")
        for letters in ("AAC", "GGU") * 12
    ]
    wrong = Row(rows[0].sequence, "GGU", "test")
    everything, new = probe(letters_of, rows, [*rows[:3], wrong, Row("GU" * 15, "GGU", "test")])
    assert (everything, new) == (0.8, 1.0)


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
    arguments = [what, str(model), str(table), "--train", "validation"]
    assert evaluate_embeddings.main(arguments) == 0
    printed = capsys.readouterr().out
    assert title in printed
    assert [line.split(" | ")[0] for line in printed.splitlines() if "weights" in line]
    assert printed.count("\n| ") == 4


def test_a_missing_column_is_named(tmp_path, capsys):
    table = tmp_path / "table.tsv"
    table.write_text("sequence\tsplit\nACGU\ttest\n")
    assert evaluate_embeddings.main(["families", "mini", str(table)]) == 1
    assert "no column family" in capsys.readouterr().err
